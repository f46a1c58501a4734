"""litellm's proxy server with mock models: FastAPI on uvicorn, errors and chunks of another making."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from interop_calls import FORCED, TOOL, Ask, ask, converse, words
from interop_proxies import Route
from interop_servers import KEY, StartServer, parts, variable

from deltawire import APIStatusError, BadRequestError, InternalServerError, NotFoundError, RateLimitError

pytestmark = [pytest.mark.interop("litellm"), pytest.mark.usefixtures("transports")]

# A server that is slow enough without all of them.
ROUTES = ("squid", "tinyproxy", "dante")

TEXT = "One two three, naïve 🙂 words in a row."
LENGTHY = "Many words. " * 200
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}

MODELS: dict[str, dict[str, Any]] = {
    "mock": {"mock_response": TEXT},
    "lengthy": {"mock_response": LENGTHY},
    "caller": {"mock_response": "", "mock_tool_calls": [CALL]},
    "limited": {"mock_response": "litellm.RateLimitError"},
    "broken": {"mock_response": "litellm.InternalServerError"},
    "full": {"mock_response": "litellm.ContextWindowExceededError"},
}

ERRORS: list[tuple[str, type[APIStatusError], int, str]] = [
    ("no-such-model", BadRequestError, 400, "Invalid model name passed in model=no-such-model"),
    ("limited", RateLimitError, 429, "this is a mock rate limit error"),
    ("broken", InternalServerError, 500, "this is a mock internal server error"),
    ("full", BadRequestError, 400, "this is a mock context window exceeded error"),
]


@pytest.fixture(scope="session")
def litellm(start_server: StartServer, request: pytest.FixtureRequest) -> str:
    """The base URL; with llama there too, its model "tiny" is served from there."""
    models = [
        {"model_name": name, "litellm_params": {"model": f"openai/{name}", "api_key": "none", **settings}}
        for name, settings in MODELS.items()
    ]
    if "llama" in parts():
        llama = request.getfixturevalue("patient")
        target = {"model": "openai/tiny", "api_key": "none", "api_base": f"http://{llama.address}/v1"}
        models.append({"model_name": "tiny", "litellm_params": target})
    config = {
        "model_list": models,
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"num_retries": 0, "telemetry": False},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    }

    def command(port: int, directory: Path) -> list[str | Path]:
        path = directory / "config.yaml"
        # JSON is YAML, but for surrogate pairs.
        path.write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
        program = Path(variable("_LITELLM")).with_name("litellm")
        return [program, "--config", path, "--host", "127.0.0.1", "--port", str(port)]

    # It must not look for the newest prices of all models on the internet.
    server = start_server("litellm", command, {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"})
    return f"http://{server.address}/v1"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_chat(flavour: str, route: Route, litellm: str, stream: bool) -> None:
    told = ask(flavour, Ask(model="mock", stream=stream), base_url=litellm, **route.options)
    assert told.text == TEXT
    assert told.finish_reason == "stop"
    assert told.good().choices[0].message.role == "assistant"
    if stream:
        assert len(told.chunks) > 3
    else:
        assert told.good().usage is not None


def test_usage_in_a_stream(flavour: str, route: Route, litellm: str) -> None:
    one = Ask(model="mock", options={"stream_options": {"include_usage": True}})
    told = ask(flavour, one, base_url=litellm, **route.options)
    assert told.text == TEXT
    usage = told.good().usage
    assert usage is not None
    assert usage.prompt_tokens
    assert usage.completion_tokens
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_two_choices(flavour: str, route: Route, litellm: str, stream: bool) -> None:
    told = ask(flavour, Ask(model="mock", stream=stream, options={"n": 2}), base_url=litellm, **route.options)
    choices = told.good().choices
    assert [choice.index for choice in choices] == [0, 1]
    assert [choice.message.content for choice in choices] == [TEXT, TEXT]
    # In a stream it never finishes the second.
    assert [choice.finish_reason for choice in choices] == ["stop", None if stream else "stop"]


def test_a_tool_call(flavour: str, route: Route, litellm: str) -> None:
    one = Ask(model="caller", stream=False, options={"tools": [TOOL]})
    (call,) = ask(flavour, one, base_url=litellm, **route.options).good().choices[0].message.tool_calls or []
    assert (call.id, call.type, call.function.name) == ("call_1", "function", "get_weather")
    assert json.loads(call.function.arguments or "") == {"city": "Paris"}


@pytest.mark.interop("llama")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_tool_call_of_llama_behind_it(flavour: str, route: Route, litellm: str, stream: bool) -> None:
    options = words(100, tools=[TOOL], tool_choice=FORCED)
    told = ask(flavour, Ask(model="tiny", stream=stream, options=options), base_url=litellm, **route.options)
    assert told.finish_reason == "tool_calls"
    (call,) = told.good().choices[0].message.tool_calls or []
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments or "")["city"] in ("Paris", "Rome")


@pytest.mark.interop("llama")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_llama_behind_it(flavour: str, litellm: str, stream: bool) -> None:
    told = ask(flavour, Ask(model="tiny", stream=stream, options=words(20)), base_url=litellm)
    assert told.text.strip()
    assert told.finish_reason == "length"


def test_models(flavour: str, route: Route, litellm: str) -> None:
    assert set(MODELS) <= set(ask(flavour, Ask(models=True), base_url=litellm, **route.options).models)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("model", "kind", "status", "says"), ERRORS, ids=[error[0] for error in ERRORS])
def test_errors(
    flavour: str,
    route: Route,
    litellm: str,
    stream: bool,
    model: str,
    kind: type[APIStatusError],
    status: int,
    says: str,
) -> None:
    error = ask(flavour, Ask(model=model, stream=stream), base_url=litellm, **route.options).error
    assert type(error) is kind
    assert isinstance(error, APIStatusError)
    assert error.status_code == status
    assert says in str(error)
    assert litellm in str(error)
    assert isinstance(error.body, dict)


def test_a_wrong_path(flavour: str, litellm: str) -> None:
    error = ask(flavour, Ask(model="mock"), base_url=litellm.replace("/v1", "/v9")).error
    assert isinstance(error, NotFoundError)


def test_connections_are_kept(flavour: str, litellm: str) -> None:
    asks = [Ask(models=True), *(Ask(model="mock", stream=stream) for stream in (True, False) * 5)]
    # Replies that fail leave a connection as good as others do.
    asks[5:5] = [Ask(model="limited"), Ask(model="no-such-model", stream=False)]
    talk = converse(flavour, asks, base_url=litellm)
    assert [told.text for number, told in enumerate(talk.told) if number not in (0, 5, 6)] == [TEXT] * 10
    assert (talk.busy, talk.idle) == (0, 1)


@pytest.mark.parametrize("scoped", [False, True], ids=["dropped", "closed"])
def test_an_early_end(flavour: str, route: Route, litellm: str, scoped: bool) -> None:
    # litellm itself goes on for a while with what nobody reads, and answers the next call late.
    asks = [Ask(model="lengthy", take=5, scoped=scoped), Ask(model="mock")]
    talk = converse(flavour, asks, base_url=litellm, **route.options)
    assert len(talk.told[0].chunks) == 5
    assert talk.told[1].text == TEXT
    assert talk.busy == 0


def test_ten_at_once(flavour: str, route: Route, litellm: str) -> None:
    talk = converse(flavour, [Ask(model="mock")] * 10, together=True, base_url=litellm, **route.options)
    assert [told.text for told in talk.told] == [TEXT] * 10
    assert talk.busy == 0


def test_a_long_reply(litellm: str) -> None:
    assert ask("sync", Ask(model="lengthy"), base_url=litellm).text == LENGTHY
