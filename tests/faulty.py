"""Attempts that go wrong in all ways, as what a transport would read; and what a caller is to see of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from feeding import DONE, FINISH, JSON, SSE, delta, sse
from hypothesis import strategies as st

from deltawire.protocol import (
    APIStatusError,
    BadRequestError,
    ConnectError,
    EmptyReplyError,
    InternalServerError,
    MalformedEventError,
    ReadError,
    RetryNoProviderError,
    RetryProviderError,
    TruncatedStreamError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from deltawire.protocol import Event, Reply


class Kind(NamedTuple):
    """A way in which an attempt goes."""

    error: type[Exception] | None
    retried: bool = True
    longest: int = 0
    """How many pieces of text may come before it goes so."""


KINDS = {
    "refused": Kind(ConnectError),
    "reset before the head": Kind(ReadError),
    "503": Kind(InternalServerError),
    "400": Kind(BadRequestError, retried=False),
    "empty": Kind(EmptyReplyError),
    "cut off": Kind(TruncatedStreamError, longest=3),
    "reset": Kind(TruncatedStreamError, longest=3),
    "error": Kind(APIStatusError, longest=3),
    "malformed": Kind(MalformedEventError, retried=False, longest=3),
    "good": Kind(None, longest=3),
    # Some servers never give a finish reason.
    "good, without a reason": Kind(None, longest=3),
}


class Attempted(NamedTuple):
    """How one attempt goes."""

    kind: str
    pieces: int
    """Of text, before it goes so."""
    size: int
    """Bytes that are read at once."""

    @property
    def error(self) -> type[Exception] | None:
        return KINDS[self.kind].error

    def texts(self, number: int) -> list[str]:
        """The pieces of text, which no other attempt has."""
        return [f"{number}.{piece} " for piece in range(self.pieces)]

    def play(self, number: int, reply: Reply, dialect: str) -> Iterator[list[Event]]:
        """Tell a reply what comes, one read after the other; gives its events."""
        if self.kind == "refused":
            yield reply.fail(ConnectError("refused"))
        elif self.kind == "reset before the head":
            yield reply.fail(ReadError("reset"))
        elif self.kind in ("503", "400"):
            yield reply.start(int(self.kind), JSON)
            yield reply.end()
        else:
            yield reply.start(200, SSE)
            data = _body(dialect, self.kind, self.texts(number))
            for start in range(0, len(data), self.size):
                yield reply.receive(data[start : start + self.size])
            yield reply.fail(ReadError("reset")) if self.kind == "reset" else reply.end()


def _body(dialect: str, kind: str, texts: list[str]) -> bytes:
    if dialect == "openai":
        head, pieces = sse(delta(role="assistant")), sse(*[delta(text) for text in texts])
        endings = {"good": sse(FINISH, DONE), "error": sse({"error": {"message": "overloaded"}})}
        unfinished = sse(DONE)
    else:
        head, pieces = (
            sse({"type": "live", "subtype": "status", "data": "Thinking..."}),
            sse(*[{"type": "live", "data": text} for text in texts]),
        )
        unfinished = sse({"type": "end", "data": json.dumps({"success": True, "reply": "".join(texts).strip()})})
        endings = {"good": unfinished, "error": sse({"type": "error", "data": "overloaded"})}
    endings |= {"empty": unfinished, "good, without a reason": unfinished, "malformed": b"data: {oops}\n\n"}
    return head + pieces + endings.get(kind, b"")


@st.composite
def attempteds(draw: st.DrawFn) -> Attempted:
    """Any way in which an attempt may go; more often one that shows nothing, so that others follow."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    longest = KINDS[kind].longest
    pieces = draw(st.integers(0 if KINDS[kind].error else 1, longest)) if longest else 0
    return Attempted(kind, pieces, draw(st.sampled_from([1, 7, 100, 10_000])))


class Seen(NamedTuple):
    """What a caller is to see of a call."""

    asked: list[Any]
    """Who was sent a request, in order."""
    waits: int
    text: str
    errors: list[type[Exception]]
    """Of the attempts that failed before any content came, or of the one that failed after it."""
    complete: bool

    def raised(self, *, several: bool) -> type[Exception] | None:
        """The class of what is raised; ``several``: for several providers, or for one again and again."""
        if self.complete:
            return None
        if several and not self.text:
            if all(error is EmptyReplyError for error in self.errors):
                return RetryNoProviderError
            if len(self.errors) > 1:
                return RetryProviderError
        return self.errors[-1]


def to_be_seen(turns: Sequence[Any], attempts: Sequence[Attempted], *, stream: bool) -> Seen:
    """What is to be seen of a call that asks in these turns, written down once more and apart from the code: the
    first content settles everything; without a stream, the first whole reply."""
    asked: list[Any] = []
    waits = 0
    errors: list[type[Exception]] = []
    gone: set[Any] = set()
    for provider in turns:
        if provider in gone:
            continue
        waits += provider in asked
        attempt = attempts[len(asked)]
        text = "".join(attempt.texts(len(asked)))
        asked.append(provider)
        if attempt.error is None:
            return Seen(asked, waits, text, [], True)
        if stream and text:
            return Seen(asked, waits, text, [attempt.error], False)
        errors.append(attempt.error)
        if not KINDS[attempt.kind].retried:
            gone.add(provider)
    return Seen(asked, waits, "", errors, False)
