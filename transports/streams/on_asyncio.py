"""Streams for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, cast

from .layers import READ, Layers, closed_here, set_options
from .waiting import Wait

if TYPE_CHECKING:
    from typing import Protocol

    from .layers import Address

    class Sink(Protocol):
        """Whom a stream tells what comes, as it comes; called by the loop."""

        def received(self, data: bytes) -> None:
            """Bytes, at least one."""

        def ended(self) -> None:
            """The peer has ended; it may still listen."""

        def lost(self, error: OSError) -> None:
            """Nothing more comes, nor can be sent."""


# As much may wait to be read before the peer is held up.
_HIGH_WATER = 256 * 1024


class AsyncioStream(Layers, asyncio.Protocol):
    """A stream that asyncio tells what comes."""

    _transport: asyncio.Transport

    def __init__(self, deadline: float) -> None:
        super().__init__(deadline)
        self.loop = loop = asyncio.get_running_loop()
        """Whose stream it is."""
        self._reading = Wait(loop)
        self._writing = Wait(loop)
        self._sink: Sink | None = None
        self._received: list[bytes] = []
        self._size = 0
        self._held_up = False
        self._full = False
        self._ended = False
        self._lost: OSError | None = None
        self._process = os.getpid()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # By its methods only: uvloop's are no `asyncio.Transport`.
        self._transport = cast("asyncio.Transport", transport)
        set_options(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self.silent = False
        sink = self._sink
        if sink is not None:
            self._push_decrypted(sink, data)
            return
        self._received.append(data)
        self._size += len(data)
        if self._size > _HIGH_WATER:
            self.hold_up()
        self._reading.wake()

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`. The peer may still listen."""
        self._ended = True
        if self._sink is None:
            self._reading.wake()
        elif self.tls:
            self._push_decrypted(self._sink, b"")
        else:
            self._sink.ended()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._lost is None:
            if exc is not None:
                self._read_the_rest()
            self._lost = exc if isinstance(exc, OSError) else ConnectionResetError("the connection is gone")
        self._tell_lost()

    def _read_the_rest(self) -> None:
        """A write that fails is asyncio's end, whatever has come and is not read yet: the answer of a peer that does
        not hear a request to its end. The socket is there until this returns."""
        with contextlib.suppress(OSError, ValueError), self._twin() as twin:
            twin.setblocking(False)
            while data := twin.recv(READ):
                self.data_received(data)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._full = True

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._full = False
        self._writing.wake()

    # What the owner calls

    async def read(self, max_bytes: int = READ, timeout: float | None = None) -> bytes:
        """At least a byte, or b"" when the peer has ended. What has come already may be more than asked for."""
        data = self._ready()
        until = self._until(timeout)
        while data is None:
            if time.monotonic() >= until:
                until = self._later(until)
            if self._received:
                data = self._take()
            elif self._lost is not None:
                raise self._lost
            elif self._ended:
                data = b""
            else:
                await self._reading.begin(until)
                continue
            if self.tls:
                data = self._decrypted(data)
                if self._may_owe(data):
                    await self.write(b"")
        return data

    async def write(self, data: bytes, timeout: float | None = None) -> None:
        """Send all of it, but for what the system and asyncio hold ready to be sent."""
        until = self._may_write(self._until(timeout))
        self._transport.write(self._encrypted(data))
        while self._full:
            await self._writing.begin(until)
            until = self._may_write(until)

    def begin(self, data: bytes) -> None:
        """See `SocketLayers.begin`."""
        if self.closed:
            raise closed_here()
        if self._lost is None:
            # (TLS that takes no more has said why to who reads.)
            with contextlib.suppress(ssl.SSLError):
                self._transport.write(self._encrypted(data))

    @property
    def all_sent(self) -> bool:
        """See `SocketLayers`."""
        return self._lost is None and not self._transport.get_write_buffer_size()

    def _may_write(self, until: float) -> float:
        if self._lost is not None:
            raise self._lost
        return self._later(until) if time.monotonic() >= until else until

    def abort(self) -> None:
        """End now. Whoever reads or writes gets an `OSError`. Idempotent; to be called by the loop's thread, or
        when the loop is closed."""
        if self.closed:
            return
        self.closed = True
        if self._lost is None:
            # (Else the descriptor may be another connection's by now.)
            self._shut_down()
            self._lost = closed_here()
        self._received.clear()
        # RuntimeError: the loop is closed, and closes no sockets; the rest is the collector's.
        with contextlib.suppress(RuntimeError):
            self._transport.abort()
        self._tell_lost()

    def _shut_down(self) -> None:
        """The peer is told now, even if a process that was forked meanwhile has the socket, too (which it is not told
        of: see `deltawire.transports._forking`)."""
        if self._process != os.getpid():
            return
        # By a twin, since uvloop's socket can't.
        with contextlib.suppress(OSError, ValueError), self._twin() as twin:
            twin.shutdown(socket.SHUT_RDWR)

    def _twin(self) -> socket.socket:
        """The socket, by another descriptor. Raises `OSError` or `ValueError` once it is closed."""
        known = self._transport.get_extra_info("socket")
        if known is None:
            raise ValueError("there is no socket")
        return socket.fromfd(known.fileno(), known.family, known.type, known.proto)

    async def aclose(self) -> None:
        """As `abort`."""
        self.abort()

    def get_extra_info(self, info: str) -> Any:
        """As `BlockingStream.get_extra_info`."""
        if info == "is_readable" and (self._lost is not None or self._ended or self._received):
            return True
        return self._extra(info, self._transport.get_extra_info("socket"))

    def _take(self) -> bytes:
        received = self._received
        data = received[0] if len(received) == 1 else b"".join(received)
        received.clear()
        self._size = 0
        self.let_come()
        return data

    def hold_up(self) -> None:
        """Read no more from the socket, so that the peer has to wait. Idempotent."""
        if not self._held_up:
            self._held_up = True
            self._transport.pause_reading()

    def let_come(self) -> None:
        """Read on. Idempotent."""
        if self._held_up:
            self._held_up = False
            self._transport.resume_reading()

    def push_to(self, sink: Sink | None) -> None:
        """From now on tell this sink what comes, first of all what has come already; None: keep it for `read`."""
        self._sink = sink
        told = self.__dict__.pop("data_received", None)
        if sink is not None and not self.tls:
            # asyncio itself tells the sink: no call more than need be.
            self.data_received = told = sink.received  # type: ignore[method-assign]
        if told is not None:
            # uvloop keeps the method.
            self._transport.set_protocol(self)
        if sink is None:
            return
        early, self.early = self.early, b""
        if early:
            sink.received(early)
        received = self._take() if self._received else b""
        if self.tls:
            if received or self.tls[-1].over:
                self._push_decrypted(sink, received)
            if self._ended and not self.tls[-1].over:
                # It came while nobody was there to hear of it.
                self._push_decrypted(sink, b"")
        elif received:
            sink.received(received)
        if self._lost is not None:
            sink.lost(self._lost)
        elif self._ended and not self.tls:
            sink.ended()

    def _push_decrypted(self, sink: Sink, data: bytes) -> None:
        """The socket's bytes (b"": its end) as the sink sees them."""
        top = self.tls[-1]
        try:
            plain = None if top.over else self._decrypted(data)
            if plain:
                sink.received(plain)
            elif plain is None and not top.over and (owed := self._encrypted(b"")):
                self._transport.write(owed)
            if top.over:
                # What ends it may have come together with the last bytes before that.
                top.decrypt()
                sink.ended()
        except ssl.SSLError as error:
            sink.lost(error)

    def _tell_lost(self) -> None:
        """Whoever reads, writes or is told what comes hears that it is over."""
        if self._sink is not None and self._lost is not None:
            self._sink.lost(self._lost)
        self._reading.wake()
        self._writing.wake()
        self._reading.stop()
        self._writing.stop()


async def connect(address: Address, deadline: float, local_address: str | None = None) -> AsyncioStream:
    """Connect by TCP. Raises `OSError`."""
    family, _, _, _, (host, port, *_) = address
    _, stream = await asyncio.get_running_loop().create_connection(
        lambda: AsyncioStream(deadline),
        host,
        port,
        family=family,
        local_addr=None if local_address is None else (local_address, 0),
    )
    return stream


async def connect_unix(path: str, deadline: float) -> AsyncioStream:
    """Connect to a Unix domain socket. Raises `OSError`."""
    _, stream = await asyncio.get_running_loop().create_unix_connection(lambda: AsyncioStream(deadline), path)
    return stream
