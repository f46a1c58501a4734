"""Providers with a ``create_async_generator`` of their own: what they yield, as the replies of a call.

The rules of calls (attempts, content, the verdict at the end) hold for them as for replies that came over HTTP; only
proxy and timeout are theirs to heed: they are given as arguments. (A deadline of ours around a step would break what a
generator may have open across its ``yield``: trio's cancel scopes have to be left in the order they were entered.)
"""

from __future__ import annotations

import time
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
    UsageError,
)
from deltawire.protocol.accumulate import Accumulator
from deltawire.protocol.messages import plain_messages
from deltawire.protocol.pieces import FinishReason, Reasoning, ToolCalls

from .behalf import Behalf
from .blocking import Blocking, end, iterator_of
from .calls import Attempt
from .media import pairs
from .settings import key_among, name_of
from .targets import Target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from deltawire.protocol import ChatCompletion, Event, Proxy

    from .calls import Call
    from .owners import Owner


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
        self.target: GeneratedTarget = target
        self.answers = True
        self.url = getattr(provider, "url", None) or ""
        self.context = Context(provider=target.name)
        self.events = []
        self._session = None
        self._call = call
        self.streams = call.stream
        self.reply: Any = GeneratedReply(target.stop)
        server = provider.base_of(ask, call.settings) if hasattr(provider, "base_of") else self.url
        self.proxy = proxy = call.settings.proxy_for(server or "https://example.org/", call.proxy)
        ours = hasattr(provider, "target")
        given = {
            "proxy": None if proxy is None else _whole(proxy),
            "timeout": _seconds(call),
            "media": pairs(ask.media),
            "api_key": key,
            "api_base": ask.base_url or call.settings.given_url,
            "api_endpoint": ask.api_endpoint,
            "prompt": ask.prompt,
            "impersonate": ask.impersonate or call.settings.impersonate,
            "extra_query": ask.extra_query,
            "extra_parameters": ask.extra_parameters,
            **ask.params,
            "headers": {**(call.settings.default_headers or {}), **(ask.extra_headers or {})} or None,
        }
        self.arguments = {name: value for name, value in given.items() if value is not None}
        if ours:
            # It is likely to ask ours, which it overrides: the attempts are this call's, and not each attempt's again.
            self.arguments |= _taken(provider.create_async_generator, max_retries=0, ignore_working=True)
            self.arguments |= {"extra_data": ask.extra_body} if ask.extra_body else {}
        else:
            self.arguments |= ask.extra_body or {}
        self._behalf = Behalf(
            provider,
            call.settings,
            None,
            given=self.arguments,
            meant={
                "proxy": call.proxy,
                "timeout": call.timeout,
                # "": none, whatever is declared.
                "api_key": ask.api_key if key is None else key,
            },
            total_at=call.total_at,
        )

    def open(self, owner: Owner[Any]) -> Any:
        """See `Attempt.open`."""
        owner.check()
        self._behalf.owner = owner
        kind = GeneratedExchange if owner.blocks else AsyncGeneratedExchange
        return kind(self._start, self.reply, self._behalf)

    def _start(self) -> Any:
        # In the exchange: what the provider's own methods raise is how the attempt went.
        provider, ask = self.target.provider, self._call.ask
        model = provider.get_model(ask.model) if hasattr(provider, "get_model") else ask.model or ""
        # Its own copy of the messages, to change as it likes.
        messages = plain_messages(ask.messages)
        return provider.create_async_generator(model, messages, stream=self._call.stream, **self.arguments)


def _seconds(call: Call) -> float | None:
    """How long the generator may wait for the first content."""
    first, at = call.timeout.first_content, call.total_at
    left = None if at is None else max(at - time.monotonic(), 0.001)
    return min((each for each in (first, left) if each is not None), default=None)


def _taken(function: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
    """Those of the arguments that the function takes."""
    import inspect

    parameters = inspect.signature(function).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return arguments
    return {name: value for name, value in arguments.items() if name in parameters}


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
        self._calls = 0
        # One that was yielded: g4f's own providers tell so of what they have tried in vain.
        self._error: Exception | None = None

    @property
    def contents(self) -> int:
        """How many chunks with content have come."""
        return self._accumulator.contents

    def partial(self) -> ChatCompletion | None:
        """What has come so far; None for nothing."""
        return None if self._accumulator.empty else self._accumulator.completion()

    def receive(self, piece: Any) -> list[Event]:
        """The next piece. What is none of ours is the text that it prints as; None is none; an exception is how the
        answer ends, unless more of it comes."""
        if self.done or piece is None:
            return []
        if isinstance(piece, Exception):
            self._error = piece
            return []
        if isinstance(piece, (bytes, bytearray, dict, list, tuple, set)):
            kind = type(piece).__name__
            return self.fail(
                ConfigurationError(f"the provider's generator yields {kind}, which is no text: let it yield str")
            )
        if isinstance(piece, FinishReason):
            self._finish_reason = piece.reason
            return []
        if isinstance(piece, Usage):
            self._usage = piece
            return []
        if isinstance(piece, ChatCompletionChunk):
            return self._cut(piece)
        delta = Delta()
        if isinstance(piece, Reasoning):
            delta.reasoning_content = piece.text
        elif isinstance(piece, ToolCalls):
            calls = enumerate(piece.tool_calls, self._calls)
            delta.tool_calls = [
                ToolCallDelta(index=index, id=call.id, type=call.type, function=call.function) for index, call in calls
            ]
            self._calls += len(piece)
        else:
            delta.content = str(piece) if self._stop is None else self._stop.receive(str(piece))
        events: list[Event] = []
        if delta.content or delta.reasoning_content or delta.tool_calls:
            events = self._chunk(ChatCompletionChunk(choices=[ChunkChoice(delta=delta)]))
        if self._stop is not None and self._stop.stopped:
            events += self.end()
        return events

    def _chunk(self, chunk: ChatCompletionChunk) -> list[Event]:
        before = self.contents
        self._accumulator.add(chunk)
        if self.contents != before:
            self._error = None
        return [chunk]

    def _cut(self, chunk: ChatCompletionChunk) -> list[Event]:
        """A chunk of the provider's own, up to a stop word."""
        if self._stop is None:
            return self._chunk(chunk)
        for choice in chunk.choices:
            if choice.index == 0 and choice.delta.content:
                choice.delta.content = self._stop.receive(choice.delta.content)
            if choice.index == 0 and choice.finish_reason is not None:
                if self._stop.stopped:
                    choice.finish_reason = "stop"
                choice.delta.content = (choice.delta.content or "") + self._stop.flush() or None
        events = self._chunk(chunk)
        return events + self.end() if self._stop.stopped else events

    def _flush(self) -> list[Event]:
        """The text that might have been the beginning of a stop word."""
        left = "" if self._stop is None else self._stop.flush()
        return self._chunk(ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(content=left))])) if left else []

    def end(self) -> list[Event]:
        """The generator is at its end."""
        if self.done:
            return []
        if self._error is not None:
            return self.fail(self._error)
        events = self._flush()
        self.done = True
        # Without any content it needs a reason of its own to count as an answer.
        reason = self._finish_reason or (("tool_calls" if self._calls else "stop") if self.contents else None)
        if reason is not None and not self._accumulator.finished:
            choices = [ChunkChoice(finish_reason=reason)]
            events += self._chunk(ChatCompletionChunk(choices=choices, usage=self._usage))
        elif self._usage is not None:
            events += self._chunk(ChatCompletionChunk(usage=self._usage))
        return [*events, StreamEnded(self._accumulator.finished)]

    def fail(self, error: Exception) -> list[Event]:
        """The generator has raised this."""
        if self.done:
            return []
        events = self._flush()
        self.done = True
        return [*events, StreamFailed(error)]  # type: ignore[arg-type] # it may be an error of the provider's own


class _Exchange:
    """What both kinds of exchange know."""

    def __init__(self, start: Callable[[], Any], reply: GeneratedReply, behalf: Behalf) -> None:
        self._start = start
        self._reply = reply
        self._behalf = behalf
        # What a generator gives after it was interrupted is no answer.
        self._closed = False

    def _check(self) -> None:
        if self._closed:
            raise UsageError("the exchange is closed")


class GeneratedExchange(_Exchange):
    """As `deltawire.transports.Exchange`."""

    _pieces: Blocking | None = None

    def next_events(self) -> list[Event]:
        """See `Exchange`."""
        reply = self._reply
        events: list[Event] = []
        while not events and not reply.done:
            self._check()
            try:
                with self._behalf.current():
                    if self._pieces is None:
                        self._pieces = Blocking(self._start())
                    piece = next(self._pieces, self)
            except Exception as error:
                return reply.fail(error)
            except BaseException:
                self._closed = True
                raise
            events = reply.end() if piece is self else reply.receive(piece)
        return events

    def close(self) -> None:
        """See `Exchange`. Raises what the generator fails with at its end."""
        self._closed = True
        if self._pieces is not None:
            self._pieces.close()

    def abandon(self) -> None:
        """See `Exchange`."""
        self._closed = True
        if self._pieces is not None:
            self._pieces.abandon()


class AsyncGeneratedExchange(_Exchange):
    """As `deltawire.transports.AsyncExchange`."""

    _pieces: AsyncIterator[Any] | None = None
    _runner: Any = None

    async def next_events(self) -> list[Event]:
        """See `AsyncExchange`."""
        reply = self._reply
        events: list[Event] = []
        while not events and not reply.done:
            self._check()
            try:
                with self._behalf.current():
                    if self._pieces is None:
                        self._pieces = await self._begin()
                    piece = await self._pieces.__anext__()
            except StopAsyncIteration:
                events = reply.end()
            except Exception as error:
                return reply.fail(error)
            except BaseException:
                self._closed = True
                raise
            else:
                events = reply.receive(piece)
        return events

    async def _begin(self) -> AsyncIterator[Any]:
        # Not at the head of the module: it loads anyio.
        from deltawire.transports._lifetime import Runner

        self._runner = Runner()
        return await iterator_of(self._start())

    async def aclose(self) -> None:
        """See `AsyncExchange`. Raises what the generator fails with at its end."""
        import anyio

        self._closed = True
        pieces, self._pieces = self._pieces, None
        with anyio.CancelScope(shield=True):
            await end(pieces)

    def abandon(self) -> None:
        """See `AsyncExchange`. (Trio complains of generators that are left to the garbage collector.)"""
        self._closed = True
        pieces, self._pieces = self._pieces, None
        if pieces is not None:
            self._runner.spawn(lambda: end(pieces))


def _whole(proxy: Proxy) -> str:
    """A proxy's URL with its credentials, as other libraries take it."""
    from urllib.parse import quote

    if proxy.username is None:
        return proxy.url
    scheme, _, rest = proxy.url.partition("://")
    return f"{scheme}://{quote(proxy.username, safe='')}:{quote(proxy.password or '', safe='')}@{rest}"
