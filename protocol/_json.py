"""Reading JSON as peers really send it: strictly first, leniently when that fails."""

from __future__ import annotations

from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode

# All that a msgspec decoder raises for a document that it does not take.
NOT_TYPED = (msgspec.MsgspecError, ValueError, RecursionError)

# Deeper than any API nests; the walks over decoded documents (here, and in those who call this) recurse.
MAX_DEPTH = 64

# CPython's int() refuses longer digit strings with a ValueError.
_MAX_DIGITS = 4000


def loads(payload: bytes) -> Any:
    """Decode a JSON document.

    What RFC 8259 forbids and servers send all the same is accepted: bytes that are no UTF-8 and
    lone surrogates (both become U+FFFD; a pair of halves within one string is joined), NaN and
    Infinity, control characters in strings. Raises ``ValueError`` when it is no JSON even so, or nested
    deeper than `MAX_DEPTH`.
    """
    try:
        value = _decode(payload)
    except NOT_TYPED:
        return clean(loads_keeping_surrogates(payload))
    _check_depth(payload, value)
    return value


def loads_keeping_surrogates(payload: bytes) -> Any:
    """As the lenient half of ``loads``, but lone surrogates stay in the strings."""
    # Not at the head of the module: hardly any program ever gets here.
    import json

    try:
        value = json.loads(payload.decode("utf-8", "replace"), strict=False, parse_int=_parse_int)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_depth(payload, value)
    return value


_TOO_DEEP = "the JSON is nested too deeply"


def _check_depth(payload: bytes, value: Any) -> None:
    if payload.count(b"[") + payload.count(b"{") <= MAX_DEPTH:
        return
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_DEPTH):
        insides = (each.values() if isinstance(each, dict) else each for each in level)
        level = [item for inside in insides for item in inside if isinstance(item, (dict, list))]
    if level:
        raise ValueError(_TOO_DEEP)


def is_dense(payload: bytes, most: float) -> bool:
    """Whether a JSON document may hold more objects than this. (Braces in strings count, too: a million of them is no
    text of a model's.)"""
    return len(payload) > most and payload.count(b"{") > most


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def join_surrogates(text: str) -> str:
    """Join surrogate pairs; a lone half becomes U+FFFD. The result can always be encoded."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def clean(value: Any) -> Any:
    """``join_surrogates`` for every string in a decoded document."""
    if isinstance(value, str):
        return join_surrogates(value)
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {join_surrogates(key): clean(item) for key, item in value.items()}
    return value
