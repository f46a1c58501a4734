"""What comes before a body can be read: undoing its Content-Encoding, and telling what it is."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Literal

from .sse import BOM

if TYPE_CHECKING:
    from collections.abc import Iterator

# Inflated bytes are handed on in pieces of this size, so a "zip bomb" meets the limits of `Reply`
# piece by piece instead of growing here.
_PIECE = 256 * 1024
# And taken in pieces of this one.
_AT_ONCE = 16 * 1024


class ContentDecoder:
    """Undoes gzip or deflate (RFC 9110 section 8.4.1), in case a server or proxy ignores that we ask
    for "identity"."""

    __slots__ = ("_member_over", "_over", "_raw_allowed", "_whole", "_zlib")

    def __init__(self, coding: str) -> None:
        # 47: zlib or gzip, told by the head. "deflate" means zlib, yet some send it raw: then the first
        # byte is no zlib head and -15 reads it.
        self._zlib: Any = zlib.decompressobj(47)
        self._raw_allowed = coding == "deflate"
        self._member_over = False
        # Whether a member has come whole: what is wrong after it is junk.
        self._whole = False
        self._over = False

    @classmethod
    def for_codings(cls, codings: bytes) -> ContentDecoder | None:
        """The decoder for a Content-Encoding field, None for "identity"; ``ValueError`` for others."""
        names = [name.strip().lower() for name in codings.decode("latin-1").split(",")]
        names = [name for name in names if name not in ("", "identity")]
        if not names:
            return None
        if len(names) > 1 or names[0] not in ("gzip", "x-gzip", "deflate"):
            shown = ", ".join(names)[:100]
            raise ValueError(
                f"the body has the Content-Encoding {shown!r}, which was not asked for and can't be undone"
            )
        return cls(names[0])

    def receive(self, data: bytes) -> Iterator[bytes]:
        """The decoded pieces; raises ``ValueError`` where the data is not what it claims to be."""
        if self._raw_allowed:
            self._raw_allowed = False
            if data[0] & 0x0F != 8:
                self._zlib = zlib.decompressobj(-15)
        # Each step copies what is left to be undone: so that is never much.
        for start in range(0, len(data), _AT_ONCE):
            yield from self._receive(data[start : start + _AT_ONCE])

    def _receive(self, data: bytes) -> Iterator[bytes]:
        while data and not self._over:
            if self._member_over:
                # RFC 1952 allows a file of several members; what follows any other end is ignored.
                self._over = data[0] != 0x1F
                self._member_over = False
                self._zlib = zlib.decompressobj(47)
                continue
            # zlib gives nothing of a piece that goes wrong anywhere in it.
            before = self._zlib.copy()
            try:
                piece = self._zlib.decompress(data, _PIECE)
            except zlib.error:
                try:
                    yield from _until_wrong(before, data)
                except ValueError:
                    if not self._whole:
                        raise
                self._over = True
                return
            if piece:
                yield piece
            data = self._zlib.unconsumed_tail
            if self._zlib.eof:
                data = self._zlib.unused_data
                self._member_over = self._whole = True


def _until_wrong(decoder: Any, data: bytes) -> Iterator[bytes]:
    """Byte by byte up to the one that is wrong; raises ``ValueError`` there."""
    try:
        for position in range(len(data)):
            rest = data[position : position + 1]
            while rest:
                piece = decoder.decompress(rest, _PIECE)
                if piece:
                    yield piece
                rest = decoder.unconsumed_tail
    except zlib.error as error:
        raise ValueError(str(error)) from None


Kind = Literal["events", "document", "neither"]

_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")


class Sniffer:
    """Tells what a body is from its first bytes and its Content-Type (the table in ``reply.py``)."""

    __slots__ = ("_is_event_stream", "_maybe_bom", "seen")

    def __init__(self, content_type: bytes) -> None:
        self._is_event_stream = content_type.split(b";")[0].strip().lower() == b"text/event-stream"
        self._maybe_bom = True
        self.seen = b""
        """All bytes so far, without the BOM and the blanks before the first byte that counts."""

    def receive(self, data: bytes) -> Kind | None:
        """Take bytes in; the answer, or None while it is not known."""
        self.seen += data
        if self._maybe_bom:
            if len(self.seen) < len(BOM) and BOM.startswith(self.seen):
                return None
            self._maybe_bom = False
            self.seen = self.seen.removeprefix(BOM)
        self.seen = self.seen.lstrip()
        return self._decide()

    def _decide(self) -> Kind | None:
        start = self.seen
        if not start:
            return None
        if start[0] in b"{[":
            return "document"
        if self._is_event_stream:
            return "events"
        for field in _FIELDS:
            if start.startswith(field):
                return "events"
            if field.startswith(start):
                return None
        return "neither"
