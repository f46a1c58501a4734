"""retry.py: what is tried again, after how long, and the plan of a call."""

from __future__ import annotations

import asyncio
import builtins
import email.utils
import errno
import math
import socket
import ssl
import sys
from typing import Any

import pytest
from feeding import QUICK, failure, read, sse
from hypothesis import given
from hypothesis import strategies as st
from plans import NOW, given_up, script, status

from deltawire.protocol import (
    APIError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    ConnectError,
    Context,
    EmptyReplyError,
    GiveUp,
    InternalServerError,
    LimitExceededError,
    MalformedEventError,
    MissingAuthError,
    NotFoundError,
    Outcome,
    PermissionDeniedError,
    Prepare,
    ProxyError,
    RateLimitError,
    ReadError,
    RedirectError,
    RetryNoProviderError,
    RetryPolicy,
    Send,
    Sleep,
    StreamError,
    TimeoutError,
    TruncatedStreamError,
    UnexpectedReplyError,
    UnprocessableEntityError,
    UsageError,
    attempts,
    is_retryable,
)
from deltawire.protocol.retry import MAX_REDIRECTS, redirect_target

POLICY = RetryPolicy()


def delay(error: Exception, retries: int = 0, jitter: float = 0.0, policy: RetryPolicy = POLICY) -> float | None:
    return policy.delay(error, retries, now=NOW, jitter=jitter)


# --- What is retried -------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [408, 409, 429, 500, 501, 502, 503, 504, 529, 599])
def test_statuses_that_are_retried(code: int) -> None:
    assert is_retryable(status(code))


@pytest.mark.parametrize(
    "code", [101, 300, 302, 304, 307, 308, 400, 401, 402, 403, 404, 405, 410, 413, 418, 422, 451, 499]
)
def test_statuses_that_are_not(code: int) -> None:
    assert not is_retryable(status(code))


def test_errors_in_the_stream() -> None:
    assert is_retryable(status(None)), "nobody knows, so as 500"
    for code, retried in ((429, True), (503, True), (400, False), (401, False)):
        assert is_retryable(failure(read(sse({"error": {"code": code}})))) is retried


class RequestsError(OSError):
    """As those of the library requests, which know the answer that they are about, or that there is none."""

    def __init__(self, response: object) -> None:
        self.response = response


@pytest.mark.parametrize(
    "error",
    [
        ConnectError("x"),
        ProxyError("x"),
        TimeoutError("x"),
        ReadError("x"),
        TruncatedStreamError("x"),
        EmptyReplyError("x"),
        # From providers with a way of their own.
        ConnectionResetError("x"),
        builtins.TimeoutError("x"),
        asyncio.TimeoutError("x"),
        OSError("Multiple exceptions: x"),
        OSError(errno.ENETUNREACH, "x"),
        socket.gaierror(socket.EAI_AGAIN, "x"),
        ssl.SSLEOFError("x"),
        RequestsError(None),
        # Raised by the code of such a provider, without a status.
        APIStatusError("x"),
        ConflictError("x"),
        RateLimitError("x"),
        InternalServerError("x"),
    ],
    ids=repr,
)
def test_faults_on_the_way_are_retried(error: Exception) -> None:
    assert is_retryable(error)


@pytest.mark.parametrize(
    "error",
    [
        ConnectError("bad certificate", transient=False),
        ProxyError("bad password", transient=False),
        failure(read(b"", status=407, context=Context(proxy="http://p:1"))),
        MalformedEventError("x"),
        LimitExceededError("x", limit_name="line", limit=1),
        UnexpectedReplyError("x"),
        StreamError("x"),
        APIError("x"),
        ConfigurationError("x"),
        UsageError("x"),
        MissingAuthError("x", status_code=401),
        BadRequestError("x"),
        AuthenticationError("x"),
        MissingAuthError("x"),
        PermissionDeniedError("x"),
        NotFoundError("x"),
        UnprocessableEntityError("x"),
        RedirectError("x"),
        RetryNoProviderError("x"),
        ValueError("x"),
        FileNotFoundError("x"),
        PermissionError(errno.EACCES, "x", "a file"),
        ssl.SSLCertVerificationError("x"),
        RequestsError("an answer"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_faults_that_are_not_retried(error: Exception) -> None:
    assert not is_retryable(error)
    assert delay(error) is None


@pytest.mark.parametrize(
    ("code", "said", "retried"),
    [
        (400, "true", True),
        (429, "false", False),
        (500, "false", False),
        (500, "maybe", True),
        (400, "maybe", False),
        (404, "", False),
    ],
)
def test_what_the_server_says_of_retrying(code: int, said: str, retried: bool) -> None:
    assert is_retryable(status(code, x_should_retry=said)) is retried
    assert is_retryable(status(code, **{"X-Should-Retry": said})) is retried


# --- After how long --------------------------------------------------------------------------------


def test_the_backoff() -> None:
    assert [POLICY.backoff(retries, 0.0) for retries in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert POLICY.backoff(0, 1.0) == 0.375
    assert POLICY.backoff(5, 0.5) == 7.0
    assert POLICY.backoff(10**9, 0.0) == 8.0
    assert RetryPolicy(initial=1, maximum=3, jitter=0).backoff(4, 0.9) == 3
    assert POLICY.max_retries == 2


@QUICK
@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_the_backoff_stays_within_its_bounds(retries: int, jitter: float) -> None:
    wanted = min(0.5 * 2 ** min(retries, 20), 8) * (1 - 0.25 * jitter)
    assert POLICY.backoff(retries, jitter) == wanted
    assert 0.375 < wanted <= 8


def date(offset: float) -> str:
    return email.utils.formatdate(NOW + offset, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.5),
        ({"retry_after": "5"}, 5.0),
        ({"retry_after": "0.01"}, 0.01),
        ({"retry_after": "120"}, 120.0),
        ({"retry_after": "120.5"}, None),
        ({"retry_after": "100000"}, None),
        ({"retry_after": "0"}, 0.5),
        ({"retry_after": "-5"}, 0.5),
        ({"retry_after": "nan"}, 0.5),
        ({"retry_after": "inf"}, 0.5),
        ({"retry_after": "-inf"}, 0.5),
        ({"retry_after": "1e999"}, 0.5),
        ({"retry_after": "soon"}, 0.5),
        ({"retry_after": ""}, 0.5),
        ({"retry_after_ms": "250"}, 0.25),
        ({"retry_after_ms": "250", "retry_after": "60"}, 0.25),
        ({"retry_after_ms": "rubbish", "retry_after": "60"}, 60.0),
        ({"retry_after_ms": "120001"}, None),
        ({"retry_after_ms": "-1"}, 0.5),
        ({"retry_after": date(30)}, 30.0),
        ({"retry_after": date(30), "date": date(29)}, 30.0),
        ({"retry_after": date(120)}, 120.0),
        ({"retry_after": date(121)}, None),
        ({"retry_after": date(-30)}, 0.5),
        ({"retry_after": date(0)}, 0.5),
    ],
)
@pytest.mark.parametrize("code", [429, 503, None])
def test_what_the_server_asks_for(headers: dict[str, str], seconds: float | None, code: int | None) -> None:
    assert delay(status(code, **headers)) == seconds


def test_what_the_server_asks_for_has_no_jitter() -> None:
    assert delay(status(429, retry_after="5"), 3, 0.9) == 5.0
    assert delay(status(429), 1, 1.0) == 0.75
    assert delay(ConnectError("x"), 2, 0.0) == 2.0


def test_asking_does_not_make_a_status_retryable() -> None:
    assert delay(status(400, retry_after="5")) is None
    assert delay(status(429, retry_after="5", x_should_retry="false")) is None
    assert delay(status(400, retry_after="5", x_should_retry="true")) == 5.0
    assert delay(status(429, retry_after="500", x_should_retry="true")) is None


def test_the_longest_wait_is_the_policys() -> None:
    assert delay(status(429, retry_after="300"), policy=RetryPolicy(longest_retry_after=300)) == 300.0


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"max_retries": -1}, "max_retries"),
        ({"max_retries": True}, "max_retries"),
        ({"max_retries": 1.0}, "max_retries"),
        ({"max_retries": None}, "max_retries"),
        ({"initial": -0.1}, "initial"),
        ({"initial": math.nan}, "initial"),
        ({"initial": "1"}, "initial"),
        ({"maximum": math.inf}, "maximum"),
        ({"maximum": True}, "maximum"),
        ({"jitter": 1.1}, "jitter"),
        ({"jitter": -0.1}, "jitter"),
        ({"longest_retry_after": math.inf}, "longest_retry_after"),
        ({"longest_retry_after": None}, "longest_retry_after"),
    ],
    ids=repr,
)
def test_a_policy_that_makes_no_sense(wrong: dict[str, Any], name: str) -> None:
    (value,) = wrong.values()
    with pytest.raises(ConfigurationError) as caught:
        RetryPolicy(**wrong)
    most = "1" if name == "jitter" else "31,536,000"
    assert str(caught.value) == (
        f"max_retries must be a whole number from 0, not {value!r}"
        if name == "max_retries"
        else f"RetryPolicy.{name} must be a number from 0 to {most}, not {value!r}"
    )


def test_policies_and_effects_stay_as_they_are() -> None:
    error = ValueError()
    things = (RetryPolicy(), Send("p"), Prepare("p"), Sleep(1.0), GiveUp(error), Outcome(None))
    for thing in things:
        with pytest.raises(AttributeError):
            setattr(thing, thing.__struct_fields__[0], None)


def test_a_policy_at_its_bounds() -> None:
    policy = RetryPolicy(max_retries=0, initial=0, maximum=0, jitter=1, longest_retry_after=31_536_000)
    assert policy.backoff(3, 0.5) == 0
    assert RetryPolicy(jitter=0).backoff(0, 0.9) == 0.5


# --- The plan --------------------------------------------------------------------------------------


def run(*outcomes: Outcome | Exception | None, policy: RetryPolicy = POLICY) -> list[Any]:
    """The effects of a plan whose attempts go so."""
    return script(attempts("P", policy), *outcomes)


def test_success_at_once() -> None:
    assert run(None) == [Send("P")]


def test_success_after_retries() -> None:
    assert run(ConnectError("x"), status(500), None) == [Send("P"), Sleep(0.5), Send("P"), Sleep(1.0), Send("P")]


@pytest.mark.parametrize("most", [0, 1, 2, 5])
def test_so_many_retries_and_no_more(most: int) -> None:
    errors = [ReadError(f"number {number}") for number in range(most + 1)]
    effects = run(*errors, policy=RetryPolicy(max_retries=most))
    assert [type(effect) for effect in effects] == [Send, *[Sleep, Send] * most, GiveUp]
    assert effects[-1].error is errors[-1]
    assert errors[-1].retries_taken == most


@pytest.mark.parametrize("most", [10**9, sys.maxsize, 10**30])
def test_a_number_of_retries_may_mean_for_ever(most: int) -> None:
    final = status(400)
    effects = run(*[ReadError("x")] * 20, final, policy=RetryPolicy(max_retries=most))
    assert effects[-2:] == [Send("P"), GiveUp(final)]
    assert final.retries_taken == 20


def test_what_is_not_retryable_gives_up_at_once() -> None:
    error = status(400)
    assert run(error) == [Send("P"), GiveUp(error)]
    assert error.retries_taken == 0
    other = ValueError("x")
    assert run(ConnectError("x"), other) == [Send("P"), Sleep(0.5), Send("P"), GiveUp(other)]


def test_the_jitter_and_the_time_are_the_drivers() -> None:
    effects = run(Outcome(ReadError("x"), jitter=1.0), Outcome(status(429, retry_after=date(7)), now=NOW), None)
    assert effects == [Send("P"), Sleep(0.375), Send("P"), Sleep(7.0), Send("P")]


@pytest.mark.parametrize(
    ("left", "goes_on"), [(None, True), (0.6, True), (0.5, False), (0.1, False), (0.0, False), (-1.0, False)]
)
def test_no_wait_beyond_the_total_time(left: float | None, goes_on: bool) -> None:
    error = ReadError("x")
    outcomes = [Outcome(error, time_left=left), *([None] if goes_on else [])]
    effects = run(*outcomes)
    assert effects == ([Send("P"), Sleep(0.5), Send("P")] if goes_on else [Send("P"), GiveUp(error)])


def redirect(code: int, location: str | None) -> Exception:
    return status(code, **({} if location is None else {"location": location}))


@pytest.mark.parametrize("code", [307, 308])
@pytest.mark.parametrize(
    ("location", "target"),
    [("/v2/chat", "https://s/v2/chat"), ("https://s:443/x?y#z", "https://s:443/x?y"), ("b", "https://s/v1/b")],
)
def test_redirects_within_the_origin_are_followed_without_a_wait(code: int, location: str, target: str) -> None:
    assert run(redirect(code, location), None) == [Send("P"), Send("P", target)]


@pytest.mark.parametrize(
    ("code", "location"),
    [
        (301, "/v2"), (302, "/v2"), (303, "/v2"), (300, "/v2"),
        (307, None), (307, "https://evil/v2"), (307, "http://s/v2"), (308, "https://s:8443/v2"), (308, "//evil"),
        (307, "https://s@evil/"), (307, "https://user:pw@s/"), (307, "https://["),
    ],
)  # fmt: skip
def test_other_redirects_are_not_followed(code: int, location: str | None) -> None:
    error = redirect(code, location)
    assert redirect_target(error, "https://s/v1/chat") is None
    assert run(error) == [Send("P"), GiveUp(error)]
    assert isinstance(error, RedirectError)


def test_redirects_in_circles() -> None:
    error = redirect(307, "/again")
    effects = run(*[error] * (MAX_REDIRECTS + 1))
    assert effects == [Send("P"), *[Send("P", "https://s/again")] * MAX_REDIRECTS, GiveUp(error)]


def test_a_redirect_costs_no_retry_and_holds_for_the_retries() -> None:
    first, second = ConnectError("x"), status(503)
    effects = run(redirect(307, "/new"), first, second, None)
    new = "https://s/new"
    assert effects == [Send("P"), Send("P", new), Sleep(0.5), Send("P", new), Sleep(1.0), Send("P", new)]


def test_a_redirect_is_followed_from_where_it_was_given() -> None:
    outcomes = [Outcome(redirect(307, "/b/"), "https://s/a/"), Outcome(redirect(307, "c"), "https://s/b/"), None]
    assert run(*outcomes) == [Send("P"), Send("P", "https://s/b/"), Send("P", "https://s/b/c")]


def test_a_redirect_is_followed_as_it_was_sent() -> None:
    """Out of what the error says of it secrets were cut."""
    error = RedirectError("x", status_code=307, location="/b?k=***", headers=[(b"location", b"/b?k=0123456789")])
    assert redirect_target(error, "https://s/a") == "https://s/b?k=0123456789"
    error = RedirectError("x", status_code=307, location="/b", headers=[])
    assert redirect_target(error, "https://s/a") == "https://s/b"


def test_a_redirect_in_the_stream_is_none() -> None:
    assert redirect_target(status(None, location="/x"), "https://s/") is None
    for error in (
        NotFoundError("x", status_code=404),
        InternalServerError("x"),
        RateLimitError("x"),
        ConflictError("x"),
    ):
        assert redirect_target(error, "https://s/") is None


def test_a_wait_longer_than_anybody_wants_is_told() -> None:
    """The error itself says why it was not tried again."""
    error = status(429, retry_after="301")
    effects = script(attempts("p", RetryPolicy(max_retries=3)), error)
    assert [type(effect) for effect in effects] == [Send, GiveUp]
    assert given_up(effects) is error
    assert error.gave_up == "the server asks to wait longer than RetryPolicy.longest_retry_after"
    bad = status(400, retry_after="301")
    assert given_up(script(attempts("p", RetryPolicy(max_retries=3)), bad)) is bad
    assert bad.gave_up == "", "it would not have been tried again anyway"


def test_what_effects_show() -> None:
    """A URL may hold a key."""
    url = "http://s/v1?key=0123456789"
    assert repr(Send("p")) == "Send('p')"
    assert repr(Send("p", url)) == "Send('p', 'http://s/v1?key=***')"
    assert repr(Outcome(None, url=url)) == "Outcome(None, 'http://s/v1?key=***')"
