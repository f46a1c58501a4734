"""The kinds of replies: how the event stream and the JSON document of each are read.

A new kind is one entry in `KINDS`, and, when it gives something new, one event in ``events.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from .chunks import ChatCompletion, ModelList
from .dialects import openai
from .dialects.signals import Signal
from .errors import ConfigurationError
from .sse import parse_block
from .status import ErrorObject

if TYPE_CHECKING:
    from typing import Any, Protocol, TypeVar

    from .accumulate import Accumulator

    _T = TypeVar("_T")

    class EventReader(Protocol):
        """Reads the events of one reply, and folds their chunks as it goes."""

        def read(self, payloads: list[bytes] | tuple[bytes, ...], into: list[Any], event: bytes = b"") -> Signal | None:
            """Read the data of events of this name and append their chunks; what stopped the reading, if anything."""

        def flush(self, into: list[Any]) -> None:
            """The reply has ended: append what was held back."""


Document = ChatCompletion | ModelList
"""What a whole document may be."""


class Kind(msgspec.Struct, frozen=True):
    """How replies of one kind are read."""

    document: Callable[[bytes], Document | ErrorObject | None]
    """From a whole JSON document: what it is, the error that it is, or None for something else. ``ValueError``: it is
    no JSON."""
    events: Callable[[Accumulator], EventReader] = openai.OpenAIEvents
    """What reads its event stream."""


def _or_error(read: Callable[[bytes], _T | None]) -> Callable[[bytes], _T | ErrorObject | None]:
    """The reader of a document in which, with status 200, an error may stand instead."""

    def read_or_error(body: bytes) -> _T | ErrorObject | None:
        whole = read(body)
        found = openai.error_in_document(body) if whole is None or b'"error"' in body else None
        return whole if found is None else found

    return read_or_error


KINDS = {
    "openai": Kind(_or_error(openai.read_completion)),
    "models": Kind(_or_error(openai.read_models)),
}


def kind_of(dialect: str) -> Kind:
    """The kind of this name; `ConfigurationError` when there is none."""
    kind = KINDS.get(dialect)
    if kind is None:
        names = [repr(name) for name in KINDS]
        raise ConfigurationError(f"unknown dialect {dialect!r}: use {', '.join(names[:-1])} or {names[-1]}")
    return kind


def read_blocks(reader: EventReader, blocks: list[bytes], into: list[Any]) -> Signal | None:
    """Read blocks that are more than one line of data each. Runs of events are read in one go; of all names
    only "error" makes a difference."""
    run: list[bytes] = []
    for block in blocks:
        name, data, _, _ = parse_block(block)
        if data is None:
            continue
        if name != b"error":
            run.append(data)
            continue
        signal = reader.read(run, into) or reader.read((data,), into, name)
        if signal is not None:
            return signal
        run.clear()
    return reader.read(run, into)
