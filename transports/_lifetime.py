"""Closing what was not closed: on the event loop's own time, from code that can't await.

Two things end without anybody awaiting their end: a stream that is dropped (a `weakref.finalize` runs, in
the middle of who knows what), and an event loop whose program never closed its client. For the first,
`Runner.spawn` hands the closing to a task of the loop. For the second there is one hook that asyncio.run
and trio.run both honour before they close their loop: they finalise the async generators that are still
suspended. So one sits there, per loop, with the closing in its ``finally``.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import weakref
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    Closing = Callable[[], Awaitable[None]]


def running_trio() -> Any:
    """The module trio, if it runs this code; else None."""
    trio: Any = sys.modules.get("trio")
    return trio if trio is not None and trio.lowlevel.in_trio_run() else None


def running_loop() -> Any:
    """What stands for the event loop that runs now: a key that can be held weakly."""
    trio = running_trio()
    return trio.lowlevel.current_trio_token() if trio is not None else asyncio.get_running_loop()


def runs_elsewhere(loop: Any) -> bool:
    """Whether this loop, as `running_loop` gave it (None: it is gone), runs now, but not this code."""
    try:
        here = running_loop()
    except RuntimeError:
        here = None
    if loop is None or loop is here:
        return False
    if hasattr(loop, "is_running"):
        return bool(loop.is_running())
    try:
        # trio tells it in no other way.
        loop.run_sync_soon(bool)
    except sys.modules["trio"].RunFinishedError:
        return False
    return True


def forget_closed(by_loop: weakref.WeakKeyDictionary[Any, Any]) -> None:
    """Drop what belongs to loops that are closed, by its ``abort``. (Who closes a loop without a word to its
    async generators leaves it there; trio's runs can't be ended so.)"""
    for known in by_loop.keyrefs():
        loop = known()
        if loop is not None and hasattr(loop, "is_closed") and loop.is_closed():
            owned = by_loop.pop(loop, None)
            if owned is not None:
                owned.abort()


class Runner:
    """The event loop that runs now, as something to hand work to later, from anywhere."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeper: AsyncGenerator[None, None] | None = None
        self._trio = running_trio()
        # Weakly: whoever is found by his loop must not be what keeps the loop.
        self._loop: weakref.ref[Any] = weakref.ref(running_loop())

    def spawn(self, closing: Closing) -> None:
        """Run it as a task of the loop, soon; not at all if the loop is over."""
        loop = self._loop()
        if loop is None:
            return
        if self._trio is not None:
            with contextlib.suppress(self._trio.RunFinishedError):
                loop.run_sync_soon(self._spawn_trio, closing)
        else:
            # RuntimeError: the loop is closed, and its sockets with it.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._spawn_asyncio, closing)

    async def uncancelled(self, closing: Closing) -> None:
        """Run it to its end, whoever cancels the caller meanwhile, and however often."""
        with anyio.CancelScope(shield=True):
            if self._loop() is not running_loop():
                # Closed from another loop, which may not wait for what is this one's.
                await _quietly(closing)
            elif self._trio is not None:
                await closing()
            else:
                # asyncio's own cancellation knows no such scopes; so it hits one who only waits.
                await asyncio.shield(self._spawn_asyncio(closing))

    def _spawn_trio(self, closing: Closing) -> None:
        try:
            self._trio.lowlevel.spawn_system_task(_quietly, closing)
        except RuntimeError:
            # The run is past its last tasks, but has yet to finalise its generators. If one of them were
            # collected before that, trio would complain: so its queue holds them, from round to round.
            self.spawn(closing)

    def _spawn_asyncio(self, closing: Closing) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(_quietly(closing))
        # The loop holds its tasks weakly.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def at_end(self, closing: Closing) -> None:
        """See that this runs before the loop ends."""
        self._keeper = self._keep(closing)
        await self._keeper.__anext__()

    async def forget(self) -> None:
        """What `at_end` was told has been done already."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await keeper.aclose()

    async def _keep(self, closing: Closing) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            # A generator knows its loop.
            self._keeper = None
            await _quietly(closing)
            if self._tasks:
                # Not for the task that ends this generator, which may be one of them.
                others = self._tasks - {asyncio.current_task()}
                await asyncio.gather(*others, return_exceptions=True)


async def _quietly(closing: Closing) -> None:
    # Nobody is there to hear of a socket that fails to close.
    with anyio.CancelScope(shield=True), contextlib.suppress(Exception):
        await closing()
