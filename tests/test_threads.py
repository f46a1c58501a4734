"""What is promised of a client that threads share: as many as like ask at once, on one pool, and each gets its own
reply; there are never more connections than there may be; who first asks, makes what all then use; closing it ends
what is under way, in our words.

Python is told to change threads as often as it can, which shows what is done in two steps that had to be one.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import pytest
from driving import HI, MODEL, SOON, STALLED, Route, Transports

from deltawire import AsyncClient, Client, DeltawireError, OpenaiTemplate, RetryPolicy, owners
from deltawire.protocol import RetryBudget
from deltawire.testing import Answer, ChatServer

pytestmark = pytest.mark.usefixtures("_tidy", "_hurried", "transports")

THREADS = 8
REQUESTS = 12


@pytest.fixture
def _hurried() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(work: Callable[[int], Any], count: int = THREADS) -> list[Any]:
    """What this gives in so many threads, which begin at the same time; raises what one of them raises."""
    barrier = threading.Barrier(count)

    def begin(number: int) -> Any:
        barrier.wait(10)
        return work(number)

    with futures.ThreadPoolExecutor(count, "together") as pool:
        return [each.result(30) for each in [pool.submit(begin, number) for number in range(count)]]


class Echo(ChatServer):
    """Answers with the path that was asked for, so that each request has a reply of its own."""

    def _take(self, head: Any, body: bytes, connection: int) -> Any:
        word = next(value for name, value in head.headers if name == b"x-word").decode()
        with self._changed:
            self.plan(Answer(tokens=[f"{word}:{each} " for each in range(10)]))
            return super()._take(head, body, connection)


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as running:
        yield running


def text(chunks: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def start(client: Client, word: str, **more: Any) -> Any:
    return client.chat.completions.create(HI, MODEL, stream=True, extra_headers={"x-word": word}, **more)


def expected(word: str) -> str:
    return "".join(f"{word}:{each} " for each in range(10))


@contextlib.contextmanager
def pooled(transports: Transports, url: str, **options: Any) -> Iterator[tuple[Client, Any]]:
    """A client, and its transport with these bounds."""
    transport = transports.blocking(**options)
    try:
        with Client(base_url=url, transport=transport, max_retries=0) as client:
            yield client, transport
    finally:
        transport.close()


def test_each_gets_its_own_reply(echo: Echo, transports: Transports) -> None:
    """And there are never more connections than there may be, nor any that are kept beyond what may be."""
    most: list[int] = []

    def work(number: int) -> None:
        for request in range(REQUESTS):
            word = f"{number}.{request}"
            if request % 4 == 1:
                # Left in the midst: the next one on that connection is to hear nothing of it.
                assert (next(start(client, word)).choices[0].delta.content or "") in expected(word)
            elif request % 4 == 2:
                reply = client.chat.completions.create(HI, MODEL, extra_headers={"x-word": word})
                assert reply.choices[0].message.content == expected(word)
            else:
                assert text(start(client, word)) == expected(word)
            most.append(sum(transport.connections()))

    with pooled(transports, echo.url, max_connections=3, max_keepalive_connections=2) as (client, transport):
        together(work)
        busy, idle = transport.connections()
        assert busy == 0
        assert 1 <= idle <= 2
    assert max(most) <= 3
    echo.wait_closed()
    assert len(echo.requests) == THREADS * REQUESTS


def test_connections_are_used_again(server: ChatServer, transports: Transports) -> None:
    """By what the server sees. (httpcore may end one that has just become idle, and open another in its place.)"""
    with pooled(transports, server.url, max_connections=2) as (client, _):
        together(lambda number: [client.chat.completions.create(HI, MODEL) for _ in range(REQUESTS)])
    if transports.name == "wire":
        assert server.connections == 2
    assert 2 <= server.connections <= THREADS * REQUESTS // 3


def test_the_first_call_of_all_makes_one_transport(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    make = owners._make

    def counted(name: str, options: dict[str, Any]) -> Any:
        made.append(name)
        return make(name, options)

    monkeypatch.setattr(owners, "_make", counted)
    client = Client(base_url=server.url)
    # What a constructor makes is one; what a provider's ssl= makes is made by the calls.
    provider = type("Unchecked", (OpenaiTemplate,), {"ssl": False, "api_base": server.url})
    together(lambda number: client.chat.completions.create(HI, MODEL, provider=provider))
    assert len(made) == 2
    client.close()


def test_the_models_of_a_provider() -> None:
    """Asked for by all at once: each has the same names, whoever learns them first."""
    with ChatServer(models=["a", "b"]) as server, Client() as client:
        provider = OpenaiTemplate(api_base=server.url)
        assert together(lambda number: client.models.get_all(provider=provider)) == [["a", "b"]] * THREADS
        assert 1 <= len(server.requests) <= THREADS


def test_a_budget_of_retries() -> None:
    """Counted approximately: what threads take at once may be taken off once; it is never less than nothing, nor more
    than there may be, and it runs out."""
    budget = RetryBudget(capacity=50, per_call=0, per_second=0)
    granted = together(lambda number: sum(budget.spend(0.0) for _ in range(200)))
    assert 50 <= sum(granted) <= 50 * THREADS
    assert 0 <= budget.left < 1
    assert not budget.spend(0.0)


def test_copies_and_settings(echo: Echo) -> None:
    """Threads that change what they ask with, each for itself, on the connections of all."""

    def work(number: int) -> None:
        for request in range(4):
            word = f"{number}.{request}"
            mine = client.with_options(default_headers={"x-word": word}, max_retries=RetryPolicy(max_retries=0))
            assert text(mine.chat.completions.create(HI, MODEL, stream=True)) == expected(word)

    with Client(base_url=echo.url) as client:
        together(work)
        assert echo.connections <= THREADS


def test_retries(server: ChatServer) -> None:
    """Half of the requests fail: each thread's call gets its own attempts."""
    server.plan(*[Answer.error(503, retry_after=0) for _ in range(THREADS)])
    with Client(base_url=server.url, max_retries=RetryPolicy(max_retries=THREADS, initial=0.01)) as client:
        assert together(lambda number: text(start(client, "x"))) == ["Hello"] * THREADS
    assert len(server.requests) == 2 * THREADS


def test_closing_while_others_read(route: Route) -> None:
    """Each of them has what had come, and then an error of ours; later calls say that it is closed."""
    route.server.plan(*[STALLED] * THREADS)
    client = Client(**route.options(max_retries=SOON))
    begun = threading.Semaphore(0)

    def work(number: int) -> tuple[str, Exception | None]:
        if number == 0:
            for _ in range(THREADS - 1):
                assert begun.acquire(timeout=10)
            client.close()
            return "", None
        heard = ""
        try:
            for chunk in start(client, "x"):
                if heard == "" and chunk.choices[0].delta.content:
                    begun.release()
                heard += chunk.choices[0].delta.content or ""
        except DeltawireError as error:
            return heard, error
        return heard, None

    found = together(work)[1:]
    for heard, error in found:
        assert "Hello".startswith(heard)
        assert heard
        assert isinstance(error, DeltawireError)
    with pytest.raises(DeltawireError, match="closed"):
        start(client, "x")
    route.server.wait_closed()


def test_closing_while_others_ask(server: ChatServer) -> None:
    """At any moment: each call is whole, or an error of ours."""
    for _ in range(5):
        client = Client(base_url=server.url, max_retries=0)
        asked = threading.Semaphore(0)

        def work(number: int, client: Client = client, asked: threading.Semaphore = asked) -> None:
            if number == 0:
                assert asked.acquire(timeout=10)
                client.close()
                return
            try:
                while True:
                    assert text(start(client, "x")) == "Hello"
                    asked.release()
            except DeltawireError as error:
                assert "closed" in str(error)  # noqa: PT017 - it is to come, and `while True` sees to it

        together(work)
        server.wait_closed()
        assert client.transport.connections() == (0, 0)  # type: ignore[attr-defined]


def test_one_stream_that_threads_hand_on(echo: Echo) -> None:
    """It belongs to one at a time, not to the one that began it."""
    with Client(base_url=echo.url) as client:
        stream, heard, lock = start(client, "x"), [], threading.Lock()

        def work(number: int) -> None:
            while True:
                with lock:
                    chunk = next(stream, None)
                    if chunk is None:
                        return
                    heard.append(chunk)

        together(work)
        assert text(heard) == expected("x")


def test_an_async_client_in_many_loops_at_once(echo: Echo) -> None:
    """Each thread has a loop of its own, and each loop its own connections."""

    async def ask(client: AsyncClient, number: int) -> None:
        for request in range(4):
            word = f"{number}.{request}"
            call = client.chat.completions.create(HI, MODEL, stream=True, extra_headers={"x-word": word})
            assert "".join([each.choices[0].delta.content or "" async for each in call]) == expected(word)
        assert client.transport.connections() == (0, 1)  # type: ignore[attr-defined]

    client = AsyncClient(base_url=echo.url)
    together(lambda number: asyncio.run(ask(client, number)))
    echo.wait_closed()
    assert echo.connections == THREADS
