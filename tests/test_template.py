"""`OpenaiTemplate` as people subclass it: every attribute means something."""

from __future__ import annotations

import io
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from collecting import Collect, asked, told
from driving import HI, MODEL, Run, shown

from deltawire import (
    AsyncClient,
    AuthenticationError,
    Client,
    ConfigurationError,
    ConnectError,
    MissingAuthError,
    OpenaiTemplate,
    ProviderNotWorkingError,
    RetryProvider,
)
from deltawire.testing import Answer, ChatServer

pytestmark = pytest.mark.usefixtures("_tidy")

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "What?"},
    {"role": "user", "content": "Bye"},
]


# --- Three attributes -------------------------------------------------------------------------------------


def test_a_provider_of_ones_own(collect: Collect, run: Run) -> None:
    with ChatServer(tokens=["Hel", "lo"], api_key="sk-mine") as server:

        class Mine(OpenaiTemplate):
            api_base = server.url
            api_key = "sk-mine"
            default_model = "mine-1"

        async def main() -> str:
            async with AsyncClient(Mine) as client:
                stream = client.chat.completions.create("Hi", stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

        assert told(collect(Mine, "", stream=True)) == "Hello"
        assert asked(Mine, model="") == asked(Mine(), model=None) == run(main) == "Hello"
        assert Mine.get_models() == [MODEL]
        assert [each.json()["model"] for each in server.requests[:4]] == ["mine-1"] * 4


@pytest.mark.parametrize("kind", ["class", "instance", "instance that says otherwise", "instance of the template"])
def test_classes_and_instances(collect: Collect, server: ChatServer, kind: str) -> None:
    class Mine(OpenaiTemplate):
        api_base = server.url
        api_key = "sk-mine"
        default_model = "m"

    provider: Any = {
        "class": Mine,
        "instance": Mine(),
        "instance that says otherwise": Mine(default_model="n", base_url=server.url + "/v2"),
        "instance of the template": OpenaiTemplate(api_base=server.url, api_key="sk-mine", default_model="m"),
    }[kind]
    assert told(collect(provider, None)) == asked(provider, model=None) == "Hello"
    assert provider.get_models() == [MODEL]
    other = kind == "instance that says otherwise"
    first, second, models = server.requests
    assert first.json()["model"] == second.json()["model"] == provider.get_model("") == ("n" if other else "m")
    assert models.target == ("/v1/v2/models" if other else "/v1/models")
    assert {each.header("authorization") for each in server.requests} == {"Bearer sk-mine"}
    assert Mine.default_model == "m"


@pytest.mark.parametrize("name", ["api_bas", "get_models", "_catalogues", "colour"])
def test_what_is_no_attribute(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"OpenaiTemplate has no attribute '{name}'") as caught:
        OpenaiTemplate(**{name: "x"})
    assert ("did you mean 'api_base'" in str(caught.value)) is (name == "api_bas")


# --- Whom it trusts ---------------------------------------------------------------------------------------


@pytest.fixture
def pem(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


@pytest.mark.parametrize("given", ["False", "path", "path object", "context"])
def test_ssl(collect: Collect, tls_server: ChatServer, pem: Path, trusting: ssl.SSLContext, given: str) -> None:
    value = {"False": False, "path": str(pem), "path object": pem, "context": trusting}[given]
    provider = OpenaiTemplate(api_base=tls_server.url, ssl=value)
    assert told(collect(provider, stream=True)) == asked(provider) == "Hello"
    assert provider.get_models() == [MODEL]
    assert len(tls_server.requests) == 3


@pytest.mark.parametrize("given", [None, True])
def test_ssl_that_verifies(
    collect: Collect, tls_server: ChatServer, trusting: ssl.SSLContext, given: bool | None
) -> None:
    provider = OpenaiTemplate(api_base=tls_server.url, ssl=given)
    with pytest.raises(ConnectError, match="is not trusted"):
        collect(provider)
    with pytest.raises(ConnectError, match="is not trusted"):
        provider.get_models()
    with Client(provider, verify=trusting) as client:
        assert client.chat.completions.create(HI, MODEL).choices[0].message.content == "Hello"


@pytest.mark.parametrize("value", ["", 0, b"ca.pem", "/nowhere/ca.pem"])
def test_ssl_that_says_nothing(collect: Collect, tls_server: ChatServer, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"ssl|certificate authorities"):
        collect(OpenaiTemplate(api_base=tls_server.url, ssl=value))
    assert tls_server.requests == []


def test_one_client_and_providers_that_trust_differently(tls_server: ChatServer, pem: Path) -> None:
    with Client() as client:
        for given, works in ((pem, True), (None, False), (False, True)):
            provider = OpenaiTemplate(api_base=tls_server.url, ssl=given)
            if works:
                assert client.chat.completions.create(HI, MODEL, provider=provider).choices
            else:
                with pytest.raises(ConnectError):
                    client.chat.completions.create(HI, MODEL, provider=provider)


# --- What else is declared --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "sent"),
    [
        ({}, TALK),
        ({"supports_system_message": False}, [{"role": "user", "content": "Be brief.\n\nHi"}, *TALK[2:]]),
        (
            {"supports_message_history": False},
            [{"role": "user", "content": "System: Be brief.\n\nUser: Hi\n\nAssistant: What?\n\nUser: Bye"}],
        ),
        (
            {"supports_message_history": False, "supports_system_message": False},
            [{"role": "user", "content": "User: Be brief.\n\nHi\n\nAssistant: What?\n\nUser: Bye"}],
        ),
    ],
)
def test_messages_for_servers_that_take_less(
    collect: Collect, server: ChatServer, local: Any, declared: dict[str, Any], sent: list[Any]
) -> None:
    before = [dict(message) for message in TALK]
    collect(local(**declared), messages=TALK)
    asked(local(**declared), messages=TALK)
    assert [each.json()["messages"] for each in server.requests] == [sent, sent]
    assert before == TALK


@pytest.mark.parametrize("given", [True, False, None])
def test_supports_stream(collect: Collect, server: ChatServer, local: Any, given: bool | None) -> None:
    pieces = collect(local(supports_stream=False), stream=given)
    assert told(pieces) == "Hello"
    (request,) = server.requests
    assert request.json().get("stream") == (None if given is None else False)
    assert request.header("accept") == "application/json"


def test_working(collect: Collect, server: ChatServer, local: Any) -> None:
    gone = local(working=False)
    with pytest.raises(ProviderNotWorkingError, match="Local is marked as not working"):
        collect(gone)
    with pytest.raises(ProviderNotWorkingError):
        asked(gone)
    assert server.requests == []
    assert told(collect(gone, ignore_working=True)) == asked(gone, ignore_working=True) == "Hello"


def test_needs_auth(collect: Collect, server: ChatServer, local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = local(needs_auth=True, api_key_env="MINE_API_KEY")
    monkeypatch.delenv("MINE_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    for given in (None, ""):
        with pytest.raises(MissingAuthError, match="pass api_key=, or set MINE_API_KEY"):
            collect(strict, api_key=given)
    with pytest.raises(MissingAuthError):
        strict.get_models()
    assert server.requests == []
    assert told(collect(strict, headers={"Authorization": "Basic x"})) == "Hello"
    monkeypatch.setenv("MINE_API_KEY", "sk-mine")
    assert told(collect(strict)) == "Hello"
    assert [each.header("authorization") for each in server.requests] == ["Basic x", "Bearer sk-mine"]
    assert told(collect(local(needs_auth=False, api_key_env=None))) == "Hello"
    assert server.requests[-1].header("authorization") is None


def test_api_base_env(collect: Collect, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("MINE_BASE", server.url)
    mine = OpenaiTemplate(api_base_env="MINE_BASE", needs_base=True)
    assert told(collect(mine)) == "Hello"
    with Client(mine, trust_env=False) as client, pytest.raises(ConfigurationError, match="set MINE_BASE"):
        client.chat.completions.create(HI, MODEL)


def test_a_bad_base_url_in_the_environment_is_the_fault_of_those_who_read_it(
    collect: Collect, server: ChatServer, local: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost:8000")
    assert told(collect(local)) == asked(local) == "Hello"
    for make in (Client, lambda: Client(OpenaiTemplate).chat.completions.create(HI, MODEL)):
        with pytest.raises(ConfigurationError, match="base_url must begin with http"):
            make()


def test_api_endpoint(server: ChatServer) -> None:
    class Whole(OpenaiTemplate):
        api_endpoint = server.url + "/whole/chat/completions"
        needs_base = True

    assert asked(Whole) == asked(Whole(default_model="m")) == "Hello"
    # It is of another server than the one that is named.
    assert asked(Whole(base_url=server.url + "/named")) == "Hello"
    with Client(Whole, base_url=server.url + "/named") as client:
        client.chat.completions.create(HI, MODEL)
    assert [each.target for each in server.requests] == ["/v1/whole/chat/completions"] * 2 + [
        "/v1/named/chat/completions"
    ] * 2


def test_the_key_of_an_api_endpoint_goes_nowhere_else(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer() as other:
        monkeypatch.setenv("OPENAI_BASE_URL", other.url)

        class Mine(OpenaiTemplate):
            api_endpoint = server.url + "/chat/completions?a=1"
            api_key = "sk-mine"

        class Odd(Mine):
            api_endpoint = server.url + "/talk"

        assert Mine.get_models() == [MODEL]
        with Client(Mine) as client:
            assert len(client.images.generate("a cat", "painter").data) == 1
        assert [each.target for each in server.requests] == ["/v1/models?a=1", "/v1/images/generations?a=1"]
        assert {each.header("authorization") for each in server.requests} == {"Bearer sk-mine"}
        with pytest.raises(ConfigurationError, match=r"Odd says where chats are .* set api_base"):
            Odd.get_models()
        with Client(Odd) as client, pytest.raises(ConfigurationError, match="set api_base"):
            client.images.generate("a cat", "painter")
        # Where the base URL is said, it holds.
        assert Odd(base_url=other.url).get_models() == Odd.get_models(api_base=other.url) == [MODEL]
        assert len(other.requests) == 2


def test_paths_and_version(server: ChatServer, local: Any) -> None:
    odd = local(
        chat_path="/{model}/chat/completions", models_path="/all/models", images_path="/{model}/images/generations",
        api_version="1", image_models=["painter"],
    )  # fmt: skip
    odd.get_models()
    asked(odd, model="a b")
    told(odd.create_generator("painter", HI))
    assert [each.target for each in server.requests] == [
        "/v1/all/models?api-version=1",
        "/v1/a%20b/chat/completions?api-version=1",
        "/v1/painter/images/generations?api-version=1",
    ]


def test_model_aliases_and_image_models(collect: Collect, server: ChatServer, local: Any) -> None:
    provider = local(model_aliases={"art": "painter"}, image_models=["painter"])
    (image,) = collect(provider, "art", [{"role": "user", "content": "A cat"}], size="1x1", stream=True)
    assert server.requests[-1].target == "/v1/images/generations"
    assert server.requests[-1].json() == {"prompt": "A cat", "model": "painter", "size": "1x1"}
    assert image.urls[0].startswith(server.site_url)
    assert str(image) == f"![A cat]({image.urls[0]})"
    assert asked(provider, model="art").startswith(f"![Hi]({server.site_url}/images/")
    assert collect(provider, "painter", response_format="b64_json", prompt="A cat")[0].prompt == "A cat"
    with pytest.raises(ConfigurationError, match="unknown parameter 'tools'"):
        provider.create_async_generator("painter", HI, tools=[])


def test_a_key_that_is_made_anew(collect: Collect, server: ChatServer, local: Any) -> None:
    made = iter(["sk-1", "sk-2", "sk-3"])

    class Rotating(local):  # type: ignore[misc]
        @staticmethod
        def api_key() -> str:
            return next(made)

    server.plan(Answer.error(503, retry_after=0.01))
    assert told(collect(Rotating())) == told(collect(Rotating)) == "Hello"
    assert [each.header("authorization") for each in server.requests] == ["Bearer sk-1", "Bearer sk-2", "Bearer sk-3"]


def test_the_name_in_errors_and_keys(collect: Collect, server: ChatServer, local: Any) -> None:
    server.plan(Answer.error(401))
    with pytest.raises(AuthenticationError, match="Ours"):
        collect(local(name="Ours"), api_key={"Ours": "sk-ours-only", "Local": "sk-local"})
    assert server.requests[0].header("authorization") == "Bearer sk-ours-only"


def test_no_key_is_shown(local: Any, server: ChatServer) -> None:
    provider = local(api_key="sk-very-secret")
    server.plan(Answer.error(401, "Who is sk-very-secret?"))
    with pytest.raises(AuthenticationError) as caught:
        asked(provider)
    assert "sk-very-secret" not in shown(caught.value) + repr(provider) + repr(provider.create_async_generator("m", HI))


def test_a_file_that_can_be_read_once_reaches_every_provider(server: ChatServer, local: Any) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    server.plan(Answer.error(401))
    several = RetryProvider([local(), local()], shuffle=False)
    assert asked(several, media=iter([(Pipe(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), None)])) == "Hello"
    first, second = server.requests
    assert first.body == second.body
    assert b"image/png" in first.body
