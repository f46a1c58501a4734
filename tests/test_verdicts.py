"""verdicts.py: the words of what broke a connection, and what is said against it."""

from __future__ import annotations

import pytest

from deltawire.protocol import (
    Context,
    InternalServerError,
    MalformedEventError,
    ReadError,
    StreamEnded,
    StreamFailed,
    TruncatedStreamError,
)
from deltawire.protocol.verdicts import broken, is_sound

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
