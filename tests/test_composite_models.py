"""Models and images of several providers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from driving import Run

from deltawire import (
    AsyncClient,
    Client,
    ConfigurationError,
    Opchatgpts,
    OpenaiTemplate,
    RetryProvider,
    RetryProviderError,
)
from deltawire.testing import Answer, ChatServer

pytestmark = pytest.mark.usefixtures("_tidy")


@pytest.fixture
def other() -> Iterator[ChatServer]:
    """Another server, with another model."""
    with ChatServer(models=["m", "local-model"]) as running:
        yield running


def at(server: ChatServer, **attributes: Any) -> OpenaiTemplate:
    """The provider of a server."""
    return OpenaiTemplate(api_base=server.url, **attributes)


def in_turn(*providers: Any) -> RetryProvider:
    return RetryProvider(list(providers), shuffle=False)


def blocking(provider: Any) -> list[str]:
    with Client(provider) as client:
        return client.models.get_all()


async def awaiting(provider: Any) -> list[str]:
    async with AsyncClient(provider) as client:
        return await client.models.get_all()


@pytest.fixture(params=["get_models", "Client", "AsyncClient"])
def names_of(request: pytest.FixtureRequest, run: Run) -> Any:
    """One way to ask for the names of models."""
    ways = {
        "get_models": lambda provider: provider.get_models(),
        "Client": blocking,
        "AsyncClient": lambda provider: run(awaiting, provider),
    }
    return ways[request.param]


def test_of_all_each_once(server: ChatServer, other: ChatServer, names_of: Any) -> None:
    assert names_of(in_turn(at(server), at(other), at(server))) == ["local-model", "m"]
    declared = at(other, models=["z", "m", "a"])
    assert names_of(in_turn(declared, at(server))) == ["z", "m", "a", "local-model"]


def test_one_without_a_list_is_left_out(server: ChatServer, names_of: Any) -> None:
    assert names_of(in_turn(Opchatgpts(url=server.site_url), at(server))) == ["local-model"]


def test_one_that_fails_is_left_out(server: ChatServer, other: ChatServer, names_of: Any) -> None:
    server.plan(Answer.error(401))
    assert names_of(in_turn(at(server), at(other))) == ["local-model", "m"]
    assert names_of(in_turn(at(server, needs_auth=True), at(other))) == ["local-model", "m"]


def test_one_whose_own_code_fails_is_left_out(server: ChatServer, other: ChatServer, names_of: Any) -> None:
    def key() -> str:
        raise KeyError("no such key")

    class Mine(OpenaiTemplate):
        def get_headers(self, *args: Any, **options: Any) -> dict[str, str]:  # type: ignore[override] # an instance's
            raise KeyError("no such variable")

    secure = OpenaiTemplate(api_base=server.url.replace("http:", "https:"), ssl="no-such-file.pem")
    faulty = [at(server, api_key=key), Mine(api_base=server.url), secure]
    assert names_of(in_turn(*faulty, at(other))) == ["local-model", "m"]
    assert server.requests == []


def test_all_fail(server: ChatServer, other: ChatServer, names_of: Any) -> None:
    for each in (server, other):
        each.plan(Answer.error(401))
    with pytest.raises(RetryProviderError) as caught:
        names_of(in_turn(at(server), at(other)))
    assert len(caught.value.errors) == 2


def test_nobody_to_ask(names_of: Any) -> None:
    assert names_of(RetryProvider([])) == []


def test_images_of_the_first_that_draws(server: ChatServer) -> None:
    provider = in_turn(Opchatgpts(url=server.site_url), at(server))
    ways: list[dict[str, Any]] = [{"provider": provider}, {"image_provider": provider}]
    for options in ways:
        with Client(**options) as client:
            assert len(client.images.generate("a cat", "painter").data) == 1
    server.plan(Answer.error(400))
    with Client(provider) as client, pytest.raises(RetryProviderError) as caught:
        client.images.generate("a cat", "painter")
    assert isinstance(caught.value.errors[0], ConfigurationError)


def test_the_list_of_the_first_that_has_one(server: ChatServer, other: ChatServer) -> None:
    server.plan(Answer.error(401))
    with Client(in_turn(at(server), at(other))) as client:
        assert [model.id for model in client.models.list().data] == ["m", "local-model"]
