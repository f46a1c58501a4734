"""on_trio.py: trio's ways to cancel, its checkpoints, and connecting to one address."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest
import trio
import trio.testing
from driving import free_port
from streaming import TOO_MUCH, Runtime, is_gone, serving, tcp_pair, turns

from deltawire.protocol import Proxy
from deltawire.transports.streams.layers import Address, after
from deltawire.transports.streams.on_trio import TrioStream, connect, connect_unix
from deltawire.transports.streams.opening import Way, aopen_stream, asecure

pytestmark = pytest.mark.usefixtures("_tidy")


async def over_tcp() -> tuple[TrioStream, socket.socket]:
    near, far = tcp_pair()
    stream: TrioStream = await Runtime("trio").over(near, after(5))
    return stream, far


def test_cancelling_a_read_loses_nothing() -> None:
    async def main() -> None:
        stream, far = await over_tcp()
        with far:
            # Before it, while something is there.
            far.sendall(b"data")
            with trio.CancelScope() as scope:
                scope.cancel()
                await stream.read()
            assert scope.cancelled_caught
            assert await stream.read() == b"data"
            # While it waits, in the moment in which they come.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.read)
                await turns()
                far.sendall(b"more")
                nursery.cancel_scope.cancel()
            assert await stream.read() == b"more"
            with trio.move_on_after(0.01) as scope:
                await stream.write(TOO_MUCH)
            assert scope.cancelled_caught
            stream.abort()
            is_gone(far)

    trio.run(main)


def test_reading_and_writing_let_others_run() -> None:
    async def main() -> None:
        stream, far = await over_tcp()
        with far:
            far.sendall(b"data")
            with trio.testing.assert_checkpoints():
                assert await stream.read() == b"data"
            with trio.testing.assert_checkpoints():
                await stream.write(b"x")
            far.shutdown(socket.SHUT_WR)
            for _ in range(2):
                with trio.testing.assert_checkpoints():
                    assert await stream.read() == b""
            stream.abort()

    trio.run(main)


def test_the_outer_scope_goes_first() -> None:
    """A deadline and a cancellation at once: that it was cancelled must not be lost."""

    async def main() -> None:
        stream, far = await over_tcp()
        with far, trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.read)
                await turns()
                stream.deadline = 0.0
                scope.cancel()
        assert scope.cancelled_caught
        stream.abort()

    trio.run(main)


@pytest.mark.parametrize("number", range(20))  # trio shuffles whose turn it is
def test_closed_before_the_waiting_begins(number: int) -> None:
    """A read waits in two tasks while the request is sent: whoever closes may come before them."""

    async def main() -> None:
        stream, far = await over_tcp()
        with far:
            stream.begin(TOO_MUCH)
            # As it is after a read that took all there was.
            stream._drained = True
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.aclose)
                with pytest.raises(OSError, match="closed"):
                    await stream.read()
            # Nobody is left waiting where the descriptor was.
            other, end = await over_tcp()
            with end:
                end.sendall(b"data")
                assert await other.read() == b"data"
                other.abort()

    trio.run(main)


def test_cancelling_a_handshake(trusting: ssl.SSLContext) -> None:
    async def main() -> None:
        stream, far = await over_tcp()
        with far:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(asecure, stream, trusting, "localhost")
                await turns()
                nursery.cancel_scope.cancel()
            assert stream.closed
            is_gone(far)

    trio.run(main)


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h"])
def test_cancelling_the_opening(trusting: ssl.SSLContext, scheme: str) -> None:
    async def main(port: int) -> None:
        way = Way(proxy=Proxy(scheme, "127.0.0.1", port), proxy_context=lambda: trusting)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(aopen_stream, way, "example.org", 443, after(5))
            await trio.to_thread.run_sync(heard.wait, 5)
            await turns()
            nursery.cancel_scope.cancel()

    def listen(connection: socket.socket) -> None:
        connection.recv(1)
        heard.set()
        is_gone(connection)

    heard = threading.Event()
    with serving(listen) as port:
        trio.run(main, port)


def test_cancelling_at_every_turn() -> None:
    async def main(port: int, turn: int) -> bool:
        streams = []

        async def opening() -> None:
            streams.append(await aopen_stream(Way(), "localhost", port, after(5)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(opening)
            await turns(turn)
            nursery.cancel_scope.cancel()
        for stream in streams:
            stream.abort()
        return bool(streams)

    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        turn = 0
        while not trio.run(main, listener.getsockname()[1], turn):
            turn += 1
            assert turn < 10_000


def test_two_who_read() -> None:
    """It is a mistake, and says so."""

    async def main() -> None:
        stream, far = await over_tcp()
        with far:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.read)
                await turns()
                with pytest.raises(trio.BusyResourceError):
                    await stream.read()
                nursery.cancel_scope.cancel()
            stream.abort()

    trio.run(main)


def test_connecting_to_one_address(tmp_path: Path) -> None:
    def address(port: int) -> Address:
        return (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))

    async def main(port: int) -> None:
        for local in (None, "127.0.0.1"):
            stream = await connect(address(port), after(5), local)
            stream.abort()
        with pytest.raises(ConnectionRefusedError):
            await connect(address(free_port()), after(5))
        with pytest.raises(OSError):
            await connect(address(port), after(5), "192.0.2.1")
        with trio.CancelScope() as scope:
            scope.cancel()
            await connect(address(port), after(5))
        assert scope.cancelled_caught
        with pytest.raises(FileNotFoundError):
            await connect_unix(str(tmp_path / "none"), after(5))

    with serving(is_gone, is_gone) as port:
        trio.run(main, port)
