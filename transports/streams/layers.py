"""What a stream is made of above its socket: TLS, and bytes that came early. No I/O, no waiting."""

from __future__ import annotations

import contextlib
import itertools
import math
import selectors
import socket
import ssl
import time
from typing import Any

from .._forking import tell

# The longest plaintext of a TLS record (RFC 8446 section 5.1).
_RECORD = 16384

# As many bytes as a read asks the socket for.
READ = 65536


# One socket at a time is looked at; epoll and kqueue would cost a descriptor each.
Selector: Any = getattr(selectors, "PollSelector", selectors.SelectSelector)


HAS_UNIX_SOCKETS = hasattr(socket, "AF_UNIX")


# As `socket.getaddrinfo` gives them.
Address = tuple[int, int, int, str, Any]


class Expired(Exception):
    """The stream's deadline has passed."""


def after(timeout: float | None) -> float:
    """The deadline that is so many seconds away; None: never."""
    return math.inf if timeout is None else time.monotonic() + timeout


class TLS:
    """The client's side of TLS over any bytes."""

    def __init__(self, context: ssl.SSLContext, server_hostname: str | None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self.over = False
        """Whether nothing more comes: the peer has ended its direction, or broken the rules."""
        self.notified = False
        """Whether the peer has said that it ends (close_notify)."""
        self._error: ssl.SSLError | None = None

    def handshake(self) -> bool:
        """Go on with the handshake; whether it is complete. Raises `ssl.SSLError`."""
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def feed(self, data: bytes) -> None:
        """Bytes of the peer have come; b"": no more will."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def outgoing(self) -> bytes:
        """What is to be sent to the peer."""
        return self._outgoing.read()

    def encrypt(self, data: bytes) -> bytes:
        """These bytes as records. Answers that the peer awaits since then (to its key update) go along."""
        self.object.write(data)
        return self._outgoing.read()

    def decrypt(self) -> bytes | None:
        """What has come, as far as records are whole: b"" for the end, None for nothing yet. Raises `ssl.SSLError`."""
        parts: list[bytes] = []
        try:
            while not self.over:
                part = self.object.read(_RECORD)
                if part:
                    parts.append(part)
                    if not (self._incoming.pending or self._incoming.eof or self.object.pending()):
                        break
                else:
                    self.over = self.notified = True
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            # Many servers end without a close_notify. Whether the reply was whole, its own framing tells.
            self.over = True
        except ssl.SSLError as error:
            self.over, self._error = True, error
        if parts:
            # Whatever went wrong behind them.
            return parts[0] if len(parts) == 1 else b"".join(parts)
        if self._error is not None:
            raise self._error
        return b"" if self.over else None


class Layers:
    """What the three kinds of stream have in common."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        """When reading and writing give up: a time of `time.monotonic`."""
        self.shared = False
        """Many read this stream by turns (HTTP/2): not the deadline counts, but the time-out of each call."""
        self.early = b""
        """What is read first: bytes that came behind a handshake."""
        self.silent = True
        """Nothing has come since this was last set."""
        self.closed = False
        """Whether this end was closed."""
        self.corked = False
        """What is written now shall leave together with what is written next; whoever writes sees to that."""
        self.tls: tuple[TLS, ...] = ()
        """From the socket upwards."""

    @property
    def untouched(self) -> bool:
        """Whether nothing has come since `silent` was last set, but perhaps the word of TLS that it ends. (Of a record
        that is cut off nobody knows what it was about to say.)"""
        return self.silent or bool(self.tls and self.tls[-1].notified)

    def _until(self, timeout: float | None) -> float:
        return after(timeout) if self.shared else self.deadline

    def _later(self, until: float) -> float:
        """This time has come: the deadline, if it was put off meanwhile. Raises `Expired` if not."""
        if self.shared or self.deadline <= until:
            raise Expired
        return self.deadline

    def _ready(self) -> bytes | None:
        """What can be read without asking the socket; b"" for the end, None for nothing."""
        if self.closed:
            raise closed_here()
        if self.early:
            data, self.early = self.early, b""
            return data
        return self.tls[-1].decrypt() if self.tls and self.tls[-1].over else None

    def _decrypted(self, data: bytes) -> bytes | None:
        """The socket's bytes as the user sees them; b"" is the end, None: they are not enough."""
        plain: bytes | None = data
        over = not data
        for layer in self.tls:
            if plain:
                layer.feed(plain)
            if over:
                layer.feed(b"")
            plain = layer.decrypt()
            if plain is None:
                return None
            # The end may have come together with the last bytes before it.
            over = layer.over
        return plain

    def _encrypted(self, data: bytes) -> bytes:
        """As the socket gets it. For b"": what TLS has to say of itself, if anything."""
        for layer in reversed(self.tls):
            data = layer.encrypt(data) if data else layer.outgoing()
        return data

    def _may_owe(self, data: bytes | None) -> bool:
        """Whether the peer may await a word of TLS, not of its user: a server of TLS 1.2 that has asked for a new
        handshake does. (There is none with HTTP/2, where another one may be about to write.)"""
        return data is None and not self.shared

    def secured(self, layer: TLS) -> None:
        """This layer's handshake is complete. Raises `ssl.SSLError`."""
        self.tls = (*self.tls, layer)
        # They may have come together with the last bytes of the handshake.
        self.early = layer.decrypt() or b""
        self.shared = layer.object.selected_alpn_protocol() == "h2"

    def _extra(self, name: str, sock: Any) -> object:
        """What httpcore calls extra info. "is_readable": a connection that should be silent is not."""
        if name == "is_readable":
            # A server may end TLS, and leave the socket open.
            return self.closed or bool(self.early) or bool(self.tls and self.tls[-1].over) or is_readable(sock)
        if name == "ssl_object":
            return self.tls[-1].object if self.tls else None
        if name == "socket":
            return sock
        if name == "client_addr":
            return sock.getsockname()
        if name == "server_addr":
            return sock.getpeername()
        return None


class SocketLayers(Layers):
    """What those have in common that read and write their socket themselves."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        super().__init__(deadline)
        # Never blocks: what is there already costs one system call, not three.
        sock.setblocking(False)
        self._socket = sock
        tell(self)
        self.all_sent = True
        """Whether all that `begin` was given has left."""
        self._unsent = memoryview(b"")

    def forked(self) -> None:
        """See `Forked`. Whoever was about to read or write is left behind."""
        self.closed = True
        self._socket.close()

    def begin(self, data: bytes) -> None:
        """Send this, as much as goes without waiting; the rest leaves while `read` waits. For who may be answered
        before he is heard to the end. That the peer takes no more is no error: what it said is still to be read."""
        if self.closed:
            raise closed_here()
        self.all_sent = False
        try:
            encrypted = self._encrypted(data)
            self._unsent = memoryview(b"".join((self._unsent, encrypted)) if self._unsent else encrypted)
        except OSError:
            self._unsent = memoryview(b"")
        else:
            self._send_some()

    def _send_some(self) -> None:
        """Of what `begin` has left."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            self.all_sent = True
        except BlockingIOError:
            pass
        except OSError:
            self._unsent = memoryview(b"")


def is_readable(sock: Any) -> bool:
    """Whether a read would not wait: something has come, or the end."""
    with Selector() as selector:
        try:
            selector.register(sock, selectors.EVENT_READ)
        except ValueError:
            # Another thread has closed it.
            return True
        return bool(selector.select(0))


def closed_here() -> OSError:
    """For whoever uses a stream that was ended at this end."""
    return ConnectionAbortedError("the connection is closed")


def is_ip_address(host: str) -> bool:
    """Whether there is nothing to look up."""
    import ipaddress

    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def interleaved(addresses: list[Address]) -> list[Address]:
    """In their order, but with the families by turns (RFC 8305 section 4): one of them may lead nowhere."""
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    return [address for turn in itertools.zip_longest(*families.values()) for address in turn if address is not None]


def set_options(sock: Any) -> None:
    """Small writes leave at once; a peer that is gone without a word is noticed in minutes, not never."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # The first probe after a minute of silence, then one each minute; five without an answer are the end. Systems
    # without these names have their own pace (macOS calls the first one TCP_KEEPALIVE).
    for names, value in ((("TCP_KEEPIDLE", "TCP_KEEPALIVE"), 60), (("TCP_KEEPINTVL",), 60), (("TCP_KEEPCNT",), 5)):
        option = next((getattr(socket, name) for name in names if hasattr(socket, name)), None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def acknowledge_quickly(sock: Any) -> None:
    """Don't put off the acknowledgement of what comes next, where the system can be told so (Linux)."""
    if hasattr(socket, "TCP_QUICKACK") and sock.family in (socket.AF_INET, socket.AF_INET6):
        # The peer may have gone meanwhile.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
