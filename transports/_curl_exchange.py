"""Exchanges over libcurl, and the lines that are kept for the next ones.

One exchange is used by one thread at a time. Any other may end it, while that one waits or works: closing then only
leaves word, and wakes the one who waits; he it is who closes the connection. So nothing is closed that is in use, and
nobody waits for a thread in order to close.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from deltawire.protocol import ReadError, TransportError, UsageError
from deltawire.protocol.verdicts import is_sound

from ._curl import END, HEADER_IN, CurlECode, CurlInfo, CurlOpt, Line, parsed
from ._curl_words import failure, is_elsewhere, waiting_for
from ._errors import exchange_error
from ._forking import keep, tell
from ._options import DRAIN_BYTES, DRAIN_SECONDS
from .streams.layers import Expired, closed_here

if TYPE_CHECKING:
    from deltawire.protocol import Deadlines, DeltawireError, Event, Reply

    from ._curl_request import Prepared


# CURL_IPRESOLVE_V4 and _V6 (curl/curl.h).
_IPV4, _IPV6 = 1, 2

# As much as is kept of a proxy's answer; no refusal needs more.
_LONGEST_HEADS = 64 * 1024


class _Interrupted(Exception):
    """The exchange was closed while it was waited for."""


class Lines:
    """The connections of a transport: those in use, and those that are kept. For any thread.

    Its lock may be taken again by the thread that holds it, since a finaliser may run in the midst of it.
    """

    def __init__(self, keepalive_expiry: float | None, max_keepalive_connections: int | None) -> None:
        self._expiry = keepalive_expiry
        self._most = max_keepalive_connections
        self._lock = threading.RLock()
        self._closed = False
        # One that nobody holds is over, and its connection closed with it.
        self._busy: weakref.WeakSet[ImpersonateExchange] = weakref.WeakSet()
        # The longest unused first.
        self._idle: collections.deque[tuple[Any, Line]] = collections.deque()

    def take(self, exchange: ImpersonateExchange, key: Any) -> Line:
        """A line for the exchange; with a connection of this kind, if one is kept."""
        with self._lock:
            if self._closed:
                raise UsageError("the client is closed: make a new one")
            stale = self._stale()
            found = next((each for each in reversed(self._idle) if each[0] == key), None)
            if found is not None:
                self._idle.remove(found)
            self._busy.add(exchange)
        for line in stale:
            line.close()
        return Line() if found is None else found[1]

    def give(self, exchange: ImpersonateExchange, key: Any, line: Line, *, keep: bool) -> None:
        """The exchange is over; its connection can be kept, or not."""
        with self._lock:
            self._busy.discard(exchange)
            if keep and not self._closed:
                line.idle_since = time.monotonic()
                self._idle.append((key, line))
                stale = self._stale()
            else:
                stale = [line]
        for each in stale:
            each.close()

    def _stale(self) -> list[Line]:
        """Take out those that are kept too long, or are too many."""
        found = []
        oldest = float("-inf") if self._expiry is None else time.monotonic() - self._expiry
        while self._idle and (
            self._idle[0][1].idle_since < oldest or (self._most is not None and len(self._idle) > self._most)
        ):
            found.append(self._idle.popleft()[1])
        return found

    def count(self) -> tuple[int, int]:
        """How many connections are busy, and how many are idle."""
        with self._lock:
            return len(self._busy), len(self._idle)

    def close(self) -> None:
        """Close them all, those in use as well, now and from now on. Idempotent."""
        with self._lock:
            self._closed = True
            busy, idle = list(self._busy), list(self._idle)
            self._idle.clear()
        for exchange in busy:
            exchange.close_now()
        for _, line in idle:
            line.close()


class ImpersonateExchange:
    """One request and its reply."""

    def __init__(self, lines: Lines, prepared: Prepared, reply: Reply, deadlines: Deadlines) -> None:
        self._lines = lines
        self._prepared = prepared
        self._reply = reply
        self._deadlines = deadlines
        self._line: Line | None = None
        self._events: list[Event] = []
        self._head: list[bytes] = []
        # Whether the head of the reply is over: what comes like one after it is a trailer.
        self._in_body = False
        self._begun = False
        self._connected = False
        self._steps: set[int] = set()
        # What an HTTP proxy has answered to CONNECT; and how the first of two addresses has failed.
        self._heard = bytearray()
        self._first_error: DeltawireError | None = None
        # libcurl's code, once it is done with the request; and whether the verdict speaks for the connection.
        self._result: int | None = None
        self._sound = False
        self._contents = 0
        self._drained = 0
        # What threads tell each other. The lock is taken for moments only.
        self._lock = threading.RLock()
        self._working = False
        self._closed = False
        self.at_rest = threading.Event()
        """No thread is at work."""
        self.at_rest.set()
        tell(self)

    def forked(self) -> None:
        """See `Forked`. What is read here the parent would miss; and libcurl says goodbye on what it closes."""
        self._lock = threading.RLock()
        self._working = False
        self.at_rest = threading.Event()
        self.at_rest.set()
        if self._line is not None:
            self._closed = True
            keep(self._line)

    def next_events(self) -> list[Event]:
        """See `Exchange`."""
        while self.wants:
            self.work()
        return self.take()

    @property
    def wants(self) -> bool:
        """Whether there is to be a further event, and it has not come."""
        return not self._events and not self._reply.done

    def take(self) -> list[Event]:
        """The events that `work` has brought. Whoever stops waiting for it leaves them for the next one to ask."""
        events, self._events = self._events, []
        return events

    def work(self) -> None:
        """Wait for the next events. Without any it returns when the exchange was closed meanwhile; the next time, that
        is an event."""
        if self._closed:
            if not self._begun:
                raise UsageError("the exchange is closed")
            self._events += self._reply.fail(self._failed(closed_here()))
            return
        try:
            self._start_work()
            try:
                self._work()
            finally:
                self._end_work()
        except _Interrupted:
            pass
        except BaseException:
            self.close_now()
            raise

    def _start_work(self) -> None:
        with self._lock:
            if self._closed:
                raise _Interrupted
            self._working = True
            self.at_rest.clear()

    def _end_work(self) -> None:
        with self._lock:
            self._working = False
            closed = self._closed
        if closed:
            self._release()
        self.at_rest.set()

    def _work(self) -> None:
        reply = self._reply
        try:
            self._advance(self._until())
        except (TransportError, Expired, OSError) as error:
            self._events += reply.fail(self._failed(error))
        if (contents := reply.contents) != self._contents:
            self._contents = contents
            self._deadlines.content(time.monotonic())
        if reply.done and self._events:
            self._sound = is_sound(self._events[-1])

    def _failed(self, error: Exception) -> DeltawireError:
        if isinstance(error, Expired) and not self._connected:
            error = Expired(waiting_for(self._line, self._prepared, self._steps))
        return exchange_error(error, self._deadlines, self._reply.context)

    def _until(self) -> float:
        """The caller begins to wait: until when he may."""
        now = time.monotonic()
        until = self._deadlines.wait_until(now)
        if now >= until:
            raise Expired
        return until

    def _advance(self, until: float) -> None:
        """Go on until there are events. Raises `Expired` at this time, or at that of a phase that begins meanwhile."""
        line = self._line or self._begin()
        while True:
            result = line.perform()
            if self._closed:
                raise _Interrupted
            if result is None and not self._connected and line.info(CurlInfo.PRETRANSFER_TIME_T):
                until = self._stands()
            if result is not None:
                self._over(result, line)
            if self._events or self._reply.done:
                return
            now = time.monotonic()
            if now >= until:
                raise Expired
            line.wait(until - now)

    def _begin(self) -> Line:
        self._begun = True
        line = self._line = self._lines.take(self, self._prepared.key)
        # Of a name that is not looked up by the SOCKS proxy, libcurl tries but one address, and IPv6 first: few such
        # proxies have that.
        self._send(line, *([(CurlOpt.IPRESOLVE, _IPV4)] if self._prepared.looks_up else []))
        return line

    def _send(self, line: Line, *more: tuple[CurlOpt, int]) -> None:
        # Not held by its own line: it would be closed no sooner than the garbage is collected.
        me, cls, bound, prepared = weakref.proxy(self), type(self), functools.partial, self._prepared
        calls = bound(cls._take_line, me), bound(cls._take_data, me), bound(cls._hear, me)
        line.begin(prepared.profile, [*prepared.options, *more], *calls)

    def _stands(self) -> float:
        """The connection does: the request is on its way."""
        self._connected = True
        if self._line is not None:
            self._line.hush()
        self._deadlines.connected(time.monotonic())
        return self._until()

    def _over(self, result: int, line: Line) -> None:
        """libcurl is done with the request."""
        reply = self._reply
        if result == CurlECode.OK or reply.done:
            self._result = result
            self._events += reply.end()
            return
        connected = self._connected or reply.status is not None
        error = failure(result, line, self._prepared, connected, reply.context, bytes(self._heard))
        if self._prepared.looks_up and self._first_error is None and is_elsewhere(result, error):
            self._first_error = error
            line.finish()
            self._send(line, (CurlOpt.IPRESOLVE, _IPV6))
            return
        self._result = result
        if self._first_error is not None and result == CurlECode.COULDNT_RESOLVE_HOST:
            error = self._first_error
        self._events += reply.fail(error)

    # Called by libcurl, from within `Line.perform`.

    def _hear(self, kind: int, data: bytes) -> None:
        """What goes over the wire until the connection stands: how far it has come, and an HTTP proxy's last answer."""
        self._steps.add(kind)
        if kind == HEADER_IN and not self._connected and len(self._heard) < _LONGEST_HEADS:
            if data.startswith(b"HTTP/"):
                self._heard.clear()
            self._heard += data

    def _take_line(self, line: bytes) -> int:
        """A line of a head, with its end."""
        if self._closed or self._reply.done:
            return len(line) if self._reply.done else END
        if self._in_body:
            return len(line)
        # As libcurl sees it: whatever may follow a CR there.
        if not line.startswith((b"\r", b"\n")):
            self._head.append(line.rstrip(b"\r\n"))
            return len(line)
        status, fields = parsed(self._head)
        self._head = []
        if status is None:
            return self._broken()
        self._in_body = status >= 200 or status == 101
        self._events += self._reply.start(status, fields)
        return len(line)

    def _broken(self) -> int:
        where = self._reply.context.where()
        self._events += self._reply.fail(ReadError(f"the server does not answer in HTTP{where}: is base_url right?"))
        return END

    def _take_data(self, data: bytes) -> int:
        """A piece of the body, its codings undone."""
        if self._closed:
            return END
        if self._reply.done:
            # The connection may be kept, if that is not much.
            self._drained += len(data)
            return len(data) if self._drained <= DRAIN_BYTES else END
        if self._reply.status is None:
            return self._broken()
        # At once: of a small piece a large one may have been made, many of them at that, and limits are to be met.
        self._events += self._reply.receive(data)
        return len(data)

    # The end

    @property
    def drains(self) -> bool:
        """Whether `close` would wait for the rest of the reply, so that the connection can be kept."""
        return self._sound and self._result is None and not self._closed

    def close(self) -> None:
        """See `Exchange`."""
        if self.drains:
            self._drain()
        self.close_now()

    def _drain(self) -> None:
        until = time.monotonic() + DRAIN_SECONDS
        try:
            self._start_work()
        except _Interrupted:
            return
        try:
            with contextlib.suppress(OSError):
                while not self._closed and self._line is not None:
                    self._result = self._line.perform()
                    left = until - time.monotonic()
                    if self._result is not None or left <= 0:
                        break
                    self._line.wait(left)
        finally:
            self._end_work()

    def close_now(self) -> None:
        """Give the connection back, or close it, without waiting. Idempotent; from any thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._working:
                if self._line is not None:
                    self._line.wake()
                return
        self._release()

    def _release(self) -> None:
        with self._lock:
            line, self._line = self._line, None
        if line is None:
            return
        keep = self._sound and self._result == CurlECode.OK and line.finish()
        self._lines.give(self, self._prepared.key, line, keep=keep)

    def abandon(self) -> None:
        """See `Exchange`."""
        with contextlib.suppress(Exception):
            self.close_now()
