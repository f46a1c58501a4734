"""kinds.py: every kind of reply reads its document, or finds the error that stands in its place."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal

import pytest
from feeding import JSON, SSE, failure, read

from deltawire.protocol import (
    ChatCompletion,
    ConfigurationError,
    EmptyReplyError,
    ImagesResponse,
    InternalServerError,
    ModelList,
    Reply,
    SessionStarted,
    StopWords,
    StreamEnded,
    TruncatedStreamError,
    UnexpectedReplyError,
)
from deltawire.protocol.accumulate import Accumulator
from deltawire.protocol.dialects.opchatgpts import OpchatgptsEvents
from deltawire.protocol.dialects.openai import OpenAIEvents
from deltawire.protocol.dialects.signals import DONE, EMPTY
from deltawire.protocol.kinds import KINDS, NoEvents, kind_of, read_blocks, reader_for
from deltawire.protocol.status import ErrorObject

# A good document of each kind.
GOOD: dict[str, tuple[bytes, type[object]]] = {
    "openai": (b'{"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}', ChatCompletion),
    "models": (b'{"data": [{"id": "m"}]}', ModelList),
    "opchatgpts": (b'{"success": true, "reply": "hi"}', ChatCompletion),
    "images": (b'{"data": [{"url": "https://s/1.png"}]}', ImagesResponse),
    "session": (b'{"success": true, "sessionId": "s", "restNonce": "n"}', SessionStarted),
}


def test_each_kind_is_tested_here() -> None:
    assert GOOD.keys() == KINDS.keys() - {"page"}  # whose document is no JSON


@pytest.mark.parametrize("name", GOOD)
def test_a_good_document(name: str) -> None:
    body, cls = GOOD[name]
    assert type(kind_of(name).document(body)) is cls
    first, last = read(body, headers=JSON, dialect=name)
    assert isinstance(last, StreamEnded)
    assert last.finished
    if cls is ChatCompletion:
        assert type(last.completion) is cls
    else:
        assert type(first) is cls


@pytest.mark.parametrize("name", GOOD)
def test_an_error_in_a_document(name: str) -> None:
    body = json.dumps({"error": {"message": "boom", "code": 500}}).encode()
    assert isinstance(kind_of(name).document(body), ErrorObject)
    error = failure(read(body, headers=JSON, dialect=name))
    assert isinstance(error, InternalServerError)
    assert "boom" in str(error)


@pytest.mark.parametrize("name", GOOD)
def test_another_document(name: str) -> None:
    assert kind_of(name).document(b'{"a": 1}') is None
    error = failure(read(b'{"a": 1}', headers=JSON, dialect=name))
    assert isinstance(error, UnexpectedReplyError)
    assert "nothing that was asked for" in str(error)


@pytest.mark.parametrize("name", GOOD)
def test_half_a_document(name: str) -> None:
    body, _ = GOOD[name]
    with pytest.raises(ValueError, match="delimiter"):
        kind_of(name).document(b"[1")
    assert isinstance(failure(read(body[:-2], headers=JSON, dialect=name)), TruncatedStreamError)


def test_what_has_no_streams_is_never_read_as_one() -> None:
    for name in ("models", "session"):
        error = failure(read(b"data: [DONE]\n\n", dialect=name))
        assert isinstance(error, UnexpectedReplyError)
        assert "no JSON" in str(error)


def test_an_unknown_kind_names_those_that_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown dialect 'smoke'.*'openai'.* or ") as caught:
        Reply("smoke")
    assert all(repr(name) in str(caught.value) for name in KINDS)
    with pytest.raises(ConfigurationError, match="unknown dialect"):
        Reply(["openai"])  # type: ignore[arg-type]


def test_a_dialect_that_is_no_chats() -> None:
    for name in ("models", "images", "session", "page"):
        assert kind_of(name) is KINDS[name]
        with pytest.raises(ConfigurationError) as caught:
            kind_of(name, chat=True)
        assert str(caught.value) == (
            f"dialect {name!r} is no chat's, and has no chunks: use 'openai' or 'opchatgpts', or Reply for this one"
        )
    for name in ("openai", "opchatgpts"):
        assert kind_of(name, chat=True) is kind_of(name) is KINDS[name]
    with pytest.raises(ConfigurationError, match=r"^unknown dialect 'smoke': use 'openai' or 'opchatgpts'$"):
        kind_of("smoke", chat=True)
    with pytest.raises(ConfigurationError, match=r"^unknown dialect 'smoke': use 'openai', .*'session' or 'page'$"):
        kind_of("smoke")


# --- How a body is read ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_how_a_body_is_read_that_looks_so(name: str) -> None:
    """A page may begin with anything; where there are no streams, none is read."""
    reads = kind_of(name).reads
    looks: tuple[Literal["events", "document", "neither"], ...] = ("events", "document", "neither")
    if name == "page":
        wanted = ["document"] * 3
    else:
        wanted = ["events" if name in ("openai", "opchatgpts") else "neither", "document", "neither"]
    assert [reads(each) for each in looks] == wanted


@pytest.mark.parametrize("name", KINDS)
def test_the_words_for_what_can_not_be_read(name: str) -> None:
    stream = name in ("openai", "opchatgpts")
    assert kind_of(name).neither == f"the reply is {'neither JSON nor an event stream' if stream else 'no JSON'}"
    for headers in (SSE, JSON, []):
        error = failure(read(b"OK?", headers=headers, dialect=name))
        assert isinstance(error, UnexpectedReplyError) or (stream and headers is SSE)
        assert (kind_of(name).neither in str(error)) is (name != "page" and not (stream and headers is SSE))


@pytest.mark.parametrize("name", ["openai", "models", "images"])
def test_an_error_comes_before_nothing(name: str) -> None:
    """Where there is nothing, its own fields may say why; where there is something, only an "error" is one."""
    document = kind_of(name).document
    for body in (b'{"message": "boom"}', b'{"detail": "boom"}', b'{"error": "boom", "data": [], "choices": []}'):
        found = document(body)
        assert isinstance(found, ErrorObject)
        assert found.message == "boom"
    good, cls = GOOD[name]
    quiet = (b'"message": "boom"', b'"x": "error"', b'"error": null', b'"x": "error", "message": "a", "detail": "b"')
    for more in (*quiet, b'"x": {"error": "boom"}, "detail": ["a"]'):
        assert type(document(b"{%s, %s" % (more, good[1:]))) is cls
    for more in (b'"error": "boom"', b'"error": {"message": "boom"}', b'"object": "error", "message": "boom"'):
        whole = b"{%s, %s" % (more, good[1:])
        for body in (whole, b"[%s]" % whole):
            found = document(body)
            assert isinstance(found, ErrorObject)
            assert found.message == "boom"


@pytest.mark.parametrize(
    "body", [b'{"data": [{"id": "error"}], "message": "1 model"}', b'[{"id": "error"}, {"id": "m"}]']
)
def test_a_model_of_that_name_is_none(body: bytes) -> None:
    found = kind_of("models").document(body)
    assert isinstance(found, ModelList)
    assert found.data[0].id == "error"


def test_no_image_at_all_is_empty() -> None:
    """And that is told, with advice of its own."""
    assert kind_of("images").document(b'{"data": []}') == EMPTY
    found = kind_of("images").document(b'{"data": [], "message": "boom"}')
    assert isinstance(found, ErrorObject), "and if something says why, that is"
    error = failure(read(b'{"data": []}', headers=JSON, dialect="images"))
    assert isinstance(error, EmptyReplyError)
    assert str(error) == "the reply is empty: it holds no image; try again, or ask in other words"


def test_the_words_for_a_page_without_what_was_wanted() -> None:
    error = failure(read(b"<html></html>", headers=JSON, dialect="page"))
    assert isinstance(error, UnexpectedReplyError)
    assert str(error).startswith("the page holds no nonce (restNonce in a data-system attribute)")


# --- Who reads its events --------------------------------------------------------------------------


def test_who_reads_the_events() -> None:
    accumulator = Accumulator()
    assert type(reader_for(KINDS["openai"], accumulator, None)) is OpenAIEvents
    assert type(reader_for(KINDS["opchatgpts"], accumulator, None)) is OpchatgptsEvents
    assert type(reader_for(KINDS["opchatgpts"], accumulator, StopWords("x"))) is OpchatgptsEvents
    for name in ("models", "images", "session", "page"):
        reader = reader_for(KINDS[name], accumulator, None)
        into: list[object] = []
        assert reader.read([b"{}"], into) is None
        reader.flush(into)
        assert type(reader) is NoEvents
        assert into == []
    for name in KINDS.keys() - {"opchatgpts"}:
        with pytest.raises(ConfigurationError, match="stop is for servers that know no stop words"):
            reader_for(KINDS[name], accumulator, StopWords("x"))


class Noted(NoEvents):
    """Notes what it is asked to read, run by run, and stops at a datum that says so."""

    def __init__(self) -> None:
        self.runs: list[tuple[bytes, list[bytes]]] = []

    def read(self, payloads: Iterable[bytes], into: list[Any], event: bytes = b"") -> Any:
        listed = list(payloads)
        self.runs.append((event, listed))
        return DONE if b"stop" in listed else None


@pytest.mark.parametrize(
    ("blocks", "runs"),
    [
        ([], [(b"", [])]),
        ([b"data: a\n", b"data: b\ndata: c\n", b": x\n", b"event: y\n"], [(b"", [b"a", b"b\nc"])]),
        ([b"event: x\ndata: a\n", b"data: b\n"], [(b"", [b"a", b"b"])]),
        (
            [b"data: a\n", b"event: error\ndata: b\n", b"data: c\n", b"event: error\ndata: d\n"],
            [(b"", [b"a"]), (b"error", [b"b"]), (b"", [b"c"]), (b"error", [b"d"]), (b"", [])],
        ),
        ([b"event: error\n", b"data: a\n"], [(b"", [b"a"])]),
        ([b"data: stop\n", b"event: error\ndata: b\n", b"data: c\n"], [(b"", [b"stop"])]),
        ([b"event: error\ndata: stop\n", b"data: c\n"], [(b"", []), (b"error", [b"stop"])]),
        ([b"event: Error\ndata: a\n", b"event: errors\ndata: b\n"], [(b"", [b"a", b"b"])]),
    ],
)
def test_events_are_read_in_runs(blocks: list[bytes], runs: list[tuple[bytes, list[bytes]]]) -> None:
    """As few as there can be, for speed; an "error" by itself, and nothing after what stops."""
    reader = Noted()
    signal = read_blocks(reader, blocks, [])
    assert [run for run in reader.runs if run[1]] == [run for run in runs if run[1]]
    assert (signal == DONE) is (b"stop" in b"".join(blocks))
