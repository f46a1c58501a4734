"""_json.py: JSON as peers really send it; what RFC 8259 forbids and is read all the same, and what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from feeding import QUICK
from hypothesis import given
from hypothesis import strategies as st

from deltawire.protocol._json import MAX_DEPTH, clean, is_dense, join_surrogates, loads, loads_keeping_surrogates

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


def test_numbers_that_python_refuses_to_read_are_floats() -> None:
    """CPython reads no int of more than 4,300 digits; NaN makes the whole document one for the lenient reader."""
    assert loads(b"[NaN, " + b"9" * 4000 + b"]")[1] == 10**4000 - 1
    assert loads(b"[NaN, -" + b"9" * 3999 + b"]")[1] == 1 - 10**3999
    assert loads(b"[NaN, " + b"9" * 4001 + b"]")[1] == float("inf")
    assert loads(b"[NaN, -" + b"9" * 4000 + b"]")[1] == float("-inf")


@pytest.mark.parametrize("text", ["null", "true", "-1", "1.5", '"é"', "[]", "{}", ' {"a": [1, {"b": null}]}\n'])
def test_what_is_json_is_read_as_it_is(text: str) -> None:
    found = loads(text.encode())
    assert found == json.loads(text)
    assert type(found) is type(json.loads(text))


def test_lone_surrogates_may_stay() -> None:
    """For who joins halves across documents himself."""
    document = b'{"a": "\\ud83d", "\\udc4b": ["\\ud83d\\udc4b", "\xff"]}'
    assert loads_keeping_surrogates(document) == {"a": HIGH, LOW: [WAVE, LOST]}
    assert loads(document) == {"a": LOST, LOST: [WAVE, LOST]}


def test_what_is_no_text_stays_as_it_is() -> None:
    values: list[object] = [None, True, 5, 1.5, [], {}, (HIGH,)]
    assert [clean(value) for value in values] == clean(values) == values


# --- Depth -----------------------------------------------------------------------------------------

# Each with a level more than it is given; the last two are for the lenient reader.
NESTED: dict[str, Callable[[bytes], bytes]] = {
    "lists": lambda inside: b"[" + inside + b"]",
    "objects": lambda inside: b'{"a":' + inside + b"}",
    "not the first": lambda inside: b'[0,"x",' + inside + b",2]",
    "lists, leniently": lambda inside: b"[" + inside + b",NaN]",
    "objects, leniently": lambda inside: b'{"b":Infinity,"a":' + inside + b"}",
}


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("read", [loads, loads_keeping_surrogates])
def test_as_deep_as_any_api_nests_and_no_deeper(name: str, read: Callable[[bytes], object]) -> None:
    document = b"0"
    for _ in range(MAX_DEPTH):
        document = NESTED[name](document)
        read(document)
    for depth in (1, 2, 500, 100_000):
        with pytest.raises(ValueError, match=r"^the JSON is nested too deeply$"):
            read(deeper(document, name, depth))


def deeper(document: bytes, name: str, levels: int) -> bytes:
    before, after = NESTED[name](b"|").split(b"|")
    return before * levels + document + after * levels


def test_how_deep_that_is() -> None:
    assert MAX_DEPTH == 64


def test_many_brackets_are_not_depth() -> None:
    wide: list[object] = [[] for _ in range(1000)]
    for value in (wide, {"a": wide, "b": {}}, "[" * 1000, ["{" * 1000], {"[" * 1000: 1}):
        document = json.dumps(value).encode()
        assert loads(document) == loads_keeping_surrogates(document) == value
        assert loads(b"[NaN," + document + b"]")[1] == value


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@QUICK
@given(JSON_VALUES)
def test_any_document_is_read_as_the_standard_library_reads_it(value: Any) -> None:
    for ascii_only in (True, False):
        document = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        assert loads(document) == value
        # The lenient reader says the same of what the strict one takes.
        assert clean(loads_keeping_surrogates(document)) == value


@QUICK
@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_a_value_error(document: bytes) -> None:
    try:
        value = loads(document)
    except ValueError:
        return
    # (NaN is not equal to itself.)
    assert repr(value) == repr(clean(loads_keeping_surrogates(document)))


def test_how_many_objects_there_may_be() -> None:
    """They are counted by what begins them; lists are none, and what is short can't hold many."""
    assert not is_dense(b'{"a": [{}, {}]}', 3)
    assert is_dense(b'{"a": [{}, {}]}', 2)
    assert not is_dense(b"[[], [], [], []]", 1)
    assert is_dense(b'"{{{"', 2)
    assert is_dense(b"{{{{", 3)
    assert not is_dense(b"{{{", 3)
