"""Who has which line: the rules of the pool. No I/O, no waiting, no lock: whoever has it sees to these.

Theory
------
Each line is held by an exchange or idle; together they are at most ``max_connections``, the idle ones at most
``max_idle``. Who wants a line draws a `Ticket`, which is *served* when it has an idle line, or leave to open one.
Nobody who waits is overtaken, since there is never an idle line, nor leave to open one, while anybody waits:

- a line that is given back goes to the one who has waited longest; if it leads elsewhere than he wants to go, it is
  closed, and he may open another in its place;
- a line that is dropped gives him that leave at once.

An idle line that is of use is taken from the end that was given back last: it is the likeliest to live, and those at
the other end grow old and are closed. What the pool wants done it says in a `Todo`: which lines to close, and whom to
wake; that is done when nobody holds the pool.
"""

from __future__ import annotations

import collections
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from deltawire.protocol import HTTP1Exchange, Proxy


class Line:
    """A connection, and where it leads."""

    __slots__ = ("idle_since", "key", "machine", "stream")

    def __init__(self, key: Hashable, stream: Any) -> None:
        self.key = key
        self.stream = stream
        self.machine: HTTP1Exchange | None = None
        """The last exchange on it, or None before the first."""
        self.idle_since = 0.0


class Ticket:
    """Somebody's turn to have a line."""

    __slots__ = ("event", "key", "line", "served")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.served = False
        """Whether it is his turn: he has a line, or may open one."""
        self.line: Line | None = None
        self.event: Any = None
        """What wakes him, if he waits: has a method ``set``."""


class Todo:
    """What is to be done once nobody holds the pool."""

    __slots__ = ("close", "wake")

    def __init__(self) -> None:
        self.close: list[Line] = []
        self.wake: list[Ticket] = []

    def do(self) -> None:
        """Do it: nothing of it waits, or can be interrupted."""
        for ticket in self.wake:
            if ticket.event is not None:
                ticket.event.set()
        for line in self.close:
            line.stream.abort()


class Pool:
    """The lines of a transport. Times are seconds on any clock that only goes up."""

    def __init__(self, max_connections: int | None, max_idle: int | None, expiry: float | None) -> None:
        """``expiry``: how long an idle line is kept, in seconds. None: no bound."""
        self._most = math.inf if max_connections is None else max_connections
        self._most_idle = math.inf if max_idle is None else max_idle
        self._expiry = math.inf if expiry is None else expiry
        # How many are held, or about to be opened.
        self._busy = 0
        self._held: set[Line] = set()
        # In the order in which they became idle.
        self._idle: dict[Line, None] = {}
        self._queue: collections.deque[Ticket] = collections.deque()

    @property
    def busy(self) -> int:
        """How many lines are held, or about to be opened."""
        return self._busy

    @property
    def idle(self) -> int:
        """How many lines are idle."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._queue)

    def is_idle(self, line: Line) -> bool:
        """Whether nobody holds it."""
        return line in self._idle

    @property
    def bound(self) -> float:
        """How many there may be."""
        return self._most

    def ask(self, ticket: Ticket, now: float, todo: Todo) -> None:
        """Serve this ticket, now or when its turn comes."""
        self._expire(now, todo)
        for line in reversed(self._idle):
            if line.key == ticket.key:
                del self._idle[line]
                self._serve(ticket, line)
                return
        if not self._queue and self._busy < self._most:
            # An idle line gives way to one that is needed.
            while self._busy + len(self._idle) >= self._most:
                self._close_oldest(todo)
            self._serve(ticket, None)
        else:
            self._queue.append(ticket)

    def opened(self, line: Line) -> None:
        """He who had leave has opened this line."""
        self._held.add(line)

    def give_back(self, line: Line, now: float, todo: Todo) -> None:
        """It is good for another exchange."""
        self._release(line)
        if self._queue:
            ticket = self._queue.popleft()
            taken = line if line.key == ticket.key else None
            if taken is None:
                todo.close.append(line)
            self._serve(ticket, taken)
            todo.wake.append(ticket)
            return
        line.idle_since = now
        self._idle[line] = None
        while len(self._idle) > self._most_idle:
            self._close_oldest(todo)

    def drop(self, line: Line, todo: Todo) -> None:
        """It is of no further use; whoever says so closes it. Nothing happens if the pool no longer knows it."""
        if line in self._idle:
            del self._idle[line]
        elif line in self._held:
            self._release(line)
            self._next(todo)

    def replaced(self, line: Line) -> None:
        """It is of no further use, and who held it opens another one in its place."""
        if line in self._held:
            self._held.remove(line)
        else:
            # The pool was closed meanwhile, and counts him no more.
            self._busy += 1

    def not_opened(self, todo: Todo) -> None:
        """He who had leave has opened no line."""
        self._busy -= 1
        self._next(todo)

    def withdraw(self, ticket: Ticket, now: float, todo: Todo) -> None:
        """He waits no longer, be it that his turn has just come. Idempotent."""
        if ticket.served:
            line, ticket.line, ticket.served = ticket.line, None, False
            if line is not None:
                self.give_back(line, now, todo)
            else:
                self.not_opened(todo)
        elif ticket in self._queue:
            self._queue.remove(ticket)

    def forget_idle(self, key: Hashable, todo: Todo) -> None:
        """Use none of the idle lines that lead there."""
        for line in [each for each in self._idle if each.key == key]:
            del self._idle[line]
            todo.close.append(line)

    def close(self, todo: Todo) -> None:
        """Close all lines, held ones too, and none is kept from now on. Who waits is woken unserved: his transport is
        closed, and says so."""
        self._most_idle = 0
        todo.close += [*self._idle, *self._held]
        self._idle.clear()
        # Who holds one may never come to say that he is done: his loop may be over.
        self._busy -= len(self._held)
        self._held.clear()
        todo.wake += self._queue
        self._queue.clear()

    def lines(self) -> Iterator[Line]:
        """All that are open."""
        yield from self._held
        yield from self._idle

    def _serve(self, ticket: Ticket, line: Line | None) -> None:
        ticket.served, ticket.line = True, line
        self._busy += 1
        if line is not None:
            self._held.add(line)

    def _release(self, line: Line) -> None:
        if line in self._held:
            self._held.remove(line)
            self._busy -= 1

    def _next(self, todo: Todo) -> None:
        if self._queue:
            ticket = self._queue.popleft()
            self._serve(ticket, None)
            todo.wake.append(ticket)

    def _expire(self, now: float, todo: Todo) -> None:
        while self._idle:
            line = next(iter(self._idle))
            if now - line.idle_since < self._expiry:
                return
            self._close_oldest(todo)

    def _close_oldest(self, todo: Todo) -> None:
        line = next(iter(self._idle))
        del self._idle[line]
        todo.close.append(line)


def key_of(scheme: str, host: str, port: int, proxy: Proxy | None) -> Hashable:
    """Where a line leads: lines with one key carry the same requests."""
    if proxy is not None and proxy.takes(scheme):
        # The proxy is asked for any server on it.
        return proxy
    return scheme, host, port, proxy
