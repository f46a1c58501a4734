"""request.py, urls.py, endpoint.py: what goes out, and what is refused before anything does."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from feeding import DONE, JSON, QUICK, chunks, delta, ended, read, sse
from hypothesis import given
from hypothesis import strategies as st

from deltawire.protocol import (
    DEFAULT_BASE_URL,
    ChatRequest,
    ConfigurationError,
    Endpoint,
    HTTPRequest,
    ImageRequest,
    Limits,
    Message,
    MissingAuthError,
    Proxy,
    SessionStarted,
    State,
    StreamFailed,
    accumulate,
)
from deltawire.protocol.request import PARAMETERS, field, merge_fields
from deltawire.protocol.urls import URL, join_url, parse_url, same_origin_target

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "sk-test-0123456789"


def body_of(messages: Any = "hi", **more: Any) -> dict[str, Any]:
    decoded = json.loads(ChatRequest(messages=messages, model=more.pop("model", "m"), **more).encode())
    assert isinstance(decoded, dict)
    return decoded


def request(base: str = "http://s/v1", key: str | None = KEY, /, **more: Any) -> HTTPRequest:
    return Endpoint.at(base).chat(ChatRequest(messages="hi", model="m", **more), api_key=key)


def refused(work: Any, *args: Any, **kwargs: Any) -> str:
    """The words with which this is refused."""
    with pytest.raises(ConfigurationError) as caught:
        work(*args, **kwargs)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None, "a context may show a secret"
    return str(caught.value)


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
    assert words == (
        "the header authorization holds a line break or another control, or begins or ends with a blank: "
        "strip the API key"
    )


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "a\0", "é", "ключ", "(x)", "a\n", " a", "x@y", "[", '"'])
def test_bad_names(name: str) -> None:
    assert refused(field, name, "x").endswith(" is no valid header name")
    assert "header name" in refused(request, extra_headers={name: "x"})
    assert "header name" in refused(request, extra_headers={name: None})


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


def test_no_request_shows_its_key() -> None:
    sent = request(extra_headers={"Api-Key": KEY, "X-API-Key": KEY, "Cookie": KEY, "Proxy-Authorization": KEY})
    assert KEY.encode() in sent.headers[3][1]
    for shown in (repr(sent), str(sent), f"{sent}"):
        assert KEY not in shown
    assert "POST" in repr(sent)
    assert f"{len(sent.body)} bytes" in repr(sent)
    assert "hi" not in repr(sent).replace("chat", ""), "nor its body"


def test_no_endpoint_shows_a_key() -> None:
    assert KEY not in repr(Endpoint.at("http://s", default_headers={"Authorization": f"Bearer {KEY}"}))


# --- With the machine for the reply ----------------------------------------------------------------


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


# --- URLs ------------------------------------------------------------------------------------------


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
    assert request(base).url == joined
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
    assert (
        repr(SessionStarted("name", KEY))
        == str(SessionStarted("name", KEY))
        == ("SessionStarted(session_id='name', nonce='***')")
    )
