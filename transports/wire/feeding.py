"""How bytes come to the machine of an async exchange: pushed by the stream (asyncio), or pulled from it (trio)."""

from __future__ import annotations

import time
import types
from asyncio import current_task
from typing import TYPE_CHECKING, Any, TypeAlias

from deltawire.protocol import HTTP1State, UsageError

from .._errors import LINK_ERRORS, exchange_error
from .._options import DRAIN_BYTES, DRAIN_SECONDS
from ..streams.layers import Expired, closed_here
from ..streams.waiting import Turn, raised

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Protocol

    from deltawire.protocol import Deadlines, Event, HTTP1Exchange

    class Owner(Protocol):
        """Whose machine it is."""

        def close_now(self) -> None:
            """He who waits was cancelled: end the connection."""


# Bytes whose events may wait for their owner before the socket is left alone. A chunk is some four times as large as
# the bytes that it came in.
HIGH_WATER = 64 * 1024

_DRAINING = HTTP1State.DRAINING


def feed_from(stream: Any, machine: HTTP1Exchange, deadlines: Deadlines, owner: Owner) -> Feed:
    """The way in which this stream's bytes come to the machine, until `close`."""
    kind = Pushed if hasattr(stream, "push_to") else Pulled
    return kind(stream, machine, deadlines, owner)


class Pulled:
    """By its owner, who waits for the socket himself."""

    __slots__ = ("_contents", "_deadlines", "_events", "_machine", "_owner", "_reply", "_stream")

    def __init__(self, stream: Any, machine: HTTP1Exchange, deadlines: Deadlines, owner: Owner) -> None:
        self._stream = stream
        self._machine = machine
        self._reply = machine.reply
        self._deadlines = deadlines
        self._owner: Owner | None = owner
        self._events: list[Event] = []
        self._contents = 0

    async def first(self) -> bool:
        """Wait until something comes; False if that is the end. Raises `OSError`, `Expired`."""
        data = await self._stream.read()
        if data:
            self._events = self._noted(self._machine.receive(data))
        return bool(data)

    async def next_events(self) -> list[Event]:
        """The next events; empty only after the verdict. Cancelled, it closes the connection."""
        if self._events:
            return self.left()
        machine, stream, reply = self._machine, self._stream, self._reply
        if reply.done:
            return []
        now = time.monotonic()
        stream.deadline = until = self._deadlines.wait_until(now)
        try:
            if now >= until:
                # Even if there is something left to read.
                raise Expired
            while True:
                data = await stream.read()
                if events := machine.receive(data) if data else machine.end():
                    return self._noted(events)
        except LINK_ERRORS as error:
            return machine.fail(exchange_error(error, self._deadlines, reply.context))
        except BaseException:
            if self._owner is not None:
                self._owner.close_now()
            raise

    def left(self) -> list[Event]:
        """What nobody has asked for yet."""
        events, self._events = self._events, []
        return events

    def end(self) -> None:
        """That nothing has come is the end of it."""
        self._events += self._machine.end()

    def _noted(self, events: list[Event]) -> list[Event]:
        if (contents := self._reply.contents) != self._contents:
            self._contents = contents
            self._deadlines.content(time.monotonic())
        return events

    async def drain(self) -> None:
        """Read the rest of the message: a little, for a little while. Raises `OSError`, `Expired`."""
        self._stream.deadline = time.monotonic() + DRAIN_SECONDS
        left = DRAIN_BYTES
        while left > 0 and self._machine.state is _DRAINING and (data := await self._stream.read()):
            self._machine.receive(data)
            left -= len(data)

    def close(self) -> None:
        """From now on what comes is not for this machine."""
        self._owner = None


class Pushed(Turn):
    """By the event loop, whoever waits or not. A sink of an asyncio stream."""

    __slots__ = (
        "_accumulator", "_content_at", "_contents", "_deadlines", "_eager", "_error", "_events", "_machine", "_over",
        "_owner", "_reply", "_stream", "_unread",
    )  # fmt: skip

    def __init__(self, stream: Any, machine: HTTP1Exchange, deadlines: Deadlines, owner: Owner) -> None:
        super().__init__(stream.loop)
        self._stream = stream
        self._machine = machine
        self._reply = machine.reply
        self._deadlines = deadlines
        self._owner: Owner | None = owner
        self._events: list[Event] = []
        self._accumulator = machine.reply.accumulator
        self._contents = 0
        # When content has come, of which the deadlines do not know yet.
        self._content_at: float | None = None
        # Bytes of which nobody has taken the events; or that came while somebody waits for anything.
        self._unread = 0
        # Whether somebody waits for anything that comes, not only for events.
        self._eager = True
        self._over = False
        # What the owner is to hear in place of events.
        self._error: BaseException | None = None
        stream.push_to(self)

    # What the stream calls

    def received(self, data: bytes) -> None:
        """See `Sink`."""
        try:
            events = self._machine.receive(data)
        except BaseException as error:
            self._broke(error)
            return
        if not events:
            if self._eager:
                self._unread += len(data)
                self.wake()
            return
        # (For each token, hence with as few calls as can be.)
        if (contents := self._accumulator.contents) != self._contents:
            self._contents = contents
            self._content_at = time.monotonic()
        if self._events:
            self._events += events
        else:
            self._events = events
        self._unread += len(data)
        if self._unread > HIGH_WATER:
            self._stream.hold_up()
        # As `resume`, in place.
        if current_task(self._loop) is not None:
            self.wake()
            return
        callback, self._callback = self._callback, None
        if callback is not None:
            try:
                self._context.run(callback, self)
            except (KeyboardInterrupt, SystemExit) as error:
                self._loop.call_soon(raised, error)

    def _broke(self, error: BaseException) -> None:
        """What the machine raises is for whoever drives the exchange: the loop would but log it."""
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            self._loop.call_soon(raised, error)
            return
        self._over, self._error = True, error
        self._stream.push_to(None)
        self.wake()

    def ended(self) -> None:
        """See `Sink`."""
        self._finish(None)

    def lost(self, error: OSError) -> None:
        """See `Sink`."""
        self._finish(error)

    def _finish(self, error: OSError | None) -> None:
        if self._over:
            return
        self._over = True
        machine = self._machine
        if machine.silent:
            # Whether that is the end of it, its owner says.
            self._error = error
        elif error is None:
            self._events += machine.end()
        else:
            self._events += machine.fail(exchange_error(error, self._deadlines, machine.reply.context))
        self.wake()

    # What the owner calls

    async def first(self) -> bool:
        """As `Pulled.first`."""
        await self._wait_for(self._has_begun, self._deadlines.wait_until(time.monotonic()))
        self._eager = False
        if self._error is not None:
            raise self._error
        return not self._machine.silent

    def _has_begun(self) -> bool:
        return self._over or not self._machine.silent

    @types.coroutine
    def next_events(self) -> Generator[Any, None, list[Event]]:
        """As `Pulled.next_events`. (A coroutine that yields by itself, instead of awaiting one that does.)"""
        late: list[Event] = []
        if self._events:
            if time.monotonic() >= self._deadlines.total_at:
                late = self._late(Expired())
        elif self._reply.done and self._error is None:
            return []
        else:
            content_at, self._content_at = self._content_at, None
            now = time.monotonic()
            until = self._deadlines.wait_until(now, content_at)
            try:
                while not self._events:
                    if self._error is not None:
                        raise self._error
                    if now >= until:
                        raise Expired
                    self._until = until
                    if until < self._timer_at:
                        self._set_timer(until)
                    if self._callback is not None:
                        raise UsageError("another task waits for this stream already: let one task read it")
                    self._asyncio_future_blocking = True
                    yield self
                    if not self._events:
                        now = time.monotonic()
            except LINK_ERRORS as error:
                return self._late(error)
            except BaseException:
                if self._owner is not None:
                    self._owner.close_now()
                raise
        events, self._events = self._events, late
        if self._unread > HIGH_WATER:
            self._stream.let_come()
        self._unread = 0
        return events

    def _late(self, error: Exception) -> list[Event]:
        machine, deadlines = self._machine, self._deadlines
        if self._content_at is not None:
            deadlines.content(self._content_at)
        return machine.fail(exchange_error(error, deadlines, machine.reply.context))

    def left(self) -> list[Event]:
        """As `Pulled.left`."""
        events, self._events = self._events, []
        return events

    def end(self) -> None:
        """As `Pulled.end`."""
        self._events += self._machine.end()

    async def drain(self) -> None:
        """As `Pulled.drain`."""
        if self._eager:
            # Another task does; and the line is not waited for twice.
            return
        self._eager = True
        self._unread = 0
        self._stream.let_come()
        await self._wait_for(self._has_drained, time.monotonic() + DRAIN_SECONDS)

    def _has_drained(self) -> bool:
        return self._over or self._machine.state is not _DRAINING or self._unread >= DRAIN_BYTES

    async def _wait_for(self, condition: Callable[[], bool], until: float) -> None:
        while not condition():
            if time.monotonic() >= until:
                raise Expired
            self._until = until
            if until < self._timer_at:
                self._set_timer(until)
            await self

    def close(self) -> None:
        """As `Pulled.close`."""
        self._owner = None
        if not self._reply.done:
            # Somebody may be waiting.
            self._finish(closed_here())
        # Nor may anybody drain any longer.
        self._over = True
        self.wake()
        self.stop()
        self._stream.let_come()
        self._stream.push_to(None)


class Watch:
    """The sink of an idle line: whatever comes, nobody has asked for."""

    __slots__ = ("_spoiled",)

    def __init__(self, spoiled: Callable[[], None]) -> None:
        self._spoiled = spoiled

    def received(self, data: bytes) -> None:
        """See `Sink`."""
        self._spoiled()

    def ended(self) -> None:
        """See `Sink`."""
        self._spoiled()

    def lost(self, error: OSError) -> None:
        """See `Sink`."""
        self._spoiled()


Feed: TypeAlias = Pulled | Pushed
