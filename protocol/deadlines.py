"""Deadlines of an exchange. Pure: the time is an argument (seconds on any clock that only goes up).

There are four: to connect (which covers tunnels and TLS), to the first content, between contents
(idle), and in total. Only content counts: a server that sends keep-alive comments for ever is as silent
as one that sends nothing.
"""

from __future__ import annotations

import math

import msgspec

from .errors import ConfigurationError, TimeoutError

# Nobody waits longer for a connection only because he waits long for a model.
_LONGEST_CONNECT = 15.0

# Seconds. Reading what is there already takes no time; on a busy machine, some.
_MOMENT = 0.02

_SAID = {
    "connect": "no connection",
    "first_content": "no content",
    "idle": "no further content",
    "total": "the call did not end",
}


class Timeout(msgspec.Struct, frozen=True):
    """How long to wait, in seconds; None: for ever.

    Raises `ConfigurationError` for what is no positive number.
    """

    connect: float | None = 10.0
    """Until the connection stands: TCP, the proxy's tunnel, TLS."""
    first_content: float | None = 600.0
    """From there to the first content. Reasoning models think long."""
    idle: float | None = 120.0
    """From one content to the next."""
    total: float | None = None
    """The whole call, its retries and waits included."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0 or value == math.inf:
                raise ConfigurationError(f"Timeout.{name} must be a number of seconds above 0, or None, not {value!r}")

    @classmethod
    def of(cls, value: float | Timeout | None) -> Timeout:
        """A `Timeout` as it is, None for the defaults; a number is the seconds for the first content and
        between contents, and the limit to connect if that is below 15."""
        if value is None:
            return cls()
        if isinstance(value, Timeout):
            return value
        timeout = cls(first_content=value, idle=value)
        return msgspec.structs.replace(timeout, connect=min(value, _LONGEST_CONNECT))


class Deadlines:
    """The deadlines of one attempt.

    ``total_at`` is the absolute time at which the whole call must be over, if there is one.
    """

    __slots__ = ("_idle", "_moment", "_phase", "_timeout", "_until", "total_at")

    def __init__(self, timeout: Timeout, now: float, total_at: float | None = None) -> None:
        self._timeout = timeout
        self.total_at = math.inf if total_at is None else total_at
        """When the whole call must be over; ``math.inf`` for never."""
        self._idle = math.inf if timeout.idle is None else timeout.idle
        # The deadline that has passed while nobody waited, and until when one may wait all the same.
        self._moment = (-math.inf, -math.inf)
        self.connecting(now)

    def connecting(self, now: float) -> None:
        """A connection is begun: the first one, or another one, since that was dead."""
        self._phase = "connect"
        self._begin(now, self._timeout.connect)

    def connected(self, now: float) -> None:
        """The connection stands; from now on content is waited for."""
        self._phase = "first_content"
        self._begin(now, self._timeout.first_content)

    def content(self, now: float) -> None:
        """Content has come."""
        self.wait_until(now, now)

    def _begin(self, now: float, seconds: float | None) -> None:
        self._until = self.total_at if seconds is None else min(now + seconds, self.total_at)

    def remaining(self, now: float) -> float | None:
        """How long the next step may take: seconds, at least 0; None for ever."""
        return None if self._until == math.inf else max(self._until - now, 0.0)

    def wait_until(self, now: float, content_at: float | None = None) -> float:
        """Until when a caller who begins to wait now may wait; ``math.inf`` for ever.

        That is the deadline. If it has passed before he came, it was he who was away, not the server: there is a
        moment left, in which what has arrived meanwhile can be read: one moment, until content comes, however often he
        comes. Not so with the total, which is his own. ``content_at``: when content came, if `content` was not told;
        for who has much of it, one call in place of two.
        """
        if content_at is not None:
            self._phase = "idle"
            at = content_at + self._idle
            self._until = at if at < self.total_at else self.total_at
        until = self._until
        if now < until or now >= self.total_at:
            return until
        if self._moment[0] != until:
            self._moment = (until, now + _MOMENT)
        return self._moment[1]

    def error(self, where: str = "", why: str = "") -> TimeoutError:
        """The error for the deadline that comes first: call it when that has passed. ``why`` is a clause that says
        what was waited for."""
        name = "total" if self._until == self.total_at else self._phase
        seconds: float | None = getattr(self._timeout, name)
        within = "in time" if seconds is None else f"within {seconds:g} s"
        why = f": {why}" if why else ""
        advice = f"(Timeout.{name}){where}{why}: raise that timeout, or try again later"
        return TimeoutError(f"{_SAID[name]} {within} {advice}", deadline=name, seconds=seconds)

    def check(self, now: float, where: str = "") -> None:
        """Raise the `TimeoutError` if a deadline has passed."""
        if now >= self._until:
            raise self.error(where)
