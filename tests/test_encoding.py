"""encoding.py: what is sent is what the caller said; what JSON can't say is refused, and becomes nothing else."""

from __future__ import annotations

import base64
import json
import math
from collections import UserDict
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from feeding import QUICK
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from deltawire.protocol import ConfigurationError, Message
from deltawire.protocol.encoding import check, encode_body, plain

# --- The body --------------------------------------------------------------------------------------


def test_who_wins() -> None:
    """``extra_body`` over the params, these over the fields; None leaves a param out, and is sent by extra_body."""
    body = {"a": 1, "b": 1, "c": 1}
    made = json.loads(encode_body(body, {"b": 2, "c": 2, "d": None, "e": 0}, {"c": 3, "f": None}))
    assert made == {"a": 1, "b": 2, "c": 3, "e": 0, "f": None}
    assert list(made) == ["a", "b", "c", "e", "f"]
    assert json.loads(encode_body({}, MappingProxyType({"a": ""}), MappingProxyType({}))) == {"a": ""}
    assert encode_body({"a": 1}) == encode_body({"a": 1}, {}, {}) == b'{"a":1}'


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite(value: float) -> None:
    words = f"x must hold finite numbers only, not {value}"
    assert refused(encode_body, {}, {"x": value}) == words
    assert refused(encode_body, {}, None, {"x": [1, {"y": (value,)}]}) == words


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes(kind: Any) -> None:
    """msgspec would send them in base64 without a word."""
    value = kind(b"abc")
    words = "x holds bytes, which JSON can't say: decode them, or encode them as base64"
    assert refused(encode_body, {}, {"x": value}) == words
    assert refused(encode_body, {}, None, {"x": [{"y": value}]}) == words


@pytest.mark.parametrize("text", ["\ud83d", "ab\udc4b", "ab\ud800" + "tail" * 100, "é" * 30 + "\ud800" + "tail" * 100])
def test_a_lone_surrogate_is_told_by_what_stands_before_it(text: str) -> None:
    words = refused(encode_body, {"a": text})
    assert "lone surrogate, which UTF-8 can't say" in words
    before = text[: next(at for at, each in enumerate(text) if "\ud800" <= each <= "\udfff")]
    assert f"(at {before[-10:]!a}...)" in words
    assert "tail" not in words, "and not by what comes after"


def test_what_has_no_json_at_all() -> None:
    for value in (object(), 1j, {1, "x", object()}, {(1, 2): 3}, type):
        assert refused(encode_body, {}, {"x": value}).startswith("the request can't be said in JSON: ")
    assert "objects of type object have no JSON form" in refused(encode_body, {}, {"x": object()})


def test_what_never_ends() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert "can't be said in JSON" in refused(encode_body, {}, {"x": endless})


# --- What is checked -------------------------------------------------------------------------------


class Held(msgspec.Struct):
    value: Any


# A value inside of each thing that may hold one.
HOLDERS: dict[str, Any] = {
    "list": lambda value: [1, value],
    "tuple": lambda value: ("x", value),
    "dict": lambda value: {"a": "x", "b": value},
    "mapping": lambda value: UserDict({"a": value}),
    "proxy": lambda value: MappingProxyType({"a": value}),
    "struct": lambda value: Held(value),
    "nested": lambda value: [({"a": Held([UserDict({"b": value})])},)],
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("value", [b"", b"x", bytearray(b"x"), memoryview(b"x"), math.nan, math.inf, -math.inf])
def test_what_is_refused_is_refused_anywhere(holder: str, value: Any) -> None:
    for inside in (value, HOLDERS[holder](value)):
        with pytest.raises(ConfigurationError, match=r"^x (holds bytes|must hold finite)"):
            check(inside, "x")


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("value", ["b'x'", "", 0, 1.5, -1e308, True, None, "nan"])
def test_everything_else_is_not(holder: str, value: Any) -> None:
    check(value, "x")
    check(HOLDERS[holder](value), "x")


def deep(levels: int, value: Any) -> Any:
    for _ in range(levels):
        value = [value]
    return value


def test_as_deep_as_apis_nest() -> None:
    """What is deeper may be nested without end: encoding tells."""
    for levels in (1, 63, 64):
        with pytest.raises(ConfigurationError, match="x holds bytes"):
            check(deep(levels, b"x"), "x")
    check(deep(65, b"x"), "x")


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(st.characters(codec="utf-8"))


def values(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
        max_leaves=15,
    )


@QUICK
@given(values(SCALARS | st.floats(allow_nan=False, allow_infinity=False)))
def test_what_json_can_say_arrives_as_it_was_said(value: Any) -> None:
    assert json.loads(encode_body({}, None, {"x": value}))["x"] == value
    assert plain(value, "x") == value


@QUICK
@given(values(SCALARS | st.floats() | st.binary()))
def test_nothing_arrives_as_something_else(value: Any) -> None:
    try:
        made = encode_body({}, None, {"x": value})
    except ConfigurationError:
        return
    assert json.loads(made)["x"] == value


# --- Objects of other libraries --------------------------------------------------------------------


class Model:
    """As pydantic's, and the OpenAI SDK's own."""

    def model_dump(self, **how: Any) -> dict[str, Any]:
        return {"a": 1, **how}


class ByMethods:
    """A mapping by its methods only."""

    def keys(self) -> list[str]:
        return ["a"]

    def __getitem__(self, key: str) -> str:
        return key * 2


OTHERS: list[tuple[Any, Any]] = [
    (Model(), {"a": 1, "mode": "json", "exclude_unset": True}),
    (ByMethods(), {"a": "aa"}),
    (UserDict({"a": 1}), {"a": 1}),
    (range(3), [0, 1, 2]),
    (Held([Model()]), {"value": [{"a": 1, "mode": "json", "exclude_unset": True}]}),
    (Message(role="user", content="x"), {"role": "user", "content": "x"}),
]


@pytest.mark.parametrize(("value", "said"), OTHERS)
def test_objects_of_other_libraries(value: Any, said: Any) -> None:
    assert json.loads(encode_body({"x": value}))["x"] == said
    assert plain(value, "x") == said


def test_an_iterator_is_read() -> None:
    assert encode_body({"x": iter([1, 2])}) == b'{"x":[1,2]}'
    assert plain(iter([1, 2]), "x") == [1, 2]


# --- Copies ----------------------------------------------------------------------------------------


def test_plain_copies_are_deep() -> None:
    value = {"a": [{"b": (1, 2)}], 1: MappingProxyType({"c": None})}
    made = plain(value, "it")
    assert made == {"a": [{"b": (1, 2)}], "1": {"c": None}}
    made["a"][0]["b"] = 3
    assert value["a"] == [{"b": (1, 2)}]


def test_plain_leaves_out_vendor_fields() -> None:
    message = msgspec.json.decode(b'{"role": "user", "content": "a", "x": 1}', type=Message)
    assert plain(message, "it") == {"role": "user", "content": "a"}


def test_what_has_no_plain_form() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in (object(), endless, {(1, 2): 3}):
        assert refused(plain, value, "messages").startswith("messages can't be said in JSON: ")
    assert base64.b64decode(plain(b"abc", "x")) == b"abc", "who calls it has checked"
