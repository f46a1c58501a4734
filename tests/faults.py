"""What may go wrong on a connection after it stands, and what an exchange is to say of it."""

from __future__ import annotations

import time
from typing import NamedTuple

import pytest
from driving import HI, MODEL, Route

from deltawire import (
    APIError,
    DeltawireError,
    InternalServerError,
    MalformedEventError,
    ReadError,
    Timeout,
    TimeoutError,
    TransportError,
    TruncatedStreamError,
    UnexpectedReplyError,
)
from deltawire.protocol import ChatRequest, Context, Deadlines, Endpoint, Event, HTTPRequest, Reply, StreamFailed
from deltawire.testing import Answer


class Fault(NamedTuple):
    """An answer, and how it is to fail."""

    answer: Answer
    error: type[DeltawireError]
    partial: str | None = None
    deadline: str | None = None


def event(content: str | None = None) -> bytes:
    """A chunk; without content it has a role only."""
    delta = '{"role": "assistant"}' if content is None else f'{{"content": "{content}"}}'
    return f'data: {{"choices": [{{"index": 0, "delta": {delta}}}]}}\n\n'.encode()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
LENGTH_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 1000\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """An HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


_TWO = HEAD + chunk(event("a")) + chunk(event("b"))

FAULTS = {
    "reset before the head": Fault(Answer(cut_after=0, ending="reset"), ReadError),
    "end before the head": Fault(Answer(cut_after=0), ReadError),
    "stall before the head": Fault(Answer(cut_after=0, ending="stall"), TimeoutError, deadline="first_content"),
    "reset in the head": Fault(Answer(cut_after=20, ending="reset"), ReadError),
    "end in the head": Fault(Answer(cut_after=20), ReadError),
    "stall in the head": Fault(Answer(cut_after=20, ending="stall"), TimeoutError, deadline="first_content"),
    "reset after the head": Fault(Answer(events=[], ending="reset"), TruncatedStreamError),
    "end after the head": Fault(Answer(events=[], ending="close"), TruncatedStreamError),
    "stall after the head": Fault(Answer(events=[], ending="stall"), TimeoutError, deadline="first_content"),
    "reset before content": Fault(Answer(events=[event()], ending="reset"), TruncatedStreamError, ""),
    "stall before content": Fault(Answer(events=[event()], ending="stall"), TimeoutError, "", "first_content"),
    "reset mid-stream": Fault(Answer(events=[event("a"), event("b")], ending="reset"), TruncatedStreamError, "ab"),
    "end mid-stream": Fault(Answer(events=[event("a"), event("b")], ending="close"), TruncatedStreamError, "ab"),
    "stall mid-stream": Fault(Answer(events=[event("a"), event("b")], ending="stall"), TimeoutError, "ab", "idle"),
    "a body that ends in good order, too early": Fault(Answer(events=[event("a")]), TruncatedStreamError, "a"),
    "a body without framing that ends too early": Fault(
        Answer(events=[event("a")], framing="close"), TruncatedStreamError, "a"
    ),
    "a body shorter than its length": Fault(Answer(raw=LENGTH_HEAD + event("a")), TruncatedStreamError, "a"),
    "an empty body": Fault(Answer(body=b""), TruncatedStreamError),
    "comments for ever": Fault(Answer(events=[b": ping\n\n"] * 200, pace=0.02), TimeoutError, deadline="first_content"),
    "comments for ever after content": Fault(
        Answer(events=[event("a"), *[b": ping\n\n"] * 200], pace=0.02), TimeoutError, "a", "idle"
    ),
    "garbage for a head": Fault(Answer(raw=b"\x00\x01\xff no HTTP\r\n\r\n"), ReadError),
    "a chunk size that is none": Fault(Answer(raw=_TWO + b"zz\r\n"), TruncatedStreamError, "ab"),
    "a web page": Fault(Answer(body=b"<html>Welcome</html>", content_type="text/html"), UnexpectedReplyError),
    "truncated JSON": Fault(Answer(raw=JSON_HEAD + b'{"id": "x", "choices": [{"ind'), TruncatedStreamError),
    "truncated JSON in good order": Fault(Answer(body=b'{"id": "x", "choices": [{"ind'), TruncatedStreamError),
    "a malformed event": Fault(Answer(events=[event("a"), b"data: {oops}\n\n"]), MalformedEventError, "a"),
    "an error page cut off": Fault(
        Answer(raw=b"HTTP/1.1 503 Unavailable\r\nContent-Length: 1000\r\n\r\nSorry"), InternalServerError
    ),
}

# Inside an HTTP chunk, at several places of its size, its data, and the line breaks round them.
for _back in (1, 2, 3, 10, len(chunk(event("b"))) - 1, len(chunk(event("b"))) - 3):
    for _ending in ("close", "reset"):
        FAULTS[f"{_ending} {_back} bytes before the end of a chunk"] = Fault(
            Answer(raw=_TWO, cut_after=len(_TWO) - _back, ending=_ending),
            TruncatedStreamError,
            # With three bytes less its last line is whole, and is read as if a blank one followed.
            "ab" if _back <= 3 else "a",
        )
FAULTS["stall in a chunk"] = Fault(
    Answer(raw=_TWO, cut_after=len(_TWO) - 10, ending="stall"), TimeoutError, "a", "idle"
)

each_fault = pytest.mark.parametrize("name", FAULTS)

QUICK = Timeout(connect=5, first_content=0.2, idle=0.2)
LONG = Timeout(connect=5, first_content=5, idle=5)


def request_for(route: Route) -> HTTPRequest:
    """A request for a stream."""
    chat = ChatRequest(messages=HI, model=MODEL, stream=True)
    return Endpoint.at(route.server.url).chat(chat, api_key="sk-secret")


def reply_for(route: Route) -> Reply:
    return Reply(context=Context(url=route.server.url, secrets=("sk-secret",)))


def simple_request(url: str) -> HTTPRequest:
    """A request for a stream, of a server of any kind."""
    body = b'{"stream":true}'
    fields = ((b"host", b"example.org"), (b"content-length", b"%d" % len(body)))
    return HTTPRequest("POST", f"{url}/chat/completions", fields, body)


def deadlines(timeout: Timeout = QUICK) -> Deadlines:
    return Deadlines(timeout, time.monotonic())


def check(name: str, route: Route, events: list[Event]) -> DeltawireError:
    """See that the events are those of the fault; gives the error."""
    fault = FAULTS[name]
    assert sum(isinstance(each, StreamFailed) for each in events) == 1
    last = events[-1]
    assert isinstance(last, StreamFailed), events
    error = last.error
    assert isinstance(error, (APIError, TransportError))
    partial = None if error.partial is None else error.partial.choices[0].message.content or ""
    if name.startswith("reset"):
        # What was not read yet when RST came is lost; how much that is, is the system's business.
        assert isinstance(error, (fault.error, ReadError)), repr(error)
        assert (fault.partial or "").startswith(partial or "")
        return error
    assert type(error) is fault.error, repr(error)
    assert partial == fault.partial
    if fault.deadline is not None:
        assert isinstance(error, TimeoutError)
        assert (error.deadline, error.seconds) == (fault.deadline, 0.2)
    assert route.server.url in str(error) or fault.error is MalformedEventError
    return error
