"""What a client knows and where it comes from: the call, the client, the environment, the built-in default."""

from __future__ import annotations

import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from driving import HI, MODEL, Driver, free_port

from deltawire import AsyncClient, Client, ConfigurationError, Opchatgpts, OpenaiTemplate, RetryPolicy, Timeout
from deltawire.asking import ALIASES, ASK_OPTIONS, CALL_OPTIONS, EXTRA_PARAMETERS, EXTRAS
from deltawire.base import BaseClient
from deltawire.generating import budget_of
from deltawire.parameters import CallOptions, ChatOptions, ChatParameters
from deltawire.protocol import ChatRequest, Endpoint, Proxy
from deltawire.protocol.request import PARAMETERS
from deltawire.settings import UNSET, Settings, make
from deltawire.testing import ChatServer

pytestmark = pytest.mark.usefixtures("_tidy")

URL = "http://127.0.0.1:1/v1"


# --- Which value wins ---------------------------------------------------------------------------------


def test_environment(driver: Driver, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"API_KEY": "sk-env", "BASE_URL": server.url, "ORG_ID": "org-env", "PROJECT_ID": "proj-env"}
    for name, value in values.items():
        monkeypatch.setenv(f"OPENAI_{name}", value)
    assert driver.stream({}).text == "Hello"
    (request,) = server.requests
    assert request.header("authorization") == "Bearer sk-env"
    assert request.header("openai-organization") == "org-env"
    assert request.header("openai-project") == "proj-env"


def test_the_client_before_the_environment(driver: Driver, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", "env")
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{free_port()}/v1")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    given = {"api_key": "sk-1", "base_url": server.url, "organization": "o", "project": "p", "proxies": {"all": None}}
    assert driver.stream(given).text == "Hello"
    (request,) = server.requests
    assert request.header("authorization") == "Bearer sk-1"
    assert (request.header("openai-organization"), request.header("openai-project")) == ("o", "p")


def test_the_call_before_the_client(driver: Driver, server: ChatServer) -> None:
    options = {"base_url": server.url, "proxies": f"http://127.0.0.1:{free_port()}", "default_headers": {"x": "1"}}
    assert driver.stream(options, proxy=None, extra_headers={"x": "2"}).text == "Hello"
    assert server.requests[0].header("x") == "2"


def test_an_environment_that_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    monkeypatch.setenv("OPENAI_BASE_URL", URL)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-env")
    monkeypatch.setenv("HTTPS_PROXY", "http://h:1")
    settings = make(trust_env=False)
    assert settings.base_url == "https://api.openai.com/v1"
    assert settings.api_key is None
    assert settings.organization is None
    assert settings.proxy_for(settings.base_url, UNSET) is None


def test_empty_variables_are_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "BASE_URL", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", "")
    settings = make()
    assert settings.base_url == "https://api.openai.com/v1"
    assert (settings.api_key, settings.organization, settings.project) == (None, None, None)
    assert settings.endpoint.needs_key


def test_defaults() -> None:
    settings = make()
    assert settings.timeout == Timeout()
    assert settings.policy == RetryPolicy(max_retries=2)
    assert settings.trust_env
    assert settings.limits is None


def test_the_proxy_of_the_environment_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make(base_url=URL)
    assert settings.proxy_for(URL, UNSET) is None
    monkeypatch.setenv("HTTP_PROXY", "h:3128")
    assert settings.proxy_for(URL, UNSET) == Proxy("http", "h", 3128)
    assert settings.proxy_for(URL, None) is None
    assert settings.proxy_for(URL, "http://other:1") == Proxy("http", "other", 1)


# --- Both names, and copies ---------------------------------------------------------------------------


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_api_base(client: type[BaseClient]) -> None:
    assert client(api_base=URL).base_url == URL
    assert client(api_base=URL, base_url=URL).base_url == URL
    with pytest.raises(ConfigurationError, match="two names"):
        client(api_base=URL, base_url="http://other/v1")
    copy = client(base_url="http://other/v1").with_options(api_base=URL)
    assert type(copy) is client
    assert copy.base_url == URL


def test_with_options_keeps_the_rest() -> None:
    first = make(base_url=URL, api_key="sk-1", organization="o", default_headers={"x": "1"}, timeout=5, max_retries=7)
    second = first.changed(api_key="sk-2", default_query={"q": "1"})
    assert second.endpoint.fields == first.endpoint.fields
    assert (second.api_key, second.timeout, second.policy) == ("sk-2", first.timeout, first.policy)
    assert second.endpoint.chat_url == f"{URL}/chat/completions?q=1"
    assert first.endpoint.chat_url == f"{URL}/chat/completions"
    assert isinstance(second, Settings)
    assert isinstance(second.endpoint, Endpoint)


@pytest.mark.parametrize("name", ["verify", "http2", "transport", "tiemout"])
def test_with_options_and_what_it_does_not_take(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Client().with_options(**{name: True})


# --- What can't work ----------------------------------------------------------------------------------


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "localhost:8000"},
        {"base_url": "ftp://host/v1"},
        {"base_url": "http://me:pw-secret@host/v1"},
        {"base_url": "http://ho st/v1"},
        {"proxies": "http://me:pw-secret@host:port"},
        {"proxies": {"https": "socks4://me:pw-secret@h"}},
        {"proxies": 3},
        {"timeout": -1},
        {"timeout": "soon"},
        {"max_retries": -1},
        {"max_retries": True},
        {"max_retries": 1.5},
        {"transport": "carrier pigeon"},
        {"default_headers": {"x": "pw-secret\n"}},
        {"default_headers": {"content-length": "1"}},
        {"organization": "a\nb"},
    ],
)
def test_what_cannot_work(client: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        client(**options)
    words = "".join(traceback.format_exception(caught.value))
    # The line of the caller's program is not ours to hide; it holds no value here.
    assert "pw-secret" not in words


def test_the_base_is_no_client() -> None:
    with pytest.raises(TypeError, match="AsyncClient"):
        BaseClient()


def test_no_secret_in_a_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(base_url=URL, api_key="sk-secret", proxies="http://me:pw-secret@h:1")
    assert repr(client) == f"<Client {URL}>"
    assert repr(AsyncClient(base_url=URL)) == f"<AsyncClient {URL}>"
    assert repr(UNSET) == "UNSET"
    keyed = Client(base_url=f"{URL}?key=sk-secret")
    assert repr(keyed) == f"<Client {URL}?key=***>"
    assert "sk-secret" not in repr(keyed._settings)


# --- Parameters ---------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_protocol() -> None:
    assert set(ChatParameters.__annotations__) == PARAMETERS


def test_every_parameter_is_taken(driver: Driver, server: ChatServer) -> None:
    known = {*CALL_OPTIONS, *EXTRAS, *ASK_OPTIONS}
    assert set(CallOptions.__annotations__) <= known
    assert set(ChatOptions.__annotations__) - PARAMETERS == known | ALIASES.keys() | set(EXTRA_PARAMETERS) - PARAMETERS
    values: dict[str, Any] = dict.fromkeys(PARAMETERS, "x") | {"n": 1, "stream_options": {"include_usage": True}}
    driver.ask({"base_url": server.url}, **values)
    assert server.requests[0].json() == {"messages": HI, "model": MODEL, **values}


def test_an_unknown_parameter(driver: Driver, server: ChatServer) -> None:
    error = driver.ask({"base_url": server.url}, temprature=1).error
    assert isinstance(error, ConfigurationError)
    assert "did you mean 'temperature'?" in str(error)
    assert "extra_body" in str(error)


# --- What is kept of it -------------------------------------------------------------------------------


def test_endpoints_are_kept_but_not_without_end() -> None:
    """A program may have a base URL for each of its calls."""
    settings = make(trust_env=False)
    endpoint = settings.endpoint_at(URL)
    assert settings.endpoint_at(URL) is endpoint
    for number in range(2000):
        url = f"{URL}/{number}"
        assert settings.endpoint_at(url) is settings.endpoint_at(url)
        assert len(settings.endpoints) <= 256
    assert settings.endpoint_at(URL) == endpoint


def test_what_is_known_of_sites_and_budgets_is_kept_but_not_without_end() -> None:
    """A program may have a cookie, and a server, for each of its calls."""
    site = Opchatgpts(url="http://shop.example", nonce="n")
    chat = ChatRequest(messages="Hi", model=MODEL)
    for number in range(600):
        site.prepare(msgspec.structs.replace(chat, extra_headers={"Cookie": f"user={number}"}))
        assert 1 <= len(site._stores) <= 256
    provider = OpenaiTemplate()
    first = budget_of(provider, None)
    assert budget_of(provider, None) is first
    budgets = {id(budget): budget for budget in (budget_of(provider, f"{URL}/{number}") for number in range(255))}
    assert len(budgets) == 255
    assert budget_of(provider, None) is first
    budget_of(provider, URL)
    assert budget_of(provider, None) is not first


def test_threads_that_keep_and_forget() -> None:
    settings = make(trust_env=False)

    def ask(thread: int) -> int:
        urls = [f"{URL}/{thread}/{number}" for number in range(600)]
        return sum(settings.endpoint_at(url).chat_url.startswith(url) for url in urls)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [600] * 4
    # Each of them may have looked before the others put theirs there.
    assert len(settings.endpoints) <= 256 + 4
