"""Twisted: the machine is fed by `Protocol.dataReceived`, and a delayed call keeps the deadlines."""

import os
import sys
import time
from typing import Any, cast

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import react
from twisted.python.failure import Failure

from deltawire.protocol import (
    ChatCompletionChunk,
    ChatRequest,
    ConfigurationError,
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


class Chat(Protocol):
    """One exchange on one connection; ``answer`` fires when both are over."""

    def __init__(self, reactor: Any, exchange: HTTP1Exchange, deadlines: Deadlines) -> None:
        self.reactor, self.exchange, self.deadlines = reactor, exchange, deadlines
        self.answer: Deferred[str] = Deferred()
        self.timer: Any = None
        self.contents, self.text = 0, ""

    def connectionMade(self) -> None:  # noqa: N802 - their names
        self.deadlines.connected(time.monotonic())
        # Twisted writes what it can, and the rest when it can.
        cast(Any, self.transport).write(self.exchange.data_to_send())
        self.set_timer()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        self.take(self.exchange.receive(data))

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        error = cast(Exception, reason.value)
        self.take(self.exchange.end() if isinstance(error, ConnectionDone) else self.exchange.fail(error))
        self.finish()

    def set_timer(self) -> None:
        self.stop_timer()
        now = time.monotonic()
        self.timer = self.reactor.callLater(max(self.deadlines.wait_until(now) - now, 0), self.late)

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def late(self) -> None:
        """The timer has run out. Content that has come meanwhile may have moved the deadline; else there is one moment
        left, for bytes that have come: the reactor runs its timers before it reads."""
        self.timer = None
        now = time.monotonic()
        if self.deadlines.wait_until(now) > now:
            self.set_timer()
        else:
            self.take(self.exchange.fail(self.deadlines.error(self.exchange.reply.context.where())))

    def take(self, events: list[Event]) -> None:
        if self.exchange.reply.contents > self.contents:
            first = self.contents == 0
            self.contents = self.exchange.reply.contents
            self.deadlines.content(time.monotonic())
            if first:
                # The deadline may come sooner now.
                self.set_timer()
        for event in events:
            if isinstance(event, ChatCompletionChunk):
                self.text += "".join(choice.delta.content or "" for choice in event.choices)
            elif isinstance(event, StreamFailed):
                self.text += f" [{type(event.error).__name__}: {event.error}]"
        if self.exchange.done and self.transport is not None:
            # Nothing more is wanted of this connection; `connectionLost` follows.
            cast(Any, self.transport).abortConnection()

    def finish(self) -> None:
        self.stop_timer()
        self.answer.callback(self.text)


async def ask(reactor: Any, question: str) -> str:
    """The answer; it ends with its error, if it failed."""
    request, reply = ENDPOINT.prepare(
        ChatRequest(messages=question, model="gpt-4", stream=True), api_key=os.environ["OPENAI_API_KEY"]
    )
    url = request.parts
    if url.scheme != "http":
        raise ConfigurationError("this program speaks no TLS: see twisted.internet.endpoints.wrapClientTLS")
    deadlines = Deadlines(TIMEOUT, time.monotonic())
    chat = Chat(reactor, HTTP1Exchange(request, reply), deadlines)
    left = deadlines.wait_until(time.monotonic()) - time.monotonic()
    server: Any = HostnameEndpoint(reactor, url.host.encode(), url.port, timeout=left)
    try:
        await server.connect(Factory.forProtocol(lambda: chat))
    except Exception as error:
        chat.take(chat.exchange.fail(ConnectError(f"no connection to {url.authority}: {error or 'in time'}")))
        return chat.text
    return await chat.answer


async def main(reactor: Any, *questions: str) -> None:
    answers = await gatherResults([Deferred.fromCoroutine(ask(reactor, each)) for each in questions])
    print(*answers, sep="\n")


if __name__ == "__main__":
    react(main, sys.argv[1:] or ["Say hello.", "Say it again."])
