"""When to try again, and after how long. Pure: the time and the dice are arguments.

Theory
------
A call is a sequence of attempts. `attempts` is a generator of effects that a driver (a sync loop, an
async one) carries out, so that the rule stands here once::

    plan = attempts(provider, policy)
    effect = next(plan)
        Send(provider)    -> open the exchange and read until the first content or the end;
                             then send() an Outcome
        Sleep(seconds)    -> sleep; then send(None)
        GiveUp(error)     -> raise error; the plan is over
    StopIteration         -> the attempt has succeeded

Content that has reached the caller ends all retrying: the driver leaves the plan at the first content.

What is retried, as in the OpenAI SDK 3.52: connections that fail, dead proxies, timeouts, 408, 409, 429,
500 and above, an error in the stream whose status nobody knows; replies that break off or end before
any content. ``x-should-retry: true | false`` overrides for statuses. Never: other statuses, a proxy
that refuses the password or by its rules, an untrusted certificate, replies that are no chat replies,
and all faults of the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from .errors import (
    APIError,
    APIStatusError,
    EmptyReplyError,
    RedirectError,
    TransportError,
    TruncatedStreamError,
)
from .status import header, retry_after
from .urls import same_origin_target

if TYPE_CHECKING:
    from collections.abc import Generator

_P = TypeVar("_P")

# A server that redirects more often than this goes in circles.
MAX_REDIRECTS = 5


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how fast to try again. Times in seconds."""

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
        return status is None or status in (408, 409, 429) or status >= 500
    return isinstance(error, (TruncatedStreamError, EmptyReplyError))


class Send(msgspec.Struct, Generic[_P], frozen=True):
    """Make an attempt."""

    provider: _P
    url: str | None = None
    """The URL to send it to instead, after a redirect within the origin (307 or 308)."""


class Sleep(msgspec.Struct, frozen=True):
    """Wait."""

    seconds: float


class GiveUp(msgspec.Struct, frozen=True):
    """Raise this."""

    error: Exception


class Outcome(msgspec.Struct, frozen=True):
    """How an attempt went; what the driver sends after `Send`."""

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


Effect = Send[_P] | Sleep | GiveUp


def attempts(provider: _P, policy: RetryPolicy) -> Generator[Effect[_P], Outcome | None, None]:
    """The plan of one call. See the head of this module."""
    retries = redirects = 0
    url: str | None = None
    while True:
        outcome = yield Send(provider, url)
        assert outcome is not None, "send an Outcome after Send"
        error = outcome.error
        if error is None:
            return
        target = redirect_target(error, outcome.url)
        if target is not None and redirects < MAX_REDIRECTS:
            redirects += 1
            url = target
            continue
        if isinstance(error, (APIError, TransportError)):
            error.retries_taken = retries
        delay = policy.delay(error, retries, now=outcome.now, jitter=outcome.jitter)
        out_of_time = outcome.time_left is not None and delay is not None and delay >= outcome.time_left
        if delay is None or retries >= policy.max_retries or out_of_time:
            yield GiveUp(error)
            return
        retries += 1
        yield Sleep(delay)


def redirect_target(error: Exception, url: str) -> str | None:
    """Where to send the same request again: only 307 and 308 keep method and body, and only the same
    origin may see the key."""
    if isinstance(error, RedirectError) and error.status_code in (307, 308) and error.location:
        return same_origin_target(url, error.location)
    return None
