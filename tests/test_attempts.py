"""What is retried and what is not, what is redirected and what is not: sync, on asyncio and on trio."""

from __future__ import annotations

import time

import pytest
from driving import SOON, SOON_ONCE, Driver, Peer, Route, free_port, shown
from faults import event

import deltawire
from deltawire import (
    APIStatusError,
    BadRequestError,
    ConfigurationError,
    ConnectError,
    EmptyReplyError,
    InternalServerError,
    MalformedEventError,
    MissingAuthError,
    RateLimitError,
    ReadError,
    RedirectError,
    RetryPolicy,
    Timeout,
    TruncatedStreamError,
    UnexpectedReplyError,
)
from deltawire.testing import Answer, ChatServer

pytestmark = pytest.mark.usefixtures("_tidy", "transports")

both_kinds = pytest.mark.parametrize("stream", [True, False])


# --- What is tried again ------------------------------------------------------------------------------


@both_kinds
@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_statuses_that_are_tried_again(driver: Driver, server: ChatServer, status: int, stream: bool) -> None:
    server.plan(Answer.error(status, retry_after=0.01))
    heard = driver.ask({"base_url": server.url}, stream=stream)
    assert (heard.text, heard.error) == ("Hello", None)
    assert [each.status for each in server.requests] == [status, 200]
    if stream:
        assert heard.reply.retries_taken == 1


def test_retry_after_is_obeyed(driver: Driver, server: ChatServer) -> None:
    server.plan(Answer.error(503, retry_after=0.3))
    begin = time.monotonic()
    assert driver.stream({"base_url": server.url, "max_retries": SOON}).text == "Hello"
    assert time.monotonic() - begin >= 0.3
    first, second = server.requests
    assert second.arrived - first.arrived >= 0.3


def test_our_own_wait(driver: Driver, server: ChatServer) -> None:
    server.plan(Answer.error(503), Answer.error(503))
    policy = RetryPolicy(max_retries=2, initial=0.1, jitter=0.0)
    assert driver.stream({"base_url": server.url, "max_retries": policy}).text == "Hello"
    first, second, third = (each.arrived for each in server.requests)
    assert second - first >= 0.1
    assert third - second >= 0.2


def test_asked_to_wait_too_long(driver: Driver, server: ChatServer) -> None:
    server.plan(Answer.error(429, retry_after=3600))
    error = driver.stream({"base_url": server.url}).error
    assert isinstance(error, RateLimitError)
    assert error.retry_after == 3600
    assert len(server.requests) == 1


@both_kinds
@pytest.mark.parametrize("retries", [0, 1, 2])
def test_the_last_error_is_raised(driver: Driver, server: ChatServer, retries: int, stream: bool) -> None:
    server.plan(*[Answer.error(500 + number) for number in range(9)])
    policy = RetryPolicy(max_retries=retries, initial=0.01)
    error = driver.ask({"base_url": server.url, "max_retries": policy}, stream=stream).error
    assert isinstance(error, InternalServerError)
    assert error.status_code == 500 + retries
    assert error.retries_taken == retries
    assert len(server.requests) == retries + 1


def test_a_call_has_its_own_number(driver: Driver, server: ChatServer) -> None:
    server.plan(*[Answer.error(500)] * 9)
    assert driver.stream({"base_url": server.url, "max_retries": SOON}, max_retries=0).error is not None
    assert len(server.requests) == 1


@pytest.mark.parametrize(("said", "status", "count"), [("true", 400, 2), ("false", 503, 1)])
def test_the_server_says_whether(driver: Driver, server: ChatServer, said: str, status: int, count: int) -> None:
    server.plan(Answer.error(status, headers=[("x-should-retry", said)]))
    driver.stream({"base_url": server.url, "max_retries": SOON})
    assert len(server.requests) == count


def test_connection_refused(driver: Driver) -> None:
    error = driver.stream({"base_url": f"http://127.0.0.1:{free_port()}/v1", "max_retries": SOON}).error
    assert isinstance(error, ConnectError)
    assert error.retries_taken == 2


@both_kinds
@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_connection_that_breaks_before_the_head(route: Route, driver: Driver, ending: str, stream: bool) -> None:
    route.server.plan(Answer(cut_after=0, ending=ending))  # type: ignore[arg-type]
    heard = driver.ask(route.options(max_retries=SOON), stream=stream)
    assert (heard.text, heard.error) == ("Hello", None)
    assert len(route.server.requests) == 2


def test_a_reply_that_breaks_before_content(route: Route, driver: Driver) -> None:
    """The caller sees nothing of the attempt that failed, not even the chunk with the role."""
    failing = [
        Answer(events=[event()], ending="reset"),
        Answer(events=[], ending="close"),
    ]
    route.server.plan(*failing)
    heard = driver.stream(route.options(max_retries=SOON))
    whole = driver.stream(route.options())
    assert (heard.text, heard.error) == ("Hello", None)
    assert heard.chunks == whole.chunks
    assert heard.reply.retries_taken == 2
    assert len(route.server.requests) == 4


def test_a_reply_that_breaks_after_content(route: Route, driver: Driver) -> None:
    route.server.plan(Answer(events=[event("a"), event("b")], ending="close"))
    heard = driver.stream(route.options(max_retries=SOON))
    assert heard.text == "ab"
    assert isinstance(heard.error, TruncatedStreamError)
    assert heard.error.partial is not None
    assert heard.error.partial.choices[0].message.content == "ab"
    assert len(route.server.requests) == 1, "what the caller has seen is not said again"


def test_a_whole_reply_that_breaks_off(driver: Driver, server: ChatServer) -> None:
    """Without a stream nothing has reached the caller, so it is tried again."""
    server.plan(Answer(cut_after=200, ending="close"))
    heard = driver.ask({"base_url": server.url, "max_retries": SOON})
    assert (heard.text, heard.error) == ("Hello", None)
    assert len(server.requests) == 2


def test_no_content_in_time(driver: Driver, server: ChatServer) -> None:
    server.plan(Answer(events=[event()], ending="stall"))
    heard = driver.stream({"base_url": server.url, "max_retries": SOON, "timeout": Timeout(first_content=0.2)})
    assert (heard.text, heard.error) == ("Hello", None)
    assert server.wait_outcome(0) == "client-closed"
    assert server.wait_outcome(1) == "complete"


def test_a_bare_done(driver: Driver, server: ChatServer) -> None:
    server.plan(*[Answer(events=[b"data: [DONE]\n\n"])] * 2)
    error = driver.stream({"base_url": server.url, "max_retries": SOON_ONCE}).error
    assert isinstance(error, EmptyReplyError)
    assert server.url in str(error)
    assert len(server.requests) == 2


# --- What is not tried again --------------------------------------------------------------------------

CLASSES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    422: "UnprocessableEntityError",
    418: "APIStatusError",
}


@both_kinds
@pytest.mark.parametrize("status", CLASSES)
def test_statuses_that_are_not_tried_again(driver: Driver, server: ChatServer, status: int, stream: bool) -> None:
    server.plan(Answer.error(status, "The key sk-echoed is bad.", retry_after=0.01))
    heard = driver.ask({"base_url": server.url, "api_key": "sk-echoed"}, stream=stream)
    error = heard.error
    assert type(error) is getattr(deltawire, CLASSES[status])
    assert isinstance(error, APIStatusError)
    assert (error.status_code, error.request_id, error.retries_taken) == (status, "req_1", 0)
    assert "The key *** is bad." in str(error)
    assert "sk-echoed" not in repr(error.body)
    assert len(server.requests) == 1


def test_no_key(driver: Driver) -> None:
    with ChatServer(tokens=["Hello"], api_key="sk-right") as server:
        error = driver.stream({"base_url": server.url}).error
        assert isinstance(error, MissingAuthError)
        assert "OPENAI_API_KEY" in str(error)
        wrong = driver.stream({"base_url": server.url, "api_key": "sk-wrong"}).error
        assert type(wrong) is deltawire.AuthenticationError
        assert "sk-wrong" not in str(wrong)
        assert driver.stream({"base_url": server.url, "api_key": "sk-right"}).text == "Hello"
        assert len(server.requests) == 3


def test_no_key_for_openai(driver: Driver) -> None:
    """Nothing is sent where it is known beforehand."""
    error = driver.stream({"proxies": f"http://127.0.0.1:{free_port()}"}).error
    assert isinstance(error, MissingAuthError)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(body=b"<html>", content_type="text/html"), UnexpectedReplyError),
        (Answer(json={"hello": "world"}), UnexpectedReplyError),
        (Answer(events=[b"data: oops\n\n"]), MalformedEventError),
    ],
)
def test_replies_of_another_kind(driver: Driver, server: ChatServer, answer: Answer, expected: type) -> None:
    server.plan(answer)
    error = driver.stream({"base_url": server.url, "max_retries": SOON}).error
    assert type(error) is expected
    assert len(server.requests) == 1


# --- Errors in a stream -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b'data: {"error": {"message": "Slow down", "code": "rate_limit_exceeded"}}\n\n', "RateLimitError"),
        (b'data: {"error": {"message": "Slow down", "code": 400}}\n\n', "BadRequestError"),
        (b'data: {"error": "Slow down"}\n\n', "APIStatusError"),
        (b'event: error\ndata: {"message": "Slow down"}\n\n', "APIStatusError"),
        (b'data: {"object": "error", "message": "Slow down", "code": 503}\n\n', "InternalServerError"),
    ],
)
def test_an_error_in_the_stream(driver: Driver, server: ChatServer, data: bytes, name: str) -> None:
    server.plan(Answer(events=[event("a"), data]))
    heard = driver.stream({"base_url": server.url, "max_retries": SOON})
    assert heard.text == "a"
    assert type(heard.error).__name__ == name
    assert isinstance(heard.error, APIStatusError)
    assert "Slow down" in str(heard.error)
    assert heard.error.request_id == "req_1"
    assert heard.error.partial is not None
    assert len(server.requests) == 1


def test_an_error_in_the_stream_before_content(driver: Driver, server: ChatServer) -> None:
    server.plan(
        Answer(events=[event(), b'data: {"error": {"message": "Overloaded", "code": 503}}\n\n']),
        Answer(events=[b'data: {"error": "nobody knows why"}\n\n']),
    )
    heard = driver.stream({"base_url": server.url, "max_retries": SOON})
    assert (heard.text, heard.error) == ("Hello", None)
    assert len(server.requests) == 3


# --- Replies of the other kind ------------------------------------------------------------------------


def test_json_for_a_stream(driver: Driver, server: ChatServer) -> None:
    message = {"role": "assistant", "content": "all at once"}
    server.plan(Answer(json={"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}))
    heard = driver.stream({"base_url": server.url})
    assert (heard.text, heard.error) == ("all at once", None)


def test_a_stream_for_json(driver: Driver, server: ChatServer) -> None:
    last = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
    server.plan(Answer(events=[event("a"), event("b"), last, b"data: [DONE]\n\n"]))
    heard = driver.ask({"base_url": server.url})
    assert (heard.text, heard.error) == ("ab", None)
    assert heard.reply.choices[0].finish_reason == "stop"


# --- Redirects ----------------------------------------------------------------------------------------


def redirect(status: int, location: str) -> Answer:
    return Answer(status=status, headers=[("location", location)], body=b"")


@both_kinds
@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("absolute", [False, True])
def test_a_redirect_within_the_origin(
    driver: Driver, server: ChatServer, status: int, absolute: bool, stream: bool
) -> None:
    target = "/v2/chat/completions?x=1"
    server.plan(redirect(status, server.url.removesuffix("/v1") + target if absolute else target))
    heard = driver.ask({"base_url": server.url, "api_key": "sk-1", "max_retries": 0}, stream=stream)
    assert (heard.text, heard.error) == ("Hello", None)
    first, second = server.requests
    assert second.target == target
    assert (second.method, second.body) == ("POST", first.body)
    assert second.header("authorization") == "Bearer sk-1"


def test_a_key_in_the_query_is_not_shown_and_follows_a_redirect(driver: Driver, server: ChatServer) -> None:
    given = {"base_url": f"{server.url}?key=s3cr%2Dsecret&api-version=2024-02-01", "max_retries": 0}
    server.plan(redirect(307, "/v2/chat/completions?key=s3cr%2Dsecret"))
    assert driver.ask(given).text == "Hello"
    assert server.requests[1].target == "/v2/chat/completions?key=s3cr%2Dsecret"
    server.plan(Answer.error(400, "s3cr%2Dsecret or s3cr-secret is no key, of 2024-02-01"))
    error = driver.ask(given).error
    assert isinstance(error, BadRequestError)
    assert "*** or *** is no key, of 2024-02-01" in str(error)
    assert "secret" not in shown(error)


@both_kinds
@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_would_lose_the_body(driver: Driver, server: ChatServer, status: int, stream: bool) -> None:
    server.plan(redirect(status, "/v2/chat/completions"))
    error = driver.ask({"base_url": server.url}, stream=stream).error
    assert isinstance(error, RedirectError)
    assert error.location == "/v2/chat/completions"
    assert error.status_code == status
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [302, 307, 308])
def test_a_redirect_to_another_origin(driver: Driver, server: ChatServer, status: int) -> None:
    with ChatServer() as other:
        server.plan(redirect(status, f"{other.url}/chat/completions"))
        error = driver.stream({"base_url": server.url, "api_key": "sk-secret"}).error
        assert isinstance(error, RedirectError)
        assert "base_url" in str(error)
        assert len(server.requests) == 1
        assert other.connections == 0, "the key went elsewhere"


def test_a_redirect_without_a_location(driver: Driver, server: ChatServer) -> None:
    server.plan(Answer(status=307, body=b""))
    error = driver.stream({"base_url": server.url}).error
    assert isinstance(error, RedirectError)
    assert error.location is None


def test_redirects_in_a_circle(driver: Driver, server: ChatServer) -> None:
    server.plan(*[redirect(307, "/v1/chat/completions")] * 20)
    error = driver.stream({"base_url": server.url}).error
    assert isinstance(error, RedirectError)
    assert len(server.requests) == 6


# --- Never sent ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        {"temprature": 1},
        {"temperature": float("nan")},
        {"extra_headers": {"x": "a\r\nb"}},
        {"extra_headers": {"content-length": "1"}},
        {"extra_body": {"x": object()}},
    ],
)
def test_what_cannot_be_sent(driver: Driver, server: ChatServer, parameters: dict[str, object]) -> None:
    error = driver.stream({"base_url": server.url}, **parameters).error
    assert isinstance(error, ConfigurationError)
    assert server.connections == 0


def test_a_key_that_cannot_be_sent(driver: Driver, server: ChatServer) -> None:
    error = driver.stream({"base_url": server.url, "api_key": "sk-secret\n"}).error
    assert isinstance(error, ConfigurationError)
    assert "sk-secret" not in str(error)
    assert server.connections == 0


def test_a_peer_that_hangs_up_at_once(driver: Driver) -> None:
    with Peer(close=True) as peer:
        error = driver.stream({"base_url": f"http://127.0.0.1:{peer.port}/v1", "max_retries": SOON}).error
        assert isinstance(error, ReadError)
        assert peer.connections == 3
