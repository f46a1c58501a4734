"""request.py: what goes out, and what is refused before anything does."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from feeding import DONE, JSON, QUICK, chunks, delta, ended, read, sse
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from deltawire.protocol import (
    ChatRequest,
    ConfigurationError,
    Context,
    Endpoint,
    HTTPRequest,
    ImageRequest,
    Message,
    accumulate,
)
from deltawire.protocol.request import PARAMETERS, field, merge_fields
from deltawire.protocol.urls import URL

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "sk-test-0123456789"


def body_of(messages: Any = "hi", **more: Any) -> dict[str, Any]:
    decoded = json.loads(ChatRequest(messages=messages, model=more.pop("model", "m"), **more).encode())
    assert isinstance(decoded, dict)
    return decoded


def request(base: str = "http://s/v1", key: str | None = KEY, /, **more: Any) -> HTTPRequest:
    return Endpoint.at(base).chat(ChatRequest(messages="hi", model="m", **more), api_key=key)


# --- The body --------------------------------------------------------------------------------------


def test_the_least_body() -> None:
    assert ChatRequest(messages=[{"role": "user", "content": "hi"}], model="m").encode() == (
        b'{"messages":[{"role":"user","content":"hi"}],"model":"m"}'
    )


def test_a_text_is_the_users_message() -> None:
    assert body_of("héllo\n")["messages"] == [{"role": "user", "content": "héllo\n"}]
    assert body_of("")["messages"] == [{"role": "user", "content": ""}]


def test_stream_is_sent_when_it_is_said() -> None:
    assert "stream" not in body_of()
    assert body_of(stream=True)["stream"] is True
    assert body_of(stream=False)["stream"] is False


def test_none_is_not_sent_and_all_else_is() -> None:
    params: dict[str, Any] = {
        "temperature": 0,
        "max_tokens": None,
        "user": "",
        "store": False,
        "stop": [],
        "metadata": {},
        "top_p": 0.0,
    }
    body = body_of(params=params)
    del body["messages"], body["model"]
    assert body == {"temperature": 0, "user": "", "store": False, "stop": [], "metadata": {}, "top_p": 0.0}


def test_extra_body_wins_none_included() -> None:
    body = body_of(
        stream=True,
        params={"temperature": 1, "top_p": 1},
        extra_body={"temperature": None, "stream": False, "model": "other", "vendor": {"a": [None]}, "top_k": 0},
    )
    assert body == {
        "messages": [{"role": "user", "content": "hi"}],
        "model": "other",
        "stream": False,
        "temperature": None,
        "top_p": 1,
        "vendor": {"a": [None]},
        "top_k": 0,
    }


def test_all_parameters_of_openai() -> None:
    assert body_of(params=dict.fromkeys(PARAMETERS, 1)).keys() == PARAMETERS | {"messages", "model"}
    for name in ("messages", "model", "stream", "extra_body"):
        assert name not in PARAMETERS
    for name in [
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    ]:
        assert name in PARAMETERS


@pytest.mark.parametrize(
    ("wrong", "right"), [("temprature", "temperature"), ("maxtokens", "max_tokens"), ("tool", "tools")]
)
def test_an_unknown_parameter_is_refused_with_a_suggestion(wrong: str, right: str) -> None:
    words = refused(ChatRequest, messages="x", model="m", params={wrong: 1})
    known = f"(what only some servers know goes into extra_body={{{wrong!r}: ...}})"
    assert words == f"unknown parameter {wrong!r}; did you mean {right!r}? {known}"


def test_an_unknown_parameter_like_no_other() -> None:
    words = refused(ChatRequest, messages="x", model="m", params={"zzzzzzzz": 1})
    assert words.startswith("unknown parameter 'zzzzzzzz' (what")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_can_not_say(value: float) -> None:
    assert "temperature" in refused(body_of, params={"temperature": value})


@pytest.mark.parametrize(
    "more",
    [
        {"params": {"logit_bias": {"50256": float("nan")}}},
        {"extra_body": {"temperature": float("nan")}},
        {"extra_body": {"a": [{"b": float("inf")}]}},
        {"messages": [{"role": "user", "content": [{"type": "x", "weight": float("nan")}]}]},
    ],
)
def test_numbers_that_json_can_not_say_anywhere(more: dict[str, Any]) -> None:
    # msgspec would send null, without a word.
    refused(body_of, **more)


@pytest.mark.parametrize("text", ["\ud83d", "hello \udc4b there"])
def test_lone_surrogates(text: str) -> None:
    assert "surrogate" in refused(body_of, text)
    assert "surrogate" in refused(body_of, [{"role": "user", "content": [{"type": "text", "text": text}]}])
    assert "surrogate" in refused(body_of, params={"user": text})


@pytest.mark.parametrize("value", [object(), {object(): 1}, {(1, 2): 3}, 1j, lambda: 1])
def test_what_json_can_not_say(value: Any) -> None:
    assert "JSON" in refused(body_of, extra_body={"a": value})


def test_a_request_stays_as_it_is() -> None:
    chat = ChatRequest(messages="hi", model="m")
    for thing, name in ((chat, "model"), (HTTPRequest("GET", "http://s/", ()), "url")):
        with pytest.raises(AttributeError):
            setattr(thing, name, None)
    with pytest.raises(TypeError):
        ChatRequest("hi", "m")  # type: ignore[call-arg]


def test_stream_stands_behind_what_recordings_have_before_it() -> None:
    params = {"seed": 1, "stop": "x", "top_p": 1, "max_tokens": 2, "temperature": 0}
    encoded = ChatRequest(messages="hi", model="m", stream=True, params=params).encode()
    assert [*json.loads(encoded)] == [
        "messages", "model", "temperature", "max_tokens", "top_p", "stop", "stream", "seed"
    ]  # fmt: skip


def test_what_never_ends() -> None:
    endless: list[Any] = []
    endless.append(endless)
    refused(body_of, extra_body={"a": endless})


# --- Messages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("messages", [None, 5, {"role": "user", "content": "x"}, b"hi", object(), ["hi"], [["a"], "b"]])
def test_what_are_no_messages(messages: Any) -> None:
    assert "message" in refused(body_of, messages)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": b"hi"},
        {"role": "user", "content": [{"type": "text", "text": b"hi"}]},
        {"role": "user", "content": bytearray(b"hi")},
        MappingProxyType({"role": "user", "content": b"hi"}),
        Message(role="user", content=b"hi"),  # type: ignore[arg-type]
    ],
)
def test_bytes_are_no_text(message: Any) -> None:
    # msgspec would send base64, without a word.
    assert "bytes" in refused(body_of, [message])


def test_any_iterable_of_messages() -> None:
    def some() -> Iterator[dict[str, str]]:
        yield {"role": "user", "content": "a"}
        yield {"role": "user", "content": "b"}

    assert len(body_of(some())["messages"]) == 2
    assert len(body_of(tuple(some()))["messages"]) == 2
    assert body_of([])["messages"] == []


def test_the_callers_list_stays_as_it_is() -> None:
    messages = [{"role": "user", "content": "a"}]
    extra = {"a": 1}
    body_of(messages, extra_body=extra, params={"n": 1})
    assert messages == [{"role": "user", "content": "a"}]
    assert extra == {"a": 1}


class Pydantic:
    """As objects of the OpenAI SDK are."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def model_dump(self, *, mode: str, exclude_unset: bool) -> dict[str, Any]:
        assert mode == "json"
        return {key: value for key, value in self.fields.items() if value is not None or not exclude_unset}


class Mapping:
    def keys(self) -> list[str]:
        return ["role", "content"]

    def __getitem__(self, key: str) -> str:
        return {"role": "user", "content": "x"}[key]


def test_objects_of_other_libraries() -> None:
    call = Pydantic(id="c", type="function", function=Pydantic(name="f", arguments="{}"))
    messages = [
        Pydantic(role="assistant", content=None, tool_calls=[call]),
        Mapping(),
        MappingProxyType({"role": "user", "content": ("a", "b")}),
    ]
    assert body_of(messages)["messages"] == [
        {
            "role": "assistant",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "user", "content": "x"},
        {"role": "user", "content": ["a", "b"]},
    ]


TOOL_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("touched", [False, True])
def test_messages_of_our_completions_can_be_sent_back(streamed: bool, touched: bool) -> None:
    said = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [{**TOOL_CALL, "x_call": 1}],
        "x_vendor": "v",
    }
    if streamed:
        calls = [{"index": 0, **TOOL_CALL, "x_call": 1}]
        events = read(sse(delta(role="assistant", x_vendor="v", tool_calls=calls), delta(finish="tool_calls"), DONE))
        completion = accumulate(chunks(events))
    else:
        body = {"choices": [{"message": said, "finish_reason": "tool_calls", "x_choice": 1}], "x_top": 1}
        whole = ended(read(json.dumps(body).encode(), headers=JSON)).completion
        assert whole is not None
        completion = whole
    message = completion.choices[0].message
    if touched:
        assert message.model_extra["x_vendor"] == "v"
    encoded = ChatRequest(messages=[message, {"role": "tool", "tool_call_id": "c", "content": "1"}], model="m").encode()
    assert b"null" not in encoded
    assert b"x_" not in encoded
    assert json.loads(encoded)["messages"][0] == {"role": "assistant", "tool_calls": [TOOL_CALL]}


def test_a_message_of_ours_with_text() -> None:
    message = accumulate(chunks(read(sse(delta("hi", role="assistant"), DONE)))).choices[0].message
    assert body_of([message])["messages"] == [{"role": "assistant", "content": "hi"}]


# --- Header fields ---------------------------------------------------------------------------------


def test_the_fields_of_a_request() -> None:
    sent = request(stream=True)
    assert sent.headers == (
        (b"host", b"s"),
        (b"accept-encoding", b"identity"),
        (b"user-agent", b"deltawire"),
        (b"authorization", f"Bearer {KEY}".encode()),
        (b"accept", b"text/event-stream"),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(sent.body)).encode()),
    )
    assert (sent.method, sent.url) == ("POST", "http://s/v1/chat/completions")
    assert dict(request().headers)[b"accept"] == b"application/json"


def test_extra_headers_win_and_none_removes() -> None:
    fields = request(extra_headers={"Authorization": None, "ACCEPT": "x", "X-New": "é", "User-Agent": ""}).headers
    assert dict(fields)[b"accept"] == b"x"
    assert dict(fields)[b"x-new"] == "é".encode("latin-1")
    assert dict(fields)[b"user-agent"] == b""
    assert b"authorization" not in dict(fields)
    assert len(fields) == len({name for name, _ in fields})


@pytest.mark.parametrize(
    "value",
    [
        "a\r\nX-Evil: 1",
        "a\nb",
        "a\rb",
        "a\0b",
        "a\x7fb",
        "a\x1bb",
        " a",
        "a ",
        "\ta",
        "a\n",
        "\n",
        "a\u2028b",
        "ключ",
        "\ud800",
    ],
)
def test_values_that_would_mean_something_else(value: str) -> None:
    for work in (
        lambda: field("X-A", value),
        # (After "Bearer " another blank is legal.)
        lambda: request("http://s/v1", f"{value} " if value[0] in " \t" else value),
        lambda: request(extra_headers={"x-a": value}),
        lambda: Endpoint.at("http://s", default_headers={"x-a": value}),
        lambda: Endpoint.at("http://s", user_agent=value),
        lambda: Endpoint.at("http://s", organization=value),
        lambda: Endpoint.at("http://s", project=value),
    ):
        if "Bearer" not in (words := refused(work)):
            assert repr(value) not in words
            assert "Evil" not in words
            assert "ключ" not in words


def test_a_key_with_a_line_break_is_refused_without_repeating_it() -> None:
    words = refused(request, "http://s/v1", f"{KEY}\n")
    assert KEY not in words
    # Of any other field there is nothing to advise.
    other = "the header x-a holds a line break or another control, or begins or ends with a blank"
    assert refused(field, "x-a", "b\n") == other
    assert words == (
        "the header authorization holds a line break or another control, or begins or ends with a blank: "
        "strip the API key"
    )


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "a\0", "é", "ключ", "(x)", "a\n", " a", "x@y", "[", '"'])
def test_bad_names(name: str) -> None:
    assert refused(field, name, "x").endswith(" is no valid header name")
    assert "header name" in refused(request, extra_headers={name: "x"})
    assert "header name" in refused(request, extra_headers={name: None})


def test_a_line_that_is_given_as_a_name_is_not_repeated() -> None:
    """There may be a key in it."""
    assert refused(field, "x" * 29 + " ", "x") == f"'{'x' * 29} ' is no valid header name"
    for name in ("x" * 30 + " ", "a: b"):
        assert refused(field, name, "x") == "what is given is no valid header name"


@pytest.mark.parametrize("value", [5, None, ["x"], object()])
def test_values_of_another_type(value: Any) -> None:
    assert refused(field, "x-a", value) == f"the header x-a must be a str, not {type(value).__name__}"


@pytest.mark.parametrize("name", ["Content-Length", "content-length", "Transfer-Encoding", "TRANSFER-ENCODING"])
@pytest.mark.parametrize("value", ["5", "chunked", None])
def test_the_framing_is_nobody_elses(name: str, value: str | None) -> None:
    refused(request, extra_headers={name: value})
    refused(Endpoint.at, "http://s", default_headers={name: value})
    words = f"the header {name.lower()} is set by deltawire, from the body"
    assert refused(merge_fields, [], {name: value}) == words


@QUICK
@given(st.text(max_size=20), st.text(max_size=20))
def test_no_field_can_break_the_head(name: str, value: str) -> None:
    try:
        raw_name, raw_value = field(name, value)
    except ConfigurationError:
        return
    for byte in b"\r\n\0":
        assert byte not in raw_name + raw_value
    assert raw_name
    assert raw_name == raw_name.lower()
    assert raw_value == raw_value.strip(b" \t")


def test_all_legal_values_pass() -> None:
    for value in ("", "a", "a b\tc", "\xff", "~", "Bearer x"):
        assert field("X", value) == (b"x", value.encode("latin-1"))
    assert field(b"X", b"\xff") == (b"x", b"\xff")


# --- Keys ------------------------------------------------------------------------------------------


def test_no_request_shows_its_key() -> None:
    sent = request(extra_headers={"Api-Key": KEY, "X-API-Key": KEY, "Cookie": KEY, "Proxy-Authorization": KEY})
    assert KEY.encode() in sent.headers[3][1]
    for shown in (repr(sent), str(sent), f"{sent}"):
        assert KEY not in shown
    assert "POST" in repr(sent)
    assert f"{len(sent.body)} bytes" in repr(sent)
    assert "hi" not in repr(sent).replace("chat", ""), "nor its body"


def test_no_repr_shows_what_may_be_a_key() -> None:
    query, fields = {"key": KEY, "v": "1"}, {"Authorization": KEY, "X-WP-Nonce": None}
    chat = ChatRequest(messages="hi", model="m", extra_headers={**fields}, extra_query={**query})
    image = ImageRequest(prompt="a cat", extra_headers={**fields}, extra_query={**query})
    endpoint = Endpoint.at(f"http://s/v1?api-version=1&key={KEY}&{KEY}")
    for shown in (repr(chat), repr(image), repr(endpoint), repr(endpoint.chat(chat)), repr(endpoint.images(image))):
        assert KEY not in shown
    assert "messages='hi', model='m'" in repr(chat)
    assert "'X-WP-Nonce': '***'" in repr(image)
    assert repr(endpoint) == "Endpoint('http://s/v1/chat/completions?api-version=***&key=***&***')"
    assert KEY not in repr(HTTPRequest("POST", "http://s/", ((b"x-wp-nonce", KEY.encode()),)))
    assert repr(HTTPRequest("GET", "http://s/a", ())).startswith("HTTPRequest('GET', 'http://s/a', ")


# --- A request, and what of it is a secret ---------------------------------------------------------


def test_no_model_is_sent_where_none_is_named() -> None:
    assert body_of(model=None) == {"messages": [{"role": "user", "content": "hi"}]}
    assert body_of(model="")["model"] == ""


def test_the_same_request_to_another_url() -> None:
    sent = HTTPRequest("POST", "http://s/a", ((b"x-k", b"v"),), b"{}", frozenset({b"x-k"}), "chrome")
    other = sent.to("http://s/b?c")
    assert other == HTTPRequest("POST", "http://s/b?c", sent.headers, b"{}", sent.hidden, "chrome")
    assert (sent.parts, other.parts) == (URL("http", "s", 80, "/a"), URL("http", "s", 80, "/b?c"))
    assert sent.url == "http://s/a"


SECRETS = ["authorization", "proxy-authorization", "api-key", "x-api-key", "cookie", "x-wp-nonce"]


@pytest.mark.parametrize("name", SECRETS)
def test_fields_that_hold_secrets_in_any_request(name: str) -> None:
    sent = HTTPRequest("GET", "http://s/", ((b"host", b"s"), (name.encode(), b"Scheme the secret"), (b"x-a", b"1")))
    assert sent.secrets == ("the secret" if name.endswith("authorization") else "Scheme the secret",)
    assert (
        repr(sent)
        == f"HTTPRequest('GET', 'http://s/', [(b'host', b's'), ({name.encode()!r}, b'***'), (b'x-a', b'1')], 0 bytes)"
    )


def test_fields_that_hold_them_in_this_one() -> None:
    fields = ((b"x-own", b"k 1"), (b"authorization", b"whole"), (b"cookie", b""), (b"x-other-authorization", b"a b"))
    sent = HTTPRequest("GET", "http://s/", fields, b"x", frozenset({b"x-own", b"x-other-authorization"}), "safari")
    assert sent.secrets == ("k 1", "whole", "b")
    assert repr(sent).endswith("1 bytes, impersonate='safari')")
    assert "k 1" not in repr(sent)
    assert HTTPRequest("GET", "http://s/", fields[:1]).secrets == ()


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


def test_what_is_asked_is_shown_without_fields_and_queries() -> None:
    chat = ChatRequest(messages="hi", model=None, extra_headers={"X-K": "k"}, extra_query={"q": "k"})
    assert repr(chat) == (
        "ChatRequest(messages='hi', model=None, stream=None, params={}, extra_body=None, "
        "extra_headers={'X-K': '***'}, extra_query={'q': '***'})"
    )
    assert "extra_headers=None, extra_query=None" in repr(ChatRequest(messages="hi", model="m"))


def test_a_field_of_its_own_is_no_parameter() -> None:
    for name in ("messages", "model", "stream"):
        assert refused(ChatRequest, messages="hi", model="m", params={name: 1}) == (
            f"{name!r} is a field of its own, not one of params"
        )
