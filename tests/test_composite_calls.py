"""Calls of clients and of ``create_async_generator`` to several providers: sync, on asyncio and on trio."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from driving import HI, Driver, Run, shown
from faults import event

from deltawire import (
    AuthenticationError,
    BadRequestError,
    Client,
    ConfigurationError,
    InternalServerError,
    IterListProvider,
    Opchatgpts,
    OpenaiTemplate,
    ProviderNotWorkingError,
    RateLimitError,
    RetryNoProviderError,
    RetryPolicy,
    RetryProvider,
    RetryProviderError,
    RotatedProvider,
    Timeout,
    TruncatedStreamError,
    UsageError,
)
from deltawire.protocol.pieces import FinishReason
from deltawire.testing import Answer, ChatServer

pytestmark = pytest.mark.usefixtures("_tidy")

both_kinds = pytest.mark.parametrize("stream", [True, False])

EMPTY = Answer(tokens=[], finish_reason=None)
CUT = Answer(tokens=["Hel"], finish_reason=None, done=False)


@pytest.fixture
def other() -> Iterator[ChatServer]:
    """Another server, which says something else."""
    with ChatServer(tokens=["Good ", "day"]) as running:
        yield running


def at(server: ChatServer, name: str = "", **attributes: Any) -> OpenaiTemplate:
    """The provider of a server."""
    return OpenaiTemplate(api_base=server.url, name=name, **attributes)


def again(server: ChatServer, times: int) -> RetryProvider:
    return RetryProvider([at(server)], single_provider_retry=True, max_retries=times)


def in_turn(*providers: Any) -> RetryProvider:
    return RetryProvider(list(providers), shuffle=False)


# --- How often ----------------------------------------------------------------------------------------


@both_kinds
@pytest.mark.parametrize("clients", [0, 7])
def test_its_number_replaces_the_clients(driver: Driver, server: ChatServer, clients: int, stream: bool) -> None:
    server.plan(*[Answer.error(503)] * 9)
    policy = RetryPolicy(max_retries=clients, initial=0.01)
    heard = driver.ask({"provider": again(server, 3), "max_retries": policy}, stream=stream)
    assert isinstance(heard.error, RetryProviderError)
    assert [type(each) for each in heard.error.errors] == [InternalServerError] * 3
    assert len(server.requests) == 3


@both_kinds
def test_it_replaces_the_calls_number(driver: Driver, server: ChatServer, stream: bool) -> None:
    server.plan(*[Answer.error(503, retry_after=0.01)] * 2)
    heard = driver.ask({"provider": again(server, 3)}, stream=stream, max_retries=0)
    assert (heard.text, heard.error) == ("Hello", None)
    assert [each.status for each in server.requests] == [503, 503, 200]
    if stream:
        assert heard.reply.retries_taken == 2


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What drivers wait for, which takes no time here; their dice fall on 0.5."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("deltawire.drivers.time", SimpleNamespace(sleep=waited.append))
    monkeypatch.setattr(anyio, "sleep", sleep)
    monkeypatch.setattr("deltawire.calls.random", SimpleNamespace(random=lambda: 0.5))
    return waited


def test_the_waits(driver: Driver, server: ChatServer, waits: list[float]) -> None:
    server.plan(*[Answer.error(503)] * 3, Answer.error(429, retry_after=60), *[Answer.error(503)] * 2)
    heard = driver.stream({"provider": again(server, 7), "max_retries": 0})
    assert heard.text == "Hello"
    assert waits == [0.4375, 0.875, 1.75, 60.0, 7.0, 7.0]


def test_the_waits_of_the_clients_policy(driver: Driver, server: ChatServer, waits: list[float]) -> None:
    server.plan(*[Answer.error(503)] * 2)
    policy = RetryPolicy(initial=3, jitter=0)
    assert driver.stream({"provider": again(server, 3), "max_retries": policy}).text == "Hello"
    assert waits == [3.0, 6.0]


def test_nobody_waits_between_two(driver: Driver, server: ChatServer, other: ChatServer, waits: list[float]) -> None:
    server.plan(Answer.error(429, retry_after=60))
    assert driver.stream({"provider": in_turn(at(server), at(other))}).text == "Good day"
    assert waits == []


def test_no_time_for_the_wait_but_for_another(driver: Driver, server: ChatServer, other: ChatServer) -> None:
    server.plan(Answer.error(429, retry_after=60))
    other.plan(Answer.error(500))
    first, second = at(server), at(other)
    third = at(other, "third")
    heard = driver.stream({"provider": in_turn(first, second, first, third), "timeout": Timeout(total=30)})
    assert (heard.text, heard.error) == ("Good day", None)
    assert (len(server.requests), len(other.requests)) == (1, 2)


# --- One after the other ------------------------------------------------------------------------------

FAULTS = {
    "refused": None,
    "400": Answer.error(400),
    "401": Answer.error(401),
    "404": Answer.error(404),
    "429, asking for hours": Answer.error(429, retry_after=10_000),
    "500": Answer.error(500),
    "empty": EMPTY,
    "cut off before content": Answer(cut_after=0),
}


@both_kinds
@pytest.mark.parametrize("fault", FAULTS)
def test_the_next_is_asked(driver: Driver, server: ChatServer, other: ChatServer, fault: str, stream: bool) -> None:
    answer = FAULTS[fault]
    provider = in_turn(at(server, "first"), at(other, "second"))
    with contextlib.ExitStack() as stack:
        if answer is None:
            stack.enter_context(server.refuse_connections())
        else:
            server.plan(answer)
        heard = driver.ask({"provider": provider}, stream=stream)
    assert (heard.text, heard.error) == ("Good day", None)
    assert len(server.requests) == (0 if answer is None else 1)
    assert len(other.requests) == 1
    assert provider.last_provider is provider.providers[1]
    if not stream:
        assert heard.reply.provider == "second"


def test_after_content_nobody_else_is_asked(driver: Driver, server: ChatServer, other: ChatServer) -> None:
    server.plan(CUT)
    provider = in_turn(at(server), at(other), at(server))
    heard = driver.stream({"provider": provider})
    assert heard.text == "Hel"
    assert isinstance(heard.error, TruncatedStreamError)
    assert (len(server.requests), len(other.requests)) == (1, 0)
    assert provider.last_provider is provider.providers[0]


def test_what_was_not_shown_is_asked_for_again(driver: Driver, server: ChatServer, other: ChatServer) -> None:
    server.plan(Answer(events=[event("Hel")]))
    assert driver.ask({"provider": in_turn(at(server), at(other))}).text == "Good day"


@both_kinds
def test_all_fail(driver: Driver, server: ChatServer, other: ChatServer, stream: bool) -> None:
    server.plan(Answer.error(400, "too long"))
    other.plan(Answer.error(429, "too many"))
    error = driver.ask({"provider": in_turn(at(server, "one"), at(other, "two"))}, stream=stream).error
    assert isinstance(error, RetryProviderError)
    first, second = error.errors
    assert (type(first), type(second)) == (BadRequestError, RateLimitError)
    _, one, two = str(error).splitlines()
    assert one.startswith("  1. BadRequestError: ")
    assert "one" in one
    assert "too long" in one
    assert two.startswith("  2. RateLimitError: ")
    assert "two" in two
    assert error.__cause__ is second
    assert second.__context__ is first


@both_kinds
def test_one_error_is_that_error(driver: Driver, server: ChatServer, stream: bool) -> None:
    server.plan(Answer.error(400))
    assert type(driver.ask({"provider": in_turn(at(server))}, stream=stream).error) is BadRequestError


@both_kinds
def test_all_are_empty(driver: Driver, server: ChatServer, other: ChatServer, stream: bool) -> None:
    server.plan(EMPTY)
    other.plan(EMPTY)
    error = driver.ask({"provider": in_turn(at(server), at(other))}, stream=stream).error
    assert isinstance(error, RetryNoProviderError)


def test_an_empty_list(driver: Driver) -> None:
    assert isinstance(driver.stream({"provider": RetryProvider([])}).error, RetryNoProviderError)


def test_another_dialect_is_next(driver: Driver, server: ChatServer, other: ChatServer) -> None:
    server.plan(Answer.error(500))
    provider = in_turn(at(server), Opchatgpts(url=other.site_url))
    assert driver.stream({"provider": provider}).text == "Good day"
    assert [each.path for each in other.requests] == [
        "/wp-json/mwai/v1/start_session",
        "/wp-json/mwai-ui/v1/chats/submit",
    ]


def test_one_that_can_not_do_what_is_asked_is_passed_over(driver: Driver, server: ChatServer) -> None:
    # A site shows no images: it is not asked, and that is no reason not to ask another.
    picture = [(b"\x89PNG\r\n\x1a\n", "a.png")]
    provider = in_turn(Opchatgpts(url=server.site_url), at(server))
    assert driver.stream({"provider": provider}, media=picture).text == "Hello"
    alone = driver.stream({"provider": in_turn(Opchatgpts(url=server.site_url))}, media=picture)
    assert isinstance(alone.error, ConfigurationError)


class Mine(OpenaiTemplate):
    """Its code raises what it is told to, where it is told to."""

    raises: Any = KeyError("no such variable")
    where = ""

    def get_headers(self, *args: Any, **options: Any) -> dict[str, str]:  # type: ignore[override] # an instance's
        if self.where == "headers":
            raise self.raises
        return super().get_headers(*args, **options)

    def get_model(self, model: str | None, *args: Any, **options: Any) -> str:  # type: ignore[override]
        if self.where == "model":
            raise self.raises
        return super().get_model(model, *args, **options)


def key_that_raises() -> str:
    raise KeyError("no such key")


FAULTY: dict[str, tuple[type[OpenaiTemplate], dict[str, Any], type[Exception]]] = {
    "certificates that are none": (OpenaiTemplate, {"ssl": "no-such-file.pem"}, ConfigurationError),
    "key": (OpenaiTemplate, {"api_key": key_that_raises}, KeyError),
    "headers": (Mine, {"where": "headers"}, KeyError),
    "model": (Mine, {"where": "model"}, KeyError),
}


@both_kinds
@pytest.mark.parametrize("fault", FAULTY)
def test_code_of_ones_own_and_certificates_that_fail(
    driver: Driver, server: ChatServer, fault: str, stream: bool
) -> None:
    cls, attributes, expected = FAULTY[fault]
    # (A server whose certificate is to be checked.)
    faulty = cls(api_base=server.url.replace("http:", "https:"), **attributes)
    heard = driver.ask({"provider": in_turn(faulty, at(server))}, stream=stream)
    assert (heard.text, heard.error) == ("Hello", None)
    assert type(driver.ask({"provider": faulty}, stream=stream).error) is expected
    assert len(server.requests) == 1


@pytest.mark.parametrize("error", [UsageError("out of turn"), KeyboardInterrupt("stop")], ids=repr)
def test_what_goes_straight_up(server: ChatServer, error: BaseException) -> None:
    faulty = Mine(api_base=server.url, where="headers", raises=error)
    with Client(in_turn(faulty, at(server))) as client, pytest.raises(type(error)) as caught:
        client.chat.completions.create(HI, "m")
    assert caught.value is error
    assert server.requests == []


def test_rotation_from_call_to_call(driver: Driver, server: ChatServer, other: ChatServer) -> None:
    provider = RotatedProvider([at(server), at(other)])
    said = [driver.stream({"provider": provider}).text for _ in range(3)]
    assert said == ["Hello", "Good day", "Hello"]
    other.plan(Answer.error(500))
    assert driver.stream({"provider": provider}).text == "Hello"
    assert driver.stream({"provider": provider}).text == "Good day"


# --- Those that don't work ----------------------------------------------------------------------------


class Broken(OpenaiTemplate):
    working = False


@both_kinds
def test_one_that_does_not_work_is_passed_over(driver: Driver, server: ChatServer, stream: bool) -> None:
    broken = Broken(api_base=server.url)
    assert driver.ask({"provider": in_turn(broken, at(server))}, stream=stream).text == "Hello"
    assert len(server.requests) == 1
    alone = driver.ask({"provider": in_turn(broken)}, stream=stream).error
    assert isinstance(alone, ProviderNotWorkingError)
    assert "Broken is marked as not working" in str(alone)
    both = driver.ask({"provider": in_turn(broken, "Opchatgpts")}, stream=stream).error
    assert isinstance(both, RetryProviderError)
    assert len(server.requests) == 1


@pytest.mark.parametrize("where", ["client", "call"])
def test_one_that_does_not_work_is_asked_all_the_same(driver: Driver, server: ChatServer, where: str) -> None:
    options: dict[str, Any] = {"provider": in_turn(Broken(api_base=server.url))}
    said = {"ignore_working": True}
    heard = driver.stream({**options, **said}) if where == "client" else driver.stream(options, **said)
    assert heard.text == "Hello"


# --- Keys ---------------------------------------------------------------------------------------------


def keys(*servers: ChatServer) -> list[str | None]:
    return [each.header("authorization") for server in servers for each in server.requests]


class First(OpenaiTemplate): ...


class Second(OpenaiTemplate):
    name = "two"


@pytest.mark.parametrize("where", ["client", "call"])
@pytest.mark.parametrize("by", ["name", "class"])
def test_a_key_for_each(driver: Driver, server: ChatServer, other: ChatServer, by: str, where: str) -> None:
    server.plan(Answer.error(500))
    provider = in_turn(First(api_base=server.url), Second(api_base=other.url))
    mapping: Any = (
        {First: "sk-first", Second: "sk-second"} if by == "class" else {"First": "sk-first", "two": "sk-second"}
    )
    options = {"provider": provider}
    given = {"api_key": mapping}
    heard = driver.stream({**options, **given}) if where == "client" else driver.stream(options, **given)
    assert heard.text == "Good day"
    assert keys(server, other) == ["Bearer sk-first", "Bearer sk-second"]


def test_the_key_of_one_is_not_shown_to_another(driver: Driver, server: ChatServer, other: ChatServer) -> None:
    server.plan(Answer.error(401))
    other.plan(Answer.error(401))
    provider = in_turn(First(api_base=server.url, api_key="sk-of-the-first"), Second(api_base=other.url))
    error = driver.stream({"provider": provider}).error
    assert isinstance(error, RetryProviderError)
    assert all(isinstance(each, AuthenticationError) for each in error.errors)
    assert keys(server, other) == ["Bearer sk-of-the-first", None]
    assert "sk-of-the-first" not in shown(error)


# --- As generators ------------------------------------------------------------------------------------

each_kind = pytest.mark.parametrize("kind", [RetryProvider, IterListProvider, RotatedProvider])


def gone() -> OpenaiTemplate:
    return OpenaiTemplate(api_base="http://127.0.0.1:9/v1", needs_auth=True, api_key="")


@each_kind
@both_kinds
def test_create_async_generator(run: Run, server: ChatServer, kind: Any, stream: bool) -> None:
    async def main() -> list[Any]:
        return [piece async for piece in provider.create_async_generator("m", HI, stream=stream)]

    provider = kind([gone(), at(server)])
    pieces = run(main)
    assert "".join(map(str, pieces)) == "Hello"
    assert FinishReason("stop") in pieces
    assert provider.last_provider is provider.providers[1] or kind is not RotatedProvider
    assert len(server.requests) == 1


@each_kind
@both_kinds
def test_create_generator(server: ChatServer, kind: Any, stream: bool) -> None:
    provider = kind([gone(), at(server)])
    assert "".join(map(str, provider.create_generator("m", HI, stream=stream))) == "Hello"
    assert len(server.requests) == 1


def test_create_async(run: Run, server: ChatServer, other: ChatServer) -> None:
    server.plan(Answer.error(500))
    assert run(in_turn(at(server), at(other)).create_async, "m", HI) == "Good day"


def test_a_generator_fails_as_a_call_does(run: Run, server: ChatServer, other: ChatServer) -> None:
    text = ""

    async def main() -> None:
        nonlocal text
        async for piece in in_turn(at(server), at(other)).create_async_generator("m", HI, stream=True):
            text += str(piece)

    server.plan(CUT)
    with pytest.raises(TruncatedStreamError):
        run(main)
    assert text == "Hel"
    assert not other.requests
    for each in (server, other):
        each.plan(Answer.error(400))
    with pytest.raises(RetryProviderError):
        in_turn(at(server), at(other)).create_generator("m", HI)
