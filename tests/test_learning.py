"""`get_models`: asked once, of each server and with each key; what is learnt stays with whom it was asked of."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from driving import HI, MODEL, free_port

from deltawire import (
    AsyncClient,
    AuthenticationError,
    Client,
    ConfigurationError,
    ConnectError,
    MissingAuthError,
    NotFoundError,
    OpenaiTemplate,
    PermissionDeniedError,
    ProxyError,
    TimeoutError,
)
from deltawire.protocol.catalogue import Catalogue
from deltawire.settings import keep
from deltawire.testing import Answer, ChatServer, ProxyServer, SocksServer

pytestmark = pytest.mark.usefixtures("_tidy")

MODELS: list[dict[str, Any]] = [
    {"id": "b-sees", "capabilities": {"vision": True}},
    {"id": "c-draws", "type": "image"},
    {"id": "a"},
]


async def _from_a_client(provider: Any, options: dict[str, Any]) -> list[str]:
    async with AsyncClient(provider, max_retries=0) as client:
        found: list[str] = await client.models.get_all(**options)
        return found


def _by_a_client(provider: Any, **options: Any) -> list[str]:
    with Client(provider, max_retries=0) as client:
        return client.models.get_all(**options)


async def _awaited(provider: Any, options: dict[str, Any]) -> list[str]:
    found: list[str] = await provider.aget_models(**options)
    return found


ASKING = {
    "get_models": lambda provider, **options: provider.get_models(**options),
    "aget_models, asyncio": lambda provider, **options: anyio.run(_awaited, provider, options),
    "aget_models, trio": lambda provider, **options: anyio.run(_awaited, provider, options, backend="trio"),
    "Client": _by_a_client,
    "AsyncClient": lambda provider, **options: anyio.run(_from_a_client, provider, options),
}


@pytest.fixture(params=sorted(ASKING))
def names_of(request: pytest.FixtureRequest) -> Any:
    """One way to ask a provider for its models."""
    return ASKING[request.param]


# Those whose client was told so: the waits between attempts take longer than all other tests together.
without_retries = pytest.mark.parametrize("names_of", ["Client", "AsyncClient"], indirect=True)


@pytest.fixture
def listing() -> Any:
    with ChatServer(models=MODELS) as running:
        yield running


def declared(server: ChatServer, **attributes: Any) -> type[OpenaiTemplate]:
    return type("Local", (OpenaiTemplate,), {"api_base": server.url, **attributes})


# --- What the server says ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["class", "instance"])
def test_what_is_learnt(names_of: Any, listing: ChatServer, kind: str) -> None:
    provider: Any = declared(listing, vision_models=["own"])
    provider = provider() if kind == "instance" else provider
    assert names_of(provider) == ["a", "b-sees", "c-draws"]
    assert provider.models == ["a", "b-sees", "c-draws"]
    assert provider.image_models == ["c-draws"]
    assert provider.vision_models == ["own", "b-sees"]
    names_of(provider).append("mine")
    assert names_of(provider) == ["a", "b-sees", "c-draws"]
    assert len(listing.requests) == 1


def test_unsorted(names_of: Any, listing: ChatServer) -> None:
    assert names_of(declared(listing, sort_models=False)) == ["b-sees", "c-draws", "a"]


@pytest.mark.parametrize(
    "body",
    [
        {"object": "list", "data": [{"id": "n"}, {"id": "m"}]},
        [{"id": "n"}, {"id": "m"}],
        {"models": [{"name": "n"}, {"model": "m"}]},
        ["n", "m"],
    ],
)
def test_forms_of_lists(names_of: Any, server: ChatServer, body: Any) -> None:
    server.plan(Answer(json=body))
    assert names_of(declared(server)) == ["m", "n"]


def test_what_draws_is_asked_to_draw(listing: ChatServer) -> None:
    provider = declared(listing)
    provider.get_models()
    list(provider.create_generator("c-draws", HI))
    assert listing.requests[-1].target == "/v1/images/generations"


def test_the_class_of_all(names_of: Any, listing: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`OpenaiTemplate` itself."""
    for name in ("models", "image_models", "vision_models"):
        monkeypatch.setattr(OpenaiTemplate, name, [])
    monkeypatch.setattr(OpenaiTemplate, "_catalogues", {})
    assert names_of(OpenaiTemplate, api_base=listing.url) == ["a", "b-sees", "c-draws"]


# --- How it is asked --------------------------------------------------------------------------------------


def test_once_for_each_server_and_key(names_of: Any, listing: ChatServer, server: ChatServer) -> None:
    provider = declared(listing)
    for _ in range(2):
        assert names_of(provider) == ["a", "b-sees", "c-draws"]
        assert names_of(provider, api_key="sk-1") == names_of(provider, api_key="sk-2") == ["a", "b-sees", "c-draws"]
        assert names_of(provider, api_base=server.url) == [MODEL]
    assert [each.header("authorization") for each in listing.requests] == [None, "Bearer sk-1", "Bearer sk-2"]
    assert len(server.requests) == 1


def test_not_for_keys_without_end(listing: ChatServer) -> None:
    """A program may have a key for each of its calls."""
    provider = declared(listing)
    for number in range(300):
        keep(provider._catalogues, (listing.url, f"sk-{number}"), Catalogue())
    assert len(provider._catalogues) <= 256
    known = len(provider._catalogues)
    for _ in range(2):
        assert provider.get_models(api_key="sk-new") == ["a", "b-sees", "c-draws"]
    assert len(provider._catalogues) == known + 1
    assert len(listing.requests) == 1


def test_what_one_server_says_is_not_said_of_another(listing: ChatServer, server: ChatServer) -> None:
    provider = declared(listing, image_models=["own"])
    provider.get_models()
    assert provider.image_models == ["own", "c-draws"]
    provider.get_models(api_base=server.url)
    assert (provider.models, provider.image_models, provider.vision_models) == ([MODEL], ["own"], [])
    provider.get_models()
    assert provider.image_models == ["own", "c-draws"]


def test_through_the_proxy(names_of: Any, listing: ChatServer, proxy: ProxyServer) -> None:
    assert names_of(declared(listing), proxy=proxy.url) == ["a", "b-sees", "c-draws"]
    assert [each.target for each in proxy.requests] == [f"{listing.url}/models"]


def test_through_the_environments_proxy(
    names_of: Any, listing: ChatServer, proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    assert names_of(declared(listing)) == ["a", "b-sees", "c-draws"]
    assert len(proxy.requests) == 1


@without_retries
def test_within_the_time(names_of: Any, server: ChatServer) -> None:
    server.plan(Answer(delay=30))
    with pytest.raises(TimeoutError):
        names_of(declared(server), timeout=0.05)


def test_as_its_headers_say(names_of: Any, listing: ChatServer) -> None:
    names_of(declared(listing, default_headers={"X-Title": "app"}, api_key="sk-1"))
    (request,) = listing.requests
    assert (request.method, request.target, request.body) == ("GET", "/v1/models", b"")
    told = {name: request.header(name) for name in ("accept", "authorization", "x-title", "content-type")}
    assert told == {
        "accept": "application/json", "authorization": "Bearer sk-1", "x-title": "app", "content-type": None
    }  # fmt: skip


# --- What is declared -------------------------------------------------------------------------------------


def test_declared_models(names_of: Any, listing: ChatServer) -> None:
    provider = declared(listing, models=["z", "y"], fallback_models=["x"])
    assert names_of(provider) == ["z", "y"]
    assert listing.requests == []
    assert provider.models == ["z", "y"]
    names_of(provider).append("mine")
    assert names_of(provider) == ["z", "y"]


@pytest.mark.parametrize("answer", [Answer.error(400), Answer.error(404), Answer(json={"a": 1}), Answer(body=b"<p>")])
def test_fallback_models(names_of: Any, listing: ChatServer, answer: Answer) -> None:
    provider = declared(listing, fallback_models=["y", "x"])
    listing.plan(answer)
    assert names_of(provider) == ["y", "x"]
    # That was no answer: it is asked again.
    assert names_of(provider) == ["a", "b-sees", "c-draws"]


@without_retries
def test_fallback_models_where_nobody_listens(names_of: Any) -> None:
    class Gone(OpenaiTemplate):
        api_base = f"http://127.0.0.1:{free_port()}/v1"

    with pytest.raises(ConnectError):
        names_of(Gone)
    assert names_of(Gone(fallback_models=["x"])) == ["x"]


@pytest.mark.parametrize(
    ("status", "error"), [(401, AuthenticationError), (403, PermissionDeniedError), (404, NotFoundError)]
)
def test_what_is_raised(names_of: Any, listing: ChatServer, status: int, error: type[Exception]) -> None:
    listing.plan(Answer.error(status))
    with pytest.raises(error):
        names_of(declared(listing, fallback_models=[] if status == 404 else ["x"]))


def test_mistakes_are_raised_in_any_case(names_of: Any, server: ChatServer, proxy: ProxyServer) -> None:
    provider = declared(server, fallback_models=["x"], needs_auth=True)
    with pytest.raises(MissingAuthError):
        names_of(provider)
    with pytest.raises(ConfigurationError):
        names_of(provider, api_base="localhost")
    with pytest.raises(ProxyError):
        names_of(provider, api_key="sk-1", proxy=f"http://me:wrong@127.0.0.1:{proxy.port}")
    assert server.requests == []


def test_a_socks_proxy_that_refuses_the_password(names_of: Any, server: ChatServer, socks: SocksServer) -> None:
    with pytest.raises(ProxyError):
        names_of(declared(server, fallback_models=["x"]), proxy=f"socks5://me:wrong@127.0.0.1:{socks.port}")
    assert server.requests == []


# --- Whose they are ---------------------------------------------------------------------------------------


def test_nothing_leaks_to_others(listing: ChatServer) -> None:
    class Parent(OpenaiTemplate):
        api_base = listing.url
        image_models = ["own"]  # noqa: RUF012

    class Before(Parent):
        pass

    before = Parent()
    Parent.get_models()

    class After(Parent):
        pass

    for other in (Before, before, After, Parent(), OpenaiTemplate, OpenaiTemplate()):
        expected = [] if other is OpenaiTemplate or type(other) is OpenaiTemplate else ["own"]
        assert (other.models, other.image_models, other.vision_models) == ([], expected, [])
    assert Parent.image_models == ["own", "c-draws"]
    Before.get_models()
    assert len(listing.requests) == 2
    before.get_models()
    assert len(listing.requests) == 3


def test_an_instance_teaches_its_class_nothing(listing: ChatServer) -> None:
    provider = declared(listing)
    instance = provider()
    assert instance.get_models() == ["a", "b-sees", "c-draws"]
    assert (provider.models, provider.image_models) == ([], [])
