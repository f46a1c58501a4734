"""What ``create_async_generator`` gives for providers that our machines speak to: an answer as texts and pieces.

Each has a transport of its own, which is closed when the answer is over, when it is closed, or with its last
reference. (To keep connections between answers there is `Client`.)
"""

from __future__ import annotations

import collections
import weakref
from typing import TYPE_CHECKING, Any

from deltawire.protocol import ChatCompletionChunk, RetryBudget
from deltawire.protocol.pieces import ImageResponse, Pieces

from .asking import call_of
from .behalf import Lent, behalf_of, settings_for
from .calls import IMAGES
from .drivers import arun, run
from .learning import Names, anames
from .settings import make_room
from .streams import AsyncStream, Stream

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from deltawire.protocol.pieces import Piece
    from deltawire.transports import AsyncTransport

    from .calls import Attempt, Call
    from .owners import Owner


# Whoever asks providers without a client begins anew with each call; what stops a storm must not: each provider has a
# budget, and one more for each other server that it is told to ask.
_budgets: weakref.WeakKeyDictionary[Any, dict[Any, RetryBudget]] = weakref.WeakKeyDictionary()


def budget_of(provider: Any, server: Any) -> RetryBudget:
    """The budget that calls of a provider share which are made without a client."""
    try:
        budgets = _budgets.setdefault(provider, {})
    except TypeError:
        # It compares by its attributes, and is no key.
        budgets = {}
    make_room(budgets, server)
    return budgets.setdefault(server, RetryBudget())


# Arguments that name a server.
_SERVER = ("api_endpoint", "base_url", "api_base")


def pieces_of(provider: Any, model: str | None, messages: Any, options: dict[str, Any]) -> AsyncPieces:
    """The answer of a provider; ``options`` as `call_of` takes them, but for ``proxy=None``: the environment's."""
    stream = options.pop("stream", False)
    server = next((options[name] for name in _SERVER if isinstance(options.get(name), str)), None)
    settings = settings_for(provider, options, budget_of(provider, server))
    call = call_of(settings, messages, model, stream, options, native=True)
    if (behalf := behalf_of(provider)) is not None:
        behalf.bound(call)
    return AsyncPieces(call, Lent(provider))


def fetch(provider: Any, options: dict[str, Any]) -> list[str]:
    """The names of a provider's models: see `OpenaiTemplate.get_models`."""
    options = _given(options)
    settings, lent = settings_for(provider, options), Lent(provider)
    owner = lent.blocking()
    try:
        names = Names(settings, options, owner, native=True)
        names.ask()
    finally:
        lent.give_back(owner)
    return names.result("names")


async def afetch(provider: Any, options: dict[str, Any]) -> list[str]:
    """As `fetch`."""
    options = _given(options)
    settings, lent = settings_for(provider, options), Lent(provider)
    owner = lent.waiting()
    try:
        names = await anames(settings, options, owner, native=True)
        await names.aask()
    finally:
        await lent.agive_back(owner)
    return names.result("names")


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


class _Pieces:
    """An answer, as both kinds give it: from chunks to pieces."""

    def __init__(self, call: Call, lent: Lent) -> None:
        self._call = call
        self._lent = lent
        self._machine = Pieces()
        self._ready: collections.deque[str | Piece] = collections.deque()
        self._over = False

    def _whole(self, attempt: Attempt) -> None:
        """The reply did not stream."""
        for event in attempt.events:
            if isinstance(event, ChatCompletionChunk):
                self._take(event)
        self._end()

    def _take(self, chunk: ChatCompletionChunk) -> None:
        if self._call.draws:
            images = chunk.model_extra.get(IMAGES)
            self._ready += [] if images is None else [ImageResponse(images, self._call.prompt)]
        else:
            self._ready += self._machine.receive(chunk)

    def _end(self) -> None:
        self._over = True
        self._ready += self._machine.end()


class SyncPieces(_Pieces):
    """An iterator of texts and pieces, for programs that block. Sends when it is made."""

    def __init__(self, call: Call, lent: Lent) -> None:
        super().__init__(call, lent)
        self._owner = lent.blocking()
        self._stream: Stream | None = None
        try:
            attempt, exchange, failures = run(call, self._owner)
            if call.stream:
                self._stream = Stream(attempt, exchange, self._owner, failures)
            else:
                exchange.close()
                self._whole(attempt)
        except BaseException:
            self.close()
            raise
        if not call.stream:
            lent.give_back(self._owner)

    def __iter__(self) -> SyncPieces:
        return self

    def __next__(self) -> str | Piece:
        while not self._ready:
            if self._over or self._stream is None:
                raise StopIteration
            try:
                self._take(next(self._stream))
            except StopIteration:
                self._end()
                self._lent.give_back(self._owner)
            except BaseException:
                self.close()
                raise
        return self._ready.popleft()

    def close(self) -> None:
        """End the answer, and close its connection. Idempotent."""
        self._over = True
        self._ready.clear()
        if self._stream is not None:
            self._stream.close()
        self._lent.give_back(self._owner)

    def __enter__(self) -> SyncPieces:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncPieces(_Pieces):
    """An async iterator of texts and pieces, which may be awaited first. It sends at the first await or step."""

    def __init__(self, call: Call, lent: Lent) -> None:
        super().__init__(call, lent)
        self._owner: Owner[AsyncTransport] | None = None
        self._stream: AsyncStream | None = None
        self._lock: Any = None

    def blocking(self) -> SyncPieces:
        """The same answer, for a program that blocks; sends at once."""
        return SyncPieces(self._call, self._lent)

    def __await__(self) -> Generator[Any, None, AsyncPieces]:
        return self._open().__await__()

    async def _open(self) -> AsyncPieces:
        if self._owner is None and not self._over:
            import anyio

            # Two tasks may await the same answer.
            if self._lock is None:
                self._lock = anyio.Lock()
            async with self._lock:
                if self._owner is None and not self._over:
                    await self._send()
        return self

    async def _send(self) -> None:
        owner = self._lent.waiting()
        try:
            attempt, exchange, failures = await arun(self._call, owner)
            if self._call.stream:
                self._stream = AsyncStream(attempt, exchange, owner, failures)
            else:
                await exchange.aclose()
                self._whole(attempt)
        except BaseException:
            # Nothing has been shown: who awaits it again asks again.
            await self._lent.agive_back(owner)
            raise
        self._owner = owner
        if not self._call.stream:
            await self._lent.agive_back(owner)

    def __aiter__(self) -> AsyncPieces:
        return self

    async def __anext__(self) -> str | Piece:
        await self._open()
        while not self._ready:
            if self._over or self._stream is None or self._owner is None:
                raise StopAsyncIteration
            try:
                self._take(await self._stream.__anext__())
            except StopAsyncIteration:
                self._end()
                await self._close()
            except Exception:
                await self.aclose()
                raise
            except BaseException:
                # A wait that was cancelled: the next step says that the answer is cut off.
                await self._lent.agive_back(self._owner)
                raise
        return self._ready.popleft()

    async def aclose(self) -> None:
        """End the answer, and close its connection. Idempotent; nothing if it was never sent."""
        self._over = True
        self._ready.clear()
        await self._close()

    async def _close(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()
        if self._owner is not None:
            await self._lent.agive_back(self._owner)

    async def __aenter__(self) -> AsyncPieces:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
