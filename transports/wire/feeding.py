"""How bytes come to the machine of an async exchange: pushed by the stream (asyncio), or pulled from it (trio)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeAlias

from deltawire.protocol import HTTP1State

from .._errors import exchange_error
from .._options import DRAIN_BYTES, DRAIN_SECONDS
from ..streams.layers import Expired, closed_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from deltawire.protocol import Deadlines, Event, HTTP1Exchange

# Bytes whose events may wait for their owner before the socket is left alone. A chunk is some four times as large as
# the bytes that it came in.
HIGH_WATER = 64 * 1024

_DRAINING = HTTP1State.DRAINING


def feed_from(stream: Any, machine: HTTP1Exchange, deadlines: Deadlines) -> Feed:
    """The way in which this stream's bytes come to the machine, until `stop`."""
    return Pushed(stream, machine, deadlines) if hasattr(stream, "push_to") else Pulled(stream, machine, deadlines)


class Pulled:
    """By its owner, who waits for the socket himself."""

    __slots__ = ("_contents", "_deadlines", "_events", "_machine", "_stream")

    def __init__(self, stream: Any, machine: HTTP1Exchange, deadlines: Deadlines) -> None:
        self._stream = stream
        self._machine = machine
        self._deadlines = deadlines
        self._events: list[Event] = []
        self._contents = 0

    async def first(self) -> bool:
        """Wait until something comes; False if that is the end. Raises `OSError`, `Expired`."""
        data = await self._stream.read()
        if data:
            self._events = self._machine.receive(data)
            self._note_contents()
        return bool(data)

    async def events(self) -> list[Event]:
        """The next events; empty only after the verdict. Raises `OSError`, `Expired`."""
        if self._events:
            events, self._events = self._events, []
            return events
        machine, stream = self._machine, self._stream
        if machine.done:
            return []
        now = time.monotonic()
        stream.deadline = until = self._deadlines.wait_until(now)
        if now >= until:
            # Even if there is something left to read.
            raise Expired
        while True:
            data = await stream.read()
            if events := machine.receive(data) if data else machine.end():
                self._note_contents()
                return events

    def left(self) -> list[Event]:
        """What nobody has asked for yet."""
        events, self._events = self._events, []
        return events

    def end(self) -> None:
        """That nothing has come is the end of it."""
        self._events += self._machine.end()

    def _note_contents(self) -> None:
        if (contents := self._machine.reply.contents) != self._contents:
            self._contents = contents
            self._deadlines.content(time.monotonic())

    async def drain(self) -> None:
        """Read the rest of the message: a little, for a little while. Raises `OSError`, `Expired`."""
        self._stream.deadline = time.monotonic() + DRAIN_SECONDS
        left = DRAIN_BYTES
        while left > 0 and self._machine.state is _DRAINING and (data := await self._stream.read()):
            self._machine.receive(data)
            left -= len(data)

    def stop(self) -> None:
        """There is nothing to stop."""


class Pushed:
    """By the event loop, whoever waits or not. A sink of an asyncio stream."""

    __slots__ = (
        "_contents", "_deadlines", "_eager", "_error", "_events", "_machine", "_over", "_stream", "_unread", "_wait",
    )  # fmt: skip

    def __init__(self, stream: Any, machine: HTTP1Exchange, deadlines: Deadlines) -> None:
        self._stream = stream
        self._wait = stream.arrival
        self._machine = machine
        self._deadlines = deadlines
        self._events: list[Event] = []
        self._contents = 0
        # Bytes of which nobody has taken the events.
        self._unread = 0
        # Whether somebody waits for anything that comes, not only for events.
        self._eager = True
        self._over = False
        self._error: OSError | None = None
        stream.push_to(self)

    # What the stream calls

    def received(self, data: bytes) -> None:
        """See `Sink`."""
        machine = self._machine
        events = machine.receive(data)
        if not events:
            if self._eager:
                self._wait.wake()
            return
        if (contents := machine.reply.contents) != self._contents:
            self._contents = contents
            self._deadlines.content(time.monotonic())
        self._events += events
        self._unread += len(data)
        if self._unread > HIGH_WATER:
            self._stream.hold_up()
        self._wait.wake()

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
        self._wait.wake()

    # What the owner calls

    async def first(self) -> bool:
        """As `Pulled.first`."""
        await self._until(self._deadlines.wait_until(time.monotonic()), self._has_begun)
        self._eager = False
        if self._error is not None:
            raise self._error
        return not self._machine.silent

    def _has_begun(self) -> bool:
        return self._over or not self._machine.silent

    async def events(self) -> list[Event]:
        """As `Pulled.events`."""
        if not self._events:
            if self._machine.done:
                return []
            now = time.monotonic()
            until = self._deadlines.wait_until(now)
            if now >= until:
                raise Expired
            while not self._events:
                if self._error is not None:
                    raise self._error
                await self._wait.begin(until)
                if not self._events and self._error is None and time.monotonic() >= until:
                    raise Expired
        events, self._events = self._events, []
        if self._unread > HIGH_WATER:
            self._stream.let_come()
        self._unread = 0
        return events

    def left(self) -> list[Event]:
        """As `Pulled.left`."""
        events, self._events = self._events, []
        return events

    def end(self) -> None:
        """As `Pulled.end`."""
        self._events += self._machine.end()

    async def drain(self) -> None:
        """As `Pulled.drain`."""
        self._eager = True
        self._stream.let_come()
        await self._until(time.monotonic() + DRAIN_SECONDS, self._has_drained)

    def _has_drained(self) -> bool:
        return self._over or self._machine.state is not _DRAINING

    async def _until(self, until: float, condition: Callable[[], bool]) -> None:
        while not condition():
            if time.monotonic() >= until:
                raise Expired
            await self._wait.begin(until)

    def stop(self) -> None:
        """From now on what comes is not for this machine; who waits for it still, or asks again, hears of that."""
        if not self._machine.done:
            self._over, self._error = True, closed_here()
            self._wait.wake()
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
