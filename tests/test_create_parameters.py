"""The parameters of ``create_async_generator``, a test for each, named after it: what arrives at the server, or what
happens. None says nothing; 0, False and "" are sent, or refused where they make no sense."""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Callable
from typing import Any

import pytest
from collecting import Collect, told
from driving import HI, MODEL

from deltawire import BadRequestError, ConfigurationError, Message, OpenaiTemplate, TimeoutError
from deltawire.protocol import Proxy
from deltawire.testing import Answer, ChatServer, ProxyServer

pytestmark = pytest.mark.usefixtures("_tidy")

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
PNG_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="}}
WAV = b"RIFF\x24\0\0\0WAVEfmt "
WAV_PART = {"type": "input_audio", "input_audio": {"data": "UklGRiQAAABXQVZFZm10IA==", "format": "wav"}}

ABSENT = object()

Sends = Callable[..., dict[str, Any]]


@pytest.fixture
def sends(collect: Collect, server: ChatServer, local: type[OpenaiTemplate]) -> Sends:
    """The body that arrives, given these arguments."""

    def body(provider: Any = local, **arguments: Any) -> dict[str, Any]:
        collect(provider, **arguments)
        received: dict[str, Any] = server.requests[-1].json()
        return received

    return body


def assert_refused(local: type[OpenaiTemplate], name: str, *values: Any, words: str = "") -> None:
    """Before anything is sent, by an error that names the parameter."""
    for value in values:
        with pytest.raises(ConfigurationError, match=words or name):
            local.create_async_generator(**{"model": MODEL, "messages": HI, name: value})


def assert_sent_as_it_is(sends: Sends, name: str, *values: Any) -> None:
    for value in values:
        body = sends(**{name: value})
        # (False equals 0.)
        assert (body[name], type(body[name])) == (value, type(value))
    assert name not in sends(**{name: None})
    assert name not in sends()


def test_every_parameter_has_its_test() -> None:
    parameters = inspect.signature(OpenaiTemplate.create_async_generator).parameters
    assert {f"test_{name}" for name in parameters} <= globals().keys()


def test_the_body_byte_by_byte(collect: Collect, server: ChatServer, local: type[OpenaiTemplate]) -> None:
    pieces = collect(
        local, extra_data={"zeta": None, "top_p": 0.5}, stop="", tools=[], include_reasoning=True, seed=0,
        stream=False, top_p=1, max_tokens=0, temperature=0, user=None,
    )  # fmt: skip
    assert told(pieces) == "Hello"
    (request,) = server.requests
    assert request.body == (
        b'{"messages":[{"role":"user","content":"Hi"}],"model":"local-model","temperature":0,"max_tokens":0,"top_p":0.5,'
        b'"stop":"","stream":false,"tools":[],"seed":0,"include_reasoning":true,"zeta":null}'
    )
    assert (request.method, request.target) == ("POST", "/v1/chat/completions")
    assert request.header("content-type") == "application/json"


def test_nothing_said(collect: Collect, server: ChatServer) -> None:
    assert told(collect(OpenaiTemplate(api_base=server.url))) == "Hello"
    assert (
        server.requests[0].body == b'{"messages":[{"role":"user","content":"Hi"}],"model":"local-model","stream":false}'
    )


# --- Model and messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "default", "sent"),
    [
        ("m", "", "m"),
        ("m", "d", "m"),
        ("short", "", "long/name"),
        (None, "", ABSENT),
        (None, "d", "d"),
        ("", "", ""),
        ("", "d", "d"),
    ],
)
def test_model(sends: Sends, local: type[OpenaiTemplate], given: str | None, default: str, sent: Any) -> None:
    provider = local(default_model=default, model_aliases={"short": "long/name"})
    assert sends(provider, model=given).get("model", ABSENT) == sent
    assert_refused(local, "model", 0, False, b"m", ["m"], words="model must be a str, or None")


def test_messages(sends: Sends, local: type[OpenaiTemplate]) -> None:
    system = {"role": "system", "content": "Be brief."}
    given = [system, Message(role="assistant", content="What?"), *HI]
    expected = [system, {"role": "assistant", "content": "What?"}, *HI]
    before = copy.copy(given)
    for messages in (given, tuple(given), iter(given)):
        assert sends(messages=messages)["messages"] == expected
    assert given == before
    assert sends(messages="Hi")["messages"] == HI
    assert sends(messages="")["messages"] == [{"role": "user", "content": ""}]
    assert sends(messages=[])["messages"] == []
    assert_refused(local, "messages", None, 0, False, b"Hi", HI[0], ["Hi"], [{"role": "user", "content": b"Hi"}])


def test_messages_of_an_iterator_reach_every_attempt(sends: Sends, server: ChatServer) -> None:
    server.plan(Answer.error(503, retry_after=0.01))
    assert sends(messages=iter(HI))["messages"] == HI
    assert len(server.requests) == 2


# --- The way to the server ------------------------------------------------------------------------------


def test_proxy(
    collect: Collect,
    server: ChatServer,
    proxy: ProxyServer,
    local: type[OpenaiTemplate],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for given in (proxy.url, Proxy.parse(proxy.url)):
        assert told(collect(local, proxy=given)) == "Hello"
    assert [each.target for each in proxy.requests] == [f"{server.url}/chat/completions"] * 2
    assert told(collect(local, proxy=None)) == "Hello"
    assert len(proxy.requests) == 2
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    assert told(collect(local, proxy=None)) == "Hello"
    assert told(collect(local)) == "Hello"
    assert len(proxy.requests) == 4
    assert all(each.authorized for each in proxy.requests)
    assert len(server.requests) == 5
    assert_refused(local, "proxy", "", 0, False, "127.0.0.1:3128", words=r"^prox.*(scheme|URL)")


def test_timeout(collect: Collect, server: ChatServer, local: type[OpenaiTemplate]) -> None:
    server.plan(Answer(delay=30))
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r"Timeout\.first_content"):
        collect(local, timeout=0.3, max_retries=0)
    assert 0.3 <= time.monotonic() - begin < 5
    server.plan(Answer(delay=0.2), Answer(delay=0.2))
    assert told(collect(local, timeout=None)) == told(collect(local, timeout=5)) == "Hello"
    assert inspect.signature(local.create_async_generator).parameters["timeout"].default == 120
    assert_refused(local, "timeout", 0, False, "", -1, "1", words="Timeout.first_content must be a number of seconds")


def test_api_key(
    sends: Sends, server: ChatServer, local: type[OpenaiTemplate], monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(provider: Any = local, **arguments: Any) -> str | None:
        sends(provider, **arguments)
        return server.requests[-1].header("authorization")

    declared = local(api_key="sk-declared")
    assert key(api_key="sk-1") == key(api_key=lambda: "sk-1") == key(api_key={"Local": "sk-1"}) == "Bearer sk-1"
    assert key(declared, api_key="sk-1") == "Bearer sk-1"
    assert key(declared) == key(declared, api_key=None) == "Bearer sk-declared"
    assert key() is None
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    assert key() == key(api_key=None) == "Bearer sk-environment"
    assert key(declared) == "Bearer sk-declared"
    # Not another one in its place.
    assert key(api_key="") is None
    assert key(declared, api_key="") is None
    assert key(local(api_key="")) is None
    assert_refused(local, "api_key", 0, False, b"sk-1")


def test_api_endpoint(sends: Sends, server: ChatServer, local: type[OpenaiTemplate]) -> None:
    def target(provider: Any = local, **arguments: Any) -> str:
        sends(provider, **arguments)
        return server.requests[-1].target

    other = server.url + "/other/chat/completions"
    declared = local(api_endpoint=other)
    assert target(api_endpoint=other) == target(declared) == "/v1/other/chat/completions"
    assert target(api_endpoint=other + "?a=b") == "/v1/other/chat/completions?a=b"
    assert target(api_endpoint=other, api_base="http://127.0.0.1:9") == "/v1/other/chat/completions"
    assert target(declared, api_endpoint=server.url + "/chat/completions") == "/v1/chat/completions"
    assert target(api_endpoint=None) == "/v1/chat/completions"
    # What is declared gives way to a base URL that somebody names.
    assert target(declared, api_base=server.url + "/named") == "/v1/named/chat/completions"
    assert target(type(declared)(api_endpoint=other, api_base=server.url + "/x")) == "/v1/other/chat/completions"
    assert_refused(local, "api_endpoint", "", 0, False, "127.0.0.1/v1", b"http://127.0.0.1/v1")


def test_api_base(sends: Sends, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def target(**arguments: Any) -> str:
        sends(OpenaiTemplate, **arguments)
        return server.requests[-1].target

    url = server.site_url
    assert target(api_base=f"{url}/v2") == target(base_url=f"{url}/v2/") == "/v2/chat/completions"
    assert target(api_base=f"{url}/v2?a=b") == "/v2/chat/completions?a=b"
    assert target(api_base=f"{url}/v2/chat/completions") == "/v2/chat/completions"
    monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v3")
    assert target() == target(api_base=None) == "/v3/chat/completions"
    assert target(api_base=url) == "/chat/completions"
    assert_refused(OpenaiTemplate, "api_base", "", 0, False)
    assert_refused(OpenaiTemplate, "base_url", "", 0, False, "127.0.0.1/v1")


def test_headers(collect: Collect, server: ChatServer, local: type[OpenaiTemplate]) -> None:
    def received(headers: Any) -> dict[str, str]:
        before = copy.copy(headers)
        collect(local, headers=headers, api_key="sk-1")
        assert headers == before
        return {name.decode(): value.decode() for name, value in server.requests[-1].headers}

    usual = received(None)
    assert received({}) == usual
    assert usual["accept"] == "application/json"
    assert usual["user-agent"].startswith("deltawire/")
    assert received({"X-Mine": "1"}) == {**usual, "x-mine": "1"}
    assert received({"X-Empty": ""}) == {**usual, "x-empty": ""}
    won = received({"ACCEPT": "text/plain", "Authorization": "Basic x", "user-agent": "mine"})
    assert won == {**usual, "accept": "text/plain", "authorization": "Basic x", "user-agent": "mine"}
    without = received({"Authorization": None, "X-Never": None})
    assert without == {name: value for name, value in usual.items() if name != "authorization"}
    assert_refused(local, "headers", "", 0, False, [("a", "b")])
    for bad in ({"Content-Length": "1"}, {"a b": "c"}, {"a": "b\r\nc: d"}, {"a": 1}):
        with pytest.raises(ConfigurationError, match="header"):
            collect(local, headers=bad)


def test_impersonate(collect: Collect, server: ChatServer, local: type[OpenaiTemplate]) -> None:
    def agent(**arguments: Any) -> str | None:
        assert told(collect(local, **arguments)) == "Hello"
        return server.requests[-1].header("user-agent")

    assert "Chrome/" in str(agent(impersonate="chrome"))
    assert server.requests[-1].header("sec-ch-ua")
    assert "Firefox/" in str(agent(impersonate="firefox"))
    assert str(agent(impersonate=None)).startswith("deltawire/")
    assert_refused(local, "impersonate", "", 0, False)
    with pytest.raises(ConfigurationError, match="netscape"):
        collect(local, impersonate="netscape")


# --- What goes into the body ----------------------------------------------------------------------------


def test_media(sends: Sends, server: ChatServer, local: type[OpenaiTemplate]) -> None:
    text = {"type": "text", "text": "Hi"}
    reply = {"role": "assistant", "content": "What?"}
    media = [(PNG, "a.png"), (WAV, None), ("https://images.example/a.png", "b.png")]
    linked = {"type": "image_url", "image_url": {"url": "https://images.example/a.png"}}
    messages = [*HI, reply]
    before = copy.deepcopy((media, messages))
    for name in ("media", "images"):
        sent = sends(messages=messages, **{name: media})["messages"]
        assert sent == [{"role": "user", "content": [PNG_PART, WAV_PART, linked, text]}, reply]
    assert (media, messages) == before
    assert sends(image=PNG, image_name="a.png")["messages"] == [{"role": "user", "content": [PNG_PART, text]}]
    assert sends(media=[WAV], image=PNG)["messages"] == [{"role": "user", "content": [WAV_PART, PNG_PART, text]}]
    parts = [{"role": "user", "content": [linked, text]}]
    assert sends(messages=parts, media=[PNG])["messages"] == [{"role": "user", "content": [PNG_PART, linked, text]}]
    assert sends(media=None)["messages"] == sends(media=[])["messages"] == HI
    assert_refused(local, "media", "", 0, False, "a.png", PNG)
    assert_refused(local, "media", [(b"\0\0\0\x18ftypmp42", "a.mp4")], words="a.mp4")


@pytest.mark.parametrize("name", ["temperature", "max_tokens", "top_p", "stop"])
def test_what_says_nothing_is_sent(sends: Sends, name: str) -> None:
    assert_sent_as_it_is(sends, name, 0, False, "")


def test_temperature(sends: Sends) -> None:
    assert_sent_as_it_is(sends, "temperature", 0.0, 0.5, 2)


def test_max_tokens(sends: Sends) -> None:
    assert_sent_as_it_is(sends, "max_tokens", 1, 100_000)


def test_top_p(sends: Sends) -> None:
    assert_sent_as_it_is(sends, "top_p", 0.0, 0.9, 1)


def test_stop(sends: Sends) -> None:
    words = ["a", "b"]
    assert_sent_as_it_is(sends, "stop", "a", words, [])
    assert words == ["a", "b"]


@pytest.mark.parametrize("given", [True, False, None])
def test_stream(collect: Collect, server: ChatServer, local: type[OpenaiTemplate], given: bool | None) -> None:
    pieces = collect(local, stream=given)
    (request,) = server.requests
    assert request.json().get("stream") is given
    assert request.header("accept") == ("text/event-stream" if given else "application/json")
    assert [piece for piece in pieces if isinstance(piece, str)] == (["Hel", "lo"] if given else ["Hello"])
    assert_refused(local, "stream", 0, 1, "", "yes", words="stream must be True, False or None")


def test_prompt(sends: Sends, server: ChatServer, local: type[OpenaiTemplate]) -> None:
    messages = copy.deepcopy(HI)
    assert sends(messages=messages, prompt="Go on.")["messages"] == [*HI, {"role": "user", "content": "Go on."}]
    assert sends(messages=messages, prompt="")["messages"] == [*HI, {"role": "user", "content": ""}]
    assert sends(messages=messages, prompt="Hi")["messages"] == sends(prompt=None)["messages"] == messages == HI
    drawing = local(image_models=["painter"])
    for given, sent in (("A cat", "A cat"), (None, "Hi")):
        assert sends(drawing, model="painter", prompt=given) == {"prompt": sent, "model": "painter"}
        assert server.requests[-1].target == "/v1/images/generations"
    with pytest.raises(BadRequestError):
        sends(drawing, model="painter", prompt="")
    assert server.requests[-1].json() == {"prompt": "", "model": "painter"}
    assert_refused(local, "prompt", 0, False, b"Hi")


def test_extra_parameters(sends: Sends, local: type[OpenaiTemplate]) -> None:
    names = ["mine", "yours"]
    body = sends(extra_parameters=names, mine=0, yours=None, seed=1)
    assert (body["mine"], body["seed"]) == (0, 1)
    assert "yours" not in body
    assert names == ["mine", "yours"]
    for usual in (None, ("include_reasoning",)):
        assert sends(extra_parameters=usual, include_reasoning=False)["include_reasoning"] is False
    for given in ((), ["mine"]):
        with pytest.raises(ConfigurationError, match="unknown parameter 'include_reasoning'"):
            local.create_async_generator(MODEL, HI, extra_parameters=given, include_reasoning=False)
    assert_refused(local, "extra_parameters", "", 0, False, "mine")


USUAL_EXTRAS = [
    "tools", "parallel_tool_calls", "tool_choice", "reasoning_effort", "logit_bias", "modalities", "audio",
    "stream_options", "include_reasoning", "response_format", "max_completion_tokens", "search_settings",
    "prompt_cache_key",
]  # fmt: skip


def test_the_usual_extra_parameters(sends: Sends) -> None:
    default = inspect.signature(OpenaiTemplate.create_async_generator).parameters["extra_parameters"].default
    assert list(default) == USUAL_EXTRAS
    given: dict[str, Any] = dict.fromkeys(USUAL_EXTRAS, "x")
    given["stream_options"] = {"include_usage": True}
    body = sends(**given)
    assert {name: body[name] for name in USUAL_EXTRAS} == given


def test_extra_data(sends: Sends, local: type[OpenaiTemplate]) -> None:
    extra = {"model": "other", "temperature": None, "stream": False, "mine": {"a": [0, False, "", None]}}
    before = copy.deepcopy(extra)
    for name in ("extra_data", "extra_body"):
        body = sends(temperature=1, **{name: extra})
        assert body == {"messages": HI, **extra}
        assert extra == before
    assert sends(extra_data=None) == sends(extra_data={}) == sends()
    assert_refused(local, "extra_data", "", 0, False, [], "a=b")
    with pytest.raises(ConfigurationError, match="bytes"):
        sends(extra_data={"a": b"b"})


def test_kwargs(sends: Sends, local: type[OpenaiTemplate]) -> None:
    named = {"seed": 0, "n": 1, "user": "", "logprobs": False, "frequency_penalty": 0.5}
    assert sends(presence_penalty=None, **named) == {"messages": HI, "model": MODEL, "stream": False, **named}
    with pytest.raises(ConfigurationError, match="unknown parameter 'temprature'; did you mean 'temperature'"):
        local.create_async_generator(MODEL, HI, temprature=1)


@pytest.mark.parametrize(
    ("one", "other", "values"),
    [
        ("api_base", "base_url", ("http://127.0.0.1:1", "http://127.0.0.1:2")),
        ("extra_data", "extra_body", ({"a": 1}, {"a": 2})),
        ("media", "images", ([PNG], [WAV])),
        ("headers", "extra_headers", ({"a": "1"}, {"a": "2"})),
    ],
)
def test_two_spellings_say_one_thing(local: type[OpenaiTemplate], one: str, other: str, values: Any) -> None:
    with pytest.raises(ConfigurationError, match="two names of one argument"):
        local.create_async_generator(MODEL, HI, **{one: values[0], other: values[1]})
    local.create_async_generator(MODEL, HI, **{one: values[0], other: values[0]})


def test_the_class_and_its_instances_and_the_sync_twins(server: ChatServer, local: type[OpenaiTemplate]) -> None:
    for provider in (local, local(), local(default_model="x")):
        for create in (provider.create_generator, provider.create_completion):
            assert told(create(MODEL, HI)) == "Hello"
    assert len(server.requests) == 6
