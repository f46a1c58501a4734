"""On asyncio without its streams: the machine is fed by `data_received`. One timer a stream, none a token; a reader who
stays away stops the socket."""

import asyncio
import os
import ssl
import sys
from typing import cast

from deltawire.protocol import (
    ChatCompletionChunk,
    ChatRequest,
    ConnectError,
    Deadlines,
    DeltawireError,
    Endpoint,
    Event,
    HTTP1Exchange,
    StreamFailed,
    Timeout,
)

ENDPOINT = Endpoint.at(os.environ["OPENAI_BASE_URL"])
TIMEOUT = Timeout.of(float(os.environ.get("TIMEOUT", "60")))
HIGH_WATER = 64 * 1024


class Stream(asyncio.Protocol):
    """One exchange, and its connection. Iterate it for the chunks."""

    def __init__(self, exchange: HTTP1Exchange, deadlines: Deadlines) -> None:
        self.exchange, self.deadlines = exchange, deadlines
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.closed = self.loop.create_future()
        self.timer: asyncio.TimerHandle | None = None
        self.arrived = asyncio.Event()
        self.events: list[Event] = []
        self.contents = self.unread = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.deadlines.connected(self.loop.time())
        self.transport.write(self.exchange.data_to_send())

    def data_received(self, data: bytes) -> None:
        self.take(self.exchange.receive(data))
        self.unread += len(data)
        if self.unread > HIGH_WATER and self.transport is not None:
            self.transport.pause_reading()

    def eof_received(self) -> None:
        self.take(self.exchange.end())

    def connection_lost(self, error: Exception | None) -> None:
        self.take(self.exchange.end() if error is None else self.exchange.fail(error))
        self.closed.set_result(None)

    def late(self) -> None:
        """The timer has run out. Content that has come meanwhile may have moved the deadline; else there is one moment
        left, for bytes that the loop has not read yet."""
        self.timer = None
        if self.events:
            return  # It is the reader who is late: the clock goes on when he comes.
        now = self.loop.time()
        if self.deadlines.wait_until(now) > now:
            self.set_timer()
        else:
            self.take(self.exchange.fail(self.deadlines.error(self.exchange.reply.context.where())))

    def set_timer(self) -> None:
        if self.timer is None:
            self.timer = self.loop.call_at(self.deadlines.wait_until(self.loop.time()), self.late)

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def take(self, events: list[Event]) -> None:
        if self.exchange.reply.contents > self.contents:
            if self.contents == 0:
                # From now on it may be sooner. (The reader, who is woken by that, sets it anew.)
                self.stop_timer()
            self.contents = self.exchange.reply.contents
            self.deadlines.content(self.loop.time())
        self.events += events
        if events:
            self.arrived.set()

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> ChatCompletionChunk:
        while not self.events:
            if self.exchange.done:
                raise StopAsyncIteration
            if self.unread > HIGH_WATER and self.transport is not None:
                self.transport.resume_reading()
            self.unread = 0
            self.set_timer()
            self.arrived.clear()
            await self.arrived.wait()
        event = self.events.pop(0)
        if isinstance(event, StreamFailed):
            raise event.error
        if isinstance(event, ChatCompletionChunk):
            return event
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the connection, and let nothing be left of it."""
        self.stop_timer()
        if self.transport is not None:
            self.transport.abort()
            await self.closed


async def open_stream(question: str) -> Stream:
    loop = asyncio.get_running_loop()
    chat = ChatRequest(messages=question, model="gpt-4", stream=True)
    request, reply = ENDPOINT.prepare(chat, api_key=os.environ["OPENAI_API_KEY"])
    url, deadlines = request.parts, Deadlines(TIMEOUT, loop.time())
    stream = Stream(HTTP1Exchange(request, reply), deadlines)
    context = ssl.create_default_context() if url.scheme == "https" else None
    try:
        opening = loop.create_connection(lambda: stream, url.host, url.port, ssl=context)
        await asyncio.wait_for(opening, deadlines.remaining(loop.time()))
    except asyncio.TimeoutError:  # (Python 3.10 has another one.)
        stream.take(stream.exchange.fail(deadlines.error(reply.context.where())))
    except OSError as error:
        stream.take(stream.exchange.fail(ConnectError(f"no connection to {url.authority}: {error}")))
    return stream


async def ask(question: str) -> str:
    """The answer; it ends with its error, if it failed."""
    stream, text = await open_stream(question), ""
    try:
        async for chunk in stream:
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
    except DeltawireError as error:
        text += f" [{type(error).__name__}: {error}]"
    finally:
        await stream.aclose()
    return text


async def main(questions: list[str]) -> None:
    print(*await asyncio.gather(*map(ask, questions)), sep="\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["Say hello.", "Say it again."]))
