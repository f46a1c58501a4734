"""routing.py: which proxy for which URL."""

from __future__ import annotations

from typing import Any

import pytest
from feeding import QUICK
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from deltawire.protocol import HTTPRequest, Proxy, absolute_form, bypasses, choose_proxy
from deltawire.protocol.urls import parse_url

SECRET = "s3cr3t"

HTTP, HTTPS = "http://s.example/v1", "https://s.example/v1"
P = Proxy("http", "p", 8080)
S = Proxy("socks5", "s", 1080, "user", "pass")
SECRET = "s3cr3t"


def chosen(url: str, **how: Any) -> str | None:
    proxy = choose_proxy(url, **how)
    return None if proxy is None else proxy.url


# --- proxies= --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proxies", "http", "https"),
    [
        (None, None, None),
        ({}, None, None),
        ("http://a:1", "http://a:1", "http://a:1"),
        (P, "http://p:8080", "http://p:8080"),
        ({"http": "http://a:1", "https": "http://b:2"}, "http://a:1", "http://b:2"),
        ({"http": "http://a:1"}, "http://a:1", "http://a:1"),
        ({"https": "http://b:2"}, "http://b:2", "http://b:2"),
        ({"all": "http://c:3"}, "http://c:3", "http://c:3"),
        ({"all": "http://c:3", "http": "http://a:1"}, "http://a:1", "http://c:3"),
        ({"all": "http://c:3", "https": None}, "http://c:3", None),
        ({"http": "http://a:1", "https": None}, "http://a:1", None),
        ({"http": None}, None, None),
        ({"all": None, "http": "http://a:1"}, "http://a:1", None),
        ({"HTTP://": "http://a:1", "https://": "http://b:2"}, "http://a:1", "http://b:2"),
        ({"all": "http://c:3", "no": "s.example"}, None, None),
        ({"all": "http://c:3", "no": "other"}, "http://c:3", "http://c:3"),
        ({"all": "http://c:3", "no": "s.example:443"}, "http://c:3", None),
        ({"all": "http://c:3", "no": None}, "http://c:3", "http://c:3"),
        ({"no": "x"}, None, None),
        (S, "socks5://s:1080", "socks5://s:1080"),
        ("socks5h://s", "socks5h://s:1080", "socks5h://s:1080"),
        ({"http": P, "https": S}, "http://p:8080", "socks5://s:1080"),
        ({"all": P, "https": "https://q"}, "http://p:8080", "https://q:443"),
        ({"all": P, "https": None}, "http://p:8080", None),
        ({"all": S, "no": "s.example:443"}, "socks5://s:1080", None),
    ],
)
def test_a_mapping(proxies: Any, http: str | None, https: str | None) -> None:
    assert (chosen(HTTP, proxies=proxies), chosen(HTTPS, proxies=proxies)) == (http, https)


@pytest.mark.parametrize("key", ["ftp", "socks5", "", "https:", "no_proxy", "http://s.example"])
def test_unknown_keys(key: str) -> None:
    words = refused(choose_proxy, HTTP, proxies={key: f"http://u:{SECRET}@p"})
    if "://" not in key:
        assert words == f"proxies has the unknown key {key.lower()!r}: use 'http', 'https' or 'all'"
    assert repr(key.lower()) in words
    assert SECRET not in words


def test_a_url_in_the_place_of_a_key() -> None:
    words = refused(choose_proxy, HTTP, proxies={f"http://u:{SECRET}@p": 1})
    assert "'p'" in words
    assert SECRET.lower() not in words.lower()


@pytest.mark.parametrize("proxies", [["http://p"], {5: "http://p"}])
def test_what_is_no_mapping(proxies: Any) -> None:
    words = "proxies must be a URL, or a mapping of schemes to URLs"
    assert refused(choose_proxy, HTTP, proxies=proxies) == words


def test_a_proxy_in_a_mapping_is_taken_as_it_is() -> None:
    proxy = Proxy.parse("http://p:1", headers={"x-token": SECRET})
    assert choose_proxy(HTTP, proxies={"all": proxy}) is proxy
    assert choose_proxy(HTTP, proxies=proxy) is proxy


@pytest.mark.parametrize("value", [5, ["s.example"], P, b"s.example"])
def test_exceptions_of_another_type(value: Any) -> None:
    words = f"proxies['no'] must be a str as NO_PROXY is, not {type(value).__name__}"
    assert refused(choose_proxy, HTTP, proxies={"all": P, "no": value}) == words


def test_what_the_caller_says_hides_the_environment() -> None:
    environ = {"http_proxy": "http://env:1", "no_proxy": "*"}
    assert chosen(HTTP, proxies="http://a:1", environ=environ) == "http://a:1"
    assert chosen(HTTP, proxies={"http": "http://a:1"}, environ=environ) == "http://a:1"
    assert chosen(HTTP, proxies={"http": None}, environ={"http_proxy": "http://env:1"}) is None
    assert chosen(HTTP, proxies={}, environ={"http_proxy": "http://env:1"}) is None


# --- The environment -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "http", "https"),
    [
        ({}, None, None),
        ({"http_proxy": "http://a:1"}, "http://a:1", None),
        ({"HTTP_PROXY": "http://a:1"}, "http://a:1", None),
        ({"https_proxy": "http://b:2"}, None, "http://b:2"),
        ({"HTTPS_PROXY": "http://b:2"}, None, "http://b:2"),
        ({"all_proxy": "http://c:3"}, "http://c:3", "http://c:3"),
        ({"ALL_PROXY": "http://c:3"}, "http://c:3", "http://c:3"),
        ({"ALL_PROXY": "socks5://c"}, "socks5://c:1080", "socks5://c:1080"),
        ({"all_proxy": "socks5h://u:p@c:3"}, "socks5h://c:3", "socks5h://c:3"),
        ({"https_proxy": "https://b", "all_proxy": "socks5://c"}, "socks5://c:1080", "https://b:443"),
        ({"http_proxy": "http://a:1", "HTTP_PROXY": "http://b:2"}, "http://a:1", None),
        ({"http_proxy": "", "HTTP_PROXY": "http://b:2"}, "http://b:2", None),
        ({"https_proxy": "http://a:1", "all_proxy": "http://c:3"}, "http://c:3", "http://a:1"),
        ({"HTTPS_PROXY": "", "all_proxy": "http://c:3"}, "http://c:3", "http://c:3"),
        ({"http_proxy": "  "}, None, None),
        ({"http_proxy": "a:1"}, "http://a:1", None),
        ({"http_proxy": " http://a:1 "}, "http://a:1", None),
        ({"http_proxy": "user:pass@a:1"}, "http://a:1", None),
        ({"Http_Proxy": "http://a:1"}, None, None),
        ({"all_proxy": "http://c:3", "no_proxy": "s.example"}, None, None),
        ({"all_proxy": "http://c:3", "NO_PROXY": "s.example"}, None, None),
        ({"all_proxy": "http://c:3", "no_proxy": "other", "NO_PROXY": "*"}, "http://c:3", "http://c:3"),
        ({"all_proxy": "http://c:3", "no_proxy": "", "NO_PROXY": "*"}, None, None),
        ({"HTTP_PROXY": "http://evil:1", "REQUEST_METHOD": "GET"}, None, None),
        ({"http_proxy": "http://a:1", "REQUEST_METHOD": "GET"}, "http://a:1", None),
        ({"HTTPS_PROXY": "http://b:2", "REQUEST_METHOD": "GET"}, None, "http://b:2"),
        (
            {"HTTP_PROXY": "http://evil:1", "ALL_PROXY": "http://c:3", "REQUEST_METHOD": "GET"},
            "http://c:3",
            "http://c:3",
        ),
    ],
)
def test_the_environment(environ: dict[str, str], http: str | None, https: str | None) -> None:
    assert (chosen(HTTP, environ=environ), chosen(HTTPS, environ=environ)) == (http, https)


def test_credentials_in_the_environment() -> None:
    proxy = choose_proxy(HTTP, environ={"http_proxy": "us%40er:p%3Aw@p:1"})
    assert proxy == Proxy("http", "p", 1, "us@er", "p:w")


def test_a_bad_value_in_the_environment_is_named() -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        words = refused(choose_proxy, HTTP, environ={name: f"http://u:{SECRET}@p:x"})
        assert name in words
        assert SECRET not in words


def test_a_bad_url_of_the_request() -> None:
    refused(choose_proxy, "ftp://x", environ={})


# --- NO_PROXY --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "entry"),
    [
        ("http://a.example", "*"),
        ("http://a.example", "a.example"),
        ("http://A.Example", "a.example"),
        ("http://a.example", "A.EXAMPLE"),
        ("http://a.example", "example"),
        ("http://a.example", ".example"),
        ("http://a.example", "*.example"),
        ("http://a.example", "*example"),
        ("http://x.a.example", "a.example"),
        ("http://x.a.example", ".a.example"),
        ("http://a.example", ".a.example"),
        ("http://a.example.", "a.example"),
        ("http://a.example", "a.example."),
        ("http://a.example", ".a.example."),
        ("http://a.example", "a.example:80"),
        ("https://a.example", "a.example:443"),
        ("http://a.example:8080", "a.example:8080"),
        ("http://x.a.example:8080", ".a.example:8080"),
        ("http://a.example:8080", "*:8080"),
        ("http://a.example:8080", "a.example"),
        ("http://localhost:8000", "localhost"),
        ("http://127.0.0.1", "127.0.0.1"),
        ("http://127.0.0.1:8000", "127.0.0.1"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://10.1.2.3", "10.0.0.0/8"),
        ("http://10.1.2.3", "10.1.2.3/8"),
        ("http://10.1.2.3", "10.1.2.3/32"),
        ("http://[::1]", "::1"),
        ("http://[::1]", "[::1]"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("http://[::1]:8000", "[::1]"),
        ("http://[0:0:0:0:0:0:0:1]", "::1"),
        ("http://[FD00::5]", "fd00::/8"),
        ("http://[fd00::5]", "[fd00::]/8"),
        ("http://a.example", "x, a.example ,y"),
        ("http://a.example", "x a.example y"),
        ("http://a.example", ",,a.example,,"),
        ("http://bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_excepted(url: str, entry: str) -> None:
    assert bypasses(parse_url(url), entry)
    assert chosen(url, environ={"all_proxy": "http://p:1", "no_proxy": entry}) is None
    assert chosen(url, proxies={"all": "http://p:1", "no": entry}) is None


@pytest.mark.parametrize(
    ("url", "entry"),
    [
        ("http://a.example", ""),
        ("http://a.example", " , "),
        ("http://a.example", "."),
        ("http://a.example", "b.example"),
        ("http://a.example", "x.a.example"),
        ("http://ba.example", "a.example"),
        ("http://a.example.evil", "a.example"),
        ("http://a.example", "a.example:81"),
        ("http://a.example:8080", "a.example:80"),
        ("http://a.example:8080", "*:80"),
        ("https://a.example", "a.example:80"),
        ("http://127.0.0.10", "127.0.0.1"),
        ("http://10.1.2.3", "2.3"),
        ("http://11.1.2.3", "10.0.0.0/8"),
        ("http://a.example", "10.0.0.0/8"),
        ("http://10.1.2.3", "fd00::/8"),
        ("http://10.1.2.3", "10.0.0.0/99"),
        ("http://10.1.2.3", "rubbish/8"),
        ("http://[::1]", "::2"),
        ("http://[::1]:8000", "[::1]:8001"),
        ("http://[fd00::5]", "fe80::/10"),
        ("http://a.example", "/"),
        pytest.param("http://a.example", "a.example:" + "9" * 5000, id="a number that int() refuses"),
    ],
)
def test_not_excepted(url: str, entry: str) -> None:
    assert not bypasses(parse_url(url), entry)
    assert chosen(url, environ={"all_proxy": "http://p:1", "no_proxy": entry}) == "http://p:1"


@QUICK
@given(
    st.text(max_size=30),
    st.sampled_from([HTTP, HTTPS, "http://[::1]:8000", "http://127.0.0.1", "http://a.b.c.example."]),
)
def test_any_no_proxy_never_raises(value: str, url: str) -> None:
    assert bypasses(parse_url(url), value) in (True, False)
    assert bypasses(parse_url(url), f"{value},*")


# --- In absolute form -----------------------------------------------------------------------------


def test_absolute_form_adds_the_credentials_and_nothing_else() -> None:
    request = HTTPRequest("POST", "http://s/v1", ((b"host", b"s"),), b"{}")
    proxied = absolute_form(request, Proxy.parse("http://user:pa%20ss@p:1"))
    assert proxied.headers == ((b"host", b"s"), (b"proxy-authorization", b"Basic dXNlcjpwYSBzcw=="))
    assert (proxied.method, proxied.url, proxied.body) == (request.method, request.url, request.body)
    assert absolute_form(request, Proxy.parse("https://p:1")) is request
    assert "dXNl" not in repr(proxied)


def test_absolute_form_adds_the_other_fields() -> None:
    request = HTTPRequest("POST", "http://s/v1", ((b"host", b"s"), (b"x-a", b"1"), (b"x-b", b"2")))
    headers = {"X-B": "3", "X-Token": SECRET}
    proxied = absolute_form(request, Proxy.parse("http://u:p@p", headers=headers))
    assert proxied.headers == (
        (b"host", b"s"), (b"x-a", b"1"),
        (b"proxy-authorization", b"Basic dTpw"), (b"x-b", b"3"), (b"x-token", SECRET.encode()),
    )  # fmt: skip
    assert SECRET not in f"{proxied} {proxied!r} {proxied.to('http://s/v2')!r}"
    assert "b'1'" in repr(proxied)
    assert proxied.to("http://s/v2").hidden == proxied.hidden
    bearer = absolute_form(request, Proxy.parse("http://u:p@p", headers={"Proxy-Authorization": "Bearer x"}))
    assert bearer.headers[3:] == ((b"proxy-authorization", b"Bearer x"),)
    direct = Proxy("http", "p", 1, headers=((b"X-B", b"3"),))
    assert absolute_form(request, direct).headers == ((b"host", b"s"), (b"x-a", b"1"), (b"x-b", b"3"))


def test_a_socks_proxy_knows_no_absolute_form() -> None:
    request = HTTPRequest("POST", "http://s/v1", ())
    assert "open a tunnel" in refused(absolute_form, request, Proxy.parse("socks5://p"))
