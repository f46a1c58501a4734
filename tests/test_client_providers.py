"""The clients' surface where providers come in: who is asked, with which key, at which server, through which proxy."""

from __future__ import annotations

import copy
import functools
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from driving import HI, MODEL, Driver, Run
from feeding import DONE, FINISH, delta, sse

from deltawire import (
    AsyncClient,
    AsyncGeneratorProvider,
    Client,
    ConfigurationError,
    Opchatgpts,
    OpenaiChat,
    OpenaiTemplate,
    ProviderNotFoundError,
    RetryProvider,
    Stream,
    TruncatedStreamError,
    accumulate,
)
from deltawire.protocol import ChunkChoice
from deltawire.protocol.pieces import ImageResponse
from deltawire.testing import Answer, ChatServer, ProxyServer

pytestmark = pytest.mark.usefixtures("_tidy")

PNG = b"\x89PNG\r\n\x1a\n"

# ``each(options, use)``: what a function of a client gives, on a client made of these options.
Each = Callable[[dict[str, Any], Callable[[Any], Any]], Any]


@pytest.fixture(params=["sync", "asyncio", "trio"])
def each(request: pytest.FixtureRequest) -> Each:
    """Calls that don't stream, on `Client` and on `AsyncClient`."""

    def blocks(options: dict[str, Any], use: Callable[[Any], Any]) -> Any:
        with Client(**options) as client:
            return use(client)

    async def waits(options: dict[str, Any], use: Callable[[Any], Any]) -> Any:
        async with AsyncClient(**options) as client:
            return await use(client)

    def runs(options: dict[str, Any], use: Callable[[Any], Any]) -> Any:
        import anyio

        return anyio.run(waits, options, use, backend=request.param)

    return blocks if request.param == "sync" else runs


@pytest.fixture
def other() -> Iterator[ChatServer]:
    with ChatServer(tokens=["oth", "er"], models=["z", {"id": "painter", "image": True}]) as running:
        yield running


def mine(server: ChatServer) -> type[OpenaiTemplate]:
    class Mine(OpenaiTemplate):
        api_base = server.url
        default_model = "mine"

    return Mine


# --- Who is asked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("form", ["class", "instance", "several"])
@pytest.mark.parametrize("place", ["client", "call"])
def test_providers(driver: Driver, server: ChatServer, form: str, place: str, stream: bool) -> None:
    cls = mine(server)
    provider = {"class": cls, "instance": cls(), "several": RetryProvider([cls])}[form]
    options = {"provider": provider} if place == "client" else {"provider": OpenaiChat}
    parameters = {"provider": provider} if place == "call" else {}
    heard = driver.ask(options, stream=stream, model=None, **parameters)
    assert (heard.text, heard.error) == ("Hello", None)
    assert server.requests[0].json()["model"] == "mine"
    if not stream:
        assert heard.reply.provider == "Mine"


def test_by_name(driver: Driver, server: ChatServer) -> None:
    assert driver.stream({"provider": "VLLM", "base_url": server.url}).text == "Hello"
    assert driver.stream({"base_url": server.url}, provider="Ollama").text == "Hello"
    with pytest.raises(ProviderNotFoundError, match="did you mean 'Groq'"):
        Client(provider="groq")
    assert isinstance(driver.stream({}, provider="Nobody").error, ProviderNotFoundError)
    for wrong in (3, object(), dict):
        assert isinstance(driver.stream({"provider": wrong}).error, ConfigurationError)


def test_copies(server: ChatServer, other: ChatServer) -> None:
    with Client(provider=mine(server)) as client:
        copy = client.with_options(provider=mine(other))
        assert copy.chat.completions.create("Hi").choices[0].message.content == "other"
        assert client.chat.completions.create("Hi").choices[0].message.content == "Hello"
        assert copy.with_options(max_retries=0).chat.completions.create("Hi").provider == "Mine"


def test_chunks_name_their_provider(server: ChatServer) -> None:
    with Client(provider=mine(server)) as client:
        stream = client.chat.completions.stream("Hi", "m")
        assert isinstance(stream, Stream)
        chunks = list(stream)
    assert {chunk.provider for chunk in chunks} == {"Mine"}
    assert (chunks[-1].choices[0].delta.content, chunks[-1].choices[0].finish_reason) == (None, "stop")
    for chunk in chunks:
        assert json.loads(chunk.to_json()) == json.loads(json.dumps(chunk.to_dict()))
        assert chunk.model_dump()["choices"][0]["index"] == 0


FILTERED = {"id": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}


def test_a_chunk_without_choices_may_be_asked_for_its_first_one(run: Run, server: ChatServer) -> None:
    server.plan(*[Answer(events=[sse(FILTERED, delta("Hello"), FINISH, DONE)])] * 2)
    with Client(provider=mine(server)) as client:
        chunks = list(client.chat.completions.stream("Hi"))

    async def main() -> None:
        async with AsyncClient(provider=mine(server)) as client:
            chunks.extend([chunk async for chunk in client.chat.completions.stream("Hi")])

    run(main)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "HelloHello"
    for chunk in (chunks[0], chunks[3]):
        said = chunk.choices[0]
        assert (said.finish_reason, said.delta.role, said.to_dict()) == (None, None, ChunkChoice().to_dict())
        assert chunk.choices == list(chunk.choices) == chunk.choices[:1] == []
        assert not chunk.choices
        assert len(chunk.choices) == 0
        for beyond in (1, -1):
            with pytest.raises(IndexError):
                chunk.choices[beyond]
        for same in (chunk, copy.deepcopy(chunk), pickle.loads(pickle.dumps(chunk))):
            assert same.choices[0].delta.content is None
            assert same.model_dump()["choices"] == []
            assert FILTERED.items() <= json.loads(same.to_json()).items()
            assert json.loads(json.dumps({"choices": same.choices})) == {"choices": []}
            assert msgspec.json.encode(same.choices) == b"[]"
            assert msgspec.json.decode(msgspec.json.encode(same)).get("choices", []) == []
        chunk.choices.append(ChunkChoice(index=5))
        assert chunk.choices[0].index == 5


def test_parts_of_answers_name_their_provider(server: ChatServer) -> None:
    with Client(provider=mine(server)) as client:
        assert accumulate(client.chat.completions.stream("Hi")).provider == "Mine"
        with client.chat.completions.stream("Hi") as stream:
            next(stream)
            partial = stream.partial()
            assert partial is not None
            assert partial.provider == "Mine"
        # Behind the first content, and before it.
        for tokens in (["Hel"], [""]):
            server.plan(Answer(tokens=tokens, finish_reason=None, done=False))
            with pytest.raises(TruncatedStreamError) as caught:
                list(client.chat.completions.stream("Hi", max_retries=0))
            assert caught.value.partial is not None
            assert caught.value.partial.provider == "Mine"
        assert client.images.generate("a cat", "painter").provider == "Mine"
        assert client.models.list().provider == "Mine"


def test_streams_that_are_asked_for_by_name(run: Run, server: ChatServer) -> None:
    async def main() -> None:
        async with AsyncClient(provider=mine(server)) as client:
            texts = [chunk.choices[0].delta.content or "" async for chunk in client.chat.completions.stream("Hi")]
            assert "".join(texts) == "Hello"

    run(main)
    assert server.requests[0].json() == {"model": "mine", "messages": HI, "stream": True}


def test_what_goes_into_the_body(driver: Driver, server: ChatServer) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
    assert driver.ask({"provider": mine(server)}, response_format=form, ignore_stream=True).text == "Hello"
    assert server.requests[0].json() == {"model": MODEL, "messages": HI, "response_format": form}
    error = driver.ask({"provider": mine(server)}, max_token=3).error
    assert isinstance(error, ConfigurationError)
    assert "did you mean 'max_tokens'?" in str(error)
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", ["media", "images"])
def test_media(driver: Driver, server: ChatServer, name: str) -> None:
    for given in ({name: [(PNG, "a.png")]}, {"image": PNG, "image_name": "a.png"}):
        assert driver.ask({"provider": mine(server)}, **given).text == "Hello"
        (message,) = server.requests[-1].json()["messages"]
        assert [part["type"] for part in message["content"]] == ["image_url", "text"]


# --- Which value wins ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "client", "attribute", "variable", "key"),
    [
        ("k-call", "k-client", "k-attribute", "k-environment", "k-call"),
        (None, "k-client", "k-attribute", "k-environment", "k-client"),
        (None, None, "k-attribute", "k-environment", "k-attribute"),
        (None, None, None, "k-environment", "k-environment"),
        (None, None, None, None, None),
        ("", "k-client", "k-attribute", "k-environment", None),
        (None, {"Mine": "k-mapped"}, "k-attribute", "k-environment", "k-mapped"),
        (None, {"Other": "k-mapped"}, "k-attribute", None, "k-attribute"),
        ({"Mine": "k-call"}, {"Mine": "k-mapped"}, None, None, "k-call"),
        (lambda: "k-called", "k-client", None, None, "k-called"),
        (None, {"Mine": lambda: "k-called"}, None, None, "k-called"),
        (None, None, lambda: "k-called", None, "k-called"),
    ],
)
def test_keys(
    driver: Driver,
    server: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
    call: Any,
    client: Any,
    attribute: Any,
    variable: str | None,
    key: str | None,
) -> None:
    if variable is not None:
        monkeypatch.setenv("OPENAI_API_KEY", variable)
    provider = mine(server)(api_key=attribute)
    driver.stream({"provider": provider, "api_key": client}, **({} if call is None else {"api_key": call}))
    (request,) = server.requests
    assert request.header("authorization") == (None if key is None else f"Bearer {key}")


def test_a_key_that_is_awaited(run: Run, server: ChatServer) -> None:
    async def key() -> str:
        return "k-awaited"

    async def main() -> None:
        async with AsyncClient(provider=mine(server), api_key={"Mine": key}) as client:
            await client.models.list()
            await client.chat.completions.create("Hi")

    run(main)
    assert [request.header("authorization") for request in server.requests] == ["Bearer k-awaited"] * 2


@pytest.mark.parametrize("winner", ["call", "client", "attribute", "environment"])
def test_servers(driver: Driver, server: ChatServer, monkeypatch: pytest.MonkeyPatch, winner: str) -> None:
    places = ["call", "client", "attribute", "environment"]
    nowhere = "http://127.0.0.1:1/v1"
    urls: dict[str, str | None] = dict.fromkeys(places[: places.index(winner)])
    urls |= {winner: server.url} | dict.fromkeys(places[places.index(winner) + 1 :], nowhere)
    monkeypatch.setenv("OPENAI_BASE_URL", urls["environment"] or "")
    provider = OpenaiTemplate(api_base=urls["attribute"] or "")
    heard = driver.stream({"provider": provider, "base_url": urls["client"]}, base_url=urls["call"])
    assert (heard.text, heard.error) == ("Hello", None)


# --- Proxies -------------------------------------------------------------------------------------------------


def all_calls(client: Client) -> None:
    client.chat.completions.create("Hi", MODEL)
    list(client.chat.completions.create("Hi", MODEL, stream=True))
    client.models.list()
    client.models.get_all()
    client.images.generate("a cat")


@pytest.mark.parametrize("form", ["text", "http", "all", "other", "environment", "G4F_PROXY"])
def test_one_rule_for_all_calls(
    server: ChatServer, proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    forms: dict[str, Any] = {
        "text": proxy.url,
        "http": {"http": proxy.url, "https": "http://127.0.0.1:1"},
        "all": {"all": proxy.url},
        "other": {"https": proxy.url},
    }
    if form not in forms:
        monkeypatch.setenv("HTTP_PROXY" if form == "environment" else form, proxy.url)
    with Client(provider=mine(server), proxies=forms.get(form), max_retries=0) as client:
        all_calls(client)
    assert len(server.requests) == len(proxy.requests) == 5
    assert all(request.authorized for request in proxy.requests)


def test_the_proxy_of_a_call(each: Each, server: ChatServer, proxy: ProxyServer) -> None:
    options = {"provider": mine(server), "proxies": "http://127.0.0.1:1", "max_retries": 0}
    calls: list[Callable[[Any], Any]] = [
        lambda client: client.chat.completions.create("Hi", MODEL, proxy=proxy.url),
        lambda client: client.models.list(proxy=proxy.url),
        lambda client: client.models.get_all(proxy=proxy.url),
        lambda client: client.images.generate("a cat", proxy=proxy.url),
    ]
    for number, call in enumerate(calls, 1):
        each(options, call)
        assert len(proxy.requests) == number


# --- Models --------------------------------------------------------------------------------------------------


def test_models(each: Each, other: ChatServer) -> None:
    provider = mine(other)
    assert [model.id for model in each({"provider": provider}, lambda client: client.models.list()).data] == [
        "z",
        "painter",
    ]
    for _ in range(2):
        assert each({"provider": provider}, lambda client: client.models.get_all()) == ["painter", "z"]
        assert each({"provider": provider}, lambda client: client.models.get_image()) == ["painter"]
        assert each({"provider": provider}, lambda client: client.models.get_vision()) == []
    assert len(other.requests) == 2, "asked for once"


def test_a_client_without_a_provider_asks_once(other: ChatServer) -> None:
    with Client(base_url=other.url) as client:
        assert client.models.get_all() == client.models.get_all() == ["painter", "z"]
        assert client.models.get_image() == ["painter"]
    assert len(other.requests) == 1
    assert OpenaiTemplate.image_models == []


def test_models_of_several(each: Each, server: ChatServer, other: ChatServer) -> None:
    class Own(AsyncGeneratorProvider):
        pass

    class Listing(OpenaiTemplate):
        @classmethod
        def get_models(cls, **options: Any) -> list[str]:  # type: ignore[override]
            return ["listed"]

    class Broken(OpenaiTemplate):
        @classmethod
        def get_models(cls, **options: Any) -> list[str]:  # type: ignore[override]
            raise LookupError("no list today")

    several = RetryProvider([mine(server), mine(other), Own, Listing, Broken, Opchatgpts, "OpenaiChat"])
    assert each({"provider": several}, lambda client: client.models.get_all()) == [MODEL, "painter", "z", "listed"]
    assert each({"provider": several}, lambda client: client.models.get_image()) == ["painter"]
    assert each({"provider": Own}, lambda client: client.models.get_all()) == []
    with pytest.raises(LookupError):
        each({"provider": Broken}, lambda client: client.models.get_all())


def test_models_that_stand_in(each: Each, server: ChatServer) -> None:
    server.plan(*[Answer.error(404)] * 2)
    fallback = mine(server)(fallback_models=["a"])
    assert each({"provider": fallback}, lambda client: client.models.get_all()) == ["a"]
    with pytest.raises(Exception, match="404"):
        each({"provider": mine(server)}, lambda client: client.models.get_all())


# --- Images --------------------------------------------------------------------------------------------------


def test_images(each: Each, server: ChatServer) -> None:
    def urls(client: Any) -> Any:
        return client.images.generate("a cat", "painter", n=2, size="1x1")

    def encoded(client: Any) -> Any:
        return client.images.generate(prompt="a cat", model="painter", response_format="b64_json")

    found = each({"provider": mine(server)}, urls)
    assert [image.url for image in found] == [f"{server.site_url}/images/1-{index}.png" for index in (0, 1)]
    assert server.requests[0].json() == {"prompt": "a cat", "model": "painter", "n": 2, "size": "1x1"}
    (image,) = each({"provider": mine(server)}, encoded).data
    assert image.data.startswith(PNG)
    with pytest.raises(ConfigurationError, match="did you mean 'size'"):
        each({"provider": mine(server)}, lambda client: client.images.generate("a cat", sizes="1x1"))
    assert len(server.requests) == 2


@pytest.mark.parametrize("name", ["media_provider", "image_provider"])
def test_who_draws(each: Each, server: ChatServer, other: ChatServer, name: str) -> None:
    options = {"provider": mine(server), name: mine(other)}
    each(options, lambda client: client.images.generate("a cat"))
    each(options, lambda client: client.chat.completions.create("Hi"))
    each({"provider": mine(server)}, lambda client: client.images.generate("a cat", **{name: mine(other)}))
    assert [request.path for request in other.requests] == ["/v1/images/generations"] * 2
    assert [request.path for request in server.requests] == ["/v1/chat/completions"]


def test_the_usual_model_for_images(server: ChatServer) -> None:
    """One for chats is none; where it is not known, the server chooses."""
    ways: list[tuple[dict[str, Any], str | None]] = [
        ({"default_model": "chat", "image_models": ["painter"]}, None),
        ({"default_model": "painter", "image_models": ["painter"]}, "painter"),
        ({"default_model": "painter"}, "painter"),
        ({}, None),
    ]
    for attributes, model in ways:
        with Client(provider=OpenaiTemplate(api_base=server.url, **attributes)) as client:
            client.images.generate("a cat")
        assert server.requests[-1].json().get("model") == model


def test_an_image_model_in_a_chat(driver: Driver, server: ChatServer) -> None:
    provider = mine(server)(image_models=["painter"])
    for number, stream in enumerate((True, False), 1):
        heard = driver.ask({"provider": provider}, model="painter", stream=stream)
        assert heard.text == f"![Hi]({server.site_url}/images/{number}-0.png)"
    assert server.requests[0].json() == {"prompt": "Hi", "model": "painter"}
    for dumped in (heard.reply.model_dump(), heard.reply.to_dict(), json.loads(heard.reply.to_json())):
        assert dumped["choices"][0]["message"]["content"] == heard.text
    with Client(provider=provider) as client:
        chunks = list(client.chat.completions.create("Hi", "painter", stream=True))
    assert (chunks[-1].choices[0].delta.content, chunks[-1].choices[0].finish_reason) == (None, "stop")
    assert [json.loads(chunk.to_json())["object"] for chunk in chunks] == ["chat.completion.chunk"] * len(chunks)


def test_an_image_model_without_a_client(server: ChatServer) -> None:
    provider = mine(server)(image_models=["painter"])
    (piece,) = (piece for piece in provider.create_generator("painter", "a cat") if isinstance(piece, ImageResponse))
    assert piece.urls == [f"{server.site_url}/images/1-0.png"]


# --- What is asked in vain ------------------------------------------------------------------------------------


def test_models_take_no_parameters(each: Each, server: ChatServer) -> None:
    with pytest.raises(ConfigurationError, match="without 'temperature'"):
        each({"base_url": server.url}, lambda client: client.models.list(temperature=1))
    assert not server.requests


def test_images_need_a_prompt_and_take_no_media(each: Each, server: ChatServer) -> None:
    with pytest.raises(ConfigurationError, match="prompt is missing: say what to draw"):
        each({"base_url": server.url}, lambda client: client.images.generate(None, "painter"))

    def draw(client: Any, **given: Any) -> Any:
        return client.images.generate("a", "painter", **given)

    for given in ({"image": PNG}, {"media": [(PNG, "a.png")]}):
        with pytest.raises(ConfigurationError, match="painter draws from the prompt alone: leave out media and image"):
            each({"base_url": server.url}, functools.partial(draw, **given))

    class Mine(OpenaiTemplate):
        api_base = server.url
        image_models = ["painter"]  # noqa: RUF012

    with pytest.raises(ConfigurationError, match="draws from the prompt alone"):
        each({"provider": Mine}, lambda client: client.chat.completions.create("a", "painter", image=PNG))
    assert not server.requests
