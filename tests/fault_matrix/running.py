"""Making the calls: on threads, on asyncio, on trio; over httpcore and the wire."""

from __future__ import annotations

import asyncio
import concurrent.futures
import faulthandler
import math
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import anyio
import trio
from driving import HI, MODEL, TRANSPORTS

from deltawire import APIStatusError, AsyncClient, Client, DeltawireError, Opchatgpts, ProxyError, Timeout

from .cells import Cell, Matrix, Measured
from .peer import Conversation, Lane, Strike
from .reference import Outcome
from .scenarios import PASSWORD, USER, Scenario

FLAVOURS = ("sync", "asyncio", "trio")

# Seconds for a deadline that is not to pass, and how many calls are made at once.
PATIENT, LANES = 20.0, 4
# The same where one is to pass. If the machine was too busy to bring a call to its fault within that time, it is made
# again, with more of it and fewer others.
STEPS = ((0.25, 48), (1.0, 8), (2.0, 1))
# How long a call may take: one that waits for content, and then for more of it, waits for two deadlines; and what is
# left is drained.
LONGEST = 9.0


class Way(NamedTuple):
    """How calls are made."""

    flavour: str
    transport: str

    def __str__(self) -> str:
        return f"{self.flavour}/{self.transport}"


WAYS = [Way(flavour, transport) for flavour in FLAVOURS for transport in sorted(TRANSPORTS)]


class Ended(NamedTuple):
    """A call, and how it ended."""

    cell: Any
    outcome: Outcome
    seconds: float
    error: BaseException | None


class Port:
    """A lane, and which cell its next connection belongs to."""

    def __init__(self, matrix: Matrix, scenario: Scenario) -> None:
        self._matrix = matrix
        self._scenario = scenario
        self.cell: Cell | None = None
        self.since = 0.0
        self.over = threading.Event()
        """Set when the call has ended."""
        self.last: Conversation | None = None
        self.lane = Lane(self._play)

    def _play(self, sock: socket.socket) -> None:
        # What no fault reaches.
        strike = Strike("close", sys.maxsize) if self.cell is None else self.cell.strike
        machine = self._matrix.machine(self._scenario)
        self.last = Conversation(sock, machine, strike, self.over, ends=self._scenario.ends)
        self.last.play()

    def begin(self, cell: Cell | None) -> Hearing:
        """A call that is to meet this."""
        self.cell, self.since, self.over = cell, time.monotonic(), threading.Event()
        return Hearing(self)

    @property
    def messages(self) -> list[dict[str, str]]:
        """What is asked."""
        return [{"role": "user", "content": self._scenario.question}] if self._scenario.question else HI

    def options(self, timeout: Timeout, transport: Any) -> dict[str, Any]:
        """The arguments of a client that comes here."""
        scenario, port = self._scenario, self.lane.port
        options: dict[str, Any] = {"timeout": timeout, "transport": transport, "max_retries": 0, "api_key": "sk-key"}
        if scenario.dialect == "opchatgpts":
            return options | {"provider": Opchatgpts(url=f"http://127.0.0.1:{port}", nonce="nonce")}
        if scenario.through == "socks5":
            proxy = f"socks5://{USER}:{PASSWORD.replace(':', '%3A')}@127.0.0.1:{port}"
            return options | {"base_url": "http://127.0.0.1:80/v1", "proxies": proxy}
        if scenario.through == "https":
            return options | {"base_url": "http://127.0.0.1:80/v1", "proxies": f"https://127.0.0.1:{port}"}
        if scenario.through:
            return options | {"base_url": "https://127.0.0.1:443/v1", "proxies": f"http://127.0.0.1:{port}"}
        return options | {"base_url": f"{'https' if scenario.tls else 'http'}://127.0.0.1:{port}/v1"}


class Hearing:
    """One call's listener."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._begin = time.monotonic()
        self._texts: dict[int, str] | None = None

    def chunk(self, chunk: Any) -> None:
        if self._texts is None:
            self._texts = {}
        for choice in chunk.choices:
            self._texts[choice.index] = self._texts.get(choice.index, "") + (choice.delta.content or "")

    def ended(self, error: BaseException | None) -> Ended:
        self._port.over.set()
        return Ended(self._port.cell, self._outcome(error), time.monotonic() - self._begin, error)

    def _outcome(self, error: BaseException | None) -> Outcome:
        seen = None if self._texts is None else tuple(sorted(self._texts.items()))
        if error is None:
            return Outcome("", seen)
        if not isinstance(error, DeltawireError):
            return Outcome(f"{type(error).__module__}.{type(error).__name__}, which is not ours", seen)
        partial = getattr(error, "partial", None)
        texts = None
        if partial is not None:
            texts = tuple((choice.index, choice.message.content or "") for choice in partial.choices)
        if [each for each in texts or () if each[1]] != [each for each in seen or () if each[1]]:
            return Outcome(f"{type(error).__name__} whose partial is not what was seen ({seen})", texts)
        code = None
        if isinstance(error, ProxyError):
            code = error.reply_code if error.status_code is None else error.status_code
        elif isinstance(error, APIStatusError):
            code = error.status_code
        return Outcome(type(error).__name__, texts, getattr(error, "deadline", None) or "", code)


class Batch:
    """Calls of one scenario in one way."""

    def __init__(self, matrix: Matrix, scenario: Scenario, way: Way) -> None:
        self._matrix, self._scenario, self._way = matrix, scenario, way
        self.again = 0
        """How many calls were made once more, since a deadline had passed before their fault came."""
        (clean,) = self._run([None], PATIENT, 1)
        self.clean = clean
        """The call that has met no fault."""

    @property
    def is_well(self) -> bool:
        """Whether without a fault only what the server or the proxy says is wrong."""
        return self.clean.error is None or isinstance(self.clean.error, (APIStatusError, ProxyError))

    def cells(self) -> list[Cell]:
        return list(self._matrix.cells(self._scenario, self.measured))

    def expected(self, cell: Cell) -> list[Outcome]:
        return self._matrix.expected(cell, self.measured)

    def run(self, cells: list[Cell]) -> Iterator[tuple[Ended, list[Outcome]]]:
        """The calls, and how each had to end; those together that wait for a deadline."""
        expected = {cell: self.expected(cell) for cell in cells}
        late = [cell for cell in cells if any(each.waits for each in expected[cell])]
        prompt = [cell for cell in cells if not any(each.waits for each in expected[cell])]
        for seconds, lanes in STEPS:
            early = []
            for ended in self._run(list(late), seconds, min(lanes, len(late))) if late else ():
                if lanes > 1 and ended.outcome.deadline and not agrees(ended.outcome, expected[ended.cell]):
                    early.append(ended.cell)
                else:
                    yield ended, expected[ended.cell]
            self.again += len(early)
            late = early
        for ended in self._run(list(prompt), PATIENT, min(LANES, len(prompt))) if prompt else ():
            yield ended, expected[ended.cell]

    def _run(self, cells: list[Any], seconds: float, lanes: int) -> list[Ended]:
        ports = [Port(self._matrix, self._scenario) for _ in range(lanes)]
        timeout = Timeout(connect=seconds, first_content=seconds, idle=seconds)
        kind = TRANSPORTS[self._way.transport]
        make = kind.blocking if self._way.flavour == "sync" else kind.asynchronous
        transport = make(verify=self._matrix.contexts(self._scenario).client, max_keepalive_connections=0)
        left, found = deque(cells), list[Ended]()
        try:
            with watched(ports, self._way, 2 * seconds + 60):
                RUNNERS[self._way.flavour](ports, timeout, transport, left, found)
        finally:
            for port in ports:
                port.lane.close()
        if cells == [None]:
            conversation = ports[0].last
            assert conversation is not None
            self.measured = Measured(conversation.first, conversation.heard)
        assert len(found) == len(cells)
        return found


def agrees(outcome: Outcome, expected: list[Outcome]) -> bool:
    """Whether it is one of these."""
    same = [each._replace(waits=False) for each in expected]
    if outcome.error == "":
        # A success that says nothing at all, and one whose chunks have no choices.
        return outcome._replace(texts=outcome.texts or None) in [
            each._replace(texts=each.texts or None) for each in same
        ]
    return outcome in same


def _sync(ports: list[Port], timeout: Timeout, transport: Any, left: deque[Any], found: list[Ended]) -> None:
    def work(port: Port) -> None:
        with Client(**port.options(timeout, transport)) as client:
            while True:
                try:
                    cell = left.popleft()
                except IndexError:
                    port.since = math.inf
                    return
                heard, error = port.begin(cell), None
                try:
                    for chunk in client.chat.completions.create(port.messages, MODEL, stream=True):
                        heard.chunk(chunk)
                except Exception as caught:
                    error = caught
                found.append(heard.ended(error))

    with concurrent.futures.ThreadPoolExecutor(len(ports)) as pool:
        for each in [pool.submit(work, port) for port in ports]:
            each.result()
    assert transport.connections() == (0, 0)


async def _async(ports: list[Port], timeout: Timeout, transport: Any, left: deque[Any], found: list[Ended]) -> None:
    async def work(port: Port) -> None:
        async with AsyncClient(**port.options(timeout, transport)) as client:
            while left:
                heard, error = port.begin(left.popleft()), None
                try:
                    async for chunk in client.chat.completions.create(port.messages, MODEL, stream=True):
                        heard.chunk(chunk)
                except Exception as caught:
                    error = caught
                found.append(heard.ended(error))
            port.since = math.inf

    async with anyio.create_task_group() as group:
        for port in ports:
            group.start_soon(work, port)
    assert transport.connections() == (0, 0)


RUNNERS: dict[str, Callable[..., None]] = {
    "sync": _sync,
    "asyncio": lambda *given: asyncio.run(_async(*given)),
    "trio": lambda *given: trio.run(_async, *given),
}


class watched:  # noqa: N801 - a context manager
    """End the process, and say which cell hangs, if one takes so many seconds."""

    def __init__(self, ports: list[Port], way: Way, seconds: float) -> None:
        self._ports, self._way, self._seconds = ports, way, seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog")

    def __enter__(self) -> None:
        now = time.monotonic()
        for port in self._ports:
            port.since = now
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(1):
            for port in self._ports:
                if time.monotonic() - port.since > self._seconds and port.cell is not None:
                    print(f"HANGS: {port.cell}/{self._way}", file=sys.stderr, flush=True)
                    faulthandler.dump_traceback()
                    os._exit(3)
