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

from ._core import (
    MAX_POOLS,
    PEER_ERRORS,
    Progress,
    core_request,
    is_overfed,
    peer_error,
    pool_arguments,
    speaks_well,
)
from ._lifetime import Runner, forget_closed, running_loop
from ._log import tell_end
from ._network import AsyncConnection, AsyncPool
from ._options import DRAIN_BYTES, DRAIN_SECONDS, Options, refuse_impersonation, time_left
from .streams.layers import Expired, closed_here

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator

    from deltawire.protocol import Deadlines, Event, HTTPRequest, Proxy, Reply

    from ._network import AsyncConnection
    from ._tls import Verify
    from .streams.opening import AsyncStream


class _Pools:
    """The pools of one event loop."""

    def __init__(self) -> None:
        self.runner = Runner()
        self.by_proxy: collections.OrderedDict[Proxy | None, AsyncPool] = collections.OrderedDict()
        self.closed = False
        """Whether what is opened from now on is closed when it is given back."""

    async def aclose(self) -> None:
        while self.by_proxy:
            _, pool = self.by_proxy.popitem()
            await pool.aclose()

    async def finish(self) -> None:
        """Close, with nothing left to do when the loop ends."""
        self.closed = True
        await self.aclose()
        await self.runner.forget()

    def abort(self) -> None:
        """Close their connections when the loop is closed, where nobody can be woken."""
        for pool in self.by_proxy.values():
            for connection in pool.connections:
                assert isinstance(connection, AsyncConnection)
                with contextlib.suppress(RuntimeError):
                    connection.abort()


class AsyncHTTPCoreTransport:
    """As `HTTPCoreTransport`, for asyncio and trio. Each event loop has its own connections: one transport may
    serve one ``asyncio.run`` after the other, and what is open when a loop ends is closed with it.

    HTTP/2 carries many requests on one connection. httpcore can't reset a single one of them: after a reply that is
    left early, or whose deadline passes, its connection takes no further request, and is closed when the others on
    it are over.
    """

    def __init__(
        self,
        *,
        verify: Verify = True,
        http2: bool = False,
        keepalive_expiry: float | None = 60.0,
        max_connections: int | None = None,
        max_keepalive_connections: int | None = 20,
        uds: str | os.PathLike[str] | None = None,
        local_address: str | None = None,
    ) -> None:
        self._options = Options(
            verify=verify,
            http2=http2,
            keepalive_expiry=keepalive_expiry,
            max_connections=max_connections,
            max_keepalive_connections=max_keepalive_connections,
            uds=uds,
            local_address=local_address,
        )
        # By loop; those of loops that are gone vanish by themselves. (anyio's RunVar would keep each pool, hence
        # each transport's, as long as the loop, and the loop for ever.)
        self._pools: weakref.WeakKeyDictionary[Any, _Pools] = weakref.WeakKeyDictionary()
        self.closed = False

    def open(
        self, request: HTTPRequest, reply: Reply, deadlines: Deadlines, *, proxy: Proxy | None = None
    ) -> AsyncHTTPCoreExchange:
        """An exchange for the request; raises `UsageError` when the transport is closed, `ConfigurationError` for a
        request that is to pass for a browser's."""
        refuse_impersonation(request)
        if self.closed:
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
        self.closed = True
        pools = self._pools.pop(running_loop(), None)
        if pools is not None:
            with anyio.CancelScope(shield=True):
                await pools.finish()

    def abandon(self) -> None:
        """As `aclose`, from a finaliser: for all loops, each on its own time."""
        for pools in list(self._pools.values()):
            pools.runner.spawn(pools.finish)

    async def pool(self, proxy: Proxy | None) -> tuple[AsyncPool, _Pools]:
        """The running loop's pool for a proxy, and all of its pools."""
        loop = running_loop()
        pools = self._pools.get(loop)
        if pools is None:
            forget_closed(self._pools)
            self._pools[loop] = pools = _Pools()
            await pools.runner.at_end(pools.aclose)
        pool = pools.by_proxy.get(proxy)
        if pool is None:
            pool = pools.by_proxy[proxy] = AsyncPool(**pool_arguments(self._options, proxy))
            if len(pools.by_proxy) > MAX_POOLS:
                await _close_surplus(pools)
        pools.by_proxy.move_to_end(proxy)
        return pool, pools


async def _close_surplus(pools: _Pools) -> None:
    for proxy, pool in pools.by_proxy.items():
        if pool.connections and all(connection.is_idle() for connection in pool.connections):
            del pools.by_proxy[proxy]
            await pool.aclose()
            return


class AsyncHTTPCoreExchange:
    """As `HTTPCoreExchange`."""

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
        self._pools: _Pools | None = None
        self._pool: AsyncPool | None = None
        self._connection: AsyncConnection | None = None
        self._stream: AsyncStream | None = None
        self._response: httpcore.Response | None = None
        self._body: AsyncIterator[bytes] | None = None
        self._complete = False
        self._sound = False
        self._contents = 0
        self._closed = False
        self._kept = False
        # A task is inside the body; another one that closes has it leave, and waits for that.
        self._reading = False
        self._left: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None

    async def next_events(self) -> list[Event]:
        """See `AsyncExchange`."""
        if self._reply.done:
            return []
        reply = self._reply
        events: list[Event] = []
        try:
            if self._body is None:
                events = await self._open()
            now = time.monotonic()
            until = self._deadlines.wait_until(now)
            if now >= until:
                raise Expired
            while not events and not reply.done:
                data = await self._next(until)
                events = reply.end() if data is None else reply.receive(data)
            if (contents := reply.contents) != self._contents:
                self._contents = contents
                self._deadlines.content(time.monotonic())
        except PEER_ERRORS as error:
            events = reply.fail(peer_error(error, self._deadlines, reply.context))
        except BaseException:
            await self._aclose_now()
            raise
        if reply.done:
            self._sound = speaks_well(events[-1], self._response)
        return events

    async def _open(self) -> list[Event]:
        if self._closed:
            raise UsageError("the exchange is closed")
        self._pool, self._pools = await self._transport.pool(self._proxy)
        pool = self._pool
        response = await self._send(pool, first=True) or await self._send(pool, first=False)
        assert response is not None
        self._response = response
        self._body = response.aiter_stream().__aiter__()
        return self._reply.start(response.status, response.headers)

    async def _send(self, pool: AsyncPool, *, first: bool) -> httpcore.Response | None:
        """As `HTTPCoreExchange._send`."""
        progress = Progress(self._deadlines, self._request.parts.host, self._reply.context)
        request = httpcore.Request(**core_request(self._request, progress, self._proxy, asynchronous=True))
        try:
            response = await pool.handle_async_request(request)
        except PEER_ERRORS as error:
            if not first or not progress.died_in_keeping(error):
                raise
            pool.forget_idle(request.url.origin)
            self._deadlines.connecting(time.monotonic())
            return None
        except BaseException:
            # httpcore's own cleaning up does not survive being cancelled twice.
            if progress.holds and not progress.connection.is_shared():
                progress.connection.abort()
            raise
        self._connection = progress.connection
        self._stream = progress.connection.network.stream
        return response

    async def _next(self, until: float) -> bytes | None:
        """The next bytes of the body, None for its end."""
        assert self._stream is not None
        assert self._body is not None
        if self._closed:
            raise closed_here()
        self._reading = True
        try:
            if not self._stream.shared:
                self._stream.deadline = until
                return await self._body.__anext__()
            # On HTTP/2 a read that times out ends all replies on the connection; one that is cancelled does not.
            with anyio.move_on_after(time_left(until)) as self._scope:
                return await self._body.__anext__()
            raise closed_here() if self._closed else Expired
        except StopAsyncIteration:
            self._complete = True
            return None
        finally:
            self._reading = False
            if self._left is not None:
                self._left.set()

    async def aclose(self) -> None:
        """See `AsyncExchange`."""
        if self._closed:
            return
        try:
            if self._sound and not self._complete and not self._reading:
                await self._drain()
        finally:
            await self._aclose_now()
        if self._response is not None:
            tell_end(self._request.parts.host, self._kept, self._reply)

    async def _drain(self) -> None:
        """As `HTTPCoreExchange._drain`."""
        left, until = DRAIN_BYTES, time.monotonic() + DRAIN_SECONDS
        if self._stream is None or self._stream.shared:
            return
        with contextlib.suppress(*PEER_ERRORS):
            while left > 0 and (data := await self._next(until)) is not None:
                left -= len(data)

    async def _aclose_now(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._response is None or self._connection is None or self._stream is None:
            return
        if not self._sound:
            self._connection.spoiled = True
        self._kept = self._sound and self._complete and not is_overfed(self._connection, self._response)
        if not self._stream.shared and not self._kept:
            # From here on nothing waits for the peer, and what follows is bookkeeping.
            self._connection.abort()
        if self._reading:
            self._left = anyio.Event()
            if self._scope is not None:
                self._scope.cancel()
        assert self._pools is not None
        await self._pools.runner.uncancelled(self._give_back)

    async def _give_back(self) -> None:
        """Tell httpcore that the reply is over."""
        assert self._response is not None
        assert self._body is not None
        if self._left is not None:
            await self._left.wait()
        if not self._complete:
            # httpcore nests async generators and closes only the outermost. Resumed on a stream that was ended, or else
            # under a cancelled scope, each of them ends by the exception, now and here.
            with anyio.CancelScope() as scope, contextlib.suppress(StopAsyncIteration, *PEER_ERRORS):
                scope.cancel()
                while True:
                    await self._body.__anext__()
        with contextlib.suppress(*PEER_ERRORS):
            # Else the pool's slot is held.
            await self._response.aclose()
        if self._pools is not None and self._pools.closed and self._pool is not None:
            # The connection may have been opened after that. (When the transport was closed in another loop, this
            # one's connections go on.)
            await self._pool.aclose()

    def abandon(self) -> None:
        """See `AsyncExchange`."""
        if not self._closed and self._pools is not None:
            if self._connection is not None and not self._sound:
                # At once: the closing comes later than the next request.
                self._connection.spoiled = True
            self._pools.runner.spawn(self._aclose_now)
