"""llama-cpp-python's server with a tiny model of random words: a real inference server, on uvicorn."""

from __future__ import annotations

import json
import time

import pytest
from interop_calls import FORCED, PROMPT, TOOL, Ask, ask, converse, words
from interop_proxies import Route
from interop_servers import KEY, Authority, Llama, Server, StartLlama

from deltawire import (
    AuthenticationError,
    BadRequestError,
    Client,
    InternalServerError,
    MissingAuthError,
    NotFoundError,
    TruncatedStreamError,
)

pytestmark = [pytest.mark.interop("llama"), pytest.mark.usefixtures("transports")]

# A server that is slow enough without all of them.
ROUTES = ("squid", "tinyproxy", "microsocks")

CONTEXT = 8192
TOO_LONG = [{"role": "user", "content": "the river " * CONTEXT}]


@pytest.fixture(scope="session")
def patient_tls(start_llama: StartLlama, authority: Authority) -> Server:
    files = ["--ssl_keyfile", authority.key, "--ssl_certfile", authority.certificate]
    return start_llama("llama-tls", "--interrupt_requests", "false", *files)


@pytest.fixture(params=["http", "https"])
def llama(request: pytest.FixtureRequest, authority: Authority) -> Llama:
    """The server, and the client's options for it."""
    secure = request.param == "https"
    server: Server = request.getfixturevalue("patient_tls" if secure else "patient")
    return server, {"base_url": f"{request.param}://{server.address}/v1", "verify": authority.ca}


@pytest.fixture(scope="session")
def hasty(start_llama: StartLlama) -> str:
    """The base URL of a server that wants a key, and breaks off a reply when another request comes."""
    return f"http://{start_llama('llama-hasty', '--api_key', KEY).address}/v1"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_chat(flavour: str, route: Route, llama: Llama, stream: bool) -> None:
    told = ask(flavour, Ask(model="tiny", stream=stream, options=words(20)), **llama[1], **route.options)
    completion = told.good()
    assert told.text.strip()
    assert told.finish_reason == "length"
    assert completion.model == "tiny"
    assert completion.id.startswith("chatcmpl-")
    assert completion.choices[0].message.role == "assistant"
    if stream:
        # It has a chunk for the role, for each token and for the end; and no usage, though one asks for it.
        assert len(told.chunks) >= 20
        assert told.header("x-request-id")
    else:
        assert completion.usage is not None
        assert completion.usage.completion_tokens == 20


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_end_at_a_stop_word(flavour: str, patient: Server, stream: bool) -> None:
    options = words(2000, stop=[" the", " of", " is", " you", " all"])
    told = ask(flavour, Ask(model="tiny", stream=stream, options=options), base_url=f"http://{patient.address}/v1")
    assert told.finish_reason == "stop"
    assert " the" not in told.text


def test_stream_and_whole_say_the_same(flavour: str, llama: Llama) -> None:
    asks = [Ask(model="tiny", stream=stream, options=words(300, temperature=0)) for stream in (False, True)]
    talk = converse(flavour, asks, **llama[1])
    assert talk.told[0].text == talk.told[1].text
    # Some of its words are not ASCII; a character's bytes never come apart.
    assert "�" not in talk.told[0].text


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_tool_call(flavour: str, route: Route, llama: Llama, stream: bool) -> None:
    options = words(100, tools=[TOOL], tool_choice=FORCED)
    told = ask(flavour, Ask(model="tiny", stream=stream, options=options), **llama[1], **route.options)
    assert told.finish_reason == "tool_calls"
    (call,) = told.good().choices[0].message.tool_calls or []
    assert call.id
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments or "")["city"] in ("Paris", "Rome")
    # The message and a tool's answer make a next request that the server takes.
    message = told.good().choices[0].message
    answer = {"role": "tool", "tool_call_id": call.id, "content": "Rain."}
    then = Ask(model="tiny", messages=[*PROMPT, message, answer], stream=stream, options=words(5))
    assert ask(flavour, then, **llama[1], **route.options).text


def test_json_and_logprobs(flavour: str, patient: Server) -> None:
    asks = [
        Ask(model="tiny", stream=stream, options=words(8, logprobs=True, top_logprobs=2)) for stream in (False, True)
    ]
    talk = converse(flavour, asks, base_url=f"http://{patient.address}/v1")
    for told in talk.told:
        logprobs = told.good().choices[0].logprobs
        assert logprobs is not None
        assert "".join(token.token for token in logprobs.content or []) == told.text
        assert all(token.top_logprobs for token in logprobs.content or [])


def test_models(flavour: str, route: Route, llama: Llama) -> None:
    assert ask(flavour, Ask(models=True), **llama[1], **route.options).models == ["tiny"]


def test_connections_are_kept(flavour: str, llama: Llama) -> None:
    asks = [Ask(models=True), *(Ask(model="tiny", stream=stream, options=words(5)) for stream in (True, False) * 10)]
    talk = converse(flavour, asks, **llama[1])
    assert all(told.text for told in talk.told[1:])
    assert (talk.busy, talk.idle) == (0, 1)


@pytest.mark.parametrize("scoped", [False, True], ids=["dropped", "closed"])
def test_an_early_end_frees_the_server(flavour: str, route: Route, llama: Llama, scoped: bool) -> None:
    server, options = llama
    start = server.size()
    asks = [
        Ask(model="tiny", take=3, scoped=scoped, options=words(CONTEXT - 100)),
        Ask(model="tiny", stream=False, options=words(5)),
        Ask(model="tiny", options=words(5)),
    ]
    talk = converse(flavour, asks, **options, **route.options)
    assert len(talk.told[0].chunks) == 3
    assert talk.told[1].text
    assert talk.told[2].text
    assert talk.busy == 0
    until = time.monotonic() + 5
    while "isconnected from client" not in server.tail(start) and time.monotonic() < until:
        time.sleep(0.02)
    assert "isconnected from client" in server.tail(start)


def test_ten_at_once(flavour: str, route: Route, llama: Llama) -> None:
    asks = [Ask(model="tiny", options={"max_tokens": 20 + number}) for number in range(10)]
    talk = converse(flavour, asks, together=True, **llama[1], **route.options)
    assert [told.finish_reason for told in talk.told] == ["length"] * 10
    assert [len(told.chunks) >= 10 for told in talk.told] == [True] * 10
    assert talk.busy == 0


def test_a_prompt_that_is_too_long(flavour: str, route: Route, llama: Llama) -> None:
    told = ask(flavour, Ask(model="tiny", messages=TOO_LONG, stream=False), **llama[1], **route.options)
    assert isinstance(told.error, BadRequestError)
    assert told.error.status_code == 400
    assert told.error.code == "context_length_exceeded"
    assert f"This model's maximum context length is {CONTEXT} tokens." in str(told.error)
    # When a stream is asked for, the server says 200, not one byte more, and closes.
    told = ask(flavour, Ask(model="tiny", messages=TOO_LONG), **llama[1], **route.options)
    assert isinstance(told.error, TruncatedStreamError)
    assert "the reply is empty" in str(told.error)
    assert told.error.request_id
    assert told.error.partial is None


def test_a_call_after_a_stream_that_died(flavour: str, llama: Llama) -> None:
    # Zero bytes of body, in good order; a moment later the server closes the connection. Until then it would take the
    # next request on it, and lose that: so the next one goes over another.
    asks = [Ask(model="tiny", messages=TOO_LONG), Ask(model="tiny", options=words(5))] * 3
    talk = converse(flavour, asks, **llama[1])
    assert [type(told.error) for told in talk.told[::2]] == [TruncatedStreamError] * 3
    assert all(told.text for told in talk.told[1::2])
    assert (talk.busy, talk.idle) == (0, 1)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_what_the_server_refuses(flavour: str, route: Route, patient: Server, hasty: str, stream: bool) -> None:
    one = Ask(model="tiny", stream=stream, options=words(5))
    wrong = ask(flavour, one, base_url=hasty, api_key="sk-wrong-key", **route.options).error
    assert type(wrong) is AuthenticationError
    assert wrong.status_code == 401
    assert "Invalid API key" in str(wrong)
    assert "sk-wrong-key" not in str(wrong)
    assert type(ask(flavour, one, base_url=hasty, api_key=None, **route.options).error) is MissingAuthError
    lost = ask(flavour, one, base_url=f"http://{patient.address}/v2", **route.options).error
    assert isinstance(lost, NotFoundError)
    assert "Not Found" in str(lost)
    # What others answer with 422, it answers with 500.
    odd = Ask(model="tiny", stream=stream, options={"extra_body": {"max_tokens": "many"}})
    bad = ask(flavour, odd, base_url=f"http://{patient.address}/v1", **route.options).error
    assert isinstance(bad, InternalServerError)
    assert "Input should be a valid integer" in str(bad)
    assert ask(flavour, one, base_url=hasty, **route.options).text


def test_a_reply_that_another_request_interrupts(hasty: str) -> None:
    with Client(base_url=hasty, api_key=KEY, max_retries=0, timeout=30) as client:
        first = client.chat.completions.create(PROMPT, "tiny", stream=True, **words(CONTEXT - 100))
        chunks = [next(first) for _ in range(3)]
        second = client.chat.completions.create(PROMPT, "tiny", **words(5))
        assert second.choices[0].message.content
        # The first ends with [DONE], but no finish reason, and without the last HTTP chunk.
        chunks += first
        assert len(chunks) < CONTEXT - 200
        assert {choice.finish_reason for chunk in chunks for choice in chunk.choices} == {None}
        assert client.chat.completions.create(PROMPT, "tiny", **words(5)).choices[0].message.content
