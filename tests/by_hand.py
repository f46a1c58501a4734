"""Clients and targets by hand, on plain sockets: what tests of the test servers are made of."""

from __future__ import annotations

import socket
import ssl
from typing import Protocol

import pytest

from deltawire.testing import ChatServer, ProxyServer, SocksServer

RST = b"\1\0\0\0\0\0\0\0"  # SO_LINGER: on, zero seconds


class Stream(Protocol):
    """What a socket and TLS over it have in common."""

    def recv(self, size: int, /) -> bytes: ...

    def sendall(self, data: bytes, /) -> None: ...


def dial(server: ChatServer | ProxyServer | SocksServer) -> socket.socket:
    return socket.create_connection((server.host, server.port), timeout=5)


def listen(host: str = "127.0.0.1") -> socket.socket:
    """To be the target by hand."""
    listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.settimeout(5)
    return listener


def accept(listener: socket.socket) -> socket.socket:
    sock, _ = listener.accept()
    sock.settimeout(5)
    return sock


def origin(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


def kill(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    sock.close()


def read_all(stream: Stream) -> bytes:
    return b"".join(iter(lambda: stream.recv(65536), b""))


def read_until(stream: Stream, mark: bytes) -> bytes:
    got = b""
    while mark not in got:
        data = stream.recv(65536)
        assert data, f"the connection ended after {got!r}"
        got += data
    return got


def read_exactly(stream: Stream, count: int) -> bytes:
    got = b""
    while len(got) < count:
        data = stream.recv(count - len(got))
        assert data, f"the connection ended after {got!r}"
        got += data
    return got


def read_reset(stream: Stream) -> bytes:
    """Read until RST; returns what came before."""
    got = b""
    try:
        while data := stream.recv(65536):
            got += data
    except ConnectionResetError:
        return got
    pytest.fail("FIN in place of RST")


class TLSOver:
    """A client's TLS over any stream: through a tunnel, for one, that is TLS itself."""

    def __init__(self, stream: Stream, context: ssl.SSLContext, name: str = "127.0.0.1") -> None:
        self._stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._fill()
            else:
                self._flush()
                return

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        self._flush()

    def recv(self, size: int) -> bytes:
        """b"" for the closing message; ``SSLError`` for the stream's end without one."""
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                self._fill()
            except ssl.SSLZeroReturnError:  # both have said it
                return b""

    def send_closing_message(self) -> None:
        """Not the end of the stream, nor of the other direction."""
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:  # the other end has not sent its own yet
            pass
        self._flush()

    def _fill(self) -> None:
        self._flush()
        data = self._stream.recv(65536)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._stream.sendall(self._outgoing.read())


def client_hello(context: ssl.SSLContext) -> bytes:
    """The first bytes of a client's TLS."""
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1").do_handshake()
    return outgoing.read()
