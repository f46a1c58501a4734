"""Hostile peers on real sockets: the named error with what had arrived, little memory, and a connection that is closed
and not used again; sync, on asyncio and on trio, on httpcore and on wire."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import trio
from driving import HI, MODEL, Driver, Transports, shown
from faults import chunk, event
from hostile import Flood
from wiring import CHUNKED, DONE, FINISH, UNFRAMED, Asked, said, scripted, sized

from deltawire import (
    APIError,
    AsyncClient,
    AuthenticationError,
    BadRequestError,
    Client,
    DeltawireError,
    InternalServerError,
    LimitExceededError,
    MalformedEventError,
    ProxyError,
    RateLimitError,
    ReadError,
    RedirectError,
    Timeout,
    TimeoutError,
    TransportError,
    TruncatedStreamError,
    UnexpectedReplyError,
)
from deltawire.protocol import Limits
from deltawire.testing import Answer, ChatServer

pytestmark = pytest.mark.usefixtures("_tidy", "transports")

KEY = "sk-canary-1234567890"

# What a peer may make us read beyond a limit: buffers of two sockets, and reads.
SLACK = 16 * 1024 * 1024

# None of these is to pass.
LONG = Timeout(connect=30, first_content=30, idle=30)
# And all of these are.
SHORT = Timeout(connect=5, first_content=0.3, idle=0.3)

SMALL = Limits(line=100_000, event=200_000, error_body=10_000, head=20_000, reply=2_000_000, document=1_000_000)

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
BEGUN = UNFRAMED + event("a")


def options(url: str, **more: Any) -> dict[str, Any]:
    return {"base_url": url, "max_retries": 0, "timeout": LONG, "limits": SMALL, "api_key": KEY, **more}


def partial(error: BaseException | None) -> str:
    """The text so far."""
    assert isinstance(error, (APIError, TransportError)), repr(error)
    return "" if error.partial is None else error.partial.choices[0].message.content or ""


# --- What has no end --------------------------------------------------------------------------------


class Endless(NamedTuple):
    """A flood, and what is to become of it."""

    start: bytes
    unit: bytes
    error: type[DeltawireError]
    limit: str | None = None
    text: str = ""


BLOCK = b"x" * 1000

ENDLESS = {
    "a status line": Endless(b"HTTP/1.1 200 ", BLOCK, LimitExceededError, "head"),
    "a field of the head": Endless(b"HTTP/1.1 200 OK\r\nX: ", BLOCK, LimitExceededError, "head"),
    "fields of the head": Endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", LimitExceededError, "head"),
    "words that are no HTTP": Endless(b"", b"Hello! ", LimitExceededError, "head"),
    "a chunk's size": Endless(CHUNKED + chunk(event("a")), b"0", LimitExceededError, "head", text="a"),
    "a chunk's extensions": Endless(CHUNKED + chunk(event("a")) + b"5;", BLOCK, LimitExceededError, "head", text="a"),
    "trailers": Endless(CHUNKED + chunk(event("a")) + b"0\r\n", b"X: y\r\n", LimitExceededError, "head", text="a"),
    "a line": Endless(BEGUN + b"data: ", BLOCK, LimitExceededError, "line", "a"),
    "a comment": Endless(BEGUN + b": ", BLOCK, LimitExceededError, "line", "a"),
    "an id": Endless(BEGUN + b"id: ", BLOCK, LimitExceededError, "line", "a"),
    "data lines of an event": Endless(BEGUN, b"data: {\n", LimitExceededError, "event", "a"),
    "comment lines of an event": Endless(BEGUN, b": x\n", LimitExceededError, "event", "a"),
    "comments": Endless(BEGUN, b": ping\n\n", LimitExceededError, "reply", "a"),
    "blank lines": Endless(BEGUN, b"\n", LimitExceededError, "reply", "a"),
    "blanks before the first byte": Endless(UNFRAMED, b" ", LimitExceededError, "reply"),
    "events without data": Endless(BEGUN, b"data:\n\n", LimitExceededError, "reply", "a"),
    "events without fields": Endless(BEGUN, b"data: {}\n\n", LimitExceededError, "reply", "a"),
    "events without choices": Endless(BEGUN, b'data: {"choices":[]}\n\n', LimitExceededError, "reply", "a"),
    "tokens": Endless(BEGUN, event("a"), LimitExceededError, "reply", "a"),
    "tokens, each in a chunk": Endless(CHUNKED + chunk(event("a")), chunk(event("a")), LimitExceededError, "reply", "a"),
    "a document": Endless(UNFRAMED + b'{"choices":[', b"{},", LimitExceededError, "document"),
    "a level in a level": Endless(UNFRAMED + b"{", b'"a":[{', LimitExceededError, "document"),
    "a page": Endless(UNFRAMED.replace(b"event-stream", b"html") + b"<", BLOCK, UnexpectedReplyError),
    "an error's page": Endless(b"HTTP/1.1 500 Oops\r\n\r\n<html>boom", BLOCK, InternalServerError),
    "an error's page of a gigabyte": Endless(
        b"HTTP/1.1 500 Oops\r\nContent-Length: 1000000000\r\n\r\n<html>boom", BLOCK, InternalServerError
    ),
    "an error's chunks": Endless(
        CHUNKED.replace(b"200 OK", b"429 Slow") + chunk(b"boom"), chunk(BLOCK), RateLimitError
    ),
    "what another status says": Endless(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", BLOCK, RedirectError),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDLESS)
def test_what_has_no_end_is_ended_here(driver: Driver, transports: Transports, name: str) -> None:
    endless = ENDLESS[name]
    flood = Flood(endless.start, endless.unit)
    with scripted(flood) as url:
        heard = driver.stream(options(url))
        assert flood.gone.wait(10), "the connection is still open"
    error = heard.error
    if endless.limit == "head" and transports.name == "httpcore":
        # That has a limit of its own, 100 KiB.
        assert type(error) is (TruncatedStreamError if endless.text else ReadError), repr(error)
    else:
        assert type(error) is endless.error, repr(error)
    if isinstance(error, LimitExceededError):
        assert endless.limit is not None
        assert (error.limit_name, error.limit) == (endless.limit, getattr(SMALL, endless.limit))
    assert set(partial(error)) == set(endless.text)
    assert heard.text == partial(error)
    assert flood.sent < SLACK
    if endless.error is InternalServerError:
        assert "boom" in str(error)
        assert isinstance(error, InternalServerError)
        assert isinstance(error.body, str)
        assert len(error.body) == SMALL.error_body
    assert len(str(error)) < 3000
    assert KEY not in shown(error)


DRIPS = {
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", "first_content", ""),
    "bytes of a head": (b"HTTP/1.1 200 OK\r\nX: ", b"x", "first_content", ""),
    "bytes of a status line": (b"", b"H", "first_content", ""),
    "bytes of a chunk's size": (CHUNKED + chunk(event("a")), b"0", "idle", "a"),
    "bytes of a chunk": (CHUNKED + chunk(event("a")) + b"fffff\r\n", b"x", "idle", "a"),
    "bytes of an event": (BEGUN + b"data: ", b"x", "idle", "a"),
    "bytes of a document": (UNFRAMED, b"{", "first_content", ""),
    "comments before content": (UNFRAMED + event(), b": ping\n\n", "first_content", ""),
    "comments after content": (BEGUN, b": ping\n\n", "idle", "a"),
    "empty events": (BEGUN, b"data: {}\n\n", "idle", "a"),
    "empty deltas": (BEGUN, event(""), "idle", "a"),
    "roles": (BEGUN, event(), "idle", "a"),
    "empty choices": (BEGUN, b'data: {"choices":[]}\n\n', "idle", "a"),
    "events of other names": (BEGUN, b"event: ping\ndata: {}\n\n", "idle", "a"),
    "bytes of an error's page": (b"HTTP/1.1 500 Oops\r\n\r\nboom", b"x", "", ""),
    "trailers": (CHUNKED + chunk(event("a")) + b"0\r\n", b"X: y\r\n", "idle", "a"),
}


@pytest.mark.parametrize("name", DRIPS)
def test_a_drip_meets_the_deadline(driver: Driver, name: str) -> None:
    """A few bytes each 10 ms, for ever: it is content that counts, and nothing else."""
    start, unit, deadline, text = DRIPS[name]
    flood = Flood(start, unit, pace=0.01)
    with scripted(flood) as url:
        heard = driver.stream(options(url, timeout=SHORT))
        assert flood.gone.wait(10), "the connection is still open"
    error = heard.error
    if deadline:
        assert isinstance(error, TimeoutError), repr(error)
        assert (error.deadline, error.seconds) == (deadline, 0.3)
    else:
        # The status has said enough.
        assert isinstance(error, InternalServerError)
        assert "boom" in str(error)
    assert partial(error) == heard.text == text


@pytest.mark.parametrize("name", ["interim answers", "comments after content", "empty choices", "roles"])
def test_a_flood_meets_the_deadline(driver: Driver, name: str) -> None:
    """As fast as it goes: whoever has always something to read looks at the clock all the same."""
    start, unit, deadline, text = DRIPS[name]
    flood = Flood(start, unit)
    with scripted(flood) as url:
        heard = driver.stream(options(url, timeout=SHORT, limits=Limits(head=1 << 40, reply=1 << 40)))
        assert flood.gone.wait(10), "the connection is still open"
    assert isinstance(heard.error, TimeoutError), repr(heard.error)
    assert heard.error.deadline == deadline
    assert partial(heard.error) == heard.text == text


def test_tokens_for_ever_meet_the_total_deadline(driver: Driver) -> None:
    flood = Flood(BEGUN, event("a"), pace=0.01)
    with scripted(flood) as url:
        heard = driver.stream(options(url, timeout=Timeout(first_content=5, idle=5, total=0.3)))
        assert flood.gone.wait(10)
    assert isinstance(heard.error, TimeoutError)
    assert heard.error.deadline == "total"
    assert partial(heard.error) == heard.text
    assert len(heard.text) > 1
