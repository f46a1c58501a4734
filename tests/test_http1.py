"""http1.py: replies whole, byte by byte, at every split, cut off at every byte; and against a plain h11 loop."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from driving import shown
from feeding import (
    DONE,
    FINISH,
    QUICK,
    at_every_cut,
    delta,
    each_byte,
    ended,
    failure,
    judged,
    pieces,
    said,
    splits,
    sse,
    text,
)
from hypothesis import given
from hypothesis import strategies as st
from test_recordings import exchanges
from test_recordings import fed as fed_by_hand

from deltawire.protocol import (
    HTTP1_TRANSITIONS,
    APIStatusError,
    ChatCompletionChunk,
    ChatRequest,
    ConfigurationError,
    Context,
    Endpoint,
    HTTP1Exchange,
    HTTP1State,
    HTTPRequest,
    LimitExceededError,
    Limits,
    Proxy,
    ReadError,
    Reply,
    Site,
    StreamEnded,
    StreamFailed,
    TimeoutError,
    TruncatedStreamError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from deltawire.protocol import Event

HEAD, BODY, DRAINING, REUSABLE, CLOSED = HTTP1State

KEY = "sk-it's\\a\"quoted-key"
HI = ChatRequest(messages="Hi", model="m", stream=True)
SERVER = Endpoint.at("http://api.example:8000/v1")
REQUEST = SERVER.chat(HI, api_key=KEY)

WORDS = sse(delta("Hel"), delta("lo"), FINISH, DONE)
EVENTS = [said(event) for event in fed_by_hand((200, [(b"content-type", b"text/event-stream")], [WORDS], True))]
WHOLE = json.dumps(
    {"object": "chat.completion", "choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
).encode()


def exchange(
    request: HTTPRequest = REQUEST,
    *,
    limits: Limits | None = None,
    dialect: str = "openai",
    proxy: Proxy | None = None,
    sent: bool = True,
) -> HTTP1Exchange:
    """A new one, whose request has gone out."""
    context = Context.of(request, key=KEY, proxy=proxy)
    made = HTTP1Exchange(request, Reply(dialect, limits=limits, context=context), proxy=proxy)
    assert made.state is HEAD
    assert made.silent
    if sent:
        assert made.data_to_send()
    return made


def fed(parts: bytes | Iterable[bytes], **how: Any) -> tuple[list[Event], HTTP1Exchange]:
    """What these bytes make of a new exchange."""
    made = exchange(**how)
    events: list[Event] = []
    for part in [parts] if isinstance(parts, bytes) else parts:
        events += made.receive(part)
    assert made.done is made.reply.done is (bool(events) and isinstance(events[-1], (StreamEnded, StreamFailed)))
    assert made.reusable is (made.state is REUSABLE)
    return events, made


def told(parts: bytes | Iterable[bytes], **how: Any) -> tuple[list[tuple[object, ...]], HTTP1State]:
    """The same in a form that compares."""
    events, made = fed(parts, **how)
    return [said(event) for event in events], made.state


# --- Replies -----------------------------------------------------------------------------------------


def head(*fields: bytes, start: bytes = b"HTTP/1.1 200 OK", kind: bytes = b"text/event-stream") -> bytes:
    """The head of a reply."""
    return b"\r\n".join([start, b"Content-Type: " + kind, *fields, b"", b""])


def by_length(data: bytes) -> bytes:
    return b"Content-Length: %d" % len(data)


IN_CHUNKS = b"Transfer-Encoding: chunked"
CLOSE = b"Connection: close"


def chunked(*parts: bytes, written: bytes = b"%x\r\n", last: bytes = b"0\r\n\r\n") -> bytes:
    """A body in these chunks; ``written``: the line before each."""
    return b"".join(written % len(part) + part + b"\r\n" for part in parts) + last


LENGTH = head(by_length(WORDS)) + WORDS
CHUNKED = head(IN_CHUNKS) + chunked(*pieces(WORDS, (1, 40, 170)))
UNFRAMED = head() + WORDS
NONE = head(start=b"HTTP/1.1 100 Continue") + b"HTTP/1.1 102 \r\n\r\nHTTP/1.1 103\nLink: </x>\n\n"

# Good replies, and what becomes of the connection.
GOOD: dict[str, tuple[bytes, HTTP1State]] = {
    "a length": (LENGTH, REUSABLE),
    "chunks": (CHUNKED, REUSABLE),
    "one chunk": (head(IN_CHUNKS) + chunked(WORDS), REUSABLE),
    "a chunk a byte": (head(IN_CHUNKS) + chunked(*each_byte(WORDS[:60]), WORDS[60:]), REUSABLE),
    "chunk extensions": (head(IN_CHUNKS) + chunked(WORDS, written=b'%x;name="va;lue";x\r\n'), REUSABLE),
    "trailers": (head(IN_CHUNKS) + chunked(WORDS, last=b"0;last\r\nX-Sum: 1\r\nExpires: never\r\n\r\n"), REUSABLE),
    "sizes in upper case": (head(IN_CHUNKS) + chunked(*pieces(WORDS, [0xAB]), written=b"%X\r\n"), REUSABLE),
    "sizes with zeros": (head(IN_CHUNKS) + chunked(WORDS, written=b"000%x\r\n", last=b"0000\r\n\r\n"), REUSABLE),
    "sizes with blanks": (head(IN_CHUNKS) + chunked(WORDS, written=b"%x  \r\n"), REUSABLE),
    "a coding in capitals": (head(b"TRANSFER-ENCODING: Chunked") + chunked(WORDS), REUSABLE),
    "no framing": (UNFRAMED, CLOSED),
    "no framing, said": (head(CLOSE) + WORDS, CLOSED),
    "a length, and close": (head(by_length(WORDS), CLOSE) + WORDS, CLOSED),
    "chunks, and close": (head(b"connection: x, CLOSE", IN_CHUNKS) + chunked(WORDS), CLOSED),
    "a length, and keep-alive": (head(by_length(WORDS), b"Connection: keep-alive") + WORDS, REUSABLE),
    "HTTP/1.0": (head(start=b"HTTP/1.0 200 OK") + WORDS, CLOSED),
    "HTTP/1.0, a length": (head(by_length(WORDS), start=b"HTTP/1.0 200 OK") + WORDS, CLOSED),
    "HTTP/1.0, keep-alive": (
        head(by_length(WORDS), b"Connection: keep-alive", start=b"HTTP/1.0 200 OK") + WORDS,
        CLOSED,
    ),
    "both framings": (head(by_length(WORDS), IN_CHUNKS) + chunked(WORDS), CLOSED),
    "both framings, the other way round": (head(IN_CHUNKS, b"Content-Length: 5") + chunked(WORDS), CLOSED),
    "the same length twice": (head(by_length(WORDS), by_length(WORDS)) + WORDS, REUSABLE),
    "interim heads": (NONE + LENGTH, REUSABLE),
    "an interim head that says close": (head(CLOSE, start=b"HTTP/1.1 103 Early Hints") + LENGTH, REUSABLE),
    "many interim heads": (b"HTTP/1.1 102 Processing\r\n\r\n" * 30 + CHUNKED, REUSABLE),
    "an empty reason": (LENGTH.replace(b" OK", b" "), REUSABLE),
    "no reason": (LENGTH.replace(b" OK", b""), REUSABLE),
    "a reason beyond ASCII": (LENGTH.replace(b" OK", b" \xc3\x96K \xff"), REUSABLE),
    "bare LF": (head(by_length(WORDS)).replace(b"\r", b"") + WORDS, REUSABLE),
    "bare LF at times": (LENGTH.replace(b"stream\r\n", b"stream\n"), REUSABLE),
    "a folded field": (head(b"X-Long: a\r\n  b\r\n\tc", by_length(WORDS)) + WORDS, REUSABLE),
    "a length in letters of case": (head(b"cOnTeNt-LeNgTh:%d" % len(WORDS)) + WORDS, REUSABLE),
    "bytes behind it": (LENGTH + b"\r\n", CLOSED),
    "bytes behind the last chunk": (CHUNKED + b"x", CLOSED),
    "a reply behind it": (CHUNKED + LENGTH, CLOSED),
    "bytes behind the end mark": (head(by_length(WORDS + b": more\n\n")) + WORDS + b": more\n\n", REUSABLE),
    "no end mark": (head(IN_CHUNKS) + chunked(WORDS[: -len(sse(DONE))]), REUSABLE),
    "cut behind the end mark": (CHUNKED[:-3], DRAINING),
    "longer than there is": (head(b"Content-Length: 99999") + WORDS, DRAINING),
    "cut behind the end mark, and close": (head(IN_CHUNKS, CLOSE) + chunked(WORDS, last=b""), CLOSED),
    "broken behind the end mark": (CHUNKED[:-5] + b"oops\r\n", CLOSED),
    "broken behind the end mark's chunk": (CHUNKED[:-7] + b"\rx", CLOSED),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_replies_in_every_way(name: str) -> None:
    raw, state = GOOD[name]
    for way, parts in at_every_cut(raw):
        events, became = told(parts)
        assert events == EVENTS, way
        assert became is state, way


OTHER: dict[str, tuple[bytes, str, HTTP1State]] = {
    "an error status": (
        head(b"Content-Length: 33", start=b"HTTP/1.1 404 Not Found") + b'{"error": {"message": "no such"}}',
        "NotFoundError",
        REUSABLE,
    ),
    "an error in chunks": (
        head(IN_CHUNKS, b"Retry-After: 3", start=b"HTTP/1.1 429 Slow") + chunked(b"slow ", b"down"),
        "RateLimitError",
        REUSABLE,
    ),
    "an error without a body": (
        head(b"Content-Length: 0", start=b"HTTP/1.1 503 Busy"),
        "InternalServerError",
        REUSABLE,
    ),
    "an error that closes": (
        head(b"Content-Length: 1", CLOSE, start=b"HTTP/1.1 500 Oh") + b"x",
        "InternalServerError",
        CLOSED,
    ),
    "an odd status": (head(b"Content-Length: 1", start=b"HTTP/1.1 999 Oh") + b"x", "InternalServerError", REUSABLE),
    "a redirect": (
        head(b"Location: /y", b"Content-Length: 0", start=b"HTTP/1.1 307 Go"),
        "RedirectError",
        REUSABLE,
    ),
    "an error in the stream": (
        head(IN_CHUNKS) + chunked(sse({"error": {"message": "full", "code": 503}})),
        "InternalServerError",
        REUSABLE,
    ),
    "an error in the stream, and more": (
        head(IN_CHUNKS) + chunked(sse({"error": {"message": "full", "code": 503}}), last=b"5\r\nab"),
        "InternalServerError",
        DRAINING,
    ),
    "no content": (head(start=b"HTTP/1.1 204 No Content"), "TruncatedStreamError", CLOSED),
    "an empty body": (head(b"Content-Length: 0"), "TruncatedStreamError", CLOSED),
    "an event that is none": (head(IN_CHUNKS) + chunked(b"data: {oops}\n\n", WORDS), "MalformedEventError", CLOSED),
    "a web page": (head(IN_CHUNKS, kind=b"text/html") + chunked(b"<html>"), "UnexpectedReplyError", CLOSED),
    "a reply that is cut short in good order": (
        head(IN_CHUNKS) + chunked(sse(delta("a"))),
        "TruncatedStreamError",
        CLOSED,
    ),
    "an unknown coding": (head(by_length(WORDS), b"Content-Encoding: br") + WORDS, "UnexpectedReplyError", CLOSED),
    "an unknown coding of an error": (
        head(b"Content-Length: 2", b"Content-Encoding: br", start=b"HTTP/1.1 502 Oh") + b"ab",
        "InternalServerError",
        REUSABLE,
    ),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "ReadError", CLOSED),
    "TLS, an alert": (b"\x15\x03\x01\x00\x02\x02\x46", "ReadError", CLOSED),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "ReadError", CLOSED),
    "a blank line": (b"\r\n" + LENGTH, "ReadError", CLOSED),
    "a blank line of LF": (b"\n" + LENGTH, "ReadError", CLOSED),
    "a blank": (b" " + LENGTH, "ReadError", CLOSED),
    "a backslash": (b"\\" + LENGTH, "ReadError", CLOSED),
    "HTTP/0.9": (b"Hello\n\n", "ReadError", CLOSED),
    "HTTP/2": (b"HTTP/2 200 OK\r\n\r\n", "ReadError", CLOSED),
    "no status": (b"HTTP/1.1 OK\r\n\r\n", "ReadError", CLOSED),
    "a status of two digits": (b"HTTP/1.1 20\r\n\r\n", "ReadError", CLOSED),
    "a status below 100": (b"HTTP/1.1 099 Oh\r\n\r\n", "ReadError", CLOSED),
    "a field that is none": (head(b"oh no"), "ReadError", CLOSED),
    "a fold that is none": (b"HTTP/1.1 200 OK\r\n x: y\r\n\r\n", "ReadError", CLOSED),
    "two lengths": (head(b"Content-Length: 1", b"Content-Length: 2"), "ReadError", CLOSED),
    "a length that is none": (head(b"Content-Length: -1"), "ReadError", CLOSED),
    "an unknown transfer coding": (head(b"Transfer-Encoding: gzip, chunked"), "ReadError", CLOSED),
    "another protocol, unasked": (b"HTTP/1.1 101 Switching\r\n\r\n", "ReadError", CLOSED),
    "a chunk size that is none": (
        head(IN_CHUNKS) + chunked(sse(delta("a")), last=b"-5\r\n"),
        "TruncatedStreamError",
        CLOSED,
    ),
    "a chunk that is longer than its size": (
        head(IN_CHUNKS) + chunked(sse(delta("a")), last=b"1\r\nabc"),
        "TruncatedStreamError",
        CLOSED,
    ),
    "a trailer that is none": (
        head(IN_CHUNKS) + chunked(sse(delta("a")), last=b"0\r\noh no\r\n\r\n"),
        "TruncatedStreamError",
        CLOSED,
    ),
}


@pytest.mark.parametrize("name", OTHER)
def test_other_replies_in_every_way(name: str) -> None:
    raw, error, state = OTHER[name]
    events, _ = fed(raw)
    assert type(failure(events)).__name__ == error
    first = [said(event) for event in events]
    for way, parts in at_every_cut(raw):
        assert told(parts) == (first, state), way


def test_what_an_error_status_said() -> None:
    error = failure(fed(OTHER["an error status"][0])[0])
    assert isinstance(error, APIStatusError)
    assert (error.status_code, "no such" in str(error)) == (404, True)
    late = failure(fed(OTHER["an error in chunks"][0])[0])
    assert isinstance(late, APIStatusError)
    assert (late.retry_after, late.body) == (3.0, "slow down")
    assert (b"retry-after", b"3") in late.headers


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SSH", "illegal status line: 'SSH-2.0-OpenSSH_9.2'"),
        ("TLS", "it does not answer in HTTP"),
        ("a blank line", "it does not answer in HTTP"),
        ("a field that is none", "illegal header line: 'oh no'"),
        ("a chunk that is longer than its size", "malformed chunk footer)"),
        ("a chunk size that is none", "illegal chunk header: '-5'"),
    ],
)
def test_the_words_of_what_is_no_http(name: str, words: str) -> None:
    error = str(failure(fed(OTHER[name][0])[0]))
    assert words in error
    assert "http://api.example:8000/v1/chat/completions" in error
    assert "bytearray" not in error


def test_one_document() -> None:
    for raw in (
        head(by_length(WHOLE), kind=b"application/json") + WHOLE,
        head(IN_CHUNKS, kind=b"application/json") + chunked(*pieces(WHOLE, (3, 50))),
    ):
        for way, parts in at_every_cut(raw):
            events, made = fed(parts)
            assert (text(events), made.state) == ("Hello", REUSABLE), way
            completion = ended(events).completion
            assert completion is not None
            assert completion.choices[0].message.content == "Hello"


def test_a_coded_body() -> None:
    packed = gzip.compress(WORDS)
    raw = head(IN_CHUNKS, b"Content-Encoding: gzip") + chunked(*pieces(packed, (2, 30)))
    for way, parts in at_every_cut(raw):
        events, made = fed(parts)
        assert ([said(event) for event in events], made.state) == (EVENTS, REUSABLE), way


def test_the_other_dialect() -> None:
    raw = head(IN_CHUNKS) + chunked(
        sse({"type": "live", "data": "Hel"}, {"type": "live", "data": "lo"}, {"type": "end", "data": "{}"})
    )
    for way, parts in at_every_cut(raw):
        events, made = fed(parts, dialect="opchatgpts")
        assert (text(events), ended(events).finished, made.state) == ("Hello", True, REUSABLE), way


def test_the_head_reaches_the_reply() -> None:
    made = exchange()
    assert made.receive(head(b"X-Request-Id: r-1", by_length(WORDS), start=b"HTTP/1.1 201 Made")) == []
    assert made.state is BODY
    assert made.reply.status == 201
    assert made.reply.request_id == "r-1"
    assert made.reply.headers[0] == (b"content-type", b"text/event-stream")


def test_events_come_with_the_bytes_that_complete_them() -> None:
    made = exchange()
    assert made.receive(head(IN_CHUNKS)) == []
    for word in ("a", "b"):
        (event,) = made.receive(chunked(sse(delta(word)), last=b""))
        assert isinstance(event, ChatCompletionChunk)
    assert not made.done
    # All of one read, in order; the bytes of the next chunk's head wait.
    events = made.receive(chunked(sse(delta("c")), sse(delta("d")), last=b"5"))
    assert text(events) == "cd"
    assert [type(event) for event in made.receive(b"\r\ndata:\r\n")] == []


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_all_kinds(kind: Callable[[bytes], Any]) -> None:
    for name in ("a length", "chunks", "no framing"):
        assert told(map(kind, each_byte(GOOD[name][0])))[0] == EVENTS
        assert told([kind(b""), kind(GOOD[name][0])])[0] == EVENTS


def test_a_large_body() -> None:
    one = sse(delta("x" * 1000))
    data = one * 8000 + sse(FINISH, DONE)
    for raw in (head(by_length(data)) + data, head(IN_CHUNKS) + chunked(*pieces(data, range(0, len(data), 50_000)))):
        started = time.process_time()
        events, made = fed(pieces(raw, range(0, len(raw), 65_536)))
        assert len(text(events)) == 8_000_000
        assert made.state is REUSABLE
        assert time.process_time() - started < 20, "a byte is not looked at again and again"


# --- Before and after ----------------------------------------------------------------------------------


def test_silence() -> None:
    made = exchange()
    assert made.receive(b"") == []
    assert [made.silent, made.receive(b"H"), made.silent] == [True, [], False]
    early = exchange()
    early.receive(NONE)
    assert not early.silent
    assert early.state is HEAD


def test_a_reply_before_the_request_was_taken() -> None:
    for name in ("a length", "chunks", "no framing"):
        events, made = fed(GOOD[name][0], sent=False)
        assert [said(event) for event in events] == EVENTS
        assert made.state is CLOSED
    # Also when it is taken afterwards: it can't have been sent.
    made = exchange(sent=False)
    made.receive(CHUNKED[:-3])
    assert made.state is CLOSED
    assert made.data_to_send()
    assert made.receive(CHUNKED[-3:]) == []
    assert made.state is CLOSED
    # While the reply comes it is early enough.
    slow = exchange(sent=False)
    slow.receive(CHUNKED[:100])
    assert slow.data_to_send()
    slow.receive(CHUNKED[100:])
    assert slow.state is REUSABLE


@pytest.mark.parametrize("name", ["a length", "chunks", "chunk extensions", "trailers", "interim heads"])
def test_the_verdict_comes_before_the_message_is_over(name: str) -> None:
    raw = GOOD[name][0]
    made = exchange()
    states = []
    for byte in each_byte(raw):
        made.receive(byte)
        states.append(made.state)
        assert made.done is (made.state in (DRAINING, REUSABLE))
    assert [state for state, _ in itertools.groupby(states)] == (
        [HEAD, BODY, REUSABLE] if name == "a length" or name == "interim heads" else [HEAD, BODY, DRAINING, REUSABLE]
    )


def test_bytes_that_nobody_has_asked_for() -> None:
    for more in (b"\r\n", LENGTH, b"\x00"):
        made = fed(LENGTH)[1]
        assert made.receive(b"") == []
        assert made.reusable
        assert made.receive(more) == []
        assert made.state is CLOSED
        assert made.receive(more) == []


@pytest.mark.parametrize("name", ["a length", "cut behind the end mark", "no framing"])
def test_after_the_verdict_the_end_and_failures_say_nothing(name: str) -> None:
    for way in ("end", "fail"):
        made = fed(GOOD[name][0])[1]
        for _ in range(2):
            assert (made.end() if way == "end" else made.fail(OSError("gone"))) == []
            assert made.state is CLOSED
        assert made.receive(LENGTH) == made.end() == made.fail(OSError("x")) == []


# --- Cut off ------------------------------------------------------------------------------------------

BROKEN_OFF = {"a length": LENGTH, "chunks": CHUNKED, "no framing": UNFRAMED, "HTTP/1.0": GOOD["HTTP/1.0"][0]}


def positions(raw: bytes) -> tuple[int, int]:
    """How many bytes the head has, and how many it takes for all choices to have their finish reasons."""
    begins = raw.index(b"\r\n\r\n") + 4
    return begins, raw.index(b'"finish_reason": "stop"}]}') + len(b'"finish_reason": "stop"}]}')


@pytest.mark.parametrize("name", BROKEN_OFF)
@pytest.mark.parametrize("way", ["end", "fail"])
def test_cut_off_after_every_byte(name: str, way: str) -> None:
    raw = BROKEN_OFF[name]
    begins, finished = positions(raw)
    for length in range(len(raw)):
        events, made = fed(raw[:length])
        verdict = made.end() if way == "end" else made.fail(OSError("reset"))
        events += verdict
        assert made.state is CLOSED
        assert made.end() == made.fail(OSError("x")) == made.receive(raw[length:]) == [], "idempotent"
        if length >= finished:
            assert ended(events).finished, length
            assert text(events) == "Hello"
            continue
        error = failure(events)
        assert type(error) is (ReadError if length < begins else TruncatedStreamError), length
        partial = error.partial
        assert (partial.choices[0].message.content if partial else "") == text(events)
        if way == "fail":
            assert "reset" in str(error)
        assert "api.example" in str(error)


def test_the_end_before_an_answer() -> None:
    for raw in (b"", b"HTTP/1.1 100 Continue\r\n\r\n", NONE):
        events, made = fed(raw)
        error = failure(events + made.end())
        assert type(error) is ReadError
        assert "without an answer" in str(error)


def test_the_end_says_what_is_missing() -> None:
    some = WORDS[:60]
    for raw, words in (
        (head(by_length(WORDS)) + some, f"received 60 bytes, expected {len(WORDS)}"),
        (head(IN_CHUNKS) + chunked(some, last=b""), "incomplete chunked read"),
        (head(IN_CHUNKS) + chunked(some, last=b"5"), "unexpectedly closed"),
        (head(IN_CHUNKS) + chunked(some, last=b"0\r\nX: y"), "unexpectedly closed"),
        (head()[:-2], "unexpectedly closed"),
    ):
        events, made = fed(raw)
        assert words in str(failure(events + made.end()))


def test_a_deadline_that_passes_is_the_verdict() -> None:
    for raw in (b"", LENGTH[:20], LENGTH[:150]):
        events, made = fed(raw)
        late = TimeoutError("late")
        assert failure(events + made.fail(late)) is late


# --- Limits -------------------------------------------------------------------------------------------

HEADS = {
    "plain": head(IN_CHUNKS, b"X-Some: " + b"x" * 100),
    "bare LF": head(IN_CHUNKS, b"X-Some: " + b"x" * 100).replace(b"\r", b""),
    "interim": NONE + head(IN_CHUNKS),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_may_be_as_long_as_the_limit_says(name: str) -> None:
    raw = HEADS[name] + chunked(WORDS)
    limit = len(HEADS[name])
    for way, parts in at_every_cut(raw):
        assert told(parts, limits=Limits(head=limit)) == (EVENTS, REUSABLE), way
    first: list[Any] = []
    for way, parts in at_every_cut(raw):
        events, made = fed(parts, limits=Limits(head=limit - 1))
        error = failure(events)
        assert isinstance(error, LimitExceededError), way
        assert (error.limit_name, error.limit, made.state) == ("head", limit - 1, CLOSED)
        assert "api.example" in str(error)
        first = first or events
        assert [said(event) for event in events] == [said(event) for event in first]


@pytest.mark.parametrize("raw", [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"x", b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"])
def test_what_does_not_end_ends_at_the_limit(raw: bytes) -> None:
    made = exchange(limits=Limits(head=5000))
    for length in itertools.count(len(raw), len(raw)):
        if events := made.receive(raw):
            break
        assert length < 5000
    assert 5000 <= length < 5000 + len(raw)
    assert type(failure(events)) is LimitExceededError


def endless(opening: bytes, more: bytes, limit: int) -> tuple[list[Event], int, HTTP1Exchange]:
    """What comes of an opening and of more for ever, and how much more it took."""
    made = exchange(limits=Limits(head=limit))
    events = made.receive(opening)
    taken = 0
    while made.state in (BODY, DRAINING):
        assert taken <= 2 * limit
        events += made.receive(more)
        taken += len(more)
    return events, taken, made


@pytest.mark.parametrize("line", [b"5;", b"0\r\nX: ", b"0\r\nX: y\r\nZ: "])
def test_lines_between_chunks_are_bounded_too(line: bytes) -> None:
    opening = head(IN_CHUNKS) + chunked(sse(delta("a")), last=line)
    for more in (b"x", b"y" * 50):
        events, taken, made = endless(opening, more, 1000)
        error = failure(events)
        assert isinstance(error, LimitExceededError)
        assert (error.limit_name, error.limit) == ("head", 1000)
        assert error.partial is not None
        assert text(events) == "a"
        assert 900 < taken <= 1100
        assert made.state is CLOSED
    # Shorter ones are not.
    good = head(IN_CHUNKS) + chunked(WORDS, written=b"%x;" + b"x" * 900 + b"\r\n", last=b"0\r\nX: " + b"y" * 900)
    events, made = fed(each_byte(good + b"\r\n\r\n"), limits=Limits(head=1000))
    assert ended(events).finished
    assert made.reusable


def test_what_does_not_end_behind_the_verdict_closes() -> None:
    events, _, made = endless(head(IN_CHUNKS) + chunked(WORDS, last=b"5;"), b"x" * 100, 1000)
    assert [said(event) for event in events] == EVENTS
    assert made.state is CLOSED


# --- Any bytes ----------------------------------------------------------------------------------------


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A reply, good or not, with something changed."""
    raw = draw(st.sampled_from([GOOD[name][0] for name in GOOD if len(GOOD[name][0]) < 1500] + [CHUNKED, CHUNKED]))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(raw)))
        gone = draw(st.integers(0, 3) | st.integers(0, len(raw)))
        new = draw(
            st.binary(max_size=4)
            | st.sampled_from([b"\r\n", b"\n", b"\r", b"0\r\n\r\n", b"\r\n\r\n", b": ", b" ", b"data: x\n\n", b"100"])
        )
        raw = raw[:start] + new + raw[start + gone :]
    return raw


ANY = damaged() | st.binary(max_size=60) | st.binary(max_size=30).map(lambda more: head(IN_CHUNKS) + more)


@QUICK
@given(st.data())
def test_all_splits_agree_on_any_bytes(data: st.DataObject) -> None:
    raw = data.draw(ANY)
    ending = data.draw(st.sampled_from(["", "end", "fail"]))

    def heard(parts: Sequence[bytes]) -> tuple[list[tuple[object, ...]], HTTP1State]:
        events, made = fed(parts)
        if ending:
            events += made.end() if ending == "end" else made.fail(OSError("reset"))
            assert made.state is CLOSED
            assert made.done
        return [said(event) for event in events], made.state

    whole = heard([raw])
    assert heard(each_byte(raw)) == whole
    assert heard(data.draw(splits(raw))) == whole


@QUICK
@given(st.data())
def test_a_plain_loop_of_h11_says_the_same(data: st.DataObject) -> None:
    raw = data.draw(ANY)
    events, made = fed(data.draw(splits(raw)))
    events += made.end()
    found = exchanges([raw])
    by_hand = fed_by_hand(found[0]) if found else [StreamFailed(ReadError("no head"))]
    assert judged(events) == judged(by_hand)


# --- One after the other --------------------------------------------------------------------------------


def test_ten_requests_on_one_connection() -> None:
    made = exchange()
    for number in range(10):
        raw = GOOD[("a length", "chunks", "trailers", "interim heads", "no reason")[number % 5]][0]
        events = [event for part in pieces(raw, (number * 7, 200)) for event in made.receive(part)]
        assert [said(event) for event in events] == EVENTS
        assert made.reusable
        last, asked = made, SERVER.chat(ChatRequest(messages=str(number), model="m"))
        made = last.next(asked, Reply())
        assert last.state is CLOSED
        assert not last.reusable
        assert last.receive(LENGTH) == last.end() == last.fail(OSError("x")) == [], "the bytes are not for it"
        assert (made.state, made.silent, made.done) == (HEAD, True, False)
        assert made.data_to_send().endswith(asked.body)
        assert (made.data_to_send(), last.data_to_send()) == (b"", b"")


def test_after_an_error_status_too() -> None:
    made = fed(OTHER["an error status"][0])[1].next(REQUEST, Reply())
    made.data_to_send()
    assert [said(event) for event in made.receive(CHUNKED)] == EVENTS


def test_the_next_exchange_has_limits_of_its_own() -> None:
    fields = b"X-Long: " + b"x" * 3000
    raw = head(IN_CHUNKS, fields) + chunked(WORDS, last=b"0\r\n" + fields + b"\r\n\r\n")
    made = fed(CHUNKED, limits=Limits(head=1000))[1].next(REQUEST, Reply(limits=Limits(head=4000)))
    made.data_to_send()
    events = [event for byte in each_byte(raw) for event in made.receive(byte)]
    assert [said(event) for event in events] == EVENTS
    assert made.reusable
    made = made.next(REQUEST, Reply(limits=Limits(head=200)))
    assert isinstance(failure(made.receive(raw)), LimitExceededError)


WORDS_OF_STATES = {
    HEAD: "the head of the reply is awaited",
    BODY: "the body of the reply is read",
    DRAINING: "the verdict is given; the rest of the message is awaited",
    REUSABLE: "over; the connection takes the next request",
    CLOSED: "over; the connection is to be closed, or belongs to the next exchange",
}

WAYS_THERE: dict[HTTP1State, tuple[bytes, ...]] = {
    HEAD: (b"", b"HTTP/1.1 200", NONE),
    BODY: (head(), CHUNKED[:100]),
    DRAINING: (CHUNKED[:-3],),
    CLOSED: (UNFRAMED, b"\x00", LENGTH + b"x"),
}


@pytest.mark.parametrize("state", WAYS_THERE)
def test_next_where_it_can_not_be(state: HTTP1State) -> None:
    for raw in WAYS_THERE[state]:
        made = fed(raw)[1]
        with pytest.raises(UsageError) as caught:
            made.next(REQUEST, Reply())
        assert str(caught.value) == f"HTTP1Exchange.next() can't be called now: {WORDS_OF_STATES[state]}"
        assert made.state is state
    first = fed(LENGTH)[1]
    assert first.state.value == WORDS_OF_STATES[REUSABLE]
    first.next(REQUEST, Reply())
    with pytest.raises(UsageError, match="the next exchange"):
        first.next(REQUEST, Reply())


def begun() -> list[Reply]:
    """Replies that can't be read into another exchange."""
    started, failed, over = Reply(), Reply(), Reply()
    started.start(200, [])
    failed.fail(OSError("x"))
    over.end()
    return [started, failed, over]


def test_a_reply_that_has_begun() -> None:
    made = fed(LENGTH)[1]
    for reply in begun():
        with pytest.raises(UsageError, match=r"^the reply has begun already: make a Reply for each exchange$"):
            HTTP1Exchange(REQUEST, reply)
        with pytest.raises(UsageError, match="begun already"):
            made.next(REQUEST, reply)
    assert made.reusable, "nothing has changed"
    interim = Reply()
    interim.start(100, [])
    assert made.next(REQUEST, interim).state is HEAD


def test_next_with_a_request_that_can_not_be_said() -> None:
    made = fed(LENGTH)[1]
    with pytest.raises(ConfigurationError):
        made.next(HTTPRequest("GET", "http://h/", ()), Reply())
    assert made.next(REQUEST, Reply()).data_to_send()


# --- What goes out --------------------------------------------------------------------------------------


def lines(data: bytes) -> tuple[bytes, list[bytes], bytes]:
    """The request's line, its fields, its body."""
    top, _, body = data.partition(b"\r\n\r\n")
    first, *fields = top.split(b"\r\n")
    return first, fields, body


def test_the_request() -> None:
    made = exchange(sent=False)
    first, fields, body = lines(made.data_to_send())
    assert first == b"POST /v1/chat/completions HTTP/1.1"
    assert fields == [name + b": " + value for name, value in REQUEST.headers]
    assert body == REQUEST.body
    assert made.data_to_send() == b""
    listing = HTTP1Exchange(SERVER.models(), Reply("models"))
    first, fields, body = lines(listing.data_to_send())
    assert (first, body) == (b"GET /v1/models HTTP/1.1", b"")


def test_a_large_request() -> None:
    asked = SERVER.chat(ChatRequest(messages="x" * 3_000_000, model="m"))
    sent = HTTP1Exchange(asked, Reply()).data_to_send()
    assert lines(sent)[2] == asked.body


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_http_request_is_put_to_the_proxy_itself(scheme: str) -> None:
    proxy = Proxy.parse(f"{scheme}://me:pa%20ss@proxy.example:3128", headers={"X-Team": "blue"})
    request = REQUEST.to(REQUEST.url + "?q=1")
    first, fields, body = lines(exchange(request, proxy=proxy, sent=False).data_to_send())
    assert first == b"POST http://api.example:8000/v1/chat/completions?q=1 HTTP/1.1"
    assert b"proxy-authorization: Basic bWU6cGEgc3M=" in fields
    assert b"x-team: blue" in fields
    assert b"host: api.example:8000" in fields
    assert body == request.body


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://api.example/v1", "http://me:pass@proxy.example"),
        ("https://api.example/v1", "https://me:pass@proxy.example"),
        ("https://api.example/v1", "socks5://me:pass@proxy.example"),
        ("http://api.example/v1", "socks5h://me:pass@proxy.example"),
        ("http://api.example/v1", "socks5://proxy.example"),
    ],
)
def test_through_a_tunnel_nothing_is_said_of_the_proxy(url: str, proxy: str) -> None:
    request = Endpoint.at(url).chat(HI)
    there = exchange(request, proxy=Proxy.parse(proxy), sent=False).data_to_send()
    assert there == exchange(request, sent=False).data_to_send()
    assert there.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"roxy" not in there


def test_the_next_request_through_a_proxy() -> None:
    """A connection leads where it led before."""
    proxy = Proxy.parse("http://me:pass@proxy.example")
    through = fed(LENGTH, proxy=proxy)[1].next(REQUEST, Reply()).data_to_send()
    assert through.startswith(b"POST http://api.example:8000/v1/")
    assert b"\r\nproxy-authorization: Basic " in through
    direct = fed(LENGTH)[1].next(REQUEST, Reply()).data_to_send()
    assert direct.startswith(b"POST /v1/")
    assert b"roxy" not in direct


SECRET = b"sk-very-secret-indeed"
HOST = (b"host", b"h")
FIELD = (b"authorization", b"Bearer " + SECRET)

ILLEGAL: dict[str, HTTPRequest] = {
    "a method with a blank": HTTPRequest("PO ST", "http://h/", (HOST, FIELD)),
    "a method beyond ASCII": HTTPRequest("PÖST", "http://h/", (HOST, FIELD)),
    "a line break": HTTPRequest("GET", "http://h/", (HOST, (b"authorization", SECRET + b"\r\nx: y"))),
    "NUL": HTTPRequest("GET", "http://h/", (HOST, (b"authorization", SECRET + b"\x00"))),
    "a blank before": HTTPRequest("GET", "http://h/", (HOST, (b"authorization", b" " + SECRET))),
    "a name that is none": HTTPRequest("GET", "http://h/", (HOST, (b"x y: " + SECRET, b""))),
    "no host": HTTPRequest("GET", "http://h/", (FIELD,)),
    "two hosts": HTTPRequest("GET", "http://h/", (HOST, HOST, FIELD)),
    "no length": HTTPRequest("POST", "http://h/", (HOST, FIELD), SECRET),
    "a length that is too short": HTTPRequest("POST", "http://h/", (HOST, (b"content-length", b"3")), SECRET),
    "a length that is too long": HTTPRequest("POST", "http://h/", (HOST, (b"content-length", b"99")), SECRET),
    "a length without a body": HTTPRequest("POST", "http://h/", (HOST, (b"content-length", b"3"), FIELD)),
    "a length that is none": HTTPRequest("POST", "http://h/", (HOST, (b"content-length", SECRET))),
    "two lengths": HTTPRequest(
        "POST", "http://h/", (HOST, (b"content-length", b"1"), (b"content-length", SECRET)), b"x"
    ),
    "an unknown transfer coding": HTTPRequest("POST", "http://h/", (HOST, (b"transfer-encoding", SECRET)), b"x"),
    "a field as a text beyond ASCII": HTTPRequest(
        "GET",
        "http://h/",
        (HOST, (b"authorization", "Bearer ü" + SECRET.decode())),  # type: ignore[arg-type]
    ),
}


@pytest.mark.parametrize("name", ILLEGAL)
@pytest.mark.parametrize("proxy", [None, Proxy.parse("http://me:pass@proxy.example")], ids=["direct", "proxy"])
def test_what_http_can_not_say(name: str, proxy: Proxy | None) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HTTP1Exchange(ILLEGAL[name], Reply(), proxy=proxy)
    assert str(caught.value) == (
        "HTTP/1.1 can't say this request: are its method, target and fields legal, with one host among them, and "
        "a content-length that is the body's?"
    )
    assert SECRET.decode() not in shown(caught.value)
    assert caught.value.__context__ is caught.value.__cause__ is None


@pytest.mark.parametrize("method", ["POST", "CONNECT"])
def test_a_server_that_agrees_to_another_protocol(method: str) -> None:
    fields = (*REQUEST.headers, (b"upgrade", b"websocket"), (b"connection", b"upgrade"))
    request = HTTPRequest(method, REQUEST.url, fields, REQUEST.body)
    answer = b"HTTP/1.1 101 Switching Protocols\r\n\r\n" if method == "POST" else b"HTTP/1.1 200 Go on\r\n\r\n"
    for _, parts in at_every_cut(answer + b"\x81\x05hello"):
        events, made = fed(parts, request=request)
        assert isinstance(failure(events), (ReadError, TruncatedStreamError))
        assert re.search(r"(: | \()the server goes on in another protocol(\)|$)", str(failure(events)))
        assert made.state is CLOSED
    if method == "POST":
        assert told(LENGTH, request=request) == (EVENTS, REUSABLE), "it need not agree"


def test_a_request_that_wants_the_connection_closed() -> None:
    chat = ChatRequest(messages="Hi", model="m", extra_headers={"connection": "close"})
    for raw in (LENGTH, CHUNKED[:-3]):
        assert told(raw, request=SERVER.chat(chat)) == (EVENTS, CLOSED)


# --- Secrets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"%s\r\n\r\n",
        b"HTTP/1.1 200 %s\x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nyou said %s\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: %s\x00\r\n\r\n",
        head(IN_CHUNKS) + b"5 %s\r\n",
        head(IN_CHUNKS) + b"0\r\n%s\r\n\r\n",
        head(IN_CHUNKS) + b"1\r\na%s\r\n",
    ],
)
@pytest.mark.parametrize("key", [KEY, "sk-plain-secret", "it's-one-quote", 'back\\slash-"double'])
def test_secrets_that_a_peer_says_back(raw: bytes, key: str) -> None:
    proxy = Proxy.parse("http://me:pass%5Cword'x@proxy.example")
    request = SERVER.chat(HI, api_key=key)
    for secret in (key, "pass\\word'x"):
        said_back = raw % secret.encode()
        for parts in ([said_back], each_byte(said_back)):
            made = HTTP1Exchange(request, Reply(context=Context.of(request, key=key, proxy=proxy)), proxy=proxy)
            events = [event for part in parts for event in made.receive(part)]
            events += made.end()
            words = shown(failure(events))
            for each in (secret, repr(secret)[1:-1], secret.replace("\\", "\\\\").replace("'", "\\'"), secret[2:]):
                assert each not in words


def test_a_long_line_is_shown_in_part() -> None:
    made = fed(b"x" * 60_000 + b"\r\n\r\n")[0]
    assert len(str(failure(made))) < 500


# --- States -------------------------------------------------------------------------------------------

MOVES: dict[str, list[Callable[[HTTP1Exchange], object]]] = {
    "receive": [
        lambda made: made.receive(b""),
        lambda made: made.receive(b"HTTP/1.1 100 Continue\r\n\r\n"),
        lambda made: made.receive(head(IN_CHUNKS)),
        lambda made: made.receive(head(IN_CHUNKS) + chunked(WORDS, last=b"")),
        lambda made: made.receive(head(IN_CHUNKS) + chunked(WORDS)),
        lambda made: made.receive(chunked(sse(delta("a")), last=b"")),
        lambda made: made.receive(chunked(WORDS, last=b"")),
        lambda made: made.receive(chunked(WORDS)),
        lambda made: made.receive(b"0\r\n\r\n"),
        lambda made: made.receive(b"\x00"),
    ],
    "end": [lambda made: made.end()],
    "fail": [lambda made: made.fail(OSError("x"))],
    "next": [lambda made: made.next(REQUEST, Reply())],
}


def test_the_table_says_all_moves_and_no_more() -> None:
    observed: dict[tuple[HTTP1State, str], set[HTTP1State]] = {}
    refused: set[tuple[HTTP1State, str]] = set()
    reached: list[list[Callable[[HTTP1Exchange], object]]] = [[]]
    for _ in range(3):
        following = []
        for moves in reached:
            for verb, calls in MOVES.items():
                for call in calls:
                    made = exchange()
                    for move in moves:
                        move(made)
                    before = made.state
                    try:
                        call(made)
                    except UsageError:
                        assert made.state is before
                        refused.add((before, verb))
                        continue
                    observed.setdefault((before, verb), set()).add(made.state)
                    if before is not CLOSED:
                        following.append([*moves, call])
        reached = following
    assert observed == {move: set(states) for move, states in HTTP1_TRANSITIONS.items()}
    assert refused == set(itertools.product(HTTP1State, MOVES)) - set(HTTP1_TRANSITIONS)


# --- For a chat -------------------------------------------------------------------------------------------

PROXY = Proxy.parse("http://me:pass-word@proxy.example:3128")


def test_for_a_chat_with_a_server() -> None:
    made = HTTP1Exchange.chat(HI, SERVER, api_key=KEY, limits=Limits(head=100), proxy=PROXY)
    assert isinstance(made, HTTP1Exchange)
    first, fields, body = lines(made.data_to_send())
    assert first == b"POST http://api.example:8000/v1/chat/completions HTTP/1.1"
    assert b"authorization: Bearer " + KEY.encode() in fields
    assert b"proxy-authorization: Basic bWU6cGFzcy13b3Jk" in fields
    assert json.loads(body) == {"messages": [{"role": "user", "content": "Hi"}], "model": "m", "stream": True}
    error = failure(made.receive(b"x" * 100))
    assert isinstance(error, LimitExceededError)
    assert "via proxy http://proxy.example:3128" in str(error)


def test_for_a_chat_with_a_site() -> None:
    site = Site.at("https://site.example")
    made = HTTP1Exchange.chat(HI, site, nonce="n0nce", chat_id="abc", session_id="s1", proxy=PROXY)
    first, fields, body = lines(made.data_to_send())
    assert first == b"POST /wp-json/mwai-ui/v1/chats/submit HTTP/1.1"
    assert b"x-wp-nonce: n0nce" in fields
    assert json.loads(body)["newMessage"] == "Hi"
    said_live = sse({"type": "live", "data": "Hel"}, {"type": "live", "data": "lo"}, {"type": "end", "data": "{}"})
    assert text(made.receive(head(IN_CHUNKS) + chunked(said_live))) == "Hello"
    assert made.reusable


def test_for_a_chat_that_can_not_be_asked() -> None:
    with pytest.raises(ConfigurationError):
        HTTP1Exchange.chat(ChatRequest(messages=5, model="m"), SERVER)
    with pytest.raises(TypeError):
        HTTP1Exchange.chat(HI, SERVER, nonce="n")


def test_a_class_of_ones_own() -> None:
    class Mine(HTTP1Exchange):
        __slots__ = ()

    assert type(Mine.chat(HI, SERVER)) is Mine


# --- The short way -----------------------------------------------------------------------------------

_CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_TOKEN = b'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
_CHUNK = b"%x\r\n%s\r\n" % (len(_TOKEN), _TOKEN)


@pytest.mark.parametrize("at", range(1, len(_CHUNK)))
def test_a_chunk_in_two_reads_is_no_reason_to_leave_the_short_way(at: int) -> None:
    """h11 gets that one, to its very end, and none after it: it is known again where it stands."""
    made = exchange(sent=True)
    assert made.receive(_CHUNKED_HEAD) == []
    given: list[bytes] = []
    real = made._connection.receive_data

    def noting(data: bytes) -> None:
        given.append(bytes(data))
        real(data)

    made._connection.receive_data = noting  # type: ignore[method-assign]
    events = [event for read in (_CHUNK, _CHUNK[:at], _CHUNK[at:], _CHUNK, _CHUNK * 3) for event in made.receive(read)]
    assert len(events) == 6
    assert b"".join(given) in (b"", _CHUNK)
    given.clear()
    made.receive(_CHUNK)
    assert given == []
