"""Streams on all three runtimes, written about once; and peers for them, at the other end of real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any
from unittest import mock

import anyio
import anyio.lowlevel
import pytest
import trio

from deltawire.transports.streams import blocking, on_asyncio, on_trio
from deltawire.transports.streams.layers import Expired
from deltawire.transports.streams.opening import Way, aopen_stream, asecure, open_stream, secure

# How late an `Expired` may be in a test. (It is a millisecond or two, unless the machine is busy.)
LATE = 1.0

# More than sockets and event loops hold for a peer that does not read.
TOO_MUCH = b"x" * 20_000_000


async def now(result: Any) -> Any:
    """What a method of a stream gives: at once if it blocks, else awaited."""
    return await result if inspect.isawaitable(result) else result


class Runtime:
    """Blocking, asyncio or trio. Tests are async functions, which with blocking streams never wait."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.blocks = name == "blocking"

    def run(self, main: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> Any:
        if self.name == "asyncio":
            return asyncio.run(main(*arguments))
        if self.name == "trio":
            return trio.run(main, *arguments)
        try:
            main(*arguments).send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("a blocking stream was awaited")

    async def over(self, sock: socket.socket, deadline: float = math.inf) -> Any:
        """A stream on a connected socket."""
        if self.name == "asyncio":
            loop = asyncio.get_running_loop()
            return (await loop.create_connection(lambda: on_asyncio.AsyncioStream(deadline), sock=sock))[1]
        return (blocking.BlockingStream if self.blocks else on_trio.TrioStream)(sock, deadline)

    def secure(self, stream: Any, context: ssl.SSLContext, hostname: str | None = "localhost") -> Any:
        """For `now`."""
        return (secure if self.blocks else asecure)(stream, context, hostname)

    def open(self, port: int, *, host: str = "127.0.0.1", within: float = 5.0, **way: Any) -> Any:
        """For `now`: a stream through a way of these properties. The deadline of its opening stays with it."""
        return (open_stream if self.blocks else aopen_stream)(Way(**way), host, port, time.monotonic() + within)

    @contextlib.asynccontextmanager
    async def beside(self, work: Callable[[], object]) -> AsyncIterator[None]:
        """As the function, for a loop that may have something to do before the other thread can end."""
        with beside(work):
            try:
                yield
            finally:
                if not self.blocks:
                    await turns()

    async def gone(self, far: socket.socket) -> None:
        """Wait until the stream at the other end of this is closed. (asyncio takes a turn for it.)"""
        if not self.blocks:
            await turns()
        is_gone(far)

    async def ended(self, waiting: Callable[[], Any], act: Callable[[], object]) -> Any:
        """What becomes of this, an exception maybe, when something is done to it while it waits."""
        outcomes: list[Any] = []
        if self.blocks:
            self._in_a_thread(waiting, act, outcomes)
        else:

            async def wait() -> None:
                try:
                    outcomes.append(await waiting())
                except Exception as error:
                    outcomes.append(error)

            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await turns()
                assert not outcomes, "it did not wait"
                act()
                with anyio.fail_after(5):
                    while not outcomes:
                        await anyio.lowlevel.checkpoint()
        return outcomes[0]

    def _in_a_thread(self, waiting: Callable[[], Any], act: Callable[[], object], outcomes: list[Any]) -> None:
        waits = threading.Event()
        original = blocking._wait

        def wait(*arguments: Any) -> None:
            waits.set()
            original(*arguments)

        def work() -> None:
            try:
                outcomes.append(waiting())
            except Exception as error:
                outcomes.append(error)

        thread = threading.Thread(target=work)
        with mock.patch.object(blocking, "_wait", wait):
            thread.start()
            try:
                assert waits.wait(5)
                act()
            finally:
                thread.join(5)
        assert not thread.is_alive(), "it still waits"


RUNTIMES = [Runtime(name) for name in ("blocking", "asyncio", "trio")]


async def turns(count: int = 30) -> None:
    """Let the loop go round, so that whatever can go on does."""
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


@contextlib.contextmanager
def expires(after: float, *, until: float | None = None) -> Iterator[None]:
    """`Expired` comes this much later than now, or at this time; not before, and not much later."""
    due = time.monotonic() + after if until is None else until
    with pytest.raises(Expired):
        yield
    late = time.monotonic() - due
    assert 0 <= late < LATE, late


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection; the first one for a stream."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
        far.settimeout(5)
        return near, far


def reset(sock: socket.socket) -> None:
    """Close with an RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


def is_gone(far: socket.socket) -> None:
    """Wait until the other end has closed."""
    with contextlib.suppress(ConnectionError):
        while far.recv(65536):
            pass


@contextlib.contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Do this in another thread. It ends with the block; what it raises, the block raises."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        thread.join(10)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


@contextlib.contextmanager
def serving(*scripts: Callable[[socket.socket], object]) -> Iterator[int]:
    """A port where each connection gets the next script; a script's own connection errors end it quietly."""

    def serve() -> None:
        for script in scripts:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.settimeout(5)
            with connection, contextlib.suppress(ConnectionError, ssl.SSLError):
                script(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener, beside(serve):
        try:
            yield listener.getsockname()[1]
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


class FarTLS:
    """A server's side of TLS, in memory."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.complete = False

    def answer(self, data: bytes) -> bytes:
        """Go on with the handshake."""
        self._incoming.write(data)
        if not self.complete:
            try:
                self.object.do_handshake()
                self.complete = True
            except ssl.SSLWantReadError:
                pass
        return self._outgoing.read()

    def say(self, data: bytes) -> bytes:
        """These bytes as records."""
        self.object.write(data)
        return self._outgoing.read()

    def hear(self, data: bytes) -> bytes:
        """The records' bytes."""
        self._incoming.write(data)
        heard = bytearray()
        with contextlib.suppress(ssl.SSLWantReadError):
            while part := self.object.read(65536):
                heard += part
        return bytes(heard)

    def bye(self) -> bytes:
        """A close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.object.unwrap()
        return self._outgoing.read()

    def over(self, connection: socket.socket, through: FarTLS | None = None) -> FarTLS:
        """Shake hands on a socket, or inside another one's TLS on it."""
        while not self.complete:
            data = heard(connection, through)
            if not data:
                raise ConnectionAbortedError("the client left in the handshake")
            say(connection, self.answer(data), through)
        return self


def heard(connection: socket.socket, *layers: FarTLS | None) -> bytes:
    """What comes next, through these layers of TLS, from the socket upwards; b"" for the end."""
    found = [layer for layer in layers if layer is not None]
    data = b""
    while True:
        # They may hold what came together with something else.
        for layer in found:
            data = layer.hear(data)
        if data or (not found and not data):
            return data or connection.recv(65536)
        data = connection.recv(65536)
        if not data:
            return b""


def say(connection: socket.socket, data: bytes, *layers: FarTLS | None) -> None:
    """Send this through these layers of TLS."""
    for layer in reversed(layers):
        data = layer.say(data) if data and layer is not None else data
    if data:
        connection.sendall(data)
