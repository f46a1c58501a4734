"""Streams for trio."""

from __future__ import annotations

import math
import time
from typing import Any

import trio

from .layers import READ, Expired, Layers, is_readable, set_options


class TrioStream(Layers):
    """A stream on one of trio's."""

    def __init__(self, stream: trio.SocketStream, deadline: float) -> None:
        super().__init__(deadline)
        self._stream = stream

    async def read(self, max_bytes: int = READ, timeout: float | None = None) -> bytes:
        """At least a byte, or b"" when the peer has ended."""
        data = self._ready()
        until = self._until(timeout)
        while data is None:
            if time.monotonic() >= until:
                raise Expired
            with trio.CancelScope(deadline=_on_trios_clock(until)) as scope:
                data = await _translated(self._stream.receive_some, max_bytes)
            if scope.cancelled_caught:
                raise Expired
            if data:
                self.silent = False
            if self.tls and data is not None:
                data = self._decrypted(data)
        return data

    async def write(self, data: bytes, timeout: float | None = None) -> None:
        """Send all of it."""
        with trio.CancelScope(deadline=_on_trios_clock(self._until(timeout))) as scope:
            await _translated(self._stream.send_all, self._encrypted(data))
        if scope.cancelled_caught:
            raise Expired

    def abort(self) -> None:
        """End now. Whoever reads or writes gets an `OSError`. Idempotent; to be called by trio's thread."""
        self.closed = True
        self._stream.socket.close()

    async def aclose(self) -> None:
        """As `abort`."""
        self.abort()

    def get_extra_info(self, info: str) -> Any:
        """As `BlockingStream.get_extra_info`."""
        sock = self._stream.socket
        if info == "is_readable":
            return self.closed or is_readable(sock)
        return self._extra(info, sock)


def _on_trios_clock(until: float) -> float:
    return math.inf if until == math.inf else trio.current_time() + until - time.monotonic()


async def _translated(operation: Any, argument: Any) -> Any:
    try:
        return await operation(argument)
    except trio.BrokenResourceError as error:
        raise error.__cause__ if isinstance(error.__cause__, OSError) else ConnectionResetError(str(error)) from None
    except trio.ClosedResourceError:
        raise ConnectionAbortedError("the connection is closed") from None


async def connect(host: str, port: int, deadline: float, local_address: str | None = None) -> TrioStream:
    """Connect by TCP; a name's addresses with happy eyeballs (RFC 8305). Raises `OSError`."""
    stream = await trio.open_tcp_stream(host, port, local_address=local_address)
    set_options(stream.socket)
    return TrioStream(stream, deadline)


async def connect_unix(path: str, deadline: float) -> TrioStream:
    """Connect to a Unix domain socket. Raises `OSError`."""
    return TrioStream(await trio.open_unix_socket(path), deadline)
