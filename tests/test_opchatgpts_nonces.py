"""`Opchatgpts` and nonces: fetched once, shared, renewed once when refused, taken over from replies."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import anyio
import pytest
from driving import HI, SOON, Driver, Run
from sites import asked, nonces

from deltawire import (
    APIStatusError,
    AsyncClient,
    AuthenticationError,
    Client,
    Opchatgpts,
    PermissionDeniedError,
)
from deltawire.testing import Answer, ChatServer
from deltawire.transports import HTTPCoreTransport

pytestmark = pytest.mark.usefixtures("_tidy", "transports")

both_kinds = pytest.mark.parametrize("stream", [True, False])

START, SUBMIT = "start_session", "submit"

STALE = "rest_cookie_invalid_nonce"
FIREWALL = Answer(status=403, body=b"<html>Access denied. Ray ID 1</html>", content_type="text/html")


def refusal(status: int, code: str) -> Answer:
    return Answer.error(status, "Cookie check failed", code=code)


# --- Fetched once --------------------------------------------------------------------------------------


@both_kinds
def test_calls_share_a_nonce(driver: Driver, server: ChatServer, stream: bool) -> None:
    """Those of one provider, whatever client makes them; another one may be somebody else to the site."""

    class Site(Opchatgpts):
        url = server.site_url

    class Sibling(Site):
        headers = {"Cookie": "logged=in"}  # noqa: RUF012

    for provider in (Site, Sibling, Site(), Opchatgpts(url=server.site_url)):
        before = len(server.requests)
        for _ in range(3):
            assert driver.ask({"provider": provider}, stream=stream).text == "Hello"
        assert asked(server)[before:] == [START, SUBMIT, SUBMIT, SUBMIT]
        sessions = {request.json()["session"] for request in server.requests[before + 1 :]}
        assert len(sessions) == 1, "a session goes with its nonce"


def test_generators_share_a_nonce(run: Run, server: ChatServer) -> None:
    provider = Opchatgpts(url=server.site_url)

    async def main() -> None:
        assert "".join([str(piece) async for piece in provider.create_async_generator("", HI)]) == "Hello"

    run(main)
    assert "".join(map(str, provider.create_generator("", HI))) == "Hello"
    with Client(provider) as client:
        client.chat.completions.create("Hi")
    assert asked(server) == [START, SUBMIT, SUBMIT, SUBMIT]


def test_the_nonce_of_a_site_goes_to_no_other(driver: Driver, server: ChatServer) -> None:
    provider = Opchatgpts(url=server.site_url)
    with ChatServer(tokens=["else"]) as other:
        for _ in range(2):
            assert driver.ask({"provider": provider}).text == "Hello"
            assert driver.ask({"provider": provider, "base_url": other.site_url}).text == "else"
        assert asked(server) == asked(other) == [START, SUBMIT, SUBMIT]
        assert nonces(server) == [server.nonce] * 2
        assert nonces(other) == [other.nonce] * 2


def test_a_given_nonce_is_the_first(driver: Driver, server: ChatServer) -> None:
    provider = Opchatgpts(url=server.site_url, nonce=server.nonce)
    assert driver.ask({"provider": provider}).text == "Hello"
    assert asked(server) == [SUBMIT]
    server.expire_nonce()
    assert driver.ask({"provider": provider}).text == "Hello"
    assert asked(server) == [SUBMIT, SUBMIT, START, SUBMIT]


def test_what_a_call_says_in_header_fields_goes_with_the_request_for_a_session(server: ChatServer) -> None:
    """A site behind a password, or a cookie."""
    with Client(Opchatgpts(url=server.site_url)) as client:
        client.chat.completions.create("Hi", extra_headers={"Authorization": "Basic bWU6eA==", "Cookie": "a=b"})
    for request in server.requests:
        assert (request.header("authorization"), request.header("cookie")) == ("Basic bWU6eA==", "a=b")


# --- Renewed once --------------------------------------------------------------------------------------


@both_kinds
def test_an_old_nonce_is_renewed(driver: Driver, server: ChatServer, stream: bool) -> None:
    provider = Opchatgpts(url=server.site_url)
    driver.ask({"provider": provider})
    old = server.nonce
    server.expire_nonce()
    for _ in range(2):
        heard = driver.ask({"provider": provider, "max_retries": 0}, stream=stream)
        assert (heard.text, heard.error) == ("Hello", None)
    assert asked(server) == [START, SUBMIT, SUBMIT, START, SUBMIT, SUBMIT]
    assert nonces(server) == [old, old, server.nonce, server.nonce]
    if stream:
        assert heard.reply.retries_taken == 0, "that is no retry"


@both_kinds
@pytest.mark.parametrize(
    ("status", "code"), [(403, STALE), (401, "rest_forbidden"), (403, "rest_forbidden"), (401, "rest_not_logged_in")]
)
def test_a_fresh_nonce_that_is_refused(
    driver: Driver, server: ChatServer, status: int, code: str, stream: bool
) -> None:
    server.plan(*[refusal(status, code)] * 9)
    heard = driver.ask({"provider": Opchatgpts(url=server.site_url), "max_retries": SOON}, stream=stream)
    assert isinstance(heard.error, AuthenticationError if status == 401 else PermissionDeniedError)
    assert heard.error.code == code
    assert asked(server) == [START, SUBMIT] * 2


def test_each_call_may_renew_it(driver: Driver, server: ChatServer) -> None:
    provider = Opchatgpts(url=server.site_url)
    for count in range(1, 4):
        server.expire_nonce()
        assert driver.ask({"provider": provider}).text == "Hello"
        assert asked(server).count(START) == count


def test_it_is_renewed_once_also_between_retries(driver: Driver, server: ChatServer) -> None:
    server.plan(refusal(403, STALE), Answer.error(503, retry_after=0.01), refusal(403, STALE))
    heard = driver.ask({"provider": Opchatgpts(url=server.site_url), "max_retries": SOON})
    assert isinstance(heard.error, PermissionDeniedError)
    assert asked(server) == [START, SUBMIT, START, SUBMIT, SUBMIT]


@pytest.mark.parametrize(
    "answer",
    [FIREWALL, Answer.error(403, "Sorry, your query has been rejected."), Answer.error(401, "Log in", code="other")],
)
def test_what_refuses_something_else_renews_nothing(driver: Driver, server: ChatServer, answer: Answer) -> None:
    """A firewall, a banned word: neither is asked again, and the nonce stays."""
    provider = Opchatgpts(url=server.site_url)
    server.plan(answer)
    heard = driver.ask({"provider": provider, "max_retries": SOON})
    assert isinstance(heard.error, APIStatusError)
    assert heard.error.status_code in (401, 403)
    assert driver.ask({"provider": provider}).text == "Hello"
    assert asked(server) == [START, SUBMIT, SUBMIT]


@pytest.mark.parametrize("attributes", [{"nonce_from": None}, {"historical": True}, {"nonce_from": None, "nonce": "x"}])
def test_nothing_gives_a_nonce(driver: Driver, server: ChatServer, attributes: dict[str, Any]) -> None:
    heard = driver.ask({"provider": Opchatgpts(url=server.site_url, **attributes)})
    assert isinstance(heard.error, PermissionDeniedError if "nonce" in attributes else AuthenticationError)
    assert asked(server) == [SUBMIT]


def test_the_page_gives_another_nonce(driver: Driver, server: ChatServer) -> None:
    provider = Opchatgpts(url=server.site_url, nonce_from="page")
    driver.ask({"provider": provider})
    server.expire_nonce()
    assert driver.ask({"provider": provider}).text == "Hello"
    assert asked(server) == ["", SUBMIT, SUBMIT, "", SUBMIT]


# --- At once -------------------------------------------------------------------------------------------


def test_many_threads(server: ChatServer) -> None:
    provider, count = Opchatgpts(url=server.site_url), 8
    heard: list[str | None] = []
    together = threading.Barrier(count)

    def work(client: Client) -> None:
        for _ in range(2):
            together.wait(5)
            heard.append(client.chat.completions.create(HI).choices[0].message.content)
            if together.wait(5) == 0:
                server.expire_nonce()

    with Client(provider, max_retries=0) as client:
        threads = [threading.Thread(target=work, args=(client,)) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert heard == ["Hello"] * (2 * count)
    # No one asks more than once for each that was missing or refused.
    assert asked(server).count(START) <= 2 * count


def test_many_tasks(run: Run, server: ChatServer) -> None:
    provider, count = Opchatgpts(url=server.site_url), 8
    heard: list[str | None] = []

    async def work(client: AsyncClient) -> None:
        heard.append((await client.chat.completions.create(HI)).choices[0].message.content)

    async def main() -> None:
        async with AsyncClient(provider, max_retries=0) as client:
            for _ in range(2):
                async with anyio.create_task_group() as group:
                    for _ in range(count):
                        group.start_soon(work, client)
                server.expire_nonce()

    run(main)
    assert heard == ["Hello"] * (2 * count)
    assert asked(server).count(START) <= 2 * count


class Interrupted(HTTPCoreTransport):
    """Something else happens after a request has been made, and before it is sent."""

    def __init__(self, happens: Any) -> None:
        super().__init__()
        self._happens = [happens]

    def open(self, *given: Any, **options: Any) -> Any:
        while self._happens:
            self._happens.pop()()
        return super().open(*given, **options)


def test_what_another_call_has_renewed_is_not_fetched_again(server: ChatServer) -> None:
    provider = Opchatgpts(url=server.site_url, nonce="old")

    def call(transport: Any = None) -> None:
        with Client(provider, transport=transport) as client:
            assert client.chat.completions.create(HI).choices[0].message.content == "Hello"

    with contextlib.closing(Interrupted(call)) as transport:
        call(transport)
    assert asked(server) == [SUBMIT, START, SUBMIT, SUBMIT, SUBMIT]
    assert nonces(server) == ["old", server.nonce, "old", server.nonce]


# --- Taken over ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("attributes", [{}, {"nonce_from": None}])
@both_kinds
def test_a_new_token_is_taken_over(
    driver: Driver, server: ChatServer, stream: bool, attributes: dict[str, Any]
) -> None:
    first = server.nonce
    provider = Opchatgpts(url=server.site_url, nonce=first, **attributes)
    server.plan(Answer(new_token="0123456789"))
    for _ in range(3):
        assert driver.ask({"provider": provider}, stream=stream).text == "Hello"
    assert nonces(server) == [first, "0123456789", "0123456789"]


def test_a_new_token_for_generators(run: Run, server: ChatServer) -> None:
    provider = Opchatgpts(url=server.site_url)

    async def main(stream: bool) -> None:
        async for _ in provider.create_async_generator("", HI, stream=stream):
            pass

    for number, stream in enumerate((True, False), 1):
        server.plan(Answer(new_token=f"token{number}"))
        run(main, stream)
    server.plan(Answer(new_token="token3"))
    list(provider.create_generator("", HI))
    list(provider.create_generator("", HI))
    assert nonces(server)[1:] == ["token1", "token2", "token3"]
    assert asked(server).count(START) == 1


@pytest.mark.parametrize("seen", [True, False])
def test_a_new_token_of_a_stream_that_is_left(run: Run, server: ChatServer, seen: bool) -> None:
    """It stands in the last event: who leaves before that goes on with the old nonce."""
    provider = Opchatgpts(url=server.site_url)
    answer = Answer(new_token="0123456789") if seen else Answer(new_token="0123456789", done=False, ending="stall")

    def is_last(chunk: Any) -> bool:
        return bool(chunk.choices and (chunk.choices[0].finish_reason if seen else chunk.choices[0].delta.content))

    async def main() -> None:
        async with AsyncClient(provider) as client:
            server.plan(answer)
            async with client.chat.completions.create(HI, stream=True) as stream:
                async for chunk in stream:
                    if is_last(chunk):
                        break
            await client.chat.completions.create(HI)

    run(main)
    with Client(provider) as client:
        server.plan(answer)
        with client.chat.completions.create(HI, stream=True) as stream:
            for chunk in stream:
                if is_last(chunk):
                    break
        client.chat.completions.create(HI)
    first = nonces(server)[0]
    assert nonces(server) == [first, *(["0123456789"] * 3 if seen else [first] * 3)]


def test_a_header_field_of_replies_hands_on_nothing(driver: Driver, server: ChatServer) -> None:
    """WordPress sends ``X-WP-Nonce`` with every reply. In good time the plugin says the same in ``new_token``; what
    comes too late is renewed, as any refused nonce."""
    provider = Opchatgpts(url=server.site_url)
    server.plan(Answer(headers=[("X-WP-Nonce", "another")]))
    driver.ask({"provider": provider})
    driver.ask({"provider": provider})
    assert nonces(server) == [server.nonce] * 2
