"""The async transport on httpcore, for asyncio and trio alike."""

from __future__ import annotations

import collections
import contextlib
import time
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import httpcore

from deltawire.protocol import UsageError

from ._errors import PEER_ERRORS, exchange_error
from ._lifetime import Runner, running_loop
from ._network import AsyncNetwork, AsyncStream
from ._options import DRAIN_BYTES, DRAIN_SECONDS, MAX_POOLS, Options, core_origin, core_request, read_timeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from deltawire.protocol import Deadlines, Event, HTTPRequest, Proxy, Reply

    from ._tls import Verify


class _Pools:
    """The pools of one event loop."""

    def __init__(self) -> None:
        self.runner = Runner()
        self.by_proxy: collections.OrderedDict[Proxy | None, httpcore.AsyncConnectionPool] = collections.OrderedDict()

    async def aclose(self) -> None:
        while self.by_proxy:
            _, pool = self.by_proxy.popitem()
            await pool.aclose()

    async def finish(self) -> None:
        """Close, with nothing left to do when the loop ends."""
        await self.aclose()
        await self.runner.forget()


class AsyncHTTPCoreTransport:
    """As `HTTPCoreTransport`, for asyncio and trio. Each event loop has its own connections: one transport may
    serve one ``asyncio.run`` after the other, and what is open when a loop ends is closed with it."""

    def __init__(
        self,
        *,
        verify: Verify = True,
        http2: bool = False,
        keepalive_expiry: float = 60.0,
        max_connections: int | None = None,
        max_keepalive_connections: int = 20,
    ) -> None:
        self._options = Options(
            verify=verify,
            http2=http2,
            keepalive_expiry=keepalive_expiry,
            max_connections=max_connections,
            max_keepalive_connections=max_keepalive_connections,
        )
        # By loop; those of loops that are gone vanish by themselves. (anyio's RunVar would keep each pool, hence
        # each transport's, as long as the loop, and the loop for ever.)
        self._pools: weakref.WeakKeyDictionary[Any, _Pools] = weakref.WeakKeyDictionary()
        self._arguments: dict[str, Any] | None = None
        self._closed = False

    def open(
        self, request: HTTPRequest, reply: Reply, deadlines: Deadlines, *, proxy: Proxy | None = None
    ) -> AsyncHTTPCoreExchange:
        """An exchange for the request; raises `UsageError` when the transport is closed."""
        if self._closed:
            raise UsageError("the client is closed: make a new one")
        return AsyncHTTPCoreExchange(self, request, reply, deadlines, proxy)

    def connections(self) -> tuple[int, int]:
        """How many connections of the running loop are busy, and how many are idle."""
        pools = self._pools.get(running_loop())
        found = [
            connection.is_idle()
            for pool in (pools.by_proxy.values() if pools is not None else ())
            for connection in pool.connections
            if not connection.is_closed()
        ]
        return found.count(False), found.count(True)

    async def aclose(self) -> None:
        """Close all connections of the running loop. Idempotent."""
        self._closed = True
        pools = self._pools.pop(running_loop(), None)
        if pools is not None:
            with anyio.CancelScope(shield=True):
                await pools.finish()

    def abandon(self) -> None:
        """As `aclose`, from a finaliser: for all loops, each on its own time."""
        for pools in list(self._pools.values()):
            pools.runner.spawn(pools.finish)

    async def pool(self, proxy: Proxy | None) -> tuple[httpcore.AsyncConnectionPool, Runner]:
        """The running loop's pool for a proxy."""
        loop = running_loop()
        pools = self._pools.get(loop)
        if pools is None:
            self._pools[loop] = pools = _Pools()
            await pools.runner.at_end(pools.aclose)
        pool = pools.by_proxy.get(proxy)
        if pool is None:
            if self._arguments is None:
                self._arguments = self._options.pool_arguments()
            pool = httpcore.AsyncConnectionPool(network_backend=AsyncNetwork(proxy), **self._arguments)
            pools.by_proxy[proxy] = pool
            if len(pools.by_proxy) > MAX_POOLS:
                await _close_surplus(pools)
        pools.by_proxy.move_to_end(proxy)
        return pool, pools.runner


async def _close_surplus(pools: _Pools) -> None:
    for proxy, pool in pools.by_proxy.items():
        if pool.connections and all(connection.is_idle() for connection in pool.connections):
            del pools.by_proxy[proxy]
            await pool.aclose()
            return


class AsyncHTTPCoreExchange:
    """One request and its reply."""

    def __init__(
        self,
        transport: AsyncHTTPCoreTransport,
        request: HTTPRequest,
        reply: Reply,
        deadlines: Deadlines,
        proxy: Proxy | None,
    ) -> None:
        self._transport = transport
        self._request = request
        self._reply = reply
        self._deadlines = deadlines
        self._proxy = proxy
        self._response: httpcore.Response | None = None
        self._body: AsyncIterator[bytes] | None = None
        self._stream: AsyncStream | None = None
        self._pool: httpcore.AsyncConnectionPool | None = None
        self._runner: Runner | None = None
        self._contents = 0
        self._timeouts: dict[str, float | None] = {}
        # When the caller began to wait.
        self._since = 0.0
        self._closed = False

    async def next_events(self) -> list[Event]:
        """See `AsyncExchange`."""
        reply = self._reply
        events: list[Event] = []
        self._since = time.monotonic()
        try:
            while not events and not reply.done:
                if self._body is None:
                    events = await self._open()
                else:
                    data = await self._read(self._body)
                    events = reply.end() if data is None else reply.receive(data)
                    if reply.contents != self._contents:
                        self._contents = reply.contents
                        self._deadlines.content(time.monotonic())
        except PEER_ERRORS as error:
            events = reply.fail(exchange_error(error, self._deadlines, reply.context.where()))
        except BaseException:
            await self._aclose_now()
            raise
        return events

    async def _open(self) -> list[Event]:
        if self._closed:
            raise UsageError("the exchange is closed")
        self._pool, self._runner = await self._transport.pool(self._proxy)
        arguments = core_request(self._request, self._deadlines, self._proxy, asynchronous=True)
        self._timeouts = arguments["extensions"]["timeout"]
        self._response = response = await self._pool.handle_async_request(httpcore.Request(**arguments))
        stream = response.extensions.get("network_stream")
        # On HTTP/2 the stream is shared by many exchanges, and has no deadline of its own.
        if isinstance(stream, AsyncStream) and response.extensions["http_version"] != b"HTTP/2":
            self._stream = stream
            stream.own_timeout = True
        self._body = response.aiter_stream().__aiter__()
        return self._reply.start(response.status, response.headers)

    async def _read(self, body: AsyncIterator[bytes]) -> bytes | None:
        timeout = read_timeout(self._deadlines, time.monotonic(), self._since, self._reply.context)
        if self._stream is not None:
            self._stream.read_timeout = timeout
        else:
            # On HTTP/2, httpcore looks here before each read.
            self._timeouts["read"] = timeout
        return await self._next(body)

    async def aclose(self) -> None:
        """See `AsyncExchange`."""
        if self._closed:
            return
        try:
            if self._reply.done and self._stream is not None and self._body is not None:
                await self._drain(self._stream, self._body)
        finally:
            await self._aclose_now()

    async def _drain(self, stream: AsyncStream, body: AsyncIterator[bytes]) -> None:
        """As `HTTPCoreExchange._drain`."""
        until = time.monotonic() + DRAIN_SECONDS
        left = DRAIN_BYTES
        try:
            while left > 0 and (wait := until - time.monotonic()) > 0:
                stream.read_timeout = wait
                data = await self._next(body)
                if data is None:
                    return
                left -= len(data)
        except PEER_ERRORS:
            pass

    @staticmethod
    async def _next(body: AsyncIterator[bytes]) -> bytes | None:
        try:
            return await body.__anext__()
        except StopAsyncIteration:
            return None

    async def _aclose_now(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._stream is not None:
            self._stream.own_timeout = False
        response, body = self._response, self._body
        if response is None:
            return
        if body is not None:
            # httpcore nests async generators and closes only the outermost. Resumed under a cancelled scope,
            # each of them ends by the exception, now and here, and the innermost closes the connection.
            with anyio.CancelScope() as scope:
                scope.cancel()
                with contextlib.suppress(StopAsyncIteration, *PEER_ERRORS):
                    while True:
                        await body.__anext__()
        with anyio.CancelScope(shield=True), contextlib.suppress(*PEER_ERRORS):
            if response.extensions.get("http_version") == b"HTTP/2" and not self._reply.done and self._pool:
                # The connection, not its socket: the pool would go on using it.
                for connection in self._pool.connections:
                    if connection.can_handle_request(core_origin(self._request)):
                        await connection.aclose()
            # Else the pool's slot is held.
            await response.aclose()

    def abandon(self) -> None:
        """See `AsyncExchange`."""
        if not self._closed and self._runner is not None:
            self._runner.spawn(self._aclose_now)
