"""_json.py: JSON as peers really send it; what RFC 8259 forbids and is read all the same, and what is not."""

from __future__ import annotations

import pytest
from feeding import QUICK
from hypothesis import given
from hypothesis import strategies as st

from deltawire.protocol._json import clean, join_surrogates, loads

HIGH, LOW, WAVE = "\ud83d", "\udc4b", "\U0001f44b"
LOST = "\ufffd"


def test_join_surrogates() -> None:
    assert join_surrogates("plain é") == "plain é"
    assert join_surrogates(HIGH + LOW) == WAVE
    assert join_surrogates(LOW + HIGH) == LOST + LOST
    assert clean({HIGH: [LOW, 1, None, {"a": HIGH + LOW}]}) == {LOST: [LOST, 1, None, {"a": WAVE}]}


@QUICK
@given(st.text(alphabet=st.characters() | st.sampled_from([HIGH, LOW, "\udbff", "\ud800", "\udfff"])))
def test_any_text_can_be_encoded_after_joining(value: str) -> None:
    joined = join_surrogates(value)
    joined.encode()
    assert join_surrogates(joined) == joined
    try:
        value.encode()
    except UnicodeEncodeError:
        assert LOST in joined or len(joined) < len(value)
    else:
        assert joined == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'{"a": NaN}', "nan"),
        (b'{"a": -Infinity}', "-inf"),
        (b'{"a": "\xff"}', LOST),
        (b'{"a": "x\ny\x00"}', "x\ny\x00"),
        (b'{"a": "\\ud83d\\udc4b"}', WAVE),
        (b'{"a": "\\ud83d"}', LOST),
        (b'{"a": 1e999}', "inf"),
        (b'{"a": "\xed\xa0\xbd"}', LOST * 3),
    ],
)
def test_loads_takes_what_servers_send(value: bytes, expected: str) -> None:
    assert str(loads(value)["a"]) == expected


@pytest.mark.parametrize(
    "value", [b"", b"{", b"nope", b"{'a': 1}", b'{"a": 1,}', b"\xff", b"[" * 100_000, b'{"a":' * 50_000]
)
def test_loads_raises_value_error_and_nothing_else(value: bytes) -> None:
    with pytest.raises(ValueError):
        loads(value)


def test_loads_takes_numbers_of_any_length() -> None:
    assert loads(b"9" * 100) == int("9" * 100)
    assert loads(b"[NaN, " + b"9" * 10_000 + b"]")[1] == float("inf")
