"""deadlines.py: four deadlines, and only content counts."""

from __future__ import annotations

import builtins
import math
from typing import Any

import pytest

from deltawire.protocol import ConfigurationError, Deadlines, Timeout, TimeoutError

FOUR = Timeout(connect=1, first_content=10, idle=3, total=None)


def test_the_defaults() -> None:
    assert Timeout() == Timeout(connect=10.0, first_content=600.0, idle=120.0, total=None)
    assert Timeout.of(None) == Timeout()
    assert Timeout.of(FOUR) is FOUR


@pytest.mark.parametrize(("seconds", "connect"), [(5, 5), (0.5, 0.5), (15, 15), (60, 15.0), (3600.0, 15.0)])
def test_a_number_is_the_wait_for_content(seconds: float, connect: float) -> None:
    assert Timeout.of(seconds) == Timeout(connect=connect, first_content=seconds, idle=seconds, total=None)


@pytest.mark.parametrize("bad", [0, -1, 0.0, math.nan, math.inf, -math.inf, True, False, "5", [5]])
@pytest.mark.parametrize("name", ["connect", "first_content", "idle", "total"])
def test_what_is_no_number_of_seconds(name: str, bad: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Timeout(**{name: bad})
    words = f"Timeout.{name} must be a number of seconds above 0, or None, not {bad!r}"
    assert str(caught.value) == words
    with pytest.raises(ConfigurationError):
        Timeout.of(bad)


def test_none_is_for_ever() -> None:
    deadlines = Deadlines(Timeout(None, None, None, None), 0.0)
    assert deadlines.remaining(1e9) is None
    deadlines.connected(1e9)
    assert deadlines.remaining(2e9) is None
    deadlines.content(2e9)
    assert deadlines.remaining(3e9) is None
    deadlines.check(1e12)


def test_the_phases() -> None:
    deadlines = Deadlines(FOUR, 100.0)
    assert deadlines.remaining(100.0) == 1.0
    assert deadlines.remaining(100.75) == 0.25
    deadlines.connected(100.5)
    assert deadlines.remaining(100.5) == 10.0
    assert deadlines.remaining(105.5) == 5.0, "bytes that are no content re-arm nothing"
    deadlines.content(109.0)
    assert deadlines.remaining(110.0) == 2.0
    deadlines.content(111.0)
    assert deadlines.remaining(111.0) == 3.0
    assert deadlines.remaining(120.0) == 0.0, "never negative"


def test_total_comes_before_all_when_it_is_sooner() -> None:
    deadlines = Deadlines(Timeout(connect=5, first_content=5, idle=5, total=7), 0.0, total_at=7.0)
    assert deadlines.remaining(0.0) == 5.0
    deadlines.connected(4.0)
    assert deadlines.remaining(4.0) == 3.0
    deadlines.content(6.0)
    assert deadlines.remaining(6.5) == 0.5
    assert deadlines.remaining(8.0) == 0.0


@pytest.mark.parametrize(
    ("step", "now", "name", "seconds"),
    [("", 1.0, "connect", 1), ("connected", 10.0, "first_content", 10), ("content", 3.0, "idle", 3)],
)
def test_the_error_names_its_deadline(step: str, now: float, name: str, seconds: float) -> None:
    deadlines = Deadlines(FOUR, 0.0)
    if step:
        getattr(deadlines, step)(0.0)
    deadlines.check(now - 0.001)
    with pytest.raises(TimeoutError) as caught:
        deadlines.check(now, " (P, http://s)")
    error = caught.value
    said = {"connect": "no connection", "first_content": "no content", "idle": "no further content"}[name]
    advice = "raise that timeout, or try again later"
    assert str(error) == f"{said} within {seconds:g} s (Timeout.{name}) (P, http://s): {advice}"
    assert (error.deadline, error.seconds, error.transient) == (name, seconds, True)
    assert isinstance(error, builtins.TimeoutError)


def test_the_error_of_the_total() -> None:
    deadlines = Deadlines(Timeout(total=7), 0.0, total_at=7.0)
    deadlines.check(6.9)
    with pytest.raises(TimeoutError) as caught:
        deadlines.check(7.0)
    assert (caught.value.deadline, caught.value.seconds) == ("total", 7)


def test_a_total_that_the_caller_measures_itself() -> None:
    # total_at is an argument of its own: nothing says that Timeout.total must be set, too.
    deadlines = Deadlines(Timeout(), 0.0, total_at=2.0)
    assert deadlines.remaining(0.5) == 1.5
    with pytest.raises(TimeoutError) as caught:
        deadlines.check(2.0)
    assert caught.value.deadline == "total"
    words = "the call did not end in time (Timeout.total): raise that timeout, or try again later"
    assert str(caught.value) == words


def test_a_timeout_is_a_value() -> None:
    assert Timeout(5) == Timeout(connect=5)
    with pytest.raises(AttributeError):
        FOUR.idle = 5  # type: ignore[misc]


def test_how_long_a_caller_may_wait() -> None:
    deadlines = Deadlines(FOUR, 100.0)
    assert deadlines.wait_until(100.5) == 101.0
    assert deadlines.wait_until(101.0) > 101.0, "at the deadline itself it has passed"
    deadlines.connected(100.5)
    deadlines.content(101.0)
    assert deadlines.wait_until(103.9) == 104.0
    late = deadlines.wait_until(200.0)
    assert 200.0 < late < 200.1, "he was away: what has come meanwhile is still to be had"
    assert deadlines.wait_until(late - 0.001) == late, "but a server that says nothing to the point gets no more time"
    assert deadlines.wait_until(late + 50) == late
    deadlines.content(300.0)
    assert deadlines.wait_until(400.0) > 400.0
    assert Deadlines(Timeout(None, None, None, None), 0.0).wait_until(1e9) == math.inf


def test_nobody_may_be_late_for_the_total() -> None:
    deadlines = Deadlines(FOUR, 0.0, total_at=7.0)
    assert deadlines.wait_until(0.5) == 1.0
    deadlines.connected(0.5)
    assert deadlines.wait_until(6.0) == 7.0
    assert deadlines.wait_until(7.0) == 7.0
    assert deadlines.wait_until(9.0) == 7.0


def test_connecting_again() -> None:
    deadlines = Deadlines(FOUR, 0.0, total_at=12.0)
    deadlines.connected(0.5)
    deadlines.connecting(2.0)
    assert deadlines.wait_until(2.0) == 3.0
    with pytest.raises(TimeoutError, match="connect"):
        deadlines.check(3.0)
    deadlines.connecting(11.5)
    assert deadlines.wait_until(11.5) == 12.0


def test_the_error_says_what_was_waited_for() -> None:
    error = Deadlines(FOUR, 0.0).error(" (http://s)", "the proxy opens no tunnel")
    assert "within 1 s (Timeout.connect) (http://s): the proxy opens no tunnel: raise" in str(error)


def test_the_moment_for_who_was_away() -> None:
    """At the deadline itself it has passed: 20 ms are left to read what is there, once."""
    deadlines = Deadlines(FOUR, 100.0)
    assert deadlines.wait_until(100.9) == 101.0
    assert deadlines.wait_until(101.0) == pytest.approx(101.02)
    assert deadlines.wait_until(101.01) == pytest.approx(101.02)
    assert deadlines.wait_until(105.0) == pytest.approx(101.02)
