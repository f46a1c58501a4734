"""Streams for programs that block."""

from __future__ import annotations

import contextlib
import math
import selectors
import socket
import time
from typing import Any

from .layers import READ, Expired, Selector, SocketLayers, closed_here, set_options

# poll() counts milliseconds in 32 bits.
_LONGEST_WAIT = 1e6


class BlockingStream(SocketLayers):
    """A stream on a socket, which waits by blocking its thread."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        super().__init__(sock, deadline)
        self._readable: Any = None
        self._reading = False
        self._writing = False

    def read(self, max_bytes: int = READ, timeout: float | None = None) -> bytes:
        """At least a byte, or b"" when the peer has ended."""
        self._reading = True
        try:
            data = self._ready()
            until = self._until(timeout)
            while data is None:
                if time.monotonic() >= until:
                    until = self._later(until)
                try:
                    data = self._socket.recv(max_bytes)
                except BlockingIOError:
                    if self._unsent:
                        self._wait_either(until)
                        self._send_some()
                    else:
                        self._wait_readable(until)
                    continue
                if data:
                    self.silent = False
                elif self.closed:
                    raise closed_here()
                if self.tls:
                    data = self._decrypted(data)
                    if self._may_owe(data):
                        # Behind what is to leave before it.
                        self.begin(b"") if self._unsent else self.write(b"")
            return data
        except OSError as error:
            if self.closed:
                # What the peer says to that, such as RST, is no news.
                raise closed_here() from error
            raise
        finally:
            self._reading = False
            if self.closed:
                self._close()

    def write(self, data: bytes, timeout: float | None = None) -> None:
        """Send all of it."""
        self._writing = True
        try:
            if self.closed:
                raise closed_here()
            view = memoryview(self._encrypted(data) if self.tls else data)
            until = self._until(timeout)
            while view:
                if time.monotonic() >= until:
                    until = self._later(until)
                try:
                    view = view[self._socket.send(view) :]
                except BlockingIOError:
                    with Selector() as selector:
                        selector.register(self._socket, selectors.EVENT_WRITE)
                        _wait(selector, until)
        finally:
            self._writing = False
            if self.closed:
                self._close()

    def begin(self, data: bytes) -> None:
        """See `SocketLayers.begin`."""
        self._writing = True
        try:
            super().begin(data)
        finally:
            self._writing = False
            if self.closed:
                self._close()

    def abort(self) -> None:
        """End now. Whoever reads or writes, in whatever thread, gets an `OSError`. Idempotent."""
        self.closed = True
        # Wakes a thread that waits, which closing would not.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._close()

    def _close(self) -> None:
        # Not under a thread that is about to read or write: the next socket in the process gets the same number, and
        # it would be that one's bytes. The last to leave closes.
        if not self._reading and not self._writing:
            self._socket.close()

    def get_extra_info(self, info: str) -> Any:
        """What httpcore asks for."""
        return self._extra(info, self._socket)

    def _wait_readable(self, until: float) -> None:
        if self._readable is None:
            self._readable = Selector()
            self._readable.register(self._socket, selectors.EVENT_READ)
        _wait(self._readable, until)

    def _wait_either(self, until: float) -> None:
        with Selector() as selector:
            selector.register(self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
            _wait(selector, until)


def _wait(selector: Any, until: float) -> None:
    """Until there is something to do, or to look at the time."""
    selector.select(min(until - time.monotonic(), _LONGEST_WAIT))


def connect(host: str, port: int, deadline: float, local_address: str | None = None) -> BlockingStream:
    """Connect by TCP. Raises `OSError`, `Expired`.

    A name's addresses are tried in their order. None of them gets all the time while others are left: an address
    family that leads nowhere is to cost a part of the deadline only. Looking up the name takes the time it takes.
    """
    error: Exception = OSError("the name has no address")
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        now = time.monotonic()
        sock = None
        try:
            sock = socket.socket(family, kind, protocol)
            set_options(sock)
            if local_address is not None:
                sock.bind((local_address, 0))
            _connect(sock, address, now + (deadline - now) / (len(addresses) - number))
            return BlockingStream(sock, deadline)
        except (OSError, Expired) as failure:
            # The first refusal tells more than the last one.
            if not isinstance(error, OSError) or number == 0:
                error = failure
            _close(sock)
        except BaseException:
            _close(sock)
            raise
    try:
        raise error
    finally:
        # Its traceback knows this frame.
        del error


def connect_unix(path: str, deadline: float) -> BlockingStream:
    """Connect to a Unix domain socket. Raises `OSError`, `Expired`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _connect(sock, path, deadline)
        return BlockingStream(sock, deadline)
    except BaseException:
        sock.close()
        raise


def _connect(sock: socket.socket, address: Any, until: float) -> None:
    left = until - time.monotonic()
    if left <= 0:
        raise Expired
    sock.settimeout(None if left == math.inf else min(left, _LONGEST_WAIT))
    try:
        sock.connect(address)
    except TimeoutError as error:
        # The system has one, too (ETIMEDOUT), which is an error like any other.
        if error.errno is None:
            raise Expired from None
        raise


def _close(sock: socket.socket | None) -> None:
    if sock is not None:
        sock.close()
