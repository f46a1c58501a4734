"""Ready declarations: where each asks, with which key, and that no other server sees that key."""

from __future__ import annotations

from typing import Any

import pytest
from collecting import Collect, told
from driving import HI, MODEL, shown

import deltawire
from deltawire import (
    AuthenticationError,
    Client,
    ConfigurationError,
    MissingAuthError,
    OpenaiTemplate,
    ProviderNotFoundError,
    ProxyError,
    RetryProvider,
    providers,
)
from deltawire.providers.names import PROVIDERS
from deltawire.settings import make
from deltawire.targets import Ask
from deltawire.testing import Answer, ChatServer, ProxyServer

pytestmark = pytest.mark.usefixtures("_tidy")

# Each with its base URL, the variable of its key, and whether it needs one.
READY = {
    "OpenaiChat": ("https://api.openai.com/v1", "OPENAI_API_KEY", True),
    "OpenRouter": ("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", True),
    "Groq": ("https://api.groq.com/openai/v1", "GROQ_API_KEY", True),
    "DeepSeek": ("https://api.deepseek.com", "DEEPSEEK_API_KEY", True),
    "Mistral": ("https://api.mistral.ai/v1", "MISTRAL_API_KEY", True),
    "Together": ("https://api.together.xyz/v1", "TOGETHER_API_KEY", True),
    "Ollama": ("http://localhost:11434/v1", "OLLAMA_API_KEY", False),
    "VLLM": ("http://localhost:8000/v1", "VLLM_API_KEY", False),
    "LlamaCpp": ("http://localhost:8080/v1", "LLAMA_API_KEY", False),
    "LMStudio": ("http://localhost:1234/v1", "LM_API_TOKEN", False),
}
VARIABLES = {name: variable for name, (_, variable, _) in READY.items()} | {"AzureOpenai": "AZURE_OPENAI_API_KEY"}
ALL = sorted(VARIABLES)

KEY = "an-azure-key-of-32-digits-0123456"


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES.values(), "AZURE_OPENAI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Everybody's key, in the environment."""
    made = {name: f"key-of-{name}" for name in ALL}
    for name, variable in VARIABLES.items():
        monkeypatch.setenv(variable, made[name])
    return made


def key_in(server: ChatServer) -> str | None:
    """The key that came with the last request."""
    request = server.requests[-1]
    bearer = request.header("authorization")
    assert bearer is None or bearer.startswith("Bearer ")
    return request.header("api-key") if bearer is None else bearer.removeprefix("Bearer ")


def test_these_are_all() -> None:
    template = {name for name in PROVIDERS if issubclass(getattr(providers, name), OpenaiTemplate)}
    assert template == {*ALL, "OpenaiTemplate"}


@pytest.mark.parametrize("name", READY)
def test_where_it_asks(collect: Collect, name: str, keys: dict[str, str]) -> None:
    """A proxy that lets nobody through has heard where each would have gone."""
    base = READY[name][0]
    with ProxyServer(username="me", password="right") as proxy:
        with pytest.raises(ProxyError):
            collect(getattr(providers, name), proxy=proxy.url.replace("right", "wrong"))
        (request,) = proxy.requests
    scheme, _, rest = base.partition("://")
    asked = ("CONNECT", rest.partition("/")[0] + ":443") if scheme == "https" else ("POST", f"{base}/chat/completions")
    assert (request.method, request.target) == asked
    assert getattr(providers, name).api_base in (base, "")


@pytest.mark.parametrize("name", READY)
def test_what_it_sends(collect: Collect, name: str, server: ChatServer, keys: dict[str, str]) -> None:
    base, _, needs_key = READY[name]
    path = "/" + base.partition("://")[2].partition("/")[2]
    provider = getattr(providers, name)(api_base=server.site_url + path)
    assert told(collect(provider)) == "Hello"
    assert provider.get_models() == [MODEL]
    chat, models = server.requests
    assert (chat.method, chat.target) == ("POST", f"{path.rstrip('/')}/chat/completions")
    assert (models.method, models.target) == ("GET", f"{path.rstrip('/')}/models")
    for request in (chat, models):
        assert request.header("authorization") == f"Bearer {keys[name]}"
        assert request.header("api-key") is None
    assert bool(provider.needs_auth) is needs_key


@pytest.mark.parametrize("name", ALL)
def test_its_key_is_in_its_own_variable(
    name: str, server: ChatServer, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = getattr(providers, name)(api_base=server.url)
    assert told(provider.create_generator(MODEL, HI)) == "Hello"
    assert key_in(server) == keys[name]
    # Without it no other key is taken.
    monkeypatch.delenv(VARIABLES[name])
    if provider.needs_auth:
        with pytest.raises(MissingAuthError, match=VARIABLES[name]):
            provider.create_generator(MODEL, HI)
        assert len(server.requests) == 1
    else:
        assert told(provider.create_generator(MODEL, HI)) == "Hello"
        assert key_in(server) is None


def test_each_of_several_has_its_own_key(server: ChatServer, keys: dict[str, str]) -> None:
    names = ["Groq", "AzureOpenai", "Ollama", "Mistral"]
    server.plan(*[Answer.error(401) for _ in names[:-1]])
    several = RetryProvider([getattr(providers, name)(api_base=server.url) for name in names], shuffle=False)
    with Client(several) as client:
        assert client.chat.completions.create(HI, MODEL).choices[0].message.content == "Hello"
    for name, request in zip(names, server.requests, strict=True):
        others = [key for other, key in keys.items() if other != name]
        received = repr(request.headers)
        assert keys[name] in received
        assert not any(key in received for key in others)


def test_keys_by_name(server: ChatServer) -> None:
    with Client(base_url=server.url, api_key={"Groq": "for-groq", providers.Mistral: "for-mistral"}) as client:
        for provider in (providers.Groq, "Mistral"):
            client.chat.completions.create(HI, MODEL, provider=provider)
        with pytest.raises(MissingAuthError):
            client.chat.completions.create(HI, MODEL, provider="Together")
    assert [each.header("authorization") for each in server.requests] == ["Bearer for-groq", "Bearer for-mistral"]


# --- Azure OpenAI -----------------------------------------------------------------------------------------


def test_azure_asks_a_deployment(collect: Collect, server: ChatServer) -> None:
    azure = providers.AzureOpenai(api_base=server.site_url + "/", api_key=KEY, image_models=["painter"])
    assert told(collect(azure, "my gpt/4")) == "Hello"
    assert "data:" in told(collect(azure, "painter", response_format="b64_json"))
    assert azure.get_models() == [MODEL]
    version = "?api-version=2024-10-21"
    assert [each.target for each in server.requests] == [
        f"/openai/deployments/my%20gpt%2F4/chat/completions{version}",
        f"/openai/deployments/painter/images/generations{version}",
        f"/openai/models{version}",
    ]
    assert [each.header("api-key") for each in server.requests] == [KEY] * 3
    assert [each.header("authorization") for each in server.requests] == [None] * 3
    assert server.requests[0].json()["model"] == "my gpt/4"


def test_azure_of_another_version(collect: Collect, server: ChatServer) -> None:
    azure = providers.AzureOpenai(api_base=server.site_url, api_key=KEY, api_version="2025-01-01-preview")
    collect(azure)
    assert server.requests[-1].target.endswith("?api-version=2025-01-01-preview")
    collect(azure, extra_query={"api-version": "2026-01-01"})
    assert server.requests[-1].target.endswith("?api-version=2026-01-01")


def test_azure_at_its_variable(collect: Collect, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.site_url)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    assert told(collect(providers.AzureOpenai)) == "Hello"
    assert key_in(server) == KEY


def test_azure_of_nobody(collect: Collect, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key goes to nobody else: not to OpenAI, nor to a server that is meant for OpenAI's clients."""
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    words = "AzureOpenai has no base URL: pass api_base=, or set AZURE_OPENAI_ENDPOINT"
    for provider in (providers.AzureOpenai, providers.AzureOpenai(api_key=KEY)):
        with pytest.raises(ConfigurationError, match=words):
            collect(provider, api_key=KEY)
        with pytest.raises(ConfigurationError, match=words):
            provider.get_models(api_key=KEY)
        with Client(provider, api_key=KEY) as client, pytest.raises(ConfigurationError, match=words):
            client.chat.completions.create(HI, MODEL)
    assert server.requests == []


def test_azure_without_a_model(server: ChatServer) -> None:
    azure = providers.AzureOpenai(api_base=server.site_url, api_key=KEY)
    for model in (None, ""):
        with pytest.raises(ConfigurationError, match="the model is part of this provider's URL"):
            azure.create_async_generator(model, HI)
    named = providers.AzureOpenai(api_base=server.site_url, api_key=KEY, default_model="d")
    assert told(named.create_generator(None, HI)) == "Hello"


def test_azure_at_a_whole_url(server: ChatServer) -> None:
    azure = providers.AzureOpenai(api_key=KEY, api_endpoint=server.url + "/chat/completions")
    assert told(azure.create_generator(None, HI)) == "Hello"
    assert server.requests[0].target == "/v1/chat/completions?api-version=2024-10-21"


@pytest.mark.parametrize("key_field", ["api-key", "X-Goog-Api-Key"])
def test_no_key_is_shown(collect: Collect, server: ChatServer, key_field: str) -> None:
    azure = providers.AzureOpenai(api_base=server.site_url, api_key=KEY, key_field=key_field)
    request: Any = azure.target(Ask(kind="chat", messages=HI, model="m"), make()).build(KEY)
    assert dict(request.headers)[key_field.lower().encode()] == KEY.encode()
    assert KEY not in repr(request) + repr(azure)
    server.plan(Answer.error(401, f"Wrong key: {KEY}"))
    with pytest.raises(AuthenticationError) as caught:
        collect(azure)
    assert server.requests[0].header(key_field) == KEY
    assert KEY not in shown(caught.value)


# --- By name ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_by_name(name: str, server: ChatServer, keys: dict[str, str]) -> None:
    with Client(name, base_url=server.url) as client:
        completion: Any = client.chat.completions.create(HI, MODEL)
    assert completion.choices[0].message.content == "Hello"
    assert completion.provider == name
    assert key_in(server) == keys[name]


@pytest.mark.parametrize(("name", "near"), [("groq", "Groq"), ("AzureOpenAI", "AzureOpenai"), ("Mistrall", "Mistral")])
def test_a_name_that_is_nearly_right(name: str, near: str) -> None:
    with pytest.raises(ProviderNotFoundError, match=f"no provider '{name}'; did you mean '{near}'"):
        Client(name)


def test_a_name_that_is_nobodys() -> None:
    with pytest.raises(ProviderNotFoundError, match="AzureOpenai, DeepSeek, Groq") as caught:
        deltawire.AsyncClient(provider="Zzzzzz")
    assert "did you mean" not in str(caught.value)
    with pytest.raises(ProviderNotFoundError):
        RetryProvider(["Groq", ""])
