"""proxy.py, the handshake of HTTPConnect: whole, byte by byte, at every split, with trailing data."""

from __future__ import annotations

import html
from typing import Any

import pytest
from feeding import QUICK, splits
from hypothesis import given
from hypothesis import strategies as st

from deltawire.protocol import (
    ConfigurationError,
    ConnectError,
    HTTPConnect,
    Proxy,
    ProxyError,
    TunnelFailed,
    TunnelOpened,
)

PROXY = Proxy.parse("http://user:pa%20ss@proxy.example:3128")
OPEN = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"


def machine(proxy: Proxy = PROXY) -> HTTPConnect:
    return HTTPConnect("api.example", 443, proxy)


def fed(parts: list[bytes], *, ended: bool = True) -> list[TunnelOpened | TunnelFailed]:
    connect = machine()
    events = [event for part in parts for event in connect.receive(part)]
    return events + connect.end() if ended else events


def every_way(data: bytes) -> list[list[bytes]]:
    ways = [[data], [data[at : at + 1] for at in range(len(data))]]
    return ways + [[data[:at], b"", data[at:]] for at in range(len(data) + 1)]


def test_the_request() -> None:
    connect = machine()
    assert connect.data_to_send() == (
        b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\nUser-Agent: deltawire\r\n"
        b"Proxy-Authorization: Basic dXNlcjpwYSBzcw==\r\n\r\n"
    )
    assert connect.data_to_send() == b""
    bare = HTTPConnect("::1", 8443, Proxy.parse("http://p:1")).data_to_send()
    assert bare.startswith(b"CONNECT [::1]:8443 HTTP/1.1\r\nHost: [::1]:8443\r\n")
    assert b"Proxy-Authorization" not in bare


def test_the_fields_of_the_request() -> None:
    def sent(url: str, headers: dict[str, str], **more: Any) -> list[bytes]:
        connect = HTTPConnect("s", 1, Proxy.parse(url, headers=headers), **more)
        return connect.data_to_send().removesuffix(b"\r\n\r\n").split(b"\r\n")[2:]

    assert sent("http://u:p@p", {"X-A": "b"}) == [
        b"User-Agent: deltawire", b"Proxy-Authorization: Basic dTpw", b"x-a: b",
    ]  # fmt: skip
    bearer = {"Proxy-Authorization": "Bearer t"}
    assert sent("https://u:p@p", bearer) == [b"User-Agent: deltawire", b"proxy-authorization: Bearer t"]
    assert sent("http://p", {"User-Agent": "mine"}) == [b"user-agent: mine"]
    assert sent("http://p", {}, user_agent="other/1") == [b"User-Agent: other/1"]
    with pytest.raises(ConfigurationError, match="user-agent"):
        HTTPConnect("s", 1, PROXY, user_agent="a\r\nb: c")


@pytest.mark.parametrize("status", [b"200", b"201", b"299"])
@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.0 103 x\r\na: b\r\n\r\n" * 3])
def test_opened_however_it_is_split(status: bytes, before: bytes) -> None:
    data = before + OPEN.replace(b"200", status)
    for parts in every_way(data):
        assert fed(parts) == [TunnelOpened(b"")]


def test_lines_may_end_in_lf_alone() -> None:
    for data in (OPEN.replace(b"\r\n", b"\n"), b"HTTP/1.1 100 x\n\r\n" + OPEN, b"HTTP/1.1 200 OK\r\na: b\n\r\n"):
        for parts in every_way(data + b"\nx"):
            connect = machine()
            events = [
                (event, parts[number + 1 :]) for number, part in enumerate(parts) for event in connect.receive(part)
            ]
            ((opened, rest),) = events
            assert isinstance(opened, TunnelOpened)
            assert opened.trailing + b"".join(rest) == b"\nx"


@pytest.mark.parametrize("field", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"content-length: x"])
def test_a_body_is_none_after_a_good_status(field: bytes) -> None:
    # RFC 9110 section 9.3.6: the client ignores these fields.
    assert fed([b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\nhello"]) == [TunnelOpened(b"hello")]
    assert fed([b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\n"]) == [TunnelOpened(b"")]


def test_what_follows_the_head_is_kept() -> None:
    assert fed([OPEN + b"early"]) == [TunnelOpened(b"early")]
    connect = machine()
    assert connect.receive(OPEN[:-1]) == []
    assert connect.receive(b"\nearly") == [TunnelOpened(b"early")]
    assert connect.receive(b"more") == []
    assert connect.end() == []
    assert connect.fail(OSError("x")) == []


def failure(parts: list[bytes]) -> TunnelFailed:
    (event,) = fed(parts)
    assert isinstance(event, TunnelFailed)
    return event


def said(events: list[TunnelOpened | TunnelFailed]) -> list[object]:
    """Events in a form that compares."""
    return [event if isinstance(event, TunnelOpened) else (repr(event), vars(event.error)) for event in events]


def page(status: bytes, body: bytes, *more: bytes) -> bytes:
    head = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *more]
    return b"\r\n".join([*head, b"", body])


SQUID = page(
    b"403 Forbidden",
    b"<!DOCTYPE html><html><head><title>ERROR</title><style type='text/css'><!-- body { color: red } --></style>\n"
    b"<script>if (a<b) say('</p>')</script></head><!-- <b>not</b> <i> --><!--[if IE]>nor<![endif]-->\n"
    b"<body><h1>Access&nbsp;Denied</h1>"
    b"<p>by <b>policy</b> 7&lt;8\x1b[0m</p></body></html>",
)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            page(b"407 Auth", b"Locked"),
            "wants other credentials (407 Auth: Locked): "
            "put user and password into its URL, percent-encoded, as http://user:password@host:port",
        ),
        (
            page(b"403 No", b""),
            "refused to open a tunnel to api.example:443 (403 No): "
            "ask who runs it, or do without it for this host (NO_PROXY)",
        ),
        (page(b"502 No", b""), "refused to open a tunnel to api.example:443 (502 No): try again later"),
        (
            b"y" * 101 + b"\n",
            f"does not answer in HTTP: '{'y' * 100}...': is it an HTTP proxy? (socks5:// and https:// are others)",
        ),
        (b"HTTP/1.1 200", "closed the connection instead of opening a tunnel to api.example:443"),
        (b"HTTP/1.1 200 OK\r\n" + b"y" * 70_000, "sends a head that does not end"),
    ],
)
def test_what_a_failure_says(data: bytes, words: str) -> None:
    assert str(failure([data]).error) == f"the proxy http://proxy.example:3128 {words}"


@pytest.mark.parametrize(
    ("data", "status", "transient", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", 407, False, "wants other credentials"),
        (b"HTTP/1.0 401 Unauthorized\r\n\r\n", 401, False, "wants other credentials (401 Unauthorized)"),
        (page(b"407 Auth", b"Locked"), 407, False, "wants other credentials (407 Auth: Locked): put user and password"),
        (page(b"403 Not allowed here", b"no"), 403, False, "(403 Not allowed here: no): ask who runs it"),
        (page(b"403 Not today", b"Not today"), 403, False, "(403 Not today): ask who runs it"),
        (page(b"403 No", b""), 403, False, "(403 No): ask"),
        (page(b"403", b" \r\n "), 403, False, "(403): ask"),
        (page(b"418 ", b"tea\tpot\n"), 418, False, "(418: tea pot): ask"),
        (page(b"502 x", b'{"error": {"message": "no\\nroute"}}'), 502, True, "(502 x: no route): try again later"),
        (page(b"502 x", b"{}"), 502, True, "(502 x: {}): try"),
        (page(b"502 x", b"null"), 502, True, "(502 x): try"),
        (SQUID, 403, False, "(403 Forbidden: ERROR Access Denied by policy 7<8 [0m): ask"),
        (page(b"408 Slow", b""), 408, True, "(408 Slow): try again later"),
        (page(b"429 Many", b""), 429, True, "(429 Many): try again later"),
        (page(b"302 Found", b""), 302, False, "302 Found"),
        (page(b"499 x", b""), 499, False, "499 x"),
        (page(b"099 x", b""), 99, False, "99 x"),
        (page(b"300 x", b""), 300, False, "300 x"),
        (page(b"500 x", b""), 500, True, "500 x"),
        (b"HTTP/1.0 503 \r\n\r\n", 503, True, "refused to open a tunnel to api.example:443 (503): try"),
        # What says no length is not waited for, and what follows is no part of it.
        (b"HTTP/1.1 503 x\r\n\r\nmore", 503, True, "(503 x): try"),
        (page(b"503 x", b"more", b"Content-Length: 3"), 503, True, "(503 x): try"),
        (page(b"503 x", b"more", b"Transfer-Encoding: chunked"), 503, True, "(503 x): try"),
        (b"HTTP/1.1 503 x\r\nContent-Length: 4, 4\r\n\r\nmore", 503, True, "(503 x): try"),
        (b"HTTP/1.1 503 x\r\nContent-Length: -4\r\n\r\nmore", 503, True, "(503 x): try"),
        (page(b"503 x", b"more", b"CONTENT-LENGTH:4 "), 503, True, "(503 x: more): try"),
        (b"HTTP/1.1 503 x\r\ncontent-length: 4\r\n\r\nmore", 503, True, "(503 x: more): try"),
        (page(b"503 x", b"more") + b" than that", 503, True, "(503 x: more): try"),
        # The fields of an interim head are not the final one's.
        (b"HTTP/1.1 103 x\r\nContent-Length: 9\r\n\r\n" + page(b"503 x", b"more"), 503, True, "(503 x: more): try"),
        (b"HTTP/1.1 103 x\r\nContent-Length: 4\r\n\r\nHTTP/1.1 503 x\r\n\r\nmore", 503, True, "(503 x): try"),
        (page(b"403 No", b"bare").replace(b"\r\n", b"\n"), 403, False, "(403 No: bare): ask"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", None, True, "does not answer in HTTP: 'SSH-2.0-OpenSSH': is it an HTTP proxy?"),
        (b"HTTP/1.1 100 x\r\n\r\nrubbish\n", None, True, "does not answer in HTTP: 'rubbish'"),
        (b"\r\n\r\n" + OPEN, None, True, "does not answer in HTTP: ''"),
        (b"HTTP/1.1 20 x\r\n\r\n", None, True, "does not answer in HTTP"),
        (b"HTTP/2 200 x\r\n\r\n", None, True, "does not answer in HTTP"),
        (b"HTTP/1.\0 200 x\r\n\r\n", None, True, "does not answer in HTTP"),
        (b"HTTP/1.10 200 x\r\n\r\n", None, True, "does not answer in HTTP"),
        (b"HTTP/1. 200 x\r\n\r\n", None, True, "does not answer in HTTP"),
        (b"HTTP/1.1 \xff\xff\xff\r\n\r\n", None, True, "does not answer in HTTP"),
        (b"\x15\x03\x01\x00\x02\x02F", None, True, r"does not answer in HTTP: '\x15\x03\x01\x00\x02\x02F...'"),
        (b"HTTP/1.1 200 OK\r\n", None, True, "closed the connection instead of opening a tunnel to api.example:443"),
        (b"HTTP/1.1 100 x\r\n\r\n", None, True, "closed the connection"),
        (b"HTTP", None, True, "closed the connection"),
        (b"", None, True, "closed the connection"),
        (b"HTTP/1.1 500 pa ss and dXNlcjpwYSBzcw==\r\n\r\n", 500, True, "500 ***"),
        (page(b"500 x", b"<p>pa ss or pa&#32;ss or dXNlcjpwYSBzcw==</p>"), 500, True, "(500 x: *** or *** or ***)"),
        (page(b"500 x", b'{"error": "pa\\u0020ss"}'), 500, True, "(500 x: ***)"),
        (b"pa ss\n", None, True, "does not answer in HTTP: '***'"),
    ],
)
def test_failed_however_it_is_split(data: bytes, status: int | None, transient: bool, words: str) -> None:
    whole = failure([data]).error
    assert words in str(whole)
    assert (whole.status_code, whole.transient, whole.proxy) == (status, transient, "http://proxy.example:3128")
    assert whole.reply_code is None
    assert isinstance(whole, ConnectError)
    for secret in ("pa ss", "dXNl"):
        assert secret not in f"{whole} {whole!r} {vars(whole)}"
    for parts in every_way(data):
        assert said(fed(parts)) == said([TunnelFailed(whole)])


def test_a_head_alone_decides_unless_it_tells_a_length() -> None:
    # Neither the end of the connection nor any more bytes are waited for.
    for data in (
        b"HTTP/1.1 403 No\r\n\r\n",
        page(b"403 No", b""),
        b"SSH-2.0\n",
        b"HTTP/1.1 403 No\nTransfer-Encoding: x\n\n",
    ):
        (event,) = fed([data], ended=False)
        assert isinstance(event, TunnelFailed)
    assert fed([page(b"403 No", b"body")[:-1]], ended=False) == []
    assert len(fed([page(b"403 No", b"body")], ended=False)) == 1


def test_the_body_is_kept() -> None:
    error = failure([page(b"403 No", b"<p>why, pa ss?</p>")]).error
    assert error.body == b"<p>why, ***?</p>"
    assert failure([b"HTTP/1.1 403 No\r\n\r\nwhy"]).error.body == b""


@pytest.mark.parametrize("how", ["end", "fail"])
def test_what_breaks_off_at_every_byte(how: str) -> None:
    data = page(b"403 No", b"<p>because</p> pa ss")
    head = data.index(b"\r\n\r\n") + 4
    for at in range(len(data)):
        connect = machine()
        events = connect.receive(data[:at])
        events += connect.end() if how == "end" else connect.fail(OSError("reset by pa ss"))
        (event,) = events
        assert isinstance(event, TunnelFailed)
        assert type(event.error) is ProxyError
        assert "pa ss" not in f"{event!r} {event.error} {vars(event.error)}"
        assert connect.end() == connect.fail(OSError("x")) == connect.receive(data) == []
        assert connect.data_to_send() == b""
        if at < head:
            assert event.error.status_code is None
            assert event.error.transient
            words = "closed the connection" if how == "end" else "reset by ***"
            assert words in str(event.error)
        else:
            # What has come of the page is worth more than that it broke off.
            assert (event.error.status_code, event.error.transient) == (403, False)
            assert event.error.body == data[head:at].replace(b"pa s", b"")
            assert ("because" in str(event.error)) == (at >= head + 10)


def test_a_secret_that_is_cut_off() -> None:
    proxy = Proxy.parse("http://u:correct-horse@p")
    for at in range(5, 14):
        connect = HTTPConnect("s", 1, proxy)
        connect.receive(page(b"500 x", b"it is correct-horse")[: -14 + at])
        (event,) = connect.end()
        assert isinstance(event, TunnelFailed)
        assert "corr" not in f"{event.error} {vars(event.error)}"
        connect = HTTPConnect("s", 1, proxy)
        connect.receive(b"it is correct-horse"[: 6 + at])
        (event,) = connect.end()
        assert "corr" not in repr(event)


@pytest.mark.parametrize("password", ["a<b>cd", "a&amp;<i", "ab  cd", "ab\tcd", "a&bcd"])
def test_secrets_that_look_like_markup(password: str) -> None:
    proxy = Proxy("http", "p", 1, "u", password)
    echoes = [f"<p>it is {password} </p>", f"<p>it is {html.escape(password)} </p>", f"it is {password}"]
    for echo in echoes:
        connect = HTTPConnect("s", 1, proxy)
        (event,) = connect.receive(page(b"500 " + password.encode(), echo.encode()))
        assert isinstance(event, TunnelFailed)
        assert str(event.error).count("***") == 2
        assert "cd" not in str(event.error)
    connect = HTTPConnect("s", 1, Proxy("http", "p", 1, "u", "correct-horse"))
    connect.receive(page(b"500 x", b"<p>correct&#45;horse")[:-2])
    assert "corr" not in str(connect.end())


def test_a_bearer_is_told_to_look_at_its_header_and_is_not_shown() -> None:
    (event,) = HTTPConnect("s", 1, Proxy.parse("https://p")).receive(page(b"407 Auth", b""))
    assert "as https://user:password@host:port" in repr(event)
    connect = HTTPConnect("s", 1, Proxy.parse("http://p", headers={"Proxy-Authorization": "Bearer 0123456789"}))
    (event,) = connect.receive(page(b"407 Auth", b"Not 0123456789, nor Bearer 0123456789!"))
    assert isinstance(event, TunnelFailed)
    assert str(event.error) == (
        "the proxy http://p:80 wants other credentials (407 Auth: Not ***, nor ***!): "
        "check the Proxy-Authorization among its headers"
    )


def test_a_connection_that_fails_without_words() -> None:
    (event,) = machine().fail(TimeoutError())
    assert isinstance(event, TunnelFailed)
    words = "failed while opening a tunnel to api.example:443: TimeoutError"
    assert str(event.error) == f"the proxy http://proxy.example:3128 {words}"
    (event,) = machine().fail(OSError("reset by\npeer"))
    assert "reset by peer" in repr(event)


# --- Bounds ----------------------------------------------------------------------------------------

LONGEST = 64 * 1024


def given_up(data: bytes) -> int:
    """After how many bytes it is given up, fed in small parts; as fed whole."""
    connect = machine()
    for at in range(0, len(data), 7):
        if events := connect.receive(data[at : at + 7]):
            break
    assert said(events) == said(fed([data], ended=False))
    (event,) = events
    assert isinstance(event, TunnelFailed)
    assert "does not end" in str(event.error)
    return at + 7


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nx: " + b"x" * LONGEST + b"\r\n\r\n",
        b"HTTP/1.1 " + b"1" * LONGEST + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * LONGEST,
        b"HTTP/1.1 100 Continue\r\n\r\n" * (LONGEST // 25 + 1) + OPEN,
    ],
)
def test_heads_without_end_are_given_up(data: bytes) -> None:
    assert LONGEST < given_up(data) <= LONGEST + 7


def test_heads_are_given_up_at_their_first_byte_too_many() -> None:
    connect = machine()
    line = b"HTTP/1.1 200 OK\r\n"
    assert connect.receive(line + b"x" * (LONGEST - len(line))) == []
    assert len(connect.receive(b"x")) == 1


def test_the_longest_heads() -> None:
    head = b"HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\nx: "
    data = head + b"x" * (LONGEST - len(head) - 4) + b"\r\n\r\n"
    assert len(data) == LONGEST
    assert fed([data + b"y"]) == [TunnelOpened(b"y")]
    assert fed([data[:-1], data[-1:]]) == [TunnelOpened(b"")]
    assert given_up(data[:-4] + b"x\r\n\r\n") > LONGEST


def test_rubbish_without_end_is_given_up() -> None:
    (event,) = fed([b"x" * LONGEST, b"xx"], ended=False)
    assert "does not answer in HTTP: 'xxx" in repr(event)
    assert len(repr(event)) < 600


def test_a_body_without_end_is_cut() -> None:
    for length in (LONGEST, LONGEST + 1, 10**15):
        connect = machine()
        assert connect.receive(b"HTTP/1.1 500 x\r\nContent-Length: %d\r\n\r\n" % length) == []
        assert connect.receive(b"y" * (LONGEST - 1)) == []
        (event,) = connect.receive(b"yz")
        assert isinstance(event, TunnelFailed)
        assert event.error.body == b"y" * LONGEST
        assert len(str(event.error)) < 600
    endless = b"HTTP/1.1 500 x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n"
    assert fed([endless], ended=False) == []


def test_a_thousand_interim_heads_do_no_harm() -> None:
    assert fed([b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + OPEN]) == [TunnelOpened(b"")]


@pytest.mark.parametrize("unit", [b"<", b"<!--", b"<script>", b"&", b"<a ", b"&amp;"])
def test_hostile_pages_take_no_time(unit: bytes) -> None:
    body = (b"<" + unit * LONGEST)[:LONGEST]
    assert failure([page(b"500 x", body)]).error.status_code == 500


# --- Anything --------------------------------------------------------------------------------------

TOKENS = st.sampled_from([
    b"HTTP/1.1 ", b"200", b"100", b"403", b"407", b" OK", b"\r\n", b"\r\n\r\n", b"\n\n", b"\r", b"a: b", b"\x00",
    b"Content-Length: ", b"3", b"HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 100 x\n\n", b"pa ss",
])  # fmt: skip


@QUICK
@given(st.data(), st.lists(TOKENS, max_size=12).map(b"".join) | st.binary(max_size=40))
def test_any_bytes_give_one_verdict(data: st.DataObject, answer: bytes) -> None:
    whole = fed([answer])
    assert len(whole) == 1
    assert "pa ss" not in repr(whole[0]) or isinstance(whole[0], TunnelOpened)
    parts = data.draw(splits(answer))
    connect = machine()
    events: list[TunnelOpened | TunnelFailed] = []
    rest = b""
    for part in parts:
        if events:
            rest += part
        events += connect.receive(part)
    events += connect.end()
    if isinstance(events[0], TunnelOpened):
        events[0] = TunnelOpened(events[0].trailing + rest)
    assert said(events) == said(whole)
