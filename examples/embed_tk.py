"""Tk's own loop, without threads: a window stays alive while answers stream into it. (`tkinter.Tcl()` stands for the
window here, as that needs no screen; with `tkinter.Tk()` all is the same.)"""

import os
import socket
import sys
import time
import tkinter
from typing import Any

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


class Call:
    """One question. ``text`` is a variable of Tk, which a label may show."""

    def __init__(self, window: tkinter.Tk, question: str) -> None:
        chat = ChatRequest(messages=question, model="gpt-4", stream=True)
        request, reply = ENDPOINT.prepare(chat, api_key=os.environ["OPENAI_API_KEY"])
        if request.parts.scheme != "http":
            raise ConfigurationError("this program speaks no TLS")
        self.window, self.text = window, tkinter.StringVar(window)
        self.exchange = HTTP1Exchange(request, reply)
        self.outgoing = memoryview(self.exchange.data_to_send())
        self.deadlines = Deadlines(TIMEOUT, time.monotonic())
        self.contents = 0
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.timer = ""
        self.set_timer()
        try:
            # (A name would be looked up now, and hold up the window: give an address.)
            self.sock.connect((request.parts.host, request.parts.port))
        except BlockingIOError:
            pass
        except OSError as error:
            self.take(self.exchange.fail(ConnectError(f"no connection: {error}")))
            return
        window.createfilehandler(self.sock, tkinter.WRITABLE, self.connected)

    def connected(self, *_: Any) -> None:
        """The connection stands, or there is none."""
        if code := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.take(self.exchange.fail(ConnectError(f"no connection: {os.strerror(code)}")))
            return
        self.deadlines.connected(time.monotonic())
        self.set_timer()
        self.window.createfilehandler(self.sock, tkinter.READABLE | tkinter.WRITABLE, self.ready)

    def ready(self, _: Any, mask: int) -> None:
        """The socket can be read, or written to, or both."""
        if mask & tkinter.READABLE:
            self.read()
        if mask & tkinter.WRITABLE and not self.exchange.done:
            self.write()

    def write(self) -> None:
        try:
            self.outgoing = self.outgoing[self.sock.send(self.outgoing) :]
        except BlockingIOError:
            pass
        except OSError:
            # Whoever takes no more may have answered all the same: read on.
            self.outgoing = memoryview(b"")
        if not self.outgoing:
            self.window.createfilehandler(self.sock, tkinter.READABLE, self.ready)

    def read(self) -> None:
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self.take(self.exchange.fail(error))
        else:
            self.take(self.exchange.receive(data) if data else self.exchange.end())

    def set_timer(self) -> None:
        if self.timer:
            self.window.after_cancel(self.timer)
        now = time.monotonic()
        self.timer = self.window.after(int((self.deadlines.wait_until(now) - now) * 1000) + 1, self.late)

    def late(self) -> None:
        """The timer has run out. Content that has come meanwhile may have moved the deadline; else there is one moment
        left, for bytes that Tk has not told of yet."""
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
                self.text.set(self.text.get() + "".join(choice.delta.content or "" for choice in event.choices))
            elif isinstance(event, StreamFailed):
                self.text.set(f"{self.text.get()} [{type(event.error).__name__}: {event.error}]")
        if self.exchange.done:
            self.close()

    def close(self) -> None:
        """Done with, or given up. Idempotent."""
        if self.sock.fileno() >= 0:
            self.window.deletefilehandler(self.sock)
            self.sock.close()
        self.window.after_cancel(self.timer)


def main(questions: list[str]) -> None:
    window = tkinter.Tcl()
    calls = [Call(window, question) for question in questions]
    try:
        # In a program with a window: window.mainloop().
        while not all(call.exchange.done for call in calls):
            window.tk.dooneevent(0)
    finally:
        for call in calls:
            call.close()
    print(*[call.text.get() for call in calls], sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:] or ["Say hello.", "Say it again."])
