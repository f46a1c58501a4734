"""Deadlines on trio, without a cancel scope for each wait, which costs a third of what the wait itself does.

Theory
------
A stream that waits says until when, and that is all. One task of trio's own, for all streams of a run, sleeps until the
first of these times, and then looks at all of them: a wait whose time has come it ends, as if the socket were closed
(`trio.lowlevel.notify_closing` wakes whoever waits for a socket, and closes nothing); the reader looks at the time, and
knows. As most waits are over before their time, and the next ones have a later one, the task sleeps for as long as a
deadline takes, not for as long as a wait does.
"""

from __future__ import annotations

import math
import time
import weakref
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from .on_trio import TrioStream

_overseer: trio.lowlevel.RunVar[Overseer | None] = trio.lowlevel.RunVar("deltawire.overseer")


class Overseer:
    """Ends the waits of streams whose time has come."""

    def __init__(self) -> None:
        self.next = math.inf
        """When it looks: a time of `time.monotonic`."""
        self.over = False
        """Whether the run is at its end, and nobody looks any more."""
        # Who is dropped without a word is not to be held by this.
        self._streams: weakref.WeakSet[TrioStream] = weakref.WeakSet()
        self._changed = trio.Event()

    def watch(self, stream: TrioStream, until: float) -> None:
        """Look at this stream, first at this time."""
        stream.watched = True
        self._streams.add(stream)
        if until < self.next:
            self.next = until
            self._changed.set()

    def forget(self, stream: TrioStream) -> None:
        """It waits no more."""
        stream.watched = False
        self._streams.discard(stream)

    async def run(self) -> None:
        """Until the run ends."""
        try:
            while True:
                self._changed = trio.Event()
                with trio.move_on_after(max(self.next - time.monotonic(), 0.0)):
                    await self._changed.wait()
                if time.monotonic() >= self.next:
                    self._look()
        finally:
            self.over = True
            # Who waits now is to wait by his own means.
            for stream in list(self._streams):
                if stream.waits_until is not None:
                    stream.end_wait()

    def _look(self) -> None:
        now = time.monotonic()
        self.next = math.inf
        for stream in list(self._streams):
            until = stream.waits_until
            if until is None:
                self.forget(stream)
            elif until <= now:
                stream.end_wait()
            else:
                self.next = min(self.next, until)


def overseer() -> Overseer:
    """That of the run which calls this."""
    found = _overseer.get(None)
    if found is None:
        found = Overseer()
        _overseer.set(found)
        try:
            trio.lowlevel.spawn_system_task(found.run, name="deltawire deadlines")
        except RuntimeError:
            # The run is past its last tasks.
            found.over = True
    return found
