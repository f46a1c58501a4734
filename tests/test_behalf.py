"""Providers that override a method and ask ours: what a client says holds for these requests as for any other."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from driving import HI, MODEL, Driver, Run, unix_socket

from deltawire import (
    AsyncClient,
    AsyncGeneratorProvider,
    Client,
    ConfigurationError,
    OpenaiTemplate,
    ProxyError,
    RetryProvider,
    Timeout,
    TimeoutError,
)
from deltawire.testing import Answer, ChatServer, ProxyServer
from deltawire.transports import AsyncHTTPCoreTransport, HTTPCoreTransport

pytestmark = pytest.mark.usefixtures("_tidy")


class Loud(OpenaiTemplate):
    """As people write it: all is passed on."""

    @classmethod
    async def create_async_generator(cls, model: str, messages: Any, **kwargs: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        async for piece in super().create_async_generator(model, messages, **kwargs):
            yield piece.upper() if isinstance(piece, str) else piece

    @classmethod
    def get_models(cls, **kwargs: Any) -> list[str]:  # type: ignore[override]
        return [name.upper() for name in super().get_models(**kwargs)]


class Forgetful(Loud):
    """Nothing is passed on."""

    @classmethod
    async def create_async_generator(cls, model: str, messages: Any, **kwargs: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        async for piece in OpenaiTemplate.create_async_generator.__func__(cls, model, messages, stream=True):  # type: ignore[attr-defined]
            yield piece.upper() if isinstance(piece, str) else piece


@pytest.fixture(params=[Loud, Forgetful])
def loud(request: pytest.FixtureRequest, server: ChatServer) -> Any:
    class Mine(request.param):  # type: ignore[misc, name-defined]
        api_base = server.url

    return Mine


@pytest.fixture
def other() -> Iterator[ProxyServer]:
    with ProxyServer() as running:
        yield running


# --- Proxies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "call", "environment", "through"),
    [
        ({"proxies": {"http": "A", "https": "B"}}, {}, {}, "A"),
        ({"proxies": {"all": "A", "no": "127.0.0.1"}}, {}, {}, None),
        ({"proxies": "A"}, {}, {"HTTP_PROXY": "B"}, "A"),
        ({"proxies": "A"}, {"proxy": "B"}, {}, "B"),
        ({"proxies": "A"}, {"proxy": None}, {}, None),
        ({"proxies": {"http": None, "https": None}}, {}, {"HTTP_PROXY": "B"}, None),
        ({}, {}, {"HTTP_PROXY": "B"}, "B"),
        ({}, {}, {"HTTP_PROXY": "B", "NO_PROXY": "127.0.0.1"}, None),
        ({}, {"proxy": None}, {"HTTP_PROXY": "B"}, None),
        ({"trust_env": False}, {}, {"HTTP_PROXY": "B"}, None),
    ],
)
def test_the_proxy(
    driver: Driver,
    server: ChatServer,
    proxy: ProxyServer,
    other: ProxyServer,
    loud: Any,
    monkeypatch: pytest.MonkeyPatch,
    client: dict[str, Any],
    call: dict[str, Any],
    environment: dict[str, str],
    through: str | None,
) -> None:
    urls = {"A": proxy.url, "B": other.url}

    def real(value: Any) -> Any:
        return {key: real(each) for key, each in value.items()} if isinstance(value, dict) else urls.get(value, value)

    for name, value in environment.items():
        monkeypatch.setenv(name, real(value))
    heard = driver.ask({**real(client), "provider": loud}, **real(call))
    assert (heard.text, heard.error) == ("HELLO", None)
    assert (len(proxy.requests), len(other.requests)) == (int(through == "A"), int(through == "B"))
    # And models, in the same way.
    options = {**real(client), "provider": loud}
    with Client(**options) as blocks:
        assert blocks.models.get_all(**real(call))[0].isupper()
    assert (len(proxy.requests), len(other.requests)) == (2 * int(through == "A"), 2 * int(through == "B"))


def test_a_dead_proxy_is_no_direct_connection(driver: Driver, server: ChatServer, loud: Any) -> None:
    options = {"provider": loud, "proxies": "http://127.0.0.1:1", "max_retries": 0}
    assert isinstance(driver.ask(options).error, ProxyError)
    with Client(**options) as client, pytest.raises(ProxyError):
        client.models.get_all()
    assert not server.requests


# --- Keys, fields, body -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "call", "sent"),
    [
        ({"api_key": "sk-client"}, {}, "Bearer sk-client"),
        ({"api_key": {"Mine": "sk-client"}}, {}, "Bearer sk-client"),
        ({"api_key": "sk-client"}, {"api_key": "sk-call"}, "Bearer sk-call"),
        ({"api_key": "sk-client"}, {"api_key": ""}, None),
        ({"api_key": ""}, {}, None),
        ({}, {}, "Bearer sk-environment"),
        ({"trust_env": False}, {}, None),
        ({"api_key": lambda: "sk-asked"}, {}, "Bearer sk-asked"),
    ],
)
def test_the_key(
    driver: Driver,
    server: ChatServer,
    loud: Any,
    monkeypatch: pytest.MonkeyPatch,
    client: dict[str, Any],
    call: dict[str, Any],
    sent: str | None,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    assert driver.ask({**client, "provider": loud}, **call).text == "HELLO"
    with Client(**client, provider=loud) as blocks:
        blocks.models.get_all(**call)
    assert [each.header("authorization") for each in server.requests] == [sent, sent]


def test_what_a_client_says_of_all_requests(driver: Driver, server: ChatServer, loud: Any) -> None:
    options = {
        "provider": loud,
        "organization": "org",
        "project": "proj",
        "default_headers": {"X-A": "1"},
        "default_query": {"q": "1"},
    }
    assert driver.ask(options).text == "HELLO"
    request = server.requests[0]
    assert [request.header(name) for name in ("openai-organization", "openai-project", "x-a")] == ["org", "proj", "1"]
    assert request.target.endswith("/chat/completions?q=1")


def test_extra_body(driver: Driver, server: ChatServer) -> None:
    class Mine(Loud):
        api_base = server.url

    heard = driver.ask({"provider": Mine}, extra_body={"top_k": 1, "stop": None}, extra_query={"a": "1"})
    assert (heard.text, heard.error) == ("HELLO", None)
    assert {"top_k": 1, "stop": None}.items() <= json.loads(server.requests[0].body).items()
    assert server.requests[0].target.endswith("?a=1")


# --- Connections ------------------------------------------------------------------------------------------


def test_the_clients_connections(driver: Driver, server: ChatServer, loud: Any, tmp_path: Path) -> None:
    with unix_socket(str(tmp_path / "s"), server.port):
        options = {"provider": loud(api_base="http://nowhere.invalid/v1"), "uds": str(tmp_path / "s")}
        assert driver.ask(options).text == "HELLO"
    assert server.requests[0].header("host") == "nowhere.invalid"


def test_a_kept_connection(run: Run, server: ChatServer, loud: Any) -> None:
    async def main() -> None:
        async with AsyncClient(provider=loud) as client:
            for _ in range(3):
                assert (await client.chat.completions.create(HI, MODEL)).choices[0].message.content == "HELLO"

    run(main)
    assert server.connections == 1


def test_a_transport_object(run: Run, server: ChatServer, loud: Any) -> None:
    """One serves those who await, another one those who block."""
    with contextlib.closing(HTTPCoreTransport()) as transport, Client(provider=loud, transport=transport) as client:
        with pytest.raises(ConfigurationError, match=r"transport object is of the wrong kind.* use AsyncClient"):
            client.chat.completions.create(HI, MODEL, max_retries=0)
        assert client.models.get_all()

    async def main() -> None:
        transport = AsyncHTTPCoreTransport()
        async with AsyncClient(provider=loud, transport=transport) as client:
            assert (await client.chat.completions.create(HI, MODEL)).choices[0].message.content == "HELLO"
            loud._catalogues.clear()
            with pytest.raises(ConfigurationError, match=r"of the wrong kind.* use Client"):
                await client.models.get_all()
        await transport.aclose()

    run(main)


def test_the_total(driver: Driver, server: ChatServer, loud: Any) -> None:
    server.plan(Answer(tokens=["Hel"], finish_reason=None, done=False, ending="stall"))
    heard = driver.stream({"provider": loud, "timeout": Timeout(first_content=30, total=0.2), "max_retries": 0})
    assert isinstance(heard.error, TimeoutError)
    assert heard.error.deadline == "total"
    assert heard.text == "HEL"


# --- Models -----------------------------------------------------------------------------------------------


def test_a_list_that_blocks_does_not_block_the_loop(run: Run, server: ChatServer, loud: Any) -> None:
    class Slow(loud):  # type: ignore[misc]
        @classmethod
        def get_models(cls, **kwargs: Any) -> list[str]:
            assert anyio.from_thread.run(asked.wait) is None
            return list(super().get_models(**kwargs))

    asked = anyio.Event()

    async def main() -> None:
        nonlocal asked
        asked = anyio.Event()
        async with AsyncClient(provider=Slow) as client, anyio.create_task_group() as group:

            async def ask() -> None:
                assert (await client.models.get_all())[0].isupper()

            group.start_soon(ask)
            # It waits for this task.
            asked.set()

    run(main)


def test_a_get_model_that_asks_for_the_list(driver: Driver, server: ChatServer, proxy: ProxyServer) -> None:
    """g4f's own idiom."""

    class Mine(OpenaiTemplate):
        api_base = server.url

        @classmethod
        def get_model(cls, model: str, **kwargs: Any) -> str:  # type: ignore[override]
            if not cls.models:
                cls.get_models()
            return "of " + super().get_model(model)

    assert driver.ask({"provider": Mine, "proxies": proxy.url}).text == "Hello"
    assert [each.method for each in server.requests] == ["GET", "POST"]
    assert server.requests[1].json()["model"] == f"of {MODEL}"
    assert len(proxy.requests) == 2
    assert Mine.get_model("") == "of "


def test_models_of_several(run: Run, server: ChatServer, proxy: ProxyServer) -> None:
    class NoList(AsyncGeneratorProvider):
        pass

    class Down(OpenaiTemplate):
        @classmethod
        def get_models(cls, **kwargs: Any) -> list[str]:  # type: ignore[override]
            raise OSError("down")

    class Mine(Loud):
        api_base = server.url

    several = RetryProvider([NoList, Down, Mine])
    names = [name.upper() for name in OpenaiTemplate(api_base=server.url).get_models()]
    assert several.get_models("sk-1", proxy=proxy.url) == names
    Mine._catalogues.clear()
    assert run(several.aget_models, "sk-2") == names
    assert [each.header("authorization") for each in server.requests[1:]] == ["Bearer sk-1", "Bearer sk-2"]
    assert len(proxy.requests) == 1
    with pytest.raises(OSError, match="down"):
        RetryProvider([Down]).get_models()


# --- Who is meant -----------------------------------------------------------------------------------------


def test_another_provider_is_not_the_clients(driver: Driver, server: ChatServer, proxy: ProxyServer) -> None:
    """Whom a provider asks by name is asked with what it says, and nothing else."""

    class Another(OpenaiTemplate):
        api_base = server.url

    class Mine(AsyncGeneratorProvider):
        @classmethod
        async def create_async_generator(cls, model: str, messages: Any, **kwargs: Any) -> AsyncIterator[Any]:
            async for piece in Another.create_async_generator(model, messages):
                yield piece

    assert driver.ask({"provider": Mine, "proxies": proxy.url, "api_key": "sk-client"}).text == "Hello"
    assert not proxy.requests
    assert server.requests[0].header("authorization") is None


def test_two_clients_at_once(server: ChatServer) -> None:
    class Mine(Loud):
        api_base = server.url

    async def main() -> None:
        async with AsyncClient(provider=Mine, api_key="sk-1") as one, AsyncClient(provider=Mine, api_key="sk-2") as two:
            streams = [await each.chat.completions.create(HI, MODEL, stream=True) for each in (one, two)]
            for stream in streams:
                async for _ in stream:
                    await anyio.lowlevel.checkpoint()
            # In one task, step by step.
            first, second = (each.chat.completions.create(HI, MODEL, stream=True) for each in (one, two))
            await first.__anext__()
            await second.__anext__()
            await first.aclose()
            await second.aclose()
            direct = [str(piece) async for piece in Mine.create_async_generator(MODEL, HI)]
            assert "".join(direct) == "HELLO"

    asyncio.run(main())
    keys = [each.header("authorization") for each in server.requests]
    assert keys == ["Bearer sk-1", "Bearer sk-2"] * 2 + [None]


def test_the_proxy_that_is_told(driver: Driver) -> None:
    """For those who ask with another library: that for their server."""
    told: list[Any] = []

    class Mine(OpenaiTemplate):
        api_base = "http://llm.example/v1"

        @classmethod
        async def create_async_generator(cls, model: str, messages: Any, **kwargs: Any) -> AsyncIterator[Any]:  # type: ignore[override]
            told.append(kwargs.get("proxy"))
            yield "Hello"

    proxies = {"http": "http://me:pass%20word@one.example:1", "https": "http://two.example:2", "no": "none.example"}
    for base in (None, "https://llm.example/v1", "http://none.example/v1"):
        assert driver.ask({"provider": Mine, "proxies": proxies}, base_url=base).text == "Hello"
    assert told == ["http://me:pass%20word@one.example:1", "http://two.example:2", None]
