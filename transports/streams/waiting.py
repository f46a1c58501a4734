"""Waiting on asyncio for what comes, or for a deadline, with few timers."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


class Wait:
    """Waiting for an event or for a deadline, again and again, with at most one timer.

    The timer is set for the deadline of the first wait, and is left alone when that is over. When it goes off it looks
    at the deadline of the wait that is on by then.
    """

    __slots__ = ("_future", "_loop", "_timer", "_timer_at", "_until")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None
        self._until = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def begin(self, until: float) -> asyncio.Future[None]:
        """A future, done with the event or at the deadline."""
        self._until = until
        self._future = future = self._loop.create_future()
        if until < self._timer_at:
            self._set_timer(until)
        return future

    def wake(self) -> None:
        """The event has come."""
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def stop(self) -> None:
        """There will be no further wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, at: float) -> None:
        self.stop()
        self._timer_at = at
        # Relative, since a loop's clock may be another one (uvloop's is).
        self._timer = self._loop.call_later(at - time.monotonic(), self._look)

    def _look(self) -> None:
        self._timer, self._timer_at = None, math.inf
        if self._future is None or self._future.done():
            return
        if time.monotonic() >= self._until:
            self._future.set_result(None)
        elif self._until != math.inf:
            self._set_timer(self._until)
