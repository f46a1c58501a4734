"""How calls end before their time: the server hears of it at once, and nothing is left behind.

Every way to end (leaving early, dropping, cancelling, closing) on every way to the server (plain and TLS, direct and
through a proxy), sync, on asyncio and on trio. What is not closed is a ResourceWarning, hence an error; sockets are
counted besides.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
import trustme
from driving import (
    HI,
    MODEL,
    STALLED,
    Peer,
    Route,
    Run,
    Transports,
    blocking,
    cancelled_when,
    full_listener,
    settled,
)
from programs import run_program
from streaming import serving

from deltawire import AsyncClient, Client, DeltawireError, UsageError
from deltawire.testing import Answer, ChatServer, ProxyServer, SocksServer
from deltawire.transports import HTTPCoreTransport

pytestmark = pytest.mark.usefixtures("_tidy", "transports")

# "At once", for a server that is told.
SOON = 3.0


def sync_client(route: Route, **more: Any) -> Client:
    return Client(**route.options(timeout=10, **more))


def async_client(route: Route, **more: Any) -> AsyncClient:
    return AsyncClient(**route.options(timeout=10, **more))


def start(client: Client) -> Any:
    return client.chat.completions.create(HI, MODEL, stream=True)


def astart(client: AsyncClient) -> Any:
    return client.chat.completions.create(HI, MODEL, stream=True)


def busy(client: Any) -> int:
    found: int = client.transport.connections()[0]
    return found


def assert_ended(server: ChatServer, index: int = 0) -> None:
    assert server.wait_outcome(index, SOON) == "client-closed"


async def aassert_ended(server: ChatServer, client: AsyncClient, index: int = 0) -> None:
    await blocking(assert_ended, server, index)
    assert await settled(lambda: busy(client) == 0)


# --- Leaving early: sync ------------------------------------------------------------------------------


def leave_and_close(client: Client) -> None:
    stream = start(client)
    for chunk in stream:
        assert chunk.choices
        break
    stream.close()
    stream.close()
    assert list(stream) == []


def leave_and_drop(client: Client) -> None:
    for chunk in start(client):
        assert chunk.choices
        break


def leave_in_a_cycle(client: Client) -> None:
    stream = start(client)
    next(stream)
    stream.itself = stream
    del stream
    gc.collect()


def leave_a_with_block(client: Client) -> None:
    with start(client) as stream:
        next(stream)


def leave_by_an_exception(client: Client) -> None:
    with contextlib.suppress(ZeroDivisionError), start(client) as stream:
        for chunk in stream:
            raise ZeroDivisionError(chunk)


def leave_by_an_uncaught_exception(client: Client) -> None:
    # No with block: the traceback holds the frame, the frame the stream, until it is handled.
    with contextlib.suppress(ZeroDivisionError):
        for chunk in start(client):
            raise ZeroDivisionError(chunk)
    gc.collect()


SYNC_WAYS = [
    leave_and_close,
    leave_and_drop,
    leave_in_a_cycle,
    leave_a_with_block,
    leave_by_an_exception,
    leave_by_an_uncaught_exception,
]


@pytest.mark.parametrize("leave", SYNC_WAYS)
def test_leaving_early(route: Route, leave: Callable[[Client], None]) -> None:
    with sync_client(route) as client:
        route.server.plan(STALLED)
        leave(client)
        assert_ended(route.server)
        assert client.transport.connections() == (0, 0)  # type: ignore[attr-defined]
        # And the client is as good as before.
        assert "".join(chunk.choices[0].delta.content or "" for chunk in start(client)) == "Hello"


def test_closing_the_client_under_a_stream(route: Route) -> None:
    client = sync_client(route)
    route.server.plan(STALLED, STALLED)
    streams = [start(client), start(client)]
    client.close()
    assert_ended(route.server, 0)
    assert_ended(route.server, 1)
    for stream in streams:
        # What had come is still to be had; then it fails, in our words.
        with pytest.raises(DeltawireError):
            list(stream)
        assert list(stream) == []
    with pytest.raises(UsageError, match="closed"):
        start(client)


def test_dropping_the_client_keeps_its_streams(server: ChatServer) -> None:
    def connected() -> Any:
        return start(Client(base_url=server.url))

    stream = connected()
    gc.collect()
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hello"
    assert server.open_connections == 1
    del stream
    server.wait_closed(SOON)


def test_dropping_the_client_closes_idle_connections(route: Route) -> None:
    client = sync_client(route)
    client.chat.completions.create(HI, MODEL)
    del client
    route.server.wait_closed(SOON)


# --- Leaving early: async -----------------------------------------------------------------------------


async def aleave_and_close(client: AsyncClient) -> None:
    stream = await astart(client)
    async for chunk in stream:
        assert chunk.choices
        break
    await stream.close()
    await stream.aclose()
    assert [chunk async for chunk in stream] == []


async def aleave_and_drop(client: AsyncClient) -> None:
    async for chunk in astart(client):
        assert chunk.choices
        break


async def aleave_in_a_cycle(client: AsyncClient) -> None:
    stream = await astart(client)
    await stream.__anext__()
    stream.itself = stream
    del stream
    gc.collect()


async def aleave_an_async_with_block(client: AsyncClient) -> None:
    async with astart(client) as stream:
        await stream.__anext__()


async def aleave_by_an_exception(client: AsyncClient) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async with await astart(client) as stream:
            async for chunk in stream:
                raise ZeroDivisionError(chunk)


async def aleave_by_an_uncaught_exception(client: AsyncClient) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async for chunk in astart(client):
            raise ZeroDivisionError(chunk)
    gc.collect()


async def aleave_by_closing_the_call(client: AsyncClient) -> None:
    call = astart(client)
    async for chunk in call:
        assert chunk.choices
        break
    await call.close()


ASYNC_WAYS = [
    aleave_and_close,
    aleave_and_drop,
    aleave_in_a_cycle,
    aleave_an_async_with_block,
    aleave_by_an_exception,
    aleave_by_an_uncaught_exception,
    aleave_by_closing_the_call,
]


@pytest.mark.parametrize("leave", ASYNC_WAYS)
def test_async_leaving_early(run: Run, route: Route, leave: Callable[[AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        async with async_client(route) as client:
            route.server.plan(STALLED)
            await leave(client)
            await aassert_ended(route.server, client)
            assert client.transport.connections() == (0, 0)  # type: ignore[attr-defined]
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in astart(client)]) == "Hello"

    run(main)


def test_async_closing_the_client_under_a_stream(run: Run, route: Route) -> None:
    async def main() -> None:
        client = async_client(route)
        route.server.plan(STALLED, STALLED)
        streams = [await astart(client), await astart(client)]
        await client.close()
        await blocking(assert_ended, route.server, 0)
        await blocking(assert_ended, route.server, 1)
        for stream in streams:
            with pytest.raises(DeltawireError):
                [chunk async for chunk in stream]
            assert [chunk async for chunk in stream] == []
        with pytest.raises(UsageError, match="closed"):
            await astart(client)

    run(main)


def test_async_dropping_the_client_keeps_its_streams(run: Run, server: ChatServer) -> None:
    async def main() -> None:
        stream = await AsyncClient(base_url=server.url).chat.completions.create(HI, MODEL, stream=True)
        gc.collect()
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "Hello"
        assert server.open_connections == 1
        del stream
        gc.collect()
        await blocking(server.wait_closed, SOON)

    run(main)


# --- Cancelling ---------------------------------------------------------------------------------------


async def consume(client: AsyncClient) -> None:
    async for _ in astart(client):
        pass


PHASES = {
    "before the head": Answer(cut_after=0, ending="stall"),
    "before content": Answer(
        events=[b'data: {"choices": [{"index": 0, "delta": {"role": "assistant"}}]}\n\n'], ending="stall"
    ),
    "mid-stream": STALLED,
    "waiting to retry": Answer.error(503, retry_after=60),
}


def ready(server: ChatServer, phase: str, index: int = 0) -> None:
    """Wait until the server has said what it says in this phase, to this request."""

    def stalled() -> bool:
        return len(server.requests) > index and server.requests[index].outcome == "stalled"

    if phase == "waiting to retry":
        server.wait_outcome(index)
    else:
        server.wait_until(stalled, "the stall")


@pytest.mark.parametrize("phase", PHASES)
def test_cancelling(run: Run, route: Route, phase: str) -> None:
    async def main() -> None:
        async with async_client(route) as client:
            route.server.plan(PHASES[phase])
            await cancelled_when(functools.partial(ready, route.server, phase), functools.partial(consume, client))
            if phase == "waiting to retry":
                assert await settled(lambda: busy(client) == 0)
            else:
                await aassert_ended(route.server, client)
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in astart(client)]) == "Hello"
            assert len(route.server.requests) == 2

    run(main)


@pytest.mark.parametrize("how", ["cancel", "wait_for"])
@pytest.mark.parametrize("phase", ["before the head", "mid-stream"])
def test_cancelling_an_asyncio_task(route: Route, phase: str, how: str) -> None:
    async def main() -> None:
        async with async_client(route) as client:
            route.server.plan(PHASES[phase])
            task = asyncio.create_task(consume(client))
            await blocking(ready, route.server, phase)
            if how == "wait_for":
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(task, 0.05)
            else:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await aassert_ended(route.server, client)

    asyncio.run(main())


def test_move_on_after(run: Run, route: Route) -> None:
    async def main() -> None:
        async with async_client(route) as client:
            route.server.plan(STALLED)
            text = ""
            with anyio.move_on_after(0.2) as scope:
                async for chunk in astart(client):
                    text += chunk.choices[0].delta.content or ""
            assert scope.cancelled_caught
            assert text == "Hello"
            await aassert_ended(route.server, client)

    run(main)


def test_a_stream_that_was_cancelled_says_so(run: Run, server: ChatServer) -> None:
    async def main() -> None:
        async with AsyncClient(base_url=server.url) as client:
            server.plan(STALLED)
            stream = await astart(client)
            with anyio.move_on_after(0.05):
                async for _ in stream:
                    pass
            await aassert_ended(server, client)
            with pytest.raises(DeltawireError):
                await stream.__anext__()

    run(main)


# Where a call may be before its connection stands.
CONNECTING = [
    "TCP", "TLS", "CONNECT", "SOCKS, the method", "SOCKS, the password", "SOCKS, the reply", "TLS with the proxy",
    "TLS in the tunnel", "TLS behind SOCKS", "TLS in TLS",
]  # fmt: skip


class Connecting(NamedTuple):
    """A client's arguments, with which a call gets as far as this and no further."""

    options: dict[str, Any]
    there: Callable[[], object]
    """Wait until it has."""
    peer: Peer | None

    def assert_gone(self) -> None:
        """The other end has seen that it was left."""
        if self.peer is not None:
            assert self.peer.gone.wait(SOON)
            assert self.peer.connections == 1


@pytest.fixture(params=CONNECTING)
def connecting(request: pytest.FixtureRequest) -> Iterator[Connecting]:
    phase = request.param
    if phase == "TCP":
        with full_listener() as port:
            yield Connecting({"base_url": f"http://127.0.0.1:{port}/v1"}, lambda: None, None)
        return
    with Peer({"SOCKS, the password": b"\5\2", "SOCKS, the reply": b"\5\0"}.get(phase, b"")) as peer:
        where = f"127.0.0.1:{peer.port}"
        behind = {"TLS": None, "TLS in the tunnel": "proxy", "TLS behind SOCKS": "socks", "TLS in TLS": "tls_proxy"}
        options: dict[str, Any] = {"base_url": "https://x.invalid/v1"}
        if phase in behind:
            name = behind[phase]
            options = {"base_url": f"https://{where}/v1"}
            options["proxies"] = None if name is None else request.getfixturevalue(name).url
        elif phase == "CONNECT":
            options["proxies"] = f"http://{where}"
        elif phase == "TLS with the proxy":
            options["proxies"] = f"https://{where}"
        else:
            options["proxies"] = f"socks5h://me:secret@{where}"
        yield Connecting({**options, "verify": False, "timeout": 10}, functools.partial(peer.heard.wait, 5), peer)


def test_cancelling_while_connecting(run: Run, connecting: Connecting) -> None:
    async def main() -> None:
        client = AsyncClient(**connecting.options)
        await cancelled_when(connecting.there, functools.partial(consume, client))
        await blocking(connecting.assert_gone)
        assert client.transport.connections() == (0, 0)  # type: ignore[attr-defined]
        await client.aclose()

    run(main)


async def cancel_again_and_again(task: asyncio.Task[None], turns: int) -> None:
    """Cancel it three times, so many turns of the loop apart: who cleans up is not left to it either."""
    for _ in range(3):
        task.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_cancelling_again_and_again_while_connecting(connecting: Connecting, turns: int) -> None:
    async def main() -> None:
        client = AsyncClient(**connecting.options)
        task = asyncio.create_task(consume(client))
        await blocking(connecting.there)
        for _ in range(20):
            await asyncio.sleep(0)
        await cancel_again_and_again(task, turns)
        await blocking(connecting.assert_gone)
        assert await settled(lambda: client.transport.connections() == (0, 0))  # type: ignore[attr-defined]
        await client.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("phase", PHASES)
def test_cancelling_again_and_again(route: Route, phase: str) -> None:
    async def main() -> None:
        async with async_client(route) as client:
            for turns in (1, 2, 3):
                first = len(route.server.requests)
                route.server.plan(PHASES[phase])
                task = asyncio.create_task(consume(client))
                await blocking(ready, route.server, phase, first)
                await cancel_again_and_again(task, turns)
                if phase == "waiting to retry":
                    assert await settled(lambda: busy(client) == 0)
                else:
                    await aassert_ended(route.server, client, first)
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in astart(client)]) == "Hello"

    asyncio.run(main())


class Interruption(BaseException):
    """As Ctrl-C's."""


@contextlib.contextmanager
def interrupted_when(there: Callable[[], object]) -> Iterator[None]:
    """A signal ends the block, sent when this blocking call has returned and the main thread waits for its peer."""
    main = threading.main_thread().ident
    assert main is not None

    def interrupt(*ignored: object) -> None:
        raise Interruption

    over = threading.Event()

    def watch() -> None:
        there()
        # Not only has the peer heard: the program waits.
        while not is_waiting(sys._current_frames()[main]):
            if over.wait(0.001):
                return
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    watcher = threading.Thread(target=watch, name="watcher")
    watcher.start()
    try:
        with pytest.raises(Interruption):
            yield
    finally:
        over.set()
        watcher.join()
        signal.signal(signal.SIGUSR1, before)


def is_waiting(frame: Any) -> bool:
    code = frame.f_code
    return (Path(code.co_filename).name, code.co_name) in (("selectors.py", "select"), ("blocking.py", "_connect"))


def test_interrupting_while_connecting(connecting: Connecting) -> None:
    """What cancelling is to a task, Ctrl-C is to a program that blocks."""
    client = Client(**connecting.options)
    with interrupted_when(connecting.there):
        start(client)
    connecting.assert_gone()
    assert client.transport.connections() == (0, 0)  # type: ignore[attr-defined]
    client.close()


@pytest.mark.parametrize("phase", ["before the head", "before content", "mid-stream"])
def test_interrupting(route: Route, phase: str) -> None:
    with sync_client(route) as client:
        route.server.plan(PHASES[phase])
        with interrupted_when(functools.partial(ready, route.server, phase)):
            list(start(client))
        assert_ended(route.server)
        assert client.transport.connections() == (0, 0)  # type: ignore[attr-defined]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in start(client)) == "Hello"


def test_two_tasks_and_one_of_them_is_cancelled(run: Run, server: ChatServer) -> None:
    """Both await one call; who stays gets his stream."""

    async def main() -> None:
        async with AsyncClient(base_url=server.url) as client:
            server.plan(Answer(cut_after=0, ending="stall"))
            call = astart(client)
            texts: list[str] = []

            async def other() -> None:
                await blocking(server.wait_requests, 1)
                texts.append("".join([chunk.choices[0].delta.content or "" async for chunk in await call]))

            async with anyio.create_task_group() as group:
                group.start_soon(other)
                await cancelled_when(
                    functools.partial(ready, server, "before the head"), functools.partial(_await, call)
                )
            assert texts == ["Hello"]

    async def _await(call: Any) -> None:
        await call

    run(main)


# --- Loops --------------------------------------------------------------------------------------------


def test_one_client_in_two_runs(run: Run, route: Route) -> None:
    async def ask(client: AsyncClient) -> str:
        return "".join([chunk.choices[0].delta.content or "" async for chunk in astart(client)])

    client = async_client(route)
    for number in (1, 2, 3):
        assert run(ask, client) == "Hello"
        # What the loop had open ended with it.
        route.server.wait_closed(SOON)
        assert route.server.connections == number


def test_a_run_that_ends_under_a_stream(run: Run, route: Route) -> None:
    """Never closed, never finished: the loop ends, and the connection with it."""
    kept: list[Any] = []

    async def main(client: AsyncClient) -> None:
        stream = await astart(client)
        await stream.__anext__()
        kept.append(stream)

    route.server.plan(STALLED)
    client = async_client(route)
    run(main, client)
    assert_ended(route.server)
    kept.clear()
    gc.collect()


def test_a_stream_dropped_with_the_main_function(run: Run, route: Route) -> None:
    """At the very end of a run, where it depends on trio's dice what comes first: hence often."""

    async def main(closes: bool) -> None:
        client = async_client(route)
        stream = await astart(client)
        await stream.__anext__()
        if closes:
            await client.aclose()

    for number in range(12):
        run(main, number % 2 == 0)
    gc.collect()


def test_nothing_keeps_loops_and_pools(run: Run, server: ChatServer, transports: Transports) -> None:
    from deltawire.transports.httpcore_async import _Pools
    from deltawire.transports.wire.asynchronous import _Lines

    kind = {"httpcore": _Pools, "wire": _Lines}[transports.name]

    def pools() -> int:
        gc.collect()
        return sum(isinstance(each, kind) for each in gc.get_objects())

    async def ask(client: AsyncClient) -> None:
        await client.chat.completions.create(HI, MODEL)

    async def many() -> int:
        for _ in range(3):
            async with AsyncClient(base_url=server.url) as client:
                await ask(client)
            await ask(AsyncClient(base_url=server.url))
        gc.collect()
        await blocking(server.wait_closed)
        return pools()

    client = AsyncClient(base_url=server.url)
    run(ask, client)
    assert pools() == 0
    assert run(many) == 0


# --- Keeping connections ------------------------------------------------------------------------------


def test_a_complete_stream_gives_its_connection_back(route: Route) -> None:
    with sync_client(route) as client:
        for number in (1, 2, 3):
            text = "".join(chunk.choices[0].delta.content or "" for chunk in start(client))
            assert text == "Hello"
            assert client.chat.completions.create(HI, MODEL).choices[0].message.content == "Hello"
            assert len(client.models.list().data) == 1
            assert len(route.server.requests) == 3 * number
            assert client.transport.connections() == (0, 1)  # type: ignore[attr-defined]
    if route.between is not None:
        assert {request.connection for request in route.between.requests} == {1}
    if route.name != "proxy":
        # That proxy opens one a request.
        assert route.server.connections == 1


def test_async_a_complete_stream_gives_its_connection_back(run: Run, route: Route) -> None:
    async def main() -> None:
        async with async_client(route) as client:
            for _ in range(3):
                text = "".join([chunk.choices[0].delta.content or "" async for chunk in astart(client)])
                assert text == "Hello"
                await client.chat.completions.create(HI, MODEL)
                await client.models.list()
                assert client.transport.connections() == (0, 1)  # type: ignore[attr-defined]

    run(main)
    if route.between is not None:
        assert {request.connection for request in route.between.requests} == {1}
    if route.name != "proxy":
        assert route.server.connections == 1


ENDLESS = Answer(tokens=["Hel", "lo"], ending="stall")


def test_a_body_that_does_not_end_after_the_end(route: Route) -> None:
    route.server.plan(ENDLESS)
    with sync_client(route) as client:
        stream = start(client)
        assert next(stream).choices
        begin = time.monotonic()
        rest = list(stream)
        assert time.monotonic() - begin < SOON, "the drain is to be 0.1 s long"
        assert rest[-1].choices[0].finish_reason == "stop"
        assert_ended(route.server)
        assert client.transport.connections() == (0, 0)  # type: ignore[attr-defined]


def test_async_a_body_that_does_not_end_after_the_end(run: Run, route: Route) -> None:
    async def main() -> None:
        async with async_client(route) as client:
            stream = await astart(client)
            begin = time.monotonic()
            rest = [chunk async for chunk in stream]
            assert time.monotonic() - begin < SOON
            assert rest[-1].choices[0].finish_reason == "stop"
            await aassert_ended(route.server, client)

    route.server.plan(ENDLESS)
    run(main)


def test_a_server_that_closes_idle_connections(server: ChatServer) -> None:
    """A connection that the server closed while it was idle is not used again."""
    server.plan(Answer(tokens=["a"], headers=[("connection", "close")]))
    with Client(base_url=server.url, max_retries=0) as client:
        client.chat.completions.create(HI, MODEL)
        assert client.chat.completions.create(HI, MODEL).choices[0].message.content == "Hello"
    assert server.connections == 2


# --- Finalisers in the midst of a transport -----------------------------------------------------------


@contextlib.contextmanager
def inside(transport: Any) -> Iterator[None]:
    """Where the collector may run: httpcore's code, or the pool of the wire, each with a lock that is not reentrant."""
    if isinstance(transport, HTTPCoreTransport):
        transport.enter()
        yield
        transport.leave()
    else:
        with transport._lock:
            yield
        transport.change(lambda todo: None)


def test_a_stream_dropped_inside_a_transport_closes_on_leave(server: ChatServer) -> None:
    server.plan(STALLED)
    with Client(base_url=server.url) as client:
        stream = start(client)
        next(stream)
        with inside(client.transport):
            del stream
            gc.collect()
            assert server.open_connections == 1
            assert busy(client) == 1
        assert_ended(server)
        assert busy(client) == 0


def test_a_client_dropped_with_its_stream(server: ChatServer, trusting: ssl.SSLContext) -> None:
    server.plan(STALLED)
    client = Client(base_url=server.url, verify=trusting)
    stream = start(client)
    next(stream)
    client.cycle = stream  # type: ignore[attr-defined]
    stream.cycle = client
    del client, stream
    gc.collect()
    assert_ended(server)
    server.wait_closed(SOON)


# --- All of it in a row, in a process of its own, which closes nothing ---------------------------------

SYNC_PROGRAM = """
import gc, sys
from deltawire import Client, DeltawireError, Timeout

ca, routes, silent = sys.argv[1], [route.split(" ") for route in sys.argv[2].split(",")], sys.argv[3]
clients = []

def start(client, **more):
    return client.chat.completions.create("Hi", "m", stream=True, **more)

def text(stream):
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

for base_url, proxy in routes:
    client = Client(base_url=base_url, proxies=proxy or None, verify=ca, timeout=10, max_retries=0)
    clients.append(client)
    assert text(start(client)) == "Hello"
    stream = start(client)              # broken off and closed
    for chunk in stream:
        break
    stream.close()
    for chunk in start(client):         # broken off and dropped
        break
    stream = start(client)              # in a cycle
    next(stream)
    stream.itself = stream
    del stream
    gc.collect()
    try:                                # left by an exception
        for chunk in start(client):
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    for limit in (Timeout(first_content=0.3), Timeout(idle=0.1)):
        try:                            # stalled
            text(start(client, timeout=limit))
        except TimeoutError:
            pass
        else:
            raise AssertionError("no timeout")
    assert text(start(client)) == "Hello"
    clients.append(start(client))       # under way when the program ends
    next(clients[-1])
for scheme in ("", "http", "https", "socks5h"):
    base_url = "https://x.invalid/v1" if scheme else f"https://{silent}/v1"
    proxy = f"{scheme}://{silent}" if scheme else None
    try:
        start(Client(base_url=base_url, proxies=proxy, verify=ca, timeout=0.3, max_retries=0))
    except DeltawireError:
        pass
print("done")
"""

ASYNC_PROGRAM = """
import collections, gc, logging, sys
import anyio
from deltawire import AsyncClient

ca, routes, silent = sys.argv[1], [route.split(" ") for route in sys.argv[2].split(",")], sys.argv[3]
bell = int(sys.argv[4])
clients = []
asked = collections.Counter()

def start(client, base_url):
    asked[base_url] += 1
    return client.chat.completions.create("Hi", "m", stream=True)

async def text(stream):
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

async def rings(what, count):
    async with await anyio.connect_tcp("127.0.0.1", bell) as line:
        await line.send(f"{what} {count}\\n".encode())
        assert await line.receive() == b"."

class Retries(logging.Handler):
    def __init__(self):
        super().__init__()
        self.one = anyio.Event()
    def emit(self, record):
        if record.deltawire["event"] == "retry":
            self.one.set()

async def cancelled(stream, ready):
    async with anyio.create_task_group() as group:
        group.start_soon(text, stream)
        await ready
        group.cancel_scope.cancel()
    assert group.cancel_scope.cancelled_caught

async def main():
    logger = logging.getLogger("deltawire.client")
    logger.setLevel(logging.INFO)
    for base_url, proxy in routes:
        client = AsyncClient(base_url=base_url, proxies=proxy or None, verify=ca, timeout=60)
        clients.append(client)
        assert await text(start(client, base_url)) == "Hello"
        stream = await start(client, base_url)      # broken off and closed
        async for chunk in stream:
            break
        await stream.close()
        async for chunk in start(client, base_url): # broken off and dropped
            break
        stream = await start(client, base_url)      # in a cycle
        await stream.__anext__()
        stream.itself = stream
        del stream
        gc.collect()
        try:                                        # left by an exception
            async for chunk in start(client, base_url):
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        stream = start(client, base_url)            # cancelled before the head
        await cancelled(stream, rings(base_url, asked[base_url]))
        stream = await start(client, base_url)      # mid-stream
        await stream.__anext__()
        await cancelled(stream, anyio.wait_all_tasks_blocked())
        logger.addHandler(retries := Retries())     # waiting to retry
        await cancelled(start(client, base_url), retries.one.wait())
        logger.removeHandler(retries)
        assert await text(start(client, base_url)) == "Hello"
        clients.append(await start(client, base_url)) # under way when the loop ends
        await clients[-1].__anext__()
    # In the handshakes with a server, and with each kind of proxy.
    for count, scheme in enumerate(("", "http", "https", "socks5h"), 1):
        base_url = "https://x.invalid/v1" if scheme else f"https://{silent}/v1"
        client = AsyncClient(base_url=base_url, proxies=f"{scheme}://{silent}" if scheme else None, verify=ca)
        await cancelled(start(client, base_url), rings("silent", count))
    print("done")

"""


BEFORE_THE_HEAD = Answer(cut_after=0, ending="stall")
GOOD = Answer()


@pytest.mark.parametrize("last", ["", "import asyncio; asyncio.run(main())", "import trio; trio.run(main)"])
def test_a_program_that_closes_nothing(
    tls_server: ChatServer,
    server: ChatServer,
    proxy: ProxyServer,
    tls_proxy: ProxyServer,
    socks: SocksServer,
    authority: trustme.CA,
    tmp_path: Path,
    last: str,
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    between = [BEFORE_THE_HEAD, STALLED, Answer.error(503, retry_after=60)] if last else [BEFORE_THE_HEAD, STALLED]
    answers = [GOOD, *[STALLED] * 4, *between, GOOD, STALLED]
    routes = []
    ways = {server: ["", proxy.url, socks.url], tls_server: ["", proxy.url, socks.remote_url, tls_proxy.url]}
    for found, proxies in ways.items():
        found.plan(*answers * len(proxies))
        routes += [f"{found.url} {each}" for each in proxies]

    def ring(connection: socket.socket) -> None:
        """A program is told that something has come about: it says what, and how often."""
        what, count = connection.recv(1000).decode().split()
        if what == "silent":
            assert silent.heard.wait(30)
            silent.heard.clear()
            assert silent.connections == int(count)
        else:
            next(each for each in ways if each.url == what).wait_requests(int(count), 30)
        connection.sendall(b".")

    with Peer() as silent, serving(*[ring] * (len(routes) + 4 if last else 0)) as bell:
        program = ASYNC_PROGRAM + last if last else SYNC_PROGRAM
        arguments = str(tmp_path / "ca.pem"), ",".join(routes), f"127.0.0.1:{silent.port}", str(bell)
        assert run_program(program, *arguments) == "done\n"
        assert silent.connections == 4
    for found, proxies in ways.items():
        found.wait_closed(SOON)
        outcomes = [request.outcome for request in found.requests]
        expected = ["client-closed" if answer.ending == "stall" else "complete" for answer in answers]
        assert outcomes == expected * len(proxies)
    for each in (proxy, tls_proxy, socks):
        assert each.requests
        each.wait_closed(SOON)


# --- Closing the client while it connects ---------------------------------------------------------------


class Hesitant:
    """A SOCKS proxy that answers when it is told to, and is the server, too."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self.url = f"socks5h://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked, self.go_on, self.gone = threading.Event(), threading.Event(), threading.Event()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            connection.recv(100)
            self.asked.set()
            assert self.go_on.wait(5)
            connection.sendall(b"\x05\x00\x05\x00\x00\x01\0\0\0\0\0\0")
            while connection.recv(65536):
                pass
        self.gone.set()

    def __enter__(self) -> Hesitant:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.join()
        self._listener.close()


def test_closing_the_client_while_a_thread_connects() -> None:
    """What is opened after the end is closed at once: nobody else would."""
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            client.chat.completions.create(HI, MODEL)
        except DeltawireError as error:
            errors.append(error)

    with Hesitant() as proxy:
        client = Client(base_url="http://example.org/v1", proxies=proxy.url, max_retries=0, timeout=5)
        thread = threading.Thread(target=ask)
        thread.start()
        assert proxy.asked.wait(5)
        client.close()
        proxy.go_on.set()
        thread.join()
        assert proxy.gone.wait(SOON)
    assert len(errors) == 1
    assert "closed" in str(errors[0])


def test_closing_the_client_while_a_task_connects(run: Run) -> None:
    errors: list[BaseException] = []

    async def main(proxy: Hesitant) -> None:
        client = AsyncClient(base_url="http://example.org/v1", proxies=proxy.url, max_retries=0, timeout=5)

        async def ask() -> None:
            try:
                await client.chat.completions.create(HI, MODEL)
            except DeltawireError as error:
                errors.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            assert await blocking(proxy.asked.wait, 5)
            await client.aclose()
            proxy.go_on.set()
        assert await blocking(proxy.gone.wait, SOON)

    with Hesitant() as proxy:
        run(main, proxy)
    assert len(errors) == 1
    assert "closed" in str(errors[0])
