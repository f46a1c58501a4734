"""proxy.py: proxies as objects, and no secret anywhere; what goes to them. (Its handshake: test_tunnel.py.)"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import driving
import pytest
from feeding import QUICK
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from deltawire.protocol import (
    ConfigurationError,
    HTTPConnect,
    Proxy,
    ProxyError,
    Socks5,
    TunnelFailed,
    TunnelOpened,
    choose_proxy,
    tunnel,
)
from deltawire.protocol.urls import parse_url

HTTP = "http://s.example/v1"
P = Proxy("http", "p", 8080)
SECRET = "s3cr3t"


# --- One proxy -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://p:8080", P),
        ("HTTP://P:8080/", P),
        ("http://p:8080/path?query", P),
        ("http://p", Proxy("http", "p", 80)),
        ("http://[::1]:3128", Proxy("http", "::1", 3128)),
        ("http://user:pass@p:8080", Proxy("http", "p", 8080, "user", "pass")),
        ("http://user@p:8080", Proxy("http", "p", 8080, "user", None)),
        ("http://:pass@p:8080", Proxy("http", "p", 8080, "", "pass")),
        ("http://us%40er:p%3Aa%2Fs%25s@p:8080", Proxy("http", "p", 8080, "us@er", "p:a/s%s")),
        ("http://us%C3%A9r:p%20w@p:8080", Proxy("http", "p", 8080, "usér", "p w")),
        ("http://u:a@b@p:8080", Proxy("http", "p", 8080, "u", "a@b")),
        ("http://u:a:b@p:8080", Proxy("http", "p", 8080, "u", "a:b")),
        ("https://p", Proxy("https", "p", 443)),
        ("HTTPS://user:pass@p:8443", Proxy("https", "p", 8443, "user", "pass")),
        ("socks5://p", Proxy("socks5", "p", 1080)),
        ("SOCKS5H://P/", Proxy("socks5h", "p", 1080)),
        ("socks5://[::1]:9050", Proxy("socks5", "::1", 9050)),
        ("socks5://user@p", Proxy("socks5", "p", 1080, "user", None)),
        ("socks5://user:@p", Proxy("socks5", "p", 1080, "user", "")),
        ("socks5h://us%40er:p%3Aa%2Fs%25s@p:1", Proxy("socks5h", "p", 1, "us@er", "p:a/s%s")),
    ],
)
def test_parsing(url: str, proxy: Proxy) -> None:
    assert Proxy.parse(url) == proxy
    assert choose_proxy(HTTP, proxies=url) == proxy


@pytest.mark.parametrize(
    "url",
    [
        "", "p", "p:8080", "user:pass@p:8080", "//p:8080", "http://", "http://:8080", "http://p:x", "http://p:99999",
        "http://p 1:80", "http://p\n:80", "http://p:80\r\n", "socks4://p:1080", "socks4a://p:1080",
        "socks://p:1080", "socks5://", "socks5://p:x", "socks5:p", "ftp://p:21", "http://p_\x00:80", "http://[::1",
        "http://[zz]:80", "http://é\ud800:80", "http://a,b:80",
    ],
)  # fmt: skip
def test_what_is_no_proxy(url: str) -> None:
    assert "some_name" in refused(Proxy.parse, url, "some_name")
    assert "proxies" in refused(choose_proxy, HTTP, proxies=url)


@pytest.mark.parametrize("value", [5, b"http://p", ["http://p"], True])
def test_proxies_of_another_type(value: Any) -> None:
    assert "proxies" in refused(choose_proxy, HTTP, proxies=value)
    assert "proxies['http']" in refused(choose_proxy, HTTP, proxies={"http": value})
    assert "str" in refused(Proxy.parse, value)


def test_authorization() -> None:
    def decoded(proxy: Proxy) -> str:
        assert proxy.authorization is not None
        kind, _, value = proxy.authorization.partition(b" ")
        assert kind == b"Basic"
        return base64.b64decode(value, validate=True).decode()

    assert P.authorization is None
    assert decoded(Proxy("http", "p", 1, "user", "pass")) == "user:pass"
    assert decoded(Proxy("http", "p", 1, "user")) == "user:"
    assert decoded(Proxy("http", "p", 1, None, "pass")) == ":pass"
    assert decoded(Proxy.parse("http://%C3%BC:%E2%82%AC@p:1")) == "ü:€"
    long = decoded(Proxy("http", "p", 1, "u" * 200, "p" * 200))
    assert long == "u" * 200 + ":" + "p" * 200


def test_a_line_break_in_a_password_stays_inside_the_base64() -> None:
    authorization = Proxy.parse("http://u:a%0D%0Ab@p:1").authorization
    assert authorization is not None
    assert b"\n" not in authorization


@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "socks", "ftp"])
def test_another_scheme_is_told_which_there_are(scheme: str) -> None:
    words = refused(Proxy.parse, f"{scheme}://u:{SECRET}@p:1")
    assert repr(scheme) in words
    for each in ("http://", "https://", "socks5://", "socks5h://", "resolved here", "the proxy resolves it"):
        assert each in words
    assert SECRET not in words
    assert "another scheme" in refused(Proxy, scheme, "p", 1)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
@pytest.mark.parametrize(
    ("user", "password", "words"),
    [
        ("", SECRET, "a password and no user"),
        ("", "", "1 to 255 bytes"),
        ("", None, "1 to 255 bytes"),
        ("u" * 256, SECRET, "1 to 255 bytes"),
        ("ü" * 128, SECRET, "1 to 255 bytes"),
        ("u", SECRET * 43, "at most 255 bytes"),
        ("u", "ü" * 128, "at most 255 bytes"),
        ("u\ud800", SECRET, "a lone surrogate"),
        ("u", f"{SECRET}\ud800", "a lone surrogate"),
    ],
)
def test_what_rfc_1929_cannot_say(scheme: str, user: str, password: str | None, words: str) -> None:
    url = f"{scheme}://{user}{'' if password is None else ':' + password}@p"
    for said in (refused(Proxy.parse, url, "some_name"), refused(Proxy, scheme, "p", 1, user, password)):
        assert words in said
        assert SECRET not in said
        assert "uuu" not in said
    assert "some_name" in refused(Proxy.parse, url, "some_name")


def test_what_rfc_7617_cannot_say() -> None:
    with pytest.raises(ConfigurationError, match="colon") as caught:
        Proxy.parse("http://me%3Ax:pw-secret@h:1")
    assert "pw-secret" not in str(caught.value)
    assert Proxy.parse("socks5://me%3Ax:p%3Aw@h:1").username == "me:x"
    assert Proxy.parse("http://me:p%3Aw@h:1").password == "p:w"


@pytest.mark.parametrize(
    "parse",
    [
        lambda: Proxy.parse(f"http://u:{SECRET}#a@p:1"),
        lambda: Proxy.parse(f"http://u:{SECRET}/a@p:1"),
        lambda: Proxy.parse(f"http://u:{SECRET}@p\u2100:1"),
        lambda: Proxy.parse(f"http://u:{SECRET}\ud800@p:1"),
        lambda: Proxy.parse("http://p:1", headers={f"Proxy-Authorization: {SECRET}": "x"}),
        lambda: Proxy.parse("http://p:1", headers={"Proxy-Authorization": f"{SECRET}\u20ac"}),
        lambda: parse_url(f"http://u:{SECRET}@h\u2100"),
    ],
)
def test_nothing_behind_a_refusal_shows_a_secret(parse: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse()
    assert SECRET not in driving.shown(caught.value)


def test_a_password_without_a_user() -> None:
    assert "no user" in refused(Proxy, "socks5", "p", 1, None, SECRET)
    assert Proxy("socks5", "p", 1, None, "").username is None
    assert "a lone surrogate" in refused(Proxy.parse, f"http://u:{SECRET}\ud800@p")


def test_the_longest_that_rfc_1929_can_say() -> None:
    proxy = Proxy.parse(f"socks5://{'u' * 255}:{'p' * 255}@p")
    assert (proxy.username, proxy.password) == ("u" * 255, "p" * 255)
    assert Proxy.parse(f"http://{'u' * 256}:{'p' * 256}@p").username == "u" * 256, "Basic has no such limits"


def test_a_proxy_stays_as_it_is() -> None:
    for thing, name in ((P, "host"), (TunnelOpened(b""), "trailing"), (TunnelFailed(ProxyError("x")), "error")):
        with pytest.raises(AttributeError):
            setattr(thing, name, None)


def test_which_speak_socks() -> None:
    assert [Proxy(scheme, "p", 1).speaks_socks for scheme in ("http", "https", "socks5", "socks5h")] == [False] * 2 + [
        True
    ] * 2
    assert Proxy("socks5", "p", 1, "user", "pass").authorization is None


OTHERS = (
    "proxies are http://, https://, socks5:// (the host's name is resolved here) or socks5h:// (the proxy resolves it)"
)


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda: Proxy.parse(5, "the"), "the must be a str such as 'http://host:port', not int"),  # type: ignore[arg-type]
        (lambda: Proxy.parse("p:80"), "proxy has no scheme: write http://host:port, or http://user:password@host:port"),
        (lambda: Proxy.parse("ftp://p", "the"), f"the is of the scheme 'ftp': {OTHERS}"),
        (lambda: Proxy.parse("f-p://p", "the"), f"the is of another scheme: {OTHERS}"),
        (lambda: Proxy("ftp", "p", 1), f"Proxy is of another scheme: {OTHERS}"),
        (lambda: Proxy.parse("http://p 1", "the"), "the holds a blank or a control: percent-encode it"),
        (lambda: Proxy.parse("http://p\x7f1", "the"), "the holds a blank or a control: percent-encode it"),
        (
            lambda: Proxy.parse("http://p:x", "the"),
            "the is no valid URL: check its port, and percent-encode user and password",
        ),
        (
            lambda: Proxy.parse("http://p", "the", headers=[1]),  # type: ignore[arg-type]
            "the headers of the must be a mapping, not list",
        ),
        (
            lambda: Proxy.parse("http://p", "the", headers={"a b": "c"}),
            "the has a header whose name is none: letters, digits, hyphens",
        ),
        (lambda: Proxy.parse("http://p", "the", headers={"Host": "x"}), "the header host of the is set by deltawire"),
        (
            lambda: Proxy.parse("http://u\ud800@p", "the"),
            "the has a user or password that UTF-8 can't say (a lone surrogate)",
        ),
        (
            lambda: Proxy.parse("http://a%3Ab@p", "the"),
            "the user name of the has a colon, which Basic can't say (RFC 7617)",
        ),
        (
            lambda: Proxy.parse("socks5://p", "the", headers={"a": "x"}),
            "the has headers, which SOCKS has no place for: leave them out",
        ),
        (
            lambda: Proxy.parse("socks5://:x@p", "the"),
            "the has a password and no user, which SOCKS can't say (RFC 1929): name one",
        ),
        (
            lambda: Proxy.parse(f"socks5://{'u' * 256}@p", "the"),
            "the must have a user of 1 to 255 bytes in UTF-8, and a password of at most 255 bytes (RFC 1929)",
        ),
        (
            lambda: tunnel("é", 1, P),
            "the host of a tunnel must be a name or an address in ASCII: encode it by IDNA",
        ),
        (lambda: tunnel("h", 0, P), "the port of a tunnel must be a number from 1 to 65535, not 0"),
        (
            lambda: HTTPConnect("h", 1, Proxy.parse("socks5://u:p@p")),
            "the proxy socks5://p:1080 does not speak HTTP: Socks5 is its handshake",
        ),
        (
            lambda: Socks5("h", 1, Proxy.parse("http://u:p@p")),
            "the proxy http://p:80 does not speak SOCKS: HTTPConnect is its handshake",
        ),
    ],
)
def test_what_a_refusal_says(work: Callable[[], object], words: str) -> None:
    assert refused(work) == words


# --- Fields for it ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proxy", "http", "https"),
    [
        ("http://p", True, False),
        ("https://p", True, False),
        ("socks5://p", False, False),
        ("socks5h://p", False, False),
    ],
)
def test_which_take_a_request_themselves(proxy: str, http: bool, https: bool) -> None:
    one = Proxy.parse(proxy)
    assert (one.takes("http"), one.takes("https")) == (http, https)


def test_headers() -> None:
    proxy = Proxy.parse("http://u:p@p:1", headers={"X-Tenant": "a b", "x-empty": ""})
    assert proxy.headers == ((b"x-tenant", b"a b"), (b"x-empty", b""))
    assert proxy.authorization == b"Basic dTpw"
    assert Proxy.parse("http://p:1", headers={}) == Proxy.parse("http://p:1", headers=None) == Proxy("http", "p", 1)
    assert hash(proxy) == hash(Proxy("http", "p", 1, "u", "p", proxy.headers))
    assert proxy != Proxy("http", "p", 1, "u", "p")


@pytest.mark.parametrize("name", ["Proxy-Authorization", "proxy-authorization", "PROXY-AUTHORIZATION"])
@pytest.mark.parametrize("url", ["http://p:1", "https://u:p@p:1"])
def test_another_authorization_takes_the_place_of_basic(url: str, name: str) -> None:
    proxy = Proxy.parse(url, headers={name: f"Bearer {SECRET}"})
    assert proxy.authorization == f"Bearer {SECRET}".encode()
    made = Proxy("http", "p", 1, "u", "p", ((name.encode(), b"Bearer x"),))
    assert made.authorization == b"Bearer x"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": f"{SECRET}\r\nX-B: c"},
        {"X-A": f"{SECRET}\n"},
        {"X-A": f"{SECRET}\0"},
        {"X-A": f" {SECRET}"},
        {"X-A": f"{SECRET}\u20ac"},
        {"X-A": f"{SECRET}\ud800"},
        {f"X-A: {SECRET}": ""},
        {f"X-A: {SECRET}\r\nX-B": "c"},
        {f"{SECRET}\ud800": "c"},
        {"": SECRET},
        {5: SECRET},
        {"X-A": 5},
        {"Host": SECRET},
        {"content-length": "5"},
        {"Transfer-Encoding": SECRET},
        [("X-A", SECRET)],
        SECRET,
    ],
)
def test_headers_that_cannot_be_sent(headers: Any) -> None:
    words = refused(Proxy.parse, "http://p:1", "some_name", headers=headers)
    assert SECRET not in words
    assert "header" in words


def test_headers_are_checked_in_whatever_way_they_come() -> None:
    for headers in ((b"X-A", b"b\r\nc: d"), (b"X A", b"b"), (b"Host", b"b"), (b"X-A", 5)):
        assert "header" in refused(Proxy, "http", "p", 1, headers=(headers,))


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_socks_has_no_place_for_headers(scheme: str) -> None:
    words = refused(Proxy.parse, f"{scheme}://p", "some_name", headers={"X-A": SECRET})
    assert "some_name has headers, which SOCKS has no place for" in words
    assert SECRET not in words
    assert "SOCKS" in refused(Proxy, scheme, "p", 1, headers=((b"x-a", b"b"),))
    assert Proxy.parse(f"{scheme}://p", headers={}).headers == ()


# --- Secrets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "proxy",
    [
        Proxy.parse(f"http://user:{SECRET}@p:1"),
        Proxy.parse(f"http://{SECRET}@p:1"),
        Proxy.parse(f"http://:{SECRET}@[::1]:1"),
        Proxy.parse(f"socks5://user:{SECRET}@p"),
        Proxy.parse(f"socks5h://{SECRET}@p"),
        Proxy.parse("http://p", headers={"proxy-authorization": f"Bearer {SECRET}"}),
        Proxy.parse("https://user:x@p", headers={"x-token": SECRET}),
    ],
)
def test_no_proxy_shows_its_credentials(proxy: Proxy) -> None:
    every = (str(proxy), f"{proxy}", proxy.url, repr([proxy]), repr({"a": (proxy,)}), repr(proxy.__rich_repr__()))
    for shown in (repr(proxy), *every):
        assert SECRET not in shown
        assert "user" not in shown
    assert "with credentials" in repr(proxy)
    assert "credentials" not in repr(P)
    assert str(P) == P.url == "http://p:8080"
    assert repr(P) == "<Proxy http://p:8080>"
    fields = ((b"x-a", b"b"),)
    assert repr(Proxy("https", "p", 1, headers=fields)) == "<Proxy https://p:1, with headers>"
    assert repr(Proxy("https", "p", 1, "u", headers=fields)) == "<Proxy https://p:1, with credentials and headers>"


def test_what_is_secret() -> None:
    assert P.secrets == ()
    assert Proxy("http", "p", 1, "u", "pw").secrets == ("pw", "dTpwdw==")
    assert Proxy("http", "p", 1, "u").secrets == ("dTo=",)
    assert Proxy("socks5", "p", 1, "u", "pw").secrets == ("pw",)
    headers = {"proxy-authorization": "Bearer 12345678", "x-region": "eu-west", "x-t": "abcdefgh"}
    found = Proxy.parse("http://p", headers=headers).secrets
    assert set(found) == {"Bearer 12345678", "12345678", "abcdefgh"}, "a short word is a part of many"
    assert "p4ssw0rd" in Proxy.parse("http://p", headers={"Proxy-Authorization": "Basic bWU6cDRzc3cwcmQ="}).secrets


@pytest.mark.parametrize(
    "url",
    [
        f"user:{SECRET}@p:8080",
        f"ftp://user:{SECRET}@p:21",
        f"http://user:{SECRET}@",
        f"http://user:{SECRET}@p:x",
        f"http://user:{SECRET}@p:99999",
        f"http://user:{SECRET}@p 1:80",
        f"http://user:{SECRET} x@p:80",
        f"http://user:{SECRET}\n@p:80",
        f"http://user:{SECRET}@[::1",
        f"http://user:{SECRET}@[zz]:80",
        f"http://user:{SECRET}/x@p:80",
        f"http://user:{SECRET}#x@p:80",
        f"http://user:{SECRET}?x@p:80",
        f"http://user:{SECRET}@a,b:80",
        f"http://us[er:{SECRET}@p:80",
        f"http://user:{SECRET}\u2100@p:80",
        f"user:{SECRET}://x@p:80",
        f"{SECRET}://p:80",
    ],
)
def test_no_error_shows_credentials(url: str) -> None:
    ways: list[dict[str, Any]] = [{"proxies": url}, {"proxies": {"all": url}}, {"environ": {"http_proxy": url}}]
    for how in ways:
        try:
            choose_proxy(HTTP, **how)
        except ConfigurationError as error:
            shown, hidden = f"{error} {error!r}", error.__suppress_context__ or error.__context__ is None
        else:
            continue
        assert hidden
        assert SECRET not in shown or url.startswith(SECRET), "there it's the scheme"


@QUICK
@given(st.text(max_size=30))
def test_any_text_is_a_proxy_or_refused(value: str) -> None:
    for text in (value, f"http://{value}", f"http://u:{value}@p:1"):
        try:
            proxy = Proxy.parse(text)
        except ConfigurationError:
            continue
        assert proxy.url.isascii()
        assert proxy.url.isprintable()
        assert "@" not in proxy.url


# --- What goes to it -------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
def test_the_handshake_that_a_proxy_speaks(scheme: str) -> None:
    proxy = Proxy.parse(f"{scheme}://p")
    machine = tunnel("api.example", 443, proxy)
    assert type(machine) is (Socks5 if scheme.startswith("socks") else HTTPConnect)
    other = HTTPConnect if scheme.startswith("socks") else Socks5
    assert "does not speak" in refused(other, "api.example", 443, proxy)


@pytest.mark.parametrize("proxy", ["http://p", "socks5://p"])
@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("", 443), ("a b", 443), ("a\r\nb", 443), ("bücher.example", 443), ("a\0", 443), (b"a", 443), (None, 443),
        ("a", 0), ("a", -1), ("a", 65536), ("a", "443"), ("a", True), ("a", 1.5), ("a", None),
    ],
)  # fmt: skip
def test_targets_that_there_cannot_be(proxy: str, host: Any, port: Any) -> None:
    assert "of a tunnel must be" in refused(tunnel, host, port, Proxy.parse(proxy))
    assert tunnel("a", 1, Proxy.parse(proxy))
    assert tunnel("a", 65535, Proxy.parse(proxy))
