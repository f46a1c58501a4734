"""on_asyncio.py: the one timer, back-pressure, and asyncio's own ways to cancel."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from streaming import TOO_MUCH, FarTLS, Runtime, beside, expires, heard, is_gone, say, serving, tcp_pair, turns

from deltawire.protocol import Proxy
from deltawire.transports.streams import racing
from deltawire.transports.streams.layers import Address, after
from deltawire.transports.streams.on_asyncio import AsyncioStream
from deltawire.transports.streams.opening import Way, aopen_stream, asecure

pytestmark = pytest.mark.usefixtures("_tidy")


async def over_tcp(deadline: float = math.inf) -> tuple[AsyncioStream, socket.socket]:
    near, far = tcp_pair()
    stream: AsyncioStream = await Runtime("asyncio").over(near, deadline)
    return stream, far


# --- Timers -------------------------------------------------------------------------------------------


class Timers:
    """How many are made, and how many are on at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self.made: list[asyncio.TimerHandle] = []
        original = loop.call_at

        def call_at(*arguments: Any, **named: Any) -> asyncio.TimerHandle:
            self.made.append(original(*arguments, **named))
            return self.made[-1]

        # call_later calls it, too.
        monkeypatch.setattr(loop, "call_at", call_at)

    @property
    def on(self) -> int:
        now = asyncio.get_running_loop().time()
        return sum(not timer.cancelled() and timer.when() > now for timer in self.made)


def test_one_timer_for_a_thousand_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        stream, far = await over_tcp()
        timers = Timers(monkeypatch)
        with far:
            for number in range(1000):
                stream.deadline = after(60)
                waiting = asyncio.ensure_future(stream.read())
                await asyncio.sleep(0)
                far.sendall(b"%d" % number)
                assert await waiting == b"%d" % number
            assert len(timers.made) == 1
            stream.abort()
            assert timers.on == 0

    asyncio.run(main())


def test_the_timer_follows_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        stream, far = await over_tcp()
        timers = Timers(monkeypatch)
        with far:
            # It goes off once a period, not once a read.
            begin = time.monotonic()
            for _ in range(100):
                stream.deadline = after(0.05)
                asyncio.get_running_loop().call_soon(far.sendall, b"x")
                await stream.read()
                await asyncio.sleep(0.002)
            made = [timer for timer in timers.made if "_look" in repr(timer)]
            assert len(made) <= (time.monotonic() - begin) / 0.05 + 2
            # Nearer: another one, and the first is cancelled.
            stream.deadline = after(60)
            waiting = asyncio.ensure_future(stream.read())
            await turns()
            waiting.cancel()
            stream.deadline = after(0.05)
            with expires(0, until=stream.deadline):
                await stream.read()
            assert timers.on == 0
            stream.abort()

    asyncio.run(main())


def test_no_timer_without_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        stream, far = await over_tcp()
        timers = Timers(monkeypatch)
        with far:
            waiting = asyncio.ensure_future(stream.read())
            await turns()
            far.sendall(b"x")
            assert await waiting == b"x"
            assert timers.made == []
            stream.abort()

    asyncio.run(main())


def test_a_stream_is_not_kept_by_its_timer() -> None:
    async def main() -> int:
        stream, far = await over_tcp(after(60))
        with far:
            waiting = asyncio.ensure_future(stream.read())
            await turns()
            far.sendall(b"x")
            assert await waiting == b"x"
            stream.abort()
            await turns()
        del stream, waiting
        gc.collect()
        return sum(isinstance(each, AsyncioStream) for each in gc.get_objects())

    assert asyncio.run(main()) == 0


# --- Back-pressure ------------------------------------------------------------------------------------


def test_who_does_not_read_holds_up_the_peer() -> None:
    much = 50_000_000
    sent = threading.Event()

    async def main() -> None:
        stream, far = await over_tcp(after(10))

        def send() -> None:
            far.sendall(bytes(much))
            sent.set()
            far.close()

        with beside(send):
            # As much as is taken without being asked for.
            size = -1
            while size != stream._size:
                size = stream._size
                await asyncio.sleep(0.05)
            assert size < 2_000_000
            assert not sent.is_set()
            size = 0
            while data := await stream.read():
                assert len(data) < 2_000_000
                size += len(data)
            assert size == much
        stream.abort()

    asyncio.run(main())


# --- Cancelling ---------------------------------------------------------------------------------------

Stage = Callable[[], Coroutine[Any, Any, Any]]


async def cancelled(work: Stage, times: int) -> None:
    """Cancel it while it waits, this often, a turn of the loop apart."""
    task = asyncio.ensure_future(work())
    await turns()
    assert not task.done()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("times", [1, 2, 3])
def test_cancelling_a_read_loses_nothing(times: int) -> None:
    async def main() -> None:
        stream, far = await over_tcp(after(5))
        with far:
            await cancelled(stream.read, times)
            far.sendall(b"data")
            assert await stream.read() == b"data"
            # And in the moment in which they come.
            task = asyncio.ensure_future(stream.read())
            await turns()
            far.sendall(b"more")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await stream.read() == b"more"
            await cancelled(lambda: stream.write(TOO_MUCH), times)
            stream.abort()
            await turns()
            is_gone(far)

    asyncio.run(main())


@pytest.mark.parametrize("times", [1, 2, 3])
def test_cancelling_a_handshake(trusting: ssl.SSLContext, times: int) -> None:
    async def main() -> None:
        stream, far = await over_tcp(after(5))
        with far:
            await cancelled(lambda: asecure(stream, trusting, "localhost"), times)
            assert stream.closed
            await turns()
            is_gone(far)

    asyncio.run(main())


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h"])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_cancelling_the_opening(trusting: ssl.SSLContext, scheme: str, times: int) -> None:
    async def main(port: int) -> None:
        way = Way(proxy=Proxy(scheme, "127.0.0.1", port), proxy_context=lambda: trusting)
        task = asyncio.ensure_future(aopen_stream(way, "example.org", 443, after(5)))
        await asyncio.get_running_loop().run_in_executor(None, knocked.wait, 5)
        await turns()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task

    def listen(connection: socket.socket) -> None:
        connection.recv(1)
        knocked.set()
        is_gone(connection)

    knocked = threading.Event()
    with serving(listen) as port:
        asyncio.run(main(port))


@pytest.mark.parametrize("times", [1, 2, 3])
def test_cancelling_at_every_turn(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Connecting, cancelled after one turn of the loop, after two, and so on until it is done. (asyncio's own happy
    eyeballs lose a socket in most of these turns.)"""

    async def addresses(host: str, port: int) -> list[Address]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]

    async def main(port: int, turn: int) -> bool:
        opening = asyncio.ensure_future(aopen_stream(Way(), "localhost", port, after(5)))
        for _ in range(turn):
            await asyncio.sleep(0)
        for _ in range(times):
            opening.cancel()
            await asyncio.sleep(0)
        try:
            stream = await opening
        except asyncio.CancelledError:
            # What is closed now, the next turn closes.
            await asyncio.sleep(0)
            return False
        stream.abort()
        return True

    monkeypatch.setattr(racing, "addresses", addresses)
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        turn = 0
        while not asyncio.run(main(listener.getsockname()[1], turn)):
            turn += 1
            assert turn < 100
            gc.collect()
        assert turn > 5


def test_timing_out_at_every_moment() -> None:
    async def main(port: int) -> None:
        for number in range(100):
            opening = aopen_stream(Way(), "localhost", port, after(5))
            with contextlib.suppress(asyncio.TimeoutError):
                (await asyncio.wait_for(opening, number * 0.00005)).abort()

    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        asyncio.run(main(listener.getsockname()[1]))


# --- The end ------------------------------------------------------------------------------------------


def test_a_loop_that_ends_with_a_stream() -> None:
    """An aborted stream leaves nothing behind, even if that was the last thing the loop did."""

    async def main() -> None:
        stream, far = await over_tcp()
        far.close()
        stream.abort()

    asyncio.run(main())
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()


@pytest.mark.parametrize("loops", ["asyncio", "uvloop"])
def test_the_end_is_told_though_a_child_has_the_socket(loops: str) -> None:
    """Forked in mid-stream, it has a copy; where the child ends that, the peer hears nothing."""

    async def main() -> None:
        for child in (False, True):
            near, far = tcp_pair()
            with far, near.dup():
                stream: AsyncioStream = await Runtime("asyncio").over(near, after(5))
                stream._process += child
                stream.abort()
                await turns()
                far.settimeout(0 if child else 5)
                with pytest.raises(BlockingIOError) if child else contextlib.nullcontext():
                    assert far.recv(1) == b""

    loop = importlib.import_module(loops).new_event_loop()
    loop.run_until_complete(main())
    loop.run_until_complete(turns())
    loop.close()


# --- Other loops --------------------------------------------------------------------------------------


def test_any_transport() -> None:
    """uvloop's are no `asyncio.Transport`."""

    class Transport:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock
            self.written = b""

        def get_extra_info(self, name: str) -> Any:
            return self.sock if name == "socket" else None

        def write(self, data: bytes) -> None:
            self.written += data

        def abort(self) -> None:
            self.sock.close()

    async def main() -> None:
        near, far = tcp_pair()
        with far:
            transport: Any = Transport(near)
            stream = AsyncioStream(after(5))
            stream.connection_made(transport)
            await stream.write(b"question")
            assert transport.written == b"question"
            stream.abort()
            assert near.fileno() == -1

    asyncio.run(main())


def test_uvloop(trusting: ssl.SSLContext, server_context: ssl.SSLContext) -> None:
    uvloop: Any = importlib.import_module("uvloop")

    async def main(port: int) -> None:
        stream = await aopen_stream(Way(), "localhost", port, after(5))
        await asecure(stream, trusting, "localhost")
        await stream.write(b"question")
        assert await stream.read() == b"answer"
        stream.deadline = after(0.05)
        with expires(0, until=stream.deadline):
            await stream.read()
        stream.abort()

    def serve(connection: socket.socket) -> None:
        there = FarTLS(server_context).over(connection)
        assert heard(connection, there) == b"question"
        say(connection, b"answer", there)
        is_gone(connection)

    loop = uvloop.new_event_loop()
    with serving(serve) as port:
        loop.run_until_complete(main(port))
        loop.run_until_complete(turns())
    loop.close()


def test_what_came_before_a_write_that_fails_is_read() -> None:
    """asyncio ends the connection without a look at it."""

    async def main() -> None:
        stream, far = await over_tcp()
        stream.begin(b"half of a request")
        far.sendall(b"no, ")
        far.sendall(b"thanks")
        # It closes with what it has not heard: that is a reset. And the loop has had no time to read.
        far.close()
        stream.begin(b"the other half")
        assert await stream.read() == b"no, thanks"
        with pytest.raises(OSError):
            await stream.read()
        stream.abort()

    asyncio.run(main())
