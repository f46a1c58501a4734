"""dialects/openai.py: events become chunks, errors or the end; documents become completions or lists of models.

(What becomes of a reply as a whole: test_reply.py.)
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from feeding import JSON, QUICK, delta, ended, failure, read, same, ways
from hypothesis import given
from hypothesis import strategies as st

from deltawire.protocol import (
    APIStatusError,
    ChatCompletion,
    ChatCompletionChunk,
    ModelList,
    StreamEnded,
    TruncatedStreamError,
    UnexpectedReplyError,
)
from deltawire.protocol.accumulate import PACKED, Accumulator
from deltawire.protocol.dialects.openai import (
    OpenAIEvents,
    chunk_of,
    error_in_document,
    read_completion,
    read_models,
)
from deltawire.protocol.dialects.signals import DONE, TOO_MANY, BadEvent
from deltawire.protocol.status import ErrorObject

if TYPE_CHECKING:
    from deltawire.protocol.dialects.signals import Signal

# What a dump says of a chunk that does not.
UNNAMED = {"created": 0, "model": ""}
FIRST = delta("", role="assistant")
WHOLE: dict[str, Any] = {
    "id": "c-1",
    "object": "chat.completion",
    "created": 5,
    "model": "m",
    "service_tier": "flex",
    "system_fingerprint": "fp",
    "x_top": 1,
    "choices": [
        {
            "index": 2,
            "finish_reason": "stop",
            "logprobs": {"content": [{"token": "a", "logprob": -1.0}]},
            "x_choice": 2,
            "message": {
                "role": "assistant",
                "content": "hi",
                "refusal": "no",
                "reasoning": "hm",
                "x_message": 3,
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}, "x_call": 4},
                    {"id": "b", "type": "custom", "function": {"name": "g", "arguments": "[]"}},
                ],
                "function_call": {"name": "h", "arguments": "1"},
                "audio": {"id": "s", "data": "AA==", "transcript": "hi", "expires_at": 7},
            },
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}


def data(value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


class Reading:
    """What the events of one reply give, in one go or one after the other."""

    def __init__(self) -> None:
        self.accumulator = Accumulator()
        self.events = OpenAIEvents(self.accumulator)
        self.chunks: list[ChatCompletionChunk] = []

    def read(self, *values: object, event: bytes = b"") -> Signal | None:
        return self.events.read([data(value) for value in values], self.chunks, event)

    def one_by_one(self, *values: object) -> Signal | None:
        return next((signal for signal in map(self.read, values) if signal is not None), None)

    @property
    def said(self) -> tuple[object, ...]:
        """Everything, in a form that compares. (As texts: NaN is not equal to itself.)"""
        last = self.accumulator.last
        return (
            repr([(chunk, chunk.to_dict()) for chunk in self.chunks]),
            repr(self.accumulator.completion().to_dict()),
            (self.accumulator.contents, self.accumulator.named, self.accumulator.finished, last and last.to_dict()),
        )


def one(value: object, event: bytes = b"") -> Signal | None:
    """What a reply's first event says beside a chunk."""
    return Reading().read(value, event=event)


# --- The short way and the long one ----------------------------------------------------------------


def plainly(*values: object) -> Reading:
    """As it is meant: each event by itself, folded in by `Accumulator.add`. For chunks of the usual types."""
    made = Reading()
    for value in values:
        made.chunks.append(msgspec.json.decode(data(value), type=ChatCompletionChunk))
        made.accumulator.add(made.chunks[-1])
    return made


def contents(reading: Reading) -> tuple[object, ...]:
    found = reading.accumulator.completion()
    return (
        reading.accumulator.contents,
        [(each.index, msgspec.to_builtins(each)) for each in found.choices],
        found.usage,
    )


# Whatever makes a chunk one that is not "one choice, with a delta of text".
LONG: list[dict[str, Any]] = [
    delta("b", role="assistant"),
    delta("b", finish="stop"),
    delta("b", reasoning_content="r"),
    delta("b", refusal="r"),
    delta("b", tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]),
    delta("b", function_call={"name": "f", "arguments": "{}"}),
    delta("b", audio={"id": "a", "data": "AA=="}),
    delta(None),
    delta("b", index=1),
    {**delta("b"), "usage": {"total_tokens": 5}},
    {**delta("b"), "object": ""},
    {**delta("b"), "choices": []},
    {**delta("b"), "choices": [{"index": 0, "delta": {"content": "b"}}, {"index": 1, "delta": {"content": "c"}}]},
    {**delta("b"), "choices": [{"index": 0, "delta": {"content": "b"}, "logprobs": {"content": [{"token": "b"}]}}]},
    {**delta("b"), "id": ""},
    delta(""),
]


@pytest.mark.parametrize("chunk", LONG)
def test_nothing_of_a_chunk_is_lost_on_the_short_way(chunk: dict[str, Any]) -> None:
    values = [FIRST, delta("a"), chunk, delta("z"), chunk]
    wanted = plainly(*values)
    for way in (Reading.read, Reading.one_by_one):
        reading = Reading()
        assert way(reading, *values) is None
        assert [repr(each) for each in reading.chunks] == [repr(each) for each in wanted.chunks]
        assert contents(reading) == contents(wanted)
        assert reading.accumulator.last is reading.chunks[-1]


def test_reasoning_by_its_other_name() -> None:
    reading = Reading()
    reading.read(FIRST, delta("a"), delta("b", reasoning="r"), delta(None, reasoning="s"))
    assert [each.choices[0].delta.reasoning_content for each in reading.chunks] == [None, None, "r", "s"]
    message = reading.accumulator.completion().choices[0].message
    assert (message.content, message.reasoning_content) == ("ab", "rs")
    assert reading.accumulator.contents == 3


@QUICK
@given(st.lists(st.sampled_from([delta("a"), delta("é"), delta("", index=1), *LONG]), max_size=12), st.data())
def test_events_in_one_go_are_events_one_by_one(values: list[dict[str, Any]], how: st.DataObject) -> None:
    wanted = Reading()
    assert wanted.one_by_one(*values) is None
    cut = how.draw(st.integers(0, len(values)))
    reading = Reading()
    assert reading.read(*values[:cut]) is reading.read(*values[cut:]) is None
    assert reading.said == wanted.said
    assert contents(reading) == contents(plainly(*values))


@pytest.mark.parametrize("at_once", [1, 2, 63, 64, 65, 300])
def test_long_texts_are_packed_however_many_events_come_at_once(at_once: int) -> None:
    reading = Reading()
    reading.read(FIRST)
    count = 0
    while count < 4 * PACKED + 300:
        reading.read(*[delta(str(number)) for number in range(count, count + at_once)])
        count += at_once
        # What came last may be in pieces still, and each packing leaves one.
        assert len(reading.accumulator.texts[0]) <= count // PACKED + PACKED + at_once + 1
    assert len(reading.accumulator.texts[0]) < count // 2
    assert "".join(reading.accumulator.texts[0]) == "".join(map(str, range(count)))
    assert reading.accumulator.contents == count


def test_a_content_that_says_nothing_is_none() -> None:
    reading = Reading()
    reading.read(FIRST, delta(""), delta("a"), delta(""), delta("b"))
    assert reading.accumulator.contents == 2
    assert reading.accumulator.last is reading.chunks[-1]


def test_each_chunk_keeps_its_own_bytes() -> None:
    """By which it knows its vendor fields, and whether a null was sent."""
    reading = Reading()
    values = [
        FIRST,
        {**delta("a", x=1), "y": 1},
        {**delta("b", x=2), "y": 2},
        {**delta("c", finish="stop", x=3), "y": 3},
    ]
    reading.read(*values)
    assert [each.to_dict() for each in reading.chunks] == [UNNAMED | value for value in values]


# --- Errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message", "code"),
    [
        ({"error": {"message": "boom", "code": 5}}, "boom", 5),
        ({"error": "boom"}, "boom", None),
        ({"error": True, "message": "boom", "code": "c"}, "boom", "c"),
        ({"object": "error", "message": "boom", "code": 5}, "boom", 5),
        ({"object": "error"}, '{"object":"error"}', None),
        ({"message": "boom"}, "boom", None),
        ({"detail": "boom"}, "boom", None),
        ({"error_message": "boom"}, "boom", None),
        ({"detail": [{"msg": "boom"}]}, '[{"msg":"boom"}]', None),
        ([{"error": {"message": "boom"}}], "boom", None),
    ],
)
def test_an_error_of_any_shape(value: object, message: str, code: object) -> None:
    for before in ([], [FIRST, delta("a")]):
        reading = Reading()
        signal = reading.read(*before, value, delta("never read"))
        assert isinstance(signal, ErrorObject)
        assert (signal.message, signal.code) == (message, code)
        assert len(reading.chunks) == len(before)


@pytest.mark.parametrize(
    "value",
    [
        {"choices": [], "message": "x"},
        {"choices": [], "detail": "x"},
        {"usage": {"total_tokens": 1}, "message": "x"},
        {**delta("a"), "message": "x", "detail": "x"},
        {**delta("a"), "error": {}},
        {**delta("a"), "error": None},
        {**delta("a"), "error": False},
        {**delta("a"), "error": ""},
        {"object": "chat.completion.chunk"},
        {"x": '"detail"'},
    ],
)
def test_what_is_no_error(value: dict[str, Any]) -> None:
    """Azure's first chunk has choices that are none; usage comes with none; and an error may be said to be none."""
    for before in ([], [FIRST]):
        reading = Reading()
        assert reading.read(*before, value) is None
        assert len(reading.chunks) == len(before) + 1
        assert reading.chunks[-1].error is None
        assert reading.accumulator.last is reading.chunks[-1]


def test_an_error_beside_choices() -> None:
    reading = Reading()
    value = {**delta("b", x=1), "error": {"message": "boom"}}
    signal = reading.read(FIRST, delta("a"), value, delta("never read"))
    assert isinstance(signal, ErrorObject)
    assert reading.chunks[-1].to_dict() == UNNAMED | value
    assert reading.accumulator.completion().choices[0].message.content == "ab"


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b'{"message": "boom"}', "boom"),
        (b'{"type": "t", "detail": "boom", "choices": []}', "boom"),
        (b'{"id": "x"}', '{"id":"x"}'),
        (b'"boom"', "boom"),
        (b"boom \xff", "boom \ufffd"),
        (b'{"message": "bo', '{"message": "bo'),
        (b"[1, 2]", "[1,2]"),
    ],
)
def test_an_event_named_error_is_one_whatever_it_says(payload: bytes, message: str) -> None:
    for before in ([], [FIRST, delta("a")]):
        reading = Reading()
        reading.read(*before)
        signal = reading.read(payload, event=b"error")
        assert isinstance(signal, ErrorObject)
        assert signal.message == message
        # And its name counts for itself alone.
        assert reading.read(delta("b")) is None
    assert one(b'{"id": "x"}', b"message") is None


def test_an_event_named_error_that_says_nothing() -> None:
    for payload in (b"", b" "):
        assert one(payload, b"error") is None
    assert one(b"[DONE]", b"error") == DONE


# --- The end, and what can't be read ---------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"[DONE]", b" [DONE] ", b"[DONE]\n"])
def test_the_end(payload: bytes) -> None:
    reading = Reading()
    assert reading.read(FIRST, payload, delta("never read")) == DONE
    assert len(reading.chunks) == 1


@pytest.mark.parametrize("payload", [b"", b" ", b"\n\t "])
def test_a_keep_alive(payload: bytes) -> None:
    reading = Reading()
    assert reading.read(FIRST, payload, delta("a")) is None
    assert len(reading.chunks) == 2


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (b"{", "is no JSON ("),
        (b"[done]", "is no JSON ("),
        (b"[DONE", "is no JSON ("),
        (b"5", "is no JSON object"),
        (b"null", "is no JSON object"),
        (b'"[DONE]"', "is no JSON object"),
        (b"[{}]", "is no JSON object"),
        (b"[" * 65 + b"]" * 65, "is no JSON (the JSON is nested too deeply)"),
        (b'{"error": true, "x": ' + b"[" * 65 + b"]" * 65 + b"}", "can't be read (the JSON is nested too deeply)"),
        (
            b'{"object": "chat.completion", "choices": [{"message": 5}], "x": ' + b"[" * 65 + b"]" * 65 + b"}",
            "can't be read (the JSON is nested too deeply)",
        ),
    ],
)
def test_what_is_no_chunk(payload: bytes, what: str) -> None:
    for before in ([], [FIRST]):
        reading = Reading()
        signal = reading.read(*before, payload, delta("never read"))
        assert isinstance(signal, BadEvent)
        assert signal.data == payload
        assert signal.what.startswith(what)
        assert len(reading.chunks) == len(before)


# --- Odd chunks ------------------------------------------------------------------------------------


def test_an_event_of_too_many_objects_is_not_read() -> None:
    """(Limits.objects.) The events before it are, and none behind it."""
    accumulator = Accumulator(extras=False, most=8)
    into: list[Any] = []
    many = data({"choices": [{}] * 8})
    payloads = [data(delta("a")), many, data(delta("b"))]
    assert OpenAIEvents(accumulator).read(payloads, into) == TOO_MANY
    assert [chunk.choices[0].delta.content for chunk in into] == ["a"]
    assert OpenAIEvents(Accumulator(most=9)).read([many], []) is None


@pytest.mark.parametrize("short", [True, False])
def test_too_many_choices_in_all_end_the_reading(short: bool) -> None:
    accumulator = Accumulator(extras=False, most=3)
    reader, into = OpenAIEvents(accumulator), []  # type: ignore[var-annotated]
    payloads = [data({**delta("x"), "choices": [{"index": each, "delta": {"content": "x"}}]}) for each in range(6)]
    if not short:
        payloads = [payload.replace(b'"object":"chat.completion.chunk"', b'"object":"odd"') for payload in payloads]
    assert reader.read(payloads, into) == TOO_MANY
    assert len(into) == accumulator.opened == 4
    assert accumulator.completion().choices[3].message.content == "x"


def test_halves_of_a_letter_are_joined_from_the_first_odd_chunk_on() -> None:
    """Also those in chunks that come after it, which the typed reader would take as they are."""
    reading = Reading()
    values = [delta("a\ud83d", finish=None), delta("\udc4bb"), delta("c"), delta("d\ud83d")]
    assert reading.read(*values) is None
    said = [each.choices[0].delta.content for each in reading.chunks]
    assert said == ["a", "\U0001f44bb", "c", "d"]
    reading.events.flush(reading.chunks)
    assert len(reading.chunks) == 5
    (choice,) = reading.chunks[4].choices
    assert (choice.index, choice.delta.content) == (0, "\ufffd")
    assert reading.accumulator.completion().choices[0].message.content == "a\U0001f44bbcd\ufffd"


def test_a_plain_text_after_a_half_leaves_it_alone() -> None:
    for way in (Reading.read, Reading.one_by_one):
        reading = Reading()
        way(reading, FIRST, delta("a\ud83d"), delta("b"), delta("c"))
        assert [each.choices[0].delta.content for each in reading.chunks] == ["", "a", "\ufffdb", "c"]


def test_there_is_nothing_to_flush_where_nothing_is_held() -> None:
    for values in ([], [FIRST], [{**FIRST, "created": "soon"}], [delta("\ud83d"), delta("\udc4b")]):
        reading = Reading()
        reading.read(*values)
        last = reading.accumulator.last
        reading.events.flush(reading.chunks)
        assert len(reading.chunks) == len(values)
        assert reading.accumulator.last is last


# --- Whole replies ---------------------------------------------------------------------------------


def completion(value: object) -> ChatCompletion:
    found = read_completion(data(value))
    assert found is not None
    return found


def test_a_whole_reply() -> None:
    found: Any = completion(WHOLE)
    assert found.to_dict() == {
        **WHOLE,
        # Both names, as in a delta.
        "choices": [{**WHOLE["choices"][0], "message": {**WHOLE["choices"][0]["message"], "reasoning_content": "hm"}}],
    }
    assert (found.x_top, found.choices[0].x_choice, found.choices[0].message.x_message) == (1, 2, 3)


def test_a_whole_reply_as_one_chunk_says_the_same() -> None:
    found = completion(WHOLE)
    chunk: Any = chunk_of(found)
    assert [type(chunk)] == [ChatCompletionChunk]
    for name in ("id", "created", "model", "service_tier", "system_fingerprint", "usage"):
        assert getattr(chunk, name) == getattr(found, name) is not None
    assert chunk.object == "chat.completion.chunk"
    (choice,) = chunk.choices
    (whole,) = found.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (2, "stop", whole.logprobs)
    for name in ("role", "content", "refusal", "function_call", "audio", "reasoning_content"):
        assert getattr(choice.delta, name) == getattr(whole.message, name) is not None
    said = [
        (call.index, call.id, call.type, call.function.name, call.function.arguments)
        for call in choice.delta.tool_calls
    ]
    assert said == [(0, "a", "function", "f", "{}"), (1, "b", "custom", "g", "[]")]
    assert (chunk.x_top, choice.x_choice, choice.delta.x_message, choice.delta.tool_calls[0].x_call) == (1, 2, 3, 4)
    silent = chunk_of(completion({"choices": [{"message": {"content": "x"}}]}))
    assert silent.choices[0].delta.tool_calls is None
    assert chunk_of(completion({"choices": [{"message": {"tool_calls": []}}]})).choices[0].delta.tool_calls == []


def test_a_whole_reply_as_the_only_event() -> None:
    reading = Reading()
    assert reading.read(WHOLE) is None
    assert repr(reading.chunks) == repr([chunk_of(completion(WHOLE))])
    assert reading.accumulator.finished
    for value in ({**delta("a"), "object": "chat.completion"}, {"object": "chat.completion", "choices": []}):
        reading = Reading()
        assert reading.read(value) is None
        assert reading.chunks[0].to_dict() == {"id": "", **UNNAMED, **value}, "chunks by another name"


@pytest.mark.parametrize("kind", [{}, {"object": None}, {"object": "chat.completion.chunk"}, {"object": "x"}])
@pytest.mark.parametrize("before", [[], [FIRST], [FIRST, delta("a")]])
def test_a_whole_reply_by_another_name(kind: dict[str, Any], before: list[object]) -> None:
    """What it says is in messages, so that a chunk would say nothing."""
    nameless = {name: value for name, value in WHOLE.items() if name != "object"}
    other = {"message": {"content": "b"}, "index": 3}
    for choices in (WHOLE["choices"], [*WHOLE["choices"], other], [{**WHOLE["choices"][0], "delta": None}]):
        plain = {"id": "x", "choices": choices}
        for value in ({**nameless, **kind, "choices": choices}, {**plain, **kind}):
            wanted, reading = Reading(), Reading()
            wanted.read(*before, {**value, "object": "chat.completion"}, delta("z"))
            assert reading.read(*before, value, delta("z")) is None
            assert reading.said == wanted.said
            assert reading.chunks[len(before)].choices[0].delta.content == WHOLE["choices"][0]["message"]["content"]
        alone = Reading()
        alone.one_by_one(*before, {**plain, **kind})
        assert len(alone.chunks[-1].choices) == len(choices)


def test_a_whole_reply_by_another_name_that_is_refused() -> None:
    deep = b"[" * 65 + b"]" * 65
    broken = Reading()
    signal = broken.read(FIRST, b'{"choices": [{"message": 5, "x": ' + deep + b"}]}", delta("never read"))
    assert isinstance(signal, BadEvent)
    assert len(broken.chunks) == 1
    many = Reading()
    many.accumulator.most = 3
    calls = [{"function": {"name": "f"}}] * 3
    assert many.read(FIRST, b'{"choices": [{"message": {"tool_calls": ' + data(calls) + b"}}]}") is TOO_MANY


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": {}, "message": {"content": "a"}},
        {"delta": {"role": "assistant"}, "message": {"content": "a"}},
        {"delta": {"content": ""}, "message": {"content": "a"}},
        {"delta": {"content": "b"}, "message": {"content": "ab"}},
        {"finish_reason": "stop"},
        {"finish_reason": "stop", "x": {"message": "a", "delta": "b"}},
    ],
)
def test_a_message_beside_a_delta_is_no_whole_reply(choice: dict[str, Any]) -> None:
    """Servers repeat in it all that the deltas have said."""
    for kind in ("chat.completion.chunk", "chat.completion"):
        value = {**FIRST, "object": kind, "choices": [{"index": 0, **choice}]}
        reading = Reading()
        assert reading.read(FIRST, value) is None
        assert reading.chunks[1].to_dict()["choices"] == [{"index": 0, "delta": {}, **choice}]
        assert reading.accumulator.completion().choices[0].message.content == choice.get("delta", {}).get("content", "")


DELTA: dict[str, Any] = {
    "role": "assistant",
    "content": "\U0001f642 a",
    "tool_calls": [{"index": 1, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}, "x": 5}],
    "x_delta": math.inf,
}


@pytest.mark.parametrize(
    "kind", [{}, {"object": "chat.completion.chunk"}, {"object": "chat.completion"}, {"object": 5}]
)
@pytest.mark.parametrize("message", [{}, {"message": None}, {"message": {}}, {"message": ""}])
def test_a_chunk_as_a_document(kind: dict[str, Any], message: dict[str, Any]) -> None:
    """As some servers answer who asked for no stream."""
    value = {
        "id": "x",
        "created": 1,
        "model": "m",
        **kind,
        "choices": [{"index": 0, "delta": DELTA, "finish_reason": "stop", **message}],
    }
    value |= {"usage": WHOLE["usage"], "x_top": 10**30}
    found = completion(value)
    wanted = {**value, "object": "chat.completion"}
    wanted["choices"] = [{"index": 0, "finish_reason": "stop", "message": DELTA}]
    assert found.to_dict() == wanted
    (call,) = chunk_of(found).choices[0].delta.tool_calls or []
    assert call.function is not None
    assert (call.id, call.function.arguments) == ("a", "{}")


def test_choices_of_a_document_are_read_one_by_one() -> None:
    said = [
        {"delta": {"content": "a"}, "message": {"content": "b"}},
        {"delta": {"content": "c"}},
        {"delta": "d", "message": {"content": "e"}},
        {"delta": {"content": "f"}, "message": 5},
        5,
    ]
    found = completion({"choices": said})
    assert [choice.message.content for choice in found.choices] == ["b", "c", "e", None]
    assert found.choices[0].model_extra == {"delta": {"content": "a"}}
    odd: tuple[object, ...] = ("d", None, [])
    for bare in odd:
        assert completion({"choices": [{"delta": bare}]}).choices[0].to_dict() == {
            "index": 0,
            "message": {},
            "delta": bare,
        }


def test_a_chunk_as_a_document_that_is_nested_deeply() -> None:
    """The decoder passes over what it does not know, as everywhere; a delta that is there, too, is not looked for."""
    deep = b"[" * 65 + b"]" * 65
    found = read_completion(b'{"choices": [{"message": {"content": "a"}, "delta": {}, "x": ' + deep + b"}]}")
    assert found is not None
    assert found.choices[0].message.content == "a"


def test_choices_that_all_say_0_or_nothing_are_numbered() -> None:
    choice: dict[str, Any] = {"message": {"content": "x"}}
    for choices, numbers in (
        ([choice], [0]),
        ([choice] * 3, [0, 1, 2]),
        ([{**choice, "index": 0}] * 2, [0, 1]),
        ([{**choice, "index": 5}], [5]),
        ([choice, {**choice, "index": 7}], [0, 7]),
    ):
        assert [each.index for each in completion({"choices": choices}).choices] == numbers


@pytest.mark.parametrize(
    "value", [{}, [], 5, None, "x", {"choices": []}, {"choices": None}, {"choices": {}}, {"id": 5}]
)
def test_json_that_is_no_reply(value: object) -> None:
    assert read_completion(json.dumps(value).encode()) is None


@pytest.mark.parametrize("body", [b"", b"{", b"<html>", json.dumps(WHOLE).encode()[:-1]])
def test_what_is_no_json(body: bytes) -> None:
    for reader in (read_completion, read_models, error_in_document):
        with pytest.raises(ValueError):
            reader(body)


def test_an_odd_reply_is_read_all_the_same() -> None:
    found: Any = completion({**WHOLE, "created": "soon", "choices": [{"message": {"content": [{"text": "a"}]}}, "x"]})
    assert [each.message.content for each in found.choices] == ["a"]
    assert (found.created, found.x_top) == (0, 1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"error": {"message": "boom"}}, "boom"),
        ({"message": "boom"}, "boom"),
        ({"detail": "boom"}, "boom"),
        ({"detail": {"a": 1}}, '{"a":1}'),
        ({"message": "boom", "choices": [1]}, None),
        ({"message": 5}, None),
        ({"a": 1}, None),
        (["boom"], None),
        ("boom", None),
    ],
)
def test_an_error_with_status_200(value: object, message: str | None) -> None:
    found = error_in_document(json.dumps(value).encode())
    assert (found and found.message) == message


# --- The list of models ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"object": "list", "data": [{"id": "a", "object": "model", "owned_by": "me"}, {"id": "b"}]},
        [{"id": "a", "owned_by": "me"}, {"id": "b"}],
        {"models": [{"id": "a"}, {"id": "b"}]},
        {"data": ["a", "b"]},
        {"data": [{"id": "a", "created": "x"}, {"id": "b"}]},
    ],
)
def test_models(body: object) -> None:
    encoded = json.dumps(body).encode()
    events = read(encoded, headers=JSON, dialect="models")
    models = events[0]
    assert isinstance(models, ModelList)
    assert [model.id for model in models] == ["a", "b"]
    assert ended(events) == StreamEnded(True)
    for _, parts in ways(encoded):
        same(parts, events, headers=JSON, dialect="models")


@pytest.mark.parametrize("body", [b'{"object":"list","data":null}', b'{"data":[]}', b"[]", b'{"models":[]}'])
def test_no_models(body: bytes) -> None:
    models = read(body, headers=JSON, dialect="models")[0]
    assert isinstance(models, ModelList)
    assert models.data == []


def test_models_that_are_none() -> None:
    for body in (b"{}", b'{"choices": []}', b'{"data": 5}'):
        assert isinstance(failure(read(body, headers=JSON, dialect="models")), UnexpectedReplyError)
    error = failure(read(b'{"error": {"message": "no", "code": 401}}', headers=JSON, dialect="models"))
    assert isinstance(error, APIStatusError)
    assert error.status_code == 401
    assert isinstance(failure(read(b'{"data": [', headers=JSON, dialect="models")), TruncatedStreamError)


def models(value: object) -> ModelList:
    found = read_models(json.dumps(value).encode())
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ({"id": "a", "model": "b", "name": "c"}, "a"),
        ({"model": "b", "name": "c"}, "b"),
        ({"id": "", "name": "c"}, "c"),
        ({"model": "", "name": "c"}, "c"),
        ({"model": 5, "name": "c"}, "c"),
        ({"name": ["c"]}, ""),
        ({}, ""),
        ("a", "a"),
    ],
)
def test_the_name_of_a_model(item: object, name: str) -> None:
    """Ollama has ``model`` and ``name``, Cohere ``name``."""
    assert [model.id for model in models([item])] == [name]


def test_what_is_no_model_is_left_out() -> None:
    assert [model.id for model in models({"data": ["a", 5, None, ["b"], {"id": "c"}]})] == ["a", "c"]


def test_vendor_fields_of_models_and_of_their_list() -> None:
    listed: Any = models({"object": "list", "data": [{"id": "a", "x": 1, "owned_by": "me"}], "models": [5], "y": 2})
    assert (listed.y, listed.model_extra) == (2, {"y": 2})
    assert (listed.object, listed.data[0].x, listed.data[0].owned_by) == ("list", 1, "me")
    assert listed.data[0].model_extra == {"x": 1}


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({"data": [], "models": ["a"]}, ["a"]),
        ({"data": ["a"], "models": ["b"]}, ["a"]),
        ({"data": None, "models": []}, []),
        ({"object": "list", "data": None}, []),
        ({"object": "list"}, None),
        ({"object": "model", "data": None}, None),
        ({"data": {}}, None),
        ({"data": "a"}, None),
        ({"models": None}, None),
        ("a", None),
    ],
)
def test_where_the_list_stands(value: object, names: list[str] | None) -> None:
    found = read_models(json.dumps(value).encode())
    assert (None if found is None else [model.id for model in found]) == names
