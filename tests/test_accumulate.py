"""accumulate.py: every rule of its docstring, and linear work."""

from __future__ import annotations

import json
import math
import random
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from feeding import FINISH, JSON, chunks, delta, ended, read, sse

from deltawire.protocol import (
    Accumulator,
    Audio,
    ChatCompletionChunk,
    ChunkChoice,
    Delta,
    Function,
    Reply,
    StatusChunk,
    ToolCallDelta,
    Usage,
    accumulate,
)
from deltawire.protocol.accumulate import PACKED, Text
from deltawire.protocol.objects import with_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from deltawire.protocol import ChatCompletion, Choice


def fold(*values: object) -> ChatCompletion:
    """The completion that a stream of these events makes."""
    return accumulate(chunks(read(sse(*values))))


def first(*values: object) -> Choice:
    return fold(*values).choices[0]


def calls(*fragments: Any) -> list[tuple[str | None, str | None, str | None]]:
    """(id, name, arguments) of the calls that these deltas make; a list of fragments is one delta."""
    deltas = (delta(tool_calls=each if isinstance(each, list) else [each]) for each in fragments)
    found = first(*deltas).message.tool_calls
    return [(call.id, call.function.name, call.function.arguments) for call in found or ()]


def fragment(
    index: int | None = None, id: str | None = None, name: str | None = None, arguments: str | None = None
) -> Any:
    """A fragment with the fields that are given."""
    inner = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    outer: dict[str, Any] = {"function": inner} if inner else {}
    return outer | {key: value for key, value in (("index", index), ("id", id)) if value is not None}


# --- What appends, and what is set once -------------------------------------------------------------


def test_content_reasoning_and_refusal_append() -> None:
    message = first(
        delta("a", reasoning_content="x", refusal="n"), delta("b"), delta(reasoning="y", refusal="o"), FINISH
    ).message
    assert (message.content, message.reasoning_content, message.refusal) == ("ab", "xy", "no")


def test_role_and_model_are_set_once() -> None:
    completion = fold(*({**delta("a", role="assistant"), "model": f"m{number}"} for number in range(3)))
    assert completion.choices[0].message.role == "assistant"
    assert completion.model == "m0"
    assert first(delta("a", role=""), delta("b", role="tool"), delta("c", role="assistant")).message.role == "tool"
    assert first(delta("a")).message.role == "assistant", "nobody else answers"


def test_nothing_is_none_and_empty_text_is_empty_text() -> None:
    assert first(delta(role="assistant"), FINISH).message.content is None
    assert first(delta(""), FINISH).message.content == ""
    message = first(delta(role="assistant", content=None), FINISH).message
    assert (message.content, message.refusal, message.reasoning_content) == (None, None, None)
    assert (message.tool_calls, message.function_call, message.audio) == (None, None, None)


@pytest.mark.parametrize("later", [{"finish_reason": None}, {"finish_reason": ""}, {}])
def test_a_finish_reason_is_not_erased(later: dict[str, Any]) -> None:
    assert first(FINISH, {"choices": [{"index": 0, "delta": {}, **later}]}).finish_reason == "stop"


def test_the_last_finish_reason_stays() -> None:
    assert first(FINISH, delta(finish="tool_calls")).finish_reason == "tool_calls"


def test_usage_is_the_last_and_no_sum() -> None:
    def usage(total: int | None) -> dict[str, Any]:
        return {**delta("a"), "usage": None if total is None else {"total_tokens": total}}

    found = fold(usage(None), usage(1), usage(2), usage(3), usage(None), delta("b")).usage
    assert found is not None
    assert found.total_tokens == 3
    assert fold(delta("a")).usage is None
    assert fold({"choices": [], "usage": {"total_tokens": 7}}).usage == Usage(total_tokens=7)


def test_the_head_of_a_completion() -> None:
    azure = {"id": "", "choices": [], "created": 0, "model": "", "prompt_filter_results": []}
    named = {**delta("a"), "id": "x", "created": 9, "model": "m", "system_fingerprint": "fp1"}
    last = {**delta("b"), "id": "y", "created": 10, "model": "n", "system_fingerprint": "fp2", "service_tier": "flex"}
    completion = fold(azure, named, last)
    assert (completion.id, completion.created, completion.model) == ("x", 9, "m")
    assert (completion.system_fingerprint, completion.service_tier) == ("fp2", "flex")
    assert completion.object == "chat.completion"
    assert fold(named, delta("b")).system_fingerprint == "fp1", "a later null erases nothing"


def test_nothing_makes_an_empty_completion() -> None:
    completion = accumulate([])
    assert completion.choices == []
    assert completion.usage is None
    assert (Accumulator().empty, Accumulator().finished, Accumulator().complete) == (True, False, False)


def test_n_choices_in_any_order() -> None:
    two_in_one = {"choices": [{"index": 2, "delta": {"content": "c"}}, {"index": 0, "delta": {"content": "a"}}]}
    completion = fold(delta("b", index=1), two_in_one, delta("B", index=1, finish="length"), delta("A", finish="stop"))
    assert [(c.index, c.message.content, c.finish_reason) for c in completion.choices] == [
        (0, "aA", "stop"),
        (1, "bB", "length"),
        (2, "c", None),
    ]


def test_finished_and_complete() -> None:
    accumulator = Accumulator()
    steps = [
        (delta("a"), False, False),
        (delta("b", index=1), False, False),
        (FINISH, True, False),
        ({"choices": [], "usage": {}}, True, False),
        (delta(index=1, finish="stop"), True, True),
    ]
    for value, finished, complete in steps:
        accumulator.add(chunks(read(sse(value)))[0])
        assert (accumulator.empty, accumulator.finished, accumulator.complete) == (False, finished, complete)


def test_the_accumulator_goes_on() -> None:
    accumulator = Accumulator()
    accumulator.add(ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(content="a"))]))
    before = accumulator.completion()
    accumulator.add(ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(content="b"))]))
    assert before.choices[0].message.content == "a"
    assert accumulator.completion().choices[0].message.content == "ab"
    assert accumulator.completion() == accumulator.completion()


def test_half_a_stream_gives_half_a_completion() -> None:
    choice = first(delta("a"), delta(tool_calls=[fragment(0, "c", "f", '{"a')]))
    assert choice.finish_reason is None
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].function.arguments == '{"a'


def test_takes_any_iterable() -> None:
    def some() -> Iterable[ChatCompletionChunk]:
        yield ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(content="a"))])

    assert accumulate(some()).choices[0].message.content == "a"


def test_the_chunks_stay_as_they_are() -> None:
    found = chunks(read(sse(delta("a", tool_calls=[fragment(0, "c", "f", "{")]), delta("b", citations=[1]), FINISH)))
    before = [chunk.to_dict() for chunk in found]
    accumulate(found)
    accumulate(found)
    assert [chunk.to_dict() for chunk in found] == before


# --- Tool calls ------------------------------------------------------------------------------------


def test_arguments_append() -> None:
    assert calls(fragment(0, "c", "f", ""), fragment(0, arguments='{"a"'), fragment(0, arguments=":1}")) == [
        ("c", "f", '{"a":1}')
    ]


@pytest.mark.parametrize("indices", [(0, 1), (1, 2), (3, 7), (0, 5), (-1, 0)])
def test_an_index_is_a_key_and_no_position(indices: tuple[int, int]) -> None:
    one, two = indices
    assert calls(
        fragment(one, "a", "f"),
        fragment(two, "b", "g"),
        fragment(one, arguments="1"),
        fragment(two, arguments="2"),
        [fragment(two, arguments="3"), fragment(one, arguments="4")],
    ) == [("a", "f", "14"), ("b", "g", "23")]


def test_calls_come_in_the_order_of_their_indices() -> None:
    assert [name for _, name, _ in calls(fragment(2, "c", "h"), fragment(0, "a", "f"), fragment(1, "b", "g"))] == [
        "f",
        "g",
        "h",
    ]


def test_a_new_id_on_an_index_in_use_is_a_new_call() -> None:
    assert calls(
        fragment(0, "a", "f", "1"), fragment(0, arguments="2"), fragment(0, "b", "f", "3"), fragment(0, arguments="4")
    ) == [("a", "f", "12"), ("b", "f", "34")]


def test_back_to_an_earlier_id_of_the_index() -> None:
    assert calls(
        fragment(0, "a", "f", "1"),
        fragment(0, "b", "f", "2"),
        fragment(0, "a", arguments="3"),
        fragment(0, arguments="4"),
    ) == [("a", "f", "134"), ("b", "f", "2")]


@pytest.mark.parametrize("repeated", [{"id": "a"}, {"id": ""}, {"id": None}, {}])
@pytest.mark.parametrize("name", [{"name": "f"}, {"name": ""}, {"name": None}, {}])
def test_repeated_ids_and_names_change_nothing(repeated: dict[str, Any], name: dict[str, Any]) -> None:
    later = {"index": 0, "type": "function", "function": {"arguments": "2", **name}, **repeated}
    start = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "1"}}
    assert calls(start, later, {**later, "function": {**later["function"], "arguments": None}}) == [("a", "f", "12")]


def test_name_and_type_of_a_call_are_set_once_by_their_first_value() -> None:
    start = {**fragment(0, "a", "f", "1"), "type": "custom"}
    found = first(delta(tool_calls=[start]), delta(tool_calls=[{**fragment(0, "a", "g", "2"), "type": "function"}]))
    (call,) = found.message.tool_calls or []
    assert (call.type, call.function.name, call.function.arguments) == ("custom", "f", "12")
    late = first(delta(tool_calls=[fragment(0, "a", "f")]), delta(tool_calls=[{"index": 0, "type": "custom"}]))
    assert [call.type for call in late.message.tool_calls or []] == ["custom"]


def test_an_id_or_a_name_may_come_late() -> None:
    assert calls(fragment(0, arguments="1"), fragment(0, "a", "f", "2")) == [("a", "f", "12")]


def test_without_an_index_by_id() -> None:
    assert calls(
        [fragment(id="a", name="f", arguments="1"), fragment(id="b", name="f", arguments="2")],
        fragment(id="a", arguments="3"),
        fragment(id="b", arguments="4"),
        fragment(arguments="5"),
    ) == [("a", "f", "13"), ("b", "f", "245")]


def test_without_index_and_id_by_name_else_the_latest() -> None:
    assert calls(
        fragment(name="f", arguments="1"),
        fragment(arguments="2"),
        fragment(name="f", arguments="3"),
        fragment(arguments="4"),
    ) == [(None, "f", "12"), (None, "f", "34")]
    assert calls(fragment(arguments="1"), fragment(arguments="2")) == [(None, None, "12")]


def test_fragments_with_and_without_an_index() -> None:
    assert calls(fragment(0, "a", "f", "1"), fragment(arguments="2"), fragment(id="a", arguments="3")) == [
        ("a", "f", "123")
    ]


def test_calls_of_different_choices_are_different() -> None:
    completion = fold(
        delta(tool_calls=[fragment(0, "a", "f", "1")]),
        delta(index=1, tool_calls=[fragment(0, "b", "g", "2")]),
        delta(tool_calls=[fragment(0, arguments="3")]),
    )
    found = [choice.message.tool_calls for choice in completion.choices]
    assert [[(call.id, call.function.arguments) for call in each or ()] for each in found] == [
        [("a", "13")],
        [("b", "2")],
    ]


def test_the_type_of_a_call() -> None:
    found = first(
        delta(tool_calls=[fragment(0, "a", "f"), {**fragment(1, "b", "g"), "type": "custom"}])
    ).message.tool_calls
    assert found is not None
    assert [call.type for call in found] == ["function", "custom"]


def test_no_arguments_are_an_empty_text() -> None:
    assert calls(fragment(0, "a", "f")) == [("a", "f", "")]


@pytest.mark.parametrize("nothing", [None, []])
def test_no_calls_are_none(nothing: object) -> None:
    assert first(delta("a", tool_calls=nothing), FINISH).message.tool_calls is None


def test_any_cut_of_the_arguments_gives_the_same_calls() -> None:
    chance = random.Random(5)
    arguments = {"a": json.dumps({"text": "x" * 50}), "b": json.dumps(list(range(30)))}
    for _ in range(20):
        left = dict(arguments)
        fragments = [fragment(0, "a", "f"), fragment(4, "b", "g")]
        while any(left.values()):
            key = chance.choice([key for key, rest in left.items() if rest])
            size = chance.randrange(1, 12)
            fragments.append(fragment(0 if key == "a" else 4, arguments=left[key][:size]))
            left[key] = left[key][size:]
        assert calls(*fragments) == [("a", "f", arguments["a"]), ("b", "g", arguments["b"])]


def test_the_legacy_function_call() -> None:
    message = first(
        delta(function_call={"name": "f", "arguments": ""}),
        delta(function_call={"name": "f", "arguments": '{"a"'}),
        delta(function_call={"name": None, "arguments": ":1}"}),
        delta(function_call=None, finish="function_call"),
    ).message
    assert message.function_call == Function(name="f", arguments='{"a":1}')
    assert message.tool_calls is None


# --- Audio and logprobs ----------------------------------------------------------------------------


def test_audio_appends() -> None:
    audio = first(
        delta(audio={"id": "a", "transcript": "he"}),
        delta(audio={"data": "AA", "id": "a"}),
        delta(audio={"data": "BB", "transcript": "llo"}),
        delta(audio={"expires_at": 5}),
        delta(audio={"expires_at": None}),
    ).message.audio
    assert audio == Audio(id="a", data="AABB", transcript="hello", expires_at=5)


def test_logprobs_append() -> None:
    def token(text: str) -> dict[str, Any]:
        return {"token": text, "logprob": -0.5, "bytes": None, "top_logprobs": []}

    def chunk(**logprobs: Any) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": {"content": "x"}, "logprobs": logprobs or None}]}

    logprobs = first(
        chunk(content=[token("a")]),
        chunk(),
        chunk(content=[token("b"), token("c")], refusal=None),
        chunk(refusal=[token("r")]),
        chunk(content=None),
    ).logprobs
    assert logprobs is not None
    assert [each.token for each in logprobs.content or ()] == ["a", "b", "c"]
    assert [each.token for each in logprobs.refusal or ()] == ["r"]
    assert first(chunk()).logprobs is None
    empty = first(chunk(content=[])).logprobs
    assert empty is not None
    assert (empty.content, empty.refusal) == ([], None)


# --- Vendor fields ---------------------------------------------------------------------------------


def test_vendor_fields_at_the_top_keep_the_last_value() -> None:
    completion: Any = fold(
        {**delta("a"), "provider": "one", "list": [1]},
        {**delta("b"), "provider": "two", "list": [2]},
        {**delta("c"), "provider": None},
    )
    assert (completion.provider, completion.list) == ("two", [2])
    assert fold({**delta("a"), "nothing": None}).model_extra == {"nothing": None}


def test_vendor_lists_inside_a_delta_extend() -> None:
    message: Any = first(
        delta("a", citations=["x"], score=1, details=[{"type": "t", "text": "1"}]),
        delta("b", citations=["y", "z"], score=2),
        delta("c", citations=None, score=None, details=[{"type": "t", "text": "2"}]),
    ).message
    assert (message.citations, message.score) == (["x", "y", "z"], 2)
    assert [detail["text"] for detail in message.details] == ["1", "2"]


def test_vendor_fields_of_choices_and_calls() -> None:
    choice: Any = first(
        {"choices": [{"index": 0, "delta": {"content": "a"}, "native_finish_reason": None}]},
        {
            "choices": [
                {
                    "index": 0,
                    "delta": {"tool_calls": [{**fragment(0, "c", "f"), "signature": "s"}]},
                    "native_finish_reason": "STOP",
                }
            ]
        },
        delta(tool_calls=[fragment(0, arguments="{}")]),
    )
    assert choice.native_finish_reason == "STOP"
    assert choice.message.tool_calls[0].signature == "s"


def test_a_status_line_is_no_part_of_the_reply() -> None:
    status = with_extra(StatusChunk(), {"data": "Thinking...", "subtype": "thinking"})
    text = ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(content="a"))])
    whole = accumulate([status, text, status])
    assert whole.choices[0].message.content == "a"
    assert whole.model_extra == {}
    accumulator = Accumulator()
    accumulator.add(status)
    assert accumulator.empty


def test_extras_can_be_left_out() -> None:
    accumulator = Accumulator(extras=False)
    for chunk in chunks(read(sse({**delta("a", x=1), "y": 2}))):
        accumulator.add(chunk)
    assert accumulator.completion().model_extra == {}
    assert accumulator.completion().choices[0].message.model_extra == {}


def test_the_chunk_of_a_whole_reply_makes_that_reply() -> None:
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "a", "x": 1}, "finish_reason": "stop", "y": 2}
        ],
        "z": 3,
    }
    events = read(json.dumps(body).encode(), headers=JSON)
    folded = accumulate(chunks(events))
    assert folded.to_dict() == body
    assert folded.choices[0].model_extra == {"y": 2}
    completion = ended(events).completion
    assert completion is not None
    assert completion.to_dict() == body


# --- Linear work -----------------------------------------------------------------------------------


class Counting(list[Any]):
    """A list that counts the items that are copied out of it, or out of what it's added to."""

    copied = 0

    def __add__(self, other: Any) -> Any:
        Counting.copied += len(self) + len(other)
        return Counting([*self, *other])


def copied_items(count: int) -> int:
    Counting.copied = 0
    accumulator = Accumulator()
    for number in range(count):
        piece = with_extra(Delta(content="x"), {"citations": Counting([number])})
        accumulator.add(ChatCompletionChunk(choices=[ChunkChoice(delta=piece)]))
    assert len(accumulator.completion().choices[0].message.model_extra["citations"]) == count
    return Counting.copied


def test_vendor_lists_are_not_copied_anew_for_each_chunk() -> None:
    assert copied_items(2000) <= 20 * 2000


def python_calls(count: int) -> int:
    """How many function calls it takes to fold this many chunks of all kinds."""
    found = []
    for number in range(count // 4):
        found += [
            ChunkChoice(delta=Delta(content="x")),
            ChunkChoice(delta=Delta(reasoning_content="y"), index=1),
            ChunkChoice(
                delta=Delta(tool_calls=[ToolCallDelta(index=number % 50, function=Function(arguments="z"))]), index=2
            ),
            ChunkChoice(delta=Delta(audio=Audio(data="A")), index=3),
        ]
    made = [ChatCompletionChunk(choices=[choice]) for choice in found]
    calls = 0

    def count_call(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count_call)
    try:
        accumulate(made)
    finally:
        sys.setprofile(None)
    return calls


def test_the_work_is_linear_in_the_number_of_chunks() -> None:
    few, many = python_calls(1000), python_calls(8000)
    assert many < few * 8.4


def test_fifty_thousand_chunks() -> None:
    # (A string that grows with += in a slot is copied each time: some 10**10 bytes here.)
    piece = "x" * 20
    found = [ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(content=piece, reasoning_content=piece))])] * 50_000
    found += [
        ChatCompletionChunk(
            choices=[
                ChunkChoice(
                    delta=Delta(tool_calls=[ToolCallDelta(index=number, id=f"c{number}", function=Function(name="f"))])
                )
            ]
        )
        for number in range(5000)
    ]
    message = accumulate(found).choices[0].message
    assert message.content == message.reasoning_content == piece * 50_000
    assert len(message.tool_calls or ()) == 5000


def chunk_of_text(text: str) -> ChatCompletionChunk:
    return ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(content=text, reasoning_content=text))])


@pytest.mark.parametrize("add", [Accumulator.add, Accumulator.add_text], ids=["add", "add_text"])
def test_texts_take_little_more_space_than_their_letters(
    add: Callable[[Accumulator, ChatCompletionChunk], None],
) -> None:
    """And each letter is copied once: what is packed stays as it is."""
    accumulator = Accumulator()
    add(accumulator, chunk_of_text("ab"))
    pieces: list[str] = []
    for number in range(10 * PACKED):
        add(accumulator, chunk_of_text(f"{number:04}"))
        text = accumulator.texts[0]
        assert len(text) <= number // PACKED + PACKED + 1
        whole = [piece for piece in text if len(piece) > 4]
        assert all(one is other for one, other in zip(pieces, whole, strict=False))
        pieces = whole
    assert len(pieces) >= 9
    assert all(len(piece) >= 4 * PACKED - 2 for piece in pieces)
    said = "ab" + "".join(f"{number:04}" for number in range(10 * PACKED))
    message = accumulator.completion().choices[0].message
    assert message.content == said
    if add is Accumulator.add:
        assert message.reasoning_content == said


def test_thousands_of_tool_calls_are_linear_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece is looked at for packing where it comes, and not with all that came before."""
    packed = 0
    real = Text.pack

    def counting(text: Text) -> None:
        nonlocal packed
        packed += 1
        real(text)

    monkeypatch.setattr(Text, "pack", counting)
    accumulator = Accumulator()
    for number in range(1000):
        call = ToolCallDelta(index=number, id=f"c{number}", function=Function(name="f", arguments="{}"))
        accumulator.add(ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(tool_calls=[call]))]))
    for _ in range(1000):
        accumulator.add(ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(role="assistant"))]))
    assert packed <= 4 * 2000


def test_a_stream_keeps_its_text_and_little_more() -> None:
    """However many tokens come in a read, and whatever else they hold."""
    for reads in (1, 7, 1000):
        reply = Reply()
        reply.start(200, [(b"content-type", b"text/event-stream")])
        events = []
        for number in range(1000):
            name = "arguments" if number % 3 else "name"
            calls = [{"index": 0, "function": {name: f"{number:04}"}}] if number % 5 == 0 else None
            delta = {"content": f"{number:04}", **({"tool_calls": calls} if calls else {})}
            events.append(b"data: %s\n\n" % msgspec.json.encode({"id": "x", "choices": [{"index": 0, "delta": delta}]}))
        for at in range(0, 1000, reads):
            reply.receive(b"".join(events[at : at + reads]))
        text = reply.accumulator.texts[0]
        assert "".join(text) == "".join(f"{number:04}" for number in range(1000))
        assert len(text) <= 1000 / PACKED + 2 * PACKED


def test_a_chunk_of_text_is_folded_in_as_any_other() -> None:
    for texts in (["a", "", None, "b"], [None, "a"], ["", ""], [None]):
        slow, quick = Accumulator(), Accumulator()
        for text in texts:
            chunk = ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(content=text))])
            slow.add(chunk)
            quick.add_text(chunk)
            assert quick.last is slow.last is chunk
            assert quick.contents == slow.contents
        assert quick.completion() == slow.completion()


def test_a_fragment_may_hold_no_function() -> None:
    """The id first, by itself; what comes after belongs to the latest call."""
    assert calls(
        fragment(0, "a"), fragment(0, None, "f", "{"), fragment(), fragment(arguments="}")
    ) == [("a", "f", "{}")]  # fmt: skip
    assert calls(fragment(), fragment(arguments="{}")) == [(None, None, "{}")]


def test_what_has_been_opened_is_counted() -> None:
    """Choices, and tool calls of theirs: what an accumulator keeps for each of them, however little it says."""
    accumulator = Accumulator()
    assert (accumulator.opened, accumulator.most) == (0, math.inf)
    call = ToolCallDelta(index=0, id="a")
    for fragments, opened in (
        (None, 1),
        ([call], 2),
        ([call, ToolCallDelta(index=1)], 3),
        ([ToolCallDelta(id="a"), ToolCallDelta(id="b"), ToolCallDelta(id="c")], 5),
        ([], 5),
    ):
        accumulator.add(ChatCompletionChunk(choices=[ChunkChoice(index=0, delta=Delta(tool_calls=fragments))]))
        assert accumulator.opened == opened
    accumulator.add(ChatCompletionChunk(choices=[ChunkChoice(index=each, delta=Delta()) for each in (0, 7, 7, -1)]))
    assert accumulator.opened == 7
    assert Accumulator(most=5).most == 5


def test_a_completion_that_nobody_gave_has_no_provider() -> None:
    assert accumulate([]).provider == accumulate(chunks(read(sse(delta("a"))))).provider == ""
