"""`deltawire.testing.ChatServer` in a process of its own, so that its CPU time is not ours.

``python _server.py TOKENS PACE`` prints its URL and serves until its standard input ends. With a pace it
streams a token each so many seconds; with 0 it sends the whole reply, which it has ready as bytes, as fast
as the socket takes it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import _data

from deltawire.testing import Answer, ChatServer

# More requests than any run makes.
_REQUESTS = 10_000


@contextlib.contextmanager
def server(tokens: int, pace: float = 0.0) -> Iterator[str]:
    """Run it; gives the base URL."""
    command = [sys.executable, __file__, str(tokens), str(pace)]
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


def _serve(tokens: int, pace: float) -> None:
    words = [f" w{number % 10_000:04}" for number in range(tokens)]
    with ChatServer(tokens=words, pace=pace, model=_data.MODEL) as chat:
        if not pace:
            chat.plan(*[Answer(raw=_data.raw_reply(tokens), keep_open=True)] * _REQUESTS)
        print(chat.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), float(sys.argv[2]))
