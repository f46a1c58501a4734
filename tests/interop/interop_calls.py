"""The same calls in three flavours: `Client`, and `AsyncClient` on asyncio and on trio.

A test says as values what is to be asked (`Ask`) and gets as values what came of it (`Told`), so it is written once.
"""

from __future__ import annotations

import gc
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import anyio

from deltawire import (
    AsyncClient,
    ChatCompletion,
    ChatCompletionChunk,
    Client,
    DeltawireError,
    accumulate,
)

FLAVOURS = ("sync", "asyncio", "trio")

PROMPT = [{"role": "user", "content": "Say something."}]

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
        },
    },
}
FORCED = {"type": "function", "function": {"name": "get_weather"}}

# Long enough for a loaded machine, short enough that a hang is a failure.
TIMEOUT = 30.0
SETTLE = 5.0


def words(count: int, **options: Any) -> dict[str, Any]:
    """Options for so many random words, always the same."""
    return {"max_tokens": count, "seed": 1, **options}


@dataclass(kw_only=True)
class Ask:
    """One call of ``chat.completions.create``; with ``models``, of ``models.list``."""

    model: str = "local-model"
    messages: Any = field(default_factory=lambda: PROMPT)
    stream: bool = True
    take: int | None = None
    """Leave the stream after that many chunks."""
    scoped: bool = False
    """Read the stream in a ``with`` block; else it is just iterated, and dropped."""
    models: bool = False
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Told:
    """What came of an `Ask`."""

    chunks: list[ChatCompletionChunk] = field(default_factory=list)
    completion: ChatCompletion | None = None
    """For a stream: its chunks, accumulated."""
    models: list[str] = field(default_factory=list)
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Of a stream."""
    error: DeltawireError | None = None
    seconds: float = 0.0
    """How long all of it took."""

    def good(self) -> ChatCompletion:
        """The completion of a call that must not have failed."""
        if self.error is not None:
            raise self.error
        assert self.completion is not None
        return self.completion

    @property
    def text(self) -> str:
        return self.good().choices[0].message.content or ""

    @property
    def finish_reason(self) -> str | None:
        return self.good().choices[0].finish_reason

    def header(self, name: str) -> str | None:
        return next((value.decode("latin-1") for key, value in self.headers if key == name.encode()), None)


@dataclass(kw_only=True)
class Talk:
    """What came of several asks with one client."""

    told: list[Told]
    busy: int
    """Connections in use when all was over."""
    idle: int
    """Connections kept."""


def only(error: DeltawireError | None, kind: type[DeltawireError]) -> DeltawireError:
    """The error, if it is of that kind and keeps its secrets."""
    assert error is not None, "no error"
    if type(error) is not kind:
        raise error
    shown = f"{error} {error!r} {error.__dict__}"
    assert "s3cret" not in shown
    assert "sk-interop" not in shown
    return error


def ask(flavour: str, one: Ask, **client: Any) -> Told:
    """One call with a client of its own, which must leave no connection in use."""
    talk = converse(flavour, [one], **client)
    assert talk.busy == 0
    return talk.told[0]


def converse(flavour: str, asks: list[Ask], *, together: bool = False, **client: Any) -> Talk:
    """Some calls with one client, one after the other or ``together``."""
    client = {"trust_env": False, "max_retries": 0, "timeout": TIMEOUT, "api_key": "sk-interop", **client}
    try:
        if flavour == "sync":
            return _converse(asks, together, client)
        return anyio.run(_aconverse, asks, together, client, backend=flavour)
    finally:
        # What was dropped without being closed warns now, in the test that did it.
        gc.collect()


def _converse(asks: list[Ask], together: bool, options: dict[str, Any]) -> Talk:
    with Client(**options) as client:
        if together:
            with ThreadPoolExecutor(len(asks)) as pool:
                told = list(pool.map(lambda one: _ask(client, one), asks))
        else:
            told = [_ask(client, one) for one in asks]
        busy, idle = client.transport.connections()  # type: ignore[attr-defined]
    return Talk(told=told, busy=busy, idle=idle)


def _ask(client: Client, one: Ask) -> Told:
    told, started = Told(), time.monotonic()
    try:
        if one.models:
            told.models = [model.id for model in client.models.list(**one.options)]
        elif not one.stream:
            told.completion = client.chat.completions.create(one.messages, one.model, **one.options)
        else:
            stream = client.chat.completions.create(one.messages, one.model, stream=True, **one.options)
            told.headers = stream.headers
            if one.scoped:
                with stream:
                    _read(stream, one, told)
            else:
                _read(stream, one, told)
            told.completion = accumulate(told.chunks)
    except DeltawireError as error:
        told.error = error.with_traceback(None)
    told.seconds = time.monotonic() - started
    return told


def _read(stream: Any, one: Ask, told: Told) -> None:
    for chunk in stream:
        told.chunks.append(chunk)
        if len(told.chunks) == one.take:
            break


async def _aconverse(asks: list[Ask], together: bool, options: dict[str, Any]) -> Talk:
    async with AsyncClient(**options) as client:
        told: dict[int, Told] = {}

        async def run(number: int) -> None:
            told[number] = await _aask(client, asks[number])

        if together:
            async with anyio.create_task_group() as tasks:
                for number in range(len(asks)):
                    tasks.start_soon(run, number)
        else:
            for number in range(len(asks)):
                await run(number)
        # A stream that was dropped is closed by a task of the loop, soon.
        until = time.monotonic() + SETTLE
        transport: Any = client.transport
        while (now := transport.connections())[0] and time.monotonic() < until:  # noqa: ASYNC110 - nobody tells
            await anyio.sleep(0.01)
    return Talk(told=[told[number] for number in range(len(asks))], busy=now[0], idle=now[1])


async def _aask(client: AsyncClient, one: Ask) -> Told:
    told, started = Told(), time.monotonic()
    try:
        if one.models:
            told.models = [model.id for model in await client.models.list(**one.options)]
        elif not one.stream:
            told.completion = await client.chat.completions.create(one.messages, one.model, **one.options)
        else:
            stream = await client.chat.completions.create(one.messages, one.model, stream=True, **one.options)
            told.headers = stream.headers
            if one.scoped:
                async with stream:
                    await _aread(stream, one, told)
            else:
                await _aread(stream, one, told)
            told.completion = accumulate(told.chunks)
    except DeltawireError as error:
        told.error = error.with_traceback(None)
    told.seconds = time.monotonic() - started
    return told


async def _aread(stream: Any, one: Ask, told: Told) -> None:
    async for chunk in stream:
        told.chunks.append(chunk)
        if len(told.chunks) == one.take:
            break
