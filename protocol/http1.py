"""One request and its reply over HTTP/1.1, as bytes: for whoever owns the connection. RFC 9112, by h11.

Theory
------
An exchange has two ends. At the one the caller moves bytes: what `data_to_send` gives goes out, what comes in goes to
`receive`, the peer's end to `end`, and a connection that broke to `fail`. At the other one there are the events of the
`Reply`, which is fed from within: the exchange finds the head, takes off the framing (a length, chunks, or none but
the connection's end), and hands over the body as it comes.

There are two ends of another kind, too: the reply has its verdict, and the message is over. Mostly the verdict comes
first (``[DONE]`` stands before the last chunk), so there is something left to be read, which says nothing any more but
decides whether the connection may carry another request::

    HEAD      the head is awaited; heads of 1xx are passed over (RFC 9110 section 15.2)
    BODY      the body is read
    DRAINING  the verdict is given, and the message is not over
    REUSABLE  the message is over, and the connection takes the next request: `next`
    CLOSED    over, and so is the connection, which is to be closed

A connection is for further use only if nothing speaks against it: both sides keep it (RFC 9112 section 9.3), the
message was whole and framed in one way, nothing came behind it, the request was sent, and the reply's verdict is good
or the server's own (an error status): what is left of any other may be anything.

Chunks. Servers send each token in a chunk of its own, mostly in one read; h11 takes ten times as long for it as the
JSON in it takes. But a chunk that is there as a whole, with nothing but a size before it, needs no parser, and h11
between two chunks remembers nothing: so such chunks are taken off here, and h11 never knows that there were any. All
else goes to h11, which has the last word on all that is not plain: a part of a chunk (and then exactly the rest of it),
extensions, the last chunk, trailers, and whatever is wrong. It is known where h11 stands, since it gets heads up to
their end, and of chunks a count of bytes; where that can't be told (a head with bare LFs and more behind it), h11 gets
the whole body.

The states and the legal moves stand in `HTTP1_TRANSITIONS`. What the peer does wrong becomes the reply's failure, with
what had arrived; a verb out of turn raises `UsageError`.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Any

import h11

from .errors import ConfigurationError, UsageError
from .routing import absolute_form
from .verdicts import broken, is_sound, too_large

if TYPE_CHECKING:
    from typing import Protocol

    from .errors import DeltawireError
    from .events import Event
    from .proxy import Proxy
    from .reply import Reply
    from .request import ChatRequest, HTTPRequest
    from .urls import URL

    class ChatProvider(Protocol):
        """Whoever makes the request for a chat, and the machine for its reply: `Endpoint`, `Site`, and the providers
        of the package ``deltawire``."""

        def prepare(self, chat: ChatRequest, *_: Any, **options: Any) -> tuple[HTTPRequest, Reply]:
            """The request, and the machine for its reply. (Whatever options it has: so both must be said here.)"""


class HTTP1State(enum.Enum):
    """Where an exchange stands."""

    HEAD = "the head of the reply is awaited"
    BODY = "the body of the reply is read"
    DRAINING = "the verdict is given; the rest of the message is awaited"
    REUSABLE = "over; the connection takes the next request"
    CLOSED = "over; the connection is to be closed, or belongs to the next exchange"


_HEAD, _BODY, _DRAINING, _REUSABLE, _CLOSED = HTTP1State

# (state, verb) -> the states that the verb may lead to.
HTTP1_TRANSITIONS: dict[tuple[HTTP1State, str], frozenset[HTTP1State]] = {
    (_HEAD, "receive"): frozenset(HTTP1State),
    (_HEAD, "end"): frozenset({_CLOSED}),
    (_HEAD, "fail"): frozenset({_CLOSED}),
    (_BODY, "receive"): frozenset({_BODY, _DRAINING, _REUSABLE, _CLOSED}),
    (_BODY, "end"): frozenset({_CLOSED}),
    (_BODY, "fail"): frozenset({_CLOSED}),
    (_DRAINING, "receive"): frozenset({_DRAINING, _REUSABLE, _CLOSED}),
    (_DRAINING, "end"): frozenset({_CLOSED}),
    (_DRAINING, "fail"): frozenset({_CLOSED}),
    (_REUSABLE, "receive"): frozenset({_REUSABLE, _CLOSED}),
    (_REUSABLE, "end"): frozenset({_CLOSED}),
    (_REUSABLE, "fail"): frozenset({_CLOSED}),
    (_REUSABLE, "next"): frozenset({_CLOSED}),
    (_CLOSED, "receive"): frozenset({_CLOSED}),
    (_CLOSED, "end"): frozenset({_CLOSED}),
    (_CLOSED, "fail"): frozenset({_CLOSED}),
}

# Looked up once, for each token.
_NEED_DATA, _DATA = h11.NEED_DATA, h11.Data

# The line before a chunk (RFC 9112 section 7.1) at its plainest; and the beginning of one.
_chunk_size = re.compile(rb"([1-9A-Fa-f][0-9A-Fa-f]{0,7})\r\n").match
_size_begun = re.compile(rb"[1-9A-Fa-f][0-9A-Fa-f]{0,7}\r?\Z").match

# What h11 calls an answer that does not begin as one in HTTP does.
_NO_HEAD = frozenset({"illegal status line", "no response line received", "illegal request line"})


class HTTP1Exchange:
    """A request, and the `Reply` to it, on a connection that the caller owns.

    ``request``: what goes out. ``reply``: a new `Reply`; its events are what `receive`, `end` and `fail` return.
    ``proxy``: the proxy that the connection leads through, if any. (An http:// request is sent to an HTTP proxy itself,
    with the whole URL in it, RFC 9112 section 3.2.2, and with the proxy's credentials; any other goes through a tunnel,
    which `tunnel` opens beforehand.)

    Raises `UsageError` for a reply that has begun, `ConfigurationError` for a request that HTTP/1.1 can't say.
    """

    __slots__ = (
        "_chunked", "_connection", "_head_left", "_held", "_outgoing", "_owed", "_proxy", "_silent", "_sound",
        "_state", "reply", "url",
    )  # fmt: skip

    def __init__(self, request: HTTPRequest, reply: Reply, *, proxy: Proxy | None = None) -> None:
        if reply.status is not None or reply.done:
            raise UsageError("the reply has begun already: make a Reply for each exchange")
        self.reply = reply
        """The machine that reads the reply."""
        self.url: URL = request.parts
        """Where the connection leads, be it through a proxy."""
        self._head_left = reply.limits.head
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=reply.limits.head)
        self._proxy = proxy
        self._outgoing = _encoded(self._connection, request, proxy)
        self._state = _HEAD
        self._silent = True
        self._sound = True
        # Whether it is known where h11 stands in a chunked body: so many bytes before the end of a chunk; and what it
        # has not got yet of the line before one.
        self._chunked = False
        self._owed = 0
        self._held = b""

    @classmethod
    def chat(
        cls, chat: ChatRequest, provider: ChatProvider, *, proxy: Proxy | None = None, **options: Any
    ) -> HTTP1Exchange:
        """The exchange for a chat with a provider: an `Endpoint`, a `Site`, or one of the package ``deltawire``, class
        or instance. ``options`` are those of its ``prepare``: ``api_key``, ``limits``, and what a `Site` needs."""
        request, reply = provider.prepare(chat, proxy=proxy, **options)
        return cls(request, reply, proxy=proxy)

    @property
    def state(self) -> HTTP1State:
        """Where the exchange stands."""
        return self._state

    @property
    def done(self) -> bool:
        """Whether the reply's verdict has been given."""
        return self.reply.done

    @property
    def reusable(self) -> bool:
        """Whether the connection takes the next request (`next`). When the verdict is given, and this is not yet so,
        what is left may be read; or the connection is closed."""
        return self._state is _REUSABLE

    @property
    def silent(self) -> bool:
        """Whether nothing has come yet. A connection that was kept, and ends so, was given up before the request came:
        that may be sent again, on a new one (RFC 9112 section 9.3.1)."""
        return self._silent

    def data_to_send(self) -> bytes:
        """What is to be sent now, once: the whole request; b"" after that."""
        data, self._outgoing = self._outgoing, b""
        return data

    def receive(self, data: bytes) -> list[Event]:
        """Bytes of the peer have come. Returns the events of the reply that they complete, in order."""
        if self._chunked and data:
            if self._owed or self._held or type(data) is not bytes:
                return self._receive_chunks(bytes(data))
            line = _chunk_size(data)
            if line is None or int(line[1], 16) != len(data) - line.end() - 2 or data[-2:] != b"\r\n":
                return self._receive_chunks(data)
            # The usual case, on the shortest way: one chunk, and nothing else.
            events = self.reply.receive(data[line.end() : -2])
            if self.reply.done:
                self._settle(events, over=False)
            return events
        if not data or self._state is _CLOSED:
            return []
        self._silent = False
        if self._state is _HEAD:
            return self._receive_head(data)
        if self._state is _REUSABLE:
            # Nobody has asked for that.
            self._state = _CLOSED
            return []
        self._connection.receive_data(data)
        return self._read()

    def end(self) -> list[Event]:
        """The peer has ended its side of the connection. Idempotent."""
        if self._state is _CLOSED:
            return []
        was = self._state
        self._close()
        if was in (_DRAINING, _REUSABLE):
            return []
        if was is _HEAD and not self._connection.trailing_data[0]:
            # Not a byte of it has come.
            return self.reply.end()
        if self._held:
            self._connection.receive_data(self._held)
        try:
            self._connection.receive_data(b"")
            # Without framing of its own, the body is over where the connection is.
            self._connection.next_event()
        except h11.RemoteProtocolError as error:
            return self.reply.fail(self._wrong(error))
        return self.reply.end()

    def fail(self, error: Exception) -> list[Event]:
        """The connection broke, a deadline passed, or the caller gives up. Idempotent."""
        self._close()
        return self.reply.fail(error)

    def next(self, request: HTTPRequest, reply: Reply) -> HTTP1Exchange:
        """The exchange for the next request on the same connection, through the same proxy. This one is over then.

        Raises `UsageError` where the connection is not `reusable`; and as the constructor does. When it raises, nothing
        has changed.
        """
        if (self._state, "next") not in HTTP1_TRANSITIONS:
            raise UsageError(f"HTTP1Exchange.next() can't be called now: {self._state.value}")
        # One of h11's connections has nothing to tell the next: not a byte is left, and the limits may be others.
        following = HTTP1Exchange(request, reply, proxy=self._proxy)
        self._state = _CLOSED
        return following

    # -- what comes ------------------------------------------------------------------------------

    def _receive_head(self, data: bytes) -> list[Event]:
        """No more is taken than a head may have. h11 gets it by itself, so that it is known where a body begins."""
        data, position = bytes(data), 0
        events: list[Event] = []
        while self._state is _HEAD and position < len(data):
            most = position + self._head_left
            end = data.find(b"\r\n\r\n", position, most) + 4
            part = data[position : end if end > 3 else most]
            position += len(part)
            self._head_left -= len(part)
            self._connection.receive_data(part)
            events += self._read()
            if self._state is _HEAD and self._head_left == 0:
                limits, context = self.reply.limits, self.reply.context
                return events + self._break(too_large("the head of the reply", context.where(), "head", limits.head))
        return events + self.receive(data[position:])

    def _receive_chunks(self, data: bytes) -> list[Event]:
        """Take off the chunks that are there as a whole; what is left is h11's, or the next read's."""
        if self._held:
            data, self._held = self._held + data, b""
        position, size = 0, len(data)
        body: list[bytes] = []
        if self._owed:
            position = min(self._owed, size)
            self._owed -= position
            self._connection.receive_data(data[:position])
            events = self._read()
            if events or not self._chunked:
                return events + self.receive(data[position:])
        while position < size:
            line = _chunk_size(data, position)
            if line is None:
                if _size_begun(data, position):
                    self._held = data[position:]
                    break
                # The last chunk, or one that is not plain: h11 knows.
                self._chunked = False
                self._connection.receive_data(data[position:])
                return self._read(body)
            begin = line.end()
            end = begin + int(line[1], 16)
            if data[end : end + 2] != b"\r\n":
                # It is not there as a whole, or is none.
                self._owed = max(end + 2 - size, 0)
                self._chunked = self._owed > 0
                self._connection.receive_data(data[position:])
                return self._read(body)
            body.append(data[begin:end])
            position = end + 2
        if not body:
            return []
        events = self.reply.receive(body[0] if len(body) == 1 else b"".join(body))
        if events and self.reply.done:
            self._settle(events, over=False)
        return events

    def _read(self, body: list[bytes] | None = None) -> list[Event]:
        """What h11 makes of the bytes that it has; ``body`` stands before them."""
        next_event = self._connection.next_event
        events: list[Event] = []
        body = [] if body is None else body
        failure: Exception | None = None
        over = False
        try:
            while (event := next_event()) is not _NEED_DATA:
                if type(event) is _DATA:
                    body.append(event.data)
                elif type(event) is h11.Response:
                    events += self._start(event)
                elif type(event) is h11.EndOfMessage:
                    over = True
                    break
                elif event is h11.PAUSED:  # a request with Upgrade, or for CONNECT, and the server agrees
                    raise h11.RemoteProtocolError("the server goes on in another protocol")
        except h11.RemoteProtocolError as error:
            failure = self._wrong(error)
        if body:
            events += self.reply.receive(bytes(body[0]) if len(body) == 1 else b"".join(body))
        if over:
            events += self.reply.end()
        if failure is not None:
            return events + self._break(failure)
        if over or (events and self.reply.done):
            self._settle(events, over)
        return events

    def _start(self, head: h11.Response) -> list[Event]:
        self._state = _BODY
        names = [name for name, _ in head.headers]
        chunked = b"transfer-encoding" in names
        # Framed in two ways: who reads it in the other way sees another message begin (RFC 9112 section 6.1). In none:
        # the body is over with the connection.
        self._sound = chunked != (b"content-length" in names)
        # (A reply of 204 or 304 has no body, whatever it says.)
        self._chunked = chunked and head.status_code not in (204, 304) and not self._connection.trailing_data[0]
        return self.reply.start(head.status_code, list(head.headers))

    def _settle(self, events: list[Event], over: bool) -> None:
        """The verdict is given, the message is over, or both."""
        if events and self.reply.done:
            self._sound = self._sound and is_sound(events[-1])
        if not self._sound or self._outgoing or self._connection.our_state is not h11.DONE:
            # (Whichever side wants it closed, h11 says it of ours.) So there is nothing to wait for.
            self._close()
        elif over:
            self._state = _CLOSED if self._connection.trailing_data[0] else _REUSABLE
        else:
            self._state = _DRAINING

    def _wrong(self, error: h11.RemoteProtocolError) -> DeltawireError:
        """What the peer has done wrong, in words that are the same however its bytes were split."""
        context = self.reply.context
        if error.error_status_hint == 431:
            what = "the line before a chunk of the reply, or the fields after the last one,"
            return too_large(what, context.where(), "head", self.reply.limits.head)
        what, _, shown = str(error).partition(": bytearray(b")
        if what in _NO_HEAD and shown[1:2] in ("", " ", "\\"):
            # h11 refuses some by their first byte, if it comes alone, and speaks of requests then.
            error = h11.RemoteProtocolError("it does not answer in HTTP")
        elif what == "malformed chunk footer":
            error = h11.RemoteProtocolError(what)
        return broken(error, context)

    def _break(self, error: Exception) -> list[Event]:
        self._close()
        return self.reply.fail(error)

    def _close(self) -> None:
        self._state = _CLOSED
        self._chunked = False


def _encoded(connection: h11.Connection, request: HTTPRequest, proxy: Proxy | None) -> bytes:
    url = request.parts
    target = url.target
    if proxy is not None and proxy.takes(url.scheme):
        request = absolute_form(request, proxy)
        target = str(url)
    parts: list[Any] = []
    try:
        parts.append(connection.send(h11.Request(method=request.method, target=target, headers=list(request.headers))))
        if request.body:
            parts.append(connection.send(h11.Data(data=request.body)))
        parts.append(connection.send(h11.EndOfMessage()))
    except (h11.LocalProtocolError, UnicodeEncodeError):
        # It may hold a field's value, which may be a key: so it is nobody's ``__context__``.
        parts.clear()
    if not parts:
        raise ConfigurationError(
            "HTTP/1.1 can't say this request: are its method, target and fields legal, with one host among them, and "
            "a content-length that is the body's?"
        )
    return b"".join(parts)
