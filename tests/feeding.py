"""Feeding machines: one input, cut in every telling way; and what a reply said, in a form that compares."""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from deltawire.protocol import (
    ChatCompletionChunk,
    Context,
    ImagesResponse,
    Limits,
    ModelList,
    Reply,
    SessionStarted,
    StreamEnded,
    StreamFailed,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from deltawire.protocol import DeltawireError, Event

DATA = Path(__file__).resolve().parent / "data"

Headers = list[tuple[bytes, bytes]]

SSE: Headers = [(b"Content-Type", b"text/event-stream; charset=utf-8")]
JSON: Headers = [(b"Content-Type", b"application/json")]

# Reproducible, and no slower than need be.
QUICK = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


# --- Cutting ---------------------------------------------------------------------------------------


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The data, cut at these offsets."""
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


def each_byte(data: bytes) -> list[bytes]:
    return [data[position : position + 1] for position in range(len(data))]


def with_empties(parts: Sequence[bytes]) -> list[bytes]:
    """An empty read before, between and after all parts."""
    return [b"", *itertools.chain.from_iterable((part, b"") for part in parts)]


def ways(data: bytes, cuts: Iterable[int] = ()) -> Iterator[tuple[str, list[bytes]]]:
    """The ways to feed some data: (name, parts)."""
    cuts = list(cuts)
    yield "whole", [data]
    yield "byte by byte", each_byte(data)
    yield "byte by byte with empties", with_empties(each_byte(data))
    if cuts:
        yield "at all cuts", pieces(data, cuts)
    for cut in cuts:
        yield f"at {cut}", pieces(data, [cut])


def at_every_cut(data: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """All of `ways`, and in two parts at each offset."""
    return ways(data, range(1, len(data)))


def splits(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """Any way to cut this data."""
    if len(data) < 2:
        return st.just([data])
    return st.lists(st.integers(1, len(data) - 1), max_size=12).map(lambda cuts: pieces(data, cuts))


# --- Replies ---------------------------------------------------------------------------------------


def read(
    parts: bytes | Sequence[bytes],
    *,
    status: int = 200,
    headers: Headers | None = None,
    limits: Limits | None = None,
    context: Context | None = None,
    dialect: str = "openai",
    stop: str | list[str] | None = None,
    fail: Exception | None = None,
) -> list[Event]:
    """All events of one reply, whose verdict must be one, and the last."""
    reply = Reply(dialect, limits=limits, context=context, stop=stop)
    events = reply.start(status, SSE if headers is None else headers)
    for part in [parts] if isinstance(parts, bytes) else parts:
        events += reply.receive(part)
    events += reply.end() if fail is None else reply.fail(fail)
    verdicts = [position for position, event in enumerate(events) if isinstance(event, (StreamEnded, StreamFailed))]
    assert verdicts == [len(events) - 1], "one verdict, and it comes last"
    assert reply.done
    assert reply.receive(b"data: more\n\n") == reply.end() == reply.fail(ValueError("late")) == []
    return events


def chunks(events: Iterable[Event]) -> list[ChatCompletionChunk]:
    return [event for event in events if isinstance(event, ChatCompletionChunk)]


def ended(events: Sequence[Event]) -> StreamEnded:
    assert isinstance(events[-1], StreamEnded), events[-1]
    return events[-1]


def failure(events: Sequence[Event]) -> DeltawireError:
    assert isinstance(events[-1], StreamFailed), events[-1]
    return events[-1].error


def text(events: Iterable[Event], index: int = 0) -> str:
    """What a caller sees of one choice."""
    said = [choice.delta.content for chunk in chunks(events) for choice in chunk.choices if choice.index == index]
    return "".join(part for part in said if part)


def said(event: Event) -> tuple[object, ...]:
    """An event in a form that compares, vendor fields and words of errors included. (As texts: NaN is
    not equal to itself.)"""
    if isinstance(event, (ChatCompletionChunk, ModelList, ImagesResponse)):
        return type(event).__name__, repr(event.to_dict())
    if isinstance(event, SessionStarted):
        return "session", event.session_id, event.nonce
    if isinstance(event, StreamEnded):
        return "ended", event.finished, repr(event.completion and event.completion.to_dict())
    error = event.error
    partial = getattr(error, "partial", None)
    details = {name: value for name, value in vars(error).items() if name not in ("partial", "headers")}
    return "failed", type(error).__name__, str(error), repr(details), repr(partial and partial.to_dict())


def judged(events: Sequence[Event]) -> list[tuple[object, ...]]:
    """Events in a form that compares, without the words of errors."""
    found = []
    for event in events:
        if not isinstance(event, StreamFailed):
            found.append(said(event))
            continue
        partial = getattr(event.error, "partial", None)
        status = getattr(event.error, "status_code", None)
        found.append(("failed", type(event.error).__name__, status, repr(partial and partial.to_dict())))
    return found


def same(parts: Sequence[bytes], events: Sequence[Event], **how: Any) -> None:
    """Fed so, the reply gives these events."""
    assert [said(event) for event in read(parts, **how)] == [said(event) for event in events]


# --- Writing streams -------------------------------------------------------------------------------


def sse(*values: object) -> bytes:
    """A stream of these values, each as one data line."""
    lines = (value if isinstance(value, bytes) else json.dumps(value).encode() for value in values)
    return b"".join(b"data: " + line + b"\n\n" for line in lines)


DONE = b"[DONE]"


def delta(
    content: str | None = None, *, index: int = 0, finish: str | None = None, **fields: object
) -> dict[str, object]:
    """A chunk with one choice."""
    inner = fields if content is None else {"content": content, **fields}
    choice: dict[str, object] = {"index": index, "delta": inner}
    if finish is not None:
        choice["finish_reason"] = finish
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]}


FINISH = delta(finish="stop")


# --- Vectors ---------------------------------------------------------------------------------------


def vectors(name: str) -> list[Any]:
    """One pytest parameter a vector; its input decoded into "input"."""
    found = [json.loads(line) for line in (DATA / "vectors" / name).read_text(encoding="utf-8").splitlines()]
    return [
        pytest.param(vector | {"input": base64.b64decode(vector["input_b64"])}, id=vector["id"]) for vector in found
    ]
