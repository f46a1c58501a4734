"""budget.py: how many retries the calls of one program may make."""

from __future__ import annotations

import functools

import pytest
from driving import HI, Driver, Run
from feeding import QUICK
from hypothesis import given
from hypothesis import strategies as st

from deltawire import Client, InternalServerError, OpenaiTemplate
from deltawire.protocol import RetryBudget
from deltawire.testing import Answer, ChatServer


def test_it_begins_full() -> None:
    budget = RetryBudget(capacity=3, per_call=0, per_second=0)
    assert budget.left == 3
    assert [budget.spend(0.0) for _ in range(5)] == [True, True, True, False, False]
    assert budget.left == 0


def test_its_defaults() -> None:
    budget = RetryBudget()
    assert sum(budget.spend(0.0) for _ in range(200)) == 100
    # A call in five may be tried again; and ten a second.
    for _ in range(5):
        assert not budget.spend(0.0)
        budget.deposit()
    assert budget.spend(0.0)
    assert not budget.spend(0.0)
    assert [budget.spend(1.0) for _ in range(11)] == [True] * 10 + [False]


def test_calls_fill_it_again() -> None:
    budget = RetryBudget(capacity=1, per_call=0.5, per_second=0)
    assert budget.spend(0.0)
    budget.deposit()
    assert budget.left == 0.5
    assert not budget.spend(0.0), "half a retry is none"
    assert budget.left == 0.5, "and what is refused takes nothing off"
    budget.deposit()
    assert budget.spend(0.0)


def test_time_fills_it_again() -> None:
    budget = RetryBudget(capacity=2, per_call=0, per_second=0.5)
    assert budget.spend(100.0)
    assert budget.spend(100.0)
    assert not budget.spend(101.0)
    assert budget.left == 0.5
    assert budget.spend(102.0)
    assert not budget.spend(103.9)
    assert budget.spend(104.1)


def test_it_never_holds_more_than_its_capacity() -> None:
    budget = RetryBudget(capacity=2, per_call=5, per_second=5)
    budget.deposit()
    assert budget.left == 2
    assert [budget.spend(0.0) for _ in range(3)] == [True, True, False]
    assert [budget.spend(1e9) for _ in range(3)] == [True, True, False]


def test_the_first_time_is_no_time_that_has_passed() -> None:
    budget = RetryBudget(capacity=1, per_call=0, per_second=1)
    assert budget.spend(1_700_000_000.0)
    assert not budget.spend(1_700_000_000.0)


def test_a_clock_that_is_set_back() -> None:
    budget = RetryBudget(capacity=2, per_call=0, per_second=1)
    assert budget.spend(100.0)
    assert budget.spend(100.0)
    assert not budget.spend(40.0)
    assert budget.left == 0, "time that goes back takes nothing off"
    assert not budget.spend(40.9)
    assert budget.spend(41.1), "and counts on from there"


def test_its_repr() -> None:
    budget = RetryBudget(capacity=10)
    assert budget.spend(0.0)
    assert repr(budget) == "RetryBudget(9 of 10 left)"


@QUICK
@given(
    st.lists(st.none() | st.floats(-1e6, 1e6), max_size=60),
    st.floats(0, 5),
    st.floats(0, 2),
    st.floats(0, 3),
)
def test_no_more_is_spent_than_was_put_in(
    steps: list[float | None], capacity: float, per_call: float, per_second: float
) -> None:
    budget = RetryBudget(capacity=capacity, per_call=per_call, per_second=per_second)
    put_in = capacity
    before: float | None = None
    spent = 0
    for step in steps:
        if step is None:
            budget.deposit()
            put_in += per_call
        else:
            spent += budget.spend(step)
            put_in += 0 if before is None else max(step - before, 0) * per_second
            before = step
        assert 0 <= budget.left <= capacity
    # What floating point may round up.
    assert spent <= put_in * 1.000001


# --- Of a client --------------------------------------------------------------------------------------


def test_a_client_whose_budget_is_spent(driver: Driver, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    spent = RetryBudget(capacity=0.5, per_call=0, per_second=0)
    monkeypatch.setattr("deltawire.settings.RetryBudget", lambda: spent)
    server.plan(*[Answer.error(503)] * 3)
    error = driver.stream({"base_url": server.url}).error
    assert isinstance(error, InternalServerError)
    assert error.gave_up == "the retry budget is spent: too many calls fail"
    assert len(server.requests) == 1


def test_copies_of_a_client_share_it_and_others_do_not() -> None:
    with Client() as client, Client() as other:
        copy = client.with_options(max_retries=5, timeout=1)
        assert copy._settings.budget is client._settings.budget
        assert other._settings.budget is not client._settings.budget


def test_those_who_ask_a_provider_without_a_client_share_one(
    run: Run, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = functools.partial(RetryBudget, capacity=1, per_call=0, per_second=0)
    monkeypatch.setattr("deltawire.generating.RetryBudget", small)
    provider = OpenaiTemplate(api_base=server.url)
    server.plan(Answer.error(503, retry_after=0.01))
    assert "".join(map(str, provider.create_generator("m", HI))) == "Hello"
    server.plan(Answer.error(503, retry_after=0.01))
    with pytest.raises(InternalServerError) as caught:
        run(provider.create_async, "m", HI)
    assert caught.value.gave_up == "the retry budget is spent: too many calls fail"
    assert len(server.requests) == 3
    # Other providers, and other servers of this one, fail by themselves.
    for other, where in ((OpenaiTemplate(api_base=server.url), {}), (provider, {"api_base": f"{server.url}/"})):
        server.plan(Answer.error(503, retry_after=0.01))
        assert run(functools.partial(other.create_async, "m", HI, **where)) == "Hello"
    assert len(server.requests) == 7
