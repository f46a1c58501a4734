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
    join_url,
    parse_url,
    same_origin_target,
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
        "http://s ", "http://a..b\x00/", "http://é\ud800/", "http://s,t/", "http://s*/",
    ],
)  # fmt: skip
def test_what_is_no_url(url: str) -> None:
    assert "base_url" in refused(parse_url, url)
    assert "base_url" in refused(Endpoint.at, url)
    assert "Location" in refused(parse_url, url, "Location")


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
