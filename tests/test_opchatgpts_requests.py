"""`Opchatgpts`, a declaration: what it sends, and what it refuses to send."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from driving import HI, Driver, Run
from sites import body, fields, submits

from deltawire import (
    AsyncClient,
    Client,
    ConfigurationError,
    Opchatgpts,
    __version__,
)
from deltawire.testing import Answer, ChatServer

MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "And the water? 水"},
]
HISTORY = MESSAGES[:-1]


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(max_retries=0) as made:
        yield made


def ask(client: Client, provider: Any, messages: Any = MESSAGES, model: str = "gpt-4", **parameters: Any) -> str:
    completion = client.chat.completions.create(messages, model, provider=provider, **parameters)
    return completion.choices[0].message.content or ""


# --- Today's request, and that of 2023 ----------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_today_s_request(driver: Driver, server: ChatServer, stream: bool) -> None:
    provider = Opchatgpts(url=server.site_url, chat_id="k3p9w1abcd")
    assert driver.ask({"provider": provider}, stream=stream).text == "Hello"
    start, submit = server.requests
    said: dict[str, Any] = {
        "botId": "default",
        "customId": None,
        "session": "0000000000001",
        "chatId": "k3p9w1abcd",
        "contextId": None,
        "messages": [],
        "newMessage": "Hi",
        "newFileId": None,
        "newFileIds": None,
        "stream": stream,
    }
    assert submit.body == json.dumps(said, separators=(",", ":")).encode()
    assert (submit.method, submit.target) == ("POST", "/wp-json/mwai-ui/v1/chats/submit")
    common = {
        "host": f"127.0.0.1:{server.port}",
        "accept-encoding": "identity",
        "user-agent": f"deltawire/{__version__}",
    }
    assert fields(submit) == {
        **common,
        "accept": "text/event-stream" if stream else "application/json",
        "content-type": "application/json",
        "x-wp-nonce": server.nonce,
        "content-length": str(len(submit.body)),
    }
    assert (start.method, start.target, start.body) == ("POST", "/wp-json/mwai/v1/start_session", b"")
    assert fields(start) == {**common, "accept": "application/json", "content-length": "0"}


@pytest.mark.parametrize("stream", [True, False])
def test_the_historical_request(driver: Driver, stream: bool) -> None:
    with ChatServer(tokens=["Hel", "lo"], needs_nonce=False) as server:
        provider = Opchatgpts(url=server.site_url, historical=True, chat_id="k3p9w1abcd")
        assert driver.ask({"provider": provider}, stream=stream).text == "Hello"
        (submit,) = server.requests
        said = {
            "botId": "default",
            "chatId": "k3p9w1abcd",
            "contextId": 28,
            "customId": None,
            "messages": HI,
            "newMessage": "Hi",
            "session": "N/A",
            "stream": True,
        }
        assert submit.body == json.dumps(said, separators=(",", ":")).encode()
        assert submit.target == "/wp-json/mwai-ui/v1/chats/submit"
        sent = fields(submit)
        assert re.fullmatch(r"Mozilla/5\.0 \(Windows .*Safari/[\d.]+", sent.pop("user-agent"))
        assert sent == {
            "host": f"127.0.0.1:{server.port}",
            "accept-encoding": "identity",
            "accept": "*/*",
            "accept-language": "de,en-US;q=0.7,en;q=0.3",
            "origin": server.site_url,
            "referer": f"{server.site_url}/chatgpt-free-use/",
            "content-type": "application/json",
            "content-length": str(len(submit.body)),
        }


# --- Options ------------------------------------------------------------------------------------------

# What a declaration says, and what changes in the body.
TODAY: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"botId": "default", "messages": HISTORY, "newMessage": "And the water? 水"}),
    ({"bot_id": "chatbot-x1"}, {"botId": "chatbot-x1"}),
    ({"bot_id": None, "custom_id": "c1"}, {"botId": None, "customId": "c1"}),
    ({"context_id": 7}, {"contextId": 7}),
    ({"context_id": 0}, {"contextId": 0}),
    ({}, {"session": "0000000000001"}),
    ({"session": "mine"}, {"session": "mine"}),
    ({"session": "mine", "nonce_from": None}, {"session": "mine"}),
    ({"nonce_from": None}, {"session": None}),
    ({"chat_id": "abc"}, {"chatId": "abc"}),
    ({"history_with_last": True}, {"messages": MESSAGES}),
    ({"supports_system_message": False}, {"messages": [{"role": "user", "content": "Be kind.\n\nHi"}, HISTORY[2]]}),
    (
        {"supports_message_history": False},
        {"messages": [], "newMessage": "System: Be kind.\n\nUser: Hi\n\nAssistant: Hello!\n\nUser: And the water? 水"},
    ),
]
OF_OLD: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"messages": MESSAGES, "newMessage": "And the water? 水", "contextId": 28, "session": "N/A"}),
    ({"history_with_last": False}, {"messages": HISTORY}),
    ({"context_id": 2, "session": "s1"}, {"contextId": 2, "session": "s1"}),
    ({"nonce_from": "start_session"}, {"session": "0000000000001"}),
]


@pytest.mark.parametrize(
    ("attributes", "said"), [*TODAY, *[({"historical": True, **attributes}, said) for attributes, said in OF_OLD]]
)
def test_options(client: Client, attributes: dict[str, Any], said: dict[str, Any]) -> None:
    with ChatServer(tokens=["Hel", "lo"], needs_nonce=False) as server:
        ask(client, Opchatgpts(url=server.site_url, **attributes))
        sent = body(server)
        assert {name: sent[name] for name in said} == said
        # In a subclass they mean the same.
        ask(client, type("Site", (Opchatgpts,), {"url": server.site_url, **attributes}))
        again = body(server)
        # But for what each conversation, and each session, has of its own.
        assert {**again, "chatId": sent["chatId"], "session": sent["session"]} == sent


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"temperature": 0.2, "botId": "x"}, {"temperature": 0.2, "botId": "x"}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"instructions": "", "model_x": False}, {"instructions": "", "model_x": False}),
        ({"max_tokens": 4}, {"maxTokens": 4}),
        ({"max_completion_tokens": 4}, {"maxTokens": 4}),
        ({"maxTokens": 5}, {"maxTokens": 5}),
        ({"newMessage": "y"}, {"newMessage": "y"}),
        ({"extra_body": {"contextId": None, "messages": [], "max_tokens": 1}}, {"messages": [], "max_tokens": 1}),
        ({"temperature": 1, "extra_body": {"temperature": 2}}, {"temperature": 2}),
        ({"prompt": "Why?"}, {"messages": MESSAGES, "newMessage": "Why?"}),
        ({"prompt": "And the water? 水"}, {"messages": HISTORY}),
    ],
)
def test_parameters_go_into_the_body_and_win(
    client: Client, server: ChatServer, parameters: dict[str, Any], said: dict[str, Any]
) -> None:
    ask(client, Opchatgpts(url=server.site_url), **parameters)
    sent = body(server)
    assert {name: sent[name] for name in said} == said
    assert not {"model", "max_tokens", "prompt", "stop"} & sent.keys() - said.keys()


def test_none_means_not_said(client: Client, server: ChatServer) -> None:
    provider = Opchatgpts(url=server.site_url, chat_id="a")
    ask(client, provider)
    ask(client, provider, temperature=None, max_tokens=None, stop=None, prompt=None, botId=None)
    first, second = submits(server)
    assert first.body == second.body


def test_the_kwargs_of_create_async_generator(run: Run, server: ChatServer) -> None:
    async def main() -> str:
        answer = Opchatgpts(url=server.site_url).create_async_generator("", MESSAGES, temperature=0.2, contextId=9)
        return "".join([str(piece) async for piece in answer])

    assert run(main) == "Hello"
    sent = body(server)
    assert (sent["temperature"], sent["contextId"], sent["stream"]) == (0.2, 9, True)
    assert not {"proxy", "timeout", "model"} & sent.keys()


def test_messages_are_read_once(client: Client, server: ChatServer) -> None:
    server.plan(Answer.error(503, retry_after=0.01))
    assert ask(client, Opchatgpts(url=server.site_url), (each for each in MESSAGES), max_retries=1) == "Hello"
    first, second = submits(server)
    assert first.body == second.body
    assert second.json()["messages"] == HISTORY


def test_a_conversation_is_another_one_with_each_call(client: Client, server: ChatServer) -> None:
    server.plan(Answer.error(503, retry_after=0.01))
    provider = Opchatgpts(url=server.site_url)
    ask(client, provider, max_retries=1)
    ask(client, provider)
    first, again, second = [request.json()["chatId"] for request in submits(server)]
    assert first == again != second
    assert all(re.fullmatch("[a-z0-9]{10}", name) for name in (first, second))


ROUTE, START = "rest_route=/mwai-ui/v1/chats/submit", "rest_route=/mwai/v1/start_session"


@pytest.mark.parametrize(
    ("below", "attributes", "targets"),
    [
        ("", {}, ["/wp-json/mwai/v1/start_session", "/wp-json/mwai-ui/v1/chats/submit"]),
        ("/blog/", {}, ["/blog/wp-json/mwai/v1/start_session", "/blog/wp-json/mwai-ui/v1/chats/submit"]),
        (
            "",
            {
                "path": "/?rest_route=/mwai-ui/v1/chats/submit",
                "session_path": "/index.php?rest_route=/mwai/v1/start_session",
            },
            ["/index.php?rest_route=/mwai/v1/start_session", "/?rest_route=/mwai-ui/v1/chats/submit"],
        ),
        ("", {"path": "/?" + ROUTE}, ["/?" + START, "/?" + ROUTE]),
        ("/?" + ROUTE, {}, ["/?" + START, "/?" + ROUTE]),
        ("", {"nonce_from": "page"}, ["/", "/wp-json/mwai-ui/v1/chats/submit"]),
        ("", {"nonce_from": None, "nonce": "first"}, ["/wp-json/mwai-ui/v1/chats/submit"]),
    ],
)
def test_urls(client: Client, server: ChatServer, below: str, attributes: dict[str, Any], targets: list[str]) -> None:
    if "nonce" in attributes:
        attributes = {**attributes, "nonce": server.nonce}
    assert ask(client, Opchatgpts(url=server.site_url + below, **attributes)) == "Hello"
    assert [request.target for request in server.requests] == targets
    assert submits(server)[0].header("x-wp-nonce") == server.nonce


def test_the_page_with_the_chatbot(client: Client) -> None:
    with ChatServer(tokens=["Hello"], page="/chat/") as server:
        provider = Opchatgpts(url=server.site_url, nonce_from="page", page_path="/chat/")
        assert ask(client, provider) == "Hello"
        page, submit = server.requests
        assert (page.method, page.target, page.header("accept")) == ("GET", "/chat/", "text/html")
        assert submit.json()["session"] == "0000000000001"


def test_header_fields_go_with_every_request(server: ChatServer) -> None:
    provider = Opchatgpts(
        url=server.site_url, headers={"X-A": "provider", "X-B": "provider", "X-C": "provider", "User-Agent": None}
    )
    with Client(default_headers={"X-B": "client", "X-C": "client"}, default_query={"lang": "de"}) as client:
        ask(client, provider, extra_headers={"X-C": "call"}, extra_query={"a": 1})
    for request in server.requests:
        assert [request.header(name) for name in ("x-a", "x-b", "x-c")] == ["provider", "client", "call"]
        assert request.header("user-agent") is None
        assert request.target.endswith("?lang=de&a=1")


def test_a_key_is_for_others(driver: Driver, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is the site where the environment has the OpenAI API."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    options = {"provider": Opchatgpts(url=server.site_url), "api_key": "sk-secret", "organization": "sk-secret"}
    assert driver.ask(options, api_key="sk-secret").text == "Hello"
    for request in server.requests:
        assert "sk-secret" not in repr((request.headers, request.body, request.target))


# --- Stop words, which are heeded here -----------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("stop", ["END", ["x", "END"], ("END",)])
def test_stop(driver: Driver, server: ChatServer, stop: Any, stream: bool) -> None:
    server.plan(Answer(tokens=["One, ", "two E", "N", "D three", " END"]))
    heard = driver.ask({"provider": Opchatgpts(url=server.site_url)}, stream=stream, stop=stop)
    assert (heard.text, heard.error) == ("One, two ", None)
    assert "stop" not in body(server)
    whole = heard.reply.partial() if stream else heard.reply
    assert whole.choices[0].finish_reason == "stop"
    # What comes after a stop word in a stream is not waited for, the usage among it.
    assert (whole.usage is None) is stream


@pytest.mark.parametrize("stream", [True, False])
def test_what_begins_like_a_stop_word_is_given_in_the_end(driver: Driver, server: ChatServer, stream: bool) -> None:
    server.plan(Answer(tokens=["One, ", "two E", "N"]))
    heard = driver.ask({"provider": Opchatgpts(url=server.site_url)}, stream=stream, stop="END")
    assert heard.text == "One, two EN"
    whole = heard.reply.partial() if stream else heard.reply
    assert whole.usage is not None


# --- Refused before anything is sent -------------------------------------------------------------------

IMAGE = [{"type": "image_url", "image_url": {"url": "https://x/a.png"}}, {"type": "text", "text": "What is it?"}]


@pytest.mark.parametrize("historical", [False, True])
@pytest.mark.parametrize(
    ("messages", "parameters", "words"),
    [
        (" \n", {}, "blank"),
        ([], {}, "blank"),
        ([{"role": "user", "content": IMAGE}], {}, "texts only"),
        ([{"role": "user", "content": IMAGE}, *HI], {}, "texts only"),
        ("Hi", {"media": [(b"\x89PNG\r\n\x1a\n", "a.png")]}, "leave out media"),
        ("Hi", {"temperature": float("nan")}, "finite"),
        ("Hi", {"api_endpoint": "https://example.org/chat"}, "as base_url"),
        ("Hi", {"extra_headers": {"x": "a\r\nb"}}, "x"),
        ("Hi", {"stop": 5}, "stop"),
    ],
)
def test_what_can_t_be_sent(
    run: Run, server: ChatServer, messages: Any, parameters: dict[str, Any], words: str, historical: bool
) -> None:
    provider = Opchatgpts(url=server.site_url, historical=historical)

    async def main() -> None:
        async with AsyncClient(provider) as client:
            await client.chat.completions.create(messages, stream=True, **parameters)

    with Client(provider) as client, pytest.raises(ConfigurationError, match=words):
        client.chat.completions.create(messages, **parameters)
    with pytest.raises(ConfigurationError, match=words):
        run(main)
    with pytest.raises(ConfigurationError, match=words):
        provider.create_generator("", messages, **parameters)
    assert server.connections == 0


def test_it_only_chats(client: Client, server: ChatServer) -> None:
    provider = Opchatgpts(url=server.site_url)
    for call in (
        lambda: client.models.list(provider=provider),
        lambda: client.images.generate("a cat", provider=provider),
    ):
        with pytest.raises(ConfigurationError, match="is for chats"):
            call()
    assert server.connections == 0


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"url": None}, "has no url"),
        ({"url": "example.org"}, "url must begin with http"),
        ({"nonce_from": "air"}, "nonce_from"),
        ({"bot_id": None}, "bot"),
        ({"path": "submit"}, "begins with '/'"),
        ({"headers": {"a b": "x"}}, "header name"),
    ],
)
def test_bad_declarations(client: Client, server: ChatServer, attributes: dict[str, Any], words: str) -> None:
    provider = Opchatgpts(**{"url": server.site_url, **attributes})
    with pytest.raises(ConfigurationError, match=words):
        ask(client, provider)
    assert server.connections == 0


def test_attributes_are_spelt_right() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'bot_id'"):
        Opchatgpts(botid="x")
