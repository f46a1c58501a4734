"""What streaming calls give: iterators of chunks that close their connection for certain."""

from __future__ import annotations

import weakref
from _thread import get_ident
from typing import TYPE_CHECKING, Any

from deltawire.protocol import APIError, ChatCompletionChunk, ChunkChoice, StreamFailed, TransportError, UsageError

if TYPE_CHECKING:
    from types import TracebackType

    from deltawire.protocol import ChatCompletion, Event
    from deltawire.transports import AsyncExchange, Exchange

    from .calls import Attempt


class NoChoices(list[ChunkChoice]):
    """The choices of a chunk that has none, as those that tell of usage, or Azure's first one: an empty list, but
    for ``[0]``, which programs print of every chunk."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        # (A program may have put one in.)
        return ChunkChoice() if index == 0 and not self else super().__getitem__(index)


class _Reading:
    """What both kinds of stream know of their reply."""

    def __init__(self, attempt: Attempt, retries_taken: int) -> None:
        self._reply = attempt.reply
        self._attempt = attempt
        self._provider = attempt.target.name
        # The last first, so that the next one is popped.
        self._events: list[Event] = attempt.events[::-1]
        attempt.events = []
        self._over = False
        self.retries_taken = retries_taken
        """How many attempts failed before this one."""

    def _end(self) -> None:
        # What is there yet is left to whoever may be about to take it: a thread that reads while another one closes.
        if not self._over:
            self._over = True
            self._attempt.over()
            if self._attempt.diary is not None:
                self._attempt.diary.over(self._attempt)

    def _error(self, failed: StreamFailed) -> Exception:
        """What the reply has failed with, behind its first content."""
        error = failed.error
        if isinstance(error, (APIError, TransportError)):
            error.retries_taken = self.retries_taken
            self._attempt.named(error.partial)
        if self._attempt.diary is not None:
            self._attempt.diary.broke(self._attempt, error)
        return error

    @property
    def request_id(self) -> str | None:
        """The reply's ``x-request-id``, or None."""
        return self._reply.request_id

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The reply's header fields."""
        return self._reply.headers

    def partial(self) -> ChatCompletion | None:
        """What has arrived so far, as a completion (without vendor fields); None for nothing."""
        return self._attempt.named(self._reply.partial())


class Stream(_Reading):
    """An iterator of chunks. Iterating on after a ``break`` continues.

    The connection goes back to the pool, or is closed, with the last chunk, with ``close()``, at the end of a
    ``with`` block, or with the last reference. Iterating raises what the reply fails with; chunks that came
    before are delivered first.
    """

    def __init__(self, attempt: Attempt, exchange: Exchange, owner: object, retries_taken: int) -> None:
        super().__init__(attempt, retries_taken)
        self._exchange = exchange
        # Keeps the client's connections open as long as the stream is read.
        self._owner = owner
        self._finalizer = weakref.finalize(self, exchange.abandon)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> ChatCompletionChunk:
        if self._over:
            raise StopIteration
        while not self._events:
            if self._over:
                # Closed meanwhile, by another thread: an exchange that is over has nothing to say, ever.
                raise StopIteration
            self._events = self._exchange.next_events()[::-1]
        event = self._events.pop()
        if isinstance(event, ChatCompletionChunk):
            event._provider = self._provider
            if not event.choices:
                event.choices = NoChoices()
            return event
        self.close()
        if isinstance(event, StreamFailed):
            raise self._error(event)
        raise StopIteration

    def close(self) -> None:
        """End the reply and free its connection. Idempotent; iterating ends after it."""
        self._end()
        self._exchange.close()
        self._finalizer.detach()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncStream(_Reading):
    """As `Stream`, for ``async for`` and ``async with``. Cancelling a wait closes the connection."""

    def __init__(self, attempt: Attempt, exchange: AsyncExchange, owner: object, retries_taken: int) -> None:
        from deltawire.transports._lifetime import running_loop

        super().__init__(attempt, retries_taken)
        self._thread = get_ident()
        # Weakly, since a stream may outlive its loop, but not keep it.
        self._loop: weakref.ref[Any] = weakref.ref(running_loop())
        self._exchange = exchange
        self._owner = owner
        self._finalizer = weakref.finalize(self, exchange.abandon)

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> ChatCompletionChunk:
        if self._over:
            raise StopAsyncIteration
        while not self._events:
            if self._over:
                # As in `Stream`, by another task.
                raise StopAsyncIteration
            if get_ident() != self._thread:
                self._check_loop(None)
            try:
                self._events = (await self._exchange.next_events())[::-1]
            except (RuntimeError, TypeError) as error:
                self._check_loop(error)
                raise
        event = self._events.pop()
        if isinstance(event, ChatCompletionChunk):
            event._provider = self._provider
            if not event.choices:
                event.choices = NoChoices()
            return event
        await self.aclose()
        if isinstance(event, StreamFailed):
            raise self._error(event)
        raise StopAsyncIteration

    def _check_loop(self, error: Exception | None) -> None:
        """Refuse to wait in another event loop than the stream's: that would not hear of it, or say so in words of its
        own (``error``), or lose its own way."""
        from deltawire.transports._lifetime import running_loop

        if self._loop() is not running_loop():
            raise UsageError("the stream is of another event loop: read it in the one that it was begun in") from error
        # Loops may go on in another thread.
        self._thread = get_ident()

    async def aclose(self) -> None:
        """End the reply and free its connection. Idempotent; iterating ends after it. Called in another event loop
        than the stream's, it has that one do it, soon."""
        from deltawire.transports._lifetime import runs_elsewhere

        self._end()
        if runs_elsewhere(self._loop()):
            # What wakes a reader there may be called by his loop only.
            self._finalizer()
            return
        await self._exchange.aclose()
        self._finalizer.detach()

    # The OpenAI SDK's name.
    close = aclose

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
