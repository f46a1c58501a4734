"""Waiting on asyncio for what comes, or for a deadline, with few timers."""

from __future__ import annotations

import math
import time
from asyncio import CancelledError, current_task
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator


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
        if not self._waits():
            return
        if time.monotonic() >= self._until:
            self.wake()
        elif self._until != math.inf:
            self._set_timer(self._until)

    def _waits(self) -> bool:
        return self._future is not None and not self._future.done()


# A function that does nothing, and is none of Python's: asyncio calls it after each wait.
_nothing: Callable[[], None] = [].clear


def raised(error: BaseException) -> None:
    """To be called by the loop. What is for the loop (`KeyboardInterrupt`, `SystemExit`) has to come so: uvloop lets
    nothing out that comes from a protocol, and its program would hang."""
    raise error


class Turn(Wait):
    """A wait whose end is the waiter's turn at once: `resume` runs him there and then, in the callback that brings what
    he waits for, and not in the next round of the loop, which costs as much as all the rest.

    To asyncio it is a Future-compatible object (see `asyncio.isfuture`), for one task at a time, and for one wait after
    the other. Nobody's turn comes in the midst of another task: he is scheduled then, as he is by `wake` and when he is
    cancelled.
    """

    __slots__ = ("_asyncio_future_blocking", "_callback", "_cancelled", "_context", "result")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._asyncio_future_blocking = False
        self._callback: Any = None
        self._context: Any = None
        self._cancelled: tuple[Any, ...] = ()
        self.result: Callable[[], None] = _nothing
        """See `asyncio.Future`."""

    def __await__(self) -> Generator[Any, None, None]:
        self._asyncio_future_blocking = True
        yield self

    def resume(self) -> None:
        """The event has come: the waiter goes on now."""
        if current_task(self._loop) is not None:
            self.wake()
            return
        # In one step: a signal's handler may cancel the waiter at any call.
        callback, self._callback = self._callback, None
        if callback is None:
            return
        try:
            self._context.run(callback, self)
        except (KeyboardInterrupt, SystemExit) as error:
            self._loop.call_soon(raised, error)

    def _waits(self) -> bool:
        return self._callback is not None

    def wake(self) -> None:
        """The event has come: the waiter goes on soon."""
        callback, self._callback = self._callback, None
        if callback is not None:
            self._loop.call_soon(callback, self, context=self._context)

    # What the task calls that waits

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """See `asyncio.Future`."""
        return self._loop

    def done(self) -> bool:
        """See `asyncio.Future`. (No task asks; who looks at what tasks wait for does, as anyio's testing helpers.)"""
        return self._callback is None

    def add_done_callback(self, callback: Any, *, context: Any = None) -> None:
        """See `asyncio.Future`."""
        self._callback, self._context = callback, copy_context() if context is None else context

    def cancel(self, msg: Any = None) -> bool:
        """See `asyncio.Future`."""
        if self._callback is None:
            return False
        self._cancelled = () if msg is None else (msg,)
        self.result = self._raise_cancelled
        self.wake()
        return True

    def _raise_cancelled(self) -> None:
        self.result = _nothing
        raise CancelledError(*self._cancelled)
