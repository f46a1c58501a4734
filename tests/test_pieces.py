"""pieces.py: what each piece is as a text, and what chunks become."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from feeding import DONE, FINISH, QUICK, SSE, at_every_cut, chunks, delta, read, splits, sse
from hypothesis import given

from deltawire.protocol import (
    ChatCompletionChunk,
    ChunkChoice,
    Delta,
    FinishReason,
    Function,
    Image,
    ImageResponse,
    ImagesResponse,
    Piece,
    Pieces,
    Reasoning,
    StatusChunk,
    ToolCall,
    ToolCalls,
    Usage,
    UsageReport,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hypothesis.strategies import SearchStrategy


def told(found: Iterable[ChatCompletionChunk]) -> list[Any]:
    """All that the pieces of these chunks are."""
    machine = Pieces()
    pieces: list[Any] = []
    for chunk in found:
        pieces += machine.receive(chunk)
    pieces += machine.end()
    assert machine.end() == []
    return pieces


def of(*values: object) -> list[Any]:
    return told(chunks(read(sse(*values, FINISH, DONE))))[:-1]


def call(id: str, name: str, arguments: str) -> ToolCall:
    return ToolCall(id=id, type="function", function=Function(name=name, arguments=arguments))


CALLS = [
    delta(tool_calls=[{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x"'}}]),
    delta(tool_calls=[{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": ""}}]),
    delta(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]),
]
USAGE = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.5}}


# --- The machine -----------------------------------------------------------------------------------


def test_text_and_reasoning_come_at_once() -> None:
    machine = Pieces()
    found = chunks(read(sse(delta(role="assistant"), delta(reasoning_content="hm"), delta("a"), delta("b"), FINISH)))
    assert [machine.receive(chunk) for chunk in found] == [[], [Reasoning("hm")], ["a"], ["b"], []]
    assert machine.end() == [FinishReason("stop")]


def test_reasoning_comes_before_the_text_of_its_chunk() -> None:
    assert of(delta("a", reasoning="hm", refusal="no")) == [Reasoning("hm"), "a", "no"]


@pytest.mark.parametrize("fields", [{"content": ""}, {"content": None}, {"reasoning_content": ""}, {"refusal": ""}])
def test_nothing_is_no_piece(fields: dict[str, Any]) -> None:
    assert of({"choices": [{"index": 0, "delta": fields}]}) == []


def test_tool_calls_come_whole_at_the_end() -> None:
    machine = Pieces()
    found = chunks(read(sse(delta("a"), *CALLS, delta(finish="tool_calls"), USAGE, DONE)))
    assert [piece for chunk in found for piece in machine.receive(chunk)] == ["a"]
    calls, usage, finish = machine.end()
    assert calls == ToolCalls([call("a", "f", '{"x":1}'), call("b", "g", "")])
    assert usage == UsageReport(prompt_tokens=1, completion_tokens=2, total_tokens=3)
    assert finish == FinishReason("tool_calls")


@pytest.mark.parametrize("usage_first", [False, True])
def test_the_order_at_the_end_is_always_the_same(usage_first: bool) -> None:
    ends = [USAGE, delta(finish="stop")] if usage_first else [delta(finish="stop"), USAGE]
    names = [type(piece).__name__ for piece in told(chunks(read(sse(*CALLS, *ends, DONE))))]
    assert names == ["ToolCalls", "UsageReport", "FinishReason"]


def test_usage_inside_the_finish_chunk_and_cumulative_usage() -> None:
    counted = [{**delta("a"), "usage": {"total_tokens": number}} for number in (1, 2)]
    last = {**delta("b", finish="stop"), "usage": {"total_tokens": 3}}
    assert told(chunks(read(sse(*counted, last, DONE)))) == [
        "a",
        "a",
        "b",
        UsageReport(total_tokens=3),
        FinishReason("stop"),
    ]


def test_a_null_finish_reason_erases_none() -> None:
    assert told(chunks(read(sse(delta(finish="length"), delta(""), DONE)))) == [FinishReason("length")]


def test_a_legacy_function_call_is_a_tool_call() -> None:
    parts = [delta(function_call={"name": "f", "arguments": "{"}), delta(function_call={"arguments": "}"})]
    legacy = ToolCall(type="function", function=Function(name="f", arguments="{}"))
    assert of(*parts) == [ToolCalls([legacy])]
    # llama.cpp sends both.
    assert of(*parts, *CALLS[1:2]) == [ToolCalls([call("b", "g", "")])]


def test_other_choices_are_not_told() -> None:
    both = {"choices": [{"index": 1, "delta": {"content": "x"}}, {"index": 0, "delta": {"content": "a"}}]}
    other = [{"index": 0, "id": "a", "function": {"name": "f"}}]
    assert of(both, delta("y", index=1, tool_calls=other, finish="stop"), delta(index=1, finish="stop")) == ["a"]


def test_of_nothing_comes_nothing() -> None:
    assert told([]) == []
    assert told([ChatCompletionChunk(), ChatCompletionChunk(choices=[ChunkChoice()])]) == []


def test_a_status_line_is_no_piece() -> None:
    assert told([StatusChunk(), StatusChunk()]) == []


def test_after_the_end_nothing_comes() -> None:
    machine = Pieces()
    assert machine.receive(ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(content="a"))])) == ["a"]
    assert machine.end() == []
    assert machine.receive(ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(content="b"))])) == []
    assert machine.receive(ChatCompletionChunk(usage=Usage(total_tokens=1))) == machine.end() == []


def test_vendor_fields_are_there() -> None:
    signed = delta(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f"}, "signature": "s"}])
    calls, usage = of(signed, USAGE)
    assert next(iter(calls)).signature == "s"
    assert usage.cost == 0.5
    assert usage.to_dict() == USAGE["usage"]


def test_the_chunks_stay_as_they_are() -> None:
    found = chunks(read(sse(delta("a"), *CALLS, USAGE, FINISH)))
    before = [chunk.to_dict() for chunk in found]
    assert told(found) == told(found)
    assert [chunk.to_dict() for chunk in found] == before


STREAM = sse(delta("hé", role="assistant"), delta(reasoning_content="hm"), *CALLS, USAGE, FINISH, DONE)


def joined(pieces: Sequence[Any]) -> list[Any]:
    return [str(piece) if isinstance(piece, str) else piece for piece in pieces]


def test_however_the_bytes_are_cut() -> None:
    whole = joined(told(chunks(read(STREAM))))
    for name, parts in at_every_cut(STREAM):
        assert joined(told(chunks(read(parts, headers=SSE)))) == whole, name


PARTS: SearchStrategy[list[bytes]] = splits(STREAM)


@QUICK
@given(PARTS)
def test_in_any_parts(parts: list[bytes]) -> None:
    assert told(chunks(read(parts))) == told(chunks(read(STREAM)))


# --- The pieces ------------------------------------------------------------------------------------

CALL = call("a", "f", "{}")
EACH = [
    (Reasoning("hm"), "Reasoning(text='hm')"),
    (FinishReason("stop"), "FinishReason(reason='stop')"),
    (ToolCalls([]), "ToolCalls(tool_calls=[])"),
    (UsageReport(total_tokens=3), "UsageReport("),
]


@pytest.mark.parametrize(("piece", "shown"), EACH)
def test_pieces_are_no_text_and_show_themselves(piece: Any, shown: str) -> None:
    assert str(piece) == f"{piece}" == ""
    assert repr(piece).startswith(shown)


@pytest.mark.parametrize("piece", [each for each, _ in EACH])
def test_copies_are_equal(piece: Any) -> None:
    assert copy.deepcopy(piece) == piece
    assert pickle.loads(pickle.dumps(piece)) == piece


def test_pieces_of_different_kinds_or_values_are_different() -> None:
    assert Reasoning("a") != Reasoning("b")
    assert FinishReason("stop") not in [Reasoning("stop"), "stop"]
    assert ToolCalls([CALL]) == ToolCalls([call("a", "f", "{}")]) != ToolCalls([])
    assert len({Reasoning("a"), Reasoning("a"), FinishReason("a")}) == 2


def test_other_names() -> None:
    assert Reasoning("hm").token == "hm"
    calls = ToolCalls([CALL])
    assert calls.list is calls.tool_calls
    assert list(calls) == [CALL]
    assert len(calls) == 1


def test_a_usage_report_is_a_usage() -> None:
    assert isinstance(UsageReport(), Usage)
    assert UsageReport(prompt_tokens=5).model_dump()["prompt_tokens"] == 5


def test_images_are_the_answer() -> None:
    images = ImagesResponse(data=[Image(url="https://s/a.png"), Image(b64_json="iVBORw0KGgo=")])
    piece = ImageResponse(images, "a cat")
    assert str(piece) == "![a cat](https://s/a.png)\n![a cat](data:image/png;base64,iVBORw0KGgo=)"
    assert piece.urls == piece.get_list() == ["https://s/a.png", "data:image/png;base64,iVBORw0KGgo="]
    assert repr(piece).startswith("ImageResponse(images=ImagesResponse(")
    assert piece == ImageResponse(copy.deepcopy(images), "a cat") != ImageResponse(images)
    assert pickle.loads(pickle.dumps(piece)) == piece


def test_the_texts_of_all_pieces_make_the_answer() -> None:
    images = ImageResponse(ImagesResponse(data=[Image(url="u")]))
    pieces: list[str | Piece] = [Reasoning("hm"), "a ", images, ToolCalls([CALL]), UsageReport(), FinishReason("stop")]
    assert "".join(map(str, pieces)) == "a ![](u)"


@pytest.mark.parametrize(
    ("piece", "field"),
    [
        (Reasoning("a"), "text"),
        (ToolCalls([]), "tool_calls"),
        (FinishReason("stop"), "reason"),
        (ImageResponse(ImagesResponse()), "images"),
    ],
)
def test_pieces_stay_as_they_are(piece: Any, field: str) -> None:
    with pytest.raises(AttributeError):
        setattr(piece, field, None)
