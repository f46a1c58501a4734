"""The wire for asyncio and trio."""

from __future__ import annotations

import contextlib
import time
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from deltawire.protocol import UsageError

from .._errors import LINK_ERRORS
from .._lifetime import Runner, forget_closed, running_loop
from .._options import time_left
from ..streams.layers import acknowledge_quickly, after
from ..streams.opening import aopen_stream, asecure, securing
from .exchanges import LineExchange, wire_options
from .feeding import Watch, feed_from
from .pool import Line, Pool, Ticket, Todo

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from deltawire.protocol import Deadlines, Event, HTTPRequest, Proxy, Reply

    from .._options import Options
    from .._tls import Verify
    from .feeding import Feed


class _Lines:
    """The lines of one event loop. Called by its thread only, but never by a finaliser."""

    def __init__(self, options: Options) -> None:
        self.runner = Runner()
        self.pool = Pool(options.max_connections, options.max_keepalive_connections, options.keepalive_expiry)
        self.closed = False

    def change(self, step: Callable[[Todo], object]) -> None:
        """Let the pool take a step, and do what it wants done."""
        todo = Todo()
        step(todo)
        todo.do()

    async def take(self, ticket: Ticket, until: float) -> bool:
        """Wait for the ticket's turn, no longer than until then; whether it came."""
        self.check()
        self.change(lambda todo: self.pool.ask(ticket, time.monotonic(), todo))
        if not ticket.served:
            ticket.event = anyio.Event()
            try:
                with anyio.move_on_after(time_left(until)):
                    await ticket.event.wait()
                # Nothing is sent for one who was cancelled when his turn came.
                await anyio.lowlevel.checkpoint_if_cancelled()
                self.check()
            except BaseException:
                self.withdraw(ticket)
                raise
            if not ticket.served:
                self.withdraw(ticket)
                return False
        if ticket.line is not None and hasattr(ticket.line.stream, "push_to"):
            ticket.line.stream.push_to(None)
        return True

    def withdraw(self, ticket: Ticket) -> None:
        """He waits no longer."""
        line = ticket.line
        self.change(lambda todo: self.pool.withdraw(ticket, time.monotonic(), todo))
        if line is not None:
            self._watch(line)

    def check(self) -> None:
        """Raise `UsageError` once they are closed."""
        if self.closed:
            raise UsageError("the client is closed: make a new one")

    def release(self, line: Line, good: bool) -> None:
        """An exchange is over: keep its line for the next one, or close it."""
        if not good or self.closed:
            self.change(lambda todo: self.pool.drop(line, todo))
            line.stream.abort()
            return
        self.change(lambda todo: self.pool.give_back(line, time.monotonic(), todo))
        self._watch(line)

    def _watch(self, line: Line) -> None:
        """See to it that a line that is idle now is closed when its peer closes it, or says something."""
        if hasattr(line.stream, "push_to") and not line.stream.closed and self.pool.is_idle(line):
            # (Of other streams one sees when they are wanted whether they live.)
            line.stream.push_to(Watch(lambda: self.release(line, False)))

    async def aclose(self) -> None:
        """Close them all. Idempotent."""
        self.closed = True
        self.change(self.pool.close)

    async def finish(self) -> None:
        """Close, with nothing left to do when the loop ends."""
        await self.aclose()
        await self.runner.forget()

    def abort(self) -> None:
        """Close them all when the loop is closed, where nobody can be woken."""
        for line in list(self.pool.lines()):
            with contextlib.suppress(RuntimeError):
                line.stream.abort()


class AsyncWireTransport:
    """As `WireTransport`, for asyncio and trio, and for one thread at a time. Each event loop has its own connections:
    one transport may serve one ``asyncio.run`` after the other, and what is open when a loop ends is closed with it.

    On asyncio a reply is read, and its deadlines begin, when it comes, be its reader away or not; when the events of
    64 KiB wait for him, the socket is left alone until he has taken them. Whoever waits for an event goes on in the
    call by which the loop brings it.
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
        # By loop; those of loops that are gone vanish by themselves, unless these were closed without a word to their
        # async generators (as asyncio.run and trio.run tell them): those are dropped when the next loop comes.
        self._lines: weakref.WeakKeyDictionary[Any, _Lines] = weakref.WeakKeyDictionary()
        self._closed = False

    def open(
        self, request: HTTPRequest, reply: Reply, deadlines: Deadlines, *, proxy: Proxy | None = None
    ) -> AsyncWireExchange:
        """An exchange for the request; raises `UsageError` when the transport is closed, `ConfigurationError` for a
        request that is to pass for a browser's."""
        self._check()
        return AsyncWireExchange(self, self._options, request, reply, deadlines, proxy)

    def connections(self) -> tuple[int, int]:
        """How many connections of the running loop are busy, and how many are idle."""
        lines = self._lines.get(running_loop())
        return (0, 0) if lines is None else (lines.pool.busy, lines.pool.idle)

    async def aclose(self) -> None:
        """Close all connections of the running loop. Idempotent."""
        self._closed = True
        lines = self._lines.pop(running_loop(), None)
        if lines is not None:
            with anyio.CancelScope(shield=True):
                await lines.finish()

    def abandon(self) -> None:
        """As `aclose`, from a finaliser: for all loops, each on its own time."""
        for lines in list(self._lines.values()):
            lines.runner.spawn(lines.finish)

    def _check(self) -> None:
        if self._closed:
            raise UsageError("the client is closed: make a new one")

    async def lines(self) -> _Lines:
        """Those of the running loop. Raises `UsageError` once the transport is closed."""
        self._check()
        loop = running_loop()
        lines = self._lines.get(loop)
        if lines is None:
            forget_closed(self._lines)
            self._lines[loop] = lines = _Lines(self._options)
            await lines.runner.at_end(lines.aclose)
        return lines


class AsyncWireExchange(LineExchange):
    """As `WireExchange`."""

    def __init__(self, transport: AsyncWireTransport, *given: object) -> None:
        super().__init__(*given)  # type: ignore[arg-type]
        self._transport = transport
        self._lines: _Lines | None = None
        self._feed: Feed | None = None
        # One task drains; another one that closes meanwhile ends that.
        self._draining = False

    async def next_events(self) -> list[Event]:
        """See `AsyncExchange`."""
        try:
            if self._reply.done:
                return []
            await self._open()
        except LINK_ERRORS as error:
            # First what came before that.
            return (self._feed.left() if self._feed is not None else []) + self._fail(error)
        except BaseException:
            self.close_now()
            raise
        assert self._feed is not None
        # From here on without this call, which would be one for each token.
        self.next_events = self._feed.next_events  # type: ignore[method-assign]
        return await self._feed.next_events()

    async def _open(self) -> None:
        """Send the request, and wait until something comes."""
        ticket = self._ticket()
        self._lines = lines = await self._transport.lines()
        until = after(self._deadlines.remaining(time.monotonic()))
        if not await lines.take(ticket, until):
            raise self._no_turn(lines.pool.bound)
        self._line = line = ticket.line
        if line is not None and not line.stream.get_extra_info("is_readable") and await self._asked(line):
            return
        if line is not None:
            # Others that were kept as long are as dead.
            lines.change(lambda todo: lines.pool.forget_idle(self._key, todo))
            self._again()
            if self._feed is not None:
                self._feed.close()
            lines.pool.replaced(line)
            line.stream.abort()
        await self._asked(await self._connect(lines))

    async def _connect(self, lines: _Lines) -> Line:
        way = self._way
        try:
            context = self._context() if self._is_tls else None
            until = after(self._deadlines.remaining(time.monotonic()))
            stream = await aopen_stream(way, self._host, self._port, until)
            if context is not None:
                with securing(way, self._host):
                    await asecure(stream, context, self._host)
        except BaseException:
            lines.change(lines.pool.not_opened)
            raise
        line = Line(self._key, stream)
        lines.pool.opened(line)
        self._line = line
        # By another task, while there was nothing yet to close.
        lines.check()
        return line

    async def _asked(self, line: Line) -> bool:
        """Send the request, and wait until something comes; False if the line was given up while it was kept."""
        kept, stream = line.machine is not None, line.stream
        self._line = line
        request = self._begin(line)
        assert self._machine is not None
        self._feed = feed = feed_from(stream, self._machine, self._deadlines, self)
        try:
            stream.begin(request)
            acknowledge_quickly(stream.get_extra_info("socket"))
            came = await feed.first()
        except OSError:
            if self._given_up(line, kept):
                return False
            raise
        given_up = not came and self._given_up(line, kept)
        if not came and not given_up:
            feed.end()
        return not given_up

    async def aclose(self) -> None:
        """See `AsyncExchange`."""
        if self._closed:
            return
        try:
            if self._drains and self._feed is not None and not self._draining:
                self._draining = True
                with contextlib.suppress(*LINK_ERRORS):
                    await self._feed.drain()
        finally:
            self.close_now()
        self._tell_end()

    def close_now(self) -> None:
        """Give the connection back, or close it, without waiting. Idempotent; to be called by the loop's thread."""
        if self._closed:
            return
        self._closed = True
        if self._feed is not None:
            self._feed.close()
        line, self._line = self._line, None
        if line is not None and self._lines is not None:
            self._lines.release(line, self._is_good(line))

    async def _aclose_now(self) -> None:
        self.close_now()

    def abandon(self) -> None:
        """See `AsyncExchange`."""
        if not self._closed and self._lines is not None:
            self._lines.runner.spawn(self._aclose_now)
