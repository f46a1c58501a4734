"""The second, lenient reading of a JSON object that the typed decoder refused.

msgspec refuses a whole document for one bad field: a lone surrogate, NaN, an id that is a number,
``"choices": null``, a byte that is no UTF-8. Here what fits is kept and what does not is dropped,
field by field. Slow (some 20 us) and rare.

Strings keep their lone surrogates here: halves of one character may come in two chunks. Who calls
this must join them (``HalfJoiner``) before anybody else sees the text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ._json import clean, join_surrogates
from .chunks import ChatCompletionChunk, Delta, Function, Message, ToolCallDelta
from .objects import Object

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T", bound=Object)


def build(cls: type[_T], value: dict[str, Any]) -> _T:
    """Make a ``cls`` of whatever fits in ``value``."""
    if cls is Delta or cls is Message:
        value = _parts_to_text(value)
    elif cls is Function and isinstance(value.get("arguments"), (dict, list)):
        # An object instead of its JSON text.
        value = {**value, "arguments": msgspec.json.encode(value["arguments"]).decode()}
    kwargs: dict[str, Any] = {}
    for name, type_ in _types(cls).items():
        if name in value:
            fitted = _fit(type_, value[name])
            if fitted is not None:
                kwargs[name] = fitted
    return cls(**kwargs)


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


class HalfJoiner:
    """Joins the halves of a surrogate pair that a server has split over two chunks.

    UTF-16 inside a proxy makes an emoji two units, and a cut between them two lone surrogates. A high
    half at the end of a text is held back until the next text of the same field; a half that finds
    no partner becomes U+FFFD. One held half a field, so memory stays small.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[tuple[int, str], str] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def join(self, chunk: ChatCompletionChunk) -> None:
        """Mend every text of the chunk, in place."""
        for choice in chunk.choices:
            delta = choice.delta
            for name in ("content", "reasoning_content", "refusal"):
                text = getattr(delta, name)
                if text:
                    setattr(delta, name, self._mend((choice.index, name), text))
            for fragment in delta.tool_calls or ():
                if fragment.function is not None and fragment.function.arguments:
                    key = (
                        choice.index,
                        f"tool {fragment.index} {fragment.id if fragment.index is None else ''}",
                    )
                    fragment.function.arguments = self._mend(key, fragment.function.arguments)
            if choice.finish_reason:
                self._flush_choice(choice.index, delta)
        _clean_rest(chunk)

    def flush(self) -> list[tuple[int, Delta]]:
        """The stream has ended: the deltas that deliver what is still held, as (index, delta)."""
        deltas: dict[int, Delta] = {}
        for index in {index for index, _ in self._held}:
            self._flush_choice(index, deltas.setdefault(index, Delta()))
        return list(deltas.items())

    def _mend(self, key: tuple[int, str], text: str) -> str:
        text = self._held.pop(key, "") + text
        if "\ud800" <= text[-1] <= "\udbff":
            self._held[key] = text[-1]
            text = text[:-1]
        return join_surrogates(text)

    def _flush_choice(self, index: int, delta: Delta) -> None:
        for key in [key for key in self._held if key[0] == index]:
            del self._held[key]
            name = key[1]
            if name.startswith("tool "):
                call = name.split(" ")[1]
                lost = ToolCallDelta(
                    index=int(call) if call.isdecimal() else None, function=Function(arguments="\ufffd")
                )
                delta.tool_calls = [*(delta.tool_calls or []), lost]
            else:
                setattr(delta, name, (getattr(delta, name) or "") + "\ufffd")


def _clean_rest(thing: Object) -> None:
    for name in thing.__struct_fields__:
        value = getattr(thing, name)
        if isinstance(value, str):
            setattr(thing, name, join_surrogates(value))
        elif isinstance(value, Object):
            _clean_rest(value)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, Object):
                    _clean_rest(item)
        elif isinstance(value, dict):
            setattr(thing, name, clean(value))
