"""Providers with a ``create_async_generator`` of their own: what they yield, as the replies of a call.

The rules of calls (attempts, content, the verdict at the end) hold for them as for replies that came over HTTP; only
proxy and timeout are theirs to heed: they are given as arguments.
"""

from __future__ import annotations

import contextlib
import inspect
import queue
import threading
import weakref
from typing import TYPE_CHECKING, Any

from deltawire.protocol import (
    ChatCompletionChunk,
    ChunkChoice,
    ConfigurationError,
    Context,
    Delta,
    StopWords,
    StreamEnded,
    StreamFailed,
    ToolCallDelta,
    Usage,
)
from deltawire.protocol.accumulate import Accumulator
from deltawire.protocol.pieces import FinishReason, Reasoning, ToolCalls

from .calls import Attempt
from .media import read_media
from .settings import key_among, name_of
from .targets import Target

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Iterator

    from deltawire.protocol import ChatCompletion, Event, Proxy

    from .calls import Call
    from .owners import Owner

# Pieces that a generator may be ahead of a program that blocks.
_AHEAD = 16


class GeneratedTarget(Target):
    """A provider with a generator of its own, in one call."""

    def __init__(self, provider: Any, call: Call) -> None:
        if call.ask.kind != "chat":
            raise ConfigurationError(f"{name_of(provider)} has its own way to a server, and only for chats")
        name = name_of(provider)
        declared = getattr(provider, "api_key", None)
        super().__init__(
            name,
            "generated",
            None,  # type: ignore[arg-type] # it builds no request
            key=key_among(name, call.ask.api_key, call.settings.given_key, declared),
            stop=call.ask.params.get("stop"),
            working=getattr(provider, "working", True),
        )
        self.provider = provider

    def attempt(self, call: Call, key: str | None, url: str | None) -> GeneratedAttempt:
        """See `Target.attempt`."""
        return GeneratedAttempt(call, self, key)


class GeneratedAttempt(Attempt):
    """One run of a provider's generator."""

    def __init__(self, call: Call, target: GeneratedTarget, key: str | None) -> None:
        provider, ask = target.provider, call.ask
        self.target = target
        self.answers = True
        self.url = getattr(provider, "url", None) or ""
        self.context = Context(provider=target.name)
        self.events = []
        self._session = None
        self._call = call
        self._stream = call.stream
        self.reply: Any = GeneratedReply(target.stop)
        proxy = call.settings.proxy_for(self.url or "https://example.org/", call.proxy)
        given = {
            "proxy": None if proxy is None else _whole(proxy),
            "timeout": call.timeout.first_content,
            "media": read_media(ask.media) if ask.media else None,
            "api_key": key,
            "prompt": ask.prompt,
            "impersonate": ask.impersonate or call.settings.impersonate,
            **ask.params,
            "headers": ask.extra_headers,
        }
        self.arguments = {name: value for name, value in given.items() if value is not None} | (ask.extra_body or {})
        model = provider.get_model(ask.model) if hasattr(provider, "get_model") else ask.model
        self._start = lambda: provider.create_async_generator(model, ask.messages, stream=call.stream, **self.arguments)

    def open(self, owner: Owner[Any]) -> Any:
        """See `Attempt.open`."""
        return (GeneratedExchange if owner.blocks else AsyncGeneratedExchange)(self._start, self.reply)


class GeneratedReply:
    """As `Reply`, fed with what a generator yields."""

    dialect = "generated"
    new_token = None
    request_id = None

    def __init__(self, stop: Any) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.done = False
        self._accumulator = Accumulator()
        self._stop = None if stop is None else StopWords(stop)
        self._finish_reason: str | None = None
        self._usage: Usage | None = None

    @property
    def contents(self) -> int:
        """How many chunks with content have come."""
        return self._accumulator.contents

    def partial(self) -> ChatCompletion | None:
        """What has come so far; None for nothing."""
        return None if self._accumulator.empty else self._accumulator.completion()

    def receive(self, piece: Any) -> list[Event]:
        """The next piece."""
        if self.done or isinstance(piece, BaseException):
            return []
        if isinstance(piece, FinishReason):
            self._finish_reason = piece.reason
            return []
        if isinstance(piece, Usage):
            self._usage = piece
            return []
        if isinstance(piece, ChatCompletionChunk):
            return self._chunk(piece)
        delta = Delta()
        if isinstance(piece, Reasoning):
            delta.reasoning_content = piece.text
        elif isinstance(piece, ToolCalls):
            calls = enumerate(piece.tool_calls)
            delta.tool_calls = [
                ToolCallDelta(index=index, id=call.id, type=call.type, function=call.function) for index, call in calls
            ]
        else:
            delta.content = str(piece) if self._stop is None else self._stop.receive(str(piece))
        if not (delta.content or delta.reasoning_content or delta.tool_calls):
            events: list[Event] = []
        else:
            events = self._chunk(ChatCompletionChunk(choices=[ChunkChoice(delta=delta)]))
        if self._stop is not None and self._stop.stopped:
            events += self.end()
        return events

    def _chunk(self, chunk: ChatCompletionChunk) -> list[Event]:
        self._accumulator.add(chunk)
        return [chunk]

    def end(self) -> list[Event]:
        """The generator is at its end."""
        if self.done:
            return []
        events: list[Event] = []
        if self._stop is not None and (left := self._stop.flush()):
            events += self._chunk(ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(content=left))]))
        self.done = True
        # Without any content it needs a reason of its own to count as an answer.
        if (reason := self._finish_reason or ("stop" if self.contents else None)) and not self._accumulator.finished:
            choices = [ChunkChoice(finish_reason=reason)]
            events += self._chunk(ChatCompletionChunk(choices=choices, usage=self._usage))
        return [*events, StreamEnded(self._accumulator.finished)]

    def fail(self, error: Exception) -> list[Event]:
        """The generator has raised this."""
        if self.done:
            return []
        self.done = True
        return [StreamFailed(error)]  # type: ignore[arg-type] # it may be an error of the provider's own


class GeneratedExchange:
    """As `deltawire.transports.Exchange`."""

    def __init__(self, start: Callable[[], Any], reply: GeneratedReply) -> None:
        self._start = start
        self._reply = reply
        self._pieces: Blocking | None = None

    def next_events(self) -> list[Event]:
        """See `Exchange`."""
        reply = self._reply
        events: list[Event] = []
        try:
            if self._pieces is None:
                self._pieces = Blocking(self._start())
            while not events and not reply.done:
                piece = next(self._pieces, self)
                events = reply.end() if piece is self else reply.receive(piece)
        except Exception as error:
            events = reply.fail(error)
        return events

    def close(self) -> None:
        """See `Exchange`."""
        if self._pieces is not None:
            self._pieces.close()

    def abandon(self) -> None:
        """See `Exchange`. (What is dropped ends itself.)"""
        self._pieces = None


class AsyncGeneratedExchange:
    """As `deltawire.transports.AsyncExchange`."""

    def __init__(self, start: Callable[[], Any], reply: GeneratedReply) -> None:
        self._start = start
        self._reply = reply
        self._pieces: AsyncIterator[Any] | None = None

    async def next_events(self) -> list[Event]:
        """See `AsyncExchange`."""
        reply = self._reply
        events: list[Event] = []
        try:
            if self._pieces is None:
                self._pieces = await _iterator(self._start())
            while not events and not reply.done:
                try:
                    piece = await self._pieces.__anext__()
                except StopAsyncIteration:
                    events = reply.end()
                else:
                    events = reply.receive(piece)
        except Exception as error:
            events = reply.fail(error)
        return events

    async def aclose(self) -> None:
        """See `AsyncExchange`."""
        close = getattr(self._pieces, "aclose", None)
        if close is not None:
            import anyio

            with anyio.CancelScope(shield=True):
                await close()

    def abandon(self) -> None:
        """See `AsyncExchange`. (The event loop ends generators that are dropped.)"""
        self._pieces = None


async def _iterator(result: Any) -> AsyncIterator[Any]:
    """What ``create_async_generator`` gave: an async iterator, or a coroutine that gives one."""
    if inspect.isawaitable(result) and not hasattr(result, "__anext__"):
        result = await result
    return result.__aiter__()  # type: ignore[no-any-return]


def _whole(proxy: Proxy) -> str:
    """A proxy's URL with its credentials, as other libraries take it."""
    from urllib.parse import quote

    if proxy.username is None:
        return proxy.url
    scheme, _, rest = proxy.url.partition("://")
    return f"{scheme}://{quote(proxy.username, safe='')}:{quote(proxy.password or '', safe='')}@{rest}"


class _Pump:
    """Runs an async iterator in a thread, on an asyncio loop of its own, and queues what it gives."""

    def __init__(self, result: Any) -> None:
        self.queue: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(_AHEAD)
        self._result = result
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended = threading.Event()
        self.thread = threading.Thread(target=self._run, name="deltawire generator", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        import asyncio

        error: BaseException | None = None
        try:
            asyncio.run(self._main())
        except BaseException as problem:
            error = problem
        self._put((None, error or StopIteration()))

    async def _main(self) -> None:
        import asyncio

        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        iterator = await _iterator(self._result)
        try:
            while not self._ended.is_set():
                # Waiting here holds up the loop, which has nothing else to do.
                self._put((await iterator.__anext__(), None))
        except StopAsyncIteration:
            pass
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()

    def _put(self, item: tuple[Any, BaseException | None]) -> None:
        if not self._ended.is_set():
            self.queue.put(item)

    def end(self) -> None:
        """Let the thread come to its end, without waiting for it."""
        self._ended.set()
        with contextlib.suppress(queue.Empty):
            while True:
                self.queue.get_nowait()
        if self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._task.cancel)


class Blocking:
    """An async iterator, as an iterator for a program that blocks; it runs in a thread of its own."""

    def __init__(self, result: Any) -> None:
        self._pump = _Pump(result)
        self._over = False
        self._finalizer = weakref.finalize(self, self._pump.end)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._over:
            raise StopIteration
        piece, error = self._pump.queue.get()
        if error is None:
            return piece
        self._over = True
        self._pump.thread.join()
        self._finalizer.detach()
        if isinstance(error, StopIteration):
            raise StopIteration
        raise error

    def close(self) -> None:
        """End it, and wait for its end. Idempotent."""
        self._over = True
        if self._finalizer.detach() is not None:
            self._pump.end()
            self._pump.thread.join()
