"""Streams for asyncio."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from .layers import READ, Expired, Layers, is_ip_address, is_readable, set_options

# As much may wait to be read before the peer is held up.
_HIGH_WATER = 256 * 1024

# How long an address may take before the next one is tried beside it: RFC 8305 section 8 says 250 ms.
_ATTEMPT_DELAY = 0.25


class _Wait:
    """Waiting for an event or for a deadline, again and again, with at most one timer.

    The timer is set for the deadline of the first wait, and is left alone when that is over. When it goes off it looks
    at the deadline of the wait that is on by then.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[bool] | None = None
        self._until = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def begin(self, until: float) -> asyncio.Future[bool]:
        """A future: True with the event, False at the deadline."""
        self._until = until
        self._future = future = self._loop.create_future()
        if until < self._timer_at:
            self._set_timer(until)
        return future

    def wake(self) -> None:
        """The event has come."""
        if self._future is not None and not self._future.done():
            self._future.set_result(True)

    def stop(self) -> None:
        """There will be no further wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, at: float) -> None:
        self.stop()
        self._timer_at = at
        # Relative, since a loop's clock may be another one (uvloop's is).
        self._timer = self._loop.call_later(at - time.monotonic(), self._look)

    def _look(self) -> None:
        self._timer, self._timer_at = None, math.inf
        if self._future is None or self._future.done():
            return
        if time.monotonic() >= self._until:
            self._future.set_result(False)
        elif self._until != math.inf:
            self._set_timer(self._until)


class AsyncioStream(Layers, asyncio.Protocol):
    """A stream that asyncio tells what comes."""

    _transport: asyncio.Transport

    def __init__(self, deadline: float) -> None:
        super().__init__(deadline)
        loop = asyncio.get_running_loop()
        self._reading = _Wait(loop)
        self._writing = _Wait(loop)
        self._received: list[bytes] = []
        self._size = 0
        self._held_up = False
        self._full = False
        self._ended = False
        self._lost: OSError | None = None

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        set_options(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self.silent = False
        self._received.append(data)
        self._size += len(data)
        if self._size > _HIGH_WATER and not self._held_up:
            self._held_up = True
            self._transport.pause_reading()
        self._reading.wake()

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`. The peer may still listen."""
        self._ended = True
        self._reading.wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._lost is None:
            self._lost = exc if isinstance(exc, OSError) else ConnectionResetError("the connection is gone")
        self._reading.wake()
        self._writing.wake()
        self._reading.stop()
        self._writing.stop()

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
                raise Expired
            if self._received:
                data = self._take()
            elif self._ended and not self.closed:
                data = b""
            elif self._lost is not None:
                raise self._lost
            elif await self._reading.begin(until):
                continue
            else:
                raise Expired
            if self.tls:
                data = self._decrypted(data)
        return data

    async def write(self, data: bytes, timeout: float | None = None) -> None:
        """Send all of it, but for what the system and asyncio hold ready to be sent."""
        if self._lost is not None:
            raise self._lost
        self._transport.write(self._encrypted(data))
        until = self._until(timeout)
        while self._full:
            if not await self._writing.begin(until):
                raise Expired
            if self._lost is not None:
                raise self._lost

    def abort(self) -> None:
        """End now. Whoever reads or writes gets an `OSError`. Idempotent; to be called by the loop's thread."""
        if self.closed:
            return
        self.closed = True
        if self._lost is None:
            self._lost = ConnectionAbortedError("the connection is closed")
        self._received.clear()
        self._transport.abort()
        self._reading.wake()
        self._writing.wake()
        self._reading.stop()
        self._writing.stop()

    async def aclose(self) -> None:
        """As `abort`."""
        self.abort()

    def get_extra_info(self, info: str) -> Any:
        """As `BlockingStream.get_extra_info`."""
        sock = self._transport.get_extra_info("socket")
        if info == "is_readable":
            return self._lost is not None or self._ended or bool(self._received) or is_readable(sock)
        return self._extra(info, sock)

    def _take(self) -> bytes:
        received = self._received
        data = received[0] if len(received) == 1 else b"".join(received)
        received.clear()
        self._size = 0
        if self._held_up:
            self._held_up = False
            self._transport.resume_reading()
        return data


async def connect(host: str, port: int, deadline: float, local_address: str | None = None) -> AsyncioStream:
    """Connect by TCP; a name's addresses with happy eyeballs (RFC 8305). Raises `OSError`."""
    _, stream = await asyncio.get_running_loop().create_connection(
        lambda: AsyncioStream(deadline),
        host,
        port,
        local_addr=None if local_address is None else (local_address, 0),
        happy_eyeballs_delay=None if is_ip_address(host) else _ATTEMPT_DELAY,
    )
    return stream


async def connect_unix(path: str, deadline: float) -> AsyncioStream:
    """Connect to a Unix domain socket. Raises `OSError`."""
    _, stream = await asyncio.get_running_loop().create_unix_connection(lambda: AsyncioStream(deadline), path)
    return stream
