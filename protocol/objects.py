"""What all typed objects of a reply share: vendor fields, and the ways to plain data.

Vendor fields are kept without being paid for. A chunk (and each object inside it) keeps the bytes
that it was decoded from, and decodes them anew when somebody asks for a field that is not declared.
The bytes stand in a slot beside the msgspec fields, not in one of them: so no encoder, no comparison
and no request ever sees them, and a server can't set them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import msgspec

from ._json import loads

_T = TypeVar("_T", bound="Object")

# Payloads that were decoded already, by their identity: who goes through all the objects of one payload has it decoded
# once, and not once for each of them.
Read = dict[int, tuple[bytes, Any]]

# Declared here, for speed or convenience, but not by OpenAI: dumped only when they are there.
_VENDOR = frozenset({"error", "reasoning", "reasoning_content"})


class _Origin:
    __slots__ = ("_provider", "_raw")
    # One of: the payload; (payload, path, class) when the object does not stand at its class's usual `_path`,
    # or took over from an object of another class; an `_Extra` once that has been read; or nothing (the
    # slot is unset).
    _raw: bytes | tuple[bytes, tuple[str | int, ...], type[Object]] | _Extra
    # The name of the provider whose answer this is; a client sets it on all that a provider answers.
    _provider: str


class _Extra(dict[str, Any]):
    """The vendor fields of one object, and which declared fields its JSON set."""

    __slots__ = ("declared",)
    declared: frozenset[str]


def _rebuild(
    cls: type[_T], fields: dict[str, Any], extra: dict[str, Any], declared: frozenset[str], provider: str = ""
) -> _T:
    new = cls(**fields)
    new._raw = _Extra(extra)
    new._raw.declared = declared
    if provider:
        new._provider = provider
    return new


def with_extra(thing: _T, extra: dict[str, Any]) -> _T:
    """Give an object that we made ourselves these vendor fields."""
    if extra:
        thing._raw = _Extra(extra)
        thing._raw.declared = frozenset()
    return thing


def same_origin(old: Object, new: Object) -> None:
    """Let an object that says the same as this one have its vendor fields: what the old one did not declare."""
    raw = getattr(old, "_raw", None)
    if raw is not None:
        new._raw = (raw, old._path, type(old)) if isinstance(raw, bytes) else raw


class Object(_Origin, msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """What all objects share: vendor fields as attributes, and the ways to plain data.

    (``gc=False``: these objects only ever hold parsed JSON, which has no cycles.)
    """

    _path: ClassVar[tuple[str | int, ...]] = ()

    @property
    def model_extra(self) -> dict[str, Any]:
        """The vendor fields of this object: what its JSON holds beyond the declared fields."""
        return self._extra()

    def _extra(self, read: Read | None = None) -> _Extra:
        raw: object = getattr(self, "_raw", None)
        if isinstance(raw, _Extra):
            return raw
        value: Any = {}
        cls: Any = type(self)
        if raw is not None:
            payload, path, cls = raw if isinstance(raw, tuple) else (raw, self._path, cls)
            try:
                value = _decoded(payload, read)
                for key in path:
                    value = value[key]
            except (ValueError, LookupError, TypeError):
                # The object was dropped or built by the lenient decoder: it has nothing more.
                value = {}
        if not isinstance(value, dict):
            value = {}
        fields = cls.__struct_fields__
        extra = _Extra((key, item) for key, item in value.items() if key not in fields)
        extra.declared = frozenset(key for key in value if key in fields)
        self._raw = extra
        return extra

    if not TYPE_CHECKING:  # else a type checker would believe in every misspelt name

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("_"):
                extra = self._extra()
                if name in extra:
                    return extra[name]
                if name == "provider" and isinstance(self, Answer):
                    return getattr(self, "_provider", "")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def model_dump(
        self,
        *,
        mode: str = "python",
        exclude_unset: bool = False,
        exclude_none: bool = False,
    ) -> dict[str, Any]:
        """This object as plain dicts and lists: all declared fields, then the vendor fields.

        ``exclude_unset`` leaves out what is None and was not sent as null, ``exclude_none`` all that
        is None. ``mode`` is there for the OpenAI SDK's callers: "python" and "json" give the same,
        since all values are plain.
        """

        dumped: dict[str, Any] = _dump(self, exclude_unset, exclude_none, {})
        return dumped

    def to_dict(self, *, mode: str = "python", exclude_unset: bool = True) -> dict[str, Any]:
        """As ``model_dump``, without what the server did not send (as the OpenAI SDK does)."""
        return self.model_dump(mode=mode, exclude_unset=exclude_unset)

    def to_json(self, *, indent: int | None = 2, exclude_unset: bool = True) -> str:
        """``to_dict`` as a JSON text; ``indent=None`` for one line."""
        return self.model_dump_json(indent=indent, exclude_unset=exclude_unset)

    def model_dump_json(self, *, indent: int | None = None, exclude_unset: bool = False) -> str:
        """``model_dump`` as a JSON text."""
        encoded = msgspec.json.encode(self.model_dump(exclude_unset=exclude_unset))
        if indent is not None:
            encoded = msgspec.json.format(encoded, indent=indent)
        return encoded.decode()

    def __copy__(self: _T) -> _T:
        rebuild, given = self.__reduce__()
        return rebuild(*given)  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        extra = self._extra()
        return (_rebuild, (type(self), fields, dict(extra), extra.declared, getattr(self, "_provider", "")))


class Answer(Object):
    """An answer, or a part of one."""

    if TYPE_CHECKING:  # at run time a vendor field of this name comes first, OpenRouter's

        @property
        def provider(self) -> str:
            """The name of the provider that answered, as the server (or else the client) says; "" where none does."""


def _decoded(payload: bytes, read: Read | None) -> Any:
    if read is None:
        return loads(payload)
    found = read.get(id(payload))
    if found is None:
        # (Kept along: else another payload might get its identity.)
        found = read[id(payload)] = payload, loads(payload)
    return found[1]


def _dump(value: Any, exclude_unset: bool, exclude_none: bool, read: Read) -> Any:
    if isinstance(value, Object):
        extra = value._extra(read)
        fields: dict[str, Any] = {}
        for name in value.__struct_fields__:
            item = getattr(value, name)
            if item is None and (exclude_none or ((exclude_unset or name in _VENDOR) and name not in extra.declared)):
                continue
            fields[name] = _dump(item, exclude_unset, exclude_none, read)
        return fields | {name: item for name, item in extra.items() if item is not None or not exclude_none}
    if isinstance(value, list):
        return [_dump(item, exclude_unset, exclude_none, read) for item in value]
    return value


def keep_whole_payload(whole: Object, payload: bytes) -> None:
    """The same for a reply that came as one document."""
    keep_inside(whole, payload, ())


def keep_inside(thing: Object, payload: bytes, path: tuple[str | int, ...]) -> None:
    thing._raw = payload if path == thing._path else (payload, path, type(thing))
    for name in thing.__struct_fields__:
        value = getattr(thing, name)
        if isinstance(value, Object):
            keep_inside(value, payload, (*path, name))
        elif isinstance(value, list):
            for position, item in enumerate(value):
                if isinstance(item, Object):
                    keep_inside(item, payload, (*path, name, position))
