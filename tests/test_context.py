"""What is cut out of a peer's words: secrets in the forms in which they are written, and parts of long ones."""

from __future__ import annotations

import html
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawire.protocol import Context, Endpoint, HTTPRequest, Proxy
from deltawire.protocol.reserved import Reserved
from deltawire.protocol.urls import parse_url

ODD = "pa ss/w:ö\"rd'&<😀>"
LONG = "sk-proj-" + "0123456789abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    "written",
    [
        ODD,
        json.dumps(ODD)[1:-1],
        json.dumps(ODD, ensure_ascii=False)[1:-1],
        json.dumps(ODD)[1:-1].replace("/", r"\/"),
        json.dumps(ODD, ensure_ascii=False)[1:-1].replace("/", r"\/"),
        quote(ODD),
        quote(ODD, safe=""),
        html.escape(ODD),
        html.escape(ODD, quote=False),
        html.escape(ODD).replace("&#x27;", "&#039;"),
        html.escape(ODD, quote=False).replace('"', "&quot;"),
    ],
)
def test_forms(written: str) -> None:
    assert Context(secrets=(ODD,)).redact(f"a {written} b") == "a *** b"
    assert Context(secrets=(ODD,)).excerpt(f"{'x' * 480}{written}{'y' * 100}").startswith("x" * 480 + "***yyy")


def test_a_plain_secret_has_one_form() -> None:
    context = Context(secrets=("abc-DEF_1.2~3",))
    assert context.redact("abc-DEF_1.2~3abc-DEF") == "***abc-DEF"


def test_a_lone_surrogate() -> None:
    assert Context(secrets=("a\ud800b c",)).redact("a\ud800b c") == "***"
    assert Context(secrets=("a\ud800b c",)).window(10) > 10


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"bad key {LONG[:20]}...", "bad key ***..."),
        (f"bad key ...{LONG[-18:]}", "bad key ...***"),
        (f"{LONG[:22]}\n{LONG[22:]}", "***\n***"),
        (f"{LONG[:17]} {LONG[:40]}! {LONG}", "*** ***! ***"),
        # These say nothing of it.
        (f"keys begin with {LONG[:8]}", f"keys begin with {LONG[:8]}"),
        (f"{LONG[:15]} {LONG[-15:]}", f"{LONG[:15]} {LONG[-15:]}"),
    ],
)
def test_parts_of_a_long_one(said: str, shown: str) -> None:
    assert Context(secrets=(LONG,)).redact(said) == shown


def test_parts_of_a_short_one_stay() -> None:
    # A word of a password is a word.
    assert Context(secrets=("correct-horse-battery-staple",)).redact("correct-horse-ba") == "correct-horse-ba"


@given(st.text("ab", min_size=32, max_size=40), st.text("ab ", max_size=200))
def test_no_text_takes_for_ever_or_keeps_a_part(secret: str, text: str) -> None:
    shown = Context(secrets=(secret,)).redact(text + secret[:20] + text)
    assert secret[:16] not in shown
    assert secret[-16:] not in shown


def test_what_a_request_holds() -> None:
    fields = (
        (b"host", b"h"),
        (b"authorization", b"Basic bWU6cGEgc3M6dy3DpA=="),
        (b"cookie", b'theme=dark; session="abcdefgh12"; x'),
        (b"x-vendor-token", "wörtlich".encode()),
        (b"x-author", b"is one of these, too"),
        (b"openai-organization", b"org-not-secret"),
        (b"x-own", b"0123456789"),
        (b"x-empty-key", b""),
    )
    request = HTTPRequest("POST", "http://h/v1", fields, hidden=frozenset({b"x-own"}), private=("a-session",))
    assert set(request.secrets) == {
        "bWU6cGEgc3M6dy3DpA==", "pa ss:w-ä", 'theme=dark; session="abcdefgh12"; x', "dark", "abcdefgh12", "wörtlich",
        "wÃ¶rtlich", "is one of these, too", "0123456789", "a-session",
    }  # fmt: skip
    assert request.has_credentials
    assert "org-not-secret" in repr(request)
    assert not any(secret in repr(request) for secret in ("bWU6", "abcdefgh12", "rtlich", "0123", "a-session"))
    # Short ones are parts of many words.
    assert "dark" not in Context.of(request).secrets


@pytest.mark.parametrize("value", [b"Basic !", b"Basic /////w==", b"Basic", b"abcdefgh"])
def test_an_authorization_that_is_none(value: bytes) -> None:
    request = HTTPRequest("POST", "http://h/v1", ((b"authorization", value),))
    assert request.secrets in ((value.decode(),), (value.partition(b" ")[2].decode(),))


def test_who_has_no_credentials() -> None:
    """A field with a word of secrets in its name is hidden; but without a key a 401 still says that there is none."""
    request = Endpoint.at("http://h", default_headers={"Idempotency-Key": "0123456789"}).models()
    assert not request.has_credentials
    context = Context.of(request)
    assert (context.key_given, context.secrets) == (False, ("0123456789",))


def test_what_a_proxy_holds() -> None:
    """The machines that speak to proxies look for its password in all forms, too."""
    proxy = Proxy("http", "p", 1, "me", ODD)
    assert Context(secrets=proxy.secrets).redact(f"{quote(ODD)} {html.escape(ODD)}") == "*** ***"


def test_what_is_reserved() -> None:
    class Held(Reserved, frozen=True):
        secret: str

        def __repr__(self) -> str:
            return "<Held>"

    assert Held("x").__rich_repr__() == [("shown", "<Held>")]


def test_what_a_url_shows() -> None:
    url = parse_url("http://h:1/v1?key=0123456789&flag")
    assert repr(url) == "URL('http://h:1/v1?key=***&***')"
    assert str(url) == "http://h:1/v1?key=0123456789&flag"
