"""The sync transport on httpcore: pooled connections, TLS, HTTP proxies, HTTP/2 where both sides want it."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import httpcore

from deltawire.protocol import UsageError

from ._errors import PEER_ERRORS, exchange_error
from ._network import SyncNetwork, SyncStream
from ._options import DRAIN_BYTES, DRAIN_SECONDS, MAX_POOLS, Options, core_origin, core_request, read_timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deltawire.protocol import Deadlines, Event, HTTPRequest, Proxy, Reply

    from ._tls import Verify


class HTTPCoreTransport:
    """Exchanges over ``httpcore.ConnectionPool``, one pool a proxy. Shared between threads as one likes.

    ``verify``: True, a file of certificate authorities, an ``ssl.SSLContext``, or False. ``http2``: offer
    HTTP/2 in TLS (needs the extra ``deltawire[http2]``); a reply left early then closes its connection,
    hence all replies on it (httpcore can't reset a single stream). ``keepalive_expiry``: seconds
    that an idle connection is kept. ``max_connections``: None for no limit.
    """

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
        self._pools: collections.OrderedDict[Proxy | None, httpcore.ConnectionPool] = collections.OrderedDict()
        self._arguments: dict[str, Any] | None = None
        self._lock = threading.Lock()
        self._closed = False
        # Threads that are inside httpcore, and exchanges that were dropped meanwhile: see `abandon`.
        self._inside: set[int] = set()
        self._dropped: collections.deque[HTTPCoreExchange] = collections.deque()

    def open(
        self, request: HTTPRequest, reply: Reply, deadlines: Deadlines, *, proxy: Proxy | None = None
    ) -> HTTPCoreExchange:
        """An exchange for the request; raises `UsageError` when the transport is closed."""
        return HTTPCoreExchange(self, self._pool(proxy), request, reply, deadlines, proxy)

    def connections(self) -> tuple[int, int]:
        """How many connections are busy, and how many are idle."""
        with self._lock:
            pools = list(self._pools.values())
        found = [
            connection.is_idle() for pool in pools for connection in pool.connections if not connection.is_closed()
        ]
        return found.count(False), found.count(True)

    def close(self) -> None:
        """Close all connections. Idempotent."""
        with self._lock:
            self._closed = True
            pools = list(self._pools.values())
            self._pools.clear()
        self.enter()
        try:
            for pool in pools:
                pool.close()
        finally:
            self.leave()

    def _pool(self, proxy: Proxy | None) -> httpcore.ConnectionPool:
        surplus: httpcore.ConnectionPool | None = None
        with self._lock:
            if self._closed:
                raise UsageError("the client is closed: make a new one")
            pool = self._pools.get(proxy)
            if pool is None:
                if self._arguments is None:
                    self._arguments = self._options.pool_arguments()
                pool = httpcore.ConnectionPool(network_backend=SyncNetwork(proxy), **self._arguments)
                self._pools[proxy] = pool
                if len(self._pools) > MAX_POOLS:
                    surplus = self._surplus()
            self._pools.move_to_end(proxy)
        if surplus is not None:
            self.enter()
            try:
                surplus.close()
            finally:
                self.leave()
        return pool

    def _surplus(self) -> httpcore.ConnectionPool | None:
        for proxy, pool in self._pools.items():
            if pool.connections and all(connection.is_idle() for connection in pool.connections):
                return self._pools.pop(proxy)
        return None

    def enter(self) -> None:
        """This thread enters httpcore's code, which holds locks that are not reentrant."""
        self._inside.add(threading.get_ident())

    def leave(self) -> None:
        """And leaves it; what was dropped meanwhile is closed."""
        self._inside.discard(threading.get_ident())
        while self._dropped:
            with contextlib.suppress(IndexError):
                self._dropped.popleft().abandon()

    def drop(self, exchange: HTTPCoreExchange) -> None:
        """Close an exchange from a finaliser, which may have interrupted httpcore in this very thread: then
        it is closed when httpcore is left."""
        if threading.get_ident() in self._inside:
            self._dropped.append(exchange)
        else:
            exchange.close_now()


class HTTPCoreExchange:
    """One request and its reply."""

    def __init__(
        self,
        transport: HTTPCoreTransport,
        pool: httpcore.ConnectionPool,
        request: HTTPRequest,
        reply: Reply,
        deadlines: Deadlines,
        proxy: Proxy | None,
    ) -> None:
        self._transport = transport
        self._pool = pool
        self._request = request
        self._reply = reply
        self._deadlines = deadlines
        self._proxy = proxy
        self._response: httpcore.Response | None = None
        self._body: Iterator[bytes] = iter(())
        self._stream: SyncStream | None = None
        self._contents = 0
        self._timeouts: dict[str, float | None] = {}
        # When the caller began to wait.
        self._since = 0.0
        self._closed = False

    def next_events(self) -> list[Event]:
        """See `Exchange`."""
        reply = self._reply
        events: list[Event] = []
        self._since = time.monotonic()
        try:
            while not events and not reply.done:
                if self._response is None:
                    events = self._open()
                else:
                    data = self._read()
                    events = reply.end() if data is None else reply.receive(data)
                    if reply.contents != self._contents:
                        self._contents = reply.contents
                        self._deadlines.content(time.monotonic())
        except PEER_ERRORS as error:
            events = reply.fail(exchange_error(error, self._deadlines, reply.context.where()))
        except BaseException:
            self.close_now()
            raise
        return events

    def _open(self) -> list[Event]:
        if self._closed:
            raise UsageError("the exchange is closed")
        arguments = core_request(self._request, self._deadlines, self._proxy)
        self._timeouts = arguments["extensions"]["timeout"]
        self._transport.enter()
        try:
            self._response = self._pool.handle_request(httpcore.Request(**arguments))
        finally:
            self._transport.leave()
        stream = self._response.extensions.get("network_stream")
        # On HTTP/2 the stream is shared by many exchanges, and has no deadline of its own.
        if isinstance(stream, SyncStream) and self._response.extensions["http_version"] != b"HTTP/2":
            self._stream = stream
            stream.own_timeout = True
        self._body = iter(self._response.iter_stream())
        return self._reply.start(self._response.status, self._response.headers)

    def _read(self) -> bytes | None:
        timeout = read_timeout(self._deadlines, time.monotonic(), self._since, self._reply.context)
        if self._stream is not None:
            self._stream.read_timeout = timeout
        else:
            # On HTTP/2, httpcore looks here before each read.
            self._timeouts["read"] = timeout
        self._transport.enter()
        try:
            return next(self._body, None)
        finally:
            self._transport.leave()

    def close(self) -> None:
        """See `Exchange`."""
        if not self._closed and self._reply.done and self._stream is not None:
            self._drain(self._stream)
        self.close_now()

    def _drain(self, stream: SyncStream) -> None:
        """Read what is left after the last event, so that the connection can be kept: a little, for a
        little while."""
        until = time.monotonic() + DRAIN_SECONDS
        left = DRAIN_BYTES
        try:
            while left > 0 and (wait := until - time.monotonic()) > 0:
                stream.read_timeout = wait
                self._transport.enter()
                try:
                    data = next(self._body, None)
                finally:
                    self._transport.leave()
                if data is None:
                    return
                left -= len(data)
        except PEER_ERRORS:
            pass

    def close_now(self) -> None:
        """Give the connection back, or close it, without waiting. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._stream is not None:
            self._stream.own_timeout = False
        if self._response is not None:
            http2 = self._response.extensions.get("http_version") == b"HTTP/2"
            self._transport.enter()
            try:
                if http2 and not self._reply.done:
                    # The connection, not its socket: the pool would go on using it.
                    for connection in self._pool.connections:
                        if connection.can_handle_request(core_origin(self._request)):
                            connection.close()
                self._response.close()
            finally:
                self._transport.leave()

    def abandon(self) -> None:
        """See `Exchange`."""
        with contextlib.suppress(Exception):
            self._transport.drop(self)
