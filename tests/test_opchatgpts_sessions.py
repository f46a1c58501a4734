"""`Opchatgpts` and sessions: how they fail, and what that does to the call which needs one."""

from __future__ import annotations

import pytest
from driving import DRIVERS, SOON, Driver, free_port
from feeding import QUICK
from hypothesis import given
from hypothesis import strategies as st
from sites import asked, submits

from deltawire import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConnectError,
    DeltawireError,
    EmptyReplyError,
    InternalServerError,
    NotFoundError,
    Opchatgpts,
    PermissionDeniedError,
    RetryPolicy,
    TimeoutError,
    TruncatedStreamError,
    UnexpectedReplyError,
)
from deltawire.testing import Answer, ChatServer

pytestmark = pytest.mark.usefixtures("_tidy", "transports")

both_kinds = pytest.mark.parametrize("stream", [True, False])

START, SUBMIT = "start_session", "submit"
STALE = "rest_cookie_invalid_nonce"

# What the request for a session is answered with, the error, and whether it is tried again.
FAILURES: dict[str, tuple[Answer, type[DeltawireError], bool]] = {
    "503": (Answer.error(503, retry_after=0.01, to=START), APIStatusError, True),
    "429": (Answer.error(429, retry_after=0.01, to=START), APIStatusError, True),
    "no route": (Answer.error(404, code="rest_no_route", to=START), NotFoundError, False),
    "a refusal": (Answer.error(401, code="rest_forbidden", to=START), AuthenticationError, False),
    "a stale nonce, which nobody has sent": (Answer.error(403, code=STALE, to=START), PermissionDeniedError, False),
    "a firewall": (
        Answer(status=403, body=b"<html>", content_type="text/html", to=START),
        PermissionDeniedError,
        False,
    ),
    "a page": (Answer(body=b"<html>Hi</html>", content_type="text/html", to=START), UnexpectedReplyError, False),
    "no success": (Answer(json={"success": False, "message": "No."}, to=START), APIStatusError, True),
    "no nonce": (Answer(json={"success": True, "sessionId": "x"}, to=START), UnexpectedReplyError, False),
    "an empty nonce": (Answer(json={"success": True, "restNonce": ""}, to=START), UnexpectedReplyError, False),
    "cut off": (Answer(cut_after=10, to=START), DeltawireError, True),
    "reset": (Answer(cut_after=0, ending="reset", to=START), DeltawireError, True),
}


@both_kinds
@pytest.mark.parametrize("name", FAILURES)
def test_a_session_that_fails(driver: Driver, server: ChatServer, name: str, stream: bool) -> None:
    answer, error, again = FAILURES[name]
    provider = Opchatgpts(url=server.site_url)
    server.plan(*[answer] * 4)
    for policy, count in ((0, 1), (SOON, 3 if again else 1)):
        before = len(server.requests)
        heard = driver.ask({"provider": provider, "max_retries": policy}, stream=stream)
        assert isinstance(heard.error, error), repr(heard.error)
        assert START in str(heard.error), "an error says what was asked for"
        assert asked(server)[before:] == [START] * count


@pytest.mark.parametrize("name", [name for name, (_, _, again) in FAILURES.items() if again])
def test_a_session_that_fails_at_first(driver: Driver, server: ChatServer, name: str) -> None:
    server.plan(FAILURES[name][0])
    heard = driver.stream({"provider": Opchatgpts(url=server.site_url), "max_retries": SOON})
    assert (heard.text, heard.error) == ("Hello", None)
    assert asked(server) == [START, START, SUBMIT]
    assert heard.reply.retries_taken == 1


def test_a_new_session_that_fails(driver: Driver, server: ChatServer) -> None:
    """The caller hears of that; the call after it begins anew."""
    provider = Opchatgpts(url=server.site_url, nonce="old")
    server.plan(Answer.error(404, to=START))
    assert isinstance(driver.ask({"provider": provider}).error, NotFoundError)
    assert driver.ask({"provider": provider}).text == "Hello"
    assert asked(server) == [SUBMIT, START, SUBMIT, START, SUBMIT]


def test_nobody_listens(driver: Driver) -> None:
    heard = driver.ask({"provider": Opchatgpts(url=f"http://127.0.0.1:{free_port()}"), "max_retries": SOON})
    assert isinstance(heard.error, ConnectError)
    assert heard.error.retries_taken == 2


def test_a_session_that_never_comes(driver: Driver, server: ChatServer) -> None:
    server.plan(Answer(cut_after=0, ending="stall", to=START))
    heard = driver.ask({"provider": Opchatgpts(url=server.site_url), "max_retries": 0, "timeout": 0.2})
    assert isinstance(heard.error, TimeoutError)
    assert heard.error.deadline == "first_content"
    assert submits(server) == []
    assert server.wait_outcome(0) == "client-closed"


@pytest.mark.parametrize(
    "body",
    [b"<html>Hi</html>", b"<div data-system='{&quot;restNonce&quot;:null}'>", b"<div data-system='{}'>", b"{}", b""],
)
def test_a_page_without_a_nonce(driver: Driver, server: ChatServer, body: bytes) -> None:
    server.plan(Answer(body=body, content_type="text/html", to="/"))
    heard = driver.ask({"provider": Opchatgpts(url=server.site_url, nonce_from="page"), "max_retries": 0})
    assert isinstance(heard.error, DeltawireError)
    assert "nonce" in str(heard.error) or not body
    assert asked(server) == [""]


# --- Whatever happens ----------------------------------------------------------------------------------

# What a request is answered with, the error, and whether it is tried again.
STARTS: dict[str, tuple[Answer, type[DeltawireError] | None, bool]] = {
    "well": (Answer(to=START), None, False),
    "503": (Answer.error(503, to=START), InternalServerError, True),
    "404": (Answer.error(404, to=START), NotFoundError, False),
}
SUBMITS: dict[str, tuple[Answer, type[DeltawireError] | None, bool]] = {
    "well": (Answer(), None, False),
    "stale": (Answer.error(403, "Cookie check failed", code=STALE), PermissionDeniedError, False),
    "503": (Answer.error(503), InternalServerError, True),
    "400": (Answer.error(400), BadRequestError, False),
    "empty": (Answer(tokens=[]), EmptyReplyError, True),
    "cut": (Answer(events=[], ending="close"), TruncatedStreamError, True),
}


class Oracle:
    """What is asked for, and what comes of it, written down the most naive way."""

    def __init__(self, starts: list[str], submits: list[str]) -> None:
        self._starts, self._submits = iter(starts), iter(submits)
        self._has_nonce = False
        self.asked: list[str] = []

    def call(self, attempts: int) -> type[DeltawireError] | None:
        """The error of one call."""
        may_renew = True
        error: type[DeltawireError] | None = None
        for _ in range(attempts):
            _, error, again = said = self._start() if not self._has_nonce else STARTS["well"]
            if error is None:
                _, error, again = said = self._submit()
            if said is SUBMITS["stale"] and may_renew:
                may_renew = False
                _, error, again = self._start()
                if error is None:
                    _, error, again = self._submit()
            if not again:
                break
        return error

    def _start(self) -> tuple[Answer, type[DeltawireError] | None, bool]:
        self.asked.append(START)
        said = STARTS[next(self._starts, "well")]
        self._has_nonce = self._has_nonce or said[1] is None
        return said

    def _submit(self) -> tuple[Answer, type[DeltawireError] | None, bool]:
        self.asked.append(SUBMIT)
        return SUBMITS[next(self._submits, "well")]


def scripts(answers: dict[str, tuple[Answer, type[DeltawireError] | None, bool]]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(sorted(answers)), max_size=6)


@pytest.mark.parametrize("name", sorted(DRIVERS))
@QUICK
@given(scripts(STARTS), scripts(SUBMITS), st.integers(0, 3), st.booleans())
def test_whatever_happens(name: str, starts: list[str], submits: list[str], retries: int, stream: bool) -> None:
    oracle, driver = Oracle(starts, submits), DRIVERS[name]
    policy = RetryPolicy(max_retries=retries, initial=0.0001)
    with ChatServer(tokens=["Hel", "lo"]) as server:
        server.plan(*[STARTS[said][0] for said in starts], *[SUBMITS[said][0] for said in submits])
        provider = Opchatgpts(url=server.site_url)
        for _ in range(2):
            heard = driver.ask({"provider": provider, "max_retries": policy}, stream=stream)
            error = oracle.call(1 + retries)
            assert (type(heard.error) if heard.error else None) is error
            assert heard.text == ("" if error else "Hello")
            assert asked(server) == oracle.asked
