"""After content has reached the caller nothing is retried, ever.

Whatever happens on the way, in whatever order: the text that a caller sees is the beginning of one attempt's text, is
all of it when nothing is raised, and no request is made after its first piece.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import pytest
import trio
from driving import HI
from faulty import Attempted, Seen, attempteds, to_be_seen
from feeding import QUICK, text
from hypothesis import given, settings
from hypothesis import strategies as st

from deltawire import (
    AsyncClient,
    Client,
    EmptyReplyError,
    Opchatgpts,
    OpenaiTemplate,
    RetryPolicy,
    RetryProvider,
    RetryProviderError,
    RotatedProvider,
)
from deltawire.owners import async_owner, sync_owner
from deltawire.protocol import (
    GiveUp,
    Outcome,
    Reply,
    Send,
    Sleep,
    StreamEnded,
    StreamFailed,
    attempts,
    fail_over,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deltawire.protocol import Event

# No call has more turns.
MOST = 6
sequences = st.lists(attempteds(), min_size=MOST, max_size=MOST)


class Turns(NamedTuple):
    """Who is asked, in turn."""

    turns: list[int]
    several: bool
    """Or one, by the client's own retries."""


orders = st.builds(Turns, st.lists(st.integers(0, 2), min_size=1, max_size=MOST), st.just(True)) | st.integers(
    1, MOST
).map(lambda times: Turns([0] * times, False))
dialects = st.lists(st.sampled_from(["openai", "opchatgpts"]), min_size=3, max_size=3)


# --- The machines alone ------------------------------------------------------------------------------


class Told(NamedTuple):
    """What a caller was told by the machines."""

    asked: list[int]
    waits: int
    text: str
    error: Exception | None


def read(number: int, attempt: Attempted, dialect: str, *, stream: bool) -> tuple[str, Exception | None]:
    """What one attempt gives, as far as it has to be read: the text that a caller sees, and what it failed with."""
    reply = Reply(dialect)
    events: list[Event] = []
    for some in attempt.play(number, reply, dialect):
        events += some
    assert isinstance(events[-1], (StreamEnded, StreamFailed))
    shown = text(events)
    if isinstance(events[-1], StreamFailed):
        return shown if stream else "", events[-1].error
    return shown, None if shown else EmptyReplyError("no content, no finish reason")


def drive(order: Turns, sequence: list[Attempted], spoken: list[str], *, stream: bool) -> Told:
    """Run a plan as the theory in `deltawire.protocol.retry` has it."""
    plan = fail_over(order.turns) if order.several else attempts(0, policy_for(order))
    asked: list[int] = []
    waits = 0
    effect: Any = next(plan)
    while not isinstance(effect, GiveUp):
        if isinstance(effect, Sleep):
            waits += 1
            effect = plan.send(None)
            continue
        assert isinstance(effect, Send)
        shown, error = read(len(asked), sequence[len(asked)], spoken[effect.provider], stream=stream)
        asked.append(effect.provider)
        if shown or error is None:
            return Told(asked, waits, shown, error)
        effect = plan.send(Outcome(error))
    return Told(asked, waits, "", effect.error)


def check(told: Told, seen: Seen, order: Turns) -> None:
    """The caller was told what was to be seen."""
    assert (told.asked, told.waits, told.text) == (seen.asked, seen.waits, seen.text)
    wanted = seen.raised(several=order.several)
    assert told.error is None if wanted is None else isinstance(told.error, wanted), repr(told.error)
    if isinstance(told.error, RetryProviderError):
        assert len(told.error.errors) == len(seen.errors)
        assert all(isinstance(*pair) for pair in zip(told.error.errors, seen.errors, strict=True))


@settings(QUICK, max_examples=2000)
@given(orders, sequences, dialects, st.booleans())
def test_the_machines(order: Turns, sequence: list[Attempted], spoken: list[str], stream: bool) -> None:
    told = drive(order, sequence, spoken, stream=stream)
    check(told, to_be_seen(order.turns, sequence, stream=stream), order)


# --- Clients, on a transport without a wire ----------------------------------------------------------


class Exchange:
    """One attempt, played; for clients of both kinds."""

    def __init__(self, reads: Iterator[list[Event]], reply: Reply, *, stream: bool) -> None:
        self._reads = reads
        self._reply = reply
        self._stream = stream
        self.shown = False
        """Whether the caller has seen some of it."""
        self.closed = False

    def next_events(self) -> list[Event]:
        assert not self.closed
        events = next((events for events in self._reads if events), [])
        over = any(isinstance(event, StreamEnded) for event in events)
        self.shown = self._reply.contents > 0 and (self._stream or over)
        return events

    def close(self) -> None:
        self.closed = True

    def abandon(self) -> None:
        raise AssertionError("everything is closed by its owner")


class AsyncExchange(Exchange):
    async def next_events(self) -> list[Event]:  # type: ignore[override]
        return super().next_events()

    async def aclose(self) -> None:
        self.close()


class Scripted:
    """A transport without a wire, whose attempts go as they are told to, one after the other."""

    def __init__(self, sequence: list[Attempted], exchange: type[Exchange], *, stream: bool) -> None:
        self.sequence = sequence
        self.stream = stream
        self.exchange = exchange
        self.exchanges: list[Exchange] = []
        self.asked: list[int] = []

    def open(self, request: Any, reply: Reply, deadlines: Any, *, proxy: Any = None) -> Any:
        # The whole of the property, where nothing can hide from it.
        assert not any(each.shown for each in self.exchanges), "no request after the first content"
        assert all(each.closed for each in self.exchanges)
        number = len(self.exchanges)
        self.asked.append(int(request.url.removeprefix("https://s")[0]))
        reads = self.sequence[number].play(number, reply, reply.dialect)
        self.exchanges.append(self.exchange(reads, reply, stream=self.stream))
        return self.exchanges[-1]

    def close(self) -> None: ...

    async def aclose(self) -> None: ...


def provider_of(number: int, dialect: str) -> Any:
    if dialect == "openai":
        return OpenaiTemplate(api_base=f"https://s{number}/v1", api_key="")
    return Opchatgpts(url=f"https://s{number}", nonce_from=None)


def provider_for(order: Turns, spoken: list[str], rotated: int | None) -> Any:
    """One that asks in these turns; ``rotated``: a `RotatedProvider`, which begins there."""
    providers = [provider_of(number, dialect) for number, dialect in enumerate(spoken)]
    if not order.several:
        return providers[0]
    turns = [providers[turn] for turn in order.turns]
    if rotated is not None:
        first = rotated % len(turns)
        circle = RotatedProvider(turns[len(turns) - first :] + turns[: len(turns) - first])
        circle._next = first
        return circle
    if len(set(order.turns)) == 1:
        return RetryProvider(turns[:1], single_provider_retry=True, max_retries=len(turns))
    return RetryProvider(turns, shuffle=False)


def policy_for(order: Turns) -> RetryPolicy:
    """The caller's, whose number is for one provider only."""
    return RetryPolicy(max_retries=0 if order.several else len(order.turns) - 1)


class Heard:
    """What a caller has heard."""

    def __init__(self) -> None:
        self.text = ""
        self.error: Exception | None = None

    def chunk(self, chunk: Any) -> None:
        self.text += (chunk.choices and chunk.choices[0].delta.content) or ""


def ask(transport: Scripted, heard: Heard, provider: Any, policy: RetryPolicy) -> None:
    with Client(provider, max_retries=policy, transport=transport) as client:
        if transport.stream:
            for chunk in client.chat.completions.create(HI, "m", stream=True):
                heard.chunk(chunk)
        else:
            heard.text = client.chat.completions.create(HI, "m").choices[0].message.content or ""


async def aask(transport: Scripted, heard: Heard, provider: Any, policy: RetryPolicy) -> None:
    async with AsyncClient(provider, max_retries=policy, transport=transport) as client:
        if transport.stream:
            async for chunk in client.chat.completions.create(HI, "m", stream=True):
                heard.chunk(chunk)
        else:
            heard.text = (await client.chat.completions.create(HI, "m")).choices[0].message.content or ""


def generate(transport: Scripted, heard: Heard, provider: Any, policy: RetryPolicy) -> None:
    with mock.patch("deltawire.behalf.sync_owner", return_value=sync_owner(transport)):
        for piece in provider.create_generator("m", HI, stream=transport.stream, max_retries=policy):
            heard.text += str(piece)


async def agenerate(transport: Scripted, heard: Heard, provider: Any, policy: RetryPolicy) -> None:
    with mock.patch("deltawire.behalf.async_owner", return_value=async_owner(transport)):
        async for piece in provider.create_async_generator("m", HI, stream=transport.stream, max_retries=policy):
            heard.text += str(piece)


WAYS: dict[str, tuple[type[Exchange], Any]] = {
    "sync": (Exchange, ask),
    "asyncio": (AsyncExchange, lambda *given: asyncio.run(aask(*given))),
    "trio": (AsyncExchange, lambda *given: trio.run(aask, *given)),
    "generator": (Exchange, generate),
    "generator on asyncio": (AsyncExchange, lambda *given: asyncio.run(agenerate(*given))),
    "generator on trio": (AsyncExchange, lambda *given: trio.run(agenerate, *given)),
}


@contextlib.contextmanager
def without_waiting() -> Iterator[list[float]]:
    """What drivers wait for, which takes no time meanwhile."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    with mock.patch("deltawire.drivers.time.sleep", waits.append), mock.patch("anyio.sleep", sleep):
        yield waits


@pytest.mark.parametrize("way", WAYS)
@settings(QUICK, max_examples=400)
@given(orders, sequences, dialects, st.booleans(), st.none() | st.integers(0, 5))
def test_callers(
    way: str, order: Turns, sequence: list[Attempted], spoken: list[str], stream: bool, rotated: int | None
) -> None:
    exchange, asking = WAYS[way]
    transport = Scripted(sequence, exchange, stream=stream)
    heard = Heard()
    with without_waiting() as waits:
        try:
            asking(transport, heard, provider_for(order, spoken, rotated), policy_for(order))
        except Exception as error:
            heard.error = error
    seen = to_be_seen(order.turns, sequence, stream=stream)
    check(Told(transport.asked, len(waits), heard.text, heard.error), seen, order)
    assert all(each.closed for each in transport.exchanges)
