"""For code that has a response already, from httpx, requests, aiohttp, urllib3 or a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltawire.protocol import ChatCompletionChunk, Reply, StreamFailed, UsageError
from deltawire.protocol.kinds import kind_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator

    from deltawire.protocol import Event, Limits


def parse_stream(
    chunks: Iterable[bytes], *, dialect: str = "openai", limits: Limits | None = None
) -> Iterator[ChatCompletionChunk]:
    """The chunks of a reply whose body comes in these pieces (split anywhere; the status was 2xx).

    Give it ``response.iter_bytes()`` of httpx, ``response.iter_content(None)`` of requests,
    ``response.stream()`` of urllib3: bytes as they came, not lines. Raises what the reply fails with, after
    the chunks that came before: `TruncatedStreamError` and the other errors of `APIError`. ``dialect``: "openai" or
    "opchatgpts"; `ConfigurationError` for any other.
    """
    return _chunks(chunks, _started(dialect, limits))


def _chunks(chunks: Iterable[bytes], reply: Reply) -> Iterator[ChatCompletionChunk]:
    for data in chunks:
        yield from _good(reply.receive(_bytes(data)))
        if reply.done:
            return
    yield from _good(reply.end())


def aparse_stream(
    chunks: AsyncIterable[bytes], *, dialect: str = "openai", limits: Limits | None = None
) -> AsyncParser:
    """As `parse_stream`, for ``response.aiter_bytes()`` of httpx, ``response.content.iter_any()`` of aiohttp."""
    return AsyncParser(chunks, _started(dialect, limits))


class AsyncParser:
    """What `aparse_stream` gives: an async iterator of chunks."""

    def __init__(self, source: AsyncIterable[bytes], reply: Reply) -> None:
        self._source: AsyncIterator[bytes] = source.__aiter__()
        self._reply = reply
        self._events: list[Event] = []

    def __aiter__(self) -> AsyncParser:
        return self

    async def __anext__(self) -> ChatCompletionChunk:
        while not self._events:
            if self._reply.done:
                raise StopAsyncIteration
            try:
                data = await self._source.__anext__()
            except StopAsyncIteration:
                events = self._reply.end()
            else:
                events = self._reply.receive(_bytes(data))
            self._events = events[::-1]
        for chunk in _good([self._events.pop()]):
            return chunk
        raise StopAsyncIteration


def _started(dialect: str, limits: Limits | None) -> Reply:
    kind_of(dialect, chat=True)
    reply = Reply(dialect, limits=limits)
    reply.start(200, [])
    return reply


def _bytes(data: object) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise UsageError("the pieces must be bytes as they came over the wire, not text or lines of text")
    return bytes(data)


def _good(events: list[Event]) -> Iterator[ChatCompletionChunk]:
    for event in events:
        if isinstance(event, ChatCompletionChunk):
            yield event
        elif isinstance(event, StreamFailed):
            raise event.error
