"""Secrets are planted wherever a caller may give them, peers say them back, and every error of ours is made to happen:
nothing that can be printed of it, and no log, shows one of them, nor a part.

The errors are all that `deltawire.protocol.errors` has; one that nothing here makes happen fails a test.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import trio
from canaries import (
    CALL_HEADERS,
    CALLS,
    COOKIE,
    CUSTOM,
    HEADERS,
    KEY,
    PASSWORD,
    QUERY,
    TOKEN,
    USER,
    assert_none,
    echo,
    leaks,
)
from driving import Driver, Route, free_port

from deltawire import AsyncClient, Client, Limits, Opchatgpts, OpenaiTemplate, RetryPolicy, RetryProvider
from deltawire.protocol import ChatRequest, Context, HTTP1Exchange, Outcome, Proxy, Reply, Send, Site, errors
from deltawire.protocol.urls import URL
from deltawire.providers import AzureOpenai
from deltawire.testing import Answer, ChatServer, ProxyServer

pytestmark = pytest.mark.usefixtures("_tidy", "transports")


class Stage(NamedTuple):
    """Where a call fails."""

    server: ChatServer
    proxy: ProxyServer
    options: dict[str, Any]
    """The client's arguments, with all the secrets."""
    parameters: dict[str, Any]
    """The call's."""

    def plan(self, *answers: Answer) -> None:
        self.server.plan(*answers)


@pytest.fixture
def stage() -> Iterator[Stage]:
    with ChatServer(tokens=["Hel", "lo"]) as server, ProxyServer(username=USER, password=PASSWORD) as proxy:
        options = {
            "base_url": f"{server.url}?key={QUERY}",
            "api_key": KEY,
            "organization": "org-x",
            "default_headers": HEADERS,
            "default_query": {"token": TOKEN},
            "proxies": proxy.url,
            "max_retries": RetryPolicy(max_retries=0),
        }
        yield Stage(server, proxy, options, {"extra_headers": CALL_HEADERS, "stream": True})


# The fields in which servers and proxies say things back.
ECHOED = [
    ("x-request-id", f"req-{KEY}"),
    ("x-debug", echo(lines=False).replace("\n", " ").encode("utf-8").decode("latin-1")),
    ("set-cookie", f"session={COOKIE}"),
    ("www-authenticate", f'Bearer error="{KEY}"'),
]


def refused(status: int, **more: Any) -> Callable[[Stage], None]:
    def plan(stage: Stage) -> None:
        body = {"error": {"message": echo(), "type": KEY, "code": CALLS, "param": [QUERY, {"x": TOKEN}]}}
        stage.plan(Answer(status=status, json=body, headers=[*ECHOED, *more.get("headers", [])]))

    return plan


def says(**answer: Any) -> Callable[[Stage], None]:
    def plan(stage: Stage) -> None:
        stage.plan(Answer(headers=ECHOED, **answer))

    return plan


def raw(head: str) -> Callable[[Stage], None]:
    def plan(stage: Stage) -> None:
        stage.plan(Answer.replay(head.encode()))

    return plan


def options(**more: Any) -> Callable[[Stage], None]:
    def change(stage: Stage) -> None:
        stage.options.update(more)

    return change


def both(*steps: Callable[[Stage], None]) -> Callable[[Stage], None]:
    def change(stage: Stage) -> None:
        for step in steps:
            step(stage)

    return change


def _dead_server(stage: Stage) -> None:
    stage.options.update(base_url=f"http://127.0.0.1:{free_port()}/v1?key={QUERY}", proxies=None)
    stage.options["trust_env"] = False


def _dead_proxy(stage: Stage) -> None:
    stage.options["proxies"] = stage.proxy.url.replace(str(stage.proxy.port), str(free_port()))


def _proxy_refuses(status: int) -> Callable[[Stage], None]:
    def refuse(stage: Stage) -> None:
        reason = " ".join(each for each in echo(PASSWORD).split(" | ") if each.isascii())
        stage.proxy.refuse(status, reason, [("x-said", PASSWORD.encode().decode("latin-1"))])

    return refuse


def _tunnel(stage: Stage) -> None:
    # Nothing is asked of the server: the proxy has refused before.
    stage.options["base_url"] = stage.server.url.replace("http:", "https:") + f"?key={QUERY}"


def _wrong_password(stage: Stage) -> None:
    stage.options["proxies"] = stage.proxy.url.replace("mallory", "alice")


def _two(answer: Answer) -> Callable[[Stage], None]:
    def plan(stage: Stage) -> None:
        base = stage.options.pop("base_url")
        first, second = (
            type(name, (OpenaiTemplate,), {"api_base": base, "api_key": KEY}) for name in ("First", "Second")
        )
        stage.options["provider"] = RetryProvider([first, second], shuffle=False)
        stage.plan(answer, answer)

    return plan


def _not_working(stage: Stage) -> None:
    stage.options["provider"] = type(
        "Own", (OpenaiTemplate,), {"working": False, "api_key": KEY, "api_base": "http://x"}
    )


def _stalls(stage: Stage) -> None:
    stage.options["timeout"] = 0.2
    stage.plan(Answer(headers=ECHOED, tokens=[], finish_reason=None, done=False, ending="stall"))


def _no_key(stage: Stage) -> None:
    stage.options.update(api_key=None, default_headers={"X-Vendor-Token": CALLS})
    stage.plan(Answer(status=401, json={"error": {"message": echo(CALLS, QUERY, TOKEN, PASSWORD)}}))


EMPTY = Answer(events=[b"data: [DONE]\n\n"], headers=ECHOED)
HTML = f"<html><body>{echo()}</body></html>".encode()

# What makes each error happen.
SCENARIOS: dict[type[Exception], list[Callable[[Stage], None]]] = {
    errors.ConfigurationError: [
        options(api_key=KEY + "\n"),
        options(api_key=KEY + "\u2014"),
        options(base_url=f"http://user:{KEY}@127.0.0.1/v1"),
        options(base_url=f"http://127.0.0.1:{KEY}/v1"),
        options(default_headers={"Cookie": f"a={COOKIE}\r\nX: y"}),
        options(default_headers={f"Cookie: a={COOKIE}": "x"}),
        options(proxies=f"http://mallory:{KEY}@@:x"),
        options(proxies={"https": f"{KEY}"}),
        options(proxies=f"ftp://mallory:{KEY}@p"),
    ],
    errors.ProviderNotFoundError: [options(provider=KEY)],
    errors.ProviderNotWorkingError: [_not_working],
    errors.APIStatusError: [
        refused(418),
        says(events=[b"data: " + b'{"error": {"message": "' + KEY.encode() + b'"}}\n\n']),
    ],
    errors.BadRequestError: [refused(400), says(status=400, body=HTML), says(status=400, body=echo().encode())],
    errors.AuthenticationError: [
        refused(401),
        says(status=401, json={"error": {"message": f"Incorrect API key provided: {KEY}."}}),
        says(status=401, body=b'{"error": {"message": "' + echo().encode()),
    ],
    errors.MissingAuthError: [_no_key],
    errors.PermissionDeniedError: [refused(403)],
    errors.NotFoundError: [refused(404)],
    errors.ConflictError: [refused(409)],
    errors.UnprocessableEntityError: [
        says(status=422, json={"detail": [{"msg": f"{KEY} {PASSWORD}", "input": {"key": [COOKIE]}}]})
    ],
    errors.RateLimitError: [refused(429, headers=[("retry-after", "7")])],
    errors.InternalServerError: [refused(500), says(status=502, body=HTML)],
    errors.RedirectError: [
        refused(302, headers=[("location", f"https://example.org/?key={QUERY}&token={TOKEN}#{KEY}")]),
        refused(308, headers=[("location", f"https://example.org/{KEY}")]),
    ],
    errors.TruncatedStreamError: [
        says(events=[b'data: {"choices": [], "x": "' + KEY.encode() + b'"}\n\n']),
        says(body=b'{"key": "' + echo().encode(), content_type="application/json"),
        says(tokens=["a"], finish_reason=None, done=False, ending="reset"),
    ],
    errors.MalformedEventError: [says(events=[b"data: " + echo().replace("\n", " ").encode() + b"\n\n"])],
    errors.LimitExceededError: [
        both(options(limits=Limits(reply=10)), says(events=[b"data: " + KEY.encode() + b"\n\n"]))
    ],
    errors.UnexpectedReplyError: [
        says(body=HTML, content_type="text/html"),
        says(body=echo().encode(), content_type="x/y"),
    ],
    errors.EmptyReplyError: [lambda stage: stage.plan(EMPTY)],
    errors.ConnectError: [_dead_server],
    errors.ProxyError: [
        _dead_proxy,
        _wrong_password,
        _proxy_refuses(407),
        *(both(_tunnel, _proxy_refuses(status)) for status in (401, 403, 407, 502)),
        both(_tunnel, _wrong_password),
    ],
    errors.TimeoutError: [_stalls],
    errors.ReadError: [
        raw(f"HTTP/1.1 200 OK\r\nx {KEY} {COOKIE}\r\n\r\n"),
        raw(f"HTTP/1.1 {KEY}\r\n\r\n"),
        raw(f"{KEY} {PASSWORD}\r\n\r\n"),
    ],
    errors.RetryProviderError: [_two(Answer(status=500, body=HTML, headers=ECHOED))],
    errors.RetryNoProviderError: [_two(EMPTY)],
}

# Those that nothing raises but under the name of another.
ROOTS = {errors.DeltawireError, errors.APIError, errors.StreamError, errors.TransportError}

# Those that are made otherwise, further below.
OTHERWISE = {errors.UsageError}


def test_every_error_is_made_to_happen() -> None:
    found = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)}
    assert found == SCENARIOS.keys() | ROOTS | OTHERWISE
    assert all(root.__subclasses__() for root in ROOTS)


CASES = [
    pytest.param(cls, scenario, id=f"{cls.__name__}-{number}")
    for cls, scenarios in SCENARIOS.items()
    for number, scenario in enumerate(scenarios, 1)
]


@pytest.mark.parametrize(("cls", "scenario"), CASES)
def test_no_secret(
    driver: Driver, stage: Stage, caplog: pytest.LogCaptureFixture, cls: type[Exception], scenario: Callable[..., None]
) -> None:
    caplog.set_level(logging.DEBUG)
    scenario(stage)
    try:
        error = driver.call(stage.options, dict(stage.parameters)).error
    except errors.ConfigurationError as refused:
        # Before there is a client.
        error = refused
    assert type(error) is cls, error
    logging.getLogger("a.program").error("it fails", exc_info=error)
    assert "it fails" in caplog.text
    # Of what makes a request the variables are what the caller gave.
    assert_none(error, caplog.text, frames=not isinstance(error, errors.ConfigurationError))


# --- Given by other ways --------------------------------------------------------------------------------


def failing(
    driver: Driver, caplog: pytest.LogCaptureFixture, options: dict[str, Any], **parameters: Any
) -> BaseException:
    """What the call fails with, once it and the log are searched."""
    caplog.set_level(logging.DEBUG)
    error = driver.call(options, {"stream": True, **parameters}).error
    assert error is not None
    assert_none(error, caplog.text)
    return error


def test_from_the_environment(
    driver: Driver, stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", stage.options["base_url"])
    monkeypatch.setenv("HTTP_PROXY", stage.proxy.url)
    stage.plan(Answer(status=401, json={"error": {"message": echo(KEY, QUERY, PASSWORD)}}, headers=ECHOED[:1]))
    error = failing(driver, caplog, {})
    assert type(error) is errors.AuthenticationError
    assert len(stage.proxy.requests) == 1
    assert stage.server.requests[0].header("authorization") == f"Bearer {KEY}"


def test_azure(driver: Driver, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.plan(Answer(status=403, body=echo(KEY).encode(), to="/chat/completions"))
    options = {"provider": AzureOpenai, "base_url": stage.server.site_url, "api_key": KEY}
    assert type(failing(driver, caplog, options)) is errors.PermissionDeniedError
    assert stage.server.requests[0].header("api-key") == KEY


def test_a_proxys_own_fields(driver: Driver, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    proxy = Proxy.parse(stage.proxy.address, headers={"Proxy-Authorization": f"Bearer {CUSTOM}", "X-Pass": TOKEN})
    for base_url in (stage.server.url, stage.server.url.replace("http:", "https:")):
        stage.proxy.refuse(407, f"no {CUSTOM} nor {TOKEN} here")
        error = failing(driver, caplog, {"base_url": base_url, "proxies": proxy, "max_retries": 0})
        assert type(error) is errors.ProxyError
        assert leaks(repr(stage.proxy.requests[-1].headers)), "they were sent"


def test_a_site(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    """Its nonce and session; WordPress writes JSON with its own escapes."""
    with ChatServer(needs_nonce=False) as server:
        nonce, session = CUSTOM, TOKEN
        site = type("Site", (Opchatgpts,), {"url": server.site_url, "nonce": nonce, "session": session})
        said = echo(nonce, session).replace("/", r"\/").replace('"', "").encode()
        server.plan(Answer(status=400, body=b'{"message": "' + said + b'"}', headers=ECHOED[2:3], to="/chats/submit"))
        options = {"provider": site, "default_headers": {"Cookie": f"wordpress_logged_in={COOKIE}"}}
        assert type(failing(driver, caplog, options)) is errors.BadRequestError
        assert server.requests[0].header("x-wp-nonce") == nonce


def test_a_key_in_basic_authorization(driver: Driver, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    stage.plan(Answer(status=401, json={"error": echo(PASSWORD)}))
    options = {"base_url": stage.server.url, "default_headers": {"Authorization": f"Basic {pair}"}}
    assert type(failing(driver, caplog, options)) is errors.AuthenticationError


def test_a_client_that_is_closed(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Client(**stage.options) as client:
        client.chat.completions.create("Hi", "m")
    with pytest.raises(errors.UsageError) as caught:
        client.chat.completions.create("Hi", "m", extra_headers=CALL_HEADERS)
    assert_none(caught.value, caplog.text)


def test_a_key_that_is_missing(stage: Stage) -> None:
    options: Any = {"base_url": f"https://api.openai.com/v1?key={QUERY}", "default_headers": {"X-Vendor-Token": CUSTOM}}
    with Client(**options) as client, pytest.raises(errors.MissingAuthError) as caught:
        client.chat.completions.create("Hi", "m", extra_headers=CALL_HEADERS)
    assert_none(caught.value, frames=False)


def test_what_goes_well_leaves_nothing_in_the_log(
    driver: Driver, route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    """On every way: plain, TLS, through proxies of all kinds, whose password is among those of the fixture."""
    caplog.set_level(logging.DEBUG)
    given = route.options(api_key=KEY, default_headers=HEADERS, base_url=f"{route.server.url}?key={QUERY}")
    for stream in (True, False):
        assert driver.call(given, {"stream": stream, "extra_headers": CALL_HEADERS}).error is None
    assert "deltawire.client" in caplog.text
    assert leaks(caplog.text) == []
    for form in ("pa ss:w@rd", "pa%20ss%3Aw%40rd", base64.b64encode(b"me:pa ss:w@rd").decode()):
        assert form not in caplog.text


# --- What is printed of things --------------------------------------------------------------------------


def test_reprs(stage: Stage) -> None:
    options = {**stage.options, "default_headers": HEADERS}
    local = type("Local", (OpenaiTemplate,), {"api_base": options["base_url"], "api_key": KEY, "headers": HEADERS})
    with Client(**options, provider=RetryProvider([local()])) as client:
        stream = client.chat.completions.create("Hi", "m", stream=True, api_key=KEY, extra_headers=CALL_HEADERS)
        attempt: Any = stream._attempt
        request = attempt.request
        things = [
            client, client._settings, client._owner, client.transport, client.chat.completions, stream, attempt,
            attempt._call, attempt._call.ask, attempt.target, request,
            request.parts, attempt.context, attempt.proxy, attempt.reply, attempt.deadlines, stream._exchange,
            client._settings.endpoint, local, local(), Site.at(options["base_url"], default_headers=HEADERS),
            ChatRequest(messages=[], model="m", extra_headers={**CALL_HEADERS}, extra_query={"key": QUERY}),
            Send(None, options["base_url"]), Outcome(None, url=options["base_url"]), Context.of(request, key=KEY),
            Proxy.parse(stage.proxy.url), HTTP1Exchange(request, Reply()),
        ]  # fmt: skip
        for thing in things:
            rich: Any = () if isinstance(thing, type) else getattr(thing, "__rich_repr__", tuple)()
            words = "" if isinstance(thing, URL) else str(thing)
            assert leaks(f"{thing!r} {words} {list(rich)!r}") == [], type(thing)
        stream.close()


def test_a_task(stage: Stage) -> None:
    """What asyncio prints of tasks, and of those that failed with nobody looking."""
    refused(401)(stage)
    said: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.set_exception_handler(lambda _, context: said.append(repr(context)))
        async with AsyncClient(**stage.options) as client:
            call = client.chat.completions.create("Hi", "m", extra_headers=CALL_HEADERS)

            async def ask() -> None:
                await call

            task = loop.create_task(ask())
            await asyncio.wait([task])
            printed = io.StringIO()
            task.print_stack(file=printed)
            said.extend([repr(task), printed.getvalue(), repr(call)])
            assert_none(task.exception() or AssertionError("it succeeds"))
            del task
            gc.collect()

    asyncio.run(main())
    assert "AuthenticationError" in said[0]
    assert leaks("\n".join(said)) == []


def test_an_exception_group(stage: Stage) -> None:
    refused(401)(stage)
    refused(500)(stage)

    async def main() -> None:
        async with AsyncClient(**stage.options) as client, trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(_ask, client)

    async def _ask(client: AsyncClient) -> None:
        await client.chat.completions.create("Hi", "m", extra_headers=CALL_HEADERS)

    with pytest.raises(BaseException) as caught:  # a group of two, or of one that was cancelled
        trio.run(main)
    printed = "".join(traceback.format_exception(caught.value))
    assert "APIStatusError" in printed or "AuthenticationError" in printed or "InternalServerError" in printed
    assert leaks(printed) == []


# --- The command line -----------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [(), ("--debug",)])
def test_the_command_line(stage: Stage, flags: tuple[str, ...]) -> None:
    said = {"error": {"message": echo(KEY, QUERY, PASSWORD)}}
    stage.plan(Answer(status=429, json=said, headers=[("retry-after", "0.01")]))
    stage.plan(Answer(status=401, json={"error": {"message": echo(KEY, QUERY, PASSWORD)}}))
    command = [sys.executable, "-W", "error", "-X", "dev", "-m", "deltawire", "chat", "Hi", "--proxy", stage.proxy.url]
    done = subprocess.run(
        [*command, "--base-url", stage.options["base_url"], *flags],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "OPENAI_API_KEY": KEY, "NO_PROXY": ""},
        check=False,
    )
    assert done.returncode == 1
    assert leaks(done.stdout + done.stderr) == []
    assert "***" in done.stderr
    assert ("deltawire.client: attempt 1 failed: RateLimitError" in done.stderr) == bool(flags)
    assert ("deltawire.transports: connected to the proxy" in done.stderr) == bool(flags)
    assert ("Traceback" in done.stderr) == bool(flags)
