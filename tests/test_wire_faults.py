"""The wire when something goes wrong, or ends early: on real sockets, through tunnels and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import Any

import anyio
import pytest
import trio
import trustme
from driving import STALLED, Route, blocking, unix_socket
from faults import chunk, event
from feeding import failure, text
from streaming import FarTLS, heard, reset, say, serving, turns
from ways import BY_NAME, assert_no_secret, laid
from wiring import (
    CHUNKED,
    DONE,
    FINISH,
    UNFRAMED,
    Asked,
    Wire,
    WireKind,
    each_async,
    each_kind,
    each_loop,
    said,
    scripted,
    sized,
    until,
)

from deltawire import (
    APIStatusError,
    ReadError,
    Timeout,
    TimeoutError,
    TransportError,
    TruncatedStreamError,
)
from deltawire.protocol import StreamEnded
from deltawire.testing import Answer, ChatServer, Fault

pytestmark = pytest.mark.usefixtures("_tidy")

# More than sockets hold for a peer that does not read.
MUCH = "x" * 20_000_000

secured = pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])


# --- Answers that come before the request is sent -----------------------------------------------------------

TOO_LARGE = sized(b'{"error": {"message": "too large"}}', b"413 Content Too Large", b"Connection: close\r\n")


@each_loop
@secured
@pytest.mark.parametrize("then", ["closes", "ends and waits", "waits"])
def test_an_answer_before_the_request_is_sent(
    kind: WireKind, then: str, secure: bool, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """It is what the caller gets, at once, whatever the server does with the rest."""
    over = threading.Event()

    def refuses(connection: Any) -> None:
        Asked(connection).head()
        connection.sendall(TOO_LARGE)
        if then == "ends and waits" and not secure:
            connection.shutdown(socket.SHUT_WR)
        if then != "closes":
            assert over.wait(10)

    async def main(url: str) -> None:
        async with kind.wire(verify=trusting) as wire:
            with anyio.fail_after(5):
                error = failure(await wire.call(url, question=MUCH).rest())
            over.set()
            assert isinstance(error, APIStatusError), repr(error)
            assert error.status_code == 413
            assert wire.connections == (0, 0)

    with scripted(refuses, context=server_context if secure else None) as url:
        kind.run(main, url)


@each_loop
@secured
def test_a_whole_answer_before_the_request_is_sent(
    kind: WireKind, secure: bool, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    over = threading.Event()

    def answers(connection: Any) -> None:
        Asked(connection).head()
        connection.sendall(said("early"))
        assert over.wait(10)

    async def main(url: str) -> None:
        async with kind.wire(verify=trusting) as wire:
            with anyio.fail_after(5):
                assert await wire.text(url, question=MUCH) == "early"
            over.set()
            # The rest of the request was never sent.
            assert wire.connections == (0, 0)

    with scripted(answers, context=server_context if secure else None) as url:
        kind.run(main, url)


@each_loop
@secured
def test_an_answer_that_begins_before_the_request_is_sent(
    kind: WireKind, secure: bool, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """And that goes on when all of it has come: so the rest of it must leave while the answer is read."""
    sizes: list[int] = []
    seen = threading.Event()

    def interrupts(connection: Any) -> None:
        asked = Asked(connection)
        asked.head()
        connection.sendall(CHUNKED + chunk(event("a")))
        assert seen.wait(10)
        sizes.append(asked.body())
        connection.sendall(chunk(event("b") + FINISH + DONE) + b"0\r\n\r\n")
        assert asked.request()
        connection.sendall(said("c"))

    async def main(url: str) -> None:
        async with kind.wire(verify=trusting) as wire:
            with anyio.fail_after(10):
                call = wire.call(url, question=MUCH)
                assert text(await call.events()) == "a"
                seen.set()
                assert await call.text() == "b"
            assert sizes[0] > len(MUCH)
            # All was sent after all.
            assert wire.connections == (0, 1)
            assert await wire.text(url) == "c"

    with scripted(interrupts, context=server_context if secure else None) as url:
        kind.run(main, url)


@each_loop
def test_a_server_that_does_not_listen(kind: WireKind) -> None:
    """Nor answer: that is what deadlines are for, while writing too."""
    over = threading.Event()

    def deaf(connection: Any) -> None:
        assert over.wait(10)

    async def main(url: str) -> None:
        async with kind.wire() as wire:
            limits = Timeout(connect=5, first_content=0.2)
            error = failure(await wire.call(url, limits, question=MUCH).rest())
            assert isinstance(error, TimeoutError)
            assert error.deadline == "first_content"
            over.set()

    with scripted(deaf) as url:
        kind.run(main, url)


@each_kind
def test_closing_while_the_request_is_sent(kind: WireKind) -> None:
    """By another thread, or another task."""
    asked = threading.Event()

    def deaf(connection: Any) -> None:
        assert Asked(connection).head()
        asked.set()
        with contextlib.suppress(ConnectionError):
            while connection.recv(1 << 20):
                pass

    async def main(url: str) -> None:
        wire = Wire(kind.blocks)
        outcomes: list[Any] = []

        async def ask() -> None:
            outcomes.append(failure(await wire.call(url, question=MUCH * 3).rest()))

        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(ask)
                assert await blocking(asked.wait, 5)
                await wire.close()
        assert isinstance(outcomes[0], ReadError)

    with scripted(deaf) as url:
        kind.run(main, url)


@each_async
def test_cancelling_while_the_request_is_sent(kind: WireKind) -> None:
    asked, gone = threading.Event(), threading.Event()

    def deaf(connection: Any) -> None:
        assert Asked(connection).head()
        asked.set()
        assert gone.wait(10)

    async def main(url: str) -> None:
        async with kind.wire(max_connections=1) as wire:
            async with anyio.create_task_group() as group:
                group.start_soon(wire.call(url, question=MUCH).events)
                assert await blocking(asked.wait, 5)
                await turns()
                group.cancel_scope.cancel()
            assert wire.connections == (0, 0)
            gone.set()

    with scripted(deaf) as url:
        kind.run(main, url)


# --- Servers and proxies that die ----------------------------------------------------------------------------

MORTAL = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
received = b""
while not received.endswith(b"}"):
    received += connection.recv(65536)
connection.sendall(bytes.fromhex(sys.argv[1]))
while True:
    listener.accept()
"""

BEGUN = CHUNKED + chunk(event("a")) + chunk(event("b"))


def partial_of(error: Any) -> str:
    assert error.partial is not None
    content: str = error.partial.choices[0].message.content
    return content


@contextlib.contextmanager
def mortal() -> Iterator[subprocess.Popen[str]]:
    """A server in a process of its own, that says two tokens and then nothing."""
    with subprocess.Popen([sys.executable, "-c", MORTAL, BEGUN.hex()], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@each_loop
def test_a_server_that_is_killed(kind: WireKind) -> None:
    async def main(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        async with kind.wire() as wire:
            call = wire.call(f"http://127.0.0.1:{int(process.stdout.readline())}/v1")
            found = ""
            while found != "ab":
                found += text(await call.events())
            os.kill(process.pid, signal.SIGKILL)
            with anyio.fail_after(5):
                error = failure(await call.rest())
            assert isinstance(error, TruncatedStreamError)
            assert partial_of(error) == "ab"
            assert wire.connections == (0, 0)

    with mortal() as process:
        kind.run(main, process)


THROUGH = ["https by http", "http by socks5", "https by socks5", "https by https", "http by http"]


@each_loop
@pytest.mark.parametrize("name", THROUGH)
def test_a_proxy_that_is_gone_mid_stream(
    kind: WireKind, name: str, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async def main(route: Route) -> None:
        async with kind.wire(verify=trusting) as wire:
            call = wire.call(route.server.url, proxy=route.proxies)
            found = ""
            while found != "Hello":
                found += text(await call.events())
            assert route.between is not None
            await blocking(route.between.stop)
            with anyio.fail_after(5):
                error = failure(await call.rest())
            assert isinstance(error, (TruncatedStreamError, ReadError))
            assert partial_of(error) == "Hello"
            assert_no_secret(error)
            assert wire.connections == (0, 0)

    with laid(BY_NAME[name], server_context, trusting) as route:
        route.server.plan(STALLED)
        kind.run(main, route)


@each_kind
@pytest.mark.parametrize("name", THROUGH[:-1])
@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_proxy_that_is_gone_in_any_handshake(
    kind: WireKind, name: str, ending: Any, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """After each so many bytes; one way or another it is told, and nothing is held."""

    async def main(route: Route) -> None:
        assert route.between is not None
        async with kind.wire(verify=trusting, max_connections=1) as wire:
            for after in itertools.chain(range(0, 50, 3), range(50, 1500, 145)):
                route.between.plan_faults(Fault(after, ending))
                with anyio.fail_after(5):
                    events = await wire.call(route.server.url, proxy=route.proxies).rest()
                if isinstance(events[-1], StreamEnded):
                    # It has spoken less than that.
                    break
                assert isinstance(failure(events), (TransportError, TruncatedStreamError)), repr(failure(events))
                assert_no_secret(failure(events), traced=False)
                assert wire.connections == (0, 0), after
            route.between.clear_faults()
            assert await wire.text(route.server.url, proxy=route.proxies) == "Hello"

    with laid(BY_NAME[name], server_context, trusting) as route:
        kind.run(main, route)


# --- TLS ------------------------------------------------------------------------------------------------------


class Within:
    """A server in TLS: one request, and then this is done with what its answer is made of."""

    def __init__(self, context: ssl.SSLContext, end: Callable[[socket.socket, FarTLS], object], answer: bytes) -> None:
        self._context, self._end, self._answer = context, end, answer

    def __call__(self, connection: socket.socket) -> None:
        far = FarTLS(self._context).over(connection)
        assert heard(connection, far)
        say(connection, self._answer, far)
        self._end(connection, far)


def _cut(connection: socket.socket, far: FarTLS) -> None:
    connection.sendall(far.say(chunk(event("c")))[:30])


def _cut_and_reset(connection: socket.socket, far: FarTLS) -> None:
    _cut(connection, far)
    reset(connection)


def _reset(connection: socket.socket, far: FarTLS) -> None:
    reset(connection)


def _garbage(connection: socket.socket, far: FarTLS) -> None:
    connection.sendall(b"\x00" * 100)
    while connection.recv(65536):
        pass


def _bye(connection: socket.socket, far: FarTLS) -> None:
    connection.sendall(far.bye())


def _nothing(connection: socket.socket, far: FarTLS) -> None:
    pass


ENDS = {
    "cut in a record": _cut,
    "cut in a record, and reset": _cut_and_reset,
    "reset": _reset,
    "garbage": _garbage,
    "a close_notify, too early": _bye,
    "no close_notify": _nothing,
}


@each_loop
@pytest.mark.parametrize("how", ENDS)
def test_what_breaks_in_tls(kind: WireKind, how: str, server_context: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    async def main(url: str) -> None:
        async with kind.wire(verify=trusting) as wire:
            with anyio.fail_after(5):
                error = failure(await wire.call(url).rest())
            assert isinstance(error, (TruncatedStreamError, ReadError))
            if "reset" not in how:
                # (What was not read yet when RST came is lost.)
                assert partial_of(error) == "ab"
            assert wire.connections == (0, 0)

    with serving(Within(server_context, ENDS[how], BEGUN)) as port:
        kind.run(main, f"https://127.0.0.1:{port}/v1")


@each_loop
@pytest.mark.parametrize("how", ["a close_notify", "no close_notify"])
def test_a_reply_that_ends_with_its_connection(
    kind: WireKind, how: str, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """Good in either way, since what it says is whole."""
    end = _bye if how == "a close_notify" else _nothing

    async def main(url: str) -> None:
        async with kind.wire(verify=trusting) as wire:
            with anyio.fail_after(5):
                assert await wire.text(url) == "a"
            assert wire.connections == (0, 0)

    with serving(Within(server_context, end, UNFRAMED + event("a") + FINISH)) as port:
        kind.run(main, f"https://127.0.0.1:{port}/v1")


class Eager:
    """A server whose answer comes with the last bytes of its handshake, and its end with these, too: in TLS within a
    proxy's TLS, if that is asked for."""

    def __init__(self, context: ssl.SSLContext, proxy: ssl.SSLContext | None, end: str) -> None:
        self._context, self._proxy, self._end = context, proxy, end

    def __call__(self, connection: socket.socket) -> None:
        outer = None
        if self._proxy is not None:
            outer = FarTLS(self._proxy).over(connection)
            assert heard(connection, outer).startswith(b"CONNECT ")
            say(connection, b"HTTP/1.1 200 OK\r\n\r\n", outer)
        inner = FarTLS(self._context)
        words = inner.answer(heard(connection, outer))
        while not inner.complete:
            say(connection, words, outer)
            words = inner.answer(heard(connection, outer))
        words += inner.say(BEGUN if self._end == "breaks off" else said("early"))
        if self._end == "ends":
            words += inner.bye()
        say(connection, words, outer)
        if self._end != "goes on":
            connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


@each_loop
@pytest.mark.parametrize("end", ["goes on", "ends", "breaks off"])
@pytest.mark.parametrize("proxied", [False, True], ids=["TLS", "TLS in TLS"])
def test_bytes_that_come_with_the_handshake(
    kind: WireKind,
    proxied: bool,
    end: str,
    authority: trustme.CA,
    server_context: ssl.SSLContext,
    trusting: ssl.SSLContext,
) -> None:
    # In TLS 1.3 the client speaks last.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)

    async def main(port: int) -> None:
        async with kind.wire(verify=trusting) as wire:
            server = "localhost:1" if proxied else f"127.0.0.1:{port}"
            with anyio.fail_after(5):
                call = wire.call(f"https://{server}/v1", proxy=f"https://127.0.0.1:{port}" if proxied else None)
                events = await call.rest()
            if end == "breaks off":
                assert partial_of(failure(events)) == "ab"
            else:
                assert text(events) == "early"
            assert wire.connections[0] == 0

    with serving(Eager(context, server_context if proxied else None, end)) as port:
        kind.run(main, port)


# --- Ways of connecting -----------------------------------------------------------------------------------------


@each_loop
def test_a_unix_domain_socket(kind: WireKind, tmp_path: Any, server: ChatServer) -> None:
    path = tmp_path / "socket"

    async def main() -> None:
        async with kind.wire(uds=path) as wire:
            for _ in range(3):
                assert await wire.text("http://nowhere.invalid/v1") == "Hello"
            assert wire.connections == (0, 1)
        async with kind.wire(uds=tmp_path / "other") as wire:
            error = failure(await wire.call("http://nowhere.invalid/v1").rest())
            assert "other" in str(error)
            assert wire.connections == (0, 0)

    with unix_socket(str(path), server.port):
        kind.run(main)
    assert server.connections == 1


@each_loop
def test_a_local_address(kind: WireKind) -> None:
    clients: list[str] = []

    def serve(connection: Any) -> None:
        clients.append(connection.getpeername()[0])
        Asked(connection).request()
        connection.sendall(said("a"))

    async def main(url: str) -> None:
        async with kind.wire(local_address="127.0.0.7") as wire:
            assert await wire.text(url) == "a"

    with scripted(serve) as url:
        kind.run(main, url)
    assert clients == ["127.0.0.7"]


@each_loop
@pytest.mark.parametrize("name", BY_NAME)
def test_every_way_is_kept(kind: WireKind, name: str, server_context: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    async def main(route: Route) -> None:
        async with kind.wire(verify=trusting) as wire:
            for _ in range(3):
                assert await wire.text(route.server.url, proxy=route.proxies) == "Hello"
            assert wire.connections == (0, 1)

    with laid(BY_NAME[name], server_context, trusting) as route:
        kind.run(main, route)
        assert (route.between or route.server).connections == 1


# --- Closing, and cancelling ----------------------------------------------------------------------------------------


@each_loop
def test_closing_the_client_under_its_streams(kind: WireKind, server: ChatServer) -> None:
    """Some of them wait, some are left alone: all say so, and the server hears of it."""
    server.plan(*[STALLED] * 6)
    errors: list[Any] = []

    async def main() -> None:
        wire = Wire(kind.blocks)
        calls = [wire.call(server.url) for _ in range(6)]

        async def begin(number: int) -> None:
            found = ""
            while found != "Hello":
                found += text(await calls[number].events())

        async def go_on(number: int) -> None:
            errors.append(failure(await calls[number].rest()))

        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(begin, number)
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                for number in range(3):
                    group.start_soon(go_on, number)
                await turns()
                await wire.close()
            assert len(errors) == 3
            for number in range(3, 6):
                await go_on(number)
        assert wire.connections == (0, 0)

    kind.run(main)
    for error in errors:
        assert isinstance(error, (ReadError, TruncatedStreamError))
        assert partial_of(error) == "Hello"
    for number in range(6):
        assert server.wait_outcome(number, 1) == "client-closed"


class Steps:
    """Cancels the task that runs in it after so many of its steps."""

    def __init__(self, count: int) -> None:
        self._left = count
        self.over = False

    async def on_asyncio(self, work: Awaitable[Any]) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self._Stepped(self, work)

    class _Stepped:
        def __init__(self, steps: Steps, work: Any) -> None:
            self._steps, self._work = steps, work

        def __await__(self) -> Generator[Any, Any, None]:
            throw: BaseException | None = None
            while True:
                try:
                    waited = self._work.send(None) if throw is None else self._work.throw(throw)
                except StopIteration:
                    self._steps.over = True
                    return
                self._steps._left -= 1
                if self._steps._left == 0:
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                throw = None
                try:
                    yield waited
                except BaseException as error:
                    throw = error

    async def on_trio(self, work: Any) -> None:
        steps = self

        class Counting(trio.abc.Instrument):
            def after_task_step(self, task: trio.lowlevel.Task) -> None:
                if task is me:
                    steps._left -= 1
                    if steps._left == 0:
                        scope.cancel()

        me = trio.lowlevel.current_task()
        with trio.CancelScope() as scope:
            trio.lowlevel.add_instrument(counting := Counting())
            try:
                await work
                self.over = True
            finally:
                trio.lowlevel.remove_instrument(counting)


@each_async
@pytest.mark.parametrize("name", ["http", "https by http", "http by socks5", "https by https"])
@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
def test_cancelling_at_every_step(
    kind: WireKind, name: str, kept: bool, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """Wherever a call waits, cancelling it there leaves nothing open, and the one turn that there is to the others."""

    async def main(route: Route) -> int:
        for count in range(1, 100):
            async with kind.wire(verify=trusting, max_connections=1) as wire:
                if kept:
                    assert await wire.text(route.server.url, proxy=route.proxies) == "Hello"
                call = wire.call(route.server.url, proxy=route.proxies)
                steps = Steps(count)
                route.server.plan(Answer(tokens=["Hel", "lo"], pace=0.005))
                await (steps.on_trio if kind.name == "trio" else steps.on_asyncio)(call.rest())
                await call.close()
                assert wire.connections[0] == 0
                # (It may have got as far as the server, or not.)
                route.server.plan(Answer(), Answer())
                assert await wire.text(route.server.url, proxy=route.proxies)
                assert wire.connections == (0, 1)
            while route.server._planned:
                route.server._planned.pop()
            if steps.over:
                return count
        raise AssertionError("it goes on and on")

    with laid(BY_NAME[name], server_context, trusting) as route:
        count = kind.run(main, route)
    # (How many steps there are beyond that, is the machine's business: what has come already is not waited for.)
    assert count > (1 if kept else 2)


@each_async
def test_cancelling_who_waits_at_every_step(kind: WireKind, server: ChatServer) -> None:
    """The line comes free while the other one is about to be cancelled: before, in the same turn, after."""

    async def main() -> None:
        for count in range(8):
            async with kind.wire(max_connections=1) as wire:
                first, second, third = (wire.call(server.url) for _ in range(3))
                await first.rest()
                first = wire.call(server.url)
                await first.events()
                scope = anyio.CancelScope()

                async def wait(call: Any, scope: anyio.CancelScope) -> None:
                    with scope:
                        await call.rest()
                    await call.close()

                async def free(call: Any, count: int) -> None:
                    for _ in range(count):
                        await anyio.lowlevel.checkpoint()
                    call.exchange.close_now()

                with anyio.fail_after(5):
                    async with anyio.create_task_group() as group:
                        group.start_soon(wait, second, scope)
                        await until(lambda: wire.waiting == 1)
                        group.start_soon(wait, third, anyio.CancelScope())
                        await until(lambda: wire.waiting == 2)
                        group.start_soon(free, first, count)
                        await turns(3)
                        scope.cancel()
                assert third.reply.done
                assert await wire.text(server.url) == "Hello"

    kind.run(main)


@each_async
def test_a_loop_that_ends_in_the_midst(kind: WireKind, server: ChatServer) -> None:
    """One transport in two runs, nothing of which is closed: held lines, idle ones, and one that waits."""
    transport: Any = Wire(False, max_connections=2)

    async def main() -> None:
        server.plan(Answer(), STALLED)
        assert await transport.text(server.url)
        assert transport.connections == (0, 1)
        stalled = transport.call(server.url)
        await stalled.events()
        assert await transport.text(server.url) == "Hello"
        assert transport.connections == (1, 1)

    for number in range(2):
        kind.run(main)
        assert server.wait_outcome(3 * number + 1, 1) == "client-closed"
        server.wait_closed(1)
