"""The state machine of one reply: bytes of a body in, chunks out, and one verdict.

Theory
------
A reply has a head (``start``), a body (``receive``, any number of times) and an end: the body is
over (``end``), or the connection, a deadline or the caller broke it off (``fail``). Each verb returns
the events that it completes. The last event of a reply is its verdict, `StreamEnded` or
`StreamFailed`; after it the machine discards whatever comes.

How the body is read is decided by what is there, not by what was asked for or what the Content-Type
claims, since servers answer a request for a stream with JSON, one for JSON with a stream, label
streams "text/plain" and error pages "text/event-stream"::

    first non-blank byte or line                Content-Type        read as
    { or [                                      any                 EVENTS_OR_DOCUMENT -> DOCUMENT
    anything else                               text/event-stream   EVENTS
    data:  event:  id:  retry:  or  :           any other, or none  EVENTS
    anything else                               any other           UnexpectedReplyError

(A list of models or a session is never read as EVENTS; a page is a DOCUMENT whatever it begins with.)
The states and the legal moves stand in ``states.py``; a verb that has no entry for a state is
a mistake of the caller and raises `UsageError`.

The verdict, given once, when the end is known:

- ``[DONE]``, or Opchatgpts' ``end``: ended. ``finished`` is False when no choice had a finish reason.
- The bytes end, or the connection fails, after every opened choice had its finish reason: ended. (A
  finish reason alone ends nothing: usage may follow.)
- Anything less: truncated, with what had arrived in ``partial``; an empty body too.
- At the end, what is pending is read as if a blank line followed; if it does not parse there, it was
  cut off, and is no malformed event.

Feeding a body whole or split anywhere gives equal events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import verdicts
from ._json import is_dense
from .accumulate import Accumulator
from .bodies import ContentDecoder, Sniffer
from .chunks import ChatCompletion
from .context import NO_CONTEXT, Context
from .dialects.opchatgpts import cut, new_token
from .dialects.openai import chunk_of
from .errors import (
    APIError,
    DeltawireError,
    LimitExceededError,
    ReadError,
    StreamError,
    TimeoutError,
    TransportError,
    UnexpectedReplyError,
    UsageError,
)
from .events import Event, StreamEnded, StreamFailed
from .fields import request_id, shown_id
from .kinds import kind_of, read_blocks, reader_for
from .limits import DEFAULT_LIMITS, Limits
from .sse import BlockSplitter, parse_block
from .states import TRANSITIONS, State
from .status import ErrorObject, status_error
from .stopping import StopWords

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .dialects.signals import Signal


# A member looked up on its Enum costs as much as reading a small event, before Python 3.12.
_IDLE, _SNIFFING, _EVENTS, _DOCUMENT, _ERROR_BODY, _UNEXPECTED, _DONE = State


class Reply:
    """One reply, from its head to its verdict.

    ``dialect`` names the kind of reply, as in ``kinds.py``: "openai" or "opchatgpts" (a chat reply),
    "models" (the reply to ``GET /models``), "images", "session" or "page" (of a `Site`). ``stream`` says what was
    asked for; the body is read as what it is. ``context`` tells errors where they happened. ``stop``:
    where an Opchatgpts reply ends (`StopWords`), as such sites know no stop words. Nothing that a peer
    sends raises; verbs out of turn raise `UsageError`.
    """

    def __init__(
        self,
        dialect: str = "openai",
        *,
        stream: bool = True,
        limits: Limits | None = None,
        context: Context | None = None,
        stop: str | Sequence[str] | None = None,
    ) -> None:
        self.kind = kind_of(dialect)
        """How it is read."""
        self.dialect = dialect
        self.stream = stream
        self.context = context or NO_CONTEXT
        self.status: int | None = None
        """The status of the head, or None before it."""
        self.headers: list[tuple[bytes, bytes]] = []
        """The header fields of the head."""
        self.limits = limits or DEFAULT_LIMITS
        """What it may keep."""
        self.state = _IDLE
        """Where the reply stands."""
        self.done = False
        """Whether the verdict has been given."""
        self._splitter = BlockSplitter(self.limits, at_start=False)
        self.accumulator = Accumulator(extras=False, most=self.limits.objects)
        """What has come so far, without vendor fields; only to be looked at."""
        self._stop = None if stop is None else StopWords(stop)
        self._reader = reader_for(self.kind, self.accumulator, self._stop)
        self._sniffer = Sniffer(b"")
        self._decoder: ContentDecoder | None = None
        self._body = bytearray()
        self._received = 0
        # Whether the state is EVENTS and the bytes need no decoding.
        self._plain_events = False

    @property
    def request_id(self) -> str | None:
        """The reply's ``x-request-id``, or None. (Some servers let callers name it.)"""
        identity = request_id(self.headers)
        return None if identity is None else self.context.redact(identity)

    @property
    def contents(self) -> int:
        """How many chunks with content have come. It alone ends retrying and re-arms deadlines."""
        return self.accumulator.contents

    @property
    def new_token(self) -> str | None:
        """The nonce that an Opchatgpts reply says to go on with, or None."""
        return new_token(self.accumulator.last) if self.dialect == "opchatgpts" else None

    def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> list[Event]:
        """The head has come: its status, and its header fields as h11 and httpcore give them.

        A 1xx head is no reply yet (RFC 9110 section 15.2): another head follows.
        """
        self._check("start")
        if 100 <= status < 200 and status != 101:
            return []
        self.status, self.headers = status, list(headers)
        codings = b",".join(value for name, value in headers if name.lower() == b"content-encoding")
        try:
            self._decoder = ContentDecoder.for_codings(codings)
        except ValueError as error:
            if 200 <= status < 300:
                return self._fail(UnexpectedReplyError(f"{error}{self.where()}"))
            # The status says enough; the words in the body are lost.
            return self._fail(status_error(status, self.headers, b"", self.context, self.dialect))
        if 200 <= status < 300:
            types = (value for name, value in headers if name.lower() == b"content-type")
            self._sniffer = Sniffer(next(types, b""))
            self.state = _SNIFFING
        else:
            self.state = _ERROR_BODY
        return []

    def receive(self, data: bytes) -> list[Event]:
        """Bytes of the body have come. Returns the events that they complete, in order."""
        if self._plain_events and type(data) is bytes:
            # The usual case, on the shortest way.
            size = self._received + len(data)
            if size <= self.limits.reply:
                self._received = size
                splitter = self._splitter
                # One block that is one ``data: `` line, as servers write it: seen in place, for each token.
                if (
                    splitter.odd or splitter.rest or data.find(b"\n") != len(data) - 2 or data[-1] != 0x0A
                    or data[:6] != b"data: " or b"\r" in data or len(data) > splitter.small
                ):  # fmt: skip
                    return self._read_events(data)
                events: list[Event] = []
                signal = self._reader.read((data[6:-2],), events)
                return events if signal is None else events + self._conclude(signal)
        self._check("receive")
        if self.state is _DONE or not data:
            return []
        data = bytes(data)
        if self._decoder is None:
            return self._take(data)
        events = []
        try:
            for piece in self._decoder.receive(data):
                events += self._take(piece)
                if self.state is _DONE:
                    break
        except ValueError as error:
            if self.state is _ERROR_BODY:
                return events + self._finish(error)
            what = f"the body is not in the Content-Encoding it claims: {error}"
            events += self._fail(UnexpectedReplyError(f"{what}{self.where()}"))
        return events

    def end(self) -> list[Event]:
        """The body is over, in good order as far as HTTP can tell. Idempotent."""
        if self.state is _IDLE:
            return self._fail(
                ReadError(f"the server closed the connection without an answer{self.context.where()}: try again")
            )
        return self._finish(None)

    def fail(self, error: Exception) -> list[Event]:
        """The body broke off: the connection failed, or a deadline passed. Idempotent.

        A reply that was complete but for its end marker is good all the same.
        """
        if self.state is _IDLE:
            return self._fail(verdicts.typed(error, self.context))
        return self._finish(error)

    def partial(self) -> ChatCompletion | None:
        """What has arrived so far, accumulated; None when that is nothing."""
        return None if self.accumulator.empty else self.accumulator.completion()

    # -- the body ------------------------------------------------------------------------------

    def _take(self, data: bytes) -> list[Event]:
        if self.state is _ERROR_BODY:
            return self._read_error_body(data)
        self._received += len(data)
        over = self._received - self.limits.reply
        if over > 0:
            data = data[:-over]
        events: list[Event]
        if self.state is _EVENTS:
            events = self._read_events(data)
        elif self.state is _SNIFFING:
            events = self._sniff(data)
        elif self.state is _DOCUMENT:
            events = self._read_document(data)
        else:
            events = self._read_unexpected(data)
        if over > 0 and self.state is not _DONE:
            events += self._too_large("the reply", "reply", self.limits.reply)
        return events

    def _read_events(self, data: bytes) -> list[Event]:
        plain, blocks = self._splitter.receive(data)
        events: list[Event] = []
        signal = self._reader.read(blocks, events) if plain else read_blocks(self._reader, blocks, events)
        if signal is not None:
            events += self._conclude(signal)
        elif (over := self._splitter.error) is not None:
            events += self._too_large(f"a {over.limit_name} of the event stream", over.limit_name, over.limit)
        return events

    def _conclude(self, signal: Signal) -> list[Event]:
        """What an event said beside chunks: the end, or an error."""
        error = verdicts.of_signal(signal, self)
        return self._ended() if error is None else self._fail(error)

    def _sniff(self, data: bytes) -> list[Event]:
        decided = self._sniffer.receive(data)
        if decided is None:
            return []
        seen = self._sniffer.seen
        decided = self.kind.reads(decided)
        if decided == "events":
            self.state = _EVENTS
            self._plain_events = self._decoder is None
            return self._read_events(seen)
        if decided == "document":
            self.state = _DOCUMENT
            return self._read_document(seen)
        self.state = _UNEXPECTED
        return self._read_unexpected(seen)

    def _read_document(self, data: bytes) -> list[Event]:
        if len(self._body) + len(data) > self.limits.document:
            return self._too_large("the document", "document", self.limits.document)
        self._body += data
        return []

    def _read_error_body(self, data: bytes) -> list[Event]:
        self._body += data[: self.limits.error_body - len(self._body)]
        if len(self._body) < self.limits.error_body:
            return []
        return self._finish(None)

    def _read_unexpected(self, data: bytes) -> list[Event]:
        # The same words however the bytes are split: the error waits until there are enough of them.
        enough = self.context.window(verdicts.FIRST_BYTES) + 1
        self._body += data[: enough - len(self._body)]
        return [] if len(self._body) < enough else self._finish(None)

    # -- the end -------------------------------------------------------------------------------

    def _finish(self, error: Exception | None) -> list[Event]:
        """The bytes are over, in order (None) or not: the verdict."""
        if self.state is _DONE:
            return []
        if self.state is _ERROR_BODY:
            assert self.status is not None
            body = bytes(self._body)
            return self._fail(status_error(self.status, self.headers, body, self.context, self.dialect), error)
        if self.state is _DOCUMENT:
            return self._finish_document(error)
        if self.state is _UNEXPECTED:
            return self._fail(self._unexpected(self.kind.neither, bytes(self._body)), error)
        events: list[Event] = []
        if self.state is _EVENTS:
            events += self._read_pending()
            if self.done:
                return events
        if self.accumulator.complete:
            return events + self._ended()
        return events + self._truncated(error)

    def _read_pending(self) -> list[Event]:
        block = self._splitter.end()
        if not block:
            return []
        name, data, _, _ = parse_block(block)
        if data is None:
            return []
        events: list[Event] = []
        signal = self._reader.read((data,), events, name)
        if signal is not None and not verdicts.cut_off(signal, data):
            events += self._conclude(signal)
        return events

    def _finish_document(self, error: Exception | None) -> list[Event]:
        body = bytes(self._body)
        self._body.clear()
        if is_dense(body, self.limits.objects):
            return self._too_large("the document", "objects", self.limits.objects)
        try:
            whole = self.kind.document(body)
        except ValueError as problem:
            return self._truncated(error, f"the JSON document is cut off or broken ({problem})", body)
        if whole is None:
            if error is not None and self.kind.is_page:
                return self._truncated(error)
            return self._fail(self._unexpected(self.kind.other, body))
        if isinstance(whole, (ErrorObject, str)):
            return self._conclude(whole)
        if not isinstance(whole, ChatCompletion):
            self._end()
            return [whole, StreamEnded(True)]
        if self._stop is not None:
            cut(whole, self._stop)
        chunk = chunk_of(whole)
        self.accumulator.add(chunk)
        self._end()
        return [chunk, StreamEnded(self.accumulator.finished, whole)]

    def _ended(self) -> list[Event]:
        events: list[Event] = []
        self._reader.flush(events)
        self._end()
        events.append(StreamEnded(self.accumulator.finished))
        return events

    def _truncated(self, error: Exception | None, what: str = "", body: bytes = b"") -> list[Event]:
        if isinstance(error, (TimeoutError, LimitExceededError)):
            return self._fail(error)
        if not what:
            what = "the reply is empty" if self._received == 0 else "the reply ends before it is complete"
        return self._fail(verdicts.truncated(what, self.context, self.where(), error, body), error)

    def _fail(self, error: DeltawireError, cause: Exception | None = None) -> list[Event]:
        events: list[Event] = []
        self._reader.flush(events)
        self._end()
        if cause is not None:
            error.__cause__ = cause
        if isinstance(error, StreamError):
            error.request_id = self.request_id
        if isinstance(error, (APIError, TransportError)):
            error.partial = self.partial()
        events.append(StreamFailed(error))
        return events

    def _end(self) -> None:
        self.state = _DONE
        self.done = True
        self._plain_events = False

    def _unexpected(self, what: str, body: bytes) -> UnexpectedReplyError:
        return verdicts.unexpected(what, self.context, self.where(), body)

    def _too_large(self, what: str, name: str, limit: int) -> list[Event]:
        return self._fail(verdicts.too_large(what, self.where(), name, limit))

    def where(self) -> str:
        """Where this happens, as errors say it."""
        return self.context.where(shown_id(self.headers, self.context))

    def _check(self, verb: str) -> None:
        if (self.state, verb) not in TRANSITIONS:
            raise UsageError(f"Reply.{verb}() can't be called now: {self.state.value}")
