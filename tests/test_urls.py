"""urls.py: URLs taken apart (RFC 3986), joined, shown, and refused before they get into a request line."""

from __future__ import annotations

from typing import Any

import pytest
from feeding import QUICK
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from deltawire.protocol import ConfigurationError, Endpoint
from deltawire.protocol.urls import (
    URL,
    authority,
    join_url,
    parse_url,
    query_values,
    same_origin_target,
    shown_url,
    split_url,
)


@pytest.mark.parametrize(
    ("base", "joined"),
    [
        ("https://s/v1", "https://s/v1/chat/completions"),
        ("https://s/v1/", "https://s/v1/chat/completions"),
        ("https://s/v1//", "https://s/v1/chat/completions"),
        ("https://s", "https://s/chat/completions"),
        ("https://s/", "https://s/chat/completions"),
        ("HTTPS://S.Example:443/V1", "https://s.example/V1/chat/completions"),
        ("http://s:80/v1", "http://s/v1/chat/completions"),
        ("http://s:443/v1", "http://s:443/v1/chat/completions"),
        ("https://s/v1/chat/completions", "https://s/v1/chat/completions"),
        ("https://s/v1/chat/completions/", "https://s/v1/chat/completions"),
        ("https://s/v1?api-version=5", "https://s/v1/chat/completions?api-version=5"),
        ("https://s/v1/?a=1&b=2", "https://s/v1/chat/completions?a=1&b=2"),
        ("https://s/v1/chat/completions?a=1", "https://s/v1/chat/completions?a=1"),
        ("https://s/v1?", "https://s/v1/chat/completions"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1/chat/completions"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/chat/completions"),
        ("http://bücher.example/ä", "http://xn--bcher-kva.example/%C3%A4/chat/completions"),
        ("https://s/a%20b", "https://s/a%20b/chat/completions"),
        ("https://s/v1#frag", "https://s/v1/chat/completions"),
    ],
)
def test_joining(base: str, joined: str) -> None:
    assert join_url(base, "/chat/completions") == joined
    assert join_url(joined, "/chat/completions") == joined


@pytest.mark.parametrize(
    ("base", "query", "joined"),
    [
        ("https://s/v1", {"a": 1}, "https://s/v1/x?a=1"),
        ("https://s/v1?a=0&b=2", {"a": 1}, "https://s/v1/x?b=2&a=1"),
        ("https://s/v1?b=2", {"a": None}, "https://s/v1/x?b=2"),
        ("https://s/v1", {"a": None}, "https://s/v1/x"),
        ("https://s/v1", {"a": [1, 2], "b": "x y&z=\n"}, "https://s/v1/x?a=1&a=2&b=x+y%26z%3D%0A"),
        ("https://s/v1", {}, "https://s/v1/x"),
        ("https://s/v1", {"é": "ü"}, "https://s/v1/x?%C3%A9=%C3%BC"),
    ],
)
def test_queries(base: str, query: dict[str, Any], joined: str) -> None:
    assert join_url(base, "/x", query) == joined


@pytest.mark.parametrize(
    "url",
    [
        "", "s/v1", "//s/v1", "ftp://s", "file:///etc/passwd", "https://", "https:///v1", "https://:80/", "http://s:x/",
        "http://s:99999/", "http://s:-1/", "http://s/a b", "http://s/\n", "http://s\r\nx/", "http://s/\t", "http://\0/",
        'http://s/"', "http://s/<x>", "http://s\\x/", "http://[::1/", "http://[zz]/", "http://s/\u2028", " http://s",
        "http://[::1].h/", "http://[::1]*:80/", "http://h[::1]/", "http://s/\ud800",
        "http://[::%00[::1]/", "http://[fe80::1%a@b]/", "http://[fe80::1%25a:b]/", "http://[fe80::1%é]/",
        "http://s ", "http://a..b\x00/", "http://é\ud800/", "http://s,t/", "http://s*/",
    ],
)  # fmt: skip
def test_what_is_no_url(url: str) -> None:
    assert "base_url" in refused(parse_url, url)
    assert "base_url" in refused(Endpoint.at, url)
    assert "Location" in refused(parse_url, url, "Location")


@pytest.mark.parametrize("query", [{"a": "\ud800"}, {"\udc80": 1}, {"a": ["b", "\ud800"]}])
def test_a_query_that_utf8_can_not_say(query: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="surrogate") as caught:
        join_url("http://s/v1", "/x", query)
    # It would hold the text, which may be a key.
    assert caught.value.__context__ is None


@pytest.mark.parametrize("url", [None, 5, b"http://s", ["http://s"]])
def test_urls_of_another_type(url: Any) -> None:
    if not isinstance(url, list):  # lists do not even hash
        assert "str" in refused(parse_url, url)


def test_a_missing_scheme_is_suggested() -> None:
    assert "did you mean 'http://localhost:8000/v1'?" in refused(parse_url, "localhost:8000/v1")


SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{SECRET}@host/v1",
        f"https://{SECRET}@host/v1",
        f"user:{SECRET}@host/v1",
        f"ftp://user:{SECRET}@host/v1",
        f"https://user:{SECRET}@/v1",
        f"https://user:{SECRET}@host:99999/v1",
        f"https://user:{SECRET}@host:x/v1",
        f"https://user:{SECRET}@[::1/v1",
        f"https://user:{SECRET}\n@host/v1",
        f"https://user:{SECRET}@ho st/v1",
        f"https://user:{SECRET}/x@host/v1",
        f"https://user:{SECRET}?x@host/v1",
        f"https://user:{SECRET}#x@host/v1",
        f"https://user:{SECRET}@host]/v1",
        f"https://us[er:{SECRET}@host/v1",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    for work in (parse_url, Endpoint.at):
        assert SECRET not in refused(work, url)


@pytest.mark.parametrize("url", ["http://s:0/", "https://s:0/v1"])
def test_port_0_is_none(url: str) -> None:
    # Never another port than the one that was written.
    try:
        assert parse_url(url).port == 0
    except ConfigurationError:
        pass


@pytest.mark.parametrize(
    ("url", "parts", "authority"),
    [
        ("http://S/", URL("http", "s", 80, "/"), "s"),
        ("https://s", URL("https", "s", 443, "/"), "s"),
        ("https://s:8443/a?b#c", URL("https", "s", 8443, "/a?b"), "s:8443"),
        ("http://[2001:DB8::1]/", URL("http", "2001:db8::1", 80, "/"), "[2001:db8::1]"),
        ("http://[::1]:81/", URL("http", "::1", 81, "/"), "[::1]:81"),
    ],
)
def test_the_parts_of_a_url(url: str, parts: URL, authority: str) -> None:
    found = parse_url(url)
    assert found == parts
    assert found.authority == authority
    assert found.origin == (parts.scheme, parts.host, parts.port)
    assert parse_url(str(found)) == found


@QUICK
@given(st.text(max_size=30))
def test_no_url_can_break_the_request_line(text: str) -> None:
    for url in (text, f"http://{text}", f"http://s/{text}", f"http://s/?{text}"):
        try:
            parts = parse_url(url)
        except ConfigurationError:
            continue
        line = f"{parts.target} {parts.authority}"
        assert line.isascii()
        assert line.isprintable()
        assert line.count(" ") == 1
        assert parts.target.startswith("/")
        assert join_url(url, "/x").isascii()


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://s/v2", "https://s/v2"),
        ("https://S:443/v2#f", "https://s/v2"),
        ("/v2", "https://s/v2"),
        ("v2?x=1", "https://s/v1/v2?x=1"),
        ("//s/v2", "https://s/v2"),
        ("http://s/v2", None),
        ("https://s:8443/v2", None),
        ("https://evil/v2", None),
        ("//evil/v2", None),
        ("https://s.evil/v2", None),
        ("https://s@evil/v2", None),
        ("https://user:pw@s/v2", None),
        ("https://s/\r\nx", "https://s/x"),
        ("https://[", None),
        ("javascript:alert(1)", None),
        ("https://s\\@evil/", None),
    ],
)
def test_where_a_redirect_leads(location: str, target: str | None) -> None:
    found = same_origin_target("https://s/v1/chat", location)
    assert (found and str(parse_url(found))) == target


def test_an_empty_location() -> None:
    assert same_origin_target("https://s/v1", "") == "https://s/v1"


# --- The words of a refusal ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (5, "base_url must be a str, not int"),
        ("http://u:pw/x@s", "base_url holds credentials: pass api_key=, or default_headers=, instead"),
        ("http://s/ ", "base_url holds a character that no URL may hold (a blank, a control, a quote)"),
        ("ftp://s", "base_url must begin with http:// or https://"),
        ("http:/s", "base_url must begin with http:// or https:// (did you mean 'http://http:/s'?)"),
        ("s" * 200, f"base_url must begin with http:// or https:// (did you mean 'http://{'s' * 200}'?)"),
        ("s" * 201, "base_url must begin with http:// or https://"),
        ("u@s", "base_url must begin with http:// or https://"),
        ("http://s:x", "base_url is no valid URL: check its host, and that its port is a number"),
        ("http://s:65536", "base_url is no valid URL: check its host, and that its port is a number"),
        ("http://u@s", "base_url holds credentials: pass api_key=, or default_headers={'Authorization': ...}, instead"),
        ("http://[v1.a]/", "base_url has no valid IPv6 address between its brackets, or something beside them"),
        ("http://", "base_url has no valid host"),
        ("http://é" + "x" * 70, "the host in base_url is no valid international name"),
        ("http://s*", "base_url has no valid host"),
    ],
)
def test_the_words(url: Any, words: str) -> None:
    assert refused(parse_url, url) == words


@pytest.mark.parametrize(
    "number", [*range(0x21), 0x22, 0x3C, 0x3E, 0x5C, 0x5E, 0x60, *range(0x7B, 0x7E), *range(0x7F, 0xA0), 0x2028, 0x2029]
)
def test_characters_that_no_url_may_hold(number: int) -> None:
    """RFC 3986 section 2; controls and blanks of Unicode beside."""
    for url in ("http://s/{}", "http://s/?{}", "http://{}s/", "http://s/#{}", "{}http://s/"):
        assert "no URL may hold" in refused(parse_url, url.format(chr(number)))


def test_characters_that_a_url_may_hold() -> None:
    """What RFC 3986 reserves stays; what is no ASCII becomes escapes of UTF-8."""
    path = "/%20:@!$&'()*+,;=~-._[]/é"
    assert (
        parse_url(f"http://s{path}?{path}?").target == "/%20:@!$&'()*+,;=~-._[]/%C3%A9?/%20:@!$&'()*+,;=~-._[]/%C3%A9?"
    )


def test_credentials_are_told_from_ports_and_paths() -> None:
    """An @ in a path is none of theirs."""
    for url in ("http://s/@x", "http://s:80/a@b", "http://s?a=u:p@x", "http://s:8000?x@y"):
        assert parse_url(url).host == "s"
    for url in ("http://u:p/w@s", "http://u:p?w@s", "http://u:p#w@s", "http://:p/@s"):
        assert "credentials" in refused(parse_url, url)


# --- Parts -----------------------------------------------------------------------------------------


def test_the_authority_form() -> None:
    """RFC 9112 section 3.2.3: the port always stands there."""
    assert authority("s", 80) == "s:80"
    assert authority("::1", 443) == "[::1]:443"


def test_the_port_that_a_scheme_implies_is_left_out() -> None:
    assert URL("http", "s", 443, "/").authority == "s:443"
    assert URL("https", "s", 80, "/").authority == "s:80"
    assert URL("https", "::1", 443, "/").authority == "[::1]"
    assert str(URL("https", "::1", 8443, "/a?b")) == "https://[::1]:8443/a?b"
    assert str(URL("http", "s", 80, "/")) == "http://s/"


@pytest.mark.parametrize("netloc", ["s[::1]", "[::1]s", "s[::1]:80", "[::1]s:80", "s.[::1]", "[[::1]]", "[::1][::2]"])
def test_nothing_stands_beside_an_address_in_brackets(netloc: str) -> None:
    """RFC 3986 section 3.2.2: they are the whole host. (urlsplit drops what stands there.)"""
    assert refused(parse_url, f"http://{netloc}/").startswith("base_url ")
    for port, written in ((80, ""), (80, ":"), (8443, ":8443")):
        assert parse_url(f"http://[::1]{written}/") == URL("http", "::1", port, "/")


def test_splitting_says_nothing_of_what_is_wrong() -> None:
    parts = split_url("http://s:1/a?b#c")
    assert parts is not None
    assert (parts.hostname, parts.port, parts.path, parts.query, parts.fragment) == ("s", 1, "/a", "b", "c")
    assert split_url("http://s:pass-word") is split_url("http://[") is split_url("http://s:65536") is None


def test_a_url_is_taken_apart_once() -> None:
    """Requests of one endpoint have one URL."""
    assert parse_url("http://s/once") is parse_url("http://s/once")


# --- Joining ---------------------------------------------------------------------------------------


def test_no_path_leaves_the_base_as_it_is() -> None:
    assert join_url("http://s/v1/", "") == "http://s/v1/"
    assert join_url("http://s/v1/?a=1", "", {"b": 2}) == "http://s/v1/?a=1&b=2"
    assert join_url("http://s?a=1&&b=2", "") == "http://s/?a=1&b=2"


def test_a_query_that_says_nothing_changes_nothing() -> None:
    assert join_url("http://s/v1?a=1", "/x", {"a": None}) == "http://s/v1/x?a=1"
    assert join_url("http://s/v1?a=1&a=2&ab=3&a", "/x", {"a": 4}) == "http://s/v1/x?ab=3&a=4"
    assert join_url("http://s/v1", "/x", {"a": []}) == "http://s/v1/x"


def test_joining_names_what_is_wrong() -> None:
    assert refused(join_url, "s", "/x", None, "api_endpoint").startswith("api_endpoint must")
    assert refused(join_url, "s", "/x").startswith("base_url must")


# --- Queries that may hold keys --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://s/a", "http://s/a"),
        ("http://s/a?", "http://s/a?***"),
        ("http://s/a?k=v", "http://s/a?k=***"),
        ("http://s/a?k=v=w&&x&y=", "http://s/a?k=***&***&***&y=***"),
        ("http://s/a?k=v?w", "http://s/a?k=***"),
    ],
)
def test_a_url_fit_to_be_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    ("url", "values"),
    [
        ("http://s/a", []),
        ("http://s/a?", []),
        ("http://s/a?k=v", ["v"]),
        ("http://s/a?k=v&l=w&m=v", ["v", "w"]),
        ("http://s/a?key", ["key"]),
        ("http://s/a?k=a%2Bb+c", ["a%2Bb+c", "a+b c"]),
        ("http://s/a?k=a=b?c", ["a=b?c"]),
        # Versions, and WordPress' paths, are no keys.
        ("http://s/a?api-version=2024&VERSION=5&version2=6&k=v", ["6", "v"]),
        ("http://s/a?rest_route=/mwai/v1&route=x", ["x"]),
    ],
)
def test_values_that_may_be_keys(url: str, values: list[str]) -> None:
    assert query_values(url) == values


@QUICK
@given(st.dictionaries(st.text(min_size=1), st.text(min_size=8), min_size=1))
def test_no_value_of_a_query_is_shown(query: dict[str, str]) -> None:
    url = join_url("http://s/v1", "/x", query)
    held = query_values(url)
    for name, value in query.items():
        assert value in held or name.lower().endswith("version") or name == "rest_route"
    shown = shown_url(url).partition("?")[2].split("&")
    assert [pair.partition("=")[2] for pair in shown] == ["***"] * len(query)


def test_no_fragment_is_sent() -> None:
    """RFC 9110 section 7.1."""
    assert same_origin_target("https://s/v1", "/v2?a#b") == "https://s/v2?a"
    assert same_origin_target("https://s/v1#c", "v2") == "https://s/v2"


def test_what_a_url_shows() -> None:
    url = parse_url("http://h:1/v1?key=0123456789&flag")
    assert repr(url) == "URL('http://h:1/v1?key=***&***')"
    assert str(url) == "http://h:1/v1?key=0123456789&flag"
