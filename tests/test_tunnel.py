"""proxy.py, the handshake of HTTPConnect: whole, byte by byte, at every split, with trailing data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawire.protocol import HTTPConnect, HTTPRequest, Proxy, TunnelFailed, TunnelOpened, absolute_form

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


@pytest.mark.parametrize("status", [b"200", b"201", b"299"])
@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.0 103 x\r\na: b\r\n\r\n" * 3])
def test_opened_however_it_is_split(status: bytes, before: bytes) -> None:
    data = before + OPEN.replace(b"200", status)
    for parts in every_way(data):
        assert fed(parts) == [TunnelOpened(b"")]


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


@pytest.mark.parametrize(
    ("data", "status", "transient", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", 407, False, "wants other credentials"),
        (b"HTTP/1.0 401 Unauthorized\r\n\r\n", 401, False, "wants other credentials (401 Unauthorized)"),
        (b"HTTP/1.1 403 Not allowed here\r\nContent-Length: 2\r\n\r\nno", 403, False, "(403 Not allowed here: no)"),
        (b"HTTP/1.0 503 \r\n\r\n", 503, True, "refused to open a tunnel to api.example:443"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", None, True, "does not answer in HTTP"),
        (b"HTTP/1.1 20 x\r\n\r\n", None, True, "does not answer in HTTP"),
        (b"HTTP/1.1 \xff\xff\xff\r\n\r\n", None, True, "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\n", None, True, "closed the connection"),
        (b"", None, True, "closed the connection"),
        (b"HTTP/1.1 500 pa ss and dXNlcjpwYSBzcw==\r\n\r\n", 500, True, "500 ***"),
    ],
)
def test_failed_however_it_is_split(data: bytes, status: int | None, transient: bool, words: str) -> None:
    whole = failure([data]).error
    assert words in str(whole)
    assert (whole.status_code, whole.transient, whole.proxy) == (status, transient, "http://proxy.example:3128")
    for secret in ("pa ss", "dXNl"):
        assert secret not in str(whole)
    for parts in every_way(data):
        assert str(failure(parts).error) == str(whole)


def test_a_head_without_end_is_given_up() -> None:
    connect = machine()
    events = connect.receive(b"HTTP/1.1 200 OK\r\nx: ")
    for _ in range(100):
        events += connect.receive(b"x" * 1024)
    assert len(events) == 1
    assert isinstance(events[0], TunnelFailed)
    assert "does not end" in str(events[0].error)


def test_a_thousand_interim_heads_do_no_harm() -> None:
    assert fed([b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + OPEN]) == [TunnelOpened(b"")]


def test_a_broken_connection() -> None:
    (event,) = machine().fail(OSError("reset by peer"))
    assert isinstance(event, TunnelFailed)
    assert "reset by peer" in str(event.error)


@given(
    st.lists(st.sampled_from([b"HTTP/1.1 ", b"200", b"100", b" OK", b"\r\n", b"\r\n\r\n", b"a: b", b"\x00", b"407"]))
)
def test_any_bytes_give_one_verdict(parts: list[bytes]) -> None:
    whole = fed([b"".join(parts)])
    assert len(whole) == 1
    split = fed(parts)
    assert [type(event) for event in split] == [type(event) for event in whole]


def test_absolute_form_adds_the_credentials_and_nothing_else() -> None:
    request = HTTPRequest("POST", "http://s/v1", ((b"host", b"s"),), b"{}")
    proxied = absolute_form(request, PROXY)
    assert proxied.headers == ((b"host", b"s"), (b"proxy-authorization", b"Basic dXNlcjpwYSBzcw=="))
    assert (proxied.method, proxied.url, proxied.body) == (request.method, request.url, request.body)
    assert absolute_form(request, Proxy.parse("http://p:1")) is request
    assert "dXNl" not in repr(proxied)
