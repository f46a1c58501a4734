"""Many streams in one thread, by a loop of one's own over `selectors`: sockets that never block, writes that take a
part only, deadlines. (http:// only: TLS is the caller's, and this caller has none.)"""

import os
import selectors
import socket
import sys
import time

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
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Call:
    """One question: its connection, its deadlines, and the answer so far."""

    def __init__(self, selector: selectors.BaseSelector, question: str) -> None:
        chat = ChatRequest(messages=question, model="gpt-4", stream=True)
        request, reply = ENDPOINT.prepare(chat, api_key=os.environ["OPENAI_API_KEY"])
        if request.parts.scheme != "http":
            raise ConfigurationError("this program speaks no TLS")
        self.host, self.port = request.parts.host, request.parts.port
        self.selector = selector
        self.exchange = HTTP1Exchange(request, reply)
        self.outgoing = memoryview(self.exchange.data_to_send())
        self.deadlines = Deadlines(TIMEOUT, time.monotonic())
        self.contents, self.text, self.error = 0, "", ""
        self.sock: socket.socket | None = None
        self.connected = False

    def connect(self) -> None:
        """Begin to connect. (To look the name up blocks; who can't have that gives an address.)"""
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
            self.sock = socket.socket(family, kind, protocol)
            self.selector.register(self.sock, WRITE, self)
            self.sock.setblocking(False)
            self.sock.connect(address)
        except BlockingIOError:
            pass
        except OSError as error:
            self.take(self.exchange.fail(ConnectError(f"no connection to {self.host}: {error}")))

    def ready(self, sock: socket.socket, mask: int) -> None:
        """The socket can be read, or written to, or both."""
        if mask & READ:
            self.read(sock)
        if mask & WRITE and not self.exchange.done:
            self.write(sock)

    def write(self, sock: socket.socket) -> None:
        if not self.connected:
            if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.take(self.exchange.fail(ConnectError(f"no connection to {self.host}: {os.strerror(code)}")))
                return
            self.connected = True
            self.deadlines.connected(time.monotonic())
        try:
            self.outgoing = self.outgoing[sock.send(self.outgoing) :]
        except BlockingIOError:
            pass
        except OSError:
            # Whoever takes no more may have answered all the same: read on.
            self.outgoing = memoryview(b"")
        self.selector.modify(sock, READ | WRITE if self.outgoing else READ, self)

    def read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self.take(self.exchange.fail(error))
        else:
            self.take(self.exchange.receive(data) if data else self.exchange.end())

    def late(self) -> None:
        """What had come is read, and the time is up."""
        self.take(self.exchange.fail(self.deadlines.error(self.exchange.reply.context.where())))

    def take(self, events: list[Event]) -> None:
        if self.exchange.reply.contents > self.contents:
            self.contents = self.exchange.reply.contents
            self.deadlines.content(time.monotonic())
        for event in events:
            if isinstance(event, ChatCompletionChunk):
                self.text += "".join(choice.delta.content or "" for choice in event.choices)
            elif isinstance(event, StreamFailed):
                self.error = f" [{type(event.error).__name__}: {event.error}]"
        if self.exchange.done:
            self.close()

    def close(self) -> None:
        """Done with, or given up."""
        if self.sock is not None:
            self.selector.unregister(self.sock)
            self.sock.close()
            self.sock = None


def ask(questions: list[str]) -> list[str]:
    """The answers, all asked for at once; each ends with its error, if it failed."""
    with selectors.DefaultSelector() as selector:
        calls = [Call(selector, question) for question in questions]
        try:
            for call in calls:
                call.connect()
            while waiting := [call for call in calls if not call.exchange.done]:
                now = time.monotonic()
                # (Of thousands of streams one would keep the deadlines in a heap.)
                until = min(call.deadlines.wait_until(now) for call in waiting)
                for key, mask in selector.select(until - now):
                    key.data.ready(key.fileobj, mask)
                now = time.monotonic()
                for call in waiting:
                    # (At its deadline it has one more moment, for what has come since the selector looked.)
                    if call.deadlines.wait_until(now) <= now and not call.exchange.done:
                        call.late()
        finally:
            for call in calls:
                call.close()
    return [call.text + call.error for call in calls]


if __name__ == "__main__":
    print(*ask(sys.argv[1:] or ["Say hello.", "Say it again."]), sep="\n")
