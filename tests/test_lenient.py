"""lenient.py: JSON that the typed decoder refuses, and surrogate halves."""

from __future__ import annotations

import itertools
import json
import math
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from feeding import (
    DONE,
    FINISH,
    JSON,
    QUICK,
    at_every_cut,
    chunks,
    delta,
    ended,
    failure,
    read,
    same,
    sse,
    text,
)
from hypothesis import given
from hypothesis import strategies as st

from deltawire.protocol import (
    ChatCompletion,
    ChatCompletionChunk,
    MalformedEventError,
    Model,
    StreamEnded,
    StreamFailed,
    TokenLogprob,
    ToolCall,
    accumulate,
)
from deltawire.protocol._json import join_surrogates
from deltawire.protocol.lenient import build, build_with_extra

if TYPE_CHECKING:
    from collections.abc import Callable

HIGH, LOW, WAVE = "\ud83d", "\udc4b", "\U0001f44b"
LOST = "\ufffd"


def one(value: object) -> ChatCompletionChunk:
    chunk = read(sse(value))[0]
    assert isinstance(chunk, ChatCompletionChunk)
    return chunk


# --- Surrogate halves ------------------------------------------------------------------------------


def wrapped(place: str, text: str, index: int) -> dict[str, Any]:
    """A chunk with the text in this place."""
    if place == "arguments":
        return delta(index=index, tool_calls=[{"index": 3, "id": "c", "function": {"name": "f", "arguments": text}}])
    if place == "arguments without index":
        return delta(index=index, tool_calls=[{"id": "c", "function": {"arguments": text}}])
    if place == "arguments of the latest call":
        return delta(index=index, tool_calls=[{"function": {"arguments": text}}])
    if place == "function_call":
        return delta(index=index, function_call={"name": "f", "arguments": text})
    if place == "transcript":
        return delta(index=index, audio={"transcript": text})
    return delta(index=index, **{place: text})


def found_in(place: str, completion: ChatCompletion, index: int) -> str | None:
    message = next(choice.message for choice in completion.choices if choice.index == index)
    if place.startswith("arguments"):
        assert message.tool_calls is not None
        assert len(message.tool_calls) == 1
        return message.tool_calls[0].function.arguments
    if place == "function_call":
        return None if message.function_call is None else message.function_call.arguments
    if place == "transcript":
        return None if message.audio is None else message.audio.transcript
    return getattr(message, "reasoning_content" if place == "reasoning" else place)  # type: ignore[no-any-return]


PLACES = [
    "content", "reasoning_content", "reasoning", "refusal", "arguments", "arguments without index",
    "arguments of the latest call", "function_call", "transcript",
]  # fmt: skip


HALVES = [
    ([f"a{HIGH}", f"{LOW}b"], f"a{WAVE}b"),
    ([HIGH, LOW], WAVE),
    ([f"{HIGH}{LOW}"], WAVE),
    ([f"a{HIGH}b"], f"a{LOST}b"),
    ([f"a{LOW}b"], f"a{LOST}b"),
    ([f"a{HIGH}", "b"], f"a{LOST}b"),
    ([f"a{HIGH}"], f"a{LOST}"),
    ([HIGH], LOST),
    ([LOW], LOST),
    ([HIGH, HIGH, LOW, LOW], f"{LOST}{WAVE}{LOST}"),
    ([f"{HIGH}", "", LOW], WAVE),
    ([f"{WAVE}a{HIGH}", f"{LOW}{HIGH}", f"{LOW}!"], f"{WAVE}a{WAVE}{WAVE}!"),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("close", ["done", "end", "finish", "both"])
def test_halves(place: str, close: str) -> None:
    for index, (texts, joined) in itertools.product((0, 1), HALVES):
        values: list[object] = [wrapped(place, each, index) for each in texts]
        if close in ("finish", "both"):
            values.append(delta(index=index, finish="stop"))
        if close in ("done", "both"):
            values.append(DONE)
        events = read(sse(*values))
        assert isinstance(events[-1], StreamFailed if close == "end" else StreamEnded)
        completion = accumulate(chunks(events))
        assert found_in(place, completion, index) == joined
        for chunk in chunks(events):
            chunk.to_json().encode()
        completion.to_json().encode()


def test_halves_of_a_call_whose_id_comes_once() -> None:
    events = read(
        sse(
            delta(tool_calls=[{"id": "a", "function": {"name": "f", "arguments": f"x{HIGH}"}}]),
            delta(tool_calls=[{"function": {"arguments": f"{LOW}y"}}]),
            FINISH,
            DONE,
        )
    )
    (call,) = accumulate(chunks(events)).choices[0].message.tool_calls or [ToolCall()]
    assert call.function.arguments == f"x{WAVE}y"


def test_halves_of_two_choices_do_not_mix() -> None:
    events = read(
        sse(delta(HIGH), delta("b", index=1), delta(LOW), delta(HIGH, index=1), delta("c"), delta(LOW, index=1), DONE)
    )
    assert text(events) == f"{WAVE}c"
    assert text(events, 1) == f"b{WAVE}"


def test_halves_of_two_fields_and_two_calls_do_not_mix() -> None:
    def both(arguments: str, number: int) -> dict[str, Any]:
        return {"index": number, "id": f"c{number}", "function": {"arguments": arguments}}

    events = read(
        sse(
            delta(HIGH, reasoning_content=HIGH, tool_calls=[both(HIGH, 0), both("x", 1)]),
            delta("a", reasoning_content=LOW, tool_calls=[both("y", 0), both(LOW, 1)]),
            FINISH,
            DONE,
        )
    )
    message = accumulate(chunks(events)).choices[0].message
    assert (message.content, message.reasoning_content) == (f"{LOST}a", WAVE)
    assert [call.function.arguments for call in message.tool_calls or ()] == [f"{LOST}y", f"x{LOST}"]


def test_plain_text_after_a_half() -> None:
    # The second event alone would be read on the shortest way.
    assert text(read(sse(delta("a"), delta(HIGH), delta("b"), delta("c"), DONE))) == f"a{LOST}bc"
    assert text(read(sse(delta("a"), delta(f"x{HIGH}{LOW}"), delta("b"), DONE))) == f"ax{WAVE}b"


def test_a_half_is_delivered_with_the_finish_reason() -> None:
    reply = chunks(read(sse(delta(HIGH), FINISH, DONE)))
    assert reply[1].choices[0].delta.content == LOST
    assert reply[1].choices[0].finish_reason == "stop"


def test_a_half_is_delivered_before_an_error() -> None:
    events = read(sse(delta(f"a{HIGH}"), {"error": "boom"}))
    assert text(events) == f"a{LOST}"
    error: Any = failure(events)
    assert error.partial.choices[0].message.content == f"a{LOST}"
    assert text(read(sse(delta(f"a{HIGH}")), fail=OSError("x"))) == f"a{LOST}"


@pytest.mark.parametrize(
    "value",
    [
        {"id": HIGH, "model": LOW, "system_fingerprint": HIGH},
        {"choices": [{"delta": {"role": HIGH, "vendor": HIGH}, "vendor": {LOW: [LOW]}}]},
        {"choices": [{"delta": {"reasoning": {"text": HIGH}}}]},
        {"choices": [{"delta": {"reasoning": [HIGH, {"text": LOW}]}}]},
        {"choices": [{"delta": {"reasoning": [[HIGH]]}}]},
        {"choices": [{"delta": {"tool_calls": [{"id": HIGH, "function": {"name": LOW}}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": {"a": HIGH}}}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": {LOW: [1]}}}]}}]},
        {"choices": [{"delta": {"content": [{"text": HIGH}, LOW]}}]},
        {"choices": [{"delta": {}, "logprobs": {"content": [{"token": HIGH}]}}]},
        {"error": {"message": f"boom {HIGH}", "code": LOW}},
        {"error": HIGH},
        {"error": [HIGH]},
        {"object": "error", "message": HIGH, LOW: HIGH},
        {"detail": [{"msg": HIGH}], "object": "error"},
    ],
)
def test_no_half_gets_out_anywhere(value: dict[str, Any]) -> None:
    document = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], **value}
    for chunk in document["choices"]:
        if "delta" in chunk:
            chunk["message"] = chunk["delta"]
    for events in (
        read(sse(value, DONE)),
        read(sse(value)),
        read(json.dumps(document).encode(), headers=JSON),
        read(json.dumps(value).encode(), status=500, headers=JSON),
    ):
        for chunk in chunks(events):
            chunk.to_json().encode()
            repr(chunk).encode()
        last = events[-1]
        if isinstance(last, StreamFailed):
            str(last.error).encode()
            repr(vars(last.error)).encode()
            json.dumps(getattr(last.error, "body", None), default=str, ensure_ascii=False).encode()
        elif isinstance(last, StreamEnded) and last.completion is not None:
            last.completion.to_json().encode()


def test_halves_at_every_cut() -> None:
    body = sse(delta(f"a{HIGH}"), delta(f"{LOW}b"), delta(HIGH), FINISH, DONE)
    whole = read(body)
    assert text(whole) == f"a{WAVE}b{LOST}"
    for _, parts in at_every_cut(body):
        same(parts, whole)


@QUICK
@given(st.lists(st.text(alphabet=st.sampled_from(["a", "é", HIGH, LOW, WAVE]), max_size=4), max_size=6))
def test_any_halves_over_chunks_read_as_if_they_came_at_once(parts: list[str]) -> None:
    events = read(sse(*(delta(part) for part in parts), FINISH, DONE))
    assert text(events) == join_surrogates("".join(parts))


# --- Odd JSON --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        b'{"id": 5, "choices": [{"index": 0, "delta": {"content": "a"}}]}',
        b'{"id": null, "created": "soon", "model": null, "choices": [{"index": 0, "delta": {"content": "a"}}]}',
        b'{"usage": "none", "choices": [{"index": "0", "delta": {"content": "a"}}]}',
        b'{"usage": {"prompt_tokens": NaN}, "choices": [{"index": 0.0, "delta": {"content": "a"}}]}',
        b'{"x": Infinity, "choices": [{"index": null, "delta": {"content": "a", "role": 5}}]}',
        b'{"created": 1.5, "choices": [null, {"delta": {"content": "a", "tool_calls": {}}}, 5]}',
        b'{"created": 1e400, "choices": [{"logprobs": "none", "delta": {"content": "a"}, "finish_reason": false}]}',
        b'{"choices": [{"delta": {"content": "a", "tool_calls": [null, 5], "audio": "x", "function_call": "y"}}]}',
        b'{"x": "\xff", "choices": [{"delta": {"content": "a", "refusal": 5.5e99}}]}',
        b'{"object": ["chat"], "choices": [{"delta": {"content": "a"}}]}',
        b'{"object": 5, "choices": [{"delta": {"content": "a"}}]}',
        b'{"created": 99999999999999999999999999999, "choices": [{"delta": {"content": "a"}}]}',
        b'{"x":' + b"9" * 5000 + b', "id": 1, "choices": [{"delta": {"content": "a"}}]}',
    ],
)
def test_what_fits_is_kept_and_what_does_not_is_dropped(value: bytes) -> None:
    events = read(sse(value, FINISH, DONE))
    assert text(events) == "a"
    assert ended(events).finished
    chunk = chunks(events)[0]
    assert isinstance(chunk.object, str)
    assert isinstance(chunk.id, str)
    assert isinstance(chunk.model, str)
    assert isinstance(chunk.created, int)
    choice = chunk.choices[0]
    assert choice.index == 0
    assert choice.finish_reason is None
    assert choice.delta.audio is None
    assert not choice.delta.tool_calls
    assert pickle.loads(pickle.dumps(chunk)) == chunk
    chunk.to_json().encode()


def test_numbers_become_the_type_of_the_field() -> None:
    chunk = one({"id": 5, "created": "1700000000", "model": 4.5, "choices": [{"index": "2", "delta": {"content": 7}}]})
    assert (chunk.id, chunk.created, chunk.model) == ("5", 1700000000, "4.5")
    assert (chunk.choices[0].index, chunk.choices[0].delta.content) == (2, "7")
    usage = one({"choices": [], "usage": {"prompt_tokens": 3.0, "completion_tokens": "4", "total_tokens": True}}).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 4, None)


def test_null_choices_are_none() -> None:
    chunk = one({"id": "x", "choices": None, "usage": {"total_tokens": 1}})
    assert chunk.choices == []
    assert chunk.usage is not None


def test_other_words_for_the_object_stay() -> None:
    kind: str = one({**delta("a"), "object": "text_completion"}).object
    assert kind == "text_completion"


def test_content_as_a_list_of_parts() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}, "m"]},
        {"type": "text", "text": "An"},
        "swer",
        {"type": "thinking", "thinking": "!"},
        {"type": "reasoning", "reasoning": "?"},
        {"type": "image", "url": "x"},
        5,
    ]
    message = accumulate([one(delta(content=parts))]).choices[0].message  # type: ignore[arg-type]
    assert (message.content, message.reasoning_content) == ("Answer", "hmm!?")
    thinking = one({"choices": [{"delta": {"content": [parts[0]], "reasoning_content": "once"}}]}).choices[0].delta
    assert (thinking.content, thinking.reasoning_content) == (None, "once")
    body = json.dumps({"choices": [{"message": {"content": parts}, "finish_reason": "stop"}]}).encode()
    completion = ended(read(body, headers=JSON)).completion
    assert completion is not None
    assert completion.choices[0].message.content == "Answer"


def test_arguments_as_an_object() -> None:
    for arguments, encoded in (({"a": [1, "é"]}, '{"a":[1,"é"]}'), ([1], "[1]"), ({}, "{}")):
        value = delta(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": arguments}}])
        (call,) = accumulate([one(value)]).choices[0].message.tool_calls or [ToolCall()]
        assert call.function.arguments == encoded


def test_build_drops_what_does_not_fit() -> None:
    built = build(ChatCompletion, {"choices": [{"message": 5}, None, {"message": {"content": "a"}}], "usage": []})
    assert [choice.message.content for choice in built.choices] == [None, "a"]
    assert built.usage is None


# --- Deep nesting ----------------------------------------------------------------------------------

SHAPES: list[Callable[[bytes], bytes]] = [
    lambda deep: sse(b'{"choices": [{"delta": {"content": "a"}}], "x": ' + deep + b"}"),
    lambda deep: sse(b'{"id": 5, "x": NaN, "y": ' + deep + b"}"),
    lambda deep: sse(b'{"choices": [{"delta": {"reasoning": ' + deep + b"}}]}"),
    lambda deep: sse(b'{"choices": [{"delta": {"reasoning": {"a": NaN, "b": ' + deep + b"}}}]}"),
    lambda deep: sse(b'{"choices": [{"delta": {"tool_calls": [{"function": {"arguments": ' + deep + b"}}]}}]}"),
    lambda deep: sse(b'{"error": ' + deep + b"}"),
    lambda deep: sse(b'{"error": true, "x": ' + deep + b"}"),
    lambda deep: sse(b'{"error": {"message": "boom", "x": ' + deep + b"}}"),
    lambda deep: b"event: error\n" + sse(deep),
    lambda deep: sse(deep),
    lambda deep: sse(b'{"object": "chat.completion", "choices": [{"message": {"content": "a"}}], "x": ' + deep + b"}"),
]
DOCUMENTS: list[Callable[[bytes], bytes]] = [
    lambda deep: deep,
    lambda deep: b'{"error": ' + deep + b"}",
    lambda deep: b'{"error": {"message": "boom", "x": ' + deep + b"}}",
    lambda deep: b'{"detail": ' + deep + b"}",
    lambda deep: b'{"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "x": ' + deep + b"}",
    lambda deep: b'{"id": 5, "choices": [{"message": {"content": "a"}}], "x": NaN, "y": ' + deep + b"}",
]

# Every depth near the places where C and Python code meet the recursion limit, and some far beyond.
DEPTHS = [*range(1, 20, 6), *range(150, 520, 9), *range(930, 1002), 1500, 5000, 100_000]


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize("shape", SHAPES)
def test_a_deeply_nested_event_never_raises(shape: Callable[[bytes], bytes]) -> None:
    for depth in DEPTHS:
        events = read(shape(nested(depth)) + sse(DONE))
        for chunk in chunks(events):
            assert isinstance(chunk.model_extra, dict)


@pytest.mark.parametrize("shape", DOCUMENTS)
@pytest.mark.parametrize("status", [200, 400])
def test_a_deeply_nested_document_never_raises(shape: Callable[[bytes], bytes], status: int) -> None:
    for depth in DEPTHS:
        events = read(shape(nested(depth)), headers=JSON, status=status)
        if status == 400:
            assert "400" in str(failure(events))


def test_what_nobody_can_read_is_malformed() -> None:
    assert isinstance(failure(read(sse(nested(100_000), DONE))), MalformedEventError)


# --- By itself -------------------------------------------------------------------------------------


def test_vendor_fields_of_a_document_that_is_not_kept() -> None:
    model: Any = build_with_extra(Model, {"id": "a", "created": "x", "x": {"y": 1}})
    assert (model.id, model.created, model.x, model.model_extra) == ("a", 0, {"y": 1}, {"x": {"y": 1}})
    assert not hasattr(build_with_extra(Model, {"id": "a"}), "_raw")


@pytest.mark.parametrize(
    ("value", "fitted"),
    [
        (-1, -1.0), (0.5, 0.5), (True, 0.0), ("1", 0.0), (None, 0.0), ([], 0.0), (10**400, 0.0),
    ],
)  # fmt: skip
def test_what_fits_a_float(value: object, fitted: float) -> None:
    found = build(TokenLogprob, {"token": "t", "logprob": value})
    assert (found.logprob, type(found.logprob)) == (fitted, float)


@pytest.mark.parametrize(
    ("value", "fitted"),
    [
        (5, 5), (-5, -5), (5.0, 5), (5.5, 0), (" 5 ", 5), ("-5", 0), ("5.0", 0), (True, 0), (False, 0), (None, 0),
        ("9" * 19, 10**19 - 1), ("9" * 20, 0), (math.inf, 0), ([5], 0),
    ],
)  # fmt: skip
def test_what_fits_an_int(value: object, fitted: int) -> None:
    found = build(Model, {"created": value}).created
    assert (found, type(found)) == (fitted, int)


@pytest.mark.parametrize(
    ("value", "fitted"), [("a", "a"), ("", ""), (5, "5"), (0.5, "0.5"), (True, ""), ([], ""), ({}, "")]
)
def test_what_fits_a_text(value: object, fitted: str) -> None:
    assert build(Model, {"id": value}).id == fitted


def test_a_call_that_begins_while_a_half_is_held() -> None:
    """Without an index, a new id (or a name) begins another call: the half belongs to the one before."""
    calls = [
        {"id": "a", "function": {"name": "f", "arguments": f"x{HIGH}"}},
        {"id": "b", "function": {"name": "g", "arguments": f"{LOW}y"}},
        {"function": {"arguments": HIGH}},
        {"function": {"name": "h", "arguments": f"{LOW}z"}},
    ]
    for values in ([delta(tool_calls=calls)], [delta(tool_calls=[call]) for call in calls]):
        completion = accumulate(chunks(read(sse(*values, FINISH, DONE))))
        found = [(call.id, call.function.arguments) for call in completion.choices[0].message.tool_calls or []]
        assert found == [("a", f"x{LOST}"), ("b", f"{LOST}y{LOST}"), (None, f"{LOST}z")]
