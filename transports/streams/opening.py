"""Opening a stream: connecting, and the handshakes on the way to the server.

What can go wrong here has two names. Waiting in vain is `Expired`, with what was waited for; all else is an error of
ours, which says who is at fault: the proxy (`ProxyError`), or the server or the way to it (`ConnectError`).
"""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

import msgspec

from deltawire.protocol import Proxy, ProxyError, TunnelFailed, tunnel
from deltawire.protocol.urls import authority

from .._log import DEBUG, LOG
from . import blocking
from .layers import TLS, Expired, is_ip_address
from .words import look_up_error, no_connection, no_tls, no_tls_with_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deltawire.protocol import HTTPConnect, Socks5, TransportError, TunnelEvent

    from .blocking import BlockingStream
    from .on_asyncio import AsyncioStream
    from .on_trio import TrioStream

    AsyncStream = AsyncioStream | TrioStream

# Of a name's addresses, so many are tried through a proxy that does not look it up.
_MOST_ADDRESSES = 4


# The replies of a SOCKS proxy after which another address of the same name may do better.
ELSEWHERE = (3, 4, 5, 6, 8)


# What a machine is told of a deadline that has passed.
_SILENCE = OSError("no answer in time")


class Way(msgspec.Struct, frozen=True):
    """How servers are reached."""

    proxy: Proxy | None = None
    proxy_context: Any = None
    """Gives the ``ssl.SSLContext`` for an https:// proxy."""
    uds: str | None = None
    """The path of a Unix domain socket, to connect to in place of any host."""
    local_address: str | None = None
    """The IP address to connect from."""
    forwards: bool = False
    """The proxy is asked for no tunnel: requests are sent to itself."""

    def forwarding(self) -> Way:
        """The same, for requests that are sent to the proxy itself."""
        return msgspec.structs.replace(self, forwards=True)

    def peer(self, host: str, port: int) -> tuple[str, int]:
        """To whom the connection is made."""
        return (host, port) if self.proxy is None else (self.proxy.host, self.proxy.port)

    def looks_up(self, host: str) -> bool:
        """Whether the server's name is looked up here, for the proxy; ``socks5h://`` leaves that to the proxy."""
        return self.scheme == "socks5" and not is_ip_address(host)

    def context_for_proxy(self) -> ssl.SSLContext:
        """A caller's own context may be the one for servers, too; and to those httpcore offers HTTP/2 by it."""
        context: ssl.SSLContext = self.proxy_context()
        context.set_alpn_protocols(["http/1.1"])
        return context

    @property
    def scheme(self) -> str:
        """The proxy's; "" for none."""
        return "" if self.proxy is None else self.proxy.scheme


# Blocking


def open_stream(way: Way, host: str, port: int, deadline: float) -> BlockingStream:
    """A stream to the server. Raises `ConnectError`, `ProxyError`, `Expired`."""
    hosts = [host]
    if way.looks_up(host):
        with _naming(host, port):
            hosts = _addresses(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    for each in hosts[:-1]:
        try:
            return _open(way, each, port, deadline)
        except ProxyError as error:
            if error.reply_code not in ELSEWHERE:
                raise
    return _open(way, hosts[-1], port, deadline)


def _open(way: Way, host: str, port: int, deadline: float) -> BlockingStream:
    peer = way.peer(host, port)
    with _connecting(way, *peer):
        if way.uds is not None:
            return blocking.connect_unix(way.uds, deadline)
        stream = blocking.connect(*peer, deadline, way.local_address)
    try:
        if way.proxy is None:
            _tell(way, host, port)
            return stream
        if way.scheme == "https":
            with _securing_proxy(way.proxy):
                secure(stream, way.context_for_proxy(), way.proxy.host)
        if not way.forwards:
            stream.early += _tunnel(stream, host, port, way.proxy)
        _tell(way, host, port)
    except BaseException:
        stream.abort()
        raise
    return stream


def _tunnel(stream: BlockingStream, host: str, port: int, proxy: Proxy) -> bytes:
    machine = tunnel(host, port, proxy)
    events: list[TunnelEvent] = []
    try:
        while not events:
            stream.write(machine.data_to_send())
            events = _heard(machine, stream.read())
        # A proxy may have answered ahead of its turn.
        stream.write(machine.data_to_send())
    except Expired:
        events = machine.fail(_SILENCE) or events
        _raise_silence(events)
    except OSError as error:
        events = machine.fail(error) or events
    return _opened(events)


def secure(stream: BlockingStream, context: ssl.SSLContext, hostname: str | None) -> None:
    """Lay TLS over a stream, which is closed if that fails. Raises `OSError`, `Expired`; `ValueError` for a name
    that is none."""
    try:
        layer = TLS(context, hostname)
        try:
            while not layer.handshake():
                stream.write(layer.outgoing())
                layer.feed(stream.read())
            stream.write(layer.outgoing())
            stream.secured(layer)
        except ssl.SSLError:
            # The alert that tells the peer why.
            with contextlib.suppress(OSError, Expired):
                stream.write(layer.outgoing())
            raise
    except BaseException:
        stream.abort()
        raise


# Async


async def aopen_stream(way: Way, host: str, port: int, deadline: float) -> AsyncStream:
    """As `open_stream`."""
    import anyio

    hosts = [host]
    if way.looks_up(host):
        with _naming(host, port), anyio.move_on_after(_left(deadline)) as scope:
            hosts = _addresses(await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        if scope.cancelled_caught:
            raise Expired(f"the name {host} is not found")
    for each in hosts[:-1]:
        try:
            return await _aopen(way, each, port, deadline)
        except ProxyError as error:
            if error.reply_code not in ELSEWHERE:
                raise
    return await _aopen(way, hosts[-1], port, deadline)


async def _aopen(way: Way, host: str, port: int, deadline: float) -> AsyncStream:
    peer = way.peer(host, port)
    with _connecting(way, *peer):
        stream = await _aconnect(way, *peer, deadline)
    try:
        if way.proxy is None:
            _tell(way, host, port)
            return stream
        if way.scheme == "https":
            with _securing_proxy(way.proxy):
                await asecure(stream, way.context_for_proxy(), way.proxy.host)
        if not way.forwards:
            stream.early += await _atunnel(stream, host, port, way.proxy)
        _tell(way, host, port)
    except BaseException:
        stream.abort()
        raise
    return stream


async def _aconnect(way: Way, host: str, port: int, deadline: float) -> AsyncStream:
    import anyio

    from .._lifetime import running_trio
    from .racing import addresses, first_of

    if running_trio() is not None:
        from . import on_trio as here
    else:
        from . import on_asyncio as here  # type: ignore[no-redef]
    with anyio.move_on_after(_left(deadline)):
        if way.uds is not None:
            return await here.connect_unix(way.uds, deadline)
        return await first_of(
            await addresses(host, port), lambda address: here.connect(address, deadline, way.local_address)
        )
    raise Expired


async def _atunnel(stream: AsyncStream, host: str, port: int, proxy: Proxy) -> bytes:
    machine = tunnel(host, port, proxy)
    events: list[TunnelEvent] = []
    try:
        while not events:
            await stream.write(machine.data_to_send())
            events = _heard(machine, await stream.read())
        await stream.write(machine.data_to_send())
    except Expired:
        events = machine.fail(_SILENCE) or events
        _raise_silence(events)
    except OSError as error:
        events = machine.fail(error) or events
    return _opened(events)


async def asecure(stream: AsyncStream, context: ssl.SSLContext, hostname: str | None) -> None:
    """As `secure`."""
    try:
        layer = TLS(context, hostname)
        try:
            while not layer.handshake():
                await stream.write(layer.outgoing())
                layer.feed(await stream.read())
            await stream.write(layer.outgoing())
            stream.secured(layer)
        except ssl.SSLError:
            with contextlib.suppress(OSError, Expired):
                await stream.write(layer.outgoing())
            raise
    except BaseException:
        stream.abort()
        raise


# What is told of it


def _tell(way: Way, host: str, port: int) -> None:
    if LOG.wants(DEBUG):
        to = authority(host, port) if way.uds is None else f"the socket {way.uds}"
        if way.proxy is not None:
            to = f"the proxy {way.proxy.url}" if way.forwards else f"{to} in a tunnel by the proxy {way.proxy.url}"
        LOG.say(DEBUG, "connected to %s", to, event="connected", to=to)


# What went wrong


@contextlib.contextmanager
def _saying(waiting_for: str, failed: Callable[[Exception], TransportError]) -> Iterator[None]:
    try:
        yield
    except Expired:
        raise Expired(waiting_for) from None
    # ValueError: a name that none can be (an empty label, one of more than 63 characters).
    except (OSError, ValueError) as error:
        raise failed(error) from error


def _naming(host: str, port: int) -> contextlib.AbstractContextManager[None]:
    return _saying(f"the name {host} is not found", lambda error: look_up_error(error, host))


def _connecting(way: Way, host: str, port: int) -> contextlib.AbstractContextManager[None]:
    who = "the server" if way.proxy is None else f"the proxy {way.proxy.url}"
    where = way.uds if way.uds is not None else f"{host}:{port}"
    return _saying(
        f"{who} takes no connection", lambda error: no_connection(error, where, way.proxy, way.local_address)
    )


def securing(way: Way, hostname: str | None) -> contextlib.AbstractContextManager[None]:
    """Round TLS with the server: its errors, in our words."""
    return _saying(f"the TLS handshake with {hostname} does not end", lambda error: no_tls(error, hostname, way.proxy))


def _securing_proxy(proxy: Proxy) -> contextlib.AbstractContextManager[None]:
    return _saying(
        f"the TLS handshake with the proxy {proxy.url} does not end", lambda error: no_tls_with_proxy(error, proxy)
    )


def _raise_silence(events: list[TunnelEvent]) -> None:
    """A proxy that says nothing is a matter of time; one that has refused, and says no more, has refused."""
    for event in events:
        if isinstance(event, TunnelFailed) and event.error.status_code is None:
            raise Expired(str(event.error)) from None


def _heard(machine: HTTPConnect | Socks5, data: bytes) -> list[TunnelEvent]:
    # Of the callers' variables none is to hold what a proxy says, which tracebacks may show: it may be the password.
    return machine.receive(data) if data else machine.end()


def _opened(events: list[TunnelEvent]) -> bytes:
    (event,) = events
    if isinstance(event, TunnelFailed):
        raise event.error
    return event.trailing


def _addresses(found: list[Any]) -> list[str]:
    if not found:
        raise OSError("it has no address")
    # In the resolver's order, each once.
    return list(dict.fromkeys(str(address[0]) for *_, address in found))[:_MOST_ADDRESSES]


def _left(deadline: float) -> float | None:
    return None if deadline == math.inf else max(deadline - time.monotonic(), 0.0)
