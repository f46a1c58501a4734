"""Reading, writing, deadlines and the end of streams, on all three runtimes; plain and through TLS."""

from __future__ import annotations

import contextlib
import functools
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from streaming import LATE, TOO_MUCH, FarTLS, Runtime, expires, is_gone, now, reset, tcp_pair

from deltawire.transports.streams.layers import TLS, Expired, after

pytestmark = pytest.mark.usefixtures("_tidy")


async def over_tcp(runtime: Runtime, deadline: float = math.inf) -> tuple[Any, socket.socket]:
    near, far = tcp_pair()
    return await runtime.over(near, deadline), far


def say_soon(far: socket.socket) -> None:
    time.sleep(0.05)
    far.sendall(b"x")


async def over_tls(runtime: Runtime, trusting: ssl.SSLContext, context: ssl.SSLContext) -> tuple[Any, Any, FarTLS]:
    """A stream, the socket at its other end, and the TLS there."""
    stream, far = await over_tcp(runtime, after(5))
    there = FarTLS(context)
    async with runtime.beside(lambda: there.over(far)):
        await now(runtime.secure(stream, trusting))
    return stream, far, there


# --- Reading and writing ------------------------------------------------------------------------------


def test_bytes_both_ways(runtime: Runtime) -> None:
    async def main() -> None:
        stream, far = await over_tcp(runtime)
        with far:
            await now(stream.write(b"question"))
            assert far.recv(100) == b"question"
            assert stream.silent
            far.sendall(b"answer")
            assert await now(stream.read()) == b"answer"
            assert not stream.silent
            await now(stream.write(b""))
            far.shutdown(socket.SHUT_WR)
            assert await now(stream.read()) == b""
            assert await now(stream.read()) == b""
            # The other direction is as open as before.
            await now(stream.write(b"more"))
            assert far.recv(100) == b"more"
            stream.abort()
            await runtime.gone(far)

    runtime.run(main)


def test_bytes_both_ways_in_tls(runtime: Runtime, trusting: ssl.SSLContext, server_context: ssl.SSLContext) -> None:
    async def main() -> None:
        stream, far, there = await over_tls(runtime, trusting, server_context)
        with far:
            await now(stream.write(b"question"))
            assert there.hear(far.recv(1000)) == b"question"
            for drop in there.say(b"answer"):
                far.sendall(bytes([drop]))
            assert await now(stream.read()) == b"answer"
            far.sendall(there.say(b"last") + there.bye())
            assert await now(stream.read()) == b"last"
            # The end of TLS is the end, whatever the socket does.
            assert await now(stream.read()) == b""
            assert stream.get_extra_info("ssl_object").version() == "TLSv1.3"
            stream.abort()

    runtime.run(main)


@pytest.mark.parametrize("secured", [False, True])
def test_much_both_ways(
    runtime: Runtime, trusting: ssl.SSLContext, server_context: ssl.SSLContext, secured: bool
) -> None:
    much = bytes(range(256)) * 20_000

    async def main() -> None:
        there: FarTLS | None = None
        if secured:
            stream, far, there = await over_tls(runtime, trusting, server_context)
        else:
            stream, far = await over_tcp(runtime, after(10))

        def echo() -> None:
            heard = b""
            while len(heard) < len(much):
                data = far.recv(1 << 20)
                heard += data if there is None else there.hear(data)
            assert heard == much
            far.sendall(heard if there is None else there.say(heard))
            far.close()

        async with runtime.beside(echo):
            await now(stream.write(much))
            parts = []
            while data := await now(stream.read()):
                parts.append(data)
        assert b"".join(parts) == much
        stream.abort()

    runtime.run(main)


def test_data_before_a_reset(runtime: Runtime) -> None:
    async def main() -> None:
        stream, far = await over_tcp(runtime, after(5))
        far.sendall(b"data")
        assert await now(stream.read()) == b"data"
        reset(far)
        with pytest.raises(ConnectionResetError):
            await now(stream.read())
        with contextlib.suppress(OSError):
            # With this the end is known to all of them.
            await now(stream.write(b"x"))
        with pytest.raises(OSError):
            await now(stream.write(b"x"))
        stream.abort()

    runtime.run(main)


def test_garbage_in_tls(runtime: Runtime, trusting: ssl.SSLContext, server_context: ssl.SSLContext) -> None:
    async def main() -> None:
        stream, far, there = await over_tls(runtime, trusting, server_context)
        with far:
            far.sendall(there.say(b"good") + b"HTTP/1.1 400 Bad Request\r\n\r\n")
            assert await now(stream.read()) == b"good"
            for _ in range(2):
                with pytest.raises(ssl.SSLError):
                    await now(stream.read())
            stream.abort()

    runtime.run(main)


EVENTS: dict[str, Callable[[socket.socket], object]] = {
    "bytes": lambda far: far.sendall(b"x"),
    "end": lambda far: far.shutdown(socket.SHUT_WR),
    "reset": reset,
}


@pytest.mark.parametrize("event", EVENTS)
def test_an_idle_connection(runtime: Runtime, event: str) -> None:
    async def main() -> None:
        stream, far = await over_tcp(runtime, after(5))
        with far:
            assert not stream.get_extra_info("is_readable")
            EVENTS[event](far)
            # On the loopback it is there when the call is over; the loop need not have gone round.
            assert stream.get_extra_info("is_readable")
            stream.abort()
            assert stream.get_extra_info("is_readable")

    runtime.run(main)


def test_an_idle_connection_whose_tls_is_over(
    runtime: Runtime, trusting: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async def main() -> None:
        stream, far, there = await over_tls(runtime, trusting, server_context)
        with far:
            far.sendall(there.say(b"last") + there.bye())
            assert await now(stream.read()) == b"last"
            assert stream.get_extra_info("is_readable")
            stream.abort()

    runtime.run(main)


def test_extra_info(runtime: Runtime) -> None:
    async def main() -> None:
        stream, far = await over_tcp(runtime)
        with far:
            assert stream.get_extra_info("server_addr") == far.getsockname()
            assert stream.get_extra_info("client_addr") == far.getpeername()
            assert stream.get_extra_info("socket").fileno() > 0
            assert stream.get_extra_info("ssl_object") is None
            assert stream.get_extra_info("weather") is None
            stream.abort()

    runtime.run(main)


# --- Deadlines ----------------------------------------------------------------------------------------


def test_reading_in_vain(runtime: Runtime) -> None:
    async def main() -> None:
        stream, far = await over_tcp(runtime)
        with far:
            for wait in (0.05, 0.0, 0.001, 0.1):
                stream.deadline = after(wait)
                with expires(0, until=stream.deadline):
                    await now(stream.read())
            # And nothing is lost by it.
            far.sendall(b"late")
            stream.deadline = after(5)
            assert await now(stream.read()) == b"late"
            stream.abort()

    runtime.run(main)


@pytest.mark.parametrize("past", [0.0, -1e9, -math.inf])
def test_a_deadline_that_has_passed(runtime: Runtime, past: float) -> None:
    """Even if there is something to read."""

    async def main() -> None:
        stream, far = await over_tcp(runtime)
        with far:
            far.sendall(b"x")
            stream.deadline = past
            with pytest.raises(Expired):
                await now(stream.read())
            with pytest.raises(Expired):
                await now(stream.write(b"x"))
            stream.deadline = after(5)
            assert await now(stream.read()) == b"x"
            stream.abort()

    runtime.run(main)


@pytest.mark.parametrize("far_off", [math.inf, 1e300, 1e18, 1e10, 1e7])
def test_a_deadline_that_is_far_off(runtime: Runtime, far_off: float) -> None:
    async def main() -> None:
        stream, far = await over_tcp(runtime, time.monotonic() + far_off)
        with far:
            assert await runtime.ended(lambda: stream.read(), lambda: far.sendall(b"x")) == b"x"
            outcome = await runtime.ended(lambda: stream.write(TOO_MUCH), lambda: reset(far))
            assert isinstance(outcome, ConnectionError)
            stream.abort()

    runtime.run(main)


def test_a_record_that_comes_in_drops(
    runtime: Runtime, trusting: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async def main() -> None:
        stream, far, there = await over_tls(runtime, trusting, server_context)
        over = threading.Event()

        def dribble() -> None:
            for drop in there.say(b"x" * 1000):
                far.sendall(bytes([drop]))
                if over.wait(0.01):
                    return

        with far:
            async with runtime.beside(dribble):
                stream.deadline = after(0.1)
                with expires(0, until=stream.deadline):
                    await now(stream.read())
                over.set()
        stream.abort()

    runtime.run(main)


def test_writing_to_who_does_not_read(runtime: Runtime) -> None:
    async def main() -> None:
        stream, far = await over_tcp(runtime, after(0.1))
        with far:
            with expires(0, until=stream.deadline):
                await now(stream.write(TOO_MUCH))
            stream.abort()

    runtime.run(main)


def test_writing_to_who_reads_slowly(runtime: Runtime) -> None:
    """It can always be written a little, and never all of it in time."""

    async def main() -> None:
        stream, far = await over_tcp(runtime)
        over = threading.Event()

        def sip() -> None:
            while not over.wait(0.001):
                far.recv(10_000)

        with far:
            async with runtime.beside(sip):
                stream.deadline = after(0.2)
                with expires(0, until=stream.deadline):
                    await now(stream.write(TOO_MUCH))
                over.set()
        stream.abort()

    runtime.run(main)


def test_a_deadline_that_moves_between_waits(runtime: Runtime) -> None:
    async def main() -> None:
        stream, far = await over_tcp(runtime, after(0.4))
        with far:
            for _ in range(10):
                # Ahead: time passes, and the first deadlines with it.
                stream.deadline = after(0.4)
                async with runtime.beside(functools.partial(say_soon, far)):
                    assert await now(stream.read()) == b"x"
            # Far, and near again.
            stream.deadline = after(60)
            async with runtime.beside(functools.partial(say_soon, far)):
                assert await now(stream.read()) == b"x"
            stream.deadline = after(0.05)
            with expires(0, until=stream.deadline):
                await now(stream.read())
            stream.deadline = after(0.05)
            with expires(0, until=stream.deadline):
                await now(stream.read())
            stream.abort()

    runtime.run(main)


@pytest.mark.parametrize("what", ["read", "write"])
def test_a_deadline_that_is_put_off_under_a_wait(runtime: Runtime, what: str) -> None:
    async def main() -> None:
        stream, far = await over_tcp(runtime, after(0.4))

        def put_off() -> None:
            stream.deadline += 0.2

        with far:
            outcome = await runtime.ended(lambda: stream.read() if what == "read" else stream.write(TOO_MUCH), put_off)
            assert isinstance(outcome, Expired)
            assert 0 <= time.monotonic() - stream.deadline < LATE
            stream.abort()

    runtime.run(main)


def test_a_deadline_that_is_put_off_until_there_are_bytes(runtime: Runtime) -> None:
    async def main() -> None:
        stream, far = await over_tcp(runtime, after(0.4))

        def put_off() -> None:
            stream.deadline = after(5)
            time.sleep(0.45)
            far.sendall(b"x")

        with far:
            assert await runtime.ended(lambda: stream.read(), put_off) == b"x"
            stream.abort()

    runtime.run(main)


def test_a_shared_stream(runtime: Runtime) -> None:
    """Not its deadline counts, but each call's time-out."""

    async def main() -> None:
        stream, far = await over_tcp(runtime, 0.0)
        stream.shared = True
        with far:
            with expires(0.05):
                await now(stream.read(100, 0.05))
            with expires(0.05):
                await now(stream.write(TOO_MUCH, 0.05))
            far.sendall(b"x")
            assert await now(stream.read(100, None)) == b"x"
            assert await runtime.ended(lambda: stream.read(100, None), lambda: far.sendall(b"y")) == b"y"
            stream.abort()

    runtime.run(main)


# --- The end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["read", "write", "handshake"])
def test_abort_wakes_who_waits(runtime: Runtime, trusting: ssl.SSLContext, what: str) -> None:
    async def main() -> None:
        stream, far = await over_tcp(runtime, after(60))
        waits = {
            "read": lambda: stream.read(),
            "write": lambda: stream.write(TOO_MUCH),
            "handshake": lambda: runtime.secure(stream, trusting),
        }
        with far:
            begin = time.monotonic()
            outcome = await runtime.ended(waits[what], stream.abort)
            assert isinstance(outcome, OSError), outcome
            assert time.monotonic() - begin < 1
            assert stream.closed
            if what != "write":
                await runtime.gone(far)

    runtime.run(main)


def test_abort_before_and_after_use(runtime: Runtime) -> None:
    async def main() -> None:
        for used in (False, True):
            stream, far = await over_tcp(runtime, after(5))
            with far:
                if used:
                    far.sendall(b"x")
                    await now(stream.read())
                    far.sendall(b"never read")
                stream.early = b"nor that"
                for _ in range(2):
                    stream.abort()
                    with pytest.raises(OSError):
                        await now(stream.read())
                    with pytest.raises(OSError):
                        await now(stream.write(b"x"))
                await runtime.gone(far)

    runtime.run(main)


def test_abort_after_the_peers_end(runtime: Runtime) -> None:
    async def main() -> None:
        for end in (reset, socket.socket.close):
            stream, far = await over_tcp(runtime, after(5))
            end(far)
            with contextlib.suppress(ConnectionError):
                assert await now(stream.read()) == b""
            stream.abort()
            with pytest.raises(OSError):
                await now(stream.read())

    runtime.run(main)


def test_the_end_wakes_who_waits(runtime: Runtime) -> None:
    async def main() -> None:
        stream, far = await over_tcp(runtime, after(60))
        assert await runtime.ended(lambda: stream.read(), far.close) == b""
        stream.abort()
        stream, far = await over_tcp(runtime, after(60))
        outcome = await runtime.ended(lambda: stream.read(), lambda: reset(far))
        assert isinstance(outcome, ConnectionResetError)
        stream.abort()

    runtime.run(main)


# --- TLS ----------------------------------------------------------------------------------------------


def test_a_handshake_in_vain(runtime: Runtime, trusting: ssl.SSLContext, server_context: ssl.SSLContext) -> None:
    """The server stalls somewhere in its flight."""

    async def main(at: int) -> int:
        stream, far = await over_tcp(runtime, after(0.05))

        def stall() -> None:
            flight.append(FarTLS(server_context).answer(far.recv(65536)))
            far.sendall(flight[0][:at])

        flight: list[bytes] = []
        with far:
            with expires(0, until=stream.deadline):
                async with runtime.beside(stall):
                    await now(runtime.secure(stream, trusting))
            assert stream.closed
            await runtime.gone(far)
        return len(flight[0])

    size = runtime.run(main, 0)
    for at in [1, 4, 5, 6, *range(100, size - 9, 500), -1]:
        runtime.run(main, at)


@pytest.mark.parametrize("end", [socket.socket.close, reset])
def test_a_handshake_that_breaks(
    runtime: Runtime,
    trusting: ssl.SSLContext,
    server_context: ssl.SSLContext,
    end: Callable[[socket.socket], None],
) -> None:
    async def main(at: int) -> None:
        stream, far = await over_tcp(runtime, after(5))

        def leave() -> None:
            far.sendall(FarTLS(server_context).answer(far.recv(65536))[:at])
            end(far)

        with pytest.raises(OSError):
            async with runtime.beside(leave):
                await now(runtime.secure(stream, trusting))
        assert stream.closed

    for at in (0, 1, 5, 200, 500):
        runtime.run(main, at)


@pytest.mark.parametrize("trusted", [False, True])
def test_a_server_hears_that_it_is_not_trusted(
    runtime: Runtime, trusting: ssl.SSLContext, server_context: ssl.SSLContext, trusted: bool
) -> None:
    async def main() -> None:
        stream, far = await over_tcp(runtime, after(5))

        def serve() -> None:
            with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
                FarTLS(server_context).over(far)

        context = trusting if trusted else ssl.create_default_context()
        with far, pytest.raises(ssl.SSLCertVerificationError):
            async with runtime.beside(serve):
                await now(runtime.secure(stream, context, "example.org" if trusted else "localhost"))
        assert stream.closed

    runtime.run(main)


@pytest.mark.parametrize("name", ["a" * 64 + ".x", ".example.org", "", "a..b", "a\0b"])
def test_a_name_that_tls_can_not_say(runtime: Runtime, trusting: ssl.SSLContext, name: str) -> None:
    async def main() -> None:
        stream, far = await over_tcp(runtime, after(5))
        with far:
            with pytest.raises((ValueError, TypeError)):
                await now(runtime.secure(stream, trusting, name))
            assert stream.closed
            await runtime.gone(far)

    runtime.run(main)


def test_garbage_right_behind_the_handshake(runtime: Runtime, trusting: ssl.SSLContext, authority: Any) -> None:
    """The handshake was good; what comes with its end breaks the stream, which is closed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    async def main() -> None:
        stream, far = await over_tcp(runtime, after(5))

        def serve() -> None:
            there = FarTLS(context)
            far.sendall(there.answer(far.recv(65536)))
            far.sendall(there.answer(far.recv(65536)) + b"HTTP/1.1 400 Bad Request\r\n\r\n")
            is_gone(far)

        with far, pytest.raises(ssl.SSLError):
            async with runtime.beside(serve):
                await now(runtime.secure(stream, trusting))
        assert stream.closed

    runtime.run(main)


def test_a_new_handshake(runtime: Runtime) -> None:
    """A server of TLS 1.2 may ask for one, and says nothing more before it has begun. (Python's servers can't.)"""

    class Asked(TLS):
        def __init__(self) -> None:
            self.over = False
            self._heard, self._owed = b"", b""

        def feed(self, data: bytes) -> None:
            self._heard, self._owed = data, b"hello" if data == b"ask" else b""

        def decrypt(self) -> bytes | None:
            return None if self._heard == b"ask" else self._heard

        def outgoing(self) -> bytes:
            owed, self._owed = self._owed, b""
            return owed

    async def main() -> None:
        stream, far = await over_tcp(runtime, after(5))
        stream.tls = (Asked(),)

        def serve() -> None:
            far.sendall(b"ask")
            assert far.recv(100) == b"hello"
            far.sendall(b"answer")

        with far:
            async with runtime.beside(serve):
                assert await now(stream.read()) == b"answer"
            stream.abort()

    runtime.run(main)


def test_tls_in_tls(runtime: Runtime, trusting: ssl.SSLContext, server_context: ssl.SSLContext) -> None:
    async def main() -> None:
        stream, far, outer = await over_tls(runtime, trusting, server_context)
        inner = FarTLS(server_context)
        with far:
            async with runtime.beside(lambda: inner.over(far, outer)):
                await now(runtime.secure(stream, trusting))
            await now(stream.write(b"question"))
            assert inner.hear(outer.hear(far.recv(1000))) == b"question"
            far.sendall(outer.say(inner.say(b"last")) + outer.bye())
            assert await now(stream.read()) == b"last"
            assert await now(stream.read()) == b""
            stream.abort()

    runtime.run(main)
