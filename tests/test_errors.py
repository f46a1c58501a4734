"""errors.py: the tree, and pickling."""

from __future__ import annotations

import builtins
import copy
import pickle
from typing import Any

import pytest

import deltawire.protocol as protocol
from deltawire.protocol import (
    APIError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ChatCompletion,
    ChunkChoice,
    ConfigurationError,
    ConflictError,
    ConnectError,
    Delta,
    DeltawireError,
    EmptyReplyError,
    InternalServerError,
    LimitExceededError,
    MalformedEventError,
    MissingAuthError,
    NotFoundError,
    PermissionDeniedError,
    ProviderNotFoundError,
    ProviderNotWorkingError,
    ProxyError,
    RateLimitError,
    ReadError,
    RedirectError,
    RetryNoProviderError,
    RetryProviderError,
    StreamError,
    TimeoutError,
    TransportError,
    TruncatedStreamError,
    UnexpectedReplyError,
    UnprocessableEntityError,
    UsageError,
    accumulate,
)
from deltawire.protocol import errors as module

TREE: dict[type[Exception], tuple[type[Exception], ...]] = {
    DeltawireError: (Exception,),
    ConfigurationError: (DeltawireError, ValueError),
    ProviderNotFoundError: (ConfigurationError,),
    ProviderNotWorkingError: (ConfigurationError,),
    UsageError: (DeltawireError, RuntimeError),
    APIError: (DeltawireError,),
    APIStatusError: (APIError,),
    BadRequestError: (APIStatusError,),
    AuthenticationError: (APIStatusError,),
    MissingAuthError: (AuthenticationError,),
    PermissionDeniedError: (APIStatusError,),
    NotFoundError: (APIStatusError,),
    ConflictError: (APIStatusError,),
    UnprocessableEntityError: (APIStatusError,),
    RateLimitError: (APIStatusError,),
    InternalServerError: (APIStatusError,),
    RedirectError: (APIStatusError,),
    StreamError: (APIError,),
    TruncatedStreamError: (StreamError,),
    MalformedEventError: (StreamError, RuntimeError),
    LimitExceededError: (StreamError,),
    UnexpectedReplyError: (StreamError,),
    EmptyReplyError: (StreamError,),
    TransportError: (DeltawireError,),
    ConnectError: (TransportError,),
    ProxyError: (ConnectError,),
    TimeoutError: (TransportError, builtins.TimeoutError),
    ReadError: (TransportError,),
    RetryProviderError: (DeltawireError,),
    RetryNoProviderError: (DeltawireError,),
}

STATUS: dict[str, Any] = {
    "status_code": 418, "request_id": "r", "retry_after": 1.5, "body": {"a": [1]}, "code": "c", "type": "t",
    "param": "p", "headers": [(b"a", b"b")],
}  # fmt: skip

MADE: list[DeltawireError] = [
    *(cls("words", **STATUS) for cls in TREE if issubclass(cls, APIStatusError)),
    RedirectError("words", location="/x", **STATUS),
    MalformedEventError("words", line="{"),
    LimitExceededError("words", limit_name="line", limit=5),
    UnexpectedReplyError("words", body=b"<html>"),
    ProxyError("words", proxy="http://p:1", status_code=407, reply_code=2, body=b"why", transient=False),
    TimeoutError("words", deadline="idle", seconds=2.0),
    RetryProviderError("words", errors=[ReadError("one"), BadRequestError("two", status_code=400)]),
    *(cls("words", transient=False) for cls in (TransportError, ConnectError, ReadError)),
    *(
        cls("words")
        for cls in (
            DeltawireError, ConfigurationError, ProviderNotFoundError, ProviderNotWorkingError,
            UsageError, APIError, StreamError, TruncatedStreamError,
            EmptyReplyError, RetryNoProviderError,
        )
    ),
]  # fmt: skip


def test_the_tree() -> None:
    found = {
        item: item.__bases__ for item in vars(module).values() if isinstance(item, type) and issubclass(item, Exception)
    }
    assert found == TREE
    for cls in TREE:
        assert getattr(protocol, cls.__name__) is cls
        assert cls.__name__ in protocol.__all__


def test_the_tree_is_drawn_in_the_docstring() -> None:
    assert module.__doc__ is not None
    drawn = [line for line in module.__doc__.splitlines() if "+--" in line]
    assert [line.split("+--")[1].split()[0] for line in drawn] == [
        cls.__name__ for cls in TREE if cls is not DeltawireError
    ]


def test_builtin_names_catch_ours() -> None:
    with pytest.raises(builtins.TimeoutError):
        raise TimeoutError("x")
    with pytest.raises(RuntimeError):
        raise MalformedEventError("x")
    assert issubclass(TimeoutError, OSError), "as the builtin is"


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling_and_copying(error: Any) -> None:
    if isinstance(error, (APIError, TransportError)):
        error.retries_taken = 2
        error.partial = accumulate([protocol.ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(content="half"))])])
    for protocol_number in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol_number))
        check_twin(error, again)
    check_twin(error, copy.copy(error))
    check_twin(error, copy.deepcopy(error))


def check_twin(error: Any, again: Any) -> None:
    assert type(again) is type(error)
    assert str(again) == str(error) == error.message == again.message == "words"
    assert repr(again) == repr(error)
    one, two = dict(vars(error)), dict(vars(again))
    nested = one.pop("errors", []), two.pop("errors", [])
    assert one == two
    assert [repr(each) for each in nested[0]] == [repr(each) for each in nested[1]]
    if isinstance(error, (APIError, TransportError)):
        assert isinstance(again.partial, ChatCompletion)
        assert again.partial.choices[0].message.content == "half"


def test_every_class_is_made_above() -> None:
    assert {type(error) for error in MADE} == set(TREE)


def test_the_defaults() -> None:
    error = APIStatusError("x")
    assert (error.status_code, error.request_id, error.retry_after, error.body, error.headers) == (None,) * 4 + ([],)
    assert (error.retries_taken, error.partial) == (0, None)
    assert TruncatedStreamError("x").partial is None
    assert TruncatedStreamError("x").request_id is None
    assert ConnectError("x").transient
    assert ProxyError("x").transient
    assert (ProxyError("x").status_code, ProxyError("x").reply_code, ProxyError("x").body) == (None, None, b"")
    assert TimeoutError("x").transient
    assert RetryProviderError("x").errors == []
    assert RedirectError("x").location is None
    assert MalformedEventError("x").line == ""
    assert UnexpectedReplyError("x").body == b""
    assert (ConnectError("x").retries_taken, ConnectError("x").gave_up, APIStatusError("x").gave_up) == (0, "", "")
    moved = RedirectError("x", location="/y", **STATUS)
    assert {name: getattr(moved, name) for name in STATUS} == STATUS
    assert moved.message == "x"


# --- Secrets ---------------------------------------------------------------------------------------

KEY = "sk-live-0123456789abcdef"


def test_how_a_proxy_refused() -> None:
    error = ProxyError("x", proxy="http://p", status_code=403, reply_code=5, body=b"no", transient=False)
    assert (error.proxy, error.status_code, error.reply_code) == ("http://p", 403, 5)
    assert (error.body, error.transient) == (b"no", False)
