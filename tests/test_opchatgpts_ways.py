"""`Opchatgpts` on the way to its site: proxies, TLS, deadlines, cancelling, leaving early, and company."""

from __future__ import annotations

import contextlib
import functools
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from driving import HI, SOON, SOON_ONCE, Driver, Run, blocking, cancelled_when
from programs import run_program
from sites import asked, submits
from ways import WAYS, Way, assert_no_secret, laid, named

from deltawire import (
    AsyncClient,
    Client,
    ConnectError,
    IterListProvider,
    Opchatgpts,
    OpenaiTemplate,
    ProviderNotWorkingError,
    ProxyError,
    RetryProvider,
    RetryProviderError,
    RotatedProvider,
    Timeout,
    TimeoutError,
    TruncatedStreamError,
)
from deltawire.testing import Answer, ChatServer, ProxyServer

pytestmark = pytest.mark.usefixtures("_tidy", "transports")

both_kinds = pytest.mark.parametrize("stream", [True, False])

START, SUBMIT = "start_session", "submit"
LIVE = b'data: {"type":"live","data":"%s"}\n\n'
THOUGHT = b'data: {"type":"live","data":"Hm","subtype":"thinking"}\n\n'


def way_name(way: Way) -> str:
    return way.name


def text_of(answer: Any) -> str:
    return "".join(map(str, answer))


# --- Proxies and TLS -----------------------------------------------------------------------------------


@both_kinds
@pytest.mark.parametrize("way", WAYS, ids=way_name)
def test_each_way(
    driver: Driver, way: Way, stream: bool, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    with laid(way, server_context, trusting) as route:
        provider = Opchatgpts(url=named(route.server.site_url))
        options = {"provider": provider, "proxies": route.proxies, "verify": trusting, "max_retries": 0}
        heard = driver.ask(options, stream=stream)
        assert (heard.text, heard.error) == ("Hello", None)
        assert asked(route.server) == [START, SUBMIT]
        if not way.through or way.tunnels:
            assert route.server.connections == 1, "the session and the answer come on one connection"
        assert all(each.header("proxy-authorization") is None for each in route.server.requests)
        if route.between is not None:
            assert all(each.authorized for each in route.between.requests)
            assert len(route.between.requests) == (1 if way.tunnels else 2)


@pytest.mark.parametrize("way", WAYS, ids=way_name)
def test_generators_take_a_proxy(run: Run, way: Way, server_context: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    with laid(way, server_context, trusting) as route:
        provider = Opchatgpts(url=named(route.server.site_url), ssl=trusting)

        async def main() -> str:
            answer = provider.create_async_generator("", HI, proxy=route.proxies)
            return "".join([str(piece) async for piece in answer])

        assert run(main) == "Hello"
        assert text_of(provider.create_generator("", HI, proxy=route.proxies)) == "Hello"
        assert asked(route.server) == [START, SUBMIT, SUBMIT]
        assert route.between is None or {each.authorized for each in route.between.requests} == {True}


def test_a_proxy_that_refuses_the_password(driver: Driver, server: ChatServer, proxy: ProxyServer) -> None:
    wrong = f"http://me:wr0ng-s3cret@127.0.0.1:{proxy.port}"
    heard = driver.ask({"provider": Opchatgpts(url=server.site_url), "proxies": wrong, "max_retries": SOON})
    assert isinstance(heard.error, ProxyError)
    assert_no_secret(heard.error, "wr0ng-s3cret")
    assert len(proxy.requests) == 1, "that is not tried again"
    assert server.connections == 0


def authority_file(authority: trustme.CA, folder: Path) -> str:
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.mark.parametrize("kind", ["context", "file", "unverified"])
def test_ssl(
    driver: Driver, tls_server: ChatServer, trusting: ssl.SSLContext, authority: trustme.CA, tmp_path: Path, kind: str
) -> None:
    verify = {"context": trusting, "file": authority_file(authority, tmp_path), "unverified": False}[kind]
    provider = Opchatgpts(url=tls_server.site_url, ssl=verify)
    assert driver.ask({"provider": provider, "max_retries": 0}).text == "Hello"
    assert text_of(provider.create_generator("", HI)) == "Hello"


@pytest.mark.parametrize("verify", [None, True])
def test_a_certificate_is_checked(driver: Driver, tls_server: ChatServer, verify: bool | None) -> None:
    heard = driver.ask({"provider": Opchatgpts(url=tls_server.site_url, ssl=verify), "max_retries": SOON})
    assert isinstance(heard.error, ConnectError)
    assert "certificate" in str(heard.error)
    assert tls_server.connections == 1
    assert tls_server.requests == []


@pytest.mark.parametrize("historical", [False, True])
def test_impersonate(driver: Driver, server: ChatServer, historical: bool) -> None:
    """One browser makes all requests, and says so by itself."""
    provider = Opchatgpts(url=server.site_url, historical=historical, nonce_from="start_session")
    assert driver.ask({"provider": provider, "impersonate": "chrome131"}).text == "Hello"
    assert asked(server) == [START, SUBMIT]
    for request in server.requests:
        assert "Chrome/131." in (request.header("user-agent") or "")
        assert 'v="131"' in (request.header("sec-ch-ua") or "")


# --- Deadlines -----------------------------------------------------------------------------------------


DEADLINES: list[tuple[Answer, str, str]] = [
    (Answer(cut_after=0, ending="stall"), "first_content", ""),
    (Answer(events=[], ending="stall"), "first_content", ""),
    # What the site thinks is no answer.
    (Answer(events=[THOUGHT] * 200, pace=0.02), "first_content", ""),
    (Answer(events=[LIVE % b"a"], ending="stall"), "idle", "a"),
]


@both_kinds
@pytest.mark.parametrize(("answer", "deadline", "text"), DEADLINES)
def test_deadlines(driver: Driver, server: ChatServer, answer: Answer, deadline: str, text: str, stream: bool) -> None:
    server.plan(answer)
    provider = Opchatgpts(url=server.site_url)
    timeout = Timeout(first_content=0.2, idle=0.2)
    heard = driver.ask({"provider": provider, "timeout": timeout, "max_retries": 0}, stream=stream)
    assert isinstance(heard.error, TimeoutError)
    assert heard.error.deadline == deadline
    assert heard.text == (text if stream else "")
    assert server.wait_outcome(1) == "client-closed"
    assert driver.ask({"provider": provider}).text == "Hello"


def test_the_total_deadline_holds_for_session_and_answer(driver: Driver, server: ChatServer) -> None:
    server.plan(Answer(delay=0.1, to=START), Answer(cut_after=0, ending="stall"))
    timeout = Timeout(total=1.2)
    heard = driver.ask({"provider": Opchatgpts(url=server.site_url), "timeout": timeout, "max_retries": SOON})
    assert isinstance(heard.error, TimeoutError)
    assert heard.error.deadline == "total"
    start, submit = server.requests
    assert submit.arrived - start.arrived < 1.2


# --- Cancelled, and left ------------------------------------------------------------------------------

PHASES: dict[str, tuple[Answer, int]] = {
    "for the session": (Answer(cut_after=0, ending="stall", to=START), 0),
    "in the session": (Answer(cut_after=100, ending="stall", to=START), 0),
    "for the answer": (Answer(cut_after=0, ending="stall"), 1),
    "in the answer": (Answer(events=[LIVE % b"a"], ending="stall"), 1),
}


def stalled(server: ChatServer, number: int) -> None:
    """Wait until the answer to that request stalls."""
    server.wait_until(
        lambda: len(server.requests) > number and server.requests[number].outcome == "stalled", "the answer stalls"
    )


async def by_client(provider: Any) -> None:
    async with AsyncClient(provider) as client:
        async for chunk in client.chat.completions.create(HI, stream=True):
            assert chunk.choices


async def by_generator(provider: Any) -> None:
    async for piece in provider.create_async_generator("", HI):
        assert piece == "a"


@pytest.mark.parametrize("consume", [by_client, by_generator])
@pytest.mark.parametrize("phase", PHASES)
def test_cancelling(run: Run, server: ChatServer, phase: str, consume: Callable[[Any], Any]) -> None:
    answer, number = PHASES[phase]
    server.plan(answer)
    provider = Opchatgpts(url=server.site_url)

    async def main() -> None:
        await cancelled_when(functools.partial(stalled, server, number), functools.partial(consume, provider))
        assert await blocking(server.wait_outcome, number) == "client-closed"
        # The provider is as good as before.
        answer = provider.create_async_generator("", HI)
        assert "".join([str(piece) async for piece in answer]) == "Hello"

    run(main)


def test_leaving_early(run: Run, server: ChatServer) -> None:
    provider = Opchatgpts(url=server.site_url)
    server.plan(*[Answer(events=[LIVE % b"a"], ending="stall")] * 4)

    async def main() -> None:
        async with AsyncClient(provider) as client:
            async with client.chat.completions.create(HI, stream=True) as stream:
                assert (await stream.__anext__()).choices[0].delta.content == "a"
            assert await blocking(server.wait_outcome, 1) == "client-closed"
        async with contextlib.aclosing(provider.create_async_generator("", HI)) as answer:
            assert await answer.__anext__() == "a"
        assert await blocking(server.wait_outcome, 2) == "client-closed"

    run(main)
    with Client(provider) as client, client.chat.completions.create(HI, stream=True) as stream:
        assert next(stream).choices[0].delta.content == "a"
    assert server.wait_outcome(3) == "client-closed"
    left: Any = provider.create_generator("", HI)
    assert next(left) == "a"
    left.close()
    assert server.wait_outcome(4) == "client-closed"


PROGRAM = """
import sys
from deltawire import Opchatgpts

class Site(Opchatgpts):
    url = sys.argv[1]

async def main():
    async for piece in Site.create_async_generator("", [{"role": "user", "content": "Hi"}]):
        print(piece, end="")
        break
    async for piece in Site().create_async_generator("", "Hi"):
        print(piece, end="")

"""
ENDS = {
    "asyncio": "import asyncio; asyncio.run(main())",
    "trio": "import trio; trio.run(main)",
    "sync": """
for piece in Site.create_generator("", "Hi"):
    print(piece, end="")
    break
print(*Site().create_generator("", "Hi"), sep="", end="")
""",
}


@pytest.mark.parametrize("name", ENDS)
def test_programs_that_leave_early_end_without_a_word(server: ChatServer, name: str) -> None:
    server.plan(Answer(events=[LIVE % b"a"], ending="stall"))
    assert run_program(PROGRAM + ENDS[name], server.site_url) == "aHello"
    assert server.wait_outcome(1) == "client-closed"


# --- Failures, and company ----------------------------------------------------------------------------


@both_kinds
def test_a_failure_before_content_is_tried_again(driver: Driver, server: ChatServer, stream: bool) -> None:
    provider = Opchatgpts(url=server.site_url)
    for failures in (
        [Answer(tokens=[]), Answer.error(200, "Shim: Error: upstream says 500")],
        [Answer(events=[], ending="close"), Answer(events=[THOUGHT])],
    ):
        server.plan(*failures)
        heard = driver.ask({"provider": provider, "max_retries": SOON}, stream=stream)
        assert (heard.text, heard.error) == ("Hello", None)
    assert asked(server) == [START, *[SUBMIT] * 6]


def test_a_failure_after_content_is_not(driver: Driver, server: ChatServer) -> None:
    server.plan(Answer(events=[LIVE % b"a"], ending="close"))
    heard = driver.stream({"provider": Opchatgpts(url=server.site_url), "max_retries": SOON})
    assert heard.text == "a"
    assert isinstance(heard.error, TruncatedStreamError)
    assert asked(server) == [START, SUBMIT]


def openai(server: ChatServer) -> OpenaiTemplate:
    return OpenaiTemplate(api_base=server.url, name="Second", default_model="m")


@both_kinds
@pytest.mark.parametrize("company", [RetryProvider, IterListProvider, RotatedProvider])
def test_a_site_that_fails_has_a_second(
    driver: Driver, server: ChatServer, company: Callable[..., Any], stream: bool
) -> None:
    order = {} if company is RotatedProvider else {"shuffle": False}
    with ChatServer(tokens=["sec", "ond"]) as other:
        for answers, paths in (
            ([Answer.error(503)], [START, SUBMIT]),
            ([Answer(tokens=[])], [START, SUBMIT]),
            ([Answer.error(404, to=START)], [START]),
            ([Answer.error(403, "Cookie check failed", code="rest_cookie_invalid_nonce")] * 2, [START, SUBMIT] * 2),
        ):
            before = len(server.requests)
            server.plan(*answers)
            several = company([Opchatgpts(url=server.site_url), openai(other)], **order)
            heard = driver.ask({"provider": several}, stream=stream)
            assert (heard.text, heard.error) == ("second", None)
            assert asked(server)[before:] == paths
        assert [request.json()["model"] for request in other.requests] == ["local-model"] * 4
        assert all(request.header("x-wp-nonce") is None for request in other.requests)


def test_a_site_that_answers_needs_no_second(driver: Driver, server: ChatServer) -> None:
    """A nonce that is refused is no failure of its provider."""
    with ChatServer() as other:
        several = RetryProvider([Opchatgpts(url=server.site_url, nonce="old"), openai(other)], shuffle=False)
        assert driver.stream({"provider": several}).text == "Hello"
        assert asked(server) == [SUBMIT, START, SUBMIT]
        assert other.connections == 0


def test_a_site_may_be_the_second(driver: Driver, server: ChatServer) -> None:
    with ChatServer() as other:
        other.plan(Answer.error(500))
        several = RetryProvider([openai(other), Opchatgpts(url=server.site_url)], shuffle=False)
        assert driver.stream({"provider": several}, temperature=0.5).text == "Hello"
        assert submits(server)[0].json()["temperature"] == 0.5


@pytest.mark.parametrize("first", ["Opchatgpts", Opchatgpts])
def test_the_dead_site_is_passed_over(driver: Driver, server: ChatServer, first: Any) -> None:
    several = RetryProvider([first, openai(server)], shuffle=False)
    assert driver.ask({"provider": several}).text == "Hello"
    heard = driver.ask({"provider": RetryProvider([first, first], shuffle=False)})
    assert isinstance(heard.error, ProviderNotWorkingError)


def test_what_none_of_them_can_do(driver: Driver, server: ChatServer) -> None:
    server.plan(Answer.error(503), Answer.error(400))
    several = RetryProvider([Opchatgpts(url=server.site_url), openai(server)], shuffle=False)
    heard = driver.ask({"provider": several, "max_retries": SOON_ONCE})
    assert isinstance(heard.error, RetryProviderError)
    assert [type(error).__name__ for error in heard.error.errors] == ["InternalServerError", "BadRequestError"]
    assert "Opchatgpts" in str(heard.error)
    assert "Second" in str(heard.error)
