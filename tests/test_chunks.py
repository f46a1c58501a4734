"""chunks.py and objects.py: attributes, vendor fields at every level, dumps, copies, memory."""

from __future__ import annotations

import copy
import json
import pickle
import tracemalloc
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from feeding import DONE, FINISH, JSON, SSE, chunks, delta, ended, read, sse

from deltawire.protocol import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    Delta,
    Function,
    Logprobs,
    Message,
    Model,
    ModelList,
    Reply,
    ToolCall,
    ToolCallDelta,
    Usage,
    accumulate,
    has_content,
)
from deltawire.protocol.chunks import TokenLogprob, TopLogprob
from deltawire.protocol.images import ImagesResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from deltawire.protocol import Event
    from deltawire.protocol.objects import Object


def choice_with(mark: str, index: int, whole: bool) -> dict[str, Any]:
    """A choice with a vendor field at each of its levels."""
    call = {
        "index": 0,
        "id": f"c-{mark}",
        "type": "function",
        "function": {"name": "f", "arguments": "{}", "x_function": f"function-{mark}"},
        "x_call": f"call-{mark}",
    }
    top = {"token": "h", "logprob": -2.0, "x_top": f"top-{mark}"}
    token = {"token": "h", "logprob": -1.0, "bytes": [104], "top_logprobs": [top], "x_token": f"token-{mark}"}
    said = {
        "role": "assistant",
        "content": f"hi-{mark}",
        "tool_calls": [call, {**call, "index": 1, "id": "second", "x_call": f"call2-{mark}"}],
        "function_call": {"name": "g", "arguments": "", "x_legacy": f"legacy-{mark}"},
        "audio": {"id": "a", "data": "AA==", "x_audio": f"audio-{mark}"},
        "x_delta": {"deep": [f"delta-{mark}"]},
    }
    return {
        "index": index,
        "message" if whole else "delta": said,
        "finish_reason": "stop",
        "logprobs": {"content": [token, {**token, "x_token": f"token2-{mark}"}], "x_logprobs": f"logprobs-{mark}"},
        "x_choice": f"choice-{mark}",
    }


def payload(whole: bool = False, **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-5",
        "object": "chat.completion" if whole else "chat.completion.chunk",
        "created": 1700000000,
        "model": "m",
        "choices": [choice_with("one", 0, whole), choice_with("two", 1, whole)],
        "usage": {
            "prompt_tokens": 1,
            "completion_tokens": 2,
            "total_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 1, "x_prompt": "prompt"},
            "completion_tokens_details": {"reasoning_tokens": 1, "x_completion": "completion"},
            "cost": 0.5,
        },
        "x_top_level": {"provider": "P"},
        **more,
    }


def one(value: dict[str, Any] | bytes) -> ChatCompletionChunk:
    """The chunk that this one event makes."""
    chunk = read(sse(value))[0]
    assert isinstance(chunk, ChatCompletionChunk)
    return chunk


def whole_of(value: dict[str, Any]) -> tuple[ChatCompletion, ChatCompletionChunk]:
    events = read(json.dumps(value).encode(), headers=JSON)
    completion = ended(events).completion
    assert completion is not None
    return completion, chunks(events)[0]


def check_vendor_fields(thing: Any, said: str) -> None:
    """All vendor fields of `payload` are attributes, at every level."""
    assert thing.x_top_level == {"provider": "P"}
    assert thing.usage.cost == 0.5
    assert thing.usage.prompt_tokens_details.x_prompt == "prompt"
    assert thing.usage.completion_tokens_details.x_completion == "completion"
    for choice, mark in zip(thing.choices, ("one", "two"), strict=True):
        inner = getattr(choice, said)
        assert choice.x_choice == f"choice-{mark}"
        assert inner.x_delta == {"deep": [f"delta-{mark}"]}
        assert [call.x_call for call in inner.tool_calls] == [f"call-{mark}", f"call2-{mark}"]
        assert inner.tool_calls[1].function.x_function == f"function-{mark}"
        assert inner.function_call.x_legacy == f"legacy-{mark}"
        assert inner.audio.x_audio == f"audio-{mark}"
        assert choice.logprobs.x_logprobs == f"logprobs-{mark}"
        assert [token.x_token for token in choice.logprobs.content] == [f"token-{mark}", f"token2-{mark}"]
        assert choice.logprobs.content[0].top_logprobs[0].x_top == f"top-{mark}"
        assert choice.model_extra == {"x_choice": f"choice-{mark}"}
        assert inner.tool_calls[0].function.model_extra == {"x_function": f"function-{mark}"}
    assert thing.model_extra == {"x_top_level": {"provider": "P"}}
    assert thing.usage.model_extra == {"cost": 0.5}


# --- Vendor fields ---------------------------------------------------------------------------------


def test_vendor_fields_of_a_chunk() -> None:
    check_vendor_fields(one(payload()), "delta")


def test_vendor_fields_of_a_whole_reply() -> None:
    completion, chunk = whole_of(payload(whole=True))
    check_vendor_fields(completion, "message")
    check_vendor_fields(chunk, "delta")


def test_vendor_fields_where_the_lenient_decoder_is_needed() -> None:
    check_vendor_fields(one(payload(service_tier=5)), "delta")
    check_vendor_fields(whole_of(payload(whole=True, service_tier=5))[0], "message")


@pytest.mark.parametrize(
    "value",
    [
        {"choices": [{"index": 0, "delta": {"content": "a", "x": 1}, "y": 2}], "z": 3},
        {"choices": [{"index": 0, "delta": {"content": "a", "x": 1}, "y": 2, "finish_reason": "stop"}], "z": 3},
        {"choices": [{"index": 3, "delta": {"content": "a", "x": 1}, "y": 2}], "z": 3},
        {"choices": [{"index": 0, "delta": {"role": "assistant", "x": 1}, "y": 2}], "z": 3, "usage": {}},
    ],
)
def test_vendor_fields_on_each_way_through_the_reader(value: dict[str, Any]) -> None:
    # From the second event on the shortest way is open, since the reply has a name: one choice, nothing but text.
    named = {"id": "r", "model": "m", "created": 1, **value}
    for chunk in chunks(read(sse(named, named))):
        choice: Any = chunk.choices[0]
        assert (choice.delta.x, choice.y, chunk.model_extra) == (1, 2, {"z": 3})


def test_vendor_fields_of_the_list_of_models() -> None:
    body = b'{"object": "list", "data": [{"id": "a"}, {"id": "b", "x": 1}], "y": 2}'
    (found, _) = read(body, headers=JSON, dialect="models")
    assert isinstance(found, ModelList)
    models: Any = found
    assert (models.data[1].x, models.y) == (1, 2)


def test_vendor_fields_stand_in_the_accumulated_completion() -> None:
    completion: Any = accumulate([one(payload())])
    assert completion.x_top_level == {"provider": "P"}
    assert completion.choices[1].x_choice == "choice-two"
    assert completion.choices[1].message.x_delta == {"deep": ["delta-two"]}
    assert completion.choices[1].message.tool_calls[0].x_call == "call-two"
    assert completion.usage.cost == 0.5


def test_an_unknown_name_is_an_attribute_error() -> None:
    chunk = one(payload())
    with pytest.raises(AttributeError, match=r"'ChatCompletionChunk' object has no attribute 'nope'"):
        _ = chunk.nope  # type: ignore[attr-defined]
    assert not hasattr(chunk, "__wrapped__")
    assert not hasattr(ChatCompletionChunk(), "nope")
    assert ChatCompletionChunk().model_extra == {}


def test_odd_names_from_a_server_do_no_harm() -> None:
    odd = {
        "_raw": "evil", "__class__": "evil", "__dict__": {"a": 1}, "_path": ["a"], "model_extra": "evil",
        "to_dict": "evil", "__reduce__": 1, "_extra": 2, "": 0, "declared": 1,
    }  # fmt: skip
    value = {**odd, "choices": [{"index": 0, "delta": {"content": "a", **odd}, **odd}]}
    for chunk in chunks(read(sse(value, value))):
        assert type(chunk) is ChatCompletionChunk
        assert chunk.choices[0].delta.content == "a"
        assert chunk.model_extra == chunk.choices[0].delta.model_extra == odd
        assert chunk.to_dict()["_raw"] == "evil"
        assert pickle.loads(pickle.dumps(chunk)).model_extra == odd
        assert msgspec.json.encode(chunk).count(b"evil") == 0


# --- Attributes and dumps --------------------------------------------------------------------------


def test_the_fields_of_the_openai_sdk() -> None:
    chunk = one(payload(service_tier="flex", system_fingerprint="fp"))
    assert (chunk.id, chunk.object, chunk.created, chunk.model) == (
        "chatcmpl-5",
        "chat.completion.chunk",
        1700000000,
        "m",
    )
    assert (chunk.service_tier, chunk.system_fingerprint) == ("flex", "fp")
    first = chunk.choices[0]
    assert (first.index, first.finish_reason, first.delta.role, first.delta.content) == (
        0,
        "stop",
        "assistant",
        "hi-one",
    )
    assert first.delta.tool_calls is not None
    call = first.delta.tool_calls[0]
    assert call.function is not None
    assert (call.index, call.id, call.type, call.function.name, call.function.arguments) == (
        0,
        "c-one",
        "function",
        "f",
        "{}",
    )
    assert first.logprobs is not None
    assert first.logprobs.content is not None
    assert first.logprobs.content[0].bytes == [104]
    assert chunk.usage is not None
    assert chunk.usage.completion_tokens_details is not None
    assert chunk.usage.completion_tokens_details.reasoning_tokens == 1


def test_what_is_absent_is_none() -> None:
    chunk = one({"choices": [{"delta": {}}]})
    assert (chunk.usage, chunk.service_tier, chunk.choices[0].finish_reason, chunk.choices[0].delta.content) == (
        None,
    ) * 4
    assert (chunk.id, chunk.created, chunk.model, chunk.choices[0].index) == ("", 0, "", 0)
    assert one({}).choices == []


@pytest.mark.parametrize(
    "fields", [{"reasoning_content": "r"}, {"reasoning": "r"}, {"reasoning": "r", "reasoning_content": "r"}]
)
def test_reasoning_has_one_name(fields: dict[str, Any]) -> None:
    chunk = one(delta(**fields))
    assert chunk.choices[0].delta.reasoning_content == "r"
    assert has_content(chunk)
    body = {"choices": [{"message": {"content": "a", **fields}, "finish_reason": "stop"}]}
    completion, chunk = whole_of(body)
    assert completion.choices[0].message.reasoning_content == "r"
    assert chunk.choices[0].delta.reasoning_content == "r"


@pytest.mark.parametrize("whole", [False, True])
def test_to_dict_gives_back_what_the_server_sent(whole: bool) -> None:
    value = payload(whole)
    if not whole:
        assert one(value).to_dict() == value
        assert json.loads(one(value).to_json()) == value
        return
    for choice in value["choices"]:
        for call in choice["message"]["tool_calls"]:
            # An index belongs to deltas; in a message it's a vendor field.
            assert call.pop("index") in (0, 1)
    assert whole_of(value)[0].to_dict() == value


def test_to_dict_keeps_nulls_that_were_sent_and_leaves_out_the_rest() -> None:
    value = {
        "id": "x",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "system_fingerprint": None,
        "choices": [
            {
                "index": 0,
                "delta": {"role": None, "content": "a", "vendor": None},
                "finish_reason": None,
                "logprobs": None,
            },
        ],
        "usage": None,
    }
    chunk = one(value)
    assert chunk.to_dict() == value
    assert "service_tier" not in chunk.to_dict()
    dumped = chunk.model_dump()
    assert dumped["service_tier"] is None
    assert dumped["choices"][0]["delta"]["tool_calls"] is None
    assert "reasoning_content" not in dumped["choices"][0]["delta"], "OpenAI has no such field"
    sparse = chunk.model_dump(exclude_none=True)
    assert "usage" not in sparse
    assert sparse["choices"] == [{"index": 0, "delta": {"content": "a"}}]
    assert chunk.model_dump(mode="json") == dumped
    assert chunk.model_dump(exclude_unset=True) == chunk.to_dict()
    assert chunk.to_dict(exclude_unset=False) == dumped


def test_json_dumps() -> None:
    chunk = one(payload())
    assert json.loads(chunk.model_dump_json()) == chunk.model_dump()
    assert "\n" not in chunk.model_dump_json()
    assert chunk.to_json().startswith('{\n  "id": "chatcmpl-5"')
    assert "\n" not in chunk.to_json(indent=None)
    assert chunk.model_dump_json(indent=4).startswith('{\n    "')


def test_what_code_has_set_is_dumped() -> None:
    chunk = one(payload())
    chunk.model = "other"
    chunk.choices[0].delta.content = "changed"
    dumped = chunk.to_dict()
    assert dumped["model"] == "other"
    assert dumped["choices"][0]["delta"]["content"] == "changed"
    made = ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(content="x"))])
    assert made.to_dict()["choices"] == [{"index": 0, "delta": {"content": "x"}}]


# --- Copies ----------------------------------------------------------------------------------------

COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    *(lambda thing, protocol=protocol: pickle.loads(pickle.dumps(thing, protocol)) for protocol in range(2, 6)),
]


@pytest.mark.parametrize("duplicate", COPIES)
@pytest.mark.parametrize("touched", [False, True])
def test_copies_keep_everything(duplicate: Callable[[Any], Any], touched: bool) -> None:
    chunk = one(payload())
    completion, _ = whole_of(payload(whole=True))
    if touched:
        assert chunk.model_extra
        assert completion.choices[1].message.model_extra
    twin = duplicate(chunk)
    assert twin == chunk
    assert twin is not chunk
    assert twin.to_dict() == chunk.to_dict()
    check_vendor_fields(twin, "delta")
    check_vendor_fields(duplicate(duplicate(completion)), "message")
    for part in (chunk.choices[1], chunk.choices[1].delta, chunk.usage, accumulate([chunk]), ChatCompletionChunk()):
        assert part is not None
        assert duplicate(part).to_dict() == part.to_dict()


@pytest.mark.parametrize("cls", [ChatCompletionChunk, ChatCompletion, ModelList, ImagesResponse])
def test_the_provider_is_known_to_copies_or_nobody_said(cls: type[Any]) -> None:
    assert cls().provider == ""
    thing = cls()
    thing._provider = "Mine"
    for duplicate in COPIES:
        assert duplicate(cls()).provider == ""
        assert duplicate(thing).provider == "Mine"
    assert not hasattr(Delta(), "provider")


def test_a_deep_copy_shares_nothing() -> None:
    chunk = one(payload())
    twin = copy.deepcopy(chunk)
    twin.choices[0].delta.content = "changed"
    twin.model_extra["x_top_level"]["provider"] = "Q"
    assert chunk.choices[0].delta.content == "hi-one"
    check_vendor_fields(chunk, "delta")
    shallow = copy.copy(chunk)
    assert shallow.choices is chunk.choices
    shallow.model_extra["new"] = 1
    assert "new" not in chunk.model_extra


# --- What must never be encoded --------------------------------------------------------------------


def objects_in(thing: Object) -> list[Object]:
    found = [thing]
    for name in thing.__struct_fields__:
        value = getattr(thing, name)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, msgspec.Struct):
                found += objects_in(item)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("touched", [False, True])
def test_no_encoder_sees_the_payload_or_vendor_fields(touched: bool) -> None:
    completion, chunk = whole_of(payload(whole=True))
    for thing in (*objects_in(one(payload())), *objects_in(completion), *objects_in(chunk)):
        if touched:
            assert isinstance(thing.model_extra, dict)
        for encoded in (msgspec.json.encode(thing), msgspec.msgpack.encode(thing), repr(thing).encode()):
            assert b"x_" not in encoded
            assert b"cost" not in encoded
            assert b"_raw" not in encoded
            assert b"null" not in encoded
        assert "_raw" not in msgspec.to_builtins(thing)


def test_equality_is_about_fields() -> None:
    assert one(delta("a")) == one(delta("a"))
    assert one(delta("a")) != one(delta("b"))
    assert one({**delta("a"), "x": 1}) == one({**delta("a"), "x": 2})


def test_defaults_are_not_shared() -> None:
    ChatCompletionChunk().choices.append(ChunkChoice())
    ModelList().data.append(None)  # type: ignore[arg-type]
    assert ChatCompletionChunk().choices == []
    assert ModelList().data == []
    call = ToolCall()
    call.function.name = "f"
    assert ToolCall().function == Function()


def test_what_is_absent_is_zero_or_nothing() -> None:
    assert TopLogprob().to_dict(exclude_unset=False) == {"token": "", "logprob": 0.0, "bytes": None}
    assert TokenLogprob().to_dict(exclude_unset=False) == {
        "token": "", "logprob": 0.0, "bytes": None, "top_logprobs": None
    }  # fmt: skip
    assert (ChunkChoice().index, Choice().index) == (0, 0)
    assert Model().to_dict() == {"id": "", "created": 0, "object": "model", "owned_by": ""}
    for answer in (ChatCompletionChunk(), ChatCompletion()):
        assert (answer.id, answer.created, answer.model) == ("", 0, "")
    assert ChatCompletionChunk().object == "chat.completion.chunk"
    assert ChatCompletion().object == "chat.completion"
    assert ModelList().object == "list"


def test_reasoning_under_both_names_stays_as_it_is() -> None:
    said = one(delta(reasoning_content="a", reasoning="b")).choices[0].delta
    assert (said.reasoning_content, said.reasoning) == ("a", "b")
    odd = one(delta(reasoning={"x": 1})).choices[0].delta
    assert (odd.reasoning_content, odd.reasoning) == (None, {"x": 1})


# --- Content ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"content": "a"},
        {"content": " "},
        {"reasoning_content": "r"},
        {"reasoning": "r"},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0, "id": "c"}]},
        {"tool_calls": [{}]},
        {"function_call": {"name": "f"}},
        {"function_call": {"arguments": "{"}},
        {"audio": {"data": "AA=="}},
        {"audio": {"transcript": "hm"}},
    ],
)
def test_what_is_content(fields: dict[str, Any]) -> None:
    assert has_content(one(delta(**fields)))
    assert has_content(one({"choices": [{"index": 0, "delta": {}}, {"index": 1, "delta": fields}]}))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"content": ""},
        {"content": None},
        {"role": "assistant"},
        {"reasoning_content": ""},
        {"reasoning": ""},
        {"refusal": ""},
        {"refusal": None},
        {"tool_calls": []},
        {"tool_calls": None},
        {"function_call": None},
        {"function_call": {}},
        {"audio": None},
        {"audio": {}},
        {"vendor": "x"},
    ],
)
def test_what_is_no_content(fields: dict[str, Any]) -> None:
    assert not has_content(one(delta(**fields)))
    assert not has_content(one(delta(finish="stop", **fields)))


def test_usage_and_empty_choices_are_no_content() -> None:
    assert not has_content(one({"choices": [], "usage": {"total_tokens": 1}}))
    assert not has_content(ChatCompletionChunk())


# --- Memory ----------------------------------------------------------------------------------------


def kept_by(count: int, one_by_one: bool) -> float:
    """Bytes that each chunk of a 256-byte event keeps."""
    value = {**delta("some text"), "created": 1700000000, "model": "gpt-4o-mini", "system_fingerprint": "fp_0123456789"}
    event = sse({**value, "pad": ""})
    event = sse({**value, "pad": "x" * (256 - len(event))})
    assert len(event) == 256
    reply = Reply()
    reply.start(200, SSE)
    reply.receive(sse({**value, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}))
    stream = event * count
    step = 256 if one_by_one else 64 * 1024
    found: list[Event] = []
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for start in range(0, len(stream), step):
            found += reply.receive(stream[start : start + step])
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(found) == count
    assert len(reply.receive(sse(FINISH, DONE))) == 2
    return kept / count


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_chunk_keeps_less_than_a_kilobyte(one_by_one: bool) -> None:
    few, many = kept_by(1000, one_by_one), kept_by(5000, one_by_one)
    assert many < 1024
    assert many < few * 1.1, "memory grows with the number of chunks, not faster"


def test_reading_a_vendor_field_drops_the_payload() -> None:
    chunk = one({**delta("a"), "pad": "x" * 100_000})
    part: Any = chunk.choices[0].delta
    assert part.model_extra == {}
    assert not isinstance(part._raw, (bytes, tuple))


# --- Types -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cls", [ChatCompletionChunk, ChatCompletion, Delta, Message, Usage, ToolCall, ToolCallDelta, Logprobs]
)
def test_every_field_may_be_absent(cls: type[Object]) -> None:
    made = cls()
    assert made.to_dict() == type(made)().to_dict()
    assert "_raw" not in cls.__struct_fields__


def test_a_list_of_models_is_iterable() -> None:
    models = [Model(id="a"), Model(id="b")]
    assert list(ModelList(data=models)) == models
    assert list(ModelList()) == []
