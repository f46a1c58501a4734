"""A slow reader of a fast stream of 100 MB: the memory that the process comes to have, sync, asyncio and trio.

The server sends as fast as it may: events of 16 KiB, most of it a vendor's field, so that the text stays small. The
reader takes a while for each, and every now and then stops for longer, so that there is always more than it takes. All
that is not held up on its way is in memory. Peaks are over what the process had when the client was ready: by what the
system says of it, and, in a run of its own, by what Python's allocators say. Each chunk is looked at: one that is lost
stops the run.

``python slow.py WAY URL TOKENS TRACED`` is such a process: it prints the bytes.
"""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc

import _data
import _peers as peers
import anyio
from _measure import Line, resident, settle
from _server import server

_OURS, _STREAM = "wire", "the stream"
_WAYS = ("sync", "asyncio", "trio")
_PADDING = 16 * 1024
_TOKENS, _FEW = 6_300, 400

# Seconds that the reader takes for each, and every so often.
_TAKES = 0.0005
_STOPS, _EVERY = 0.1, 200

# As much may be held, besides the text. On asyncio a read takes 256 KiB at once, and is held several times while its
# bytes become the chunks of as much again, for which the reader has not asked yet.
_BUDGET = 2.0
_MIB = 1 / 1024 / 1024


class _Watched(peers.Seen):
    """Which tokens have come, and the most memory that was seen."""

    __slots__ = ("_before", "_peak", "_traced")

    def __init__(self, traced: bool) -> None:
        super().__init__()
        self._traced = traced
        self._before = self._peak = 0

    def begin(self) -> None:
        """What is made once has been made."""
        settle()
        if self._traced:
            tracemalloc.start()
        else:
            self._before = resident()

    def note(self, content: str, vendor: str) -> float:
        """A token has come. Gives how long its reader is to take for it."""
        if content != _data.word(self.tokens) or len(vendor) != _PADDING:
            raise RuntimeError(f"token {self.tokens} is {content!r}, with {len(vendor)} bytes more")
        self.tokens += 1
        if not self._traced:
            self._peak = max(self._peak, resident() - self._before)
        return _STOPS if self.tokens % _EVERY == 0 else _TAKES

    def most(self, tokens: int) -> int:
        """The most bytes; once all has come."""
        if self.tokens != tokens:
            raise RuntimeError(f"{self.tokens} tokens of {tokens}")
        return tracemalloc.get_traced_memory()[1] if self._traced else self._peak


def _sync(url: str, watched: _Watched) -> None:
    with peers.asking(url, "wire") as ask:
        with ask() as first:
            next(first)
        watched.begin()
        for chunk in ask():
            if content := chunk.choices[0].delta.content:
                time.sleep(watched.note(content, chunk.model_extra["padding"]))


async def _async(url: str, watched: _Watched) -> None:
    async with peers.aasking(url, "wire") as ask:
        async with ask() as first:
            await anext(first)
        watched.begin()
        async for chunk in ask():
            if content := chunk.choices[0].delta.content:
                await anyio.sleep(watched.note(content, chunk.model_extra["padding"]))


def _read(way: str, url: str, tokens: int, traced: bool) -> int:
    """What this process does: gives the most bytes that it had."""
    watched = _Watched(traced)
    if way == "sync":
        _sync(url, watched)
    else:
        anyio.run(_async, url, watched, backend=way)
    return watched.most(tokens)


def _run(way: str, url: str, tokens: int, traced: bool) -> float:
    """One process."""
    given = (way, url, tokens, int(traced))
    process = subprocess.run([sys.executable, __file__, *map(str, given)], stdout=subprocess.PIPE, check=True)
    return float(process.stdout)


def measure(quick: bool) -> list[Line]:
    """Each way, by what the system says and by what Python's allocators say."""
    tokens = _FEW if quick else _TOKENS
    size = len(_data.raw_reply(tokens, _PADDING))
    with server(tokens, padding=_PADDING) as url:
        return [
            Line(
                f"{way}: at most held of {size * _MIB:.0f} MiB, by {'tracemalloc' if traced else 'the system'}",
                unit="MiB",
                scale=_MIB,
                costs={_OURS: [_run(way, url, tokens, traced)], _STREAM: [size]},
                ours=_OURS,
                floor=_STREAM,
                budget=_BUDGET,
                absolute=True,
            )
            for way in _WAYS
            for traced in (False, True)
        ]


if __name__ == "__main__":
    print(_read(sys.argv[1], sys.argv[2], int(sys.argv[3]), bool(int(sys.argv[4]))))
