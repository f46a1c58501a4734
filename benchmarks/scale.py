"""Thousands of streams open at once in one process, on asyncio: memory a stream, and the delay that a client adds.

For each contestant a process of its own opens all streams evenly over a while. When all have begun, and before any has
ended, the memory of the process is looked at; from then on to the end of the first one each token tells how long ago
it was sent, by the time that is in it. (Server and clients are on one machine, and share its clock.) Each stream is
read to its end, and its text is checked against the checksum in its last token: one that is lost stops the run.

The raw protocol finds the times in the bytes, and does nothing else; what it needs a stream is the least that a stream
can cost (asyncio's transport, a task), and its delays are what the server and a loop with that many sockets need.

``python scale.py KIND URL STREAMS TOKENS OPENED TRACED`` is such a process: it prints one JSON object.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import statistics
import subprocess
import sys
import time
import tracemalloc
import zlib
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import _peers as peers
import anyio
from _measure import Line, resident
from _server import open_files, server

_RAW, _WIRE, _ADDED = "asyncio.Protocol", "wire", "wire over raw"


class _Size(NamedTuple):
    streams: int
    tokens: int
    pace: float
    opened: float
    """How many streams are opened a second: so that all are open for a good part of their time."""
    rounds: int


_SIZE = _Size(5_000, 22, 1.0, 700.0, 3)
_QUICK = _Size(500, 10, 0.4, 500.0, 1)
_TRACED = _Size(500, 10, 1.0, 250.0, 1)
_TRACED_QUICK = _Size(100, 10, 0.4, 200.0, 1)
_WARM_UP = 1.0

# Descriptors that are no streams.
_OTHERS = 100
_BUDGET = 16.0


class _Delays:
    """When each token of all streams was sent, and how long it was on its way, at 16 bytes a token."""

    def __init__(self) -> None:
        self.sent = array("d")
        self.passed = array("d")

    def between(self, begin: float, end: float) -> list[float]:
        """Those of the tokens that were sent then, the least first."""
        return sorted(passed for sent, passed in zip(self.sent, self.passed, strict=True) if begin <= sent < end)


class _Text(peers.Seen):
    """One stream's text so far: its checksum alone, so that no memory is taken but the client's."""

    __slots__ = ("_checksum", "_delays", "_verdict")

    def __init__(self, delays: _Delays) -> None:
        super().__init__()
        self._checksum = 0
        self._delays = delays
        self._verdict = ""

    def note(self, content: str) -> None:
        """A token has come."""
        now = time.monotonic()
        self.tokens += 1
        number, _, sent = content[1:].partition(" ")
        if not sent:
            self._verdict = "whole" if int(number) == self._checksum else "not what was sent"
        elif int(number) != self.tokens:
            self._verdict = f"without its token {self.tokens}"
        else:
            self._checksum = zlib.crc32(content.encode(), self._checksum)
            self._delays.sent.append(float(sent))
            self._delays.passed.append(now - float(sent))

    def check(self, tokens: int) -> None:
        """That it is all there, and nothing else."""
        if self._verdict != "whole" or self.tokens != tokens:
            raise RuntimeError(f"a stream's text is {self._verdict or 'not whole'}: {self.tokens} tokens of {tokens}")


class _RawText(peers.Reader):
    """Finds the contents in the bytes."""

    _find = re.compile(rb'"content":"([^"]+)"')

    def __init__(self, request: bytes, seen: peers.Seen) -> None:
        super().__init__(request, seen)
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        assert isinstance(self.seen, _Text)
        # A token may come in two parts.
        data = self._rest + data
        whole = data.rfind(b"\n\n") + 1
        for content in self._find.findall(data, 0, whole):
            self.seen.note(content.decode())
        self._rest = data[whole:]
        if data.endswith(b"0\r\n\r\n"):
            self.finish()


@asynccontextmanager
async def _by_wire(url: str) -> AsyncIterator[peers.AsyncRead]:
    async with peers.aasking(url, "wire") as ask:

        async def read(seen: peers.Seen) -> None:
            assert isinstance(seen, _Text)
            async for chunk in ask():
                if content := chunk.choices[0].delta.content:
                    seen.note(content)

        yield read


async def _hold(kind: str, url: str, streams: int, tokens: int, opened: float, traced: bool) -> dict[str, Any]:
    """Open the streams and read them to their ends."""
    peer = _by_wire(url) if kind == _WIRE else peers.by_protocol(url, _RawText)
    delays = _Delays()
    every = [_Text(delays) for _ in range(streams)]
    ended: list[float] = []

    def memory() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] if traced else resident()

    async with peer as read:
        # What is made once is no stream's.
        with anyio.move_on_after(_WARM_UP):
            await read(_Text(_Delays()))
        if traced:
            tracemalloc.start()
        before, begin = memory(), time.monotonic()

        async def one(number: int) -> None:
            await asyncio.sleep(begin + number / opened - time.monotonic())
            await read(every[number])
            ended.append(time.monotonic())

        tasks = [asyncio.create_task(one(number)) for number in range(streams)]
        while any(text.tokens < 2 for text in every):  # noqa: ASYNC110 (an event would cost something for each token)
            await asyncio.sleep(0.1)
        held = memory() - before
        # The collection above is nobody's delay.
        all_open = time.monotonic() + 0.5
        if ended:
            raise RuntimeError("streams ended before all were open: open them faster, or let them have more tokens")
        await asyncio.gather(*tasks)
    for text in every:
        text.check(tokens)
    window = delays.between(all_open, ended[0])
    return {
        "held": held / streams,
        "median": statistics.median(window),
        "p99": window[len(window) * 99 // 100],
        "tokens": len(window),
    }


def _run(kind: str, size: _Size, traced: bool = False) -> dict[str, float]:
    """One process."""
    with server(size.tokens, size.pace) as url:
        given = (kind, url, size.streams, size.tokens, size.opened, int(traced))
        process = subprocess.run([sys.executable, __file__, *map(str, given)], stdout=subprocess.PIPE, check=True)
    result: dict[str, float] = json.loads(process.stdout)
    return result


def _against(what: str, unit: str, scale: float, runs: dict[str, list[float]], budget: float | None = None) -> Line:
    """Ours is what the wire adds."""
    added = [wire - raw for wire, raw in zip(runs[_WIRE], runs[_RAW], strict=True)]
    return Line(
        what,
        unit=unit,
        costs={_ADDED: added, **runs},
        ours=_ADDED,
        floor=_RAW,
        scale=scale,
        budget=budget,
        absolute=budget is not None,
    )


def measure(quick: bool) -> list[Line]:
    """Memory by what the system says, and by what Python's allocators say; delays in the middle and at the worst."""
    size, traced_size = (_QUICK, _TRACED_QUICK) if quick else (_SIZE, _TRACED)
    size = size._replace(streams=min(size.streams, open_files() - _OTHERS))
    runs = [{kind: _run(kind, size) for kind in (_RAW, _WIRE)} for _ in range(size.rounds)]
    traced = {kind: [_run(kind, traced_size, traced=True)["held"]] for kind in (_RAW, _WIRE)}

    def of(figure: str) -> dict[str, list[float]]:
        return {kind: [run[kind][figure] for run in runs] for kind in (_RAW, _WIRE)}

    kib, streams = 1 / 1024, f"{size.streams:,} streams"
    return [
        _against(f"{streams}: memory of each", "KiB", kib, of("held"), _BUDGET),
        _against(f"{traced_size.streams:,} streams: memory of each, by tracemalloc", "KiB", kib, traced, _BUDGET),
        _against(f"{streams}, a token each {size.pace:g} s: delay, median", "ms", 1e3, of("median")),
        _against(f"{streams}, a token each {size.pace:g} s: delay, p99", "ms", 1e3, of("p99")),
    ]


if __name__ == "__main__":
    open_files()
    _kind, _url, *_numbers = sys.argv[1:]
    _streams, _tokens, _opened, _traced = map(float, _numbers)
    print(json.dumps(asyncio.run(_hold(_kind, _url, int(_streams), int(_tokens), _opened, bool(_traced)))))
