"""What hostile bytes cost: in proportion to their number, whatever is in them."""

from __future__ import annotations

import gzip
import tracemalloc
import types
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from feeding import DONE, FINISH, JSON, SSE, chunks, delta, each_byte, ended, failure, read, sse, text
from hostile import assert_linear

from deltawire import (
    LimitExceededError,
    RateLimitError,
    TruncatedStreamError,
)
from deltawire.protocol import Limits, Reply, SSEDecoder, accumulate, bodies, objects
from deltawire.protocol.dialects import openai

HALF = b"\\ud83d"


def many(items: bytes, number: int) -> bytes:
    return b",".join([items] * number)


def numbered(item: bytes, number: int) -> bytes:
    return b",".join(item % position for position in range(number))


# --- Steps in proportion ----------------------------------------------------------------------------

STREAMS: dict[str, Callable[[int], bytes]] = {
    "blank lines": lambda n: b"data: {}\n\n" + b"\n" * n,
    "comments": lambda n: b": ping\n\n" * n,
    "comments with CR": lambda n: b":\r\r" * n,
    "comments in one block": lambda n: b":\n" * n,
    "data without a value": lambda n: b"data:\n\n" * n,
    "events without fields": lambda n: b"data: {}\n\n" * n,
    "events without choices": lambda n: b'data: {"choices":[]}\n\n' * n,
    "choices without anything": lambda n: b'data: {"choices":[{}]}\n\n' * n,
    "data lines of one event": lambda n: b"data: [\n" + b"data:\n" * n,
    "retry fields": lambda n: b"retry: 1\n" * n,
    "id fields": lambda n: b"id: 1\n\n" * n,
    "events of other names": lambda n: b"event: ping\ndata: {}\n\n" * n,
    "choices of one event": lambda n: b'data: {"choices":[' + many(b"{}", n) + b"]}\n\n",
    "choices of one event, numbered": lambda n: b'data: {"choices":[' + numbered(b'{"index":%d}', n) + b"]}\n\n",
    "choices of one event that is a whole reply": (
        lambda n: b'data: {"object":"chat.completion","choices":[' + many(b"{}", n) + b"]}\n\n"
    ),
    "a choice an event": lambda n: b"".join(b'data: {"choices":[{"index":%d}]}\n\n' % each for each in range(n)),
    "calls of one event": lambda n: b'data: {"choices":[{"delta":{"tool_calls":[' + many(b"{}", n) + b"]}}]}\n\n",
    "a call an event": lambda n: b"".join(
        b'data: {"choices":[{"delta":{"tool_calls":[{"index":%d}]}}]}\n\n' % each for each in range(n)
    ),
    "a call an event, all of one index": lambda n: b"".join(
        b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"%d"}]}}]}\n\n' % each for each in range(n)
    ),
    "text after choices without number": lambda n: (
        b'data: {"id":"x","choices":[' + numbered(b'{"index":%d}', n) + b"]}\n\n"
        + b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n' * n
    ),
    "halves of characters, a choice each": lambda n: b"".join(
        b'data: {"choices":[{"index":%d,"delta":{"content":"%b"}}]}\n\n' % (each, HALF) for each in range(n)
    ),
    "halves of characters, a choice each, that finishes": lambda n: b"".join(
        b'data: {"choices":[{"index":%d,"delta":{"content":"%b"}}]}\n\n' % (each, HALF) for each in range(n)
    ) + b"".join(b'data: {"choices":[{"index":%d,"finish_reason":"stop"}]}\n\n' % each for each in range(n)),
    "halves of characters, a call each": lambda n: (
        b'data: {"choices":[{"delta":{"tool_calls":['
        + b",".join(b'{"index":%d,"function":{"arguments":"%b"}}' % (each, HALF) for each in range(n))
        + b"]}}]}\n\n"
    ),
    "parts of a content": lambda n: b'data: {"choices":[{"delta":{"content":[' + many(b'"a"', n) + b"]}}]}\n\n",
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_costs_in_proportion_to_its_length(name: str) -> None:
    def call(number: int) -> Callable[[], object]:
        stream = STREAMS[name](number)
        # (Reads of a size that ends within events.)
        parts = [stream[start : start + 1000] for start in range(0, len(stream), 1000)]
        return lambda: read(parts)

    assert_linear(call, 100)


@pytest.mark.parametrize("name", [name for name in STREAMS if "one event" not in name])
def test_a_stream_byte_by_byte_costs_in_proportion_to_its_length(name: str) -> None:
    def call(number: int) -> Callable[[], object]:
        parts = each_byte(STREAMS[name](number))
        return lambda: read(parts)

    assert_linear(call, 30)


SITES: dict[str, tuple[Callable[[int], bytes], str | None]] = {
    "texts": (lambda n: b'data: {"type":"live","data":"a"}\n\n' * n, None),
    "texts that begin a stop word": (lambda n: b'data: {"type":"live","data":"aa"}\n\n' * n, "a" * 50 + "b"),
    "halves of characters": (lambda n: b'data: {"type":"live","data":"%b"}\n\n' % HALF * n, None),
    "states": (lambda n: b'data: {"type":"live","subtype":"status","data":"x"}\n\n' * n, None),
    "events of other types": (lambda n: b'data: {"type":"x","data":{}}\n\n' * n, None),
}


@pytest.mark.parametrize("name", SITES)
def test_a_stream_of_a_site_costs_in_proportion_to_its_length(name: str) -> None:
    make, stop = SITES[name]

    def call(number: int) -> Callable[[], object]:
        stream = make(number)
        parts = [stream[start : start + 1000] for start in range(0, len(stream), 1000)]
        return lambda: read(parts, dialect="opchatgpts", stop=stop)

    assert_linear(call, 100)


DOCUMENTS: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "choices": ("openai", lambda n: b'{"choices":[' + many(b"{}", n) + b"]}"),
    "calls": ("openai", lambda n: b'{"choices":[{"message":{"tool_calls":[' + many(b"{}", n) + b"]}}]}"),
    "models": ("models", lambda n: b'{"data":[' + many(b"{}", n) + b"]}"),
    "images": ("images", lambda n: b'{"data":[' + many(b'{"url":"http://x/"}', n) + b"]}"),
    "images as strings": ("images", lambda n: b"[" + many(b'"http://x/"', n) + b"]"),
    "no images": ("images", lambda n: b'{"data":[' + many(b"{}", n) + b"]}"),
    "errors in place of images": ("images", lambda n: b'{"data":[' + many(b'{"error":"x"}', n) + b"]}"),
    "attributes of a page": ("page", lambda n: b" data-system='{}'" * n),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_costs_in_proportion_to_its_length(name: str) -> None:
    dialect, make = DOCUMENTS[name]

    def call(number: int) -> Callable[[], object]:
        body = make(number)
        return lambda: read(body, headers=JSON, dialect=dialect)

    assert_linear(call, 100)


def counted(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[int]:
    """How long each document was that the module decoded, as a list that grows."""
    lengths: list[int] = []
    loads = module.loads

    def counting(payload: bytes) -> Any:
        lengths.append(len(payload))
        return loads(payload)

    monkeypatch.setattr(module, "loads", counting)
    return lengths


def test_a_whole_reply_as_an_event_is_not_decoded_for_each_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event of 300 KB took half an hour."""
    decoded = counted(monkeypatch, openai), counted(monkeypatch, objects)
    events = read(sse(b'{"object":"chat.completion","choices":[' + many(b"{}", 500) + b"]}"))
    assert isinstance(failure(events), TruncatedStreamError)
    assert sum(map(len, decoded)) < 5


@pytest.mark.parametrize("where", [b'{"choices":[%b]}', b'{"choices":[{"delta":{"tool_calls":[%b]}}]}'])
def test_vendor_fields_are_not_decoded_for_each_object(where: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor by those who go through all objects of a payload: `accumulate`, and what dumps."""
    items = b'{"vendor":[1]},' + many(b"{}", 500)
    found = chunks(read(sse(where % items)))
    decoded = counted(monkeypatch, objects)
    accumulate(found)
    assert len(decoded) == 1
    found = chunks(read(sse(where % items)))
    dumped = found[0].to_dict()
    assert len(decoded) == 2
    inside = dumped["choices"] if b"tool" not in where else dumped["choices"][0]["delta"]["tool_calls"]
    assert len(inside) == 501
    assert inside[0]["vendor"] == [1]


def test_members_of_gzip_without_number_are_not_copied_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step leaves over is copied: so no step gets much."""
    copied = 0

    class Counting:
        def __init__(self, bits: int) -> None:
            self._inner = zlib.decompressobj(bits)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def copy(self) -> Any:
            return self

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal copied
            copied += len(data)
            return self._inner.decompress(data, most)

    monkeypatch.setattr(bodies, "zlib", types.SimpleNamespace(decompressobj=Counting, error=zlib.error))
    body = gzip.compress(b"\n") * 20_000
    events = read(body, headers=[*SSE, (b"content-encoding", b"gzip")])
    assert isinstance(failure(events), TruncatedStreamError)
    assert len(body) <= copied < 1000 * len(body)


# --- What is held -----------------------------------------------------------------------------------

MIB = 1024 * 1024


def peak_of(work: Callable[[], object]) -> int:
    """How many bytes were allocated at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


EMPTY = [
    b"\n\n", b"\r\r", b": ping\n\n", b":\n\n", b"data:\n\n", b"id: 1\n\n", b"event: x\n\n", b"retry: 1\n\n",
    b"data: {}\n\n", b'data: {"choices":[]}\n\n', b'data: {"choices":[{"delta":{}}]}\n\n',
]  # fmt: skip


@pytest.mark.parametrize("unit", EMPTY)
def test_a_million_events_without_content_are_not_kept(unit: bytes) -> None:
    reply = Reply()
    reply.start(200, SSE)
    reply.receive(sse(delta("a")))
    part = unit * 10_000
    reply.receive(part)

    def work() -> None:
        for _ in range(3):
            reply.receive(part)

    # (Each read is done with when the next one comes; a chunk takes some 300 bytes.)
    one = peak_of(lambda: reply.receive(part))
    assert peak_of(work) < 1.5 * one + MIB
    for _ in range(95):
        reply.receive(part)
    assert not reply.done
    assert reply.contents == 1
    assert peak_of(lambda: reply.receive(part)) < 1.5 * one + MIB
    partial = reply.partial()
    assert partial is not None
    assert partial.choices[0].message.content == "a"


@pytest.mark.parametrize("field", [b"retry: ", b"id: ", b"event: ", b": ", b"x" * 10, b"data: "])
def test_a_field_without_end_is_held_up_to_the_limit(field: bytes) -> None:
    reply = Reply(limits=Limits(line=MIB))
    reply.start(200, SSE)
    reply.receive(sse(delta("a")) + field)
    events: list[Any] = []

    def work() -> None:
        for _ in range(64):
            events.extend(reply.receive(b"1" * (MIB // 16)))

    assert peak_of(work) < 4 * MIB
    error = failure(events)
    assert isinstance(error, LimitExceededError)
    assert (error.limit_name, error.limit) == ("line", MIB)
    assert error.partial is not None
    assert error.partial.choices[0].message.content == "a"


def test_a_million_choices_or_calls_are_an_event_over_its_limit() -> None:
    """They are not looked at one by one: a limit stands before it."""
    for stream in (STREAMS["choices of one event"], STREAMS["calls of one event"]):
        error = failure(read(stream(1_000_000), limits=Limits(event=MIB)))
        assert isinstance(error, LimitExceededError)
        assert error.limit_name == "event"


@pytest.mark.parametrize("index", [10**9, 2**63 - 1, -1, -(10**9), 10**30])
def test_an_index_is_a_name_and_no_place(index: int) -> None:
    call = {"index": index, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    stream = sse(
        delta("a", index=index), delta(index=index, tool_calls=[call]), delta(index=index, finish="stop"), DONE
    )
    events: list[Any] = []
    assert peak_of(lambda: events.extend(read(stream))) < MIB
    choice = accumulate(chunks(events)).choices[0]
    assert ended(events).finished
    assert choice.message.content == "a"
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].id == "c"


NUMBERS = [
    b"1" * 60,
    b"9" * 4299,
    b"1" * 100_000,
    b"-" + b"1" * 100_000,
    b"1e999999",
    b"-1e999999",
    b"0." + b"1" * 9999,
]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: f"{number[:4].decode()} of {len(number)}")
def test_a_number_of_any_size_does_no_harm(number: bytes) -> None:
    """Wherever it stands: the text arrives, and the chunk can be shown, dumped and folded."""
    stream = sse(
        b'{"created":%b,"x":%b,"usage":{"prompt_tokens":%b,"y":%b},"choices":[{"index":0,"delta":{"content":"a",'
        b'"z":%b}}]}' % ((number,) * 5),
        b'{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":{"n":%b}}}]}}]}'
        % number,
        FINISH,
        DONE,
    )  # fmt: skip
    events = read(stream)
    assert ended(events).finished
    assert text(events) == "a"
    for chunk in chunks(events):
        assert isinstance(chunk.model_dump_json(), str)
        assert isinstance(repr(chunk.to_dict()), str)
    whole = accumulate(chunks(events))
    assert whole.choices[0].message.tool_calls is not None
    assert isinstance(whole.model_dump_json(), str)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: f"{number[:4].decode()} of {len(number)}")
@pytest.mark.parametrize(
    "body", [b'{"detail":[%b]}', b'{"error":{"code":%b,"message":"boom"}}', b'{"error":%b}', b"[%b]"]
)
def test_a_number_of_any_size_in_an_error_does_no_harm(body: bytes, number: bytes) -> None:
    error = failure(read(body % number, status=429, headers=[*JSON, (b"retry-after", number)]))
    assert isinstance(error, RateLimitError)
    assert len(str(error)) < 5000
    assert isinstance(failure(read(b"event: error\n" + sse(body % number))), Exception)


@pytest.mark.parametrize("dialect", ["openai", "opchatgpts", "models", "images", "session", "page"])
def test_a_document_without_end_is_held_up_to_the_limit(dialect: str) -> None:
    reply = Reply(dialect, limits=Limits(document=MIB))
    reply.start(200, JSON)
    reply.receive(b'{"data":[')
    events: list[Any] = []

    def work() -> None:
        for _ in range(64):
            events.extend(reply.receive(b'{"id":"m","url":"http://x/"},' * 3000))

    assert peak_of(work) < 4 * MIB
    error = failure(events)
    assert isinstance(error, LimitExceededError)
    assert error.limit_name == "document"


def test_the_last_event_id_may_be_long_and_is_kept_once() -> None:
    decoder = SSEDecoder()
    part = b"id: " + b"x" * MIB + b"\n\n"
    decoder.receive(part)
    assert peak_of(lambda: [decoder.receive(part) for _ in range(20)]) < 8 * MIB
    assert len(decoder.last_event_id) == MIB
