"""endpoint.py: the requests to a server of the OpenAI dialect, and their header fields."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from refusals import refused

from deltawire.protocol import (
    DEFAULT_BASE_URL,
    ChatRequest,
    ConfigurationError,
    Endpoint,
    HTTPRequest,
    ImageRequest,
    Limits,
    MissingAuthError,
    Proxy,
    State,
    StreamFailed,
)
from deltawire.protocol.endpoint import api_headers, base_below, key_header

KEY = "sk-test-0123456789"


def request(base: str = "http://s/v1", key: str | None = KEY, /, **more: Any) -> HTTPRequest:
    return Endpoint.at(base).chat(ChatRequest(messages="hi", model="m", **more), api_key=key)


def test_the_fields_of_an_endpoint() -> None:
    endpoint = Endpoint.at(
        "https://s:8443/v1",
        user_agent="me/1",
        organization="org",
        project="proj",
        default_headers={"X-A": "1", "Accept-Encoding": None, "USER-AGENT": "you/2"},
        default_query={"api-version": "5"},
    )
    fields = dict(endpoint.chat(ChatRequest(messages="x", model="m"), api_key=KEY).headers)
    assert fields[b"host"] == b"s:8443"
    assert fields[b"x-a"] == b"1"
    assert fields[b"user-agent"] == b"you/2"
    assert (fields[b"openai-organization"], fields[b"openai-project"]) == (b"org", b"proj")
    assert b"accept-encoding" not in fields
    assert endpoint.chat_url == "https://s:8443/v1/chat/completions?api-version=5"
    assert endpoint.models_url == "https://s:8443/v1/models?api-version=5"


def test_openai_needs_a_key() -> None:
    with pytest.raises(MissingAuthError, match="OPENAI_API_KEY"):
        request(DEFAULT_BASE_URL, None)
    with pytest.raises(MissingAuthError):
        Endpoint.at("https://API.OpenAI.com/v1").models()
    assert b"authorization" not in dict(request("http://localhost:8000/v1", None).headers)
    for name in ("Authorization", "api-key", "X-Api-Key"):
        endpoint = Endpoint.at(DEFAULT_BASE_URL, default_headers={name: "mine"})
        assert dict(endpoint.chat(ChatRequest(messages="x", model="m")).headers)[name.lower().encode()] == b"mine"


def test_a_key_of_the_call_replaces_the_default_field() -> None:
    endpoint = Endpoint.at("http://s", default_headers={"Authorization": "Basic old"})
    fields = endpoint.chat(ChatRequest(messages="x", model="m"), api_key=KEY).headers
    assert [value for name, value in fields if name == b"authorization"] == [f"Bearer {KEY}".encode()]


@pytest.mark.parametrize("key", [5, b"sk-bytes", ["sk"], lambda: "sk"])
def test_keys_of_another_type(key: Any) -> None:
    words = refused(request, "http://s/v1", key)
    assert "api_key" in words
    assert "sk-bytes" not in words


def test_no_endpoint_shows_a_key() -> None:
    assert KEY not in repr(Endpoint.at("http://s", default_headers={"Authorization": f"Bearer {KEY}"}))


@pytest.mark.parametrize("stream", [None, False, True])
def test_prepared(stream: bool | None) -> None:
    endpoint = Endpoint.at("http://s/v1", key_names="MINE_KEY")
    chat = ChatRequest(messages="hi", model="m", stream=stream, extra_query={"k": "secret-in-query"})
    limits = Limits(head=100)
    proxy = Proxy.parse("http://me:pass-word@p:3128")
    sent, reply = endpoint.prepare(chat, api_key=KEY, proxy=proxy, limits=limits)
    assert sent == endpoint.chat(chat, api_key=KEY)
    assert (reply.dialect, reply.stream, reply.limits, reply.state) == ("openai", bool(stream), limits, State.IDLE)
    context = reply.context
    assert (context.url, context.proxy) == ("http://s/v1/chat/completions", "http://p:3128")
    assert (context.key_given, context.key_name) == (True, "MINE_KEY")
    assert {KEY, "secret-in-query", "pass-word"} <= set(context.secrets)


def test_prepared_without_more() -> None:
    sent, reply = Endpoint.at("http://s/v1").prepare(ChatRequest(messages="hi", model="m"))
    assert sent == request("http://s/v1", None)
    assert reply.limits == Limits()
    assert (reply.context.proxy, reply.context.key_given, reply.context.secrets) == ("", False, ())
    (event,) = [*reply.start(401, []), *reply.end()]
    assert isinstance(event, StreamFailed)
    assert isinstance(event.error, MissingAuthError)


def test_a_slash_at_the_end_of_a_path_stays_with_a_query() -> None:
    chat = ChatRequest(messages="hi", model="m", extra_query={"a": 1})
    for endpoint in (
        Endpoint.at("http://s/v1", chat_path="/chat/"),
        Endpoint.at("http://s/v1", chat_url="http://s/v1/chat/"),
    ):
        assert endpoint.chat_url == "http://s/v1/chat/"
        assert endpoint.chat(chat).url == "http://s/v1/chat/?a=1"
    assert Endpoint.at("http://s", chat_url="http://s").chat(chat).url == "http://s/?a=1"


def test_prepared_with_fields_of_ones_own() -> None:
    endpoint = Endpoint.at(DEFAULT_BASE_URL)
    chat = ChatRequest(messages="hi", model="m")
    sent, reply = endpoint.prepare(chat, headers={"Authorization": "Bearer sk-of-my-own"})
    assert sent == endpoint.chat(chat, headers={"Authorization": "Bearer sk-of-my-own"})
    assert (reply.context.key_given, reply.context.secrets) == (True, ("sk-of-my-own",))
    with pytest.raises(MissingAuthError):
        endpoint.prepare(chat)


def test_the_query_of_a_call_goes_with_that_of_the_endpoint() -> None:
    endpoint = Endpoint.at("https://s/v1?k=0", default_query={"a": 1, "b": 2})
    sent = endpoint.chat(ChatRequest(messages="x", model="m", extra_query={"b": 3, "c": 4}))
    assert sent.url == "https://s/v1/chat/completions?k=0&a=1&b=3&c=4"
    assert sent.parts.target == "/v1/chat/completions?k=0&a=1&b=3&c=4"
    assert endpoint.models().url == "https://s/v1/models?k=0&a=1&b=2"


def images(base: str = "http://s/v1", /, **more: Any) -> HTTPRequest:
    return Endpoint.at(base).images(ImageRequest(prompt="a cat", **more), api_key=KEY)


def test_the_request_for_images() -> None:
    made = images(model="m", extra_headers={"X-Own": "1", "User-Agent": None})
    assert (made.method, made.url) == ("POST", "http://s/v1/images/generations")
    assert made.body == b'{"prompt":"a cat","model":"m"}'
    fields = dict(made.headers)
    assert fields[b"authorization"] == b"Bearer " + KEY.encode()
    assert fields[b"accept"] == fields[b"content-type"] == b"application/json"
    assert fields[b"content-length"] == b"%d" % len(made.body)
    assert fields[b"x-own"] == b"1"
    assert b"user-agent" not in fields
    with pytest.raises(MissingAuthError):
        Endpoint.at(DEFAULT_BASE_URL).images(ImageRequest(prompt="a cat"))


@pytest.mark.parametrize(
    "base",
    ["http://s/v1?x=1", "http://s/v1/?x=1", "http://s/v1/chat/completions?x=1", "http://s/v1/chat/completions/?x=1"],
)
def test_the_url_for_images(base: str) -> None:
    assert images(base).url == "http://s/v1/images/generations?x=1"
    assert images(base, extra_query={"y": 2}).url == "http://s/v1/images/generations?x=1&y=2"


@pytest.mark.parametrize(
    "base", ["https://s/v1", "https://s/v1/", "https://s/v1/chat/completions", "https://s/v1/chat/completions/"]
)
def test_the_url_of_the_models(base: str) -> None:
    sent = Endpoint.at(base).models(api_key=KEY, extra_headers={"x-a": "1"})
    assert (sent.method, sent.url, sent.body) == ("GET", "https://s/v1/models", b"")
    fields = dict(sent.headers)
    assert fields[b"x-a"] == b"1"
    assert fields[b"authorization"] == f"Bearer {KEY}".encode()
    assert b"content-length" not in fields


# --- Whose key, and in which field -----------------------------------------------------------------

CHAT = ChatRequest(messages="hi", model="m")


def test_a_key_in_a_field_of_its_own() -> None:
    """As Azure's api-key: as it is, and never shown."""
    endpoint = Endpoint.at("http://s/v1", key_field="Api-Key", default_headers={"API-KEY": "old"})
    for sent in (endpoint.chat(CHAT, api_key=KEY), endpoint.models(api_key=KEY)):
        assert [value for name, value in sent.headers if name == b"api-key"] == [KEY.encode()]
        assert b"authorization" not in dict(sent.headers)
        assert sent.hidden == {b"api-key"}
    own = Endpoint.at("http://s/v1", key_field="X-Own").chat(CHAT, api_key=KEY)
    assert KEY not in repr(own)
    assert repr(Endpoint.at("http://s/v1")) == "Endpoint('http://s/v1/chat/completions')"
    assert Endpoint.at("http://s/v1").key_names == "OPENAI_API_KEY"
    assert own.secrets == (KEY,)
    assert Endpoint.at("http://s/v1").chat(CHAT, api_key=KEY).hidden == frozenset()


def test_who_is_asked_for_a_key() -> None:
    for needs_key, base in ((None, DEFAULT_BASE_URL), (True, "http://s/v1")):
        endpoint = Endpoint.at(base, needs_key=needs_key, key_names="A_KEY or B_KEY")
        asked: list[tuple[Any, ...]] = [
            (endpoint.chat, CHAT),
            (functools.partial(endpoint.chat, api_key="", headers={}), CHAT),
            (functools.partial(endpoint.models, headers={"X-A": "1"}),),
            (endpoint.images, ImageRequest(prompt="x")),
        ]
        for work, *arguments in asked:
            with pytest.raises(MissingAuthError, match=r"pass api_key=, or set A_KEY or B_KEY$") as caught:
                work(*arguments)
            assert caught.value.status_code == 401
        assert endpoint.chat(CHAT, api_key=KEY)
        assert endpoint.chat(CHAT, headers={"AUTHORIZATION": "x"}), "a key of the request's own"
    assert not Endpoint.at(DEFAULT_BASE_URL, needs_key=False).needs_key
    assert not Endpoint.at("http://s/v1", needs_key=True, default_headers={"X-API-Key": KEY}).needs_key
    assert Endpoint.at("http://s/v1", needs_key=True, default_headers={"X-Other": KEY}).needs_key
    assert not Endpoint.at("https://api.openai.com.evil/v1").needs_key
    # It is the URL that requests go to which counts.
    assert Endpoint.at("http://s/v1", chat_url="https://api.openai.com/v1/chat/completions").needs_key
    assert not Endpoint.at(DEFAULT_BASE_URL, chat_url="http://s/v1/chat/completions").needs_key


def test_a_field_of_its_own_is_the_one_that_must_be_there() -> None:
    endpoint = Endpoint.at("http://s/v1", needs_key=True, key_field="X-Own")
    with pytest.raises(MissingAuthError):
        endpoint.chat(CHAT, headers={"Authorization": "x"})
    assert dict(endpoint.chat(CHAT, headers={"x-OWN": "k"}).headers)[b"x-own"] == b"k"


def test_the_header_field_of_a_key() -> None:
    assert key_header(KEY) == key_header(KEY, "Authorization") == ("authorization", f"Bearer {KEY}")
    assert key_header(KEY, "X-Key") == ("x-key", KEY)
    words = refused(key_header, b"sk-bytes")
    assert words == "api_key must be a str or a callable that gives one, not bytes"


# --- The header fields that are a request's own ----------------------------------------------------


def test_the_fields_of_a_request_of_ones_own() -> None:
    assert api_headers(True) == {"Accept": "text/event-stream", "Content-Type": "application/json"}
    assert api_headers(False, KEY) == {
        "Accept": "application/json",
        "Content-Type": "application/json",
        "Authorization": f"Bearer {KEY}",
    }
    assert api_headers(False, KEY, key_field="X-Key")["x-key"] == KEY
    assert api_headers(True, "", {}) == api_headers(True, None, None)


def test_given_fields_win_whatever_the_case_of_their_names() -> None:
    made = api_headers(
        True, KEY, {"ACCEPT": "a", "content-type": None, "authorization": "mine", "X-A": "1", "X-B": None}
    )
    assert made == {"ACCEPT": "a", "authorization": "mine", "X-A": "1"}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("key", [None, KEY])
def test_made_by_hand_they_are_those_of_the_endpoint(stream: bool, key: str | None) -> None:
    endpoint = Endpoint.at("http://s/v1", default_headers={"X-A": "1"})
    chat = ChatRequest(messages="hi", model="m", stream=stream)
    assert dict(endpoint.chat(chat, headers=api_headers(stream, key)).headers) == dict(
        endpoint.chat(chat, api_key=key).headers
    )


def test_a_request_without_a_body_has_no_type() -> None:
    for fields in ({"Content-Type": "a"}, {"CONTENT-TYPE": "a", "X-A": "1"}):
        sent = Endpoint.at("http://s/v1").models(headers=fields)
        assert b"content-type" not in dict(sent.headers)
        assert dict(sent.headers).get(b"x-a") == (b"1" if "X-A" in fields else None)
    assert b"content-type" not in dict(Endpoint.at("http://s/v1").models().headers)
    assert dict(Endpoint.at("http://s/v1").models().headers)[b"accept"] == b"application/json"


# --- Paths -----------------------------------------------------------------------------------------


def test_the_urls_of_an_endpoint() -> None:
    made = Endpoint.at(
        "http://s/v1", chat_path="/talk", models_path="/list", images_path="/paint", default_query={"a": 1}
    )
    assert (made.chat_url, made.models_url, made.images_url) == (
        "http://s/v1/talk?a=1",
        "http://s/v1/list?a=1",
        "http://s/v1/paint?a=1",
    )
    made = Endpoint.at("http://s/v1/talk?k=1", chat_path="/talk")
    assert (made.chat_url, made.models_url) == ("http://s/v1/talk?k=1", "http://s/v1/models?k=1")
    made = Endpoint.at("http://a/v1", chat_url="http://b/else?k=1", default_query={"a": 1})
    assert (made.chat_url, made.models_url) == ("http://b/else?k=1&a=1", "http://a/v1/models?a=1")
    assert dict(made.fields)[b"host"] == b"b"


def test_a_bad_url_is_refused_by_its_name() -> None:
    assert refused(Endpoint.at, "s/v1").startswith("base_url must begin with http")
    assert refused(Endpoint.at, "http://s/v1", chat_url="s/v1/x").startswith("api_endpoint must begin with http")


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://s/v1/chat/completions", "http://s/v1"),
        ("http://s/v1/chat/completions/", "http://s/v1"),
        ("http://s/v1/chat/completions?a=1", "http://s/v1?a=1"),
        ("http://s/v1/chat/completions/?a=/chat/completions", "http://s/v1?a=/chat/completions"),
        ("http://s/v1", None),
        ("http://s/v1?a=/chat/completions", None),
        ("http://s/v1/chat/completions/x", None),
        ("", None),
    ],
)
def test_the_base_above_the_url_of_a_chat(url: str, base: str | None) -> None:
    assert base_below(url) == base
    assert base_below(url.replace("/chat/completions", "/talk"), "/talk") == (
        None if base is None else base.replace("/chat/completions", "/talk")
    )


def test_who_asks() -> None:
    plain = dict(Endpoint.at("http://s/v1", organization="", project=None).fields)
    assert plain == {b"host": b"s", b"accept-encoding": b"identity", b"user-agent": b"deltawire"}
    with pytest.raises(ConfigurationError, match="openai-project"):
        Endpoint.at("http://s/v1", project="a\nb")
