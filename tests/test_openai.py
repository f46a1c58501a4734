"""dialects/openai.py: chunks, whole replies, errors and the end marker, as the events and documents of a server.

(What becomes of a reply is told in test_reply.py.)
"""

from __future__ import annotations

import json

import pytest
from feeding import JSON, ended, failure, read, same, ways

from deltawire.protocol import APIStatusError, ModelList, StreamEnded, TruncatedStreamError, UnexpectedReplyError


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
