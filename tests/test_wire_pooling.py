"""The wire's connections: how many, whose turn it is, how long they are kept; on real sockets."""

from __future__ import annotations

import functools
import gc
import ssl
import threading
import time
import types
from collections.abc import Callable
from typing import Any
from unittest import mock

import anyio
import pytest
import trustme
from driving import HI, MODEL, STALLED, Driver, blocking, open_sockets, settled
from feeding import failure, text
from streaming import FarTLS, heard, reset, say, turns
from wiring import (
    Asked,
    Wire,
    WireKind,
    each_async,
    each_kind,
    each_loop,
    each_pushed,
    said,
    scripted,
    sized,
    until,
)

from deltawire import AsyncClient, Client, ConfigurationError, ReadError, Timeout, TimeoutError, UsageError
from deltawire.testing import ChatServer
from deltawire.transports.wire import asynchronous
from deltawire.transports.wire import blocking as wire_blocking

pytestmark = pytest.mark.usefixtures("_tidy")


class Gates:
    """What a server says to request n of all, it says when gate n opens; and it says n."""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self.asked = 0
        self.gates = [threading.Event() for _ in range(count)]

    def __call__(self, connection: Any) -> None:
        asked = Asked(connection)
        while asked.request():
            with self._lock:
                number = self.asked
                self.asked += 1
            assert self.gates[number].wait(10)
            connection.sendall(said(str(number)))

    def open(self, *numbers: int) -> None:
        for number in numbers:
            self.gates[number].set()


def _only_line(wire: Wire) -> Any:
    assert wire.pool is not None
    (line,) = wire.pool.lines()
    return line


# --- Whose turn it is ---------------------------------------------------------------------------------


@each_kind
def test_never_more_than_so_many_and_in_the_order_of_asking(kind: WireKind) -> None:
    gates = Gates(10)
    heard_of: dict[int, str] = {}

    async def ask(wire: Wire, url: str, number: int) -> None:
        heard_of[number] = await wire.text(url)

    async def main(url: str) -> None:
        async with kind.wire(max_connections=2) as wire, anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(ask, wire, url, number)
                await until(lambda: gates.asked + wire.waiting == number + 1)  # noqa: B023
            assert gates.asked == 2
            for number in range(10):
                gates.open(number)
                await until(lambda: len(heard_of) == number + 1)  # noqa: B023
                # The next one's turn has come: he is there before the one behind him is let go.
                await until(lambda: gates.asked == min(number + 3, 10))  # noqa: B023
                assert wire.connections[0] <= 2
            assert wire.connections == (0, 2)

    # A third connection would not be served.
    with scripted(gates, gates) as url:
        kind.run(main, url)
    assert heard_of == {number: str(number) for number in range(10)}


@each_kind
def test_waiting_counts_against_the_deadline_to_connect(kind: WireKind) -> None:
    """And whoever gives up gives his turn on."""
    gates = Gates(2)

    async def main(url: str) -> None:
        async with kind.wire(max_connections=1) as wire, anyio.create_task_group() as group:
            texts: list[str] = []

            async def ask() -> None:
                texts.append(await wire.text(url))

            group.start_soon(ask)
            await until(lambda: gates.asked == 1)
            start = time.monotonic()
            hasty = wire.call(url, Timeout(connect=0.2))
            events: list[Any] = []

            async def ask_hastily() -> None:
                events.extend(await hasty.rest())

            group.start_soon(ask_hastily)
            await until(lambda: wire.waiting == 1)
            group.start_soon(ask)
            await until(lambda: wire.waiting == 2)
            await until(lambda: bool(events))
            error = failure(events)
            assert isinstance(error, TimeoutError)
            assert (error.deadline, error.seconds) == ("connect", 0.2)
            assert "all 1 connections are in use (max_connections)" in str(error)
            assert 0.2 <= time.monotonic() - start < 1.2
            assert wire.waiting == 1
            gates.open(0, 1)
            await until(lambda: texts == ["0", "1"])

    with scripted(gates) as url:
        kind.run(main, url)


@each_kind
def test_the_total_counts_while_waiting(kind: WireKind) -> None:
    gates = Gates(1)

    async def main(url: str) -> None:
        async with kind.wire(max_connections=1) as wire, anyio.create_task_group() as group:
            group.start_soon(wire.text, url)
            await until(lambda: gates.asked == 1)
            error = failure(await wire.call(url, total=0.1).rest())
            assert isinstance(error, TimeoutError)
            assert error.deadline == "total"
            gates.open(0)

    with scripted(gates) as url:
        kind.run(main, url)


@each_async
@pytest.mark.parametrize("served", [False, True], ids=["waiting", "served, and not yet aware of it"])
def test_who_is_cancelled_gives_his_turn_on(kind: WireKind, served: bool) -> None:
    gates = Gates(2)

    async def main(url: str) -> None:
        async with kind.wire(max_connections=1) as wire, anyio.create_task_group() as group:
            first = wire.call(url)
            gates.open(0)
            assert await first.events()
            scope = anyio.CancelScope()
            texts: list[str] = []

            async def be_cancelled() -> None:
                with scope:
                    texts.append(await wire.text(url))

            async def ask() -> None:
                texts.append(await wire.text(url))

            for waiting, task in enumerate((be_cancelled, ask), 1):
                group.start_soon(task)
                await until(lambda: wire.waiting == waiting)  # noqa: B023
            if served:
                # Nothing else runs between his turn's coming and the end of him.
                first.exchange.close_now()
                assert wire.waiting == 1
                scope.cancel()
            else:
                scope.cancel()
                await until(lambda: wire.waiting == 1)
                await first.close()
            gates.open(1)
            await until(lambda: texts == ["1"])
            assert wire.connections == (0, 1)

    with scripted(gates) as url:
        kind.run(main, url)


@each_pushed
def test_a_line_that_a_cancelled_one_gave_back_is_watched(kind: WireKind) -> None:
    """The server closes it: noticed, whoever had it last."""
    close = threading.Event()

    def answers_and_closes(connection: Any) -> None:
        assert Asked(connection).request()
        connection.sendall(said("0"))
        assert close.wait(10)

    async def main(url: str) -> None:
        async with kind.wire(max_connections=1) as wire, anyio.create_task_group() as group:
            first = wire.call(url)
            await first.events()
            with anyio.CancelScope() as scope:
                group.start_soon(wire.text, url)
                await until(lambda: wire.waiting == 1)
                first.exchange.close_now()
                group.cancel_scope.cancel()
            assert not scope.cancelled_caught
            with anyio.CancelScope(shield=True):
                assert await settled(lambda: wire.connections == (0, 1))
                close.set()
                await until(lambda: wire.connections == (0, 0))

    with scripted(answers_and_closes) as url:
        kind.run(main, url)


@pytest.mark.parametrize("then", ["the time is over", "an interrupt"])
def test_a_thread_whose_turn_comes_at_the_last_moment(monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    """It takes it, or gives it on."""
    gates = Gates(2)

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert super().wait(10)
            if then == "an interrupt" and threading.current_thread().name == "hasty":
                raise KeyboardInterrupt
            # As one whose time is over before it hears.
            return False

    texts: dict[str, str] = {}
    interrupts: list[BaseException] = []

    def ask() -> None:
        call = wire.call(url)
        try:
            events = []
            while new := call.exchange.next_events():
                events += new
            texts[threading.current_thread().name] = text(events)
        except KeyboardInterrupt as error:
            interrupts.append(error)
        call.exchange.close()

    wire = Wire(True, max_connections=1)
    with scripted(gates) as url:
        monkeypatch.setattr(wire_blocking, "threading", types.SimpleNamespace(**{**vars(threading), "Event": Event}))
        first = wire.call(url)
        gates.open(0)
        assert first.exchange.next_events()
        threads = [threading.Thread(target=ask, name=name) for name in ("hasty", "patient")]
        for number, thread in enumerate(threads, 1):
            thread.start()
            while wire.waiting < number:
                time.sleep(0.001)
        gates.open(1)
        if then == "the time is over":
            gates.gates.append(gates.gates[1])
        first.exchange.close()
        for thread in threads:
            thread.join()
        assert wire.connections == (0, 1)
        wire.transport.close()
    if then == "an interrupt":
        assert len(interrupts) == 1
        assert texts == {"patient": "1"}
    else:
        assert texts == {"hasty": "1", "patient": "2"}


@each_kind
def test_an_idle_line_to_elsewhere_gives_way(kind: WireKind) -> None:
    gone = threading.Event()

    def elsewhere(connection: Any) -> None:
        asked = Asked(connection)
        while asked.request():
            connection.sendall(said("there"))
        gone.set()

    async def main(here: str, there: str) -> None:
        async with kind.wire(max_connections=1) as wire:
            assert await wire.text(there) == "there"
            assert wire.connections == (0, 1)
            assert await wire.text(here) == "0"
            assert await blocking(gone.wait, 5)
            assert wire.connections == (0, 1)

    gates = Gates(1)
    gates.open(0)
    with scripted(elsewhere) as there, scripted(gates) as here:
        kind.run(main, here, there)


@each_kind
def test_a_line_given_back_makes_room_for_one_to_elsewhere(kind: WireKind) -> None:
    here, there = Gates(1), Gates(1)

    async def main(url: str, other: str) -> None:
        async with kind.wire(max_connections=1) as wire, anyio.create_task_group() as group:
            texts: list[str] = []

            async def ask(url: str) -> None:
                texts.append(await wire.text(url))

            group.start_soon(ask, url)
            await until(lambda: here.asked == 1)
            group.start_soon(ask, other)
            await until(lambda: wire.waiting == 1)
            assert there.asked == 0
            here.open(0)
            await until(lambda: there.asked == 1)
            assert wire.connections == (1, 0)
            there.open(0)
            await until(lambda: len(texts) == 2)

    with scripted(here) as url, scripted(there) as other:
        kind.run(main, url, other)


@each_kind
def test_a_connection_that_fails_to_open_gives_its_turn_on(kind: WireKind) -> None:
    """And one that breaks, and one that is refused by the caller's own mistake."""
    gates = Gates(1)
    gates.open(0)

    def breaks(connection: Any) -> None:
        Asked(connection).request()
        reset(connection)

    async def main(url: str) -> None:
        async with kind.wire(max_connections=1) as wire:
            assert isinstance(failure(await wire.call("http://127.0.0.1:1/v1").rest()), Exception)
            assert wire.connections == (0, 0)
            assert isinstance(failure(await wire.call(url).rest()), ReadError)
            assert wire.connections == (0, 0)
            assert await wire.text(url) == "0"

    with scripted(breaks, gates) as url:
        kind.run(main, url)


@each_kind
@pytest.mark.parametrize("kept", [False, True])
def test_a_request_that_is_no_http_holds_nothing(kind: WireKind, kept: bool) -> None:
    gates = Gates(2)
    gates.open(0, 1)

    async def main(url: str) -> None:
        async with kind.wire(max_connections=1) as wire:
            if kept:
                assert await wire.text(url) == "0"
            call = wire.call(url)
            bad = call.exchange._request
            call.exchange._request = type(bad)(bad.method, bad.url, ((b"host", b"x"), (b"x y", b"secret")), bad.body)
            with pytest.raises(ConfigurationError) as caught:
                await call.events()
            assert "secret" not in str(caught.value)
            with pytest.raises(UsageError):
                await call.events()
            await call.close()
            assert wire.connections[0] == 0
            assert await wire.text(url) == str(int(kept))

    with scripted(*[gates] * 2) as url:
        kind.run(main, url)


@each_kind
def test_closing_the_client_wakes_who_waits(kind: WireKind) -> None:
    gates = Gates(1)

    async def main(url: str) -> None:
        outcomes: list[Any] = []
        wire = Wire(kind.blocks, max_connections=1)

        async def wait() -> None:
            with pytest.raises(UsageError, match="closed"):
                await wire.text(url)
            outcomes.append(None)

        async def read() -> None:
            outcomes.append(failure(await wire.call(url).rest()))

        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(read)
                await until(lambda: gates.asked == 1)
                for number in (1, 2, 3):
                    group.start_soon(wait)
                    await until(lambda: wire.waiting == number)  # noqa: B023
                await wire.close()
        assert outcomes.count(None) == 3
        (error,) = (each for each in outcomes if each is not None)
        assert isinstance(error, ReadError)
        gates.open(0)

    with scripted(gates) as url:
        kind.run(main, url)


@each_kind
def test_nobody_waits_on_a_closed_client(kind: WireKind) -> None:
    """An exchange that was made before the end, and is begun after it, opens nothing and waits for nothing."""

    async def main(url: str) -> None:
        wire = Wire(kind.blocks, max_connections=1)
        stream, late = wire.call(url), wire.call(url)
        assert await stream.events()
        await wire.close()
        with anyio.fail_after(5), pytest.raises(UsageError, match="closed"):
            await late.events()
        with pytest.raises(UsageError, match="closed"):
            wire.call(url)
        await stream.close()

    def one(connection: Any) -> None:
        assert Asked(connection).request()
        connection.sendall(sized(said("a")[:-1])[:-1])
        connection.recv(1)

    with scripted(one) as url:
        kind.run(main, url)


# --- How long they are kept ---------------------------------------------------------------------------


@each_kind
def test_they_are_kept_until_they_expire(kind: WireKind, monkeypatch: pytest.MonkeyPatch) -> None:
    later = 0.0
    clock = types.SimpleNamespace(monotonic=lambda: time.monotonic() + later)
    monkeypatch.setattr(wire_blocking if kind.blocks else asynchronous, "time", clock)
    gates = Gates(4)
    gates.open(0, 1, 2, 3)
    opened = threading.Semaphore(0)

    def counted(connection: Any) -> None:
        opened.release()
        gates(connection)

    async def main(url: str) -> None:
        nonlocal later
        async with kind.wire(keepalive_expiry=60) as wire:
            for later, fresh in ((0, True), (50, False), (109, False), (170, True)):
                assert await wire.text(url)
                assert wire.connections == (0, 1)
                assert opened.acquire(blocking=False) == fresh, later

    with scripted(counted, counted) as url:
        kind.run(main, url)


@each_kind
def test_no_more_than_so_many_are_kept(kind: WireKind) -> None:
    gates = Gates(3)

    async def main(url: str) -> None:
        async with kind.wire(max_keepalive_connections=1) as wire:
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(wire.text, url)
                await until(lambda: gates.asked == 3)
                gates.open(0, 1, 2)
            assert wire.connections == (0, 1)

    with scripted(gates, gates, gates) as url:
        kind.run(main, url)


@each_kind
def test_none_are_kept(kind: WireKind) -> None:
    gates = Gates(2)
    gates.open(0, 1)

    async def main(url: str) -> None:
        async with kind.wire(max_keepalive_connections=0) as wire:
            for number in range(2):
                assert await wire.text(url) == str(number)
                assert wire.connections == (0, 0)

    with scripted(gates, gates) as url:
        kind.run(main, url)


class Fickle:
    """A server that answers, and then, when told to, does something that spoils the connection."""

    def __init__(self, deed: Callable[[Any], object]) -> None:
        self._deed = deed
        self.go, self.over = threading.Event(), threading.Event()

    def __call__(self, connection: Any) -> None:
        asked = Asked(connection)
        assert asked.request()
        connection.sendall(said("a"))
        assert self.go.wait(10)
        self._deed(connection)
        self.over.set()


def _ends(connection: Any) -> None:
    connection.close()


def _ends_tls(connection: Any) -> None:
    """With a close_notify, and without closing."""
    connection.settimeout(0)
    try:
        connection.unwrap()
    except ssl.SSLWantReadError:
        connection.settimeout(5)


def _speaks(connection: Any) -> None:
    connection.sendall(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    connection.settimeout(5)
    # Held open, until the client has drawn its conclusions.
    while connection.recv(100):
        pass


SPOILED = {"closed": _ends, "reset": reset, "bytes that nobody asked for": _speaks}


@each_pushed
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("how", [*SPOILED, "a close_notify"])
def test_what_spoils_an_idle_line_is_noticed_at_once(
    kind: WireKind, how: str, secure: bool, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """On asyncio: the socket is closed while nobody asks anything."""
    if how == "a close_notify" and not secure:
        how = "closed"
    fickle = Fickle(SPOILED.get(how, _ends_tls))

    async def main(url: str) -> None:
        async with kind.wire(verify=trusting) as wire:
            assert await wire.text(url) == "a"
            assert wire.connections == (0, 1)
            before = open_sockets()
            await turns()
            assert wire.connections == (0, 1)
            fickle.go.set()
            await until(lambda: wire.connections == (0, 0))
            # The server's may be closed, too.
            await until(lambda: open_sockets() < before)

    with scripted(fickle, context=server_context if secure else None) as url:
        kind.run(main, url)


@each_loop
@pytest.mark.parametrize("how", SPOILED)
def test_what_spoils_an_idle_line_is_noticed_by_the_next_call(kind: WireKind, how: str) -> None:
    """At the latest; the request is not even sent on it."""
    fickle, gates = Fickle(SPOILED[how]), Gates(1)
    gates.open(0)

    async def main(url: str) -> None:
        async with kind.wire() as wire:
            assert await wire.text(url) == "a"
            fickle.go.set()
            if how != "bytes that nobody asked for":
                assert await blocking(fickle.over.wait, 5)
            elif kind.pushed:
                await until(lambda: wire.connections == (0, 0))
            else:
                await until(lambda: _only_line(wire).stream.get_extra_info("is_readable"))
            assert await wire.text(url) == "0"

    with scripted(fickle, gates) as url:
        kind.run(main, url)
    assert gates.asked == 1


# --- What dies as the request is sent ---------------------------------------------------------------------


class TLSDeath:
    """A server with TLS whose end comes in answer to the second request on a connection."""

    def __init__(self, context: ssl.SSLContext, words: Callable[[FarTLS], bytes]) -> None:
        self._context, self._words = context, words

    def __call__(self, connection: Any) -> None:
        far = FarTLS(self._context).over(connection)
        assert heard(connection, far)
        say(connection, said("a"), far)
        if heard(connection, far):
            connection.sendall(self._words(far))


@each_loop
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("how", ["a close_notify", "none", "a record that is cut", "a word"])
def test_a_kept_line_that_dies_in_tls(
    kind: WireKind, how: str, version: str, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    """The request is sent again when nothing came but the end; not when something had begun."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = getattr(ssl.TLSVersion, version)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    words = {
        "a close_notify": FarTLS.bye,
        "none": lambda far: b"",
        "a record that is cut": lambda far: far.say(said("b"))[:50],
        "a word": lambda far: far.say(b"HTTP/1.1 "),
    }
    good = TLSDeath(context, words["none"])

    async def main(url: str) -> None:
        async with kind.wire(verify=trusting) as wire:
            assert await wire.text(url) == "a"
            events = await wire.call(url).rest()
            if how in ("a close_notify", "none"):
                assert text(events) == "a"
            else:
                assert isinstance(failure(events), ReadError)

    with scripted(TLSDeath(context, words[how]), good) as url:
        kind.run(main, url.replace("http:", "https:"))


@each_kind
def test_it_is_replaced_within_the_bound(kind: WireKind) -> None:
    """While others wait, who don't get in between."""
    died = threading.Event()
    gates = Gates(2)

    def dies(connection: Any) -> None:
        asked = Asked(connection)
        assert asked.request()
        connection.sendall(said("a"))
        assert asked.request()
        assert died.wait(10)

    async def main(url: str) -> None:
        async with kind.wire(max_connections=1) as wire, anyio.create_task_group() as group:
            assert await wire.text(url) == "a"
            texts: list[str] = []

            async def ask() -> None:
                texts.append(await wire.text(url))

            group.start_soon(ask)
            await until(lambda: wire.connections == (1, 0))
            group.start_soon(ask)
            await until(lambda: wire.waiting == 1)
            died.set()
            await until(lambda: gates.asked == 1)
            assert wire.connections == (1, 0)
            assert wire.waiting == 1
            gates.open(0, 1)
            await until(lambda: texts == ["0", "1"])

    with scripted(dies, gates) as url:
        kind.run(main, url)


# --- Many at once ---------------------------------------------------------------------------------------


def test_threads_share_a_client() -> None:
    """Sixteen threads, four connections."""
    errors: list[BaseException] = []
    texts: list[str] = []

    def work(client: Client) -> None:
        try:
            for number in range(20):
                stream = None
                stream = client.chat.completions.create(HI, MODEL, stream=True)
                if number % 5 == 4:
                    # Left early: by closing, or by dropping it.
                    next(stream)
                    if number % 2:
                        stream.close()
                    continue
                texts.append("".join(chunk.choices[0].delta.content or "" for chunk in stream))
        except BaseException as error:
            errors.append(error)

    most = 0
    transport = wire_blocking.WireTransport(max_connections=4)
    with ChatServer(tokens=["Hel", "lo"]) as server, Client(base_url=server.url, transport=transport) as client:
        threads = [threading.Thread(target=work, args=(client,)) for _ in range(16)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            busy, idle = transport.connections()
            most = max(most, busy)
            time.sleep(0.001)
        for thread in threads:
            thread.join()
        assert errors == []
        assert texts == ["Hello"] * 16 * 16
        gc.collect()
        busy, idle = transport.connections()
        assert busy == 0
        assert idle <= most <= 4
        transport.close()


@pytest.mark.parametrize("where", ["in the pool", "in another's finaliser"])
def test_a_stream_dropped_in_the_midst_of_the_pool(server: ChatServer, where: str) -> None:
    """A collection of garbage may come anywhere; the lock is held there."""
    transport = wire_blocking.WireTransport(max_connections=2)
    with Client(base_url=server.url, transport=transport) as client:
        server.plan(STALLED, STALLED)
        streams = [client.chat.completions.create(HI, MODEL, stream=True) for _ in range(2)]
        for stream in streams:
            next(stream)
        del stream
        if where == "in the pool":
            transport.change(lambda todo: streams.clear())
        else:
            original = transport.pool.drop

            def drop(*arguments: Any) -> None:
                streams.clear()
                original(*arguments)

            with mock.patch.object(transport.pool, "drop", drop):
                streams.pop().close()
        assert transport.connections() == (0, 0)
        assert client.chat.completions.create(HI, MODEL).choices[0].message.content == "Hello"
        transport.close()


# --- What is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_http2_is_refused(client: Any, server: ChatServer) -> None:
    with pytest.raises(ConfigurationError, match="leave out http2"):
        client(base_url=server.url, transport="wire", http2=True)
    assert server.connections == 0


def test_looking_like_a_browser_is_refused(driver: Driver, server: ChatServer) -> None:
    with pytest.raises(ConfigurationError, match="impersonate"):
        driver.stream({"base_url": server.url, "transport": "wire", "impersonate": "chrome"})
    assert server.connections == 0


@each_kind
@pytest.mark.parametrize("most", [0, -1])
def test_a_bound_that_is_none(kind: WireKind, most: int) -> None:
    with pytest.raises(ConfigurationError, match="max_connections"):
        Wire(kind.blocks, max_connections=most)


@each_kind
def test_unknown_options(kind: WireKind) -> None:
    with pytest.raises(TypeError, match="pipelining"):
        Wire(kind.blocks, pipelining=True)


@each_kind
def test_a_deadline_that_is_ages_away(kind: WireKind) -> None:
    """More than a lock can wait for."""
    gates = Gates(2)

    async def main(url: str) -> None:
        async with kind.wire(max_connections=1) as wire, anyio.create_task_group() as group:
            group.start_soon(wire.text, url)
            await until(lambda: gates.asked == 1)
            group.start_soon(functools.partial(wire.text, url, timeout=Timeout(connect=1e12)))
            await until(lambda: wire.waiting == 1)
            gates.open(0, 1)

    with scripted(gates) as url:
        kind.run(main, url)
