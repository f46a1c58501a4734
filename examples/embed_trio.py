"""A trio nursery: workers with a connection each, which they keep from one question to the next. What a deadline is to
the machines, a cancel scope is here."""

import os
import ssl
import sys
from collections.abc import Iterator

import trio

from deltawire.protocol import (
    ChatCompletionChunk,
    ChatRequest,
    ConnectError,
    Deadlines,
    Endpoint,
    Event,
    HTTP1Exchange,
    HTTP1State,
    HTTPRequest,
    StreamFailed,
    Timeout,
)

ENDPOINT = Endpoint.at(os.environ["OPENAI_BASE_URL"])
TIMEOUT = Timeout.of(float(os.environ.get("TIMEOUT", "60")))


class Worker:
    """Asks one question after the other."""

    def __init__(self) -> None:
        self.stream: trio.abc.Stream | None = None
        self.last: HTTP1Exchange | None = None

    async def ask(self, question: str) -> str:
        """The answer; it ends with its error, if it failed."""
        chat = ChatRequest(messages=question, model="gpt-4", stream=True)
        request, reply = ENDPOINT.prepare(chat, api_key=os.environ["OPENAI_API_KEY"])
        deadlines = Deadlines(TIMEOUT, trio.current_time())
        kept = self.last is not None
        exchange = HTTP1Exchange(request, reply) if self.last is None else self.last.next(request, reply)
        text, contents = "", 0
        events = await self.begin(request, exchange, deadlines)
        while True:
            if reply.contents > contents:
                contents = reply.contents
                deadlines.content(trio.current_time())
            for event in events:
                if isinstance(event, ChatCompletionChunk):
                    text += "".join(choice.delta.content or "" for choice in event.choices)
                elif isinstance(event, StreamFailed):
                    text += f" [{type(event.error).__name__}: {event.error}]"
            if exchange.done:
                await self.finish(exchange)
                return text
            got = await self.read(deadlines)
            if kept and exchange.silent and (got == b"" or isinstance(got, trio.BrokenResourceError)):
                # It was given up while nobody looked. The reply has not begun: once more, on a new connection.
                kept = False
                await self.close()
                deadlines.connecting(trio.current_time())
                exchange = HTTP1Exchange(request, reply)
                events = await self.begin(request, exchange, deadlines)
            elif isinstance(got, trio.TooSlowError):
                events = exchange.fail(deadlines.error(reply.context.where()))
            elif isinstance(got, Exception):
                events = exchange.fail(got)
            else:
                events = exchange.receive(got) if got else exchange.end()

    async def begin(self, request: HTTPRequest, exchange: HTTP1Exchange, deadlines: Deadlines) -> list[Event]:
        """Connect, unless there is a connection, and send the request."""
        url = request.parts
        try:
            if self.stream is None:
                with trio.fail_at(deadlines.wait_until(trio.current_time())):
                    self.stream = await open_stream(url.host, url.port, url.scheme == "https")
            deadlines.connected(trio.current_time())
            with trio.fail_at(deadlines.wait_until(trio.current_time())):
                await self.stream.send_all(exchange.data_to_send())
        except trio.TooSlowError:
            return exchange.fail(deadlines.error(exchange.reply.context.where()))
        except OSError as error:
            return exchange.fail(ConnectError(f"no connection to {url.authority}: {error}"))
        except trio.BrokenResourceError:
            # Whoever takes no more may have answered all the same: read on.
            pass
        return []

    async def read(self, deadlines: Deadlines) -> bytes | Exception:
        """What comes next: bytes, none of them at the end, or what went wrong."""
        assert self.stream is not None
        try:
            with trio.fail_at(deadlines.wait_until(trio.current_time())):
                return bytes(await self.stream.receive_some(65536))
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            return error

    async def finish(self, exchange: HTTP1Exchange) -> None:
        """Keep the connection, if a tenth of a second's patience makes it fit for another question; else close it."""
        patience = Deadlines(Timeout(connect=0.1), trio.current_time())
        while exchange.state is HTTP1State.DRAINING:
            got = await self.read(patience)
            if isinstance(got, Exception) or not got:
                break
            exchange.receive(got)
        self.last = exchange if exchange.reusable else None
        if self.last is None:
            await self.close()

    async def close(self) -> None:
        """Close the connection, if there is one."""
        stream, self.stream, self.last = self.stream, None, None
        if stream is not None:
            await trio.aclose_forcefully(stream)


async def open_stream(host: str, port: int, with_tls: bool) -> trio.abc.Stream:
    """Raises `OSError`."""
    if not with_tls:
        return await trio.open_tcp_stream(host, port)
    stream = await trio.open_ssl_over_tcp_stream(host, port, ssl_context=ssl.create_default_context())
    try:
        await stream.do_handshake()
    except BaseException as error:
        await trio.aclose_forcefully(stream)
        if isinstance(error, trio.BrokenResourceError):
            raise OSError(str(error.__cause__)) from error
        raise
    return stream


async def work(questions: Iterator[tuple[int, str]], answers: dict[int, str]) -> None:
    worker = Worker()
    try:
        for index, question in questions:
            answers[index] = await worker.ask(question)
    finally:
        await worker.close()


async def main(questions: list[str], workers: int = 2) -> None:
    answers: dict[int, str] = {}
    queue = enumerate(questions)
    async with trio.open_nursery() as nursery:
        for _ in range(workers):
            nursery.start_soon(work, queue, answers)
    for _, answer in sorted(answers.items()):
        print(answer)


if __name__ == "__main__":
    trio.run(main, sys.argv[1:] or ["Say hello.", "Say it again.", "And once more."])
