"""The OpenAI SDK and httpx before our server: what others make of it, and whether we make the same of it.

The SDK validates each reply against its own types (`_strict_response_validation`).
"""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from driving import STALLED
from interop_calls import Ask, Told, ask
from interop_peers import PEERS, Peer, Program, Wish, folded, nameless
from interop_servers import KEY, Authority, variable

from deltawire import APIStatusError, InternalServerError, ReadError, TruncatedStreamError
from deltawire.testing import Answer, ChatServer, ProxyServer, SocksServer

pytestmark = pytest.mark.interop("peers")

WORDS = ["One", " two", "\n\n", " naïve", " 🙂", "."]
CALLS: list[dict[str, Any]] = [
    {"id": "call_1", "name": "get_weather", "arguments": ['{"city":', ' "Os', 'lo"}']},
    {"id": "call_2", "name": "now", "arguments": {}},
]
USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 4,
    "total_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
ASKED = {"stream_options": {"include_usage": True}}

CHUNK = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "local-model",
    "choices": [{"index": 0, "delta": {"content": "One"}, "finish_reason": None}],
}

# Of each: the answer, and what is asked for beside the messages.
SPOKEN: dict[str, tuple[Answer, dict[str, Any]]] = {
    "text": (Answer(tokens=WORDS), {}),
    "nothing": (Answer(tokens=[]), {}),
    "a long text": (Answer(tokens=["word "] * 2000, finish_reason="length"), {}),
    "reasoning": (Answer(tokens=WORDS, reasoning=["Let", " me", " think."]), {}),
    "tool calls": (Answer(tool_calls=CALLS), {}),
    "text and tool calls": (Answer(tokens=WORDS, tool_calls=CALLS), {}),
    "usage": (Answer(tokens=WORDS), ASKED),
    "usage in detail": (Answer(tokens=WORDS, usage=USAGE), ASKED),
    "three choices": (Answer(tokens=WORDS), {"n": 3}),
    "three choices of tool calls": (Answer(tool_calls=CALLS), {"n": 3, **ASKED}),
    "pieces as small as can be": (Answer(tokens=list("🙂é\\\"'\u2028 ")), {}),
}


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    running = Program(variable("_PEERS"), tmp_path_factory.mktemp("peers") / "output.log")
    yield running
    running.stop()


@pytest.fixture(params=PEERS)
def peer(request: pytest.FixtureRequest, flavour: str, program: Program) -> Peer:
    """Each client, in each flavour."""
    return Peer(request.param, flavour, program)


@pytest.fixture
def sdk(flavour: str, program: Program) -> Peer:
    """The OpenAI SDK."""
    return Peer("openai", flavour, program)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(tokens=WORDS, api_key=KEY) as running:
        yield running


def expected(answer: Answer, choices: int) -> list[dict[str, Any]]:
    """What `folded` is to give of an answer, but for the usage."""
    calls = [{"id": "call_1", "name": "get_weather", "arguments": '{"city": "Oslo"}'}]
    calls.append({"id": "call_2", "name": "now", "arguments": "{}"})
    said = {
        "text": "".join(answer.tokens or ()),
        "reasoning": "".join(answer.reasoning or ()),
        "tool_calls": calls if answer.tool_calls else [],
        "finish_reason": answer.finish_reason,
        "role": "assistant",
    }
    return [{"index": index, **said} for index in range(choices)]


def shown(payloads: list[dict[str, Any]], like: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The choices, with those fields that the expected ones have."""
    *choices, _ = folded(payloads)
    return [{name: choice[name] for name in wanted} for choice, wanted in zip(choices, like, strict=True)]


@pytest.mark.usefixtures("transports")
@pytest.mark.parametrize("do", ["chat", "stream"])
@pytest.mark.parametrize("spoken", SPOKEN)
def test_what_is_said(peer: Peer, flavour: str, server: ChatServer, spoken: str, do: str) -> None:
    answer, asked = SPOKEN[spoken]
    stream = do == "stream"
    parameters = asked if stream else {name: value for name, value in asked.items() if name != "stream_options"}
    server.plan(answer, answer)
    said = peer.ask(Wish(do=do, parameters=parameters), base_url=server.url)
    told = ask(flavour, Ask(stream=stream, options=parameters), base_url=server.url, api_key=KEY)
    # The same payloads, one by one; what we make of them all is what the plan said.
    ours = [chunk.to_dict() for chunk in told.chunks] if stream else [told.good().to_dict()]
    assert nameless(said.good()) == nameless(ours)
    wanted = expected(answer, asked.get("n", 1))
    assert shown(said.good(), wanted) == shown([told.good().to_dict()], wanted) == wanted
    assert folded(said.good())[-1] == folded([told.good().to_dict()])[-1]
    if not stream or asked.get("stream_options"):
        assert folded(said.good())[-1]["usage"] is not None
    if answer.usage is not None:
        assert said.good()[-1]["usage"] == USAGE
    theirs, mine = (each.json() for each in server.requests)
    assert theirs == mine


@pytest.mark.parametrize("spoken", SPOKEN)
def test_what_the_sdk_accumulates(sdk: Peer, server: ChatServer, spoken: str) -> None:
    answer, asked = SPOKEN[spoken]
    server.plan(answer)
    said = sdk.ask(Wish(do="accumulated", parameters=asked), base_url=server.url)
    if answer.finish_reason == "length":
        # Its helper takes a completion that was too long for an error.
        assert said.failed()["kind"] == "LengthFinishReasonError"
        return
    wanted = expected(answer, asked.get("n", 1))
    assert shown(said.good(), wanted) == wanted
    assert (folded(said.good())[-1]["usage"] is not None) == bool(asked.get("stream_options"))


@pytest.mark.usefixtures("transports")
def test_models(peer: Peer, flavour: str) -> None:
    models: list[Any] = ["small", {"id": "large", "owned_by": "somebody"}]
    with ChatServer(models=models) as server:
        said = peer.ask(Wish(do="models"), base_url=server.url)
        assert [model["id"] for model in said.reply] == ["small", "large"]
        assert [model["owned_by"] for model in said.reply] == ["deltawire", "somebody"]
        assert ask(flavour, Ask(models=True), base_url=server.url).models == ["small", "large"]


def test_one_model(sdk: Peer) -> None:
    with ChatServer(models=["some/model", "small"]) as server:
        wishes = [Wish(do="model", parameters={"model": name}) for name in ("some/model", "no/model")]
        found, lost = sdk.converse([Wish(do="models"), *wishes], base_url=server.url)[1:]
        assert found.good()[0]["id"] == "some/model"
        assert (lost.failed()["kind"], lost.failed()["code"]) == ("NotFoundError", "model_not_found")


def test_images(peer: Peer, server: ChatServer) -> None:
    wishes = [Wish(do="images", parameters={"n": 2, "response_format": kind}) for kind in ("url", "b64_json")]
    links, inside = peer.converse(wishes, base_url=server.url)
    assert links.error is inside.error is None
    fetched = [urllib.request.urlopen(each["url"], timeout=10).read() for each in links.reply["data"]]
    assert fetched == [base64.b64decode(each["b64_json"]) for each in inside.reply["data"]]
    assert len(set(fetched)) == 2
    wrong = peer.ask(Wish(do="images", parameters={"response_format": "gif"}), base_url=server.url).failed()
    assert (wrong["status_code"], wrong["param"]) == (400, "response_format")


# Errors


ERRORS = [
    Answer.error(400, "Too many words.", code="context_length_exceeded"),
    Answer.error(401),
    Answer.error(403),
    Answer.error(404, "No such model.", code="model_not_found"),
    Answer.error(409),
    Answer.error(422),
    Answer.error(429, "Slow down.", retry_after=1),
    Answer.error(500, "It broke.", type="server_error"),
    Answer.error(503),
]


@pytest.mark.usefixtures("transports")
@pytest.mark.parametrize("do", ["chat", "stream"])
@pytest.mark.parametrize("answer", ERRORS, ids=lambda answer: str(answer.status))
def test_errors(peer: Peer, flavour: str, server: ChatServer, answer: Answer, do: str) -> None:
    server.plan(answer, answer)
    theirs = peer.ask(Wish(do=do), base_url=server.url).failed()
    ours = ask(flavour, Ask(stream=do == "stream"), base_url=server.url, api_key=KEY).error
    assert isinstance(ours, APIStatusError)
    assert answer.failure is not None
    assert theirs["status_code"] == ours.status_code == answer.status
    assert theirs["body"] == ours.body
    assert theirs["body"]["message"] == answer.failure.message
    assert (theirs["code"], theirs["type"], theirs["param"]) == (ours.code, ours.type, ours.param)
    assert (theirs["request_id"], ours.request_id) == ("req_1", "req_2")
    # The SDK's classes are ours by name.
    assert theirs["kind"] == (type(ours).__name__ if peer.name == "openai" else "HTTPStatusError")


def test_a_wrong_key(peer: Peer, server: ChatServer) -> None:
    for do in ("stream", "chat", "models", "images"):
        wrong = peer.ask(Wish(do=do), base_url=server.url, api_key="sk-wrong").failed()
        assert (wrong["status_code"], wrong["code"]) == (401, "invalid_api_key")
        assert "Incorrect API key provided." in wrong["body"]["message"]


@pytest.mark.parametrize("do", ["chat", "stream"])
def test_the_sdk_waits_as_it_is_told(sdk: Peer, server: ChatServer, do: str) -> None:
    server.plan(Answer.error(429, retry_after=1))
    assert sdk.ask(Wish(do=do), base_url=server.url, max_retries=2).text == "".join(WORDS)
    first, second = server.requests
    assert (first.status, second.status) == (429, 200)
    assert [request.header("x-stainless-retry-count") for request in (first, second)] == ["0", "1"]
    # By itself it would wait half a second at most.
    assert second.arrived - first.arrived >= 1


def test_the_sdk_gives_up(sdk: Peer, server: ChatServer) -> None:
    server.plan(*[Answer.error(500, headers=[("retry-after-ms", "1")])] * 3)
    assert sdk.ask(Wish(), base_url=server.url, max_retries=2).failed()["kind"] == "InternalServerError"
    assert len(server.requests) == 3


@pytest.mark.usefixtures("transports")
def test_an_error_in_the_stream(peer: Peer, flavour: str, server: ChatServer) -> None:
    failure = {"message": "The engine died.", "type": "server_error", "param": None, "code": "engine_died"}
    events = [b"data: %b\n\n" % json.dumps(said).encode() for said in (CHUNK, {"error": failure})]
    server.plan(*[Answer(events=events)] * 2)
    said = peer.ask(Wish(), base_url=server.url)
    if peer.name == "openai":
        error = said.failed()
        # It has no class of its own for it.
        assert (error["kind"], error["message"], error["code"]) == ("APIError", "The engine died.", "engine_died")
        assert error["body"] == failure
    else:
        assert said.good()[-1] == {"error": failure}
    assert said.chunks[0]["choices"][0]["delta"] == {"content": "One"}
    ours = ask(flavour, Ask(), base_url=server.url, api_key=KEY)
    assert isinstance(ours.error, InternalServerError)
    assert "The engine died." in str(ours.error)
    assert ours.error.code == "engine_died"
    assert len(ours.chunks) == 1


# Replies that break off


@pytest.mark.usefixtures("transports")
@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_cut_stream(peer: Peer, flavour: str, server: ChatServer, ending: Any) -> None:
    server.plan(*[Answer(tokens=WORDS, finish_reason=None, done=False, ending=ending)] * 2)
    said = peer.ask(Wish(), base_url=server.url)
    error = said.failed()
    cause = "RemoteProtocolError" if ending == "close" else "ReadError"
    # The SDK hides the cause, which is the same.
    wanted = ("APIConnectionError", cause) if peer.name == "openai" else (cause, cause)
    assert (error["kind"], error["cause"]) == wanted
    # They heard what we hear.
    assert folded(said.chunks)[0]["text"] == "".join(WORDS)
    told = ask(flavour, Ask(), base_url=server.url, api_key=KEY)
    assert broken(told) == "".join(WORDS)


def broken(told: Told) -> str:
    """What had come of a reply that broke off."""
    assert isinstance(told.error, ReadError | TruncatedStreamError)
    assert told.error.partial is not None
    return told.error.partial.choices[0].message.content or ""


@pytest.mark.usefixtures("transports")
def test_a_stream_that_ends_too_soon(peer: Peer, flavour: str, server: ChatServer) -> None:
    # In good order, as HTTP sees it; only that nothing was finished.
    server.plan(*[Answer(tokens=WORDS, finish_reason=None, done=False)] * 2)
    # To the others it is a success.
    assert peer.ask(Wish(), base_url=server.url).text == "".join(WORDS)
    told = ask(flavour, Ask(), base_url=server.url, api_key=KEY)
    assert isinstance(told.error, TruncatedStreamError)
    assert broken(told) == "".join(WORDS)


@pytest.mark.parametrize("do", ["chat", "stream"])
@pytest.mark.parametrize("after", [0, 10], ids=["no byte", "in the head"])
def test_a_cut_head(peer: Peer, server: ChatServer, do: str, after: int) -> None:
    server.plan(Answer(cut_after=after))
    error = peer.ask(Wish(do=do), base_url=server.url).failed()
    assert error["kind"] == ("APIConnectionError" if peer.name == "openai" else "RemoteProtocolError")
    assert server.wait_outcome(0) == "cut"


def test_a_stalled_stream(peer: Peer, server: ChatServer) -> None:
    server.plan(STALLED)
    said = peer.ask(Wish(), base_url=server.url, timeout=1)
    assert said.failed()["kind"] == ("APITimeoutError" if peer.name == "openai" else "ReadTimeout")
    assert folded(said.chunks)[0]["text"] == "Hello"
    assert server.wait_outcome(0) == "client-closed"


# Time and connections


def test_tokens_are_not_held_back(peer: Peer, server: ChatServer) -> None:
    # The server says no more after these: what arrives, arrives before the end.
    server.plan(Answer(tokens=WORDS, ending="stall"))
    said = peer.ask(Wish(take=1 + len(WORDS)), base_url=server.url)
    assert said.text == "".join(WORDS)
    assert server.wait_outcome(0) == "client-closed"


def test_a_slow_pace(peer: Peer, server: ChatServer) -> None:
    server.plan(Answer(tokens=WORDS, pace=0.1))
    said = peer.ask(Wish(), base_url=server.url)
    assert said.text == "".join(WORDS)
    assert said.seconds >= 0.1 * (len(WORDS) - 1)


def test_one_connection_for_all(peer: Peer, server: ChatServer) -> None:
    wishes = [Wish(do=do) for do in ("chat", "models", "images", "chat")] * 3
    assert all(said.error is None for said in peer.converse(wishes, base_url=server.url))
    assert (len(server.requests), server.connections) == (12, 1)


def test_one_connection_for_streams(peer: Peer, server: ChatServer) -> None:
    said = peer.converse([Wish()] * 5, base_url=server.url)
    assert [each.text for each in said] == ["".join(WORDS)] * 5
    # The SDK leaves the last chunk of HTTP unread where it blocks, and so loses the connection.
    loses = peer.name == "openai" and peer.flavour == "sync"
    assert server.connections == (5 if loses else 1)


def test_ten_at_once(peer: Peer, server: ChatServer) -> None:
    server.plan(*(Answer(tokens=[f"{number} ", *WORDS], pace=0.01) for number in range(10)))
    said = peer.converse([Wish()] * 10, together=True, base_url=server.url)
    assert sorted(each.text for each in said) == [f"{number} {''.join(WORDS)}" for number in range(10)]


# TLS, and our proxies


@pytest.fixture(params=["http", "https"])
def either(request: pytest.FixtureRequest, authority: Authority) -> Iterator[ChatServer]:
    """The server, with and without TLS."""
    context = authority.context if request.param == "https" else None
    with ChatServer(tokens=WORDS, api_key=KEY, ssl_context=context) as running:
        yield running


def test_tls(peer: Peer, authority: Authority) -> None:
    with ChatServer(tokens=WORDS, ssl_context=authority.context) as server:
        said = peer.converse([Wish(do=do) for do in ("chat", "stream")], base_url=server.url, ca=authority.ca)
        assert [each.text for each in said] == ["".join(WORDS)] * 2
        assert server.connections == 1
        error = peer.ask(Wish(), base_url=server.url).failed()
        assert error["kind"] == ("APIConnectionError" if peer.name == "openai" else "ConnectError")
        assert len(server.requests) == 2


WAYS = ["http", "https", "socks5", "socks5h"]
USER, PASSWORD = "me", "pa ss:w@rd"


@pytest.fixture(params=WAYS)
def between(request: pytest.FixtureRequest, authority: Authority) -> Iterator[tuple[ProxyServer | SocksServer, str]]:
    """Our proxies, locked, and each one's URL."""
    if request.param.startswith("socks"):
        with SocksServer(username=USER, password=PASSWORD) as socks:
            yield socks, socks.url if request.param == "socks5" else socks.remote_url
    else:
        context = authority.context if request.param == "https" else None
        with ProxyServer(username=USER, password=PASSWORD, ssl_context=context) as proxy:
            yield proxy, proxy.url


def test_through_our_proxies(
    peer: Peer, either: ChatServer, between: tuple[ProxyServer | SocksServer, str], authority: Authority
) -> None:
    proxy, url = between
    said = peer.converse([Wish(do="chat"), Wish(), Wish(do="chat")], base_url=either.url, proxy=url, ca=authority.ca)
    assert [each.text for each in said] == ["".join(WORDS)] * 3
    tunnelled = either.url.startswith("https:") or isinstance(proxy, SocksServer)
    assert {(each.method, each.authorized) for each in proxy.requests} == {("CONNECT" if tunnelled else "POST", True)}
    assert all(each.header("proxy-authorization") is None for each in either.requests)
    if tunnelled:
        assert len(proxy.requests) == either.connections


def test_a_refused_password(
    peer: Peer, either: ChatServer, between: tuple[ProxyServer | SocksServer, str], authority: Authority
) -> None:
    proxy, url = between
    wrong = url.replace("pa%20ss", "wrong")
    assert wrong != url
    error = peer.ask(Wish(), base_url=either.url, proxy=wrong, ca=authority.ca).failed()
    if isinstance(proxy, ProxyServer) and either.url.startswith("http:"):
        assert error["status_code"] == 407
    else:
        assert (error["kind"] if peer.name == "httpx" else error["cause"]) == "ProxyError"
    assert either.requests == []
    assert not any(each.authorized for each in proxy.requests)
