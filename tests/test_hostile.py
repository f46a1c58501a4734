"""Hostile peers on real sockets: the named error with what had arrived, little memory, and a connection that is closed
and not used again; sync, on asyncio and on trio, on httpcore and on wire."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import tracemalloc
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
    Client,
    DeltawireError,
    InternalServerError,
    LimitExceededError,
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


# --- What comes behind a reply -----------------------------------------------------------------------

GOOD = event("first") + FINISH + DONE
INJECTED = said("injected")


def in_chunks(body: bytes, fields: bytes = b"", last: bytes = b"0\r\n\r\n") -> bytes:
    return CHUNKED.replace(b"\r\n\r\n", b"\r\n" + fields + b"\r\n") + chunk(body) + last


# Replies that are good, and bytes that nobody has asked for.
BEHIND = {
    "another reply": said("first") + INJECTED,
    "another reply behind chunks": in_chunks(GOOD) + INJECTED,
    "another reply behind trailers": in_chunks(GOOD, last=b"0\r\nX: y\r\n\r\n") + INJECTED,
    "the beginning of a head": said("first") + b"HTTP/1.1 200 OK\r\nX: ",
    "a line end": said("first") + b"\r\n",
    "a word": said("first") + b"x",
    "a length and chunks": in_chunks(GOOD, b"Content-Length: 5\r\n"),
    "a length and chunks that say the same": in_chunks(GOOD, b"Content-Length: %d\r\n" % len(GOOD)),
}
# And others that are not.
BEHIND_ERRORS = {
    "an error's page": sized(b'{"error": "no"}', b"400 Bad Request") + INJECTED,
    "304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n" + INJECTED,
    "204": b"HTTP/1.1 204 No Content\r\n\r\n" + INJECTED,
    "205": b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n" + INJECTED,
    "101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" + INJECTED,
    "a length of 0": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + INJECTED,
}


def two_calls(driver: Driver, url: str, **more: Any) -> list[Any]:
    """What two calls on one client give, one after the other: a text, or an error."""
    found: list[Any] = []

    def blocks() -> None:
        with Client(**options(url, **more)) as client:
            for _ in range(2):
                try:
                    with client.chat.completions.create(HI, MODEL, stream=True) as stream:
                        found.append("".join(chunk.choices[0].delta.content or "" for chunk in stream))
                except DeltawireError as error:
                    found.append(error)

    async def waits() -> None:
        async with AsyncClient(**options(url, **more)) as client:
            for _ in range(2):
                try:
                    async with await client.chat.completions.create(HI, MODEL, stream=True) as stream:
                        found.append("".join([chunk.choices[0].delta.content or "" async for chunk in stream]))
                except DeltawireError as error:
                    found.append(error)

    {"sync": blocks, "asyncio": lambda: asyncio.run(waits()), "trio": lambda: trio.run(waits)}[driver.name]()
    return found


class Once:
    """A script: one reply, and then whatever comes on this connection is to be the client's going."""

    def __init__(self, reply: bytes) -> None:
        self._reply = reply
        self.more = b"?"

    def __call__(self, connection: Any) -> None:
        Asked(connection).request()
        connection.sendall(self._reply)
        with contextlib.suppress(ConnectionResetError):
            self.more = connection.recv(65536)
            return
        self.more = b""


@pytest.mark.parametrize("name", BEHIND | BEHIND_ERRORS)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_what_comes_behind_a_reply_is_nobodys_answer(
    driver: Driver, name: str, secure: bool, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    first, second = Once((BEHIND | BEHIND_ERRORS)[name]), Once(said("second"))
    with scripted(first, second, context=server_context if secure else None) as url:
        found = two_calls(driver, url, verify=trusting)
    if name in BEHIND:
        assert found == ["first", "second"]
    else:
        assert isinstance(found[0], DeltawireError)
        assert found[1] == "second"
    assert first.more == b"", "the connection was used again"


def test_a_connection_that_nothing_speaks_against_is_used_again(driver: Driver) -> None:
    """Of all these the only one; so what is seen above is no accident."""

    def twice(connection: Any) -> None:
        asked = Asked(connection)
        for reply in (in_chunks(GOOD, last=b"0\r\nX: y\r\n\r\n"), said("second")):
            assert asked.request()
            connection.sendall(reply)

    with scripted(twice) as url:
        assert two_calls(driver, url) == ["first", "second"]


def test_an_answer_before_any_request_is_not_the_next_ones(driver: Driver) -> None:
    """What comes while a connection is idle ends it."""
    idle = threading.Event()

    def first(connection: Any) -> None:
        Asked(connection).request()
        connection.sendall(said("first"))
        # The reply has been read when the client is back here; the words are sent into its idleness.
        assert idle.wait(10)
        connection.sendall(INJECTED)
        spoken.set()
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(65536) == b""

    spoken = threading.Event()
    second = Once(said("second"))
    found: list[str] = []

    def go_on() -> None:
        idle.set()
        assert spoken.wait(10)

    def blocks(url: str) -> None:
        with Client(**options(url)) as client:
            found.append(client.chat.completions.create(HI, MODEL, stream=False).choices[0].message.content or "")
            go_on()
            found.append(client.chat.completions.create(HI, MODEL, stream=False).choices[0].message.content or "")

    async def waits(url: str) -> None:
        async with AsyncClient(**options(url)) as client:
            for _ in range(2):
                completion = await client.chat.completions.create(HI, MODEL, stream=False)
                found.append(completion.choices[0].message.content or "")
                if not idle.is_set():
                    go_on()

    with scripted(first, second) as url:
        runs = {
            "sync": lambda: blocks(url),
            "asyncio": lambda: asyncio.run(waits(url)),
            "trio": lambda: trio.run(waits, url),
        }
        runs[driver.name]()
    assert found == ["first", "second"]


# --- What is no answer in HTTP/1.1 --------------------------------------------------------------------

FRAME = b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\x00" * 18
NO_ANSWERS = {
    "HTTP/0.9": b"<html>Hello</html>\n",
    "a frame of HTTP/2": FRAME,
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a TLS alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "zeros": b"\x00" * 1000,
    "a BOM before the status line": b"\xef\xbb\xbf" + said("x"),
    "a zero in a field": b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
    "a field without a name": b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
    "a blank before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
    "a CR in a field": b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n" + GOOD,
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + GOOD,
    "a length with a sign": b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n" + GOOD,
    "a length in hexadecimal": b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\n" + GOOD,
    "a length of 30 digits": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n" + GOOD,
    "a coding of the transfer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n" + GOOD,
    "a coding twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + GOOD,
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "a status of 000": b"HTTP/1.1 000 OK\r\n\r\n",
    "a status of letters": b"HTTP/1.1 abc OK\r\n\r\n",
}  # fmt: skip


def closing(words: bytes) -> Any:
    """A script: the request, these words, the end."""

    def script(connection: Any) -> None:
        Asked(connection).request()
        connection.sendall(words)

    return script


@pytest.mark.parametrize("name", NO_ANSWERS)
def test_what_is_no_answer_in_http(driver: Driver, name: str) -> None:
    with scripted(closing(NO_ANSWERS[name])) as url:
        error = driver.stream(options(url)).error
    assert type(error) is ReadError, repr(error)
    assert url in str(error)
    assert len(str(error)) < 1000
    assert KEY not in shown(error)


CUT_OFF = {
    "a chunk of 2**64 bytes": CHUNKED + b"ffffffffffffffff\r\n" + event("a"),
    "a chunk of 2**80 bytes": CHUNKED + b"f" * 20 + b"\r\n" + event("a"),
    "a length of a petabyte": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000000\r\n\r\n" + event("a"),
    "a chunk's size of 30 digits": CHUNKED + chunk(event("a")) + b"f" * 30 + b"\r\nx",
    "a negative chunk": CHUNKED + chunk(event("a")) + b"-5\r\nx",
    "a chunk's size with a sign": CHUNKED + chunk(event("a")) + b"+5\r\nx",
    "a chunk's size in hexadecimal": CHUNKED + chunk(event("a")) + b"0x5\r\nx",
    "a chunk that is longer than it says": CHUNKED + chunk(event("a")) + b"1\r\nxy\r\n",
}


@pytest.mark.parametrize("name", CUT_OFF)
def test_what_is_announced_is_not_believed(driver: Driver, name: str) -> None:
    """Nothing is allocated for it, and what came before counts."""
    tracemalloc.start()
    try:
        with scripted(closing(CUT_OFF[name])) as url:
            heard = driver.stream(options(url))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert type(heard.error) is TruncatedStreamError, repr(heard.error)
    assert partial(heard.error) == heard.text == "a"
    assert peak < SLACK


ODD_BYTES = {
    "bytes that are no UTF-8": (b'data: {"choices":[{"delta":{"content":"\xff\xfea"}}]}\n\n', "\ufffd\ufffda"),
    "Latin-1": ("é".encode("latin-1").join([b'data: {"choices":[{"delta":{"content":"', b'"}}]}\n\n']), "\ufffd"),
    "a zero": (b'data: {"choices":[{"delta":{"content":"a\x00b"}}]}\n\n', "a\x00b"),
    "an escaped zero": (b'data: {"choices":[{"delta":{"content":"a\\u0000b"}}]}\n\n', "a\x00b"),
    "a lone half": (b'data: {"choices":[{"delta":{"content":"a\\ud83d"}}]}\n\n', "a\ufffd"),
    "a lone half in UTF-8": (b'data: {"choices":[{"delta":{"content":"\xed\xa0\xbd"}}]}\n\n', "\ufffd\ufffd\ufffd"),
    "a BOM in the text": (b'data: {"choices":[{"delta":{"content":"\xef\xbb\xbfa"}}]}\n\n', "\ufeffa"),
    "a BOM at the beginning": (b"\xef\xbb\xbf" + event("a"), "a"),
    "controls and ends of other lines": (
        'data: {"choices":[{"delta":{"content":"a\u2028b\x0b\x0c\x85"}}]}\n\n'.encode(), "a\u2028b\x0b\x0c\x85",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_BYTES)
def test_odd_bytes_are_text_that_can_be_encoded(driver: Driver, name: str) -> None:
    data, text = ODD_BYTES[name]
    with scripted(closing(sized(data + FINISH + DONE))) as url:
        heard = driver.stream(options(url))
    assert heard.error is None
    assert heard.text == text
    heard.text.encode()
