"""Servers in a process of their own, so that their CPU time is not ours.

``python _server.py TOKENS PACE PADDING`` prints its URL and serves until its standard input ends. With 0 for the pace
it is `deltawire.testing.ChatServer`, which sends the whole reply, ready as bytes, as fast as the socket takes it, each
event with so many bytes more. With a pace it is `_Paced`: a token each so many seconds, on thousands of connections.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
import resource
import select
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator

import _data

from deltawire.testing import Answer, ChatServer

# More requests than any run makes.
_REQUESTS = 10_000


@contextlib.contextmanager
def server(tokens: int, pace: float = 0.0, padding: int = 0) -> Iterator[str]:
    """Run it; gives the base URL."""
    command = [sys.executable, __file__, str(tokens), str(pace), str(padding)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError("the server did not start: see its words above")
        yield url
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def open_files() -> int:
    """Let this process have as many open files as it may; gives that number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class _Connection:
    """A client, and how far its reply is."""

    __slots__ = ("checksum", "done", "left", "request", "socket")

    def __init__(self, client: socket.socket) -> None:
        self.socket = client
        self.request = b""
        # What the system did not take.
        self.left = b""
        # How many tokens were sent, or None while the request is awaited.
        self.done: int | None = None
        self.checksum = 0

    def next_token(self, tokens: int) -> bytes:
        """The next one of so many, and after the last one the end."""
        assert self.done is not None
        self.done += 1
        if self.done < tokens:
            content = f" {self.done} {time.monotonic():.6f}"
            self.checksum = zlib.crc32(content.encode(), self.checksum)
            return _data.chunk(_data.event(_data.payload_of(content)))
        return _data.chunk(_data.event(_data.payload_of(f" {self.checksum}"))) + _data.ENDING


class _Paced:
    """Replies whose tokens are due at times of their own, on one thread, which does little more for each than send it.

    Each token is one send, when it is due, not when a timer of milliseconds comes round: else many clients' tokens
    would come together. Where in its pace a reply begins is left to chance, for the same reason. A token's content
    is its number and the time at which it was sent (`time.monotonic`); the last one's, the CRC-32 of all the others.
    """

    def __init__(self, tokens: int, pace: float) -> None:
        self._tokens = tokens
        self._pace = pace
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self._poll = select.epoll()
        self._clients: dict[int, _Connection] = {}
        # (When the next token is due, a number that decides between equals, whose.)
        self._due: list[tuple[float, int, _Connection]] = []
        self._count = itertools.count()
        self._chance = random.Random(7)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def serve(self) -> None:
        """Until standard input ends."""
        self._poll.register(self._listener, select.EPOLLIN)
        self._poll.register(sys.stdin, select.EPOLLIN)
        looked = 0.0
        while True:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                self._send(*self._due[0])
            wait = self._due[0][0] - time.monotonic() if self._due else 0.05
            # epoll counts in milliseconds: between two tokens one sleeps, and looks at the clients now and then.
            if now - looked >= 0.002 or wait >= 0.002:
                looked = now
                for descriptor, _ in self._poll.poll(max(wait - 0.001, 0.0)):
                    if descriptor == sys.stdin.fileno():
                        return
                    self._look(descriptor)
            elif wait > 0:
                time.sleep(wait)

    def _look(self, descriptor: int) -> None:
        if descriptor == self._listener.fileno():
            with contextlib.suppress(BlockingIOError):
                while True:
                    client, _ = self._listener.accept()
                    client.setblocking(False)
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._clients[client.fileno()] = _Connection(client)
                    self._poll.register(client, select.EPOLLIN)
            return
        connection = self._clients[descriptor]
        try:
            data = connection.socket.recv(_data.READ)
        except OSError:
            data = b""
        connection.request += data
        if not data:
            del self._clients[descriptor]
            connection.socket.close()
        elif connection.done is None and _is_whole(connection.request):
            connection.request, connection.done, connection.checksum = b"", 0, 0
            connection.left = _data.BEGINNING
            first = time.monotonic() + self._pace * self._chance.random()
            heapq.heappush(self._due, (first, next(self._count), connection))

    def _send(self, due: float, number: int, connection: _Connection) -> None:
        """The next token, or what is left of the last one."""
        heapq.heappop(self._due)
        assert connection.done is not None
        data = connection.left
        if connection.done < self._tokens:
            data += connection.next_token(self._tokens)
        try:
            connection.left = data[connection.socket.send(data) :]
        except BlockingIOError:
            connection.left = data
        except OSError:
            # `_look` sees that it is gone.
            return
        if connection.done < self._tokens or connection.left:
            heapq.heappush(self._due, (due + self._pace, number, connection))
        else:
            connection.done = None


def _is_whole(request: bytes) -> bool:
    """Whether the whole of it is there: the head, and a body with the length that that gives."""
    head, blank, body = request.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
    return bool(blank) and len(body) == int(length)


def _serve(tokens: int, pace: float, padding: int) -> None:
    if pace:
        open_files()
        paced = _Paced(tokens, pace)
        print(paced.url, flush=True)
        paced.serve()
        return
    with ChatServer(model=_data.MODEL) as chat:
        chat.plan(*[Answer(raw=_data.raw_reply(tokens, padding), keep_open=True)] * _REQUESTS)
        print(chat.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
