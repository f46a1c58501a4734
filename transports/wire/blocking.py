"""The wire for programs that block."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from typing import TYPE_CHECKING

from deltawire.protocol import UsageError

from .._errors import LINK_ERRORS
from .._forking import tell
from .._options import DRAIN_BYTES, DRAIN_SECONDS, time_left
from ..streams.layers import acknowledge_quickly, after, closed_here
from ..streams.opening import open_stream, secure, securing
from .exchanges import LineExchange, wire_options
from .pool import Line, Pool, Todo

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from deltawire.protocol import Deadlines, Event, HTTPRequest, Proxy, Reply

    from .._tls import Verify
    from .pool import Ticket


class WireTransport:
    """Exchanges straight over sockets, without an HTTP client in between: HTTP/1.1. Shared between threads as one
    likes; an exchange is one thread's.

    ``verify``: True, a file of certificate authorities, an ``ssl.SSLContext``, or False; for servers and for https://
    proxies. ``keepalive_expiry``: seconds that an idle connection is kept (None: for ever). ``max_connections``: how
    many there may be in all (None: no bound); who comes when all are in use waits for his turn, in the order of coming,
    until his deadline to connect. ``max_keepalive_connections``: how many of them may be idle. ``uds``: the path of a
    Unix domain socket, to which all connections are made in place of the host that the URL names. ``local_address``:
    the IP address to connect from.

    Raises `ConfigurationError` for what can't work.
    """

    def __init__(
        self,
        *,
        verify: Verify = True,
        keepalive_expiry: float | None = 60.0,
        max_connections: int | None = None,
        max_keepalive_connections: int | None = 20,
        uds: str | os.PathLike[str] | None = None,
        local_address: str | None = None,
    ) -> None:
        self._options = wire_options(
            verify, keepalive_expiry, max_connections, max_keepalive_connections, uds, local_address
        )
        self._closed = False
        self.forked()
        tell(self)

    def forked(self) -> None:
        """See `Forked`: the lines are the parent's."""
        options = self._options
        self._pool = Pool(options.max_connections, options.max_keepalive_connections, options.keepalive_expiry)
        self._lock = threading.Lock()
        # Exchanges that were dropped while this thread, or another one, held the lock.
        self._dropped: collections.deque[WireExchange] = collections.deque()

    def open(
        self, request: HTTPRequest, reply: Reply, deadlines: Deadlines, *, proxy: Proxy | None = None
    ) -> WireExchange:
        """An exchange for the request; raises `UsageError` when the transport is closed, `ConfigurationError` for a
        request that is to pass for a browser's."""
        self.check()
        return WireExchange(self, self._options, request, reply, deadlines, proxy)

    def connections(self) -> tuple[int, int]:
        """How many connections are busy, and how many are idle."""
        return self._pool.busy, self._pool.idle

    def close(self) -> None:
        """Close all connections. Idempotent."""
        self._closed = True
        self.change(lambda todo: self._pool.close(todo))

    def check(self) -> None:
        """Raise `UsageError` once it is closed."""
        if self._closed:
            raise UsageError("the client is closed: make a new one")

    @property
    def pool(self) -> Pool:
        """For `change` only."""
        return self._pool

    def change(self, step: Callable[[Todo], object]) -> None:
        """Let the pool take a step, and do what it wants done."""
        todo = Todo()
        with self._lock:
            step(todo)
        todo.do()
        self._sweep()

    def take(self, ticket: Ticket, until: float) -> bool:
        """Wait for the ticket's turn, no longer than until then; whether it came."""
        event = ticket.event = threading.Event()
        try:
            self.change(lambda todo: self._pool.ask(ticket, time.monotonic(), todo))
            # Closed: from now on nobody would wake who waits.
            self.check()
            if not ticket.served:
                event.wait(_bounded(time_left(until)))
                self.check()
        except BaseException:
            self.change(lambda todo: self._pool.withdraw(ticket, time.monotonic(), todo))
            raise
        if not ticket.served:
            self.change(lambda todo: self._pool.withdraw(ticket, time.monotonic(), todo))
            # Its turn may have come in this moment, and is given on then.
            return False
        return True

    def drop(self, exchange: WireExchange) -> None:
        """Close an exchange from a finaliser, which may have interrupted this very thread in the midst of the pool."""
        self._dropped.append(exchange)
        self._sweep()

    def _sweep(self) -> None:
        while self._dropped and self._lock.acquire(blocking=False):
            todo = Todo()
            try:
                with contextlib.suppress(IndexError):
                    self._dropped.popleft().leave(todo)
            finally:
                self._lock.release()
            todo.do()


def _bounded(timeout: float | None) -> float | None:
    """One that threads can wait for."""
    return None if timeout is None else min(timeout, threading.TIMEOUT_MAX)


class WireExchange(LineExchange):
    """One request and its reply."""

    def __init__(self, transport: WireTransport, *given: object) -> None:
        super().__init__(*given)  # type: ignore[arg-type]
        self._transport = transport
        # Taken once, by the one thread that drains: another that closes meanwhile would read along with it, and go on
        # when the line is the next exchange's.
        self._draining = threading.Lock()

    def next_events(self) -> list[Event]:
        """See `Exchange`."""
        reply = self._reply
        if reply.done:
            return []
        events: list[Event] = []
        try:
            machine = self._machine
            if machine is None:
                events = self._open()
                machine = self._machine
            assert machine is not None
            line = self._line
            if line is None:
                # The exchange was left in the midst of the reply.
                raise closed_here()
            stream = line.stream
            if not events:
                stream.deadline = self._until()
            while not events and not reply.done:
                data = stream.read()
                events = machine.receive(data) if data else machine.end()
            if (contents := reply.contents) != self._contents:
                self._contents = contents
                self._deadlines.content(time.monotonic())
        except LINK_ERRORS as error:
            return events + self._fail(error)
        except BaseException:
            self.close_now()
            raise
        return events

    def _open(self) -> list[Event]:
        """Send the request, and wait until something comes."""
        ticket = self._ticket()
        transport = self._transport
        until = after(self._deadlines.remaining(time.monotonic()))
        if not transport.take(ticket, until):
            raise self._no_turn(transport.pool.bound)
        self._line = line = ticket.line
        if line is not None and not line.stream.get_extra_info("is_readable"):
            events = self._ask(line)
            if events is not None:
                return events
            # Others that were kept as long are as dead.
            transport.change(lambda todo: transport.pool.forget_idle(self._key, todo))
        if line is not None:
            self._again()
            transport.change(lambda todo: transport.pool.replaced(line))
            line.stream.abort()
        events = self._ask(self._connect())
        assert events is not None
        return events

    def _connect(self) -> Line:
        transport, way = self._transport, self._way
        try:
            # What is wrong with it is said before anything is opened.
            context = self._context() if self._is_tls else None
            until = after(self._deadlines.remaining(time.monotonic()))
            stream = open_stream(way, self._host, self._port, until)
            if context is not None:
                with securing(way, self._host):
                    secure(stream, context, self._host)
        except BaseException:
            transport.change(lambda todo: transport.pool.not_opened(todo))
            raise
        line = Line(self._key, stream)
        transport.change(lambda todo: transport.pool.opened(line))
        self._line = line
        # By another thread, while there was nothing yet to close.
        transport.check()
        return line

    def _ask(self, line: Line) -> list[Event] | None:
        """Send the request, and read what comes first; None if the line was given up while it was kept."""
        kept, stream = line.machine is not None, line.stream
        request = self._begin(line)
        assert self._machine is not None
        try:
            stream.begin(request)
            acknowledge_quickly(stream.get_extra_info("socket"))
            data = stream.read()
        except OSError:
            if self._given_up(line, kept):
                return None
            raise
        if data:
            return self._machine.receive(data)
        return None if self._given_up(line, kept) else self._machine.end()

    def close(self) -> None:
        """See `Exchange`."""
        if self._drains and self._draining.acquire(blocking=False):
            self._drain()
        closed = self._closed
        self.close_now()
        if not closed:
            self._tell_end()

    def _drain(self) -> None:
        """Read what is left after the last event, so that the connection can be kept: a little, for a little while."""
        assert self._line is not None
        assert self._machine is not None
        stream = self._line.stream
        stream.deadline = time.monotonic() + DRAIN_SECONDS
        left = DRAIN_BYTES
        with contextlib.suppress(*LINK_ERRORS):
            while left > 0 and self._drains and (data := stream.read()):
                self._machine.receive(data)
                left -= len(data)

    def close_now(self) -> None:
        """Give the connection back, or close it, without waiting. Idempotent."""
        self._transport.change(self.leave)

    def leave(self, todo: Todo) -> None:
        """The same, by whoever holds the pool."""
        if self._closed:
            return
        self._closed = True
        line, self._line = self._line, None
        if line is None:
            return
        if self._is_good(line):
            self._transport.pool.give_back(line, time.monotonic(), todo)
        else:
            self._transport.pool.drop(line, todo)
            todo.close.append(line)

    def abandon(self) -> None:
        """See `Exchange`."""
        with contextlib.suppress(Exception):
            self._transport.drop(self)
