"""retry.py, with several providers, sessions and a budget: outcomes in, effects out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from plans import MISSING, NOW, asked, given_up, refused, script, status

from deltawire.protocol import (
    ConfigurationError,
    EmptyReplyError,
    GiveUp,
    Outcome,
    Prepare,
    ProxyError,
    ReadError,
    RetryBudget,
    RetryPolicy,
    RetryProviderError,
    Send,
    Sleep,
    TransportError,
    attempts,
    fail_over,
)
from deltawire.protocol.retry import MAX_REDIRECTS, repeated

POLICY = RetryPolicy(max_retries=0)


def run(providers: Any, *outcomes: Outcome | Exception | None, budget: RetryBudget | None = None) -> list[Any]:
    """The effects of a plan for these, whose own waits have no chance in them."""
    return script(fail_over(providers, POLICY, budget=budget), *outcomes)


def empty() -> EmptyReplyError:
    return EmptyReplyError("the reply is empty")


# --- Who is asked -----------------------------------------------------------------------------------


def test_the_first_alone_if_it_answers() -> None:
    assert run("ABC", None) == [Send("A")]


def test_each_in_turn_and_nobody_waits() -> None:
    assert run("ABC", ReadError("x"), status(429, retry_after="60"), None) == [Send("A"), Send("B"), Send("C")]


@pytest.mark.parametrize(
    "error",
    [
        status(400),
        status(401),
        status(404),
        status(429, retry_after="100000"),
        status(500, x_should_retry="false"),
        ProxyError("bad password", transient=False),
        ConfigurationError("no key"),
        ValueError("x"),
        empty(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_one_failed_with_the_next_is_asked(error: Exception) -> None:
    assert run("AB", error, None) == [Send("A"), Send("B")]


def test_the_policys_number_is_not_looked_at() -> None:
    errors = [ReadError("x") for _ in range(4)]
    for most in (0, 1, 9):
        plan = fail_over("ABCD", RetryPolicy(max_retries=most))
        assert asked(script(plan, *errors)) == ["A", "B", "C", "D"]
    assert asked(script(fail_over("ABCD"), *errors)) == ["A", "B", "C", "D"]


def test_providers_are_told_apart_by_identity() -> None:
    class Equal:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    first, second = Equal(), Equal()
    effects = run([first, second], status(400), None)
    assert [type(effect) for effect in effects] == [Send, Send], "an equal one is another one"
    assert effects[1].provider is second


def test_providers_may_come_lazily() -> None:
    pulled: list[str] = []

    def turns() -> Iterator[str]:
        for name in "ABC":
            pulled.append(name)
            yield name

    assert run(turns(), ReadError("x"), None) == [Send("A"), Send("B")]
    assert pulled == ["A", "B"], "nobody is looked for who is not needed"


# --- The same one again -----------------------------------------------------------------------------


def test_a_provider_that_stands_there_again_is_waited_for() -> None:
    effects = run("ABAB", ReadError("1"), ReadError("2"), ReadError("3"), None)
    assert effects == [Send("A"), Send("B"), Sleep(0.5), Send("A"), Sleep(0.5), Send("B")]


def test_the_waits_are_the_policys() -> None:
    plan = fail_over("AA", RetryPolicy(initial=3, jitter=0.5))
    assert script(plan, Outcome(ReadError("x"), jitter=0.5), None) == [Send("A"), Sleep(2.25), Send("A")]


def test_each_provider_has_its_own_backoff() -> None:
    effects = run("AABAB", *[ReadError("x") for _ in range(4)], None)
    assert effects == [Send("A"), Sleep(0.5), Send("A"), Send("B"), Sleep(1.0), Send("A"), Sleep(0.5), Send("B")]


def test_the_wait_is_the_one_that_it_asked_for() -> None:
    effects = run("ABA", status(429, retry_after="7"), status(429, retry_after="60"), None)
    assert effects == [Send("A"), Send("B"), Sleep(7.0), Send("A")]


def test_one_that_failed_for_good_is_not_asked_again() -> None:
    assert run("AABA", status(401), None) == [Send("A"), Send("B")]
    effects = run("AABA", status(401), ReadError("x"))
    assert effects[:-1] == [Send("A"), Send("B")]
    error = given_up(effects)
    assert isinstance(error, RetryProviderError)
    assert [getattr(each, "gave_up", None) for each in error.errors] == ["", ""], "it was not our choice"


def test_the_same_one_alone() -> None:
    errors = [status(500 + number) for number in range(3)]
    effects = run(repeated("A", 3), *errors)
    assert effects[:-1] == [Send("A"), Sleep(0.5), Send("A"), Sleep(1.0), Send("A")]
    error = given_up(effects)
    assert isinstance(error, RetryProviderError)
    assert error.errors == errors


@pytest.mark.parametrize("times", [2, 10**9, 10**30])
def test_the_same_one_alone_failing_for_good(times: int) -> None:
    final = status(400)
    assert run(repeated("A", times), final) == [Send("A"), GiveUp(final)]


def test_how_many_came_before() -> None:
    errors: list[Any] = [ReadError("1"), status(400), ReadError("3"), ValueError("4")]
    run("ABCD", *errors)
    assert [error.retries_taken for error in errors[:3]] == [0, 1, 2]
    assert not hasattr(errors[3], "retries_taken"), "what is not ours is left alone"


# --- No time left -----------------------------------------------------------------------------------


def late(error: Exception, left: float) -> Outcome:
    return Outcome(error, "https://s/v1/chat", NOW, time_left=left)


def test_a_wait_beyond_the_total_time_is_not_begun_but_others_are_asked() -> None:
    first, second = status(429, retry_after="60"), ReadError("x")
    effects = run("ABAC", late(first, 50.0), late(second, 40.0), None)
    assert effects == [Send("A"), Send("B"), Send("C")]
    assert first.gave_up == "the total deadline comes first"
    assert second.gave_up == ""


@pytest.mark.parametrize("left", [0.0, -1.0])
def test_no_time_left_for_anybody(left: float) -> None:
    error = ReadError("x")
    assert run("ABC", late(error, left)) == [Send("A"), GiveUp(error)]
    assert error.gave_up == "the total deadline comes first"


def test_no_time_left_after_several() -> None:
    first, second = ReadError("x"), ReadError("y")
    run("ABC", late(first, 10.0), late(second, 0.0))
    assert (first.gave_up, second.gave_up) == ("", "the total deadline comes first")


def test_the_last_one_has_given_up_nothing() -> None:
    error = ReadError("x")
    run("A", late(error, 0.0))
    assert error.gave_up == ""
    final = status(400)
    script(attempts("A", RetryPolicy()), late(final, 0.0))
    assert final.gave_up == "", "it would not have been tried again in any case"


def test_a_little_time_is_enough_for_the_next() -> None:
    assert run("AB", late(ReadError("x"), 0.001), None) == [Send("A"), Send("B")]


# --- The budget -------------------------------------------------------------------------------------


def spent(**options: float) -> RetryBudget:
    """A budget with nothing left."""
    budget = RetryBudget(**{"capacity": 1.0, "per_call": 0.0, "per_second": 0.0, **options})
    assert budget.spend(NOW)
    return budget


def test_each_call_puts_something_in_and_each_retry_takes_one_off() -> None:
    budget = RetryBudget(capacity=10, per_call=0.25, per_second=0)
    for _ in range(8):
        assert budget.spend(NOW)
    script(attempts("A", RetryPolicy(), budget=budget), None)
    assert budget.left == 2.25
    script(attempts("A", RetryPolicy(), budget=budget), ReadError("x"), ReadError("x"), None)
    assert budget.left == 0.5
    script(attempts("A", RetryPolicy(), budget=budget), status(400))
    assert budget.left == 0.75, "what is not tried again costs nothing"


def test_without_a_budget_no_retry() -> None:
    error = ReadError("x")
    assert script(attempts("A", RetryPolicy(), budget=spent()), error) == [Send("A"), GiveUp(error)]
    assert error.gave_up == "the retry budget is spent: too many calls fail"


def test_time_fills_the_budget_between_attempts() -> None:
    plan = attempts("A", RetryPolicy(), budget=spent(per_second=0.1))
    outcomes = [Outcome(ReadError("x"), now=NOW + 10), Outcome(ReadError("y"), now=NOW + 11)]
    effects = script(plan, *outcomes)
    assert asked(effects) == ["A", "A"]
    error = given_up(effects)
    assert isinstance(error, TransportError)
    assert (str(error), error.gave_up) == ("y", "the retry budget is spent: too many calls fail")


def test_a_deadline_takes_nothing_off_the_budget() -> None:
    budget = RetryBudget(capacity=5, per_call=0, per_second=0)
    script(attempts("A", RetryPolicy(), budget=budget), late(ReadError("x"), 0.1))
    assert budget.left == 5


def test_other_providers_are_asked_whatever_is_left() -> None:
    first = ReadError("x")
    budget = spent()
    assert run("ABAC", first, ReadError("y"), None, budget=budget) == [Send("A"), Send("B"), Send("C")]
    assert first.gave_up == "the retry budget is spent: too many calls fail"
    full = RetryBudget(capacity=5, per_call=0, per_second=0)
    run("ABC", ReadError("x"), ReadError("y"), None, budget=full)
    assert full.left == 5


# --- Sessions ---------------------------------------------------------------------------------------

P = "P"
ONCE = [Send(P), Prepare(P), Send(P)]


def retry(*outcomes: Outcome | Exception | None, most: int = 2) -> list[Any]:
    return script(attempts(P, RetryPolicy(max_retries=most)), *outcomes)


def test_a_session_that_is_missing_is_fetched() -> None:
    assert retry(MISSING, None, None) == ONCE


def test_a_session_that_is_refused_is_renewed_without_a_wait() -> None:
    assert retry(refused(status(403)), None, None) == ONCE


@pytest.mark.parametrize("code", [401, 403])
def test_a_session_is_renewed_once(code: int) -> None:
    again = status(code)
    effects = retry(refused(status(code)), None, refused(again))
    assert effects == [*ONCE, GiveUp(again)]
    assert again.retries_taken == 0, "no attempt came before: both requests are one"


def test_a_fresh_session_may_be_renewed_once() -> None:
    again = status(403)
    effects = retry(MISSING, None, refused(status(403)), None, refused(again))
    assert effects == [*ONCE, Prepare(P), Send(P), GiveUp(again)]


def test_once_in_a_call_and_not_in_each_attempt() -> None:
    again = status(403)
    effects = retry(refused(status(403)), None, status(500), refused(again))
    assert effects == [*ONCE, Sleep(0.5), Send(P), GiveUp(again)]


def test_a_missing_session_is_fetched_whatever_was_renewed_before() -> None:
    again = status(403)
    effects = retry(refused(status(403)), None, status(500), MISSING, None, refused(again))
    assert effects == [*ONCE, Sleep(0.5), *ONCE, GiveUp(again)]


def test_once_for_each_provider() -> None:
    effects = run("AB", refused(status(403)), None, refused(status(403)), refused(status(401)), None, None)
    assert effects == [Send("A"), Prepare("A"), Send("A"), Send("B"), Prepare("B"), Send("B")]


def test_a_session_that_can_not_be_fetched_is_fetched_again_after_a_wait() -> None:
    effects = retry(MISSING, ReadError("x"), MISSING, status(503), MISSING, None, None)
    assert effects == [Send(P), Prepare(P), Sleep(0.5), Send(P), Prepare(P), Sleep(1.0), *ONCE]


def test_a_session_that_can_not_be_fetched_costs_attempts() -> None:
    errors = [ReadError("1"), ReadError("2")]
    effects = retry(MISSING, errors[0], MISSING, errors[1], most=1)
    assert effects == [Send(P), Prepare(P), Sleep(0.5), Send(P), Prepare(P), GiveUp(errors[1])]
    assert errors[1].retries_taken == 1


def test_a_session_that_is_not_given_is_asked_for_no_more() -> None:
    error = status(404)
    assert retry(MISSING, error) == [Send(P), Prepare(P), GiveUp(error)]
    assert run("AB", MISSING, error, None) == [Send("A"), Prepare("A"), Send("B")]


def test_a_session_that_can_not_be_renewed() -> None:
    error = status(404)
    assert retry(refused(status(403)), error) == [Send(P), Prepare(P), GiveUp(error)]


def test_a_session_and_a_redirect() -> None:
    moved = status(307, location="/new")
    effects = retry(MISSING, None, moved, refused(status(403)), None, None)
    assert effects == [*ONCE, Send(P, "https://s/new"), Prepare(P), Send(P, "https://s/new")]


def test_redirects_are_counted_for_each_provider() -> None:
    moved = [status(308, location=f"/{number}") for number in range(MAX_REDIRECTS)]
    effects = run("AB", *moved, status(308, location="/one-more"), *moved, None)
    assert asked(effects) == ["A"] * (MAX_REDIRECTS + 1) + ["B"] * (MAX_REDIRECTS + 1)
    assert [effect.url for effect in effects if effect.provider == "B"][:2] == [None, "https://s/0"]


def test_no_time_left_after_an_error_that_keeps_no_notes() -> None:
    """Not every error is a server's: a call that could not be built has no attempts to be told of."""
    wrong = ConfigurationError("no such parameter")
    effects = run(["a", "b"], Outcome(wrong, "https://s/v1/chat", NOW, time_left=0.0))
    assert asked(effects) == ["a"]
    assert given_up(effects) is wrong
    assert not hasattr(wrong, "gave_up")
