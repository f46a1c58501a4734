"""Deadlines, by the clock: how late the error comes, on every kind of way; sync, on asyncio and on trio.

A deadline counts as kept if its error comes within 100 ms of it. On a machine that has too much to do nothing is in
time: hence a plain timer of the same runtime, set at the same moment to the same time; as much as it is late is allowed
besides.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
import trio
from driving import HI, MODEL, Driver, Peer, Route, dribbling, full_listener
from faults import event
from ways import BY_NAME, laid

from deltawire import AsyncClient, Client, Timeout, TimeoutError
from deltawire.testing import Answer, ChatServer, Fault

pytestmark = pytest.mark.usefixtures("_tidy", "transports")

LIMIT = 0.15
IN_TIME = 0.1

COMMENTS = [b": ping\n\n"] * 200


@dataclass
class Timed:
    """What became of a call, by the clock."""

    idle: bool
    """Whether the deadline runs from the last content, and not from the call."""
    start: float = 0.0
    end: float = 0.0
    reference: float = 0.0
    """When a plain timer went off that was set at the start."""
    text: str = ""
    error: BaseException | None = None
    calls: int = 1
    """How many it took, this one included."""
    started: list[Callable[[], None]] = field(default_factory=list)

    def begin(self) -> None:
        self.start = time.monotonic()
        for each in self.started:
            each()

    def taken(self, chunk: Any) -> None:
        content = chunk.choices[0].delta.content if chunk.choices else None
        if content:
            if self.idle and not self.text:
                self.begin()
            self.text += content

    def ended(self, error: BaseException | None) -> None:
        self.end = time.monotonic()
        self.error = error


def _sync(given: dict[str, Any], warm: bool, timed: Timed, limits: Timeout) -> None:
    def timer() -> None:
        threading.Event().wait(LIMIT)
        timed.reference = time.monotonic()

    thread = threading.Thread(target=timer)
    timed.started.append(thread.start)
    with Client(**given) as client:
        if warm:
            client.models.list()
        if not timed.idle:
            timed.begin()
        try:
            for chunk in client.chat.completions.create(HI, MODEL, stream=True, timeout=limits):
                timed.taken(chunk)
            timed.ended(None)
        except Exception as error:
            timed.ended(error)
    thread.join()


async def _async(given: dict[str, Any], warm: bool, timed: Timed, limits: Timeout) -> None:
    async def timer() -> None:
        await anyio.sleep(LIMIT)
        timed.reference = time.monotonic()

    async with AsyncClient(**given) as client, anyio.create_task_group() as group:

        def start() -> None:
            group.start_soon(timer)

        timed.started.append(start)
        if warm:
            await client.models.list()
        if not timed.idle:
            timed.begin()
        try:
            async for chunk in client.chat.completions.create(HI, MODEL, stream=True, timeout=limits):
                timed.taken(chunk)
            timed.ended(None)
        except Exception as error:
            timed.ended(error)


RUNS: dict[str, Callable[..., None]] = {
    "sync": _sync,
    "asyncio": lambda *given: asyncio.run(_async(*given)),
    "trio": lambda *given: trio.run(_async, *given),
}


def assert_in_time(
    name: str, what: str, given: dict[str, Any], deadline: str, *, warm: bool, plan: Callable[[], object] = lambda: None
) -> Timed:
    """Make a call that runs into this deadline, and see that it ends no sooner than that and not much later. `warm`: on
    a connection that stands, so that connecting is not in the figure. `plan` has its peers do what they are to do; it
    is done again where a busy machine has held up the first call, which three in a row it does not."""
    limits = Timeout(**{"connect": 5, "first_content": 5, "idle": 5, deadline: LIMIT})
    for number in (1, 2, 3):
        plan()
        timed = Timed(idle=deadline == "idle")
        RUNS[name]({**given, "max_retries": 0, "timeout": 5}, warm, timed, limits)
        assert isinstance(timed.error, TimeoutError), repr(timed.error)
        assert (timed.error.deadline, timed.error.seconds) == (deadline, LIMIT)
        late, plain = (each - timed.start - LIMIT for each in (timed.end, timed.reference))
        print(f"late: {name}, {what}, {deadline}: {late * 1000:.1f} ms; a plain timer: {plain * 1000:.1f} ms")
        # The deadline of an idle reply runs from when the content came, which is a moment before it is handed out.
        assert late > -0.02
        timed.calls = number
        if late < IN_TIME + max(plain, 0):
            return timed
    raise AssertionError(f"late three times, the last time by {late * 1000:.0f} ms")


# The kinds of way; each has all that may go wrong with a clock.
KINDS = {"direct": "http", "tunnel": "https by http", "socks": "https by socks5"}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, server_context: ssl.SSLContext, trusting: ssl.SSLContext) -> Iterator[Route]:
    with laid(BY_NAME[KINDS[request.param]], server_context, trusting) as route:
        yield route


@pytest.mark.parametrize("deadline", ["first_content", "idle", "total"])
def test_a_stream_that_goes_on_and_on(driver: Driver, kind: Route, deadline: str) -> None:
    """Comments each 50 ms, for ever, are no content; and the total has no regard for content."""
    if deadline == "total":
        endless = Answer(tokens=["a"] * 1000, pace=0.01)
    else:
        first = [event(), event("a")] if deadline == "idle" else [event()]
        endless = Answer(events=[*first, *COMMENTS], pace=0.05)
    # The first request is for the models: the connection stands when the chat begins.
    timed = assert_in_time(
        driver.name, kind.name, kind.options(), deadline, warm=True, plan=lambda: kind.server.plan(Answer(), endless)
    )
    assert timed.text == {"first_content": "", "idle": "a"}.get(deadline, "a" * len(timed.text))
    assert isinstance(timed.error, TimeoutError)
    if timed.text:
        assert timed.error.partial is not None
        assert timed.error.partial.choices[0].message.content == timed.text
    assert kind.server.wait_outcome(2 * timed.calls - 1, 1) == "client-closed"
    assert kind.server.connections == timed.calls


@pytest.mark.parametrize("deadline", ["connect", "total"])
def test_a_listener_that_takes_no_connection(driver: Driver, deadline: str) -> None:
    with full_listener() as port:
        given = {"base_url": f"http://127.0.0.1:{port}/v1"}
        assert_in_time(driver.name, "TCP", given, deadline, warm=False)


def test_a_server_that_shakes_no_hands(driver: Driver) -> None:
    with Peer() as peer:
        given = {"base_url": f"https://127.0.0.1:{peer.port}/v1", "verify": False}
        assert_in_time(driver.name, "TLS", given, "connect", warm=False)
        assert peer.gone.wait(1)


STALLS = {
    "before CONNECT's answer": ("https by http", Fault(0, "stall")),
    "in CONNECT's answer": ("https by http", Fault(20, "stall")),
    "in TLS in the tunnel": ("https by http", Fault(200, "stall")),
    "before SOCKS's method": ("http by socks5", Fault(0, "stall")),
    "in SOCKS's password": ("http by socks5", Fault(3, "stall")),
    "in SOCKS's reply": ("http by socks5h", Fault(9, "stall")),
    "in TLS behind SOCKS": ("https by socks5", Fault(200, "stall")),
    "in TLS with the proxy": ("http by https", Fault(200, "stall", raw=True)),
    "in CONNECT in TLS": ("https by https", Fault(20, "stall")),
    "in TLS in TLS": ("https by https", Fault(200, "stall")),
}


@pytest.mark.parametrize("stall", STALLS)
def test_a_handshake_that_stops(
    driver: Driver, stall: str, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    name, fault = STALLS[stall]
    with laid(BY_NAME[name], server_context, trusting) as route:
        assert route.between is not None
        plan = functools.partial(route.between.plan, fault)
        assert_in_time(driver.name, stall, route.options(), "connect", warm=False, plan=plan)
        route.between.wait_closed(1)
        route.server.wait_closed(1)


def test_a_proxy_that_speaks_in_drops(driver: Driver) -> None:
    """Each byte comes in time; all of them don't."""
    with dribbling(b"HTTP/1.1 200 Connection established\r\n\r\n" * 10, 0.02) as port:
        given = {"base_url": "https://x.invalid/v1", "proxies": f"http://127.0.0.1:{port}"}
        assert_in_time(driver.name, "CONNECT in drops", given, "connect", warm=False)


# --- What deadlines cost ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["direct", "socks"], indirect=True)
def test_tokens_make_no_timers_and_no_tasks(kind: Route) -> None:
    tokens = [f"{number} " for number in range(500)]

    async def main() -> tuple[str, int, int, int]:
        loop: Any = asyncio.get_running_loop()
        made = {"call_at": 0, "create_task": 0}

        def counted(name: str) -> None:
            real = getattr(loop, name)

            def method(*arguments: Any, **more: Any) -> Any:
                made[name] += 1
                return real(*arguments, **more)

            setattr(loop, name, method)

        async with AsyncClient(
            **kind.options(timeout=Timeout(connect=5, first_content=30, idle=5, total=60))
        ) as client:
            stream = await client.chat.completions.create(HI, MODEL, stream=True)
            text = ""
            for name in made:
                counted(name)
            waits = 0
            async for chunk in stream:
                waits += 1
                text += chunk.choices[0].delta.content or ""
                if len(text.split()) == len(tokens):
                    break
            found = text, made["call_at"], made["create_task"], waits
            for name in made:
                delattr(loop, name)
        return found

    # Far enough apart that each is waited for.
    kind.server.plan(Answer(tokens=tokens, pace=0.001))
    text, timers, tasks, chunks = asyncio.run(main())
    assert text == "".join(tokens)
    assert chunks >= len(tokens)
    print(f"{kind.name}: {chunks} chunks, {timers} timers, {tasks} tasks")
    # One when the deadline changes from the first content's to that of those that follow.
    assert timers <= 1
    assert tasks == 0


def test_a_thousand_comments_make_no_timers(server: ChatServer) -> None:
    """Nor do reads that end in nothing for the caller."""
    server.plan(Answer(events=[event("a"), *[b": ping\n\n"] * 300, event("b")], pace=0.001, ending="close"))
    timers = 0

    async def main() -> None:
        nonlocal timers
        loop: Any = asyncio.get_running_loop()
        real = loop.call_at

        def call_at(*arguments: Any, **more: Any) -> Any:
            nonlocal timers
            timers += 1
            return real(*arguments, **more)

        async with AsyncClient(base_url=server.url, timeout=Timeout(first_content=30, idle=5)) as client:
            stream = await client.chat.completions.create(HI, MODEL, stream=True)
            loop.call_at = call_at
            assert (await stream.__anext__()).choices[0].delta.content == "a"
            assert (await stream.__anext__()).choices[0].delta.content == "b"
            del loop.call_at
            await stream.aclose()

    asyncio.run(main())
    assert timers <= 1
