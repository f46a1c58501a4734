"""context.py: where an error happened; and secrets, which are cut out of whatever a peer says."""

from __future__ import annotations

import functools
import html
import json
from typing import Any
from urllib.parse import quote

import pytest
from feeding import JSON, QUICK, read
from hostile import assert_linear
from hypothesis import given
from hypothesis import strategies as st

from deltawire.protocol import Context, HTTPRequest, Proxy

KEY = "sk-live-0123456789abcdef"


def test_redact() -> None:
    context = Context(secrets=(KEY, "", "p4ss"))
    assert context.redact(f"a {KEY} b p4ss {KEY}") == "a *** b *** ***"
    assert context.redact("nothing") == "nothing"
    assert context.redacted({KEY: [f"x{KEY}", 1, None, {"a": KEY}]}) == {"***": ["x***", 1, None, {"a": "***"}]}
    assert Context().redact("") == ""


def test_excerpts() -> None:
    context = Context(secrets=("correct-horse",))
    assert context.excerpt("it is correct-horse") == "it is ***"
    assert context.excerpt("it is corr", cut=True) == "it is ..."
    assert context.excerpt("it is corr") == "it is corr"
    assert context.excerpt(b"abc", 2) == "ab..."


def test_one_secret_inside_another() -> None:
    # The longer one goes first, or its rest stays.
    for secrets in (("abc", "abcdef"), ("abcdef", "abc")):
        assert "def" not in Context(secrets=secrets).redact("x abcdef y")


def test_the_context_of_a_request() -> None:
    fields = ((b"host", b"s"), (b"authorization", b"Bearer " + KEY.encode()), (b"x-a", b"no secret at all"))
    request = HTTPRequest("POST", "http://s/v1?k=secret%2Bin-query&api-version=2024-01-01", fields)
    proxy = Proxy.parse("http://me:p4ss@p:3128")
    context = Context.of(request, provider="P", proxy=proxy, key="sk-another-key", key_name="MY_KEY")
    assert context.where() == " (P, http://s/v1, via proxy http://p:3128)"
    assert (context.key_given, context.key_name) == (True, "MY_KEY")
    wanted = {KEY, "sk-another-key", "secret%2Bin-query", "secret+in-query", "p4ss", "bWU6cDRzcw=="}
    assert set(context.secrets) == wanted
    direct = Context.of(request)
    assert (direct.provider, direct.proxy, direct.key_given, direct.key_name) == ("", "", True, "OPENAI_API_KEY")
    assert set(direct.secrets) == {KEY, "secret%2Bin-query", "secret+in-query"}


@pytest.mark.parametrize("key", [None, "", "x", "1234567"])
def test_a_short_key_is_no_secret(key: str | None) -> None:
    """It is a part of many words; but it is a key."""
    context = Context.of(HTTPRequest("POST", "http://s/v1", ()), key=key)
    assert context.secrets == ()
    assert context.key_given is bool(key)
    of_eight = Context.of(HTTPRequest("POST", "http://s/v1", ((b"x-own", b"12345678"),), hidden=frozenset({b"x-own"})))
    assert (of_eight.secrets, of_eight.key_given) == (("12345678",), True)


def test_where() -> None:
    assert Context().where() == ""
    assert Context(provider="P", url="u").where() == " (P, u)"
    assert Context(url="u", proxy="http://p").where("request id 5", "") == " (u, via proxy http://p, request id 5)"


def test_a_key_that_is_echoed_as_json_with_escapes() -> None:
    key = "sk-ünïcode/" + "x" * 20
    body = b'{"error": {"message": "bad \\u0073k-\\u00fcn\\u00efcode\\/' + b"x" * 20 + b'"}}'
    (event,) = read(body, status=401, headers=JSON, context=Context(secrets=(key,)))
    error: Any = event.error  # type: ignore[union-attr]
    assert "x" * 20 not in str(error) + repr(error) + repr(error.body)
    assert "***" in str(error)


# --- Secrets ---------------------------------------------------------------------------------------


def test_the_beginning_of_a_secret_at_the_end_of_a_text_that_is_cut() -> None:
    """Four letters are enough to be cut out: fewer say little, and stand at the end of many words."""
    secret = "abcdefgh"
    context = Context(secrets=(secret,))
    for length in range(len(secret) + 1):
        text = "x " + secret[:length]
        assert context.redact(text, cut=True) == ("x ***" if length == 8 else text[:2] if length >= 4 else text)
        assert context.redact(text) == ("x ***" if length == 8 else text)
    assert context.redact("x abcdefg y", cut=True) == "x abcdefg y", "at its end only"
    # The longest one, of several that it may be.
    assert Context(secrets=("aaaaaaaa",)).redact("x aaaaaaa", cut=True) == "x "


def test_an_excerpt_is_redacted_before_it_is_cut() -> None:
    context = Context(secrets=("0123456789",))
    assert context.window(5) == 15
    # Wherever the cut would go through it.
    for before in range(12):
        text = "x" * before + "0123456789" + "y" * 20
        assert context.excerpt(text, 10) == ("x" * before + "***" + "y" * 20)[:10] + "..."
    assert Context(secrets=("é" * 10, "x")).window(5) == 65, "its longest form: six bytes a letter in a URL"
    assert Context().window(7) == 7


def test_the_length_of_an_excerpt() -> None:
    context = Context()
    assert context.excerpt("x" * 500) == "x" * 500
    assert context.excerpt("x" * 501) == "x" * 500 + "..."
    assert context.excerpt("abc", 3) == "abc"
    assert context.excerpt("abcd", 3) == "abc..."
    assert context.excerpt("abcd", 3, more="") == "abc"
    assert context.excerpt("abc", 3, cut=True) == "abc..."
    assert context.excerpt("abc", 3, cut=True, more="!") == "abc!"
    # Something is left out in any case.
    assert context.excerpt("ab  ", 3) == "ab..."
    assert context.excerpt(" \n a b\t", 10) == "a b"
    assert context.excerpt(b"\xc3\xa9\xff", 5) == "é\ufffd"


def test_what_holds_several_secrets_shows_none() -> None:
    context = Context(secrets=("abcdefgh", "efghijkl", "abcd"))
    assert context.redact("abcdefghijkl") == "***ijkl"
    assert context.redact("xabcdx") == "x***x"
    assert context.excerpt("abcdefgh" * 100, 8) == "******..."


@QUICK
@given(st.text("ab", min_size=8, max_size=12), st.text("abc", max_size=40), st.integers(1, 40), st.booleans())
def test_no_excerpt_shows_a_secret_whatever_is_cut(secret: str, text: str, length: int, in_bytes: bool) -> None:
    context = Context(secrets=(secret,))
    shown = context.excerpt(text.encode() if in_bytes else text, length)
    assert secret not in shown
    assert len(shown) <= length + 3
    assert secret not in context.redact(text)
    found = context.redact(text + secret[:-1], cut=True)
    assert not found.endswith(secret[:-1])


def test_every_string_of_a_document_is_redacted() -> None:
    context = Context(secrets=(KEY,))
    document: Any = {"a": KEY, KEY: [KEY, [f"-{KEY}-"]], "n": [1, 1.5, True, None]}
    assert context.redacted(document) == {"a": "***", "***": ["***", ["-***-"]], "n": [1, 1.5, True, None]}
    assert document["a"] == KEY, "in a copy"


def test_no_repr_shows_a_secret() -> None:
    context = Context(provider="P", url="http://s", proxy="http://p", secrets=(KEY,))
    assert repr(context) == "Context(provider='P', url='http://s', proxy='http://p')"


# --- Of a request ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "secrets"), [("1234567", ()), ("12345678", ("12345678",))])
def test_eight_letters_are_a_secret(key: str, secrets: tuple[str, ...]) -> None:
    assert Context.of(HTTPRequest("POST", "http://s/v1", ()), key=key).secrets == secrets
    assert Context.of(HTTPRequest("POST", f"http://s/v1?k={key}", ())).secrets == secrets
    # Of a proxy all are: there is no proxy of one's own that takes any password.
    through = Context.of(HTTPRequest("POST", "http://s", ()), proxy=Proxy.parse("http://u:pw@p"))
    assert "pw" in through.secrets


def test_a_key_in_the_query_is_a_secret_and_no_key() -> None:
    """It may be a version, too: who sends no other is told that he sent none."""
    context = Context.of(HTTPRequest("POST", "http://s/v1?k=something-long#x", ()))
    assert (context.url, context.key_given) == ("http://s/v1", False)
    assert context.secrets == ("something-long#x",)


def test_the_defaults() -> None:
    context = Context()
    assert (context.provider, context.url, context.proxy, context.key_given) == ("", "", "", True)
    assert (context.key_name, context.secrets) == ("OPENAI_API_KEY", ())
    assert Context.of(HTTPRequest("GET", "http://s", ()), key_name="").key_name == ""


# --- The forms of secrets -----------------------------------------------------------------------------

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
        (f"bad key ...{LONG[9:25]}... {LONG[20:40]}", "bad key ...***... ***"),
        (f"{LONG[9:24]} {LONG[13:28]}", f"{LONG[9:24]} {LONG[13:28]}"),
        (f"{LONG[:17]} {LONG[:40]}! {LONG}", "*** ***! ***"),
        # These say nothing of it.
        (f"keys begin with {LONG[:8]}", f"keys begin with {LONG[:8]}"),
        (f"{LONG[:15]} {LONG[-15:]}", f"{LONG[:15]} {LONG[-15:]}"),
    ],
)
def test_parts_of_a_long_one(said: str, shown: str) -> None:
    assert Context(secrets=(LONG,)).redact(said) == shown


def test_no_part_stays_wherever_it_is_from() -> None:
    context = Context(secrets=(LONG,))
    for start in range(len(LONG)):
        for end in range(start + 1, len(LONG) + 1):
            part = LONG[start:end]
            assert context.redact(f"x {part}.{part} y") == ("x ***.*** y" if len(part) >= 16 else f"x {part}.{part} y")


def test_parts_without_number_cost_in_proportion_to_their_length() -> None:
    context = Context(secrets=(LONG,))
    for part in (LONG[:16], LONG[-16:], LONG[10:17]):
        assert_linear(lambda n, part=part: functools.partial(context.redact, (part + "!") * n), 100)  # type: ignore[misc]
    many = 50_000
    assert context.redact((LONG[:16] + "!") * many) == "***!" * many


def test_parts_of_a_short_one_stay() -> None:
    # A word of a password is a word.
    assert Context(secrets=("correct-horse-battery-staple",)).redact("correct-horse-ba") == "correct-horse-ba"


@given(st.text("ab", min_size=32, max_size=40), st.text("ab ", max_size=200))
def test_no_text_takes_for_ever_or_keeps_a_part(secret: str, text: str) -> None:
    shown = Context(secrets=(secret,)).redact(text + secret[:20] + text)
    assert secret[:16] not in shown
    assert secret[-16:] not in shown


def test_what_a_proxy_holds() -> None:
    """The machines that speak to proxies look for its password in all forms, too."""
    proxy = Proxy("http", "p", 1, "me", ODD)
    assert Context(secrets=proxy.secrets).redact(f"{quote(ODD)} {html.escape(ODD)}") == "*** ***"
