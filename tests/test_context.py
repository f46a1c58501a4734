"""context.py: where an error happened; and secrets, which are cut out of whatever a peer says."""

from __future__ import annotations

from typing import Any

import pytest
from feeding import JSON, read

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
