"""Streams for trio."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import trio

from .layers import READ, SocketLayers, closed_here, set_options
from .overseeing import overseer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .layers import Address


class TrioStream(SocketLayers):
    """A stream on a socket, which waits by trio's means. (trio's own streams take twice the time for a read.)"""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        super().__init__(sock, deadline)
        # Whether the last read took all there was, and had had to wait for it: so will the next one.
        self._drained = False
        self._overseer = overseer()
        self.watched = False
        """Whether the overseer looks at this stream."""
        self.waits_until: float | None = None
        """The end of the wait that is on; None for none."""

    async def read(self, max_bytes: int = READ, timeout: float | None = None) -> bytes:
        """At least a byte, or b"" when the peer has ended."""
        data = self._ready()
        until = self._until(timeout)
        waited = False
        if not self._drained or data is not None:
            await trio.lowlevel.checkpoint_if_cancelled()
        while data is None:
            if time.monotonic() >= until:
                until = self._later(until)
            if self._drained:
                self._drained = False
                waited = True
                watcher = self._overseer
                if self._unsent:
                    await _wait_either(self._socket, until)
                    self._send_some()
                elif watcher.over:
                    await _wait(trio.lowlevel.wait_readable, self._socket, until)
                else:
                    self.waits_until = until
                    if not self.watched or until < watcher.next:
                        watcher.watch(self, until)
                    try:
                        await trio.lowlevel.wait_readable(self._socket)
                    except trio.ClosedResourceError:
                        # Or else the time has come.
                        if self.closed:
                            raise closed_here() from None
                    finally:
                        self.waits_until = None
            try:
                data = self._socket.recv(max_bytes)
            except BlockingIOError:
                self._drained = True
                continue
            self._drained = waited and len(data) < max_bytes
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
                try:
                    await _wait(trio.lowlevel.wait_writable, self._socket, until)
                except ConnectionAbortedError:
                    # Or else it was a reader's time that has come (`end_wait`).
                    if self.closed:
                        raise

    def abort(self) -> None:
        """End now. Whoever reads or writes gets an `OSError`. Idempotent; to be called by trio's thread."""
        if self.closed:
            return
        self.closed = True
        # RuntimeError: where trio does not run, nobody waits by its means.
        with contextlib.suppress(RuntimeError):
            trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        if self.watched:
            self._overseer.forget(self)

    def end_wait(self) -> None:
        """Whoever waits to read is to look at the time."""
        if not self.closed:
            trio.lowlevel.notify_closing(self._socket)

    async def aclose(self) -> None:
        """As `abort`."""
        self.abort()

    def get_extra_info(self, info: str) -> Any:
        """As `BlockingStream.get_extra_info`."""
        return self._extra(info, self._socket)


async def _wait(event: Callable[[socket.socket], Awaitable[None]], sock: socket.socket, until: float) -> None:
    """Until there is something to do, or to look at the time."""
    if sock.fileno() < 0:
        # Closed between the start of this task and its turn. trio would take -1 for a descriptor, and keep us there.
        raise closed_here()
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
