"""An async iterator, for a program that blocks.

Theory
------
The iterator lives in one task, on an asyncio loop of its own, in a thread of its own. A thread, since the program's may
be running a loop already (notebooks do); one task, since what a generator enters before a ``yield`` (a timeout, a task
group) can be left in the same task only.

It takes a step when it is asked for one, as under ``async for``: nothing runs ahead of the program, and who closes it
between two pieces finds it at a ``yield``. So there is one thing at a time for one of the two threads to wait for: the
program's waits for the answer to a step or for the thread's end, the loop for the next order. Neither waits for room in
a queue, and the loop is never held up, so a generator's own tasks go on. An end that comes in the midst of a step (from
another thread, by Ctrl-C) cancels the step.
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import queue
import threading
import weakref
from typing import TYPE_CHECKING, Any

from deltawire.protocol import ConfigurationError, ReadError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Iterator


async def iterator_of(result: Any) -> AsyncIterator[Any]:
    """What ``create_async_generator`` gave: an async iterator, or a coroutine that gives one."""
    if inspect.isawaitable(result) and not hasattr(result, "__anext__"):
        result = await result
    if not hasattr(result, "__aiter__"):
        raise ConfigurationError(
            f"create_async_generator gave no async iterator but {type(result).__name__}: "
            "define it by 'async def' and 'yield'"
        )
    return result.__aiter__()  # type: ignore[no-any-return]


async def end(iterator: Any) -> None:
    """Close an async iterator, if it can be closed."""
    close = getattr(iterator, "aclose", None)
    if close is not None:
        await close()


class Blocking:
    """An async iterator, as an iterator for one thread of a program that blocks. It begins with the first step."""

    def __init__(self, result: Any) -> None:
        """``result``: as `iterator_of` takes it."""
        self._worker = _Worker(result)
        self._over = False
        self._finalizer = weakref.finalize(self, self._worker.end)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._over:
            raise StopIteration
        self._worker.ask()
        try:
            piece, error = self._worker.answers.get()
        except BaseException:
            # Ctrl-C: as in a generator, that is the end of it.
            with contextlib.suppress(Exception):
                self.close()
            raise
        if error is None:
            return piece
        if not self._over:
            self._over = True
            self._finalizer.detach()
            self._worker.join()
            if error is not _ENDED:
                try:
                    raise error
                finally:
                    # Its traceback holds this frame: together they would wait for the garbage collector.
                    del error
        raise StopIteration

    def close(self) -> None:
        """End it, and wait for its end. Idempotent. Raises what it fails with then."""
        self._over = True
        if self._finalizer.detach() is not None:
            self._worker.end()
            self._worker.join()
            error = self._worker.error
            # (What it makes of its cancellation was not asked for.)
            if error is not _ENDED and not self._worker.cancelled:
                raise error

    def abandon(self) -> None:
        """End it, without waiting for its end."""
        self._over = True
        self._finalizer()


# In place of an error: it has come to its end.
_ENDED = StopIteration()


class _Worker:
    """The thread's side of it, and the orders to it."""

    def __init__(self, result: Any) -> None:
        self.answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        """A piece for each step; last, what it ended with."""
        self.error: BaseException = _ENDED
        """What it ended with, once it has."""
        self.cancelled = False
        self._result = result
        # Between beginning and ending; who ends it in a finaliser has nobody beside him.
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._asked: asyncio.Event | None = None
        self._over = False
        # These two are the loop's alone.
        self._stepping = True
        self._stopped = False
        # Not at the head of the module: who imports the protocol alone should not load it.
        from deltawire.transports._forking import tell

        tell(self)

    def forked(self) -> None:
        """See `deltawire.transports._forking`: the thread, the loop and what the generator holds are the parent's."""
        self._lock = threading.Lock()
        if self._thread is not None:
            self._over = True
            # Nothing more is ordered.
            self._loop = self._task = self._asked = None
            self.answers = queue.SimpleQueue()
            self.answers.put((None, ReadError("the generator is closed: it is the parent process's")))

    # In the program's thread

    def ask(self) -> None:
        """Order a step. (Not before the last one is answered.)"""
        if self._asked is not None:
            self._call(self._asked.set)
            return
        with self._lock:
            if self._over:
                self.answers.put((None, _ENDED))
                return
            # What the program has set is set for the generator, too.
            run = contextvars.copy_context().run
            self._thread = threading.Thread(target=run, args=(self._run,), name="deltawire generator", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Order the end."""
        with self._lock:
            self._over = True
        if self._thread is None:
            _drop(self._result)
        elif self._loop is not None:
            self._call(self._stop)

    def join(self) -> None:
        """Wait for the thread's end."""
        if self._thread is not None:
            self._thread.join()

    def _call(self, order: Any) -> None:
        # RuntimeError: the loop has come to its end by itself.
        with contextlib.suppress(RuntimeError):
            assert self._loop is not None
            self._loop.call_soon_threadsafe(order)

    # In its own

    def _run(self) -> None:
        import asyncio

        try:
            asyncio.run(self._main())
        except BaseException as error:
            self.error = error
        self.answers.put((None, self.error))

    async def _main(self) -> None:
        import asyncio

        self._task, self._asked = asyncio.current_task(), asyncio.Event()
        # The loop is set before the order to end is looked for, and the other thread does it the other way round: one
        # of them sees the other's.
        self._loop = asyncio.get_running_loop()
        if self._over:
            _drop(self._result)
            return
        iterator = await iterator_of(self._result)
        try:
            while not self._stopped:
                self._stepping = True
                piece = await iterator.__anext__()
                self._stepping = False
                if not self._stopped:
                    self._asked.clear()
                    self.answers.put((piece, None))
                    await self._asked.wait()
        except StopAsyncIteration:
            pass
        finally:
            self._stepping = False
            await end(iterator)

    def _stop(self) -> None:
        assert self._asked is not None
        assert self._task is not None
        self._stopped = True
        self._asked.set()
        if self._stepping:
            self.cancelled = self._task.cancel()


def _drop(result: Any) -> None:
    """It was never begun, and that is no mistake."""
    if inspect.iscoroutine(result):
        result.close()
