"""Odd replies, legal and not, byte for byte the same on both transports: what a caller is told of them is the same."""

from __future__ import annotations

import gzip
import re
from typing import Any, NamedTuple

import pytest
from driving import TRANSPORTS, Driver, Transports
from faults import FAULTS, HEAD, chunk, event

from deltawire import LimitExceededError, ReadError, TruncatedStreamError, owners
from deltawire.testing import Answer, ChatServer

pytestmark = pytest.mark.usefixtures("_tidy")

GOOD = event("a") + b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
ZIPPED = gzip.compress(GOOD, mtime=0)
STREAM = b"Content-Type: text/event-stream\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def reply(line: bytes = b"HTTP/1.1 200 OK", fields: bytes = STREAM, body: bytes = GOOD) -> bytes:
    return line + b"\r\n" + fields + b"\r\n" + body


def length(count: int = len(GOOD)) -> bytes:
    return b"Content-Length: %d\r\n" % count


INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"

REPLIES = {
    # How the body is framed
    "HTTP/1.0": reply(b"HTTP/1.0 200 OK"),
    "a body that the connection ends": reply(),
    "a length": reply(fields=STREAM + length()),
    "the same length twice": reply(fields=STREAM + length() * 2),
    "two lengths": reply(fields=STREAM + length(3) + length(4)),
    "a length that is none": reply(fields=STREAM + b"Content-Length: x\r\n"),
    "a length and chunks": reply(fields=STREAM + length(5) + CHUNKED, body=chunk(GOOD) + b"0\r\n\r\n"),
    "chunks, extended, with trailers": reply(
        fields=STREAM + CHUNKED, body=b"%x;foo=bar\r\n" % len(GOOD) + GOOD + b"\r\n0\r\nX: y\r\n\r\n"
    ),
    "a transfer coding that nobody asked for": reply(
        fields=STREAM + b"Transfer-Encoding: gzip, chunked\r\n", body=chunk(GOOD)
    ),
    "something behind the end": reply(fields=STREAM + length(), body=GOOD + b"garbage"),
    "a chunk of a negative size": HEAD + chunk(event("a")) + b"-5\r\nhallo\r\n",
    "a chunk of an immense size": HEAD + chunk(event("a")) + b"f" * 40 + b"\r\nhallo\r\n",
    "a chunk that is longer than its size": HEAD + chunk(event("a")) + b"5\r\nhelloXX0\r\n\r\n",
    "a chunk whose size does not end": HEAD + chunk(event("a")) + b"5;" + b"x" * 300_000,
    "trailers without end": HEAD + chunk(event("a")) + b"0\r\n" + b"X: y\r\n" * 100_000,
    # Heads
    "no reason": reply(b"HTTP/1.1 200 ", STREAM + length()),
    "no reason, and no space": reply(b"HTTP/1.1 200", STREAM + length()),
    "lines that end in LF": reply(fields=STREAM + length()).replace(b"\r\n", b"\n"),
    "an empty line first": b"\r\n" + reply(),
    "a blank first": b" " + reply(),
    "a field without a colon": reply(fields=b"no colon here\r\n" + STREAM),
    "a field whose name has a blank": reply(fields=b"a b: c\r\n" + STREAM),
    "a folded field": reply(fields=b"a: b\r\n c\r\n" + STREAM),
    "NUL in a field": reply(fields=b"x: a\0b\r\n" + STREAM),
    "Latin-1 in a field": reply(b"HTTP/1.1 200 OK \xe4", b"x: \xe4\xff\r\n" + STREAM),
    "a head of 60,000 bytes": reply(fields=b"x: " + b"a" * 60_000 + b"\r\n" + STREAM),
    "HTTP/2.0": reply(b"HTTP/2.0 200 OK"),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "an alert of TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    # Statuses
    "100": b"HTTP/1.1 100 Continue\r\n\r\n" + reply(fields=STREAM + length()),
    "103, three times": INTERIM * 3 + reply(fields=STREAM + length()),
    "101": reply(b"HTTP/1.1 101 Switching Protocols", b"Upgrade: x\r\nConnection: upgrade\r\n", b"abc"),
    "204": reply(b"HTTP/1.1 204 No Content", b"", b""),
    "302": reply(b"HTTP/1.1 302 Found", b"Location: http://x.invalid/\r\n" + length(0), b""),
    "304": reply(b"HTTP/1.1 304 Not Modified", b"", b""),
    "401": reply(b"HTTP/1.1 401 Unauthorized", length(2), b"no"),
    "429": reply(b"HTTP/1.0 429 Slow", b"Retry-After: 7\r\n", b'{"error": {"message": "slow"}}'),
    "500, cut short": reply(b"HTTP/1.1 500 Oh", length(200), b"no"),
    "500, in chunks that break": reply(b"HTTP/1.1 500 Oh", CHUNKED, b"5\r\nhello\r\nzz\r\n"),
    "600": reply(b"HTTP/1.1 600 What", length(2), b"hi"),
    "999": reply(b"HTTP/1.1 999 What", length(2), b"hi"),
    # Codings
    "gzip": reply(fields=STREAM + b"Content-Encoding: gzip\r\n" + length(len(ZIPPED)), body=ZIPPED),
    "gzip that is none": reply(fields=STREAM + b"Content-Encoding: gzip\r\n" + length(), body=GOOD),
    "a coding that nobody asked for": reply(fields=STREAM + b"Content-Encoding: br\r\n" + length()),
}

ANSWERS = {name: Answer(raw=raw, ending="close") for name, raw in REPLIES.items()}
# (Of a reset one hears more or less; of the rest only a deadline tells, as well tried elsewhere.)
ANSWERS |= {
    name: fault.answer
    for name, fault in FAULTS.items()
    if fault.answer.ending not in ("reset", "stall") and not fault.deadline
}

# Said in other words: that there was no head in HTTP, or not all of it.
UNANSWERED = {
    "SSH", "a blank first", "an alert of TLS", "an empty line first", "end before the head", "end in the head",
    "garbage for a head",
}  # fmt: skip

# On the wire these are limits of ours, with a name; httpcore has its own, and breaks off.
ENDLESS = {"a chunk whose size does not end", "trailers without end"}


class Said(NamedTuple):
    """All that a caller may learn of a call, but for what differs from server to server."""

    text: str
    chunks: int
    kind: type[BaseException] | None
    words: str
    details: dict[str, Any]


def said(driver: Driver, answer: Answer) -> Said:
    with ChatServer() as server:
        server.plan(answer)
        heard = driver.stream({"base_url": server.url, "timeout": 5, "max_retries": 0})
        port = str(server.port)
    error = heard.error
    details = {} if error is None else dict(vars(error))
    partial = details.pop("partial", None)
    # (Among the words.)
    details.pop("message", None)
    details = {name: repr(value).replace(port, "PORT") for name, value in details.items()}
    details["partial"] = None if partial is None else partial.choices[0].message.content
    words = re.sub(r"0x[0-9a-f]+", "", str(error).replace(port, "PORT"))
    # What stands in place of a chunk's end depends on how the bytes were split: httpcore shows what it got of it.
    words = re.sub(r"(malformed chunk footer): '.*?' \(expected .*?\)", r"\1", words)
    return Said(heard.text, heard.chunks, None if error is None else type(error), words, details)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_same_is_said(driver: Driver, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Said] = []
    for kind in TRANSPORTS:
        monkeypatch.setattr(owners, "_USUAL", kind)
        told.append(said(driver, ANSWERS[name]))
    first, second = told
    if name in UNANSWERED:
        assert first.kind is second.kind is ReadError
        assert first._replace(words="") == second._replace(words="")
        where = "(http://127.0.0.1:PORT/v1/chat/completions)"
        assert where in first.words
        assert where in second.words
    elif name in ENDLESS:
        assert (first.kind, second.kind) == (TruncatedStreamError, LimitExceededError)
        assert (first.text, first.details["partial"]) == (second.text, second.details["partial"])
    else:
        assert first == second


@pytest.mark.parametrize("fields", [b"x: " + b"a" * 200_000 + b"\r\n", b"x: y\r\n" * 100_000], ids=["one", "many"])
def test_a_head_that_is_too_large(driver: Driver, fields: bytes, server: ChatServer, transports: Transports) -> None:
    """On the wire that is a limit of ours, with a name; httpcore has its own."""
    server.plan(Answer(raw=reply(fields=fields + STREAM), ending="close"))
    error = driver.stream({"base_url": server.url, "timeout": 5, "max_retries": 0}).error
    assert type(error) is (LimitExceededError if transports.name == "wire" else ReadError)
    assert server.url in str(error)
