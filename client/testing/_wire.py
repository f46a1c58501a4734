"""From a reply to the pieces that are written on the socket. Pure: no clock, no socket.

Theory
------
A reply is a head and a body in pieces. Each piece has a step: piece of step k is due k paces after the
head. `frames` puts the framing around them and yields what is to be written, in order; the others change
such a sequence:

*   `truncate` ends it after so many bytes of the wire. Because the cut is made here, before anything is
    written, the writer needs no state for it and ends at once when the last byte is out.
*   `coalesce` joins neighbours into larger writes, for full speed. The bytes are the same.

h11 frames all but one kind of reply: a body that ends with the connection, sent to a client that speaks
HTTP/1.1. h11 would make it chunked, so `plain_head` writes that head itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import h11

from .answers import Ending, Framing, reason_phrase

# One write of a reply at full speed, in bytes; between two of them other connections get their turn.
_BATCH = 64 * 1024


class Piece(NamedTuple):
    """A part of a body, framed by itself."""

    data: bytes
    step: int = 0
    counts: bool = False
    """Whether the time of its writing is recorded: it is a token, or one of `Answer.events`."""


class Frame(NamedTuple):
    """Bytes for the socket."""

    data: bytes
    step: int = 0
    tokens: int = 0
    """How many pieces that count it completes."""


@dataclass(kw_only=True)
class Reply:
    """Everything the writer has to know about one answer."""

    status: int | None
    headers: list[tuple[bytes, bytes]]
    pieces: Iterable[Piece]
    framing: Framing
    pace: float = 0.0
    delay: float = 0.0
    apart: bool = False
    """Each piece is a write of its own even at full speed."""
    raw: bytes | None = None
    keep_open: bool = False
    cut_after: int | None = None
    ending: Ending | None = None

    @property
    def unterminated(self) -> bool:
        """Whether the mark of the body's end is withheld, because the ending comes in its place."""
        return self.raw is None and self.framing == "chunked" and self.ending is not None and self.cut_after is None


def frames(reply: Reply, connection: h11.Connection, method: str) -> Iterator[Frame]:
    """What goes on the wire. `connection` is the server's side, and has just read a `method` request."""
    if reply.raw is not None:
        yield Frame(reply.raw)
        return
    assert reply.status is not None
    headers, pieces, framing = reply.headers, reply.pieces, reply.framing
    if framing == "length":
        pieces = list(pieces)
        length = sum(len(piece.data) for piece in pieces)
        if reply.status not in (204, 304):
            headers = [*headers, (b"content-length", b"%d" % length)]
    if method == "HEAD" or reply.status in (204, 304):
        pieces = ()
    if framing == "close":
        yield Frame(plain_head(reply.status, headers))
        for piece in pieces:
            yield Frame(piece.data, piece.step, int(piece.counts))
        return
    reason = reason_phrase(reply.status)
    yield Frame(connection.send(h11.Response(status_code=reply.status, headers=headers, reason=reason)))
    step = 0
    for piece in pieces:
        step = piece.step
        yield Frame(connection.send(h11.Data(data=piece.data)), step, int(piece.counts))
    if not reply.unterminated:
        yield Frame(connection.send(h11.EndOfMessage()), step)


def plain_head(status: int, headers: Sequence[tuple[bytes, bytes]], reason: bytes | None = None) -> bytes:
    """The head of a reply whose body ends with the connection."""
    phrase = reason_phrase(status).encode("ascii") if reason is None else reason
    lines = [b"HTTP/1.1 %d %s" % (status, phrase)]
    lines += (b"%s: %s" % field for field in headers if field[0].lower() != b"connection")
    return b"\r\n".join([*lines, b"connection: close", b"", b""])


def truncate(whole: Iterable[Frame], limit: int) -> tuple[list[Frame], bool]:
    """The first `limit` bytes, and whether anything was cut off."""
    kept: list[Frame] = []
    for frame in whole:
        if len(frame.data) > limit:
            if limit:
                kept.append(Frame(frame.data[:limit], frame.step, 0))
            return kept, True
        kept.append(frame)
        limit -= len(frame.data)
    return kept, False


def coalesce(whole: Iterable[Frame]) -> Iterator[Frame]:
    """The same bytes in fewer writes."""
    held: list[bytes] = []
    size = tokens = 0
    for frame in whole:
        held.append(frame.data)
        size += len(frame.data)
        tokens += frame.tokens
        if size >= _BATCH:
            yield Frame(b"".join(held), 0, tokens)
            held.clear()
            size = tokens = 0
    if size:
        yield Frame(b"".join(held), 0, tokens)
