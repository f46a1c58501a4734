"""Writing JSON: the body of a request, or a clear word on why there is none.

msgspec writes some things as others without a word: bytes as base64, NaN as null. Such bodies mean
something else than the caller said, so they are refused here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_DEPTH = 64


def encode_body(
    body: dict[str, Any], params: Mapping[str, Any] | None = None, extra_body: Mapping[str, Any] | None = None
) -> bytes:
    """A request's body, as JSON: these fields, the params that are not None, and ``extra_body``, which wins.

    ``body`` is taken over and must have been checked. Raises `ConfigurationError` for what JSON can't say.
    """
    for name, value in (params or {}).items():
        if value is not None:
            check(value, name)
            body[name] = value
    for name, value in (extra_body or {}).items():
        check(value, name)
        body[name] = value
    try:
        return _encode(body)
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            "the request holds a lone surrogate, which UTF-8 can't say "
            f"(at {error.object[max(error.start - 10, 0) : error.start]!a}...): replace it"
        ) from None
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ConfigurationError(f"the request can't be said in JSON: {error}") from None


def check(value: Any, name: str, depth: int = 0) -> None:
    """Refuse what msgspec would send as something else: bytes, and numbers that are not finite."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise ConfigurationError(f"{name} holds bytes, which JSON can't say: decode them, or encode them as base64")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigurationError(f"{name} must hold finite numbers only, not {value}")
    inside: Iterable[Any] = ()
    if isinstance(value, (list, tuple)):
        inside = value
    elif isinstance(value, msgspec.Struct):
        inside = msgspec.structs.astuple(value)
    elif isinstance(value, Mapping):
        inside = value.values()
    # What is nested deeper than any API allows may be nested without end; encoding will tell.
    if depth < _MAX_DEPTH:
        for each in inside:
            if type(each) is not str:
                check(each, name, depth + 1)


def plain(value: Any, name: str) -> Any:
    """A copy of this value in dicts, lists, tuples and scalars: what a server would read. Vendor fields are left out.

    Raises `ConfigurationError` for what JSON can't say.
    """
    try:
        return msgspec.to_builtins(value, str_keys=True, enc_hook=_plain)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ConfigurationError(f"{name} can't be said in JSON: {error}") from None


def _plain(value: Any) -> Any:
    """Objects of other libraries: pydantic's (such as the OpenAI SDK's own messages), mappings, iterables."""
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json", exclude_unset=True)
    if hasattr(value, "keys") and hasattr(value, "__getitem__"):
        return {key: value[key] for key in value.keys()}  # noqa: SIM118 - a mapping by its methods only
    if hasattr(value, "__iter__"):
        return list(value)
    raise TypeError(f"objects of type {type(value).__name__} have no JSON form")


_encode = msgspec.json.Encoder(enc_hook=_plain).encode
