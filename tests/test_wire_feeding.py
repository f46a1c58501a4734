"""How bytes come to the wire's exchanges: back-pressure, deadlines to the point, and what a token costs."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from driving import blocking, settled
from faults import chunk, event
from feeding import failure, text
from streaming import FarTLS, Runtime, tcp_pair, turns
from wiring import (
    CHUNKED,
    DONE,
    FINISH,
    PATIENT,
    Asked,
    Call,
    Wire,
    WireKind,
    each_kind,
    each_loop,
    each_pushed,
    scripted,
    until,
)

from deltawire import ReadError, Timeout, TimeoutError, TruncatedStreamError
from deltawire.protocol import Deadlines, StreamEnded
from deltawire.transports.streams.opening import asecure
from deltawire.transports.wire.feeding import HIGH_WATER

pytestmark = pytest.mark.usefixtures("_tidy")

secured = pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])

# --- Back-pressure ----------------------------------------------------------------------------------------

TOKEN = "x" * 4000
TOKENS = 8000
# What sockets hold of it, at both ends, however large they grow.
SOCKETS = 20_000_000

# What asyncio reads at once, which is counted when it is there.
ONE_READ = 256 * 1024


class Torrent:
    """A server that says a great deal as fast as it can: 32 MB."""

    def __init__(self) -> None:
        self.sent = 0
        self._moved = threading.Event()
        self.gone = threading.Event()

    def __call__(self, connection: Any) -> None:
        assert Asked(connection).request()
        data = chunk(event(TOKEN))
        try:
            connection.sendall(CHUNKED)
            for _ in range(TOKENS):
                connection.sendall(data)
                self.sent += len(data)
                self._moved.set()
            connection.sendall(chunk(FINISH + DONE) + b"0\r\n\r\n")
            assert connection.recv(1) == b""
        except OSError:
            pass
        self.gone.set()

    def wait_held_up(self) -> None:
        """Nothing leaves any more."""
        while self._moved.wait(0.2):
            self._moved.clear()


async def _begun(wire: Wire, url: str) -> tuple[Call, int]:
    """A call that has read its first content; and how much that is."""
    call = wire.call(url)
    size = 0
    while not size:
        size = len(text(await call.events()))
    return call, size


def _held(call: Call, taken: int) -> int:
    """How many characters the client has of which nobody has taken the events."""
    return call.reply.contents * len(TOKEN) - taken


@each_loop
@secured
def test_who_does_not_read_holds_up_the_server(
    kind: WireKind, secure: bool, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    torrent = Torrent()

    async def main(url: str) -> None:
        async with kind.wire(verify=trusting) as wire:
            call, size = await _begun(wire, url)
            for _ in range(2):
                await blocking(torrent.wait_held_up)
                assert torrent.sent - size < SOCKETS
                assert _held(call, size) <= (HIGH_WATER + ONE_READ if kind.pushed else 0)
                # And again, after some reading.
                for _ in range(20):
                    size += len(text(await call.events()))
            while events := await call.events():
                size += len(text(events))
                assert _held(call, size) <= (HIGH_WATER + ONE_READ if kind.pushed else 0)
                last = events[-1]
            assert isinstance(last, StreamEnded)
            assert size == TOKENS * len(TOKEN)
            await call.close()
            assert wire.connections == (0, 1)

    with scripted(torrent, context=server_context if secure else None) as url:
        kind.run(main, url)


@each_loop
@secured
def test_closing_while_it_is_held_up(
    kind: WireKind, secure: bool, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    torrent = Torrent()

    async def main(url: str) -> None:
        async with kind.wire(verify=trusting) as wire:
            call, _ = await _begun(wire, url)
            await blocking(torrent.wait_held_up)
            await call.close()
            assert wire.connections == (0, 0)
            assert await blocking(torrent.gone.wait, 5)
            assert await settled(lambda: wire.connections == (0, 0))

    with scripted(torrent, context=server_context if secure else None) as url:
        kind.run(main, url)


@each_loop
def test_a_client_closed_while_a_stream_is_held_up(kind: WireKind) -> None:
    """What has come is still given; then that it is over."""
    torrent = Torrent()

    async def main(url: str) -> None:
        wire = Wire(kind.blocks)
        call, size = await _begun(wire, url)
        await blocking(torrent.wait_held_up)
        held = _held(call, size)
        await wire.close()
        assert await blocking(torrent.gone.wait, 5)
        events = await call.rest()
        assert isinstance(failure(events), (ReadError, TruncatedStreamError))
        assert len(text(events)) == held

    with scripted(torrent) as url:
        kind.run(main, url)


@each_pushed
def test_a_drain_lets_come_what_was_held_up(kind: WireKind) -> None:
    """The end of the message stands in the socket, behind a verdict with much before it."""
    last = threading.Event()

    def serve(connection: Any) -> None:
        assert Asked(connection).request()
        body = event(TOKEN) * (HIGH_WATER // len(TOKEN) + 10)
        connection.sendall(CHUNKED + chunk(body + FINISH + DONE))
        assert last.wait(10)
        connection.sendall(b"0\r\n\r\n")
        connection.recv(1)

    async def main(url: str) -> None:
        async with kind.wire() as wire:
            call = wire.call(url)
            events = await call.events()
            await until(lambda: call.reply.done)
            while not isinstance(events[-1], StreamEnded):
                events = await call.events()
            last.set()
            await call.close()
            assert wire.connections == (0, 1)

    with scripted(serve) as url:
        kind.run(main, url)


# --- Deadlines --------------------------------------------------------------------------------------------


class Spoken:
    """A server that says each next thing when it is told to."""

    def __init__(self, *words: bytes) -> None:
        self._words = words
        self._next = threading.Semaphore(0)

    def __call__(self, connection: Any) -> None:
        assert Asked(connection).request()
        for word in self._words:
            assert self._next.acquire(timeout=10)
            connection.sendall(word)
        # Until the client goes.
        connection.recv(1)

    def go_on(self, count: int = 1) -> None:
        for _ in range(count):
            self._next.release()


def _words(*contents: str) -> list[bytes]:
    return [CHUNKED, *(chunk(event(content)) for content in contents)]


@each_pushed
def test_the_deadline_begins_with_what_came_while_one_was_away(kind: WireKind) -> None:
    spoken = Spoken(*_words("a", "b"))

    async def main(url: str) -> None:
        async with kind.wire() as wire:
            call = wire.call(url)
            call.exchange._deadlines = Deadlines(Timeout(connect=5, first_content=5, idle=1.0), time.monotonic())
            spoken.go_on(2)
            assert text(await call.events()) == "a"
            spoken.go_on()
            feed = call.exchange._feed
            await until(lambda: feed._contents == 2)
            arrived = feed._content_at
            await anyio.sleep(0.7)  # what is tested is that time passes
            back = time.monotonic()
            assert text(await call.events()) == "b"
            error = failure(await call.rest())
            assert isinstance(error, TimeoutError)
            assert error.deadline == "idle"
            assert error.partial is not None
            waited = time.monotonic() - arrived
            # Not a second from when he was back.
            assert 1 <= waited < 1 + (back - arrived), waited

    with scripted(spoken) as url:
        kind.run(main, url)


@each_loop
def test_who_was_away_for_too_long_loses_nothing(kind: WireKind) -> None:
    """Nothing that had come: in our memory, or in the socket's."""
    spoken = Spoken(*_words("a", "b"), chunk(event("c")), chunk(FINISH + DONE) + b"0\r\n\r\n")

    async def main(url: str) -> None:
        async with kind.wire() as wire:
            call = wire.call(url, Timeout(connect=5, first_content=5, idle=0.1))
            spoken.go_on(2)
            assert text(await call.events()) == "a"
            spoken.go_on(3)
            await anyio.sleep(0.2)  # what is tested is that time passes
            assert await call.text() == "bc"
            assert wire.connections == (0, 1)

    with scripted(spoken) as url:
        kind.run(main, url)


@each_loop
def test_the_total_passes_while_one_is_away(kind: WireKind) -> None:
    """On asyncio what had come is given first; elsewhere nobody knows of it."""
    spoken = Spoken(*_words("a", "b"))

    async def main(url: str) -> None:
        async with kind.wire() as wire:
            call = wire.call(url, total=0.5)
            spoken.go_on(2)
            assert text(await call.events()) == "a"
            spoken.go_on()
            if kind.pushed:
                await until(lambda: call.reply.contents == 2)
            await anyio.sleep(0.6)  # what is tested is that time passes
            start = time.monotonic()
            events = await call.rest()
            assert time.monotonic() - start < 5
            error = failure(events)
            assert isinstance(error, TimeoutError)
            assert error.deadline == "total"
            assert text(events) == ("b" if kind.pushed else "")
            assert error.partial is not None
            assert error.partial.choices[0].message.content == ("ab" if kind.pushed else "a")

    with scripted(spoken) as url:
        kind.run(main, url)


@each_loop
def test_a_verdict_that_came_while_one_was_away_counts(kind: WireKind) -> None:
    """However late he is."""
    spoken = Spoken(*_words("a"), chunk(FINISH + DONE) + b"0\r\n\r\n")

    async def main(url: str) -> None:
        async with kind.wire() as wire:
            call = wire.call(url, Timeout(connect=5, first_content=5, idle=0.1))
            spoken.go_on(2)
            assert text(await call.events()) == "a"
            spoken.go_on()
            await anyio.sleep(0.3)  # what is tested is that time passes
            assert isinstance((await call.rest())[-1], StreamEnded)

    with scripted(spoken) as url:
        kind.run(main, url)


@each_loop
@pytest.mark.parametrize("deadline", ["first_content", "idle", "total"])
def test_bytes_that_are_no_content_put_nothing_off(kind: WireKind, deadline: str) -> None:
    """Heads, comments, and chunks without content come all the time; each of them is read."""
    over = threading.Event()

    def serve(connection: Any) -> None:
        assert Asked(connection).request()
        connection.sendall(CHUNKED + (chunk(event("a")) if deadline == "idle" else b""))
        while not over.wait(0.01):
            connection.sendall(chunk(b": ping\n\n") + chunk(event()))

    async def main(url: str) -> None:
        limits = {"connect": 1000.0, "first_content": 1000.0, "idle": 1000.0, deadline: 0.3}
        total = limits.pop("total", None)
        async with kind.wire() as wire:
            start = time.monotonic()
            error = failure(await wire.call(url, Timeout(**limits), total=total).rest())
            assert isinstance(error, TimeoutError)
            assert error.deadline == deadline
            assert 0.3 <= time.monotonic() - start < 1.3
            over.set()

    with scripted(serve) as url:
        kind.run(main, url)


# --- What a token costs ---------------------------------------------------------------------------------------


def _counting(made: Counter[str]) -> Callable[[], None]:
    """Count what the running loop makes, by kind; gives what ends it."""
    loop: Any = asyncio.get_running_loop()
    names = ("call_at", "call_later", "call_soon", "create_task", "create_future")

    def counted(name: str) -> None:
        real = getattr(loop, name)

        def method(*arguments: Any, **more: Any) -> Any:
            made[name] += 1
            return real(*arguments, **more)

        setattr(loop, name, method)

    for name in names:
        counted(name)

    def end() -> None:
        for name in names:
            delattr(loop, name)

    return end


@secured
def test_a_token_costs_one_wait_and_nothing_else(
    secure: bool, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """Two hundred tokens, each waited for: no future, no task, no callback, and one timer for them all."""
    count = 200
    spoken = Spoken(*_words(*(f"{number} " for number in range(count))))
    made: Counter[str] = Counter()

    async def main(url: str) -> None:
        wire = Wire(False, verify=trusting)
        call = wire.call(url, Timeout(connect=5, first_content=60, idle=30), total=600)
        spoken.go_on(2)
        said = text(await call.events())
        end = _counting(made)
        for number in range(1, count):
            # (A callback of the loop's would be no token's cost.)
            spoken.go_on()
            said += text(await call.events())
            assert said.endswith(f"{number} ")
        end()
        await call.close()
        await wire.close()

    with scripted(spoken, context=server_context if secure else None) as url:
        asyncio.run(main(url))
    # One when the deadline changes from the first content's to that of those that follow. (call_later is call_at.)
    assert made["call_at"] <= 1
    assert made["call_later"] <= 1
    assert made["create_task"] == 0
    assert made["create_future"] == made["call_soon"] == 0


def test_bytes_without_an_event_wake_nobody() -> None:
    """Hundreds of comments and pieces of heads make no wait, no task, no timer."""
    spoken = Spoken(*_words("a"), *[chunk(b": ping\n\n")] * 300, chunk(event("b")))
    made: Counter[str] = Counter()

    async def main(url: str) -> None:
        wire = Wire(False)
        call = wire.call(url, Timeout(connect=5, first_content=60, idle=30))
        spoken.go_on(2)
        await call.events()
        end = _counting(made)
        spoken.go_on(301)
        assert text(await call.events()) == "b"
        end()
        await call.close()
        await wire.close()

    with scripted(spoken) as url:
        asyncio.run(main(url))
    assert made["create_future"] == made["call_soon"] == made["create_task"] == 0
    assert made["call_at"] <= 1


# --- The sinks of a stream ------------------------------------------------------------------------------------


class Told:
    """A sink that writes down what it is told."""

    def __init__(self) -> None:
        self.data = b""
        self.ends: list[OSError | None] = []

    def received(self, data: bytes) -> None:
        assert data
        assert not self.ends
        self.data += data

    def ended(self) -> None:
        self.ends.append(None)

    def lost(self, error: OSError) -> None:
        self.ends.append(error)


ENDINGS = ["open", "ended", "ended in TLS", "lost"]


@each_pushed
@secured
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("words", [b"", b"some words"])
def test_what_came_before_there_was_a_sink(
    kind: WireKind,
    words: bytes,
    ending: str,
    secure: bool,
    server_context: ssl.SSLContext,
    trusting: ssl.SSLContext,
) -> None:
    """Bytes and the end, in this order, however late the sink is."""

    async def main() -> None:
        near, far = tcp_pair()
        stream: Any = await Runtime("asyncio").over(near)
        with far:
            layer = None
            if secure:
                layer = FarTLS(server_context)
                handshake = asyncio.ensure_future(blocking(layer.over, far))
                await asecure(stream, trusting, "localhost")
                await handshake
            if words:
                far.sendall(layer.say(words) if layer else words)
            if ending == "ended in TLS" and layer:
                far.sendall(layer.bye())
            elif ending.startswith("ended"):
                far.close()
            if far.fileno() == -1:
                await until(lambda: stream._ended)
            elif words:
                await until(lambda: stream._received)
            if ending == "lost":
                stream.abort()
            told = Told()
            stream.push_to(told)
            if ending != "lost":
                await until(lambda: told.data == words and (ending == "open" or told.ends == [None]))
            await turns()
        if ending == "lost":
            # It was closed here: what had come is nobody's any more.
            assert told.data == b""
            assert told.ends
            assert all(isinstance(each, OSError) for each in told.ends)
        else:
            assert told.data == words
            assert told.ends == ([] if ending == "open" else [None])
        stream.abort()
        await turns()

    kind.run(main)


@each_kind
def test_nothing_is_sent_before_the_first_step(kind: WireKind) -> None:
    asked = threading.Event()

    def serve(connection: Any) -> None:
        asked.set()
        connection.recv(1)

    async def main(url: str) -> None:
        async with kind.wire() as wire:
            call = wire.call(url, PATIENT)
            await turns()
            assert not asked.is_set()
            await call.close()

    with scripted(serve) as url:
        kind.run(main, url)
    assert not asked.is_set()
