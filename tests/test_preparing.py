"""client/preparing.py: a provider's request and the machine for its reply, and an `HTTP1Exchange` of both."""

from __future__ import annotations

import json
from typing import Any

import pytest
from driving import shown
from feeding import DONE, FINISH, delta, failure, sse, text

from deltawire import Client, Opchatgpts, OpenaiChat, OpenaiTemplate
from deltawire.protocol import (
    ChatRequest,
    ConfigurationError,
    HTTP1Exchange,
    LimitExceededError,
    Limits,
    MissingAuthError,
    Proxy,
)
from deltawire.testing import ChatServer

HI = ChatRequest(messages="Hi", model="m", stream=True)
PROXY = Proxy.parse("http://me:pass-word@proxy.example:3128")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n"


class Mine(OpenaiTemplate):
    api_base = "http://api.example/v1"
    api_key = "sk-of-the-class"


class MySite(Opchatgpts):
    url = "http://site.example"
    nonce = "n0nce-of-the-class"


def answered(made: HTTP1Exchange, *values: object) -> str:
    """The text, when the server says this."""
    words = sse(*values)
    events = made.receive(HEAD % len(words) + words)
    assert made.reusable
    return text(events)


@pytest.mark.parametrize(
    ("provider", "host", "key"),
    [
        (Mine, b"api.example", b"sk-of-the-class"),
        (Mine(), b"api.example", b"sk-of-the-class"),
        (Mine(api_key="sk-of-the-instance"), b"api.example", b"sk-of-the-instance"),
        (
            OpenaiTemplate(api_base="http://other.example/v1", api_key=lambda: "sk-called"),
            b"other.example",
            b"sk-called",
        ),
    ],
    ids=["class", "instance", "instance that says otherwise", "instance of the template"],
)
def test_an_openai_provider(provider: Any, host: bytes, key: bytes) -> None:
    made = HTTP1Exchange.chat(HI, provider)
    sent = made.data_to_send()
    assert sent.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nhost: " + host + b"\r\n")
    assert b"authorization: Bearer " + key + b"\r\n" in sent
    assert json.loads(sent.partition(b"\r\n\r\n")[2]) == {
        "messages": [{"role": "user", "content": "Hi"}],
        "model": "m",
        "stream": True,
    }
    assert answered(made, delta("Hel"), delta("lo"), FINISH, DONE) == "Hello"


def test_a_key_that_is_given_wins() -> None:
    for key in ("sk-given", lambda: "sk-given"):
        assert b"Bearer sk-given\r\n" in HTTP1Exchange.chat(HI, Mine, api_key=key).data_to_send()


def test_the_environment_s_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingAuthError, match="OPENAI_API_KEY"):
        HTTP1Exchange.chat(HI, OpenaiChat)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    assert b"Bearer sk-environment\r\n" in HTTP1Exchange.chat(HI, OpenaiChat).data_to_send()


def test_the_request_is_the_client_s() -> None:
    with ChatServer() as server:
        local = OpenaiTemplate(api_base=server.url)
        more: dict[str, Any] = {
            "extra_body": {"x": 1},
            "extra_headers": {"x-team": "blue"},
            "extra_query": {"q": "1"},
        }
        with Client(local) as client:
            client.chat.completions.create("Hi", "local-model", temperature=0.5, stop="no", **more)
        chat = ChatRequest(messages="Hi", model="local-model", params={"temperature": 0.5, "stop": "no"}, **more)
        request, reply = local.prepare(chat)
        (sent,) = server.requests
    assert request.method == sent.method
    assert request.parts.target == sent.target
    assert request.body == sent.body
    assert set(request.headers) <= {(name.lower(), value) for name, value in sent.headers}
    assert reply.stream is False


@pytest.mark.parametrize(
    "provider", [MySite, MySite(), Opchatgpts(url="http://site.example", nonce="n0nce-of-the-class")]
)
def test_a_site(provider: Any) -> None:
    chat = ChatRequest(messages="Hi", model="m", stream=True, params={"stop": "lo", "max_tokens": 5})
    made = HTTP1Exchange.chat(chat, provider)
    sent = made.data_to_send()
    assert sent.startswith(b"POST /wp-json/mwai-ui/v1/chats/submit HTTP/1.1\r\nhost: site.example\r\n")
    assert b"x-wp-nonce: n0nce-of-the-class\r\n" in sent
    body = json.loads(sent.partition(b"\r\n\r\n")[2])
    assert (body["newMessage"], body["maxTokens"]) == ("Hi", 5)
    assert not {"stop", "max_tokens"} & body.keys()
    live = [{"type": "live", "data": word} for word in ("Hel", "lo", " you")]
    assert answered(made, *live, {"type": "end", "data": "{}"}) == "Hel", "stop is heeded here"


def test_a_site_that_gives_no_nonce_is_asked_without() -> None:
    made = HTTP1Exchange.chat(HI, Opchatgpts(url="http://old.example", historical=True))
    assert b"x-wp-nonce" not in made.data_to_send()


@pytest.mark.parametrize("nonce_from", ["default", "page"])
def test_a_nonce_that_would_have_to_be_fetched(nonce_from: str) -> None:
    site = Opchatgpts(url="http://fresh.example", nonce_from=nonce_from)
    with pytest.raises(ConfigurationError, match=r"takes no message before it has given a nonce.*set nonce"):
        HTTP1Exchange.chat(HI, site)


async def _awaited() -> str:
    raise AssertionError("nobody awaits it")


def test_a_key_that_has_to_be_awaited() -> None:
    with pytest.raises(ConfigurationError, match="awaitable"):
        HTTP1Exchange.chat(HI, Mine, api_key=_awaited)
    with pytest.raises(ConfigurationError, match="awaitable"):
        HTTP1Exchange.chat(HI, Mine(api_key=_awaited))


@pytest.mark.parametrize("provider", [Mine, MySite], ids=["server", "site"])
def test_limits_and_proxy_reach_the_machine(provider: Any) -> None:
    made = HTTP1Exchange.chat(HI, provider, limits=Limits(head=50), proxy=PROXY)
    sent = made.data_to_send()
    assert sent.startswith(b"POST http://")
    assert b"\r\nproxy-authorization: Basic " in sent
    error = failure(made.receive(b"x" * 50))
    assert isinstance(error, LimitExceededError)
    assert error.limit == 50
    assert "via proxy http://proxy.example:3128" in str(error)
    direct = HTTP1Exchange.chat(HI, provider)
    assert b"proxy" not in direct.data_to_send()
    assert "proxy" not in str(failure(direct.end()))


@pytest.mark.parametrize("provider", [Mine, MySite], ids=["server", "site"])
def test_no_secret_is_said_back(provider: Any) -> None:
    made = HTTP1Exchange.chat(HI, provider, proxy=PROXY)
    secrets = ["sk-of-the-class", "n0nce-of-the-class", "pass-word", "bWU6cGFzcy13b3Jk"]
    words = shown(failure(made.receive("HTTP/1.1 200 OK\r\nyou said {}\r\n\r\n".format(" ".join(secrets)).encode())))
    own = {"sk-of-the-class"} if provider is MySite else {"n0nce-of-the-class"}
    assert not any(secret in words for secret in set(secrets) - own)


def test_the_environment_s_proxy_is_nobody_s_business(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who owns the connection knows where it leads."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example")
    monkeypatch.setenv("ALL_PROXY", "http://proxy.example")
    made = HTTP1Exchange.chat(HI, Mine)
    assert made.data_to_send().startswith(b"POST /v1/")
    assert "proxy" not in str(failure(made.end()))


def test_messages_that_can_not_be_sent() -> None:
    with pytest.raises(ConfigurationError):
        HTTP1Exchange.chat(ChatRequest(messages=5, model="m"), Mine)
    with pytest.raises(ConfigurationError, match="blank"):
        HTTP1Exchange.chat(ChatRequest(messages=" ", model="m"), MySite)
