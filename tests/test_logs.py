"""What is told to the loggers ``deltawire.client`` and ``deltawire.transports``, and what that costs."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest
from driving import HI, MODEL, SOON, Driver, Route, causes

from deltawire import AsyncGeneratorProvider, Client, OpenaiTemplate, RetryProvider
from deltawire.testing import Answer, ChatServer, ProxyServer
from deltawire.transports._log import DEBUG, INFO, Log

pytestmark = pytest.mark.usefixtures("_tidy", "transports")


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "deltawire")
    return caplog


def told(records: pytest.LogCaptureFixture, *names: str) -> list[str]:
    """The events, in order; of one logger or of both."""
    return [
        record.deltawire["event"]  # type: ignore[attr-defined]
        for record in records.records
        if record.name in (names or ("deltawire.client", "deltawire.transports"))
    ]


def one(records: pytest.LogCaptureFixture, event: str) -> tuple[str, int, dict[str, Any]]:
    """The one record of an event: its words, its level, its fields."""
    (found,) = (each for each in records.records if getattr(each, "deltawire", {}).get("event") == event)
    return found.getMessage(), found.levelno, found.deltawire  # type: ignore[attr-defined]


def test_a_stream(driver: Driver, server: ChatServer, records: pytest.LogCaptureFixture) -> None:
    assert driver.stream({"base_url": server.url, "api_key": "k"}).text == "Hello"
    assert told(records, "deltawire.client") == ["request", "answer", "end"]
    url = f"{server.url}/chat/completions"
    words, level, fields = one(records, "request")
    assert words == f"asking OpenaiTemplate: POST {url} for chat of model '{MODEL}'"
    assert (level, fields["provider"], fields["model"], fields["url"]) == (DEBUG, "OpenaiTemplate", MODEL, url)
    words, level, fields = one(records, "answer")
    assert words.startswith(f"OpenaiTemplate: POST {url} 200: first content after 0.")
    assert words.endswith(f" s (model '{MODEL}', request id req_1)")
    assert (level, fields["status"], fields["request_id"]) == (INFO, 200, "req_1")
    assert fields["seconds"] < 5
    words, level, fields = one(records, "end")
    assert "the stream is over after 0." in words
    assert (level, fields["contents"]) == (DEBUG, 2)


def test_a_name_of_the_request_that_is_odd(
    driver: Driver, server: ChatServer, records: pytest.LogCaptureFixture
) -> None:
    """It is a peer's, and a terminal may show it."""
    server.plan(Answer(headers=[("x-request-id", "\x1b[31m\x9b" + "r" * 500)]))
    driver.stream({"base_url": server.url})
    words = one(records, "answer")[0]
    assert words.isprintable()
    assert words.endswith("r...)")
    assert len(words) < 500


def test_a_whole_reply(driver: Driver, server: ChatServer, records: pytest.LogCaptureFixture) -> None:
    assert driver.ask({"base_url": server.url}).text == "Hello"
    assert told(records, "deltawire.client") == ["request", "answer"]
    assert ": the whole reply after 0." in one(records, "answer")[0]


def test_retries_and_why(driver: Driver, server: ChatServer, records: pytest.LogCaptureFixture) -> None:
    server.plan(Answer.error(429, retry_after=0.02), Answer.error(503, "line\nbreak"))
    assert driver.stream({"base_url": server.url, "max_retries": SOON}).text == "Hello"
    expected = ["request", "retry", "request", "retry", "request", "answer", "end"]
    assert told(records, "deltawire.client") == expected
    first, second = (each for each in records.records if each.getMessage().startswith("attempt "))
    assert first.getMessage().startswith("attempt 1 failed: RateLimitError: status 429 (")
    assert first.getMessage().endswith("; the next one in 0.020 s, as the server asks")
    assert second.getMessage().startswith("attempt 2 failed: InternalServerError: status 503 (")
    assert second.getMessage().endswith(" s, by the retry policy")
    assert ": line break. " in second.getMessage()
    assert {first.levelno, second.levelno} == {INFO}


def test_what_is_given_up(driver: Driver, server: ChatServer, records: pytest.LogCaptureFixture) -> None:
    server.plan(Answer.error(401, "no"))
    driver.stream({"base_url": server.url, "api_key": "k"})
    words, level, fields = one(records, "give_up")
    assert words.endswith("; given up")
    assert (level, fields["error"], fields["attempt"]) == (INFO, "AuthenticationError", 1)
    server.plan(Answer.error(429, retry_after=1000))
    records.clear()
    driver.stream({"base_url": server.url, "api_key": "k"})
    longer = "the server asks to wait longer than RetryPolicy.longest_retry_after"
    assert one(records, "give_up")[0].endswith(f"; given up ({longer})")


def test_fail_over(driver: Driver, server: ChatServer, records: pytest.LogCaptureFixture) -> None:
    server.plan(Answer.error(500))
    first, second = (type(name, (OpenaiTemplate,), {"api_base": server.url}) for name in ("First", "Second"))
    assert driver.stream({"provider": RetryProvider([first, second], shuffle=False)}).text == "Hello"
    assert told(records, "deltawire.client") == ["request", "fail_over", "request", "answer", "end"]
    assert one(records, "fail_over")[0].endswith("; the next provider is asked")
    assert one(records, "answer")[2]["provider"] == "Second"


def test_a_redirect(driver: Driver, server: ChatServer, records: pytest.LogCaptureFixture) -> None:
    server.plan(Answer(status=308, headers=[("location", "/v1/chat/completions")]))
    assert driver.stream({"base_url": server.url}).text == "Hello"
    assert one(records, "redirect")[0].endswith("; sent on within the origin")


def test_a_session(driver: Driver, server: ChatServer, records: pytest.LogCaptureFixture) -> None:
    from deltawire import Opchatgpts

    site = type("Site", (Opchatgpts,), {"url": server.site_url})
    assert driver.stream({"provider": site}).text == "Hello"
    assert "session" not in told(records), "nothing had failed"
    first, second = (each.getMessage() for each in records.records if each.getMessage().startswith("asking "))
    assert first.endswith("/start_session for a session")
    assert second.endswith(f" for chat of model '{MODEL}'")


def test_a_stream_that_breaks(driver: Driver, server: ChatServer, records: pytest.LogCaptureFixture) -> None:
    server.plan(Answer(tokens=["Hel"], finish_reason=None, done=False))
    heard = driver.stream({"base_url": server.url})
    words, level, fields = one(records, "broken")
    assert "200: the stream broke: TruncatedStreamError: " in words
    assert (level, fields["error"]) == (INFO, type(heard.error).__name__)


def test_an_error_that_is_none_of_ours(driver: Driver, records: pytest.LogCaptureFixture) -> None:
    """Nobody knows what is in its words."""

    class Own(AsyncGeneratorProvider):
        @classmethod
        async def create_async_generator(cls, model: str, messages: Any, **options: Any) -> Any:
            if model:
                raise LookupError("sk-secret-secret")
            yield ""

    driver.stream({"provider": Own})
    assert told(records) == ["request", "give_up"]
    assert "attempt 1 failed: LookupError; given up" in records.text
    assert "asking Own for chat" in records.text
    assert "sk-secret" not in records.text


def test_connections(driver: Driver, route: Route, records: pytest.LogCaptureFixture) -> None:
    driver.stream(route.options())
    assert told(records, "deltawire.transports") == ["connected", "kept"]
    words, level, _ = one(records, "connected")
    assert level == DEBUG
    if route.between is None:
        assert words == f"connected to 127.0.0.1:{route.server.port}"
    elif route.name == "proxy":
        assert words == f"connected to the proxy {route.between.address}"
    else:
        assert words.startswith(f"connected to 127.0.0.1:{route.server.port} in a tunnel by the proxy ")
        assert words.endswith(f"127.0.0.1:{route.between.port}")


def test_a_connection_that_is_used_again(server: ChatServer, records: pytest.LogCaptureFixture) -> None:
    with Client(base_url=server.url) as client:
        client.chat.completions.create(HI, MODEL)
        client.chat.completions.create(HI, MODEL)
        with client.chat.completions.create(HI, MODEL, stream=True) as stream:
            next(stream)
    events = told(records, "deltawire.transports")
    assert events[:5] == ["connected", "kept", "reused", "kept", "reused"]
    assert events[5:] in (["closed"], ["kept"]), "all of the stream may have come already"


def test_an_early_end(server: ChatServer, records: pytest.LogCaptureFixture) -> None:
    server.plan(Answer(tokens=["Hel", "lo"], pace=30))
    with Client(base_url=server.url) as client, client.chat.completions.create(HI, MODEL, stream=True) as stream:
        next(stream)
    assert "the stream is left before its end after 0." in one(records, "end")[0]
    assert one(records, "closed")[0] == "the connection to 127.0.0.1 is closed (the reply was left early)"


def test_a_proxy_is_named_without_its_password(
    driver: Driver, server: ChatServer, proxy: ProxyServer, records: pytest.LogCaptureFixture
) -> None:
    driver.stream({"base_url": server.url, "proxies": proxy.url})
    assert one(records, "request")[0].endswith(f" via proxy {proxy.address}")
    assert one(records, "request")[2]["proxy"] == proxy.address
    assert proxy.url not in records.text


# --- What it costs ------------------------------------------------------------------------------------


def test_nothing_is_of_a_level_that_python_shows_unasked() -> None:
    code = """
from deltawire import Client
from deltawire.testing import Answer, ChatServer
with ChatServer() as server, Client(base_url=server.url, max_retries=0) as client:
    client.chat.completions.create("Hi", "m")
    server.plan(Answer.error(500))
    try:
        client.chat.completions.create("Hi", "m")
    except Exception:
        print("failed")
import logging
names = [name for name in logging.Logger.manager.loggerDict if name.startswith("deltawire")]
print([(name, logging.getLogger(name).handlers, logging.getLogger(name).level) for name in sorted(names)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    logger = "('deltawire{}', [], 0)"
    expected = ", ".join(logger.format(part) for part in ("", ".client", ".transports"))
    assert done.stdout == f"failed\n[{expected}]\n"


def test_who_does_not_log_loads_no_logging() -> None:
    code = """
import sys
import deltawire
from deltawire.transports._log import LOG
assert not LOG.wants(50)
LOG.say(50, "nobody hears")
assert "logging" not in sys.modules
import logging
assert LOG.wants(50) and not LOG.wants(20)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_where_a_record_comes_from(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(DEBUG, "deltawire.test")
    Log("deltawire.test").say(INFO, "%s!", "here", event="x")
    (record,) = caplog.records
    assert (record.getMessage(), record.filename, record.funcName) == (
        "here!", "test_logs.py", "test_where_a_record_comes_from",
    )  # fmt: skip


def test_nobody_listens(driver: Driver, server: ChatServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "deltawire")
    server.plan(Answer.error(400))
    error = driver.stream({"base_url": server.url}).error
    assert error is not None
    assert causes(error)
    assert [each for each in caplog.records if each.name.startswith("deltawire")] == []
