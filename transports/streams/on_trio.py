"""Streams for trio."""

from __future__ import annotations

import errno
import math
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import trio

from .layers import READ, SocketLayers, closed_here, set_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .layers import Address


class TrioStream(SocketLayers):
    """A stream on a socket, which waits by trio's means. (trio's own streams take twice the time for a read.)"""

    async def read(self, max_bytes: int = READ, timeout: float | None = None) -> bytes:
        """At least a byte, or b"" when the peer has ended."""
        await trio.lowlevel.checkpoint_if_cancelled()
        data = self._ready()
        until = self._until(timeout)
        waited = False
        while data is None:
            if time.monotonic() >= until:
                until = self._later(until)
            try:
                data = self._socket.recv(max_bytes)
            except BlockingIOError:
                if self._unsent:
                    await _wait_either(self._socket, until)
                    self._send_some()
                else:
                    await _wait(trio.lowlevel.wait_readable, self._socket, until)
                waited = True
                continue
            if data:
                self.silent = False
            if self.tls:
                data = self._decrypted(data)
                if self._may_owe(data):
                    # Behind what is to leave before it.
                    self.begin(b"") if self._unsent else await self.write(b"")
        if not waited:
            # The others' turn. Not to be cancelled, for the bytes would be lost.
            await trio.lowlevel.cancel_shielded_checkpoint()
        return data

    async def write(self, data: bytes, timeout: float | None = None) -> None:
        """Send all of it."""
        await trio.lowlevel.checkpoint()
        if self.closed:
            raise closed_here()
        view = memoryview(self._encrypted(data))
        until = self._until(timeout)
        while view:
            if time.monotonic() >= until:
                until = self._later(until)
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                await _wait(trio.lowlevel.wait_writable, self._socket, until)

    def abort(self) -> None:
        """End now. Whoever reads or writes gets an `OSError`. Idempotent; to be called by trio's thread."""
        if self.closed:
            return
        self.closed = True
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    async def aclose(self) -> None:
        """As `abort`."""
        self.abort()

    def get_extra_info(self, info: str) -> Any:
        """As `BlockingStream.get_extra_info`."""
        return self._extra(info, self._socket)


async def _wait(event: Callable[[socket.socket], Awaitable[None]], sock: socket.socket, until: float) -> None:
    """Until there is something to do, or to look at the time."""
    deadline = math.inf if until == math.inf else trio.current_time() + until - time.monotonic()
    with trio.CancelScope(deadline=deadline):
        try:
            await event(sock)
        except trio.ClosedResourceError:
            raise closed_here() from None


async def _wait_either(sock: socket.socket, until: float) -> None:
    """As `_wait`, to read or to write."""
    closed: list[OSError] = []

    async def wait(event: Callable[[socket.socket], Awaitable[None]]) -> None:
        try:
            await _wait(event, sock, until)
        except OSError as error:
            closed.append(error)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, trio.lowlevel.wait_readable)
        nursery.start_soon(wait, trio.lowlevel.wait_writable)
    if closed:
        raise closed[0]


async def connect(address: Address, deadline: float, local_address: str | None = None) -> TrioStream:
    """Connect by TCP. Raises `OSError`."""
    family, kind, protocol, _, where = address
    return await _connected(socket.socket(family, kind, protocol), where, deadline, local_address)


async def connect_unix(path: str, deadline: float) -> TrioStream:
    """Connect to a Unix domain socket. Raises `OSError`."""
    return await _connected(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), path, deadline)


async def _connected(sock: socket.socket, where: Any, deadline: float, local_address: str | None = None) -> TrioStream:
    try:
        await trio.lowlevel.checkpoint()
        set_options(sock)
        sock.setblocking(False)
        if local_address is not None:
            sock.bind((local_address, 0))
        try:
            sock.connect(where)
        except BlockingIOError as error:
            # A Unix socket with a full queue says EAGAIN, and there is nothing to wait for.
            if error.errno != errno.EINPROGRESS:
                raise
            await trio.lowlevel.wait_writable(sock)
            if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code)) from None
        return TrioStream(sock, deadline)
    except BaseException:
        sock.close()
        raise
