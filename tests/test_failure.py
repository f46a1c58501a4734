"""retry.py: the one error for what several attempts failed with."""

from __future__ import annotations

import traceback

import pytest
from plans import given_up, script, status

from deltawire.protocol import (
    BadRequestError,
    ConnectError,
    EmptyReplyError,
    RateLimitError,
    ReadError,
    RetryBudget,
    RetryNoProviderError,
    RetryProviderError,
    TruncatedStreamError,
    fail_over,
)
from deltawire.protocol.retry import failure


def test_nobody_to_ask() -> None:
    nobody: list[str] = []
    for plan in (fail_over(nobody), fail_over(iter(nobody)), fail_over(nobody, budget=RetryBudget())):
        error = given_up(script(plan))
        assert isinstance(error, RetryNoProviderError)
        assert str(error) == "there is no provider to try: name other providers"
        assert error.__cause__ is None


def test_all_empty() -> None:
    errors = [EmptyReplyError("the reply is empty"), EmptyReplyError("the reply is empty")]
    error = given_up(script(fail_over("AB"), *errors))
    assert isinstance(error, RetryNoProviderError)
    assert str(error) == "all 2 attempts gave empty replies: name other providers"
    assert error.__cause__ is errors[1]
    assert errors[1].__context__ is errors[0]


def test_one_that_is_empty_and_one_that_failed() -> None:
    errors = [EmptyReplyError("the reply is empty"), status(500)]
    error = given_up(script(fail_over("AB"), *errors))
    assert isinstance(error, RetryProviderError)
    assert error.errors == errors


@pytest.mark.parametrize("only", [status(400), ReadError("x"), TruncatedStreamError("x"), ValueError("x")])
def test_one_error_is_that_error(only: Exception) -> None:
    assert given_up(script(fail_over("A"), only)) is only
    assert (only.__cause__, only.__context__) == (None, None)


def test_several_in_order() -> None:
    errors = [ConnectError("no way"), status(429), ValueError("odd")]
    error = given_up(script(fail_over("ABC"), *errors))
    assert isinstance(error, RetryProviderError)
    assert error.errors == errors
    first, *lines = str(error).splitlines()
    assert first == "all 3 attempts failed:"
    assert lines == [
        "  1. ConnectError: no way",
        f"  2. RateLimitError: {errors[1]}",
        "  3. ValueError: odd",
    ]
    assert isinstance(errors[1], RateLimitError)


def printed(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def raised(error: Exception, cause: BaseException | None = None, *, hides: bool = False) -> Exception:
    """An error as it is after it was raised for something else."""
    try:
        if not hides:
            raise error from cause
        try:
            raise KeyError("hidden")
        except KeyError:
            raise error from None
    except type(error) as caught:
        return caught


def test_the_traceback_shows_all_of_them_once_and_in_order() -> None:
    errors = [
        raised(ReadError("alpha"), OSError("broken pipe")),
        BadRequestError("beta", status_code=400),
        raised(ConnectError("gamma"), raised(RuntimeError("wrapped"), OSError("refused"))),
        raised(ReadError("omega"), hides=True),
        ValueError("epsilon"),
    ]
    words = printed(failure(errors))
    wanted = ["broken pipe", "alpha", "beta", "OSError: refused", "wrapped", "gamma", "omega", "epsilon", "all 5"]
    # Each as the last line of its own traceback: the message of the last lists them, too.
    places = [words.index(each) for each in wanted]
    assert places == sorted(places)
    assert "hidden" not in words
    assert words.count("broken pipe") == 1


def test_what_is_raised_twice_makes_no_circle() -> None:
    same, other = ReadError("same"), ReadError("other")
    error = failure([same, other, same, ReadError("last")])
    assert isinstance(error, RetryProviderError)
    assert len(error.errors) == 4
    assert printed(error).count("ReadError: same") == 3, "itself, and twice in the list"
    last = error.errors[-1]
    assert last.__context__ is other
    assert other.__context__ is same
    assert same.__context__ is None


def test_what_is_the_cause_of_a_later_one_makes_no_circle() -> None:
    first = ReadError("first")
    second = raised(ReadError("second"), first)
    error = failure([first, second])
    assert second.__cause__ is first
    assert first.__context__ is None
    assert "all 2 attempts" in printed(error)


def test_what_an_error_hides_stays_hidden() -> None:
    first, second = raised(ReadError("first"), hides=True), raised(ReadError("second"), hides=True)
    failure([first, second])
    assert first.__suppress_context__
    assert isinstance(first.__context__, KeyError)
    assert second.__context__ is first


def test_called_again_with_the_same_errors() -> None:
    errors = [ReadError("alpha"), ReadError("beta")]
    assert printed(failure(errors)) == printed(failure(errors))
