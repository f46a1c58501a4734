"""Hostile peers on real sockets: the named error with what had arrived, little memory, and a connection that is closed
and not used again; sync, on asyncio and on trio, on httpcore and on wire."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import ssl
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import anyio
import pytest
from driving import HI, MODEL, SOON_ONCE, Driver, Transports, shown
from faults import chunk, event
from hostile import Flood
from wiring import CHUNKED, DONE, FINISH, UNFRAMED, Asked, said, scripted, sized

from deltawire import (
    APIError,
    APIStatusError,
    AsyncClient,
    AuthenticationError,
    BadRequestError,
    Client,
    ConfigurationError,
    ConnectError,
    DeltawireError,
    InternalServerError,
    LimitExceededError,
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

PASSWORD = "canary-pass-1234"
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


def either(driver: Driver, blocks: Callable[..., Any], waits: Callable[..., Any], *arguments: Any) -> Any:
    """The result of the one of two functions that is of this driver's kind."""
    return blocks(*arguments) if driver.name == "sync" else anyio.run(waits, *arguments, backend=driver.name)


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
    "tokens, each in a chunk": Endless(
        CHUNKED + chunk(event("a")), chunk(event("a")), LimitExceededError, "reply", "a"
    ),
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


def two_calls(driver: Driver, url: str, *, extra_body: Any = None, **more: Any) -> list[Any]:
    """What two calls on one client give, one after the other: a text, or an error."""
    found: list[Any] = []

    def blocks() -> None:
        with Client(**options(url, **more)) as client:
            for _ in range(2):
                try:
                    with client.chat.completions.create(HI, MODEL, stream=True, extra_body=extra_body) as stream:
                        found.append("".join(chunk.choices[0].delta.content or "" for chunk in stream))
                except DeltawireError as error:
                    found.append(error)

    async def waits() -> None:
        async with AsyncClient(**options(url, **more)) as client:
            for _ in range(2):
                try:
                    async with await client.chat.completions.create(
                        HI, MODEL, stream=True, extra_body=extra_body
                    ) as stream:
                        found.append("".join([chunk.choices[0].delta.content or "" async for chunk in stream]))
                except DeltawireError as error:
                    found.append(error)

    either(driver, blocks, waits)
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
@pytest.mark.parametrize("way", ["plain", "TLS", "proxy"])
def test_what_comes_behind_a_reply_is_nobodys_answer(
    driver: Driver, name: str, way: str, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    first, second = Once((BEHIND | BEHIND_ERRORS)[name]), Once(said("second"))
    with scripted(first, second, context=server_context if way == "TLS" else None) as url:
        if way == "proxy":
            found = two_calls(driver, "http://server.invalid/v1", proxies=url.removesuffix("/v1"))
        else:
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
        either(driver, blocks, waits, url)
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


# --- Redirects --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        "http://127.0.0.1:{other}/v1/chat/completions",
        "//127.0.0.1:{other}/v1/chat/completions",
        "http://127.0.0.1:{same}@127.0.0.1:{other}/v1/chat/completions",
        "http:\\\\127.0.0.1:{other}\\v1",
        "https://127.0.0.1:{same}/v1/chat/completions",
        "http://localhost:{same}/v1/chat/completions",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:text/event-stream,data: x",
        "http://[::1",
        "http://127.0.0.1:{other}\xff/",
        "",
    ],
)
def test_redirects_lead_nowhere_else(driver: Driver, server: ChatServer, form: str) -> None:
    """No other origin is sent a byte, least of all the key; nor is a file opened."""
    with ChatServer() as other:
        target = form.format(other=other.port, same=server.port)
        for count, status in enumerate((300, 301, 302, 303, 305, 307, 308), start=1):
            server.plan(Answer(status=status, headers=[("Location", target)], body=b"moved"))
            error = driver.stream(options(server.url, max_retries=2)).error
            assert isinstance(error, RedirectError), repr(error)
            assert error.status_code == status
            assert error.location == target
            assert len(server.requests) == count
            assert KEY not in shown(error)
        assert other.connections == 0


def test_redirects_in_circles_end(driver: Driver, server: ChatServer) -> None:
    server.plan(*[Answer(status=307, headers=[("Location", server.url + "/chat/completions")])] * 20)
    error = driver.stream(options(server.url)).error
    assert isinstance(error, RedirectError)
    assert len(server.requests) == 6


# --- Answers that come early, and servers that don't listen --------------------------------------------

MUCH = {"pad": "x" * 8_000_000}
EARLY = {
    "413": sized(b'{"error": {"message": "too large"}}', b"413 Content Too Large", b"Connection: close\r\n"),
    "401": sized(b'{"error": {"message": "who?"}}', b"401 Unauthorized"),
    "200": said("early"),
}


@pytest.mark.parametrize("status", EARLY)
def test_an_answer_before_the_request_is_sent(driver: Driver, status: str) -> None:
    """A server that reads the head, answers, and closes under the rest: its answer is what counts."""

    def script(connection: Any) -> None:
        Asked(connection).head()
        connection.sendall(EARLY[status])

    second = Once(said("second"))
    with scripted(script, second) as url:
        found = two_calls(driver, url, extra_body=MUCH)
    assert found[1] == "second"
    if status == "200":
        assert found[0] == "early"
    else:
        assert isinstance(found[0], APIStatusError), repr(found[0])
        assert found[0].status_code == int(status)
        assert "too large" in str(found[0]) or "who?" in str(found[0])


def test_an_answer_of_a_server_that_then_neither_reads_nor_closes(driver: Driver, transports: Transports) -> None:
    """On wire it is read while the request is sent; httpcore sends first, and runs into the deadline."""
    over = threading.Event()

    def script(connection: Any) -> None:
        Asked(connection).head()
        connection.sendall(EARLY["401"])
        assert over.wait(10)

    with scripted(script) as url:
        error = driver.stream(options(url, timeout=SHORT), extra_body=MUCH).error
        over.set()
    if transports.name == "wire":
        assert isinstance(error, AuthenticationError), repr(error)
    else:
        assert isinstance(error, TimeoutError), repr(error)


def test_a_server_that_never_reads_meets_the_deadline(driver: Driver) -> None:
    gone = threading.Event()

    def script(connection: Any) -> None:
        assert gone.wait(10)

    with scripted(script) as url:
        error = driver.stream(options(url, timeout=SHORT), extra_body=MUCH).error
        gone.set()
    assert isinstance(error, TimeoutError), repr(error)
    assert error.deadline == "first_content"


# --- Proxies and handshakes ----------------------------------------------------------------------------

BEYOND = "https://server.invalid/v1"


class HostileProxy(NamedTuple):
    """The scheme of a proxy that floods, and what is to become of it."""

    scheme: str
    start: bytes
    unit: bytes
    error: type[DeltawireError] = ProxyError
    status: int | None = None


PROXIES = {
    "a status line": HostileProxy("http", b"HTTP/1.1 200 ", b"x" * 1000),
    "a field of the head": HostileProxy("http", b"HTTP/1.1 200 OK\r\nX: ", b"x" * 1000),
    "fields of the head": HostileProxy("http", b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "interim answers": HostileProxy("http", b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a page of 407": HostileProxy(
        "http", b"HTTP/1.1 407 No\r\nContent-Length: 9999999999\r\n\r\n<html>who", b"x" * 1000, status=407
    ),
    "a page of 407 without a length": HostileProxy(
        "http", b"HTTP/1.1 407 No\r\n\r\n<html>who", b"x" * 1000, status=407
    ),
    "chunks of 403": HostileProxy(
        "http", b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b"x" * 1000), status=403
    ),
    "a page of 502": HostileProxy(
        "http", b"HTTP/1.1 502 No\r\nContent-Length: 999999\r\n\r\n", b"<" * 1000, status=502
    ),
    "words that are no HTTP": HostileProxy("http", b"", b"Hello! "),
    "lines that are no HTTP": HostileProxy("http", b"", b"\r\n"),
    "bytes behind the answer": HostileProxy("http", b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000, ConnectError),
    "a redirect": HostileProxy("http", b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\n\r\n", b"x", status=302),
    "zeros for SOCKS": HostileProxy("socks5", b"", b"\0" * 1000),
    "words for SOCKS": HostileProxy("socks5h", b"", b"Hello! "),
    "a method of SOCKS that nobody offered": HostileProxy("socks5h", b"\x05\x77", b"x" * 1000),
    "refusals of the password": HostileProxy("socks5h", b"\x05\x02", b"\x01\x01"),
    "a reply of an unknown address": HostileProxy("socks5h", b"\x05\x00\x05\x00\x00\x77", b"x" * 1000),
    "names in the reply": HostileProxy("socks5h", b"\x05\x00\x05\x00\x00\x03\xff", b"x" * 1000, ConnectError),
    "replies of no known code": HostileProxy("socks5h", b"\x05\x00\x05\x77", b"\xff" * 1000),
}  # fmt: skip


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_that_has_no_end_is_ended_here(driver: Driver, name: str) -> None:
    hostile = PROXIES[name]
    flood = Flood(hostile.start, hostile.unit)
    tracemalloc.start()
    try:
        with scripted(flood) as url:
            proxy = f"{hostile.scheme}://me:{PASSWORD}@{url.removeprefix('http://').removesuffix('/v1')}"
            base = BEYOND if hostile.scheme != "socks5" else "https://127.0.0.1:1/v1"
            error = driver.stream(options(base, proxies=proxy)).error
            assert flood.gone.wait(10), "the connection is still open"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(error, hostile.error), repr(error)
    if isinstance(error, ProxyError):
        assert error.status_code == hostile.status
    assert len(str(error)) < 2000
    assert PASSWORD not in shown(error)
    assert KEY not in shown(error)
    assert flood.sent < SLACK
    assert peak < SLACK


HANDSHAKE_DRIPS = {
    "CONNECT's answer": ("http", b"", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000),
    "interim answers to CONNECT": ("http", b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "SOCKS's name": ("socks5h", b"\x05\x00\x05\x00\x00\x03\xff", b"x"),
    "words for SOCKS": ("socks5h", b"H", b"x"),
    "a TLS record behind CONNECT": ("http", b"HTTP/1.1 200 OK\r\n\r\n\x16\x03\x03\x3f\xff", b"\x02"),
    "a TLS record behind SOCKS": (
        "socks5h", b"\x05\x00\x05\x00\x00\x01" + b"\0" * 6 + b"\x16\x03\x03\x3f\xff", b"\x02",
    ),
    "a TLS record": ("", b"\x16\x03\x03\x3f\xff", b"\x02"),
    "a TLS record of the proxy": ("https", b"\x16\x03\x03\x3f\xff", b"\x02"),
}  # fmt: skip


class ByByte(Flood):
    """Each unit goes out byte by byte."""

    def __init__(self, start: bytes, unit: bytes) -> None:
        super().__init__(start, unit, pace=0.02)
        self._units = itertools.cycle(unit[at : at + 1] for at in range(len(unit)))

    @property
    def _next(self) -> bytes:
        return next(self._units)


@pytest.mark.parametrize("name", HANDSHAKE_DRIPS)
def test_a_handshake_in_drops_meets_the_deadline(driver: Driver, name: str) -> None:
    """A byte each 20 ms: it is all of connecting that counts."""
    scheme, start, unit = HANDSHAKE_DRIPS[name]
    flood = ByByte(start, unit)
    with scripted(flood) as url:
        address = url.removeprefix("http://").removesuffix("/v1")
        ways = (
            {"base_url": f"https://{address}/v1"} if not scheme else {"proxies": f"{scheme}://me:{PASSWORD}@{address}"}
        )
        given = options(BEYOND, timeout=Timeout(connect=0.3, first_content=30, idle=30), verify=False)
        error = driver.stream({**given, **ways}).error
        assert flood.gone.wait(10), "the connection is still open"
    assert isinstance(error, TimeoutError), repr(error)
    assert (error.deadline, error.seconds) == ("connect", 0.3)
    assert PASSWORD not in shown(error)


@pytest.mark.parametrize("name", ["a field of the head", "a line", "tokens", "an error's page of a gigabyte"])
def test_what_has_no_end_in_tls(
    driver: Driver, transports: Transports, name: str, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    endless = ENDLESS[name]
    flood = Flood(endless.start, endless.unit)
    with scripted(flood, context=server_context) as url:
        heard = driver.stream(options(url, verify=trusting))
        assert flood.gone.wait(10), "the connection is still open"
    if endless.limit == "head" and transports.name == "httpcore":
        assert type(heard.error) is ReadError
    else:
        assert type(heard.error) is endless.error
    assert set(partial(heard.error)) == set(endless.text)
    assert flood.sent < SLACK


# --- Other requests ----------------------------------------------------------------------------------


def asked_for(driver: Driver, what: str, given: dict[str, Any]) -> Any:
    """What such a call gives, or the error that it raises."""
    calls: dict[str, Callable[[Any], Any]] = {
        "a completion": lambda client: client.chat.completions.create(HI, MODEL),
        "models": lambda client: client.models.list(),
        "images": lambda client: client.images.generate("a cat", "painter"),
    }

    def blocks() -> Any:
        with Client(**given) as client:
            return calls[what](client)

    async def waits() -> Any:
        async with AsyncClient(**given) as client:
            return await calls[what](client)

    try:
        return either(driver, blocks, waits)
    except DeltawireError as error:
        return error


REQUESTS = {
    "a completion": (b'{"choices":[', b'{"message":{"content":"a"}},'),
    "models": (b'{"data":[', b'{"id":"m"},'),
    "images": (b'{"data":[{"b64_json":"', b"A" * 1000),
}


@pytest.mark.parametrize("what", REQUESTS)
def test_documents_without_end(driver: Driver, what: str) -> None:
    start, unit = REQUESTS[what]
    flood = Flood(UNFRAMED + start, unit)
    tracemalloc.start()
    try:
        with scripted(flood) as url:
            error = asked_for(driver, what, options(url))
            assert flood.gone.wait(10), "the connection is still open"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(error, LimitExceededError), repr(error)
    assert error.limit_name == "document"
    assert flood.sent < SLACK
    assert peak < SLACK


@pytest.mark.parametrize("what", REQUESTS)
def test_documents_in_drops(driver: Driver, what: str) -> None:
    start, unit = REQUESTS[what]
    flood = Flood(UNFRAMED + start, unit[:1], pace=0.01)
    with scripted(flood) as url:
        error = asked_for(driver, what, options(url, timeout=SHORT))
        assert flood.gone.wait(10), "the connection is still open"
    assert isinstance(error, TimeoutError), repr(error)
    assert error.deadline == "first_content"


@pytest.mark.parametrize("what", REQUESTS)
@pytest.mark.parametrize("stream", [b"data: {}\n\n", b": ping\n\n"])
def test_event_streams_without_end_where_a_document_was_asked_for(driver: Driver, what: str, stream: bytes) -> None:
    flood = Flood(UNFRAMED, stream)
    with scripted(flood) as url:
        error = asked_for(driver, what, options(url))
        assert flood.gone.wait(10), "the connection is still open"
    assert isinstance(error, LimitExceededError if what == "a completion" else UnexpectedReplyError), repr(error)
    assert flood.sent < SLACK


@pytest.mark.parametrize("what", REQUESTS)
def test_levels_without_number(driver: Driver, what: str) -> None:
    """100,000 of them, in a document that is whole."""
    deep = b"[" * 100_000 + b"]" * 100_000
    for body in (deep, b'{"data":%b,"choices":[]}' % deep, b'{"error":%b}' % deep):
        with scripted(closing(sized(body)), closing(sized(body, b"400 Bad Request"))) as url:
            good = asked_for(driver, what, options(url))
            bad = asked_for(driver, what, options(url))
        assert isinstance(good, APIError), repr(good)
        assert isinstance(bad, BadRequestError), repr(bad)
        assert len(str(bad)) < 3000


@pytest.mark.parametrize("address", ["file:///etc/passwd", "http://127.0.0.1:{port}/cat.png", "javascript:alert(1)"])
def test_addresses_of_images_are_not_visited(driver: Driver, address: str) -> None:
    with ChatServer() as other:
        address = address.format(port=other.port)
        body = b'{"data":[{"url":"%b"}]}' % address.encode()
        with scripted(closing(sized(body))) as url:
            images = asked_for(driver, "images", options(url))
        assert [image.url for image in images.data] == [address]
        with pytest.raises(ConfigurationError):
            images.data[0].data  # noqa: B018 - it is a property
        assert images.data[0].src == address
        assert other.connections == 0


# --- Waiting as told, and codings ------------------------------------------------------------------------


@pytest.mark.parametrize("wait", ["9" * 300, "1e308", "86400", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_nobody_waits_for_ever(driver: Driver, wait: str) -> None:
    """Whoever asks for more than two minutes is not waited for, nor asked again."""
    reply = sized(b'{"error":"slow"}', b"429 Too Many Requests", b"Retry-After: %b\r\n" % wait.encode())
    with scripted(closing(reply), closing(said("too late"))) as url:
        heard = driver.stream(options(url, max_retries=1))
    assert isinstance(heard.error, RateLimitError)
    assert heard.text == ""


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "-inf", "", "\x7f", "0x10", "1 2", "soon", "9" * 400])
def test_what_is_no_time_is_none(driver: Driver, wait: str) -> None:
    reply = sized(b'{"error":"slow"}', b"503 Oops", b"Retry-After: %b\r\n" % wait.encode())
    with scripted(closing(reply), closing(said("second"))) as url:
        heard = driver.stream(options(url, max_retries=SOON_ONCE))
    assert (heard.text, heard.error) == ("second", None)


def test_no_coding_is_asked_for(driver: Driver, server: ChatServer) -> None:
    assert driver.stream(options(server.url)).error is None
    assert server.requests[0].header("accept-encoding") == "identity"


CODED = {
    "a bomb": (b"gzip", gzip.compress(b"\n" * 50_000_000), LimitExceededError),
    "a bomb of an event": (b"deflate", zlib.compress(b"data: " + b"x" * 50_000_000), LimitExceededError),
    "bombs in members": (b"gzip", gzip.compress(b"\n" * 1_000_000) * 50, LimitExceededError),
    "brotli": (b"br", b"\x0b\x02\x80", UnexpectedReplyError),
    "a coding of a coding": (b"gzip, gzip", gzip.compress(gzip.compress(GOOD)), UnexpectedReplyError),
    "a coding that nobody knows": (b"x-bomb", b"x", UnexpectedReplyError),
    "what is no gzip": (b"gzip", GOOD, UnexpectedReplyError),
}


@pytest.mark.parametrize("name", CODED)
def test_codings(driver: Driver, name: str) -> None:
    """What nobody asked for and is sent all the same: gzip is undone, within the limits; of all else it's said."""
    coding, body, expected = CODED[name]
    tracemalloc.start()
    try:
        with scripted(closing(sized(body, fields=b"Content-Encoding: %b\r\n" % coding))) as url:
            error = driver.stream(options(url)).error
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert type(error) is expected, repr(error)
    assert peak < SLACK
