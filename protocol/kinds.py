"""The kinds of replies: how the event stream and the document of each are read.

A new kind is one entry in `KINDS`, and, when it gives something new, one event in ``events.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import msgspec

from ._json import loads
from .chunks import ChatCompletion, ModelList
from .dialects import opchatgpts, openai
from .dialects.signals import EMPTY
from .errors import ConfigurationError
from .events import SessionStarted
from .images import ImagesResponse, read_images
from .sse import parse_block
from .status import ErrorObject, error_object
from .stopping import StopWords

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Protocol, TypeVar

    from .accumulate import Accumulator
    from .bodies import Kind as Sniffed
    from .dialects.signals import Signal

    _T = TypeVar("_T")

    class EventReader(Protocol):
        """Reads the events of one reply, and folds their chunks as it goes."""

        def read(self, payloads: Iterable[bytes], into: list[Any], event: bytes = b"") -> Signal | None:
            """Read the data of events of this name and append their chunks; what stopped the reading, if anything."""

        def flush(self, into: list[Any]) -> None:
            """The reply has ended: append what was held back."""


Document = ChatCompletion | ModelList | ImagesResponse | SessionStarted
"""What a whole document may be."""


class Kind(msgspec.Struct, frozen=True):
    """How replies of one kind are read."""

    document: Callable[[bytes], Document | ErrorObject | Literal["empty"] | None]
    """From a whole document: what it is, the error that it is, that it is empty, or None for something else.
    ``ValueError``: it is no JSON."""
    events: Callable[[Accumulator], EventReader] | None = None
    """What reads its event stream; None where only a document makes sense."""
    stopping: Callable[[Accumulator, StopWords], EventReader] | None = None
    """The same where the server knows no stop words: they are cut out here."""
    other: str = "the reply is JSON, but holds nothing that was asked for"
    """What is said of a document that is something else."""
    empty: str = (
        "the site says that all went well, and hides why its model said nothing (it failed, or the chat is too long "
        "for it); try again, or send less"
    )
    """What is said of a reply that is empty."""
    is_page: bool = False
    """Whether its document is a page, and no JSON."""

    def reads(self, sniffed: Sniffed) -> Sniffed:
        """How a body that looks so is read."""
        if self.is_page:
            return "document"
        return "neither" if sniffed == "events" and self.events is None else sniffed

    @property
    def neither(self) -> str:
        """What is said of a body that can't be read."""
        return f"the reply is {'no JSON' if self.events is None else 'neither JSON nor an event stream'}"


def _or_error(
    read: Callable[[bytes], _T | ErrorObject | Literal["empty"] | None],
) -> Callable[[bytes], _T | ErrorObject | Literal["empty"] | None]:
    """The reader of a document in which, with status 200, an error may stand instead."""

    def read_or_error(body: bytes) -> _T | ErrorObject | Literal["empty"] | None:
        whole = read(body)
        found = None
        if whole in (None, EMPTY):
            found = openai.error_in_document(body)
        elif b'"error"' in body and _names_error(value := loads(body)):
            found = error_object(value)
        return whole if found is None else found

    return read_or_error


def _names_error(value: Any) -> bool:
    """Whether a document that holds what was asked for is an error all the same: itself, not something in it, has an
    ``error`` that says something, or is an object of that name. (A "message" beside it may say anything.)"""
    if isinstance(value, list) and len(value) == 1:
        # Google's way.
        value = value[0]
    return isinstance(value, dict) and bool(value.get("error") or value.get("object") == "error")


KINDS = {
    "openai": Kind(_or_error(openai.read_completion), openai.OpenAIEvents),
    "opchatgpts": Kind(opchatgpts.read_document, opchatgpts.OpchatgptsEvents, opchatgpts.OpchatgptsEvents),
    "models": Kind(_or_error(openai.read_models)),
    "images": Kind(_or_error(read_images), empty="it holds no image; try again, or ask in other words"),
    "session": Kind(opchatgpts.read_session),
    "page": Kind(
        opchatgpts.read_page, other="the page holds no nonce (restNonce in a data-system attribute)", is_page=True
    ),
}


def kind_of(dialect: str, *, chat: bool = False) -> Kind:
    """The kind of this name; `ConfigurationError` when there is none, or with ``chat`` when it is no chat's."""
    kind = KINDS.get(dialect) if isinstance(dialect, str) else None
    if kind is None or (chat and kind.events is None):
        names = [repr(name) for name, each in KINDS.items() if each.events is not None or not chat]
        if kind is not None:
            raise ConfigurationError(
                f"dialect {dialect!r} is no chat's, and has no chunks: use {' or '.join(names)}, or Reply for this one"
            )
        raise ConfigurationError(f"unknown dialect {dialect!r}: use {', '.join(names[:-1])} or {names[-1]}")
    return kind


class NoEvents:
    """Reads nothing: for replies that are documents."""

    def read(self, payloads: Iterable[bytes], into: list[Any], event: bytes = b"") -> None:
        """Never asked for: such a stream is refused before its first event."""

    def flush(self, into: list[Any]) -> None:
        """Nothing is held back."""


def reader_for(kind: Kind, accumulator: Accumulator, stop: StopWords | None) -> EventReader:
    """What reads the reply's events. Raises `ConfigurationError` for stop words that are the server's business."""
    if stop is None:
        return NoEvents() if kind.events is None else kind.events(accumulator)
    if kind.stopping is None:
        raise ConfigurationError("stop is for servers that know no stop words: send it with the request instead")
    return kind.stopping(accumulator, stop)


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
