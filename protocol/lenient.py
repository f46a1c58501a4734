"""The second, lenient reading of a JSON object that the typed decoder refused.

msgspec refuses a whole document for one bad field: a lone surrogate, NaN, an id that is a number,
``"choices": null``, a byte that is no UTF-8. Here what fits is kept and what does not is dropped,
field by field. Slow (some 20 us) and rare.

Strings keep their lone surrogates here: halves of one character may come in two chunks. Who calls
this must join them (``HalfJoiner``) before anybody else sees the text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from ._json import clean, join_surrogates
from .chunks import Audio, ChatCompletionChunk, Delta, Function, Message, ToolCallDelta
from .objects import Object, with_extra

_T = TypeVar("_T", bound=Object)


def build(cls: type[_T], value: dict[str, Any]) -> _T:
    """Make a ``cls`` of whatever fits in ``value``."""
    if cls is Delta or cls is Message:
        value = _parts_to_text(value)
    elif cls is Function and isinstance(value.get("arguments"), (dict, list)):
        # An object instead of its JSON text.
        value = {**value, "arguments": msgspec.json.encode(clean(value["arguments"])).decode()}
    kwargs: dict[str, Any] = {}
    for name, type_ in _types(cls).items():
        if name in value:
            fitted = _fit(type_, value[name])
            if fitted is not None:
                kwargs[name] = fitted
    return cls(**kwargs)


def build_with_extra(cls: type[_T], value: dict[str, Any]) -> _T:
    """The same, with the vendor fields of the object itself: for documents that are not kept beside it."""
    extra = {name: item for name, item in value.items() if name not in cls.__struct_fields__}
    return with_extra(build(cls, value), extra)


_TYPES: dict[type[Object], dict[str, msgspec.inspect.Type]] = {}


def _types(cls: type[Object]) -> dict[str, msgspec.inspect.Type]:
    found = _TYPES.get(cls)
    if found is None:
        info = msgspec.inspect.type_info(cls)
        assert isinstance(info, msgspec.inspect.StructType)
        found = _TYPES[cls] = {field.name: field.type for field in info.fields}
    return found


def _fit(type_: msgspec.inspect.Type, value: Any) -> Any:
    """The value as this type, or None."""
    if value is None:
        return None
    if isinstance(type_, msgspec.inspect.UnionType):
        fitted = (_fit(each, value) for each in type_.types if not isinstance(each, msgspec.inspect.NoneType))
        return next((each for each in fitted if each is not None), None)
    if isinstance(type_, msgspec.inspect.StructType):
        return build(type_.cls, value) if isinstance(value, dict) else None  # type: ignore[type-var]  # all are Objects
    if isinstance(type_, msgspec.inspect.ListType):
        if not isinstance(value, list):
            return None
        items = (_fit(type_.item_type, item) for item in value)
        return [item for item in items if item is not None]
    convert = _SCALARS.get(type(type_))
    return value if convert is None else convert(value)


def _string(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return str(value)
    return None


def _integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = value.strip()
        return int(value) if value.isdecimal() and len(value) < 20 else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


_SCALARS: dict[type[msgspec.inspect.Type], Callable[[Any], Any]] = {
    msgspec.inspect.StrType: _string,
    msgspec.inspect.LiteralType: _string,
    msgspec.inspect.IntType: _integer,
    msgspec.inspect.FloatType: _number,
}


def _parts_to_text(value: dict[str, Any]) -> dict[str, Any]:
    """Content as a list of parts (Mistral, Anthropic behind gateways): its text and its thinking."""
    content = value.get("content")
    if not isinstance(content, list):
        return value
    text: list[str] = []
    thinking: list[str] = []
    _sort_parts(content, text, thinking)
    value = {**value, "content": "".join(text) if text else None}
    if thinking and not value.get("reasoning_content"):
        value["reasoning_content"] = "".join(thinking)
    return value


def _sort_parts(parts: list[Any], text: list[str], thinking: list[str]) -> None:
    for part in parts:
        if isinstance(part, str):
            text.append(part)
        elif isinstance(part, dict):
            inner = part.get("thinking", part.get("reasoning"))
            if isinstance(inner, list):
                _sort_parts(inner, thinking, thinking)
            elif isinstance(inner, str):
                thinking.append(inner)
            elif isinstance(part.get("text"), str):
                text.append(part["text"])


# The texts of a choice that come in pieces, and so may be cut within a character: how to find the object
# that holds each, and its name there.
_TEXTS: dict[str, tuple[Callable[[Delta], Any], str]] = {
    "content": (lambda delta: delta, "content"),
    "reasoning": (lambda delta: delta, "reasoning_content"),
    "refusal": (lambda delta: delta, "refusal"),
    "function call": (lambda delta: delta.function_call, "arguments"),
    "transcript": (lambda delta: delta.audio, "transcript"),
}


class HalfJoiner:
    """Joins the halves of a surrogate pair that a server has split over two chunks.

    UTF-16 inside a proxy makes an emoji two units, and a cut between them two lone surrogates. A high
    half at the end of a text is held back until the next text of the same field; a half that finds
    no partner becomes U+FFFD. One held half a field, so memory stays small.
    """

    __slots__ = ("_held", "_latest")

    def __init__(self) -> None:
        # The id of each choice's latest tool call without an index.
        self._latest: dict[int, str | None] = {}
        # By choice, and then by the name of the text in `_TEXTS`, or the index of the tool call (None: the latest).
        self._held: dict[int, dict[str | int | None, str]] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def join(self, chunk: ChatCompletionChunk) -> None:
        """Mend every text of the chunk, in place."""
        for choice in chunk.choices:
            delta = choice.delta
            for name, (holder_of, attribute) in _TEXTS.items():
                holder = holder_of(delta)
                text = getattr(holder, attribute, None)
                if text:
                    setattr(holder, attribute, self._mend(choice.index, name, text))
            if delta.tool_calls:
                delta.tool_calls = self._join_calls(choice.index, delta.tool_calls)
            if choice.finish_reason:
                self._flush_choice(choice.index, delta)
        _clean_rest(chunk)

    def flush(self) -> list[tuple[int, Delta]]:
        """The stream has ended: the deltas that deliver what is still held, as (index, delta)."""
        deltas = [(index, Delta()) for index in self._held]
        for index, delta in deltas:
            self._flush_choice(index, delta)
        return deltas

    def _join_calls(self, choice: int, fragments: list[ToolCallDelta]) -> list[ToolCallDelta]:
        joined: list[ToolCallDelta] = []
        for fragment in fragments:
            function = fragment.function
            if fragment.index is None:
                named = function is not None and function.name
                begins = fragment.id != self._latest.get(choice) if fragment.id else named
                if begins and self._release(choice, None):
                    # Another call begins; the half of the one before is lost, and still belongs to that one.
                    joined.append(_lost(None))
                self._latest[choice] = fragment.id or (None if begins else self._latest.get(choice))
            if function is not None and function.arguments:
                function.arguments = self._mend(choice, fragment.index, function.arguments)
            joined.append(fragment)
        return joined

    def _mend(self, choice: int, name: str | int | None, text: str) -> str:
        text = self._release(choice, name) + text
        if "\ud800" <= text[-1] <= "\udbff":
            self._held.setdefault(choice, {})[name] = text[-1]
            text = text[:-1]
        return join_surrogates(text)

    def _release(self, choice: int, name: str | int | None) -> str:
        """What is held of this text; it is no longer held."""
        held = self._held.get(choice)
        if held is None:
            return ""
        half = held.pop(name, "")
        if not held:
            del self._held[choice]
        return half

    def _flush_choice(self, index: int, delta: Delta) -> None:
        lost: list[ToolCallDelta] = []
        for name in self._held.pop(index, ()):
            if not isinstance(name, str):
                lost.append(_lost(name))
                continue
            if name == "function call":
                delta.function_call = delta.function_call or Function()
            elif name == "transcript":
                delta.audio = delta.audio or Audio()
            holder_of, attribute = _TEXTS[name]
            holder = holder_of(delta)
            setattr(holder, attribute, (getattr(holder, attribute) or "") + "\ufffd")
        if lost:
            delta.tool_calls = [*(delta.tool_calls or []), *lost]


def _lost(index: int | None) -> ToolCallDelta:
    return ToolCallDelta(index=index, function=Function(arguments="\ufffd"))


def _clean_rest(thing: Object) -> None:
    for name in thing.__struct_fields__:
        value = getattr(thing, name)
        if isinstance(value, str):
            setattr(thing, name, join_surrogates(value))
        elif isinstance(value, Object):
            _clean_rest(value)
        elif isinstance(value, list) and value and isinstance(value[0], Object):
            for item in value:
                _clean_rest(item)
        elif isinstance(value, (dict, list)):
            setattr(thing, name, clean(value))
