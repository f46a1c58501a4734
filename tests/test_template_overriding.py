"""Subclasses of `OpenaiTemplate` that override its methods: they take effect, in clients and without."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import trio
from collecting import Collect, asked, told
from driving import HI, MODEL

from deltawire import Client, InternalServerError, OpenaiTemplate
from deltawire.testing import Answer, ChatServer

pytestmark = pytest.mark.usefixtures("_tidy")


# --- get_headers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "made"),
    [
        ((True,), {"Accept": "text/event-stream"}),
        ((False,), {"Accept": "application/json"}),
        ((True, "sk-1"), {"Accept": "text/event-stream", "Authorization": "Bearer sk-1"}),
        ((True, ""), {"Accept": "text/event-stream"}),
        ((True, None, {"accept": "x", "X-A": "1"}), {"accept": "x", "X-A": "1"}),
        ((True, None, {"accept": None}), {}),
    ],
)
def test_get_headers(arguments: Any, made: dict[str, str]) -> None:
    assert OpenaiTemplate.get_headers(*arguments) == {"Content-Type": "application/json", **made}
    assert OpenaiTemplate().get_headers(*arguments) == {"Content-Type": "application/json", **made}


def test_default_headers(collect: Collect, server: ChatServer) -> None:
    class App(OpenaiTemplate):
        api_base = server.url
        api_key = "sk-1"
        default_headers: Mapping[str, str] = {"X-Title": "app"}

    assert App.get_headers(True)["Authorization"] == "Bearer sk-1"
    assert App.get_headers(True)["X-Title"] == "app"
    assert "X-Title" not in App.get_headers(True, headers={"x-title": None})
    collect(App)
    App.get_models()
    collect(App, headers={"x-title": "mine"})
    collect(App, headers={"x-title": None})
    assert [each.header("x-title") for each in server.requests] == ["app", "app", "mine", None]


def test_what_the_client_says_of_headers_counts_before_that(server: ChatServer, local: Any) -> None:
    provider = local(api_key="sk-1", default_headers={"X-Title": "app", "X-App": "1"})
    with Client(provider, default_headers={"x-title": "client", "Authorization": "Basic c"}) as client:
        client.chat.completions.create(HI, MODEL)
        client.chat.completions.create(HI, MODEL, extra_headers={"X-TITLE": "call", "authorization": None})
        client.models.list()
    sent = [tuple(map(each.header, ("x-title", "x-app", "authorization"))) for each in server.requests]
    assert sent == [("client", "1", "Basic c"), ("call", "1", None), ("client", "1", "Basic c")]


def test_get_headers_overridden(collect: Collect, server: ChatServer) -> None:
    class Signed(OpenaiTemplate):
        api_base = server.url
        api_key = "sk-1"

        @classmethod
        def get_headers(cls, stream: bool, api_key: Any = None, headers: Any = None) -> dict[str, str]:
            made = super().get_headers(stream, api_key, headers)
            return {**made, "X-Signed": f"{api_key} {stream}", "Accept": "all"}

    assert told(collect(Signed, stream=True)) == asked(Signed) == asked(Signed()) == "Hello"
    Signed.get_models()
    collect(Signed, headers={"accept": "mine"})
    assert [each.header("x-signed") for each in server.requests] == ["sk-1 True"] + ["sk-1 False"] * 4
    assert [each.header("accept") for each in server.requests] == ["all"] * 4 + ["mine"]
    assert {each.header("authorization") for each in server.requests} == {"Bearer sk-1"}


# --- Methods of one's own ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "mapped"), [("m", "m"), ("short", "long"), ("", "d"), (None, "d")])
def test_get_model(model: str | None, mapped: str) -> None:
    class Mine(OpenaiTemplate):
        default_model = "d"
        model_aliases = {"short": "long"}  # noqa: RUF012

    assert Mine.get_model(model) == Mine().get_model(model) == mapped


def test_get_model_overridden(collect: Collect, server: ChatServer, local: Any) -> None:
    class Mine(local):  # type: ignore[misc]
        @classmethod
        def get_model(cls, model: str | None, **options: Any) -> str | None:
            return f"vendor/{super().get_model(model)}"

    collect(Mine, "m")
    asked(Mine, model="m")
    assert [each.json()["model"] for each in server.requests] == ["vendor/m"] * 2


def test_a_generator_of_ones_own_that_asks_ours(collect: Collect, server: ChatServer, local: Any) -> None:
    class Loud(local):  # type: ignore[misc]
        @classmethod
        async def create_async_generator(cls, model: str, messages: Any, **kwargs: Any) -> AsyncIterator[Any]:
            async for piece in super().create_async_generator(model, messages, **kwargs, user="me"):
                yield piece.upper() if isinstance(piece, str) else piece

    assert told(collect(Loud, stream=True)) == asked(Loud, temperature=0) == "HELLO"
    assert told(collect(Loud(default_model="x"))) == trio.run(Loud.create_async, MODEL, HI) == "HELLO"
    assert {each.json()["user"] for each in server.requests} == {"me"}
    assert server.requests[1].json()["temperature"] == 0
    assert {each.json()["model"] for each in server.requests} == {MODEL}


def test_who_overrides_chats_has_said_nothing_of_models_and_images(server: ChatServer, local: Any) -> None:
    class Loud(local):  # type: ignore[misc]
        @classmethod
        async def create_async_generator(cls, model: str, messages: Any, **kwargs: Any) -> AsyncIterator[Any]:
            yield "loud"

    with Client(provider=Loud) as client:
        assert client.chat.completions.create(HI, MODEL).choices[0].message.content == "loud"
        assert [each.id for each in client.models.list().data] == Loud.get_models()
        assert client.images.generate("a cat", "painter").data[0].url
    assert [each.path.rpartition("/v1")[2] for each in server.requests] == ["/models", "/models", "/images/generations"]


def test_a_key_that_a_function_gives(collect: Collect, server: ChatServer) -> None:
    class Mine(OpenaiTemplate):
        api_base = server.url
        api_key = lambda: "sk-of-a-function"  # noqa: E731

    class Written(OpenaiTemplate):
        api_base = server.url

        def api_key() -> str:  # type: ignore[misc]
            return "sk-of-a-function"

    for provider in (Mine, Mine(), Written, Written(), Mine(api_key="sk-of-a-function")):
        assert told(collect(provider)) == asked(provider) == "Hello"
    assert {each.header("authorization") for each in server.requests} == {"Bearer sk-of-a-function"}


def test_a_generator_of_ones_own_as_a_method(collect: Collect, server: ChatServer) -> None:
    class Loud(OpenaiTemplate):
        async def create_async_generator(self, model: Any, messages: Any, **kwargs: Any) -> AsyncIterator[Any]:  # type: ignore[override]
            async for piece in super().create_async_generator(model, messages, **kwargs):
                yield piece.upper() if isinstance(piece, str) else piece

    assert told(collect(Loud(api_base=server.url))) == asked(Loud(api_base=server.url)) == "HELLO"


def test_attempts_of_one_that_asks_ours_are_not_multiplied(server: ChatServer, local: Any) -> None:
    class Loud(local):  # type: ignore[misc]
        working = False

        @classmethod
        async def create_async_generator(cls, model: str, messages: Any, **kwargs: Any) -> AsyncIterator[Any]:
            async for piece in super().create_async_generator(model, messages, **kwargs):
                yield piece

    class Bare(local):  # type: ignore[misc]
        @classmethod
        async def create_async_generator(
            cls, model: str, messages: Any, stream: Any, timeout: Any
        ) -> AsyncIterator[Any]:
            async for piece in super().create_async_generator(model, messages, max_retries=0):
                yield piece

    busy = [Answer.error(503, retry_after=0.01)] * 3
    for provider, options in ((Loud, {"ignore_working": True}), (Bare, {})):
        server.plan(*busy)
        with pytest.raises(InternalServerError):
            asked(provider, **options)
        assert asked(provider, **options) == "Hello"
    assert [each.status for each in server.requests] == [503, 503, 503, 200] * 2
