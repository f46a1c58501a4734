"""When to try again, with whom, and after how long. Pure: the time and the dice are arguments.

Theory
------
A call is a sequence of attempts. `attempts` (one provider) and `fail_over` (several, one after the other) are
generators of effects that a driver (a sync loop, an async one) carries out, so that the rule stands here once::

    plan = attempts(provider, policy)
    effect = next(plan)
        Send(provider)    -> open the exchange and read until the first content or the end;
                             then send() an Outcome
        Prepare(provider) -> fetch the session that the provider's requests need; then send() an Outcome
        Sleep(seconds)    -> sleep; then send(None)
        GiveUp(error)     -> raise error; the plan is over
    StopIteration         -> the attempt has succeeded

Content that has reached the caller ends all retrying: the driver leaves the plan at the first content.

What is retried, as in the OpenAI SDK 3.52: connections that fail, dead proxies, timeouts, 408, 409, 429,
500 and above, an error in the stream whose status nobody knows; replies that break off or end before
any content; from a provider's own code, what Python and others raise for connections and timeouts, too.
``x-should-retry: true | false`` overrides for statuses. Never: other statuses (and the errors that are
named for them), a proxy that refuses the password or by its rules, an untrusted certificate, replies
that are no chat replies, and all faults of the caller.

With several providers each has its turn, whatever the one before failed with: what is wrong with one server may
be right with the next. Nobody waits between two of them, since a wait is what the failed one asked for; nor does the
budget stop a call on its way to another one, since a server gets no more requests by that than it has callers.

A request to another path of the same origin (a redirect), and the one request that follows a fresh session, belong
to their attempt: they are neither waited for nor counted.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from .errors import (
    APIError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    EmptyReplyError,
    NotFoundError,
    PermissionDeniedError,
    RedirectError,
    RetryNoProviderError,
    RetryProviderError,
    TransportError,
    TruncatedStreamError,
    UnprocessableEntityError,
)
from .fields import header, retry_after
from .reserved import Reserved
from .urls import same_origin_target, shown_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .budget import RetryBudget

_P = TypeVar("_P")

# A server that redirects more often than this goes in circles.
MAX_REDIRECTS = 5

# Systems can't sleep for any number of seconds. (A year.)
_LONGEST = 31_536_000

# What no other attempt mends, whether or not a status came with it.
_FOR_GOOD = (
    BadRequestError,
    AuthenticationError,
    PermissionDeniedError,
    NotFoundError,
    UnprocessableEntityError,
    RedirectError,
)

_NO_TIME = "the total deadline comes first"


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how fast to try again. Times in seconds. Raises `ConfigurationError` for what makes no sense."""

    max_retries: int = 2
    """Extra attempts after the first; 0 for none."""
    initial: float = 0.5
    """The first wait; each further one is twice as long."""
    maximum: float = 8.0
    """The longest wait of our own choosing."""
    jitter: float = 0.25
    """The part of a wait that is left to chance, so that clients don't come back all at once."""
    longest_retry_after: float = 120.0
    """The longest wait that a server may ask for; asked for more, we give up at once."""

    def __post_init__(self) -> None:
        if isinstance(self.max_retries, bool) or not isinstance(self.max_retries, int) or self.max_retries < 0:
            raise ConfigurationError(f"max_retries must be a whole number from 0, not {self.max_retries!r}")
        for name in ("initial", "maximum", "jitter", "longest_retry_after"):
            value = getattr(self, name)
            most = 1 if name == "jitter" else _LONGEST
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
                raise ConfigurationError(f"RetryPolicy.{name} must be a number from 0 to {most:,}, not {value!r}")

    def backoff(self, retries: int, jitter: float) -> float:
        """The wait before retry number ``retries`` (from 0); ``jitter`` is a number in [0, 1)."""
        # 2.0 ** 1024 overflows; nobody gets there, but max_retries is anybody's number.
        return min(self.initial * 2.0 ** min(retries, 60), self.maximum) * (1 - self.jitter * jitter)

    def delay(self, error: Exception, retries: int, *, now: float, jitter: float) -> float | None:
        """How long to wait after this error; None: don't try again.

        ``now`` is the Unix time, against which a ``Retry-After`` date is read.
        """
        if not is_retryable(error):
            return None
        if isinstance(error, APIStatusError):
            asked = retry_after(error.headers, now)
            if asked is not None and asked > self.longest_retry_after:
                return None
            if asked is not None and asked > 0:
                return asked
        return self.backoff(retries, jitter)


def is_retryable(error: Exception) -> bool:
    """Whether the same request may succeed when it is sent again."""
    if isinstance(error, TransportError):
        return error.transient
    if isinstance(error, APIStatusError):
        said = header(error.headers, b"x-should-retry")
        if said in (b"true", b"false"):
            return said == b"true"
        status = error.status_code
        if status is None:
            # One of a class that says its status was raised by a provider's own code.
            return not isinstance(error, _FOR_GOOD)
        return status in (408, 409, 429) or status >= 500
    return isinstance(error, (TruncatedStreamError, EmptyReplyError)) or _is_of_the_way(error)


def _is_of_the_way(error: Exception) -> bool:
    """Whether an error that is none of ours, from a provider that brings its own way to a server, speaks of the way."""
    # Until Python 3.11 the one of asyncio is a class of its own.
    if any(each.__name__ == "TimeoutError" for each in type(error).__mro__):
        return True
    # A file has a name, a certificate that nobody trusts is a ValueError, too, and those of the library requests that
    # are about an answer have it.
    others = isinstance(error, (ValueError, FileNotFoundError)) or getattr(error, "response", None) is not None
    return isinstance(error, OSError) and not others and error.filename is None


class Send(Reserved, Generic[_P], frozen=True):
    """Make an attempt."""

    provider: _P
    url: str | None = None
    """The URL to send it to instead, after a redirect within the origin (307 or 308)."""

    def __repr__(self) -> str:
        return f"Send({self.provider!r}{'' if self.url is None else f', {shown_url(self.url)!r}'})"


class Prepare(msgspec.Struct, Generic[_P], frozen=True):
    """Fetch the session without which the provider takes no request."""

    provider: _P


class Sleep(msgspec.Struct, frozen=True):
    """Wait."""

    seconds: float


class GiveUp(msgspec.Struct, frozen=True):
    """Raise this."""

    error: Exception


class Outcome(Reserved, frozen=True):
    """How an attempt went; what the driver sends after `Send` and `Prepare`."""

    error: Exception | None
    """None: content has come, or the reply ended well."""
    url: str = ""
    """Where the attempt was sent."""
    now: float = 0.0
    """The Unix time."""
    jitter: float = 0.0
    """A random number in [0, 1)."""
    time_left: float | None = None
    """Seconds until the call's total deadline; None for none."""
    needs_session: bool = False
    """Whether a session is all that was wanting: there was none (and nothing was sent), or it was refused."""

    def __repr__(self) -> str:
        return f"Outcome({self.error!r}, {shown_url(self.url)!r})"


Effect = Send[_P] | Prepare[_P] | Sleep | GiveUp
_Plan = Generator[Effect[_P], "Outcome | None", None]


def attempts(provider: _P, policy: RetryPolicy, *, budget: RetryBudget | None = None) -> _Plan[_P]:
    """The plan of a call to one provider: it fails with the error of the last attempt.

    ``budget`` is shared between calls; see `RetryBudget`.
    """
    return _plan(repeated(provider, 1 + policy.max_retries), policy, budget, _last)


def fail_over(
    providers: Iterable[_P], policy: RetryPolicy | None = None, *, budget: RetryBudget | None = None
) -> _Plan[_P]:
    """The plan of a call to several providers, in turn until one succeeds; it fails with `failure` of their errors.

    A provider that stands in the list again is retried, as `policy` says how: not if it failed for good, and not if
    the wait would outlast the call. (The list says how often, or `repeated`: ``policy.max_retries`` is not looked
    at.)
    """
    return _plan(providers, policy or RetryPolicy(), budget, failure)


def repeated(provider: _P, times: int) -> itertools.repeat[_P]:
    """The same provider so many times, for `fail_over`: any number costs the same."""
    return itertools.repeat(provider, min(times, sys.maxsize))


class _Asked:
    """What a plan knows of a provider that it has asked."""

    def __init__(self, provider: object) -> None:
        # Held, so that its identity stays its own.
        self.provider = provider
        self.turns = 0
        self.redirects = 0
        self.url: str | None = None
        # A session is renewed once when it is refused.
        self.renewed = False
        # What it failed with last, and how long to wait before it is asked again; None: it failed for good.
        self.error: Exception | None = None
        self.delay: float | None = 0.0


def _plan(
    schedule: Iterable[_P],
    policy: RetryPolicy,
    budget: RetryBudget | None,
    failed: Callable[[list[Exception]], Exception],
) -> _Plan[_P]:
    errors: list[Exception] = []
    # By identity: providers may be classes, instances, or anything else.
    known: dict[int, _Asked] = {}
    outcome = Outcome(None)
    if budget is not None:
        budget.deposit()
    for provider in schedule:
        asked = known.setdefault(id(provider), _Asked(provider))
        if asked.error is not None:
            wait = _wait_again(asked, outcome, budget)
            if wait is None:
                if isinstance(schedule, itertools.repeat):
                    break
                continue
            yield Sleep(wait)
        elif outcome.time_left is not None and outcome.time_left <= 0:
            _note(errors[-1], _NO_TIME)
            break
        outcome = yield from _attempt(provider, asked)
        error = outcome.error
        if error is None:
            return
        if isinstance(error, (APIError, TransportError)):
            error.retries_taken = len(errors)
        errors.append(error)
        asked.error = error
        asked.delay = policy.delay(error, asked.turns, now=outcome.now, jitter=outcome.jitter)
        asked.turns += 1
    yield GiveUp(failed(errors))


def _attempt(provider: _P, asked: _Asked) -> Generator[Effect[_P], Outcome | None, Outcome]:
    """One attempt: the request, where it is sent on to within the origin, and the session that it may need."""
    while True:
        outcome = yield Send(provider, asked.url)
        assert outcome is not None, "send an Outcome after Send"
        refused = outcome.error is not None
        if outcome.needs_session and not (refused and asked.renewed):
            asked.renewed = asked.renewed or refused
            outcome = yield Prepare(provider)
            assert outcome is not None, "send an Outcome after Prepare"
            if outcome.error is None:
                continue
            return outcome
        target = None if outcome.error is None else redirect_target(outcome.error, outcome.url)
        if target is None or asked.redirects == MAX_REDIRECTS:
            return outcome
        asked.redirects += 1
        asked.url = target


def _wait_again(asked: _Asked, outcome: Outcome, budget: RetryBudget | None) -> float | None:
    """How long to wait before a provider that has failed is asked again; None: it is not."""
    if asked.delay is None or asked.error is None:
        if asked.error is not None and is_retryable(asked.error):
            _note(asked.error, "the server asks to wait longer than RetryPolicy.longest_retry_after")
        return None
    if outcome.time_left is not None and asked.delay >= outcome.time_left:
        _note(asked.error, _NO_TIME)
        return None
    if budget is not None and not budget.spend(outcome.now):
        _note(asked.error, "the retry budget is spent: too many calls fail")
        return None
    return asked.delay


def _note(error: Exception, why: str) -> None:
    if isinstance(error, (APIError, TransportError)):
        error.gave_up = why


def _last(errors: list[Exception]) -> Exception:
    return errors[-1]


def failure(errors: Sequence[Exception]) -> Exception:
    """The one error for what several attempts failed with, in order.

    One: that error. Several: `RetryProviderError`. None, or replies that were all empty: `RetryNoProviderError`.
    """
    _chain(errors)
    if all(isinstance(error, EmptyReplyError) for error in errors):
        what = f"all {len(errors)} attempts gave empty replies" if errors else "there is no provider to try"
        nothing = RetryNoProviderError(f"{what}: name other providers")
        nothing.__cause__ = errors[-1] if errors else None
        return nothing
    if len(errors) == 1:
        return errors[0]
    lines = "".join(f"\n  {number}. {type(error).__name__}: {error}" for number, error in enumerate(errors, 1))
    several = RetryProviderError(f"all {len(errors)} attempts failed:{lines}", errors=errors)
    several.__cause__ = errors[-1]
    return several


def _chain(errors: Sequence[Exception]) -> None:
    """Let a traceback show what came before: each error, and what it was made from, once and in order."""
    seen: set[int] = set()
    earlier: Exception | None = None
    for error in errors:
        if id(error) in seen:
            continue
        first: BaseException | None = error
        while first is not None and id(first) not in seen:
            seen.add(id(first))
            before = first.__cause__ or (None if first.__suppress_context__ else first.__context__)
            if before is None and earlier is not None:
                first.__context__, first.__suppress_context__ = earlier, False
            first = before
        earlier = error


def redirect_target(error: Exception, url: str) -> str | None:
    """Where to send the same request again: only 307 and 308 keep method and body, and only the same
    origin may see the key."""
    if isinstance(error, RedirectError) and error.status_code in (307, 308) and error.location:
        # As the server sent it: out of the error's own words secrets are cut, a key in the query among them.
        sent = header(error.headers, b"location")
        return same_origin_target(url, error.location if sent is None else sent.decode("latin-1"))
    return None
