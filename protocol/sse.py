"""Server-sent events, WHATWG HTML section 9.2.6 ("Interpreting an event stream"), to the letter.

Theory
------
An event stream is lines; a blank line dispatches the block of lines before it. Only LF, CR and CRLF
end a line. So the unit of work is the block, and the one thing that must be incremental is finding
its end:

1.  Line ends are normalised to LF as the bytes arrive. A CR ends its line at once (nobody waits for
    a byte that may never come); an LF that directly follows it, even in a later read, is swallowed.
    This costs one `in` on data that holds no CR, which is nearly all there is.
2.  After that a block ends at "\\n\\n". Complete blocks leave by one `bytes.split`; the unfinished
    rest stays in one bytearray, the only buffer. A byte of the rest is searched when it arrives and
    once more when its block is complete, never again: no split of the input makes this quadratic.
3.  Leading LFs of a block are blank lines with nothing to dispatch; they are dropped, so a block
    never begins with one and its length does not depend on how the stream was split.

A line or a block over its limit ends the stream: the events before it are returned, `error` is set,
what follows is discarded. Both lengths are measured on the normalised bytes, without the final line
end, and grow only with the bytes of the block: so the verdict does not depend on the split either.

`BlockSplitter` is this; `SSEDecoder` makes events of its blocks, and `Reply` takes their data straight
to the JSON decoder without an object per event in between.

Decoding UTF-8 happens after splitting. That is safe: LF and CR are never part of a longer UTF-8
sequence, and Python's "replace" handler, like the WHATWG decoder, never consumes a valid byte that
follows a broken sequence.
"""

from __future__ import annotations

import math

import msgspec

from .errors import LimitExceededError
from .limits import DEFAULT_LIMITS, Limits

BOM = b"\xef\xbb\xbf"

# `int()` refuses more than 4300 digits, and nobody waits that long: a longer value is ignored.
_MAX_RETRY_DIGITS = 4000


class ServerSentEvent(msgspec.Struct, frozen=True):
    """One dispatched event."""

    event: str
    """The event type; "message" when the block names none."""
    data: str
    """The data lines, joined by LF."""
    id: str
    """The last event ID at dispatch; "" when the stream has set none."""
    retry: int | None
    """The reconnection time, in milliseconds, that this event's own block sets, or None."""


class BlockSplitter:
    """Bytes in, blocks out: lines between blank lines, joined by LF, without the last line end.

    ``at_start=False``: the bytes do not begin where the stream does, so a BOM there is none.
    """

    __slots__ = ("_after_cr", "_first", "_limits", "_line", "error", "odd", "rest", "small")

    def __init__(self, limits: Limits, *, at_start: bool = True) -> None:
        self._limits = limits
        # Nothing of this size or less can exceed a limit.
        self.small = min(limits.line, limits.event)
        self.rest = bytearray()
        # The length of the line that `rest` ends in, kept so that it's never measured twice.
        self._line = 0
        self._after_cr = False
        # The bytes seen so far while they may still be (part of) a BOM; None once that's decided.
        self._first: bytes | None = b"" if at_start else None
        # Whether one of `_after_cr`, `_first` and `error` says that the next bytes are special.
        self.odd = at_start
        self.error: LimitExceededError | None = None

    @property
    def pending(self) -> bytes:
        """The unfinished block: the bytes since the last blank line."""
        return bytes(self.rest)

    def receive(self, data: bytes) -> tuple[bool, list[bytes]]:
        """Take bytes in, give what they complete: (True, payloads) or (False, blocks).

        Payloads are what is left of blocks that are one ``data: `` line each, which is all that most
        servers ever send: one split gives them, and nothing needs to look at a line again. Otherwise
        blocks, for ``parse_block``; they may begin with blank lines, or be empty.
        """
        if self.odd:
            data = self._prepare(data)
        if not data:
            return True, []
        if b"\r" in data:
            self._after_cr = self.odd = data[-1] == 0x0D
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        rest = self.rest
        if rest:
            if b"\n\n" not in data and not (data[0] == 0x0A and rest[-1] == 0x0A):
                self._keep(data)
                return True, []
            rest += data
            data = bytes(rest)
            rest.clear()
            self._line = 0
        if len(data) > self.small:
            return False, self._checked(data)
        if data[:6] == b"data: ":
            payloads = self._payloads(data)
            if payloads is not None:
                return True, payloads
        blocks = data.split(b"\n\n")
        self._keep(blocks.pop())
        return False, blocks

    def _payloads(self, data: bytes) -> list[bytes] | None:
        """The payloads, if the read holds nothing but ``data: `` lines, one a block."""
        items = data.split(b"\n\ndata: ")
        lines = data.count(b"\n")
        if data[-2:] == b"\n\n":
            if lines != 2 * len(items):
                return None
            items[-1] = items[-1][:-2]
        elif lines != 2 * len(items) - 2:
            return None
        elif len(items) == 1:
            self._keep(data)
            return []
        else:
            self._keep(b"data: " + items.pop())
        items[0] = items[0][6:]
        return items

    def _prepare(self, data: bytes) -> bytes:
        """What the bytes are in the light of those before them: an end, a BOM, half a line end."""
        if self.error is not None:
            return b""
        if self._first is not None:
            data = self._strip_bom(data)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        self.odd = self._first is not None or self._after_cr
        return data

    def end(self) -> bytes:
        """The stream has ended: give the unfinished block (b"" if there is none) and forget it."""
        if self._first and self.error is None:
            first, self._first = self._first, None
            self._keep(first)
        rest = b"" if self.error is not None else bytes(self.rest).strip(b"\n")
        self.rest.clear()
        return rest

    def _strip_bom(self, data: bytes) -> bytes:
        first = (self._first or b"") + data
        if len(first) < len(BOM) and BOM.startswith(first):
            self._first = first
            return b""
        self._first = None
        return first.removeprefix(BOM)

    def _checked(self, data: bytes) -> list[bytes]:
        """The blocks of a read that may hold one over a limit, up to the first that is."""
        good: list[bytes] = []
        blocks = data.split(b"\n\n")
        tail = blocks.pop()
        for block in blocks:
            block = block.lstrip(b"\n")
            if len(block) > self.small and self._overflows(0, 0, block):
                return good
            good.append(block)
        self._keep(tail)
        return good

    def _keep(self, data: bytes) -> None:
        """Add to the unfinished block what holds no blank line. The limits first, then it grows."""
        rest = self.rest
        if not rest:
            data = data.lstrip(b"\n")
            if not data:
                return
        size, line = len(rest), self._line
        newline = data.rfind(b"\n")
        self._line = line + len(data) if newline < 0 else len(data) - newline - 1
        if size + len(data) > self.small and self._overflows(size, line, data):
            return
        rest += data

    def _overflows(self, size: int, line: int, data: bytes) -> bool:
        """Does a block of `size` bytes, `line` of them in its last line, exceed a limit with `data`?

        The limit that the earlier byte exceeds is the one that is named, so that the error, too, is
        the same however the bytes are split.
        """
        limits = self._limits
        event_at: float = limits.event - size
        if size + len(data) - (data[-1] == 0x0A) <= limits.event:
            event_at = math.inf
        line_at = math.inf
        if line + len(data) > limits.line:
            start = 0
            while line_at == math.inf and start <= len(data):
                stop = data.find(b"\n", start)
                stop = len(data) if stop < 0 else stop
                if line + stop - start > limits.line:
                    line_at = start + limits.line - line
                start, line = stop + 1, 0
        if event_at == line_at == math.inf:
            return False
        name, what, limit = (
            ("line", "a line", limits.line) if line_at <= event_at else ("event", "an event", limits.event)
        )
        self.rest = bytearray()
        self.odd = True
        self.error = LimitExceededError(
            f"the event stream holds {what} of more than {limit} bytes (Limits.{name})",
            limit_name=name,
            limit=limit,
        )
        return True


def parse_block(block: bytes) -> tuple[bytes, bytes | None, bytes | None, int | None]:
    """Read the lines of one block (WHATWG HTML 9.2.6, "process the field").

    Gives (event type, data, id, retry), as bytes; None for what the block does not set.
    """
    event = b""
    data: bytes | list[bytes] | None = None
    id_: bytes | None = None
    retry: int | None = None
    for line in block.split(b"\n"):
        if line[:5] == b"data:":
            value = line[6:] if line[5:6] == b" " else line[5:]
        elif line[:1] == b":":
            continue
        elif line == b"data":
            value = b""
        else:
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"event":
                event = value
            elif name == b"id":
                id_ = id_ if b"\0" in value else value
            elif name == b"retry" and value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
                retry = int(value)
            continue
        if data is None:
            data = value
        elif isinstance(data, list):
            data.append(value)
        else:
            data = [data, value]
    if isinstance(data, list):
        data = b"\n".join(data)
    return event, data, id_, retry


class SSEDecoder:
    """An incremental decoder of event streams, WHATWG HTML 9.2.6.

    ``receive(bytes)`` returns the list of events that the bytes complete; an empty list means that
    more is needed. Feeding a stream whole or split anywhere gives equal events. Nothing that a
    server sends raises: over a limit the events before it are returned, ``error`` is set, and the
    rest is discarded. ``end()`` returns an empty list, always: the standard drops an unfinished
    event.
    """

    __slots__ = ("_ended", "_last_event_id", "_retry", "_splitter")

    def __init__(self, limits: Limits | None = None) -> None:
        self._splitter = BlockSplitter(limits or DEFAULT_LIMITS)
        self._last_event_id = ""
        self._retry: int | None = None
        self._ended = False

    @property
    def last_event_id(self) -> str:
        """The last event ID string, as the last blank line left it."""
        return self._last_event_id

    @property
    def retry(self) -> int | None:
        """The reconnection time in milliseconds, or None; set as soon as its line is complete."""
        pending = self._splitter.pending
        if b"retry" in pending:
            # An unterminated line is none yet, so only what stands before the last LF counts.
            retry = parse_block(pending[: pending.rfind(b"\n") + 1])[3]
            if retry is not None:
                return retry
        return self._retry

    @property
    def error(self) -> LimitExceededError | None:
        """Which limit the stream has exceeded, or None."""
        return self._splitter.error

    def receive(self, data: bytes) -> list[ServerSentEvent]:
        """Take bytes in; give the events that they complete, in order."""
        if self._ended:
            return []
        plain, blocks = self._splitter.receive(bytes(data))
        if plain:
            last = self._last_event_id
            return [ServerSentEvent("message", text.decode("utf-8", "replace"), last, None) for text in blocks]
        events: list[ServerSentEvent] = []
        for block in blocks:
            type_, value, id_, retry = parse_block(block)
            if id_ is not None:
                self._last_event_id = id_.decode("utf-8", "replace")
            if retry is not None:
                self._retry = retry
            if value is not None:
                name = type_.decode("utf-8", "replace") or "message"
                text = value.decode("utf-8", "replace")
                events.append(ServerSentEvent(name, text, self._last_event_id, retry))
        return events

    def end(self) -> list[ServerSentEvent]:
        """The stream has ended. Returns []; idempotent; what comes later is discarded."""
        if not self._ended:
            self._retry = self.retry
            self._ended = True
            self._splitter.end()
        return []
