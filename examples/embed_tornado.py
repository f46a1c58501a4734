"""Tornado: the machine between an `IOStream` and a coroutine."""

import asyncio
import os
import ssl
import sys
import time
from datetime import timedelta

from tornado.gen import with_timeout
from tornado.iostream import IOStream, StreamClosedError
from tornado.tcpclient import TCPClient
from tornado.util import TimeoutError as TooSlow

from deltawire.protocol import (
    ChatCompletionChunk,
    ChatRequest,
    ConnectError,
    Deadlines,
    Endpoint,
    Event,
    HTTP1Exchange,
    StreamFailed,
    Timeout,
)

ENDPOINT = Endpoint.at(os.environ["OPENAI_BASE_URL"])
TIMEOUT = Timeout.of(float(os.environ.get("TIMEOUT", "60")))


def left(deadlines: Deadlines) -> timedelta:
    now = time.monotonic()
    return timedelta(seconds=deadlines.wait_until(now) - now)


async def ask(question: str) -> str:
    """The answer; it ends with its error, if it failed."""
    chat = ChatRequest(messages=question, model="gpt-4", stream=True)
    request, reply = ENDPOINT.prepare(chat, api_key=os.environ["OPENAI_API_KEY"])
    exchange, url = HTTP1Exchange(request, reply), request.parts
    deadlines = Deadlines(TIMEOUT, time.monotonic())
    context = ssl.create_default_context() if url.scheme == "https" else None
    text, contents = "", 0
    stream: IOStream | None = None
    events: list[Event] = []
    try:
        while True:
            try:
                if stream is None:
                    stream = await TCPClient().connect(url.host, url.port, ssl_options=context, timeout=left(deadlines))
                    deadlines.connected(time.monotonic())
                    # Not awaited: whether it arrives, the reply says; and Tornado writes while we read.
                    stream.write(exchange.data_to_send()).add_done_callback(lambda written: written.exception())
                read = stream.read_bytes(65536, partial=True)
                data = await with_timeout(left(deadlines), read, quiet_exceptions=StreamClosedError)
                events = exchange.receive(data)
            except TooSlow:
                events = exchange.fail(deadlines.error(reply.context.where()))
            except StreamClosedError as closed:
                if stream is None:
                    events = exchange.fail(ConnectError(f"no connection to {url.authority}: {closed.real_error}"))
                else:
                    error = closed.real_error
                    events = exchange.fail(error) if isinstance(error, Exception) else exchange.end()
            except OSError as error:
                events = exchange.fail(ConnectError(f"no connection to {url.authority}: {error}"))
            if reply.contents > contents:
                contents = reply.contents
                deadlines.content(time.monotonic())
            for event in events:
                if isinstance(event, ChatCompletionChunk):
                    text += "".join(choice.delta.content or "" for choice in event.choices)
                elif isinstance(event, StreamFailed):
                    text += f" [{type(event.error).__name__}: {event.error}]"
            if exchange.done:
                return text
    finally:
        if stream is not None:
            stream.close()


async def main(questions: list[str]) -> None:
    print(*await asyncio.gather(*map(ask, questions)), sep="\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["Say hello.", "Say it again."]))
