"""Network backends for httpcore: its own streams, with a deadline that can be set and a tunnel before them.

httpcore fixes the read timeout once a request; ours is an attribute of the stream, which the exchange sets
before each read. And httpcore's own tunnels leave a connection that never ends in the pool when the TLS
handshake behind the proxy fails; here the tunnel is part of connecting, so the pool never sees half of one.
Both are done with httpcore's public ``network_backend=``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio
import httpcore

from deltawire.protocol import HTTPConnect, TunnelFailed, TunnelOpened

from ._errors import connect_error, tls_error

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from deltawire.protocol import Proxy

_READ = 65536

# Small writes must leave at once; dead peers should be noticed in hours of silence, too.
_TCP = 6  # IPPROTO_TCP and TCP_NODELAY are 6 and 1 everywhere
SOCKET_OPTIONS = [(_TCP, 1, 1)]


def _left(until: float | None) -> float | None:
    return None if until is None else max(until - time.monotonic(), 0.001)


def _multiplexes(stream: httpcore.NetworkStream | httpcore.AsyncNetworkStream) -> bool:
    """Whether HTTP/2 was agreed on."""
    tls = stream.get_extra_info("ssl_object")
    return tls is not None and tls.selected_alpn_protocol() == "h2"


class _Limits:
    """How long the next read of a stream may take; see `SyncStream`."""

    def __init__(self, *, multiplexed: bool) -> None:
        self.own_timeout = False
        self.read_timeout: float | None = None
        self._multiplexed = multiplexed
        self._head_until: float | None = None

    def _written(self, timeout: float | None) -> None:
        if not self._multiplexed:
            self._head_until = None if timeout is None else time.monotonic() + timeout

    def _may_take(self, timeout: float | None) -> float | None:
        if self.own_timeout:
            return self.read_timeout
        # A head that comes in drops gets no more time than one that comes at once.
        return timeout if self._head_until is None else _left(self._head_until)


def _opened(events: list[Any]) -> TunnelOpened | None:
    for event in events:
        if isinstance(event, TunnelFailed):
            raise event.error
        return event  # type: ignore[no-any-return]
    return None


class SyncStream(_Limits, httpcore.NetworkStream):
    """A connection.

    With ``own_timeout``, ``read_timeout`` is what the next read may take (seconds, None for ever). Without, that
    is httpcore's timeout, counted from the last write: for all reads of a reply's head together.
    """

    def __init__(
        self,
        inner: httpcore.NetworkStream,
        connect_until: float | None,
        leading: bytes = b"",
        *,
        multiplexed: bool = False,
    ) -> None:
        super().__init__(multiplexed=multiplexed)
        self._inner = inner
        self._connect_until = connect_until
        self._leading = leading

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._leading:
            data, self._leading = self._leading[:max_bytes], self._leading[max_bytes:]
            return data
        return self._inner.read(max_bytes, self._may_take(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._written(timeout)
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            inner = self._inner.start_tls(ssl_context, server_hostname, _left(self._connect_until))
        except (httpcore.ConnectError, httpcore.ReadError) as error:
            raise tls_error(error, server_hostname) from error
        except BaseException:
            self._inner.close()
            raise
        return SyncStream(inner, None, multiplexed=_multiplexes(inner))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class SyncNetwork(httpcore.NetworkBackend):
    """Connects directly, or through one proxy."""

    def __init__(self, proxy: Proxy | None) -> None:
        self._proxy = proxy
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> SyncStream:
        until = None if timeout is None else time.monotonic() + timeout
        proxy = self._proxy
        peer = (host, port) if proxy is None else (proxy.host, proxy.port)
        try:
            stream = self._backend.connect_tcp(*peer, timeout, local_address, SOCKET_OPTIONS)
        except httpcore.ConnectError as error:
            raise connect_error(error, *peer, proxy) from error
        except httpcore.ConnectTimeout as error:
            if proxy is None:
                raise
            raise connect_error(error, *peer, proxy) from error
        if proxy is None or peer == (host, port):
            return SyncStream(stream, until)
        try:
            return SyncStream(stream, until, self._tunnel(stream, HTTPConnect(host, port, proxy), until))
        except BaseException:
            stream.close()
            raise

    def _tunnel(self, stream: httpcore.NetworkStream, machine: HTTPConnect, until: float | None) -> bytes:
        try:
            stream.write(machine.data_to_send(), _left(until))
            while True:
                data = stream.read(_READ, _left(until))
                if (opened := _opened(machine.receive(data) if data else machine.end())) is not None:
                    return opened.trailing
        except (httpcore.NetworkError, httpcore.TimeoutException) as error:
            _opened(machine.fail(error))
            raise


class AsyncStream(_Limits, httpcore.AsyncNetworkStream):
    """As `SyncStream`."""

    def __init__(
        self,
        inner: httpcore.AsyncNetworkStream,
        connect_until: float | None,
        leading: bytes = b"",
        *,
        multiplexed: bool = False,
    ) -> None:
        super().__init__(multiplexed=multiplexed)
        self._inner = inner
        self._connect_until = connect_until
        self._leading = leading

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._leading:
            data, self._leading = self._leading[:max_bytes], self._leading[max_bytes:]
            return data
        return await self._inner.read(max_bytes, self._may_take(timeout))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._written(timeout)
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            inner = await self._inner.start_tls(ssl_context, server_hostname, _left(self._connect_until))
        except (httpcore.ConnectError, httpcore.ReadError) as error:
            raise tls_error(error, server_hostname) from error
        except BaseException:
            # Cancellation, above all: httpcore's own stream closes for an Exception only.
            with anyio.CancelScope(shield=True):
                await self._inner.aclose()
            raise
        return AsyncStream(inner, None, multiplexed=_multiplexes(inner))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class AsyncNetwork(httpcore.AsyncNetworkBackend):
    """As `SyncNetwork`; on asyncio and trio, by anyio (which tries IPv6 and IPv4 in turn, RFC 6555)."""

    def __init__(self, proxy: Proxy | None) -> None:
        self._proxy = proxy
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> AsyncStream:
        until = None if timeout is None else time.monotonic() + timeout
        proxy = self._proxy
        peer = (host, port) if proxy is None else (proxy.host, proxy.port)
        try:
            stream = await self._backend.connect_tcp(*peer, timeout, local_address)
        except httpcore.ConnectError as error:
            raise connect_error(error, *peer, proxy) from error
        except httpcore.ConnectTimeout as error:
            if proxy is None:
                raise
            raise connect_error(error, *peer, proxy) from error
        if proxy is None or peer == (host, port):
            return AsyncStream(stream, until)
        try:
            return AsyncStream(stream, until, await self._tunnel(stream, HTTPConnect(host, port, proxy), until))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await stream.aclose()
            raise

    async def _tunnel(self, stream: httpcore.AsyncNetworkStream, machine: HTTPConnect, until: float | None) -> bytes:
        try:
            await stream.write(machine.data_to_send(), _left(until))
            while True:
                data = await stream.read(_READ, _left(until))
                if (opened := _opened(machine.receive(data) if data else machine.end())) is not None:
                    return opened.trailing
        except (httpcore.NetworkError, httpcore.TimeoutException) as error:
            _opened(machine.fail(error))
            raise
