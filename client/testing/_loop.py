"""What the servers are built on: an event loop in a thread of its own, and the ends of its connections.

Theory
------
Two worlds meet here, and each datum belongs to one of them.

*   The loop's thread owns every socket, connection and task. Nobody else touches them.
*   The log (requests, counters, outcomes) is written by the loop's thread alone and read by any. Every
    change that somebody may wait for is made under one `threading.Condition`, so a waiting caller
    sleeps until it is told, and what it tests cannot change while it looks.

A service is stopped, starting or running. `start` returns when the port is bound, or raises what
binding raised; `stop` returns when the thread has ended. In between, the loop's one main task waits
for the word to stop; it then stops listening, aborts every connection, cancels every other task and
goes on doing so until none of either is left. Only then does the loop close, so nothing is left for
the garbage collector to complain about.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

from ._acceptor import BACKLOG, Acceptor
from ._layers import TLS, Faulty, Layer, Wire
from .faults import Fault

# In how many turns of the loop a connection that was just accepted is surely set up: its task begins, its
# transport reports that it is there; and two to spare.
_BEGIN = 4

# A time-out shows the end of the log; more would hide the message.
_LOG_LINES = 30

S = TypeVar("S", bound="Service")


class Peer(asyncio.Protocol):
    """One end of one TCP connection, known to its service from its first moment to its last.

    Subclasses say what the bytes mean. `transport` is the layer below, which knows how to end.
    """

    transport: Layer

    def __init__(self, service: Service, number: int) -> None:
        self.service = service
        self.number = number
        """Which of the service's accepted connections this is, from 1; 0 for one it opened itself."""
        self.lingering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Layer)
        self.transport = transport
        self.service._opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.service._closed(self)

    def write(self, data: bytes) -> None:
        """Send; nothing if the connection is going down already."""
        self.transport.write(data)

    def close(self) -> None:
        """Send what is written, then FIN."""
        self.transport.close()

    def linger(self) -> None:
        """Send what is written, then FIN, and throw away what still comes until the peer has ended too."""
        self.lingering = True
        self.transport.linger()

    def reset(self) -> None:
        """Send RST. What the peer has not received by now it never will."""
        self.transport.reset()

    def abort(self) -> None:
        """Drop the connection, with whatever was still to be written: the peer has gone, or the server stops."""
        self.transport.abort()


class Service(ABC):
    """A server in a thread: the part of `ChatServer` and the proxies that is the same."""

    def __init__(self, *, host: str, port: int, ssl_context: ssl.SSLContext | None = None) -> None:
        if ssl_context is not None and ssl_context.protocol is ssl.PROTOCOL_TLS_CLIENT:
            raise ValueError("ssl_context is a client's; make one with ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)")
        self._wanted = (host, port)
        self._ssl_context = ssl_context
        self._lifecycle = threading.Lock()  # held while starting or stopping
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_asked: asyncio.Event | None = None
        self._bound: int | None = None
        self._changed = threading.Condition()  # guards the log; see the theory
        self._numbers = itertools.count(1)
        self._accepted = 0
        self._faults: deque[Fault | None] = deque()
        self._acceptor: Acceptor | None = None  # of the loop's thread
        self._peers: set[Peer] = set()

    # Life

    def start(self: S) -> S:
        """Bind the port and begin to serve; returns the server itself. Does nothing if it runs already.

        Raises ``OSError`` if the port cannot be bound. A stopped server may be started again; it keeps
        its log, and gets a new port if it was made with port 0.
        """
        with self._lifecycle:
            if self._thread is None:
                family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
                listener = socket.create_server(self._wanted, family=family, backlog=BACKLOG)
                try:
                    self._begin(listener)
                except BaseException:  # no thread, no loop, or the caller was interrupted
                    self._end_thread()
                    listener.close()
                    raise
        return self

    def stop(self) -> None:
        """Stop serving: drop every connection, end the thread, return when it has ended. May be repeated."""
        with self._lifecycle:
            self._end_thread()

    def __enter__(self: S) -> S:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def host(self) -> str:
        """The address it listens on."""
        return self._wanted[0]

    @property
    def port(self) -> int:
        """The port it listens on. Raises ``RuntimeError`` unless it runs."""
        if self._bound is None:
            raise RuntimeError(f"{type(self).__name__} has no port before it is started; call start() or use `with`")
        return self._bound

    @property
    def connections(self) -> int:
        """How many TCP connections were accepted so far."""
        with self._changed:
            return self._accepted

    @property
    def open_connections(self) -> int:
        """How many TCP connections from clients are open now."""
        with self._changed:
            return self._count_open()

    def plan_faults(self, *faults: Fault | None) -> None:
        """Queue faults: each further connection from a client takes one, in the order they are accepted.

        None leaves a connection alone. When none is left, so are all.
        """
        with self._changed:
            self._faults.extend(faults)

    def clear_faults(self) -> int:
        """Forget the planned faults that no connection has taken; returns how many."""
        with self._changed:
            count = len(self._faults)
            self._faults.clear()
            return count

    @contextlib.contextmanager
    def refuse_connections(self) -> Iterator[None]:
        """In this ``with``, nobody listens: who connects is refused. The port is kept, and so are connections.

        Raises ``RuntimeError`` unless it runs. To stop it meanwhile is allowed.
        """
        acceptor = self._acceptor
        if self._bound is None or acceptor is None:
            raise RuntimeError(f"{type(self).__name__} refuses connections before it is started; call start() first")
        self._in_loop(acceptor.refuse)
        try:
            yield
        finally:
            self._in_loop(acceptor.resume)

    def wait_connections(self, count: int, timeout: float = 5.0) -> None:
        """Wait for `count` connections from clients in all. Raises ``TimeoutError`` after `timeout` seconds."""
        self.wait_until(lambda: self._accepted >= count, f"{count} connections", timeout)

    def wait_closed(self, timeout: float = 5.0) -> None:
        """Wait until no connection is open. Raises ``TimeoutError`` after `timeout` seconds."""
        self.wait_until(lambda: not self._peers, "the end of every connection", timeout)

    def wait_until(self, ready: Callable[[], bool], what: str = "what was to happen", timeout: float = 5.0) -> None:
        """Wait until `ready` returns true; it is asked at every change of the log or of a connection, and must not
        wait itself. Raises ``TimeoutError``, which names `what` and shows the log, after `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(ready, timeout):
                raise TimeoutError(f"waited {timeout:g} s for {what}. {self._log()}")

    # For the caller's threads

    def _netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def _in_loop(self, work: Callable[[], None]) -> None:
        """Have the loop's thread do it, and raise what it raises; nothing if the service has been stopped."""
        done: Future[None] = Future()

        def run() -> None:
            try:
                work()
            except Exception as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        with self._lifecycle:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(run)
                done.result()

    def _log(self) -> str:
        """What has happened so far, for a message. The caller holds the lock."""
        entries = self._entries()
        lines = [f"{len(entries)} requests so far, {self._count_open()} connections open"]
        if len(entries) > _LOG_LINES:
            lines.append(f"  ... {len(entries) - _LOG_LINES} earlier ones")
        first = max(0, len(entries) - _LOG_LINES)
        lines += (f"  [{index}] {entries[index]!r}" for index in range(first, len(entries)))
        return "\n".join(lines)

    @abstractmethod
    def _entries(self) -> list[Any]:
        """The log. The caller holds the lock."""

    def _count_open(self) -> int:
        return sum(peer.number > 0 for peer in self._peers)

    def _begin(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        started: Future[None] = Future()
        # Not a daemon: a forgotten stop() shall be seen, not hidden by the end of the program.
        name = f"deltawire.testing {type(self).__name__}"
        thread = threading.Thread(target=self._run, args=(listener, started), name=name, daemon=False)
        thread.start()
        self._thread = thread
        try:
            started.result()
        except BaseException:
            futures.wait([started])  # only a loop that has begun can be told to stop
            raise

    def _end_thread(self) -> None:
        thread, loop, asked = self._thread, self._loop, self._stop_asked
        if thread is None:
            return
        if loop is not None and asked is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(asked.set)
        thread.join()
        self._thread = self._loop = self._stop_asked = self._bound = None

    # In the loop's thread

    def _opened(self, peer: Peer) -> None:
        with self._changed:
            self._accepted += peer.number > 0
            self._peers.add(peer)
            self._changed.notify_all()

    def _closed(self, peer: Peer) -> None:
        with self._changed:
            self._peers.discard(peer)
            self._changed.notify_all()

    def _connect(self) -> Wire:
        """Make the end of the connection that was just accepted."""
        with self._changed:
            fault = self._faults.popleft() if self._faults else None
        top: asyncio.Protocol = self._peer(next(self._numbers))
        if fault is not None and not fault.raw:
            top = Faulty(top, fault)
        if self._ssl_context is not None:
            top = TLS(top, self._ssl_context)
        if fault is not None and fault.raw:
            top = Faulty(top, fault)
        return Wire(top)

    @abstractmethod
    def _peer(self, number: int) -> Peer:
        """What shall answer on accepted connection `number`."""

    def _run(self, listener: socket.socket, started: Future[None]) -> None:
        try:
            # No debug mode, whatever the program runs in: it warns of slow callbacks, which under a
            # thousand streams are no news, and of handshakes that a test makes fail on purpose.
            asyncio.run(self._main(listener, started), debug=False)
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _main(self, listener: socket.socket, started: Future[None]) -> None:
        loop = asyncio.get_running_loop()
        self._loop, self._stop_asked = loop, asyncio.Event()
        self._bound = listener.getsockname()[1]
        self._acceptor = acceptor = Acceptor(listener, self._adopt, repr(self))
        try:
            started.set_result(None)
            await self._stop_asked.wait()
        finally:
            acceptor.close()
            await self._drop_all()

    async def _adopt(self, sock: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._connect, sock)
        except OSError:
            pass  # the client went

    async def _drop_all(self) -> None:
        """End every connection and task; returns when none is left."""
        # A connection accepted in this very turn is held by a task that has not begun: cancelled now it never
        # would, and its socket would leak.
        await _turns(_BEGIN)
        while True:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for peer in tuple(self._peers):
                peer.abort()
            for task in tasks:
                task.cancel()
            # A transport reports its end in a later turn, so this takes a few and no more.
            await _turns(1)
            if not tasks and not self._peers:
                break
        await _turns(_BEGIN)


async def _turns(count: int) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)
