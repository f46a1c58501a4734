"""verdicts.py: the words of what broke a connection, and what is said against it."""

from __future__ import annotations

from typing import Any

import pytest

from deltawire.protocol import (
    ChatCompletionChunk,
    ConnectError,
    Context,
    EmptyReplyError,
    InternalServerError,
    LimitExceededError,
    Limits,
    MalformedEventError,
    ModelList,
    ProxyError,
    RateLimitError,
    ReadError,
    Reply,
    SessionStarted,
    StreamEnded,
    StreamFailed,
    TruncatedStreamError,
    UnexpectedReplyError,
)
from deltawire.protocol.dialects.signals import DONE, EMPTY, TOO_MANY, BadEvent, Signal
from deltawire.protocol.status import ErrorObject
from deltawire.protocol.verdicts import (
    FIRST_BYTES,
    broken,
    cut_off,
    empty,
    is_sound,
    malformed,
    of_signal,
    too_large,
    truncated,
    typed,
    unexpected,
)

CONTEXT = Context(url="http://s/v1", secrets=("sk-it's\\mine", "clé-secrète", "plain-secret"))

# With quotes of one kind, and of both.
SINGLE, DOUBLE = bytearray(b"a')b"), bytearray(b"""q'"')""")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("Connection reset", "Connection reset"),
        ("it said plain-secret", "it said ***"),
        (f"illegal line: {bytearray(b'a b')!r}", "illegal line: 'a b'"),
        (f"illegal line: {bytearray(b'plain-secret x')!r}", "illegal line: '*** x'"),
        # As Python writes it, none of these is what it is.
        (f"illegal line: {bytearray(CONTEXT.secrets[0].encode())!r}", "illegal line: '***'"),
        (f"illegal line: {bytearray(CONTEXT.secrets[1].encode())!r}", "illegal line: '***'"),
        (f"footer: {bytearray(b'x')!r} (expected {bytes(2)!r})", "footer: 'x' (expected b'\\x00\\x00')"),
        (f"both: {SINGLE!r} and {DOUBLE!r}", """both: "a')b" and 'q\\'"\\')'"""),
        (f"long: {bytearray(b'x' * 1000)!r}", f"long: '{'x' * 200}...'"),
        (f"odd: {bytearray(bytes([0, 255, 92, 10]))!r}", "odd: '\\x00\ufffd\\\\'"),
        ("bytearray(b'\\x4 \\u263a')", "'? ?'"),
        ("bytearray(b'é')", "'?'"),
        ("", "OSError"),
    ],
)
def test_what_broke_a_connection(words: str, reason: str) -> None:
    error = broken(OSError(words), CONTEXT)
    assert type(error) is ReadError
    assert str(error) == f"the connection broke (http://s/v1): {reason}"
    assert error.__cause__ is error.__context__ is None


def test_what_says_nothing_against_a_connection() -> None:
    assert is_sound(StreamEnded(True))
    assert is_sound(StreamEnded(False))
    assert is_sound(StreamFailed(InternalServerError("x", status_code=500)))
    for error in (MalformedEventError("x", line="x"), TruncatedStreamError("x"), ReadError("x")):
        assert not is_sound(StreamFailed(error))


# --- Words -----------------------------------------------------------------------------------------

SECRET = "plain-secret"


def test_a_reply_that_ends_too_early() -> None:
    error = truncated("it ends", CONTEXT, " (here)")
    assert type(error) is TruncatedStreamError
    assert str(error) == "it ends (here): the server or a proxy broke it off; try again."
    error = truncated("it ends", CONTEXT, " (here)", OSError(f"reset {SECRET}"), SECRET.encode() + b"x" * 200)
    assert str(error) == (
        f"it ends (reset ***) (here): the server or a proxy broke it off; try again. It begins '***{'x' * 197}...'."
    )


def test_an_event_that_is_no_json() -> None:
    for data, line in ((b"{", "{"), (b" {\n", "{"), (f"{SECRET} {{".encode(), "*** {"), (b"x" * 1500, "x" * 1000)):
        error = malformed("is no JSON", CONTEXT, " (here)", data)
        assert type(error) is MalformedEventError
        assert error.line == line
        assert str(error) == f"an event of the reply is no JSON (here): {line[:500]!r}"


@pytest.mark.parametrize(
    ("signal", "data", "is_so"),
    [
        (BadEvent(b'{"a', "is no JSON"), b'{"a', True),
        (ErrorObject("boom"), b' {"error": "bo', True),
        (ErrorObject("boom"), b'"boo', True),
        (ErrorObject("boom"), b"[", True),
        (ErrorObject("boom"), b"boom", False),
        (ErrorObject("boom", body={"error": "boom"}), b'{"error": "boom"}', False),
        (DONE, b"[DONE]", False),
    ],
)
def test_a_last_event_that_is_cut_off(signal: Any, data: bytes, is_so: bool) -> None:
    """An error's words may be plain; what begins as JSON and does not parse was to be longer."""
    assert cut_off(signal, data) is is_so


def test_a_reply_that_is_none() -> None:
    for body, shown in ((b"<html>", "<html>"), (f" {SECRET}!".encode(), "***!"), (b"x" * 3000, "x" * 2000)):
        error = unexpected("it is no JSON", CONTEXT, " (here)", body)
        assert type(error) is UnexpectedReplyError
        assert error.body == shown.encode()
        assert str(error) == (
            f"it is no JSON (here): check the base URL, and what stands between. It begins {shown[:500]!r}"
        )
    assert FIRST_BYTES == 2000


def test_a_reply_that_says_nothing() -> None:
    error = empty("try again", " (here)")
    assert (type(error), str(error)) == (EmptyReplyError, "the reply is empty (here): try again")


def test_a_reply_that_is_too_large() -> None:
    error = too_large("a line", " (here)", "line", 5)
    assert (type(error), error.limit_name, error.limit) == (LimitExceededError, "line", 5)
    assert str(error) == "a line is larger than 5 bytes (Limits.line) (here): raise it if you expect that"
    assert str(too_large("an event", "", "objects", 5)) == (
        "an event holds more than 5 objects (Limits.objects): raise it if you expect that"
    )


@pytest.mark.parametrize(
    ("signal", "cls", "words"),
    [
        (BadEvent(b"{", "is no JSON"), MalformedEventError, "an event of the reply is no JSON (http://s/v1): '{'"),
        (ErrorObject("boom", code=429), RateLimitError, "an error in the reply (http://s/v1): boom."),
        (EMPTY, EmptyReplyError, "the reply is empty (http://s/v1): the site says that all went well"),
        (
            TOO_MANY,
            LimitExceededError,
            "an event, or the stream, holds more than 7 objects (Limits.objects) (http://s/v1)",
        ),
    ],
)
def test_what_an_event_says_beside_chunks(signal: Signal, cls: type[Exception], words: str) -> None:
    reply = Reply(context=CONTEXT, limits=Limits(objects=7))
    error = of_signal(signal, reply)
    assert type(error) is cls
    assert words in str(error)
    assert of_signal(DONE, reply) is None


# --- Whatever broke a connection -------------------------------------------------------------------


def test_our_errors_stay_as_they_are() -> None:
    for error in (ReadError("it broke"), InternalServerError("x", status_code=500)):
        before = str(error)
        assert typed(error, CONTEXT) is error
        assert str(error) == before


@pytest.mark.parametrize("cls", [ConnectError, ProxyError])
def test_who_connects_knows_nothing_of_what_is_asked_for(cls: type[ConnectError]) -> None:
    error = cls("no connection to s")
    for _ in range(2):  # and it is said once
        assert typed(error, CONTEXT) is error
        assert error.message == str(error) == "no connection to s (http://s/v1)"


def test_other_errors_become_ours() -> None:
    for cause, words in ((OSError(f"reset, {SECRET}"), "reset, ***"), (ValueError(), "ValueError")):
        error = typed(cause, CONTEXT)
        assert (type(error), str(error)) == (ReadError, f"{words} (http://s/v1)")
        assert error.__cause__ is cause


def test_a_page_or_a_session_leaves_its_connection_as_it_is() -> None:
    for event in (SessionStarted("s", "n"), ChatCompletionChunk(), ModelList()):
        assert not is_sound(event), "it is no end"
