"""What httpcore connects with: our streams, given to it as its network backend, and connections that know them.

All of it is httpcore's public interface. A pool makes its connections by ``create_connection``, a connection its
stream by the backend that it was made with; so each of ours has a backend of its own, which keeps the stream. Then
an exchange can set that stream's deadline, which httpcore fixes once a request; can end it at once; and can say that
its connection is *spoiled*, so that it takes no further request and is closed when those that it has are over. (With
HTTP/2 others may be under way, which a stream that is left early must not take along.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpcore

from .streams.layers import after
from .streams.opening import aopen_stream, asecure, open_stream, secure, securing

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from ._core import Progress
    from .streams.blocking import BlockingStream
    from .streams.opening import AsyncStream, Way


class _Network:
    """Opens the stream of one connection, and keeps it."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self.stream: Any = None
        self.closed = False

    def _opened(self, stream: Any) -> None:
        self.stream = stream
        if self.closed:
            # By another thread or task, while there was nothing yet to close. Nobody would.
            stream.abort()
            raise ConnectionAbortedError("the client was closed")


class _Connection:
    """What the connections of both kinds know, beside what httpcore's own do."""

    network: _Network
    served = 0
    """How many requests it has taken."""
    spoiled = False
    """It takes no further request."""

    def _taken(self, request: httpcore.Request) -> None:
        progress: Progress = request.extensions["deltawire"]
        progress.taken(self)
        self.served += 1

    def abort(self) -> None:
        """End it now; nothing is left to be waited for."""
        self.spoiled = True
        if self.network.stream is not None:
            self.network.stream.abort()

    def is_shared(self) -> bool:
        """Whether other requests may be under way on it."""
        return self.network.stream is not None and bool(self.network.stream.shared)

    def is_available(self) -> bool:
        return not self.spoiled and bool(super().is_available())  # type: ignore[misc]

    def has_expired(self) -> bool:
        expired: bool = super().has_expired()  # type: ignore[misc]
        return expired or (self.spoiled and self.is_idle())  # type: ignore[attr-defined]

    def is_closed(self) -> bool:
        stream = self.network.stream
        return (stream is not None and stream.closed) or bool(super().is_closed())  # type: ignore[misc]


class _Pool:
    """What the pools of both kinds are made with. ``context`` gives the ``ssl.SSLContext`` for servers."""

    def __init__(self, way: Way, context: Callable[[], ssl.SSLContext], arguments: dict[str, Any]) -> None:
        super().__init__(  # type: ignore[call-arg]
            max_connections=arguments["max_connections"],
            max_keepalive_connections=arguments["max_keepalive_connections"],
            keepalive_expiry=arguments["keepalive_expiry"],
        )
        self._way = way
        self._context = context
        self._arguments = {name: arguments[name] for name in ("keepalive_expiry", "http2")}

    def _way_to(self, origin: httpcore.Origin) -> Way:
        # Without TLS inside, an HTTP proxy is sent the requests themselves, as `core_request` writes them.
        proxy = self._way.proxy
        forwards = proxy is not None and proxy.takes(origin.scheme.decode("ascii"))
        return self._way.forwarding() if forwards else self._way

    def _of_connection(self, origin: httpcore.Origin) -> dict[str, Any]:
        # Who speaks no TLS needs no context, which takes long to load.
        context = self._context() if origin.scheme == b"https" else None
        return {"origin": origin, "ssl_context": context, **self._arguments}

    def forget_idle(self, origin: httpcore.Origin) -> None:
        """Use none of the kept connections to this server again."""
        for connection in self.connections:  # type: ignore[attr-defined]
            if connection.can_handle_request(origin) and connection.is_idle():
                connection.spoiled = True


# Blocking


class _Stream(httpcore.NetworkStream):
    """A stream as httpcore wants it."""

    def __init__(self, inner: BlockingStream, way: Way) -> None:
        self._inner = inner
        self._way = way
        self._head = b""
        # No call more than need be: it is made for each token.
        self.read = inner.read  # type: ignore[method-assign]
        self.get_extra_info = inner.get_extra_info  # type: ignore[method-assign]

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._inner.corked:
            self._head = buffer
            return
        if self._head:
            buffer, self._head = self._head + buffer, b""
        try:
            self._inner.write(buffer, timeout)
        except OSError as error:
            # After which httpcore looks whether there is an answer all the same.
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self._inner.abort()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        with securing(self._way, server_hostname):
            secure(self._inner, ssl_context, server_hostname)
        self._inner.shared = False
        return self


class SyncNetwork(_Network, httpcore.NetworkBackend):
    """Connects for one connection."""

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *options: object, **more: object
    ) -> httpcore.NetworkStream:
        self._opened(open_stream(self._way, host, port, after(timeout)))
        return _Stream(self.stream, self._way)


class SyncConnection(_Connection, httpcore.HTTPConnection):
    """A connection that knows its stream, and takes one request at a time, also on HTTP/2: threads that read by turns
    would wait for each other's deadlines, and be ended by them."""

    def __init__(self, network: SyncNetwork, **arguments: Any) -> None:
        super().__init__(network_backend=network, **arguments)
        self.network = network

    def is_available(self) -> bool:
        return self.is_idle() and super().is_available()

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        self._taken(request)
        return super().handle_request(request)

    def close(self) -> None:
        self.network.closed = True
        super().close()


class SyncPool(_Pool, httpcore.ConnectionPool):
    """A pool of such connections."""

    def create_connection(self, origin: httpcore.Origin) -> httpcore.ConnectionInterface:
        return SyncConnection(SyncNetwork(self._way_to(origin)), **self._of_connection(origin))


# Async


class _AsyncStream(httpcore.AsyncNetworkStream):
    """As `_Stream`."""

    def __init__(self, inner: AsyncStream, way: Way) -> None:
        self._inner = inner
        self._way = way
        self._head = b""
        self.read = inner.read  # type: ignore[method-assign]
        self.get_extra_info = inner.get_extra_info  # type: ignore[method-assign]

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._inner.corked:
            self._head = buffer
            return
        if self._head:
            buffer, self._head = self._head + buffer, b""
        try:
            await self._inner.write(buffer, timeout)
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        self._inner.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        with securing(self._way, server_hostname):
            await asecure(self._inner, ssl_context, server_hostname)
        return self


class AsyncNetwork(_Network, httpcore.AsyncNetworkBackend):
    """As `SyncNetwork`, on the loop that runs."""

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *options: object, **more: object
    ) -> httpcore.AsyncNetworkStream:
        self._opened(await aopen_stream(self._way, host, port, after(timeout)))
        return _AsyncStream(self.stream, self._way)


class AsyncConnection(_Connection, httpcore.AsyncHTTPConnection):
    """As `SyncConnection`."""

    def __init__(self, network: AsyncNetwork, **arguments: Any) -> None:
        super().__init__(network_backend=network, **arguments)
        self.network = network

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        self._taken(request)
        return await super().handle_async_request(request)

    async def aclose(self) -> None:
        self.network.closed = True
        await super().aclose()


class AsyncPool(_Pool, httpcore.AsyncConnectionPool):
    """As `SyncPool`."""

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        return AsyncConnection(AsyncNetwork(self._way_to(origin)), **self._of_connection(origin))
