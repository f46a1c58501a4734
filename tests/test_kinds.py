"""kinds.py: every kind of reply reads its document, or finds the error that stands in its place."""

from __future__ import annotations

import json

import pytest
from feeding import JSON, failure, read

from deltawire.protocol import (
    ChatCompletion,
    ConfigurationError,
    ImagesResponse,
    InternalServerError,
    ModelList,
    Reply,
    SessionStarted,
    StreamEnded,
    TruncatedStreamError,
    UnexpectedReplyError,
)
from deltawire.protocol.kinds import KINDS, kind_of
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
