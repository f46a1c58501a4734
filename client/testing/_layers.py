"""What lies between a socket and the `Peer` that gives its bytes a meaning: TLS, and planned faults.

Theory
------
A layer is a transport to what is above it and a protocol to what is below it. The stack, from the top:

    Peer      HTTP, SOCKS, or a tunnel's end
    Faulty    a `Fault`, if one is planned for this connection
    TLS       if the service speaks it
    Faulty    a `Fault` with `raw`
    Wire      always: the socket

so one class of faults counts plaintext in one place and the bytes on the wire in the other.

TLS is done here and not by asyncio, whose TLS cannot end one direction and go on with the other, holds
bytes back in a buffer of its own, and lets nobody in between it and the socket.

There are five ways to end a connection, and every layer has them: `write_eof` (FIN; the other direction
goes on), `close` (what was written arrives, then FIN), `linger` (the same, against a peer that is still
sending), `reset` (RST, at once or when all is sent) and `abort` (the system's choice, at once). A fault
that has struck takes the first four away from what is above it; `abort` remains, for the server that stops.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import ssl
import struct
import sys
from typing import Any

from .faults import Fault

# How long, in seconds, a connection that we close may go on sending before it is cut off.
_LINGER = 1.0

# SO_LINGER switched on with a time of zero: closing the socket sends RST in place of FIN.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

# How often, in seconds, to look whether all is sent. The system has no event for that.
_LOOK_AGAIN = 0.001

# Linux's name for the question (SIOCOUTQNSD).
_HOW_MUCH_IS_UNSENT = 0x894B

# One read from TLS, in bytes: the largest record.
_RECORD = 16 * 1024


class Layer(asyncio.Transport, asyncio.Protocol):
    """A layer that changes nothing."""

    below: Layer

    def __init__(self, above: asyncio.Protocol) -> None:
        super().__init__()
        self.above = above

    # For what is below

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Layer)
        self.below = transport
        self.above.connection_made(self)

    def data_received(self, data: bytes) -> None:
        self.above.data_received(data)

    def eof_received(self) -> bool:
        """The client's direction has ended. Returns False to have the connection closed."""
        return bool(self.above.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self.above.connection_lost(exc)

    def pause_writing(self) -> None:
        self.above.pause_writing()

    def resume_writing(self) -> None:
        self.above.resume_writing()

    # For what is above

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.below.write(data)

    def write_eof(self) -> None:
        self.below.write_eof()

    def close(self) -> None:
        self.below.close()

    def linger(self) -> None:
        """Send what is written, then FIN, and throw away what still comes until the peer has ended too."""
        self.below.linger()

    def reset(self) -> None:
        """Send RST. What the peer has not received by now it never will."""
        self.below.reset()

    def reset_when_sent(self) -> None:
        """Send RST when the peer's system has received all that is written."""
        self.below.reset_when_sent()

    def abort(self) -> None:
        self.below.abort()

    def is_closing(self) -> bool:
        return self.below.is_closing()

    def pause_reading(self) -> None:
        self.below.pause_reading()

    def resume_reading(self) -> None:
        self.below.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.below.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.below.get_extra_info(name, default)


class Wire(Layer):
    """The lowest layer, on asyncio's transport. Once it is closing it ignores what it is told."""

    def __init__(self, above: asyncio.Protocol) -> None:
        super().__init__(above)
        self._lingering = False
        self._saw_eof = False
        self._wrote_eof = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # Paced events are small writes; Nagle's algorithm would hold each until the last is acknowledged.
        self._socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.above.connection_made(self)

    def data_received(self, data: bytes) -> None:
        if not self._lingering:
            self.above.data_received(data)

    def eof_received(self) -> bool:
        self._saw_eof = True
        return not self._lingering and super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self.above.connection_lost(exc)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._wrote_eof and not self._transport.is_closing():  # asyncio would log that to stderr
            self._transport.write(data)

    def write_eof(self) -> None:
        if self._wrote_eof or self._transport.is_closing():
            return
        self._wrote_eof = True
        try:
            self._transport.write_eof()
        except OSError:  # the peer has reset it, of which asyncio will hear in a moment
            pass

    def close(self) -> None:
        if not self._lingering:
            self._transport.close()

    def linger(self) -> None:
        # Closing a socket that holds unread bytes sends RST, and that may overtake the answer.
        if self._lingering:
            return
        if self._saw_eof:
            self._transport.close()
            return
        self.write_eof()
        self._lingering = True
        self._transport.resume_reading()  # how else to see the end?
        self._deadline = asyncio.get_running_loop().call_later(_LINGER, self._cut_off)

    def reset(self) -> None:
        if not self._transport.is_closing():
            self._socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def reset_when_sent(self) -> None:
        if self._is_unsent() and not self._transport.is_closing():
            asyncio.get_running_loop().call_later(_LOOK_AGAIN, self.reset_when_sent)
        else:
            self.reset()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._lingering or self._transport.is_closing()

    def pause_reading(self) -> None:
        if not self._lingering:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def _cut_off(self) -> None:
        if self._is_unsent():  # the client is slow, but it reads, or it will go
            self._deadline = asyncio.get_running_loop().call_later(_LINGER, self._cut_off)
        else:
            self._transport.abort()

    def _is_unsent(self) -> bool:
        """Whether some of what was written waits on this side, because the peer's system has no room."""
        return self._transport.get_write_buffer_size() > 0 or _unsent(self._socket()) > 0

    def _socket(self) -> socket.socket:
        sock: socket.socket = self._transport.get_extra_info("socket")
        return sock


class TLS(Layer):
    """A server's TLS. Nobody above it writes before the first bytes have come, so none wait for the handshake."""

    def __init__(self, above: asyncio.Protocol, context: ssl.SSLContext) -> None:
        super().__init__(above)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._ready = False  # the handshake is complete
        self._saw_eof = False
        self._wrote_eof = False

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        try:
            if not self._ready:
                self._tls.do_handshake()
                self._ready = True
                self._flush()
            self._read()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError:
            self._flush()  # the alert
            self.below.linger()

    def _read(self) -> None:
        while not self.below.is_closing():
            try:
                data = self._tls.read(_RECORD)
            except ssl.SSLZeroReturnError:
                data = b""
            if not data:  # the closing message
                if not self.eof_received():
                    self.close()
                return
            self.above.data_received(data)

    def eof_received(self) -> bool:
        # Many clients end with FIN alone. Some send FIN after the closing message; that is no second end.
        if self._saw_eof:
            return True
        self._saw_eof = True
        return super().eof_received()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._wrote_eof or self.below.is_closing():
            return
        view = memoryview(data)
        while view:  # a record at a time
            view = view[self._tls.write(view) :]
        self._flush()

    def write_eof(self) -> None:
        self._send_closing_message()
        self.below.write_eof()

    def close(self) -> None:
        self._send_closing_message()
        if self._saw_eof:
            self.below.close()
        else:
            self.below.linger()  # the client may answer the closing message

    def linger(self) -> None:
        self.close()

    def _send_closing_message(self) -> None:
        if self._wrote_eof:
            return
        self._wrote_eof = True
        try:
            self._tls.unwrap()
        except ssl.SSLError:  # the client has not sent its own yet, or the handshake is not complete
            pass
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self.below.write(self._outgoing.read())


class Faulty(Layer):
    """A layer that fails as planned."""

    def __init__(self, above: asyncio.Protocol, fault: Fault) -> None:
        super().__init__(above)
        self._fault = fault
        self._left = fault.after
        self._struck = False
        self._saw_eof = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._fault.at_accept:
            self._strike()

    def data_received(self, data: bytes) -> None:
        if not self._struck and self._left == 0 and self._fault.ending in ("close", "reset"):
            self._strike()
        else:
            self.above.data_received(data)

    def eof_received(self) -> bool:
        self._saw_eof = True
        if not self._struck:
            return super().eof_received()
        self.abort()  # a held connection, and the client has gone
        return True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._struck:
            return
        kept = data[: self._left]
        if kept:
            self.below.write(kept)
            self._left -= len(kept)
        # Garbage stands in for something, so it waits for that.
        if len(data) > len(kept) or (self._left == 0 and self._fault.ending != "garbage"):
            self._strike()

    def write_eof(self) -> None:
        if not self._struck:
            super().write_eof()

    def close(self) -> None:
        if not self._struck:
            super().close()

    def linger(self) -> None:
        if not self._struck:
            super().linger()

    def reset(self) -> None:
        if not self._struck:
            super().reset()

    def _strike(self) -> None:
        self._struck = True
        if self._fault.ending == "close":
            self.below.linger()
        elif self._fault.ending == "reset":
            self.below.reset_when_sent()
        else:
            if self._fault.ending == "garbage":
                self.below.write(self._fault.garbage)
            if self._saw_eof:  # it is gone, or as good as gone: it would never be seen to go
                self.abort()


def _unsent(sock: socket.socket) -> int:
    """How many bytes of ours the system has not sent; 0 where it does not tell."""
    if sys.platform != "linux" or sock.fileno() < 0:
        return 0
    answer = fcntl.ioctl(sock, _HOW_MUCH_IS_UNSENT, bytes(4))
    return int.from_bytes(answer, sys.byteorder)
