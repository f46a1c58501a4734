"""The sync transport on httpcore: pooled connections, TLS, HTTP and SOCKS proxies, HTTP/2 where both sides want it."""

from __future__ import annotations

import collections
import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

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
from ._forking import tell
from ._log import tell_end
from ._network import SyncPool
from ._options import DRAIN_BYTES, DRAIN_SECONDS, Options, refuse_impersonation
from .streams.layers import Expired, closed_here

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deltawire.protocol import Deadlines, Event, HTTPRequest, Proxy, Reply

    from ._network import SyncConnection
    from ._tls import Verify
    from .streams.blocking import BlockingStream


class HTTPCoreTransport:
    """Exchanges over ``httpcore.ConnectionPool``, one pool a proxy. Shared between threads as one likes.

    ``verify``: True, a file of certificate authorities, an ``ssl.SSLContext``, or False; for servers and for https://
    proxies. ``keepalive_expiry``: seconds that an idle connection is kept (None: for ever); longer than one thinks
    between two questions. ``max_connections``: None for no limit. ``uds``: the path of a Unix domain socket, to which
    all connections are made in place of the host that the URL names. ``local_address``: the IP address to connect
    from.

    ``http2``: offer HTTP/2 in TLS (needs the extra ``deltawire[http2]``), for one request at a time.

    Connections have TCP_NODELAY and keep-alive probes (a dead peer is noticed within six minutes).
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
        self.closed = False
        self.forked()
        tell(self)

    def forked(self) -> None:
        """See `Forked`: the pools are the parent's."""
        self.process = os.getpid()
        self._pools: collections.OrderedDict[Proxy | None, SyncPool] = collections.OrderedDict()
        self._lock = threading.Lock()
        # Threads that are inside httpcore, and exchanges that were dropped meanwhile: see `abandon`.
        self.inside: set[int] = set()
        self.dropped: collections.deque[HTTPCoreExchange] = collections.deque()

    def open(
        self, request: HTTPRequest, reply: Reply, deadlines: Deadlines, *, proxy: Proxy | None = None
    ) -> HTTPCoreExchange:
        """An exchange for the request; raises `UsageError` when the transport is closed, `ConfigurationError` for a
        request that is to pass for a browser's."""
        refuse_impersonation(request)
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
            self.closed = True
            pools = list(self._pools.values())
            self._pools.clear()
        self.enter()
        try:
            for pool in pools:
                pool.close()
        finally:
            self.leave()

    def _pool(self, proxy: Proxy | None) -> SyncPool:
        surplus: SyncPool | None = None
        with self._lock:
            if self.closed:
                raise UsageError("the client is closed: make a new one")
            pool = self._pools.get(proxy)
            if pool is None:
                pool = self._pools[proxy] = SyncPool(**pool_arguments(self._options, proxy))
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

    def _surplus(self) -> SyncPool | None:
        for proxy, pool in self._pools.items():
            if pool.connections and all(connection.is_idle() for connection in pool.connections):
                return self._pools.pop(proxy)
        return None

    def enter(self) -> None:
        """This thread enters httpcore's code, which holds locks that are not reentrant."""
        self.inside.add(threading.get_ident())

    def leave(self) -> None:
        """And leaves it; what was dropped meanwhile is closed."""
        self.inside.discard(threading.get_ident())
        if self.dropped:
            self._close_dropped()

    def _close_dropped(self) -> None:
        while self.dropped:
            with contextlib.suppress(IndexError):
                self.dropped.popleft().abandon()

    def drop(self, exchange: HTTPCoreExchange) -> None:
        """Close an exchange from a finaliser, which may have interrupted httpcore in this very thread: then
        it is closed when httpcore is left."""
        if threading.get_ident() in self.inside:
            self.dropped.append(exchange)
        else:
            exchange.close_now()


class HTTPCoreExchange:
    """One request and its reply."""

    def __init__(
        self,
        transport: HTTPCoreTransport,
        pool: SyncPool,
        request: HTTPRequest,
        reply: Reply,
        deadlines: Deadlines,
        proxy: Proxy | None,
    ) -> None:
        self._transport = transport
        self._process = transport.process
        self._pool = pool
        self._request = request
        self._reply = reply
        self._deadlines = deadlines
        self._proxy = proxy
        self._connection: SyncConnection | None = None
        self._stream: BlockingStream | None = None
        self._response: httpcore.Response | None = None
        self._body: Iterator[bytes] = iter(())
        # Whether the body has been read to its end, and whether its verdict speaks for the connection.
        self._complete = False
        self._sound = False
        self._contents = 0
        self._closed = False
        self._kept = False
        # Taken once, by the one thread that drains: another may close meanwhile.
        self._draining = threading.Lock()

    def next_events(self) -> list[Event]:
        """See `Exchange`."""
        if self._reply.done:
            return []
        reply = self._reply
        events: list[Event] = []
        try:
            if self._response is None:
                events = self._open()
            if not events:
                self._wait()
            while not events and not reply.done:
                data = self._next()
                events = reply.end() if data is None else reply.receive(data)
            if (contents := reply.contents) != self._contents:
                self._contents = contents
                self._deadlines.content(time.monotonic())
        except PEER_ERRORS as error:
            events = reply.fail(peer_error(error, self._deadlines, reply.context))
        except BaseException:
            self.close_now()
            raise
        if reply.done:
            self._sound = speaks_well(events[-1], self._response)
        return events

    def _open(self) -> list[Event]:
        if self._closed:
            raise UsageError("the exchange is closed")
        response = self._send(first=True) or self._send(first=False)
        assert response is not None
        self._response = response
        self._body = iter(response.iter_stream())
        return self._reply.start(response.status, response.headers)

    def _send(self, *, first: bool) -> httpcore.Response | None:
        """Send the request; None if the first time a connection is used that died while it was kept."""
        progress = Progress(self._deadlines, self._request.parts.host, self._reply.context)
        request = httpcore.Request(**core_request(self._request, progress, self._proxy))
        self._transport.enter()
        try:
            response = self._pool.handle_request(request)
        except PEER_ERRORS as error:
            if not first or not progress.died_in_keeping(error):
                raise
            # Others that were kept as long are as dead: the next one is a new one.
            self._pool.forget_idle(request.url.origin)
            self._deadlines.connecting(time.monotonic())
            return None
        finally:
            self._transport.leave()
        self._connection = progress.connection
        self._stream = self._connection.network.stream
        return response

    def _wait(self) -> None:
        """The caller begins to wait: see how long he may."""
        if self._process != self._transport.process:
            # The parent's. Its pool may be locked for ever, by a thread that is not here.
            raise closed_here()
        now = time.monotonic()
        until = self._deadlines.wait_until(now)
        if now >= until:
            # Even if there is something left to read.
            raise Expired
        assert self._stream is not None
        self._stream.deadline = until

    def _next(self) -> bytes | None:
        """The next bytes of the body, None for its end."""
        transport, thread = self._transport, threading.get_ident()
        # As `enter` and `leave`, which would cost a call each for every token.
        transport.inside.add(thread)
        try:
            data = next(self._body, None)
        finally:
            transport.inside.discard(thread)
            if transport.dropped:
                transport.leave()
        if data is None:
            self._complete = True
        return data

    def close(self) -> None:
        """See `Exchange`."""
        if self._closed:
            return
        if self._sound and not self._complete and self._draining.acquire(blocking=False):
            self._drain()
        self.close_now()
        if self._response is not None:
            tell_end(self._request.parts.host, self._kept, self._reply)

    def _drain(self) -> None:
        """Read what is left after the last event, so that the connection can be kept: a little, for a little while."""
        assert self._stream is not None
        self._stream.deadline = time.monotonic() + DRAIN_SECONDS
        left = DRAIN_BYTES
        with contextlib.suppress(*PEER_ERRORS):
            while left > 0 and (data := self._next()) is not None:
                left -= len(data)

    def close_now(self) -> None:
        """Give the connection back, or close it, without waiting. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._response is None or self._connection is None or self._process != self._transport.process:
            return
        self._kept = self._sound and self._complete and not is_overfed(self._connection, self._response)
        if not self._kept:
            self._connection.abort()
        self._transport.enter()
        try:
            self._response.close()
            if self._transport.closed:
                # The connection may have been opened after that.
                self._pool.close()
        finally:
            self._transport.leave()

    def abandon(self) -> None:
        """See `Exchange`."""
        with contextlib.suppress(Exception):
            self._transport.drop(self)
