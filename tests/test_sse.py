"""sse.py: the vectors, the naive reference of WHATWG HTML 9.2.6 (event_reader.py), limits, and all splits."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from event_reader import BOM, Reference
from feeding import QUICK, at_every_cut, each_byte, pieces, splits, vectors, ways, with_empties
from hypothesis import example, given
from hypothesis import strategies as st

from deltawire.protocol import LimitExceededError, Limits, ServerSentEvent, SSEDecoder
from deltawire.protocol.sse import BlockSplitter, parse_block

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MIB = 1024 * 1024

State = tuple[list[ServerSentEvent], str, "int | None", str]


def feed(parts: Sequence[bytes], limits: Limits | None = None) -> State:
    """(events, last event ID, retry, the error's words) after these reads and the end."""
    decoder = SSEDecoder(limits)
    events = [event for part in parts for event in decoder.receive(part)]
    assert decoder.end() == []
    return events, decoder.last_event_id, decoder.retry, str(decoder.error)


# --- The vectors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", vectors("sse.jsonl"))
def test_vector(vector: dict[str, Any]) -> None:
    for name, parts in ways(vector["input"], vector.get("cuts", ())):
        events, last_event_id, retry, error = feed(parts)
        assert len(events) == len(vector["expect"]), name
        for event, wanted in zip(events, vector["expect"], strict=True):
            seen = {"event": event.event, "data": event.data, "id": event.id or None, "retry": event.retry}
            wanted = {**wanted, "id": wanted["id"] or None} if "id" in wanted else wanted
            assert {key: seen[key] for key in wanted} == wanted, name
        final = vector.get("final", {})
        assert last_event_id == final.get("last_event_id", last_event_id), name
        assert retry == final.get("retry", retry), name
        assert error == "None", name


@pytest.mark.parametrize("vector", vectors("sse.jsonl"))
def test_vector_at_every_cut(vector: dict[str, Any]) -> None:
    data = vector["input"]
    if len(data) > 500:
        data = data[:250] + data[-250:]
    whole = feed([data])
    for name, parts in at_every_cut(data):
        assert feed(parts) == whole, name


# --- The reference (event_reader.py) ----------------------------------------------------------------


TOKENS = st.sampled_from([
    b"\r", b"\n", b"\r\n", b"\n\n", b"\r\r", b"\n\r", b":", b" ", b"\0", BOM, BOM[:1], BOM[1:], b"x",
    b"data", b"data:", b"data: ", b"data: x\n\n", b"data: a\ndata: b\n\n", b"data:y\r\n\r\n", b": ping\n\n",
    b"event", b"event: e\n", b"event:", b"id", b"id: 7\n", b"id:", b"retry", b"retry: 12\n", b"retry:x\n", b"retry: ",
    b"9", b"\xff", b"\xe2\x80\xa8", "é€🚀".encode(), "🚀".encode()[:3], b"\xc2\x85", b"\v", b"\f", b"\x1c",
])  # fmt: skip
STREAMS = st.lists(TOKENS | st.binary(max_size=4), max_size=30).map(b"".join)
LIMITS = st.builds(Limits, line=st.integers(1, 24), event=st.integers(1, 40))


@QUICK
@given(STREAMS)
@example(BOM + BOM + b"data: x\n\n")
@example(b"id: 1\0\nid: 2\ndata\n\nid: 3\n\ndata\n")
@example(b"data: x\r")
@example(b"retry: 5\nretry:\ndata:\n\n")
def test_agrees_with_the_reference(stream: bytes) -> None:
    reference = Reference()
    reference.read(stream)
    assert feed([stream]) == (reference.events, reference.last_event_id, reference.retry, "None")


@QUICK
@given(STREAMS)
def test_agrees_with_the_reference_after_each_byte(stream: bytes) -> None:
    # When a line takes effect: the id at the blank line, retry at the end of its own line.
    decoder = SSEDecoder()
    events = []
    for position in range(len(stream)):
        events += decoder.receive(stream[position : position + 1])
        reference = Reference()
        reference.read(stream[: position + 1])
        assert (events, decoder.last_event_id, decoder.retry) == (
            reference.events,
            reference.last_event_id,
            reference.retry,
        )


@QUICK
@given(STREAMS, LIMITS)
@example(b"a\nbbbb", Limits(line=2, event=3))
@example(b"aaaa\nb", Limits(line=4, event=4))
@example(b"aaaa\n\nb", Limits(line=4, event=4))
@example(b"data: x\n\ndata: y\n\n", Limits(line=7, event=7))
@example(b"data: x\n\ndata: yy\n\n", Limits(line=7, event=7))
def test_limits_agree_with_the_reference(stream: bytes, limits: Limits) -> None:
    reference = Reference(limits)
    reference.read(stream)
    decoder = SSEDecoder(limits)
    assert decoder.receive(stream) == reference.events
    assert decoder.last_event_id == reference.last_event_id
    if reference.error is None:
        assert decoder.error is None
        assert decoder.retry == reference.retry
    else:
        assert decoder.error is not None
        assert decoder.error.limit_name == reference.error
        assert decoder.error.limit == getattr(limits, reference.error)
        assert f"Limits.{reference.error}" in str(decoder.error)


@QUICK
@given(STREAMS.flatmap(lambda stream: st.tuples(st.just(stream), splits(stream))), LIMITS | st.none())
def test_any_split_gives_the_same(stream: tuple[bytes, list[bytes]], limits: Limits | None) -> None:
    whole, parts = stream
    expected = feed([whole], limits)
    assert feed(parts, limits) == expected
    assert feed(with_empties(parts), limits) == expected
    assert feed(each_byte(whole), limits) == expected


@QUICK
@given(st.binary(max_size=200).flatmap(lambda data: st.tuples(st.just(data), splits(data))))
def test_any_bytes_any_split(data: tuple[bytes, list[bytes]]) -> None:
    assert feed([data[0]]) == feed(data[1]) == feed(each_byte(data[0]))


# --- Rules that deserve a name ----------------------------------------------------------------------


def data_of(stream: bytes) -> list[str]:
    return [event.data for event in SSEDecoder().receive(stream)]


def test_a_cr_dispatches_at_once_and_swallows_one_lf() -> None:
    decoder = SSEDecoder()
    assert [event.data for event in decoder.receive(b"data: a\r\r")] == ["a"]
    assert decoder.receive(b"") == []
    # The LF completes the CR LF; a second one is a blank line with nothing to dispatch.
    assert decoder.receive(b"\n") == []
    assert [event.data for event in decoder.receive(b"data: b\n\n")] == ["b"]


def test_an_event_that_nobody_finished_is_dropped() -> None:
    decoder = SSEDecoder()
    assert decoder.receive(b"id: 1\ndata: x\n") == []
    assert decoder.end() == decoder.end() == []
    assert decoder.last_event_id == ""
    assert decoder.receive(b"\n\ndata: late\n\n") == []


def test_retry_counts_from_its_line_also_when_its_event_is_dropped() -> None:
    decoder = SSEDecoder()
    seen = []
    for part in (b"retry: 10", b"\r"):
        decoder.receive(part)
        seen.append(decoder.retry)
    decoder.end()
    assert [*seen, decoder.retry] == [None, 10, 10]


@pytest.mark.parametrize("value", [b"", b" ", b"1.5", b"-1", b"+1", "٣".encode(), b"1 ", b"0x10", b"1e3"])
def test_retry_is_ascii_digits_only(value: bytes) -> None:
    decoder = SSEDecoder()
    (event,) = decoder.receive(b"retry: 7\n\nretry:" + b" " + value + b"\ndata\n\n")
    assert (decoder.retry, event.retry) == (7, None)


def test_an_endless_number_does_no_harm() -> None:
    # Python's int() refuses more than 4,300 digits.
    (event,) = SSEDecoder().receive(b"retry: " + b"9" * 100_000 + b"\ndata\n\n")
    assert event.retry is None


def test_the_type_does_not_outlive_its_block_and_the_id_does() -> None:
    one, two = SSEDecoder().receive(b"event: a\nid: 1\ndata: x\n\nevent: b\n\ndata: y\n\n")
    assert (one.event, one.id, two.event, two.id) == ("a", "1", "message", "1")


def test_names_that_are_no_utf8() -> None:
    (event,) = SSEDecoder().receive(b"event: \xff\nid: \xfe\ndata: x\n\n")
    assert (event.event, event.id) == ("\ufffd", "\ufffd")


def test_what_is_unfinished_is_given_once() -> None:
    splitter = BlockSplitter(Limits())
    splitter.receive(b"data: x\n\ndata: y")
    assert (splitter.end(), splitter.end()) == (b"data: y", b"")


def test_only_lf_cr_and_crlf_end_lines() -> None:
    odd = "\v\f\x1c\x1d\x1e\x85\u2028\u2029"
    assert data_of(f"data: a{odd}b\n\n".encode()) == [f"a{odd}b"]


def test_one_bom_at_the_very_start_only() -> None:
    assert data_of(BOM + b"data: a\n\n" + BOM + b"data: b\n\n") == ["a"]
    assert data_of(BOM + BOM + b"data: a\n\n") == []
    splitter = BlockSplitter(Limits(), at_start=False)
    assert splitter.receive(BOM + b"data: a\n\n") == (False, [BOM + b"data: a"])


def test_a_broken_sequence_does_not_swallow_the_line_end() -> None:
    assert data_of(b"data: \xf0\x9f\ndata: \xe2\x82\n\n") == ["\ufffd\n\ufffd"]


def test_events_are_values() -> None:
    (event,) = SSEDecoder().receive(b"data: a\n\n")
    assert event == ServerSentEvent("message", "a", "", None)
    with pytest.raises(AttributeError):
        event.data = "b"  # type: ignore[misc]


def test_takes_any_bytes_like() -> None:
    decoder: Any = SSEDecoder()
    assert decoder.receive(bytearray(b"data: ")) == []
    assert [event.data for event in decoder.receive(memoryview(b"a\n\n"))] == ["a"]


def test_parse_block_gives_none_for_what_is_not_set() -> None:
    assert parse_block(b": x\nfoo: bar\nretry: a") == (b"", None, None, None)
    assert parse_block(b"data\ndata:\ndata: ") == (b"", b"\n\n", None, None)
    assert parse_block(b"event: e\ndata:  two\nid\nretry:5") == (b"e", b" two", b"", 5)


# --- Limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "limits", "name"),
    [
        (b"data: ok\n\ndata: " + b"x" * 100, Limits(line=50), "line"),
        (b"data: ok\n\n" + b"data: x\n" * 20, Limits(event=50), "event"),
        (b"data: ok\r\n\r\n" + b": comment\r\n" * 20 + b"\r\n", Limits(event=50), "event"),
        (b"data: ok\n\n" + b"x" * 51 + b"\n\ndata: never\n\n", Limits(line=50, event=50), "line"),
    ],
)
def test_over_a_limit_after_the_good_events(stream: bytes, limits: Limits, name: str) -> None:
    for way, parts in at_every_cut(stream):
        decoder = SSEDecoder(limits)
        events = [event for part in parts for event in decoder.receive(part)]
        assert [event.data for event in events] == ["ok"], way
        assert isinstance(decoder.error, LimitExceededError), way
        assert (decoder.error.limit_name, decoder.error.limit) == (name, 50), way
        what = {"line": "a line", "event": "an event"}[name]
        assert str(decoder.error) == f"the event stream holds {what} of more than 50 bytes (Limits.{name})", way
        assert decoder.receive(b"\n\ndata: more\n\n") == [], way
        assert decoder.end() == [], way


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_what_is_just_within_the_limits_passes(end: bytes) -> None:
    line = b"data: " + b"x" * 10
    for _, parts in at_every_cut(line + end + end):
        assert [event.data for event in feed(parts, Limits(line=16, event=16))[0]] == ["x" * 10]
    for _, parts in at_every_cut(line + end + line + end + end):
        assert len(feed(parts, Limits(line=16, event=33))[0]) == 1
        assert "Limits.event" in feed(parts, Limits(line=16, event=32))[3]
        assert "Limits.line" in feed(parts, Limits(line=15, event=33))[3]


def test_blank_lines_for_ever_are_no_event() -> None:
    decoder = SSEDecoder(Limits(line=8, event=8))
    for _ in range(100):
        assert decoder.receive(b"\n" * 50 + b"\r\n" * 50) == []
    assert decoder.error is None
    assert [event.data for event in decoder.receive(b"data: x\n\n")] == ["x"]


def peak_of(work: Callable[[], object]) -> int:
    """The most bytes that the work holds at a time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("start", [b"", b"data: ", b"data: good\n\ndata: "])
def test_an_endless_line_in_pieces_is_held_up_to_the_limit(start: bytes) -> None:
    decoder = SSEDecoder()
    piece = b"x" * (64 * 1024)

    def work() -> None:
        events = decoder.receive(start)
        for _ in range(1024):
            events += decoder.receive(piece)
        assert [event.data for event in events] == ["good"] * start.count(b"good")

    assert peak_of(work) < 1.5 * Limits().line
    assert decoder.error is not None
    assert decoder.error.limit_name == "line"


def test_endless_small_lines_are_held_up_to_the_limit() -> None:
    decoder = SSEDecoder(Limits(event=MIB))
    piece = b": nothing\n" * 1000

    def work() -> None:
        for _ in range(1000):
            assert decoder.receive(piece) == []

    assert peak_of(work) < 1.5 * MIB
    assert decoder.error is not None
    assert decoder.error.limit_name == "event"


@pytest.mark.parametrize("start", [b"", b"data: "])
def test_an_endless_line_in_one_piece_is_not_copied(start: bytes) -> None:
    decoder = SSEDecoder()
    line = start + b"x" * (64 * MIB)
    assert peak_of(lambda: decoder.receive(line)) < Limits().line
    assert decoder.error is not None


def test_a_good_event_before_an_endless_line_in_one_piece() -> None:
    decoder = SSEDecoder()
    stream = b"data: good\n\ndata: " + b"x" * (64 * MIB)
    events: list[ServerSentEvent] = []
    # One copy of the read, at the most; not a second one in the buffer.
    assert peak_of(lambda: events.extend(decoder.receive(stream))) < len(stream) + Limits().line
    assert [event.data for event in events] == ["good"]
    assert decoder.error is not None


def test_the_buffer_is_freed_at_the_error() -> None:
    splitter = BlockSplitter(Limits(line=100))
    splitter.receive(b"x" * 90)
    assert len(splitter.pending) == 90
    splitter.receive(b"x" * 90)
    assert splitter.pending == splitter.end() == b""


def test_a_long_event_byte_by_byte_is_searched_once() -> None:
    # Whoever searches the whole buffer at each read needs some 10**10 steps here.
    decoder = SSEDecoder()
    line = b"data: " + b"x" * 200_000 + b"\n\n"
    (event,) = [event for part in each_byte(line) for event in decoder.receive(part)]
    assert len(event.data) == 200_000
    many = b"".join(b"data: %d\n" % number for number in range(20_000)) + b"\n"
    (event,) = [event for part in pieces(many, range(0, len(many), 7)) for event in decoder.receive(part)]
    assert event.data.count("\n") == 19_999
