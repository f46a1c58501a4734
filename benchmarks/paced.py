"""Many streams at once, a token each 100 or 500 ms, on asyncio: the CPU time of the client, a token.

This is what a program does that talks to many models: nothing comes in bulk, each token is one turn of the
loop, one read, one event. Each measurement opens its streams evenly over a while, waits until all have
begun, and then counts CPU time and tokens over a window of time; what connecting and closing cost is not in it.

A client that can't keep up, or a server that stalls and then catches up, makes several tokens come in one
read, which makes each of them cheaper than it is. Where that happened the line says what share of the tokens
that were due the client saw.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

import _peers as peers
from _measure import Costs, Line, ainterleaved, settle
from _server import server

_OURS, _FLOOR, _RAW = "deltawire", "httpcore", "asyncio.Protocol"

CONTESTANTS: dict[str, peers.AsyncPeer] = {
    _FLOOR: peers.abare_httpcore,
    _OURS: peers.adeltawire,
    _RAW: peers.raw_protocol,
    "httpcore without time-outs": peers.abare_httpcore_without_timeouts,
    "aiohttp + json": peers.aaiohttp,
    "OpenAI SDK": peers.aopenai_sdk,
}

# Longer than any measurement: the readers are stopped, not the server.
_TOKENS = 600
# How many streams are opened a second.
_OPENED = 400.0
# Of the tokens that were due, by how much the share that came may differ from all.
_TOLERATED = 0.05


class _Load(NamedTuple):
    streams: int
    pace: float
    window: float
    rounds: int
    without: tuple[str, ...] = ()


# 5,000 tokens a second are more than the OpenAI SDK can take: it needs a minute to get 500 streams to begin.
_LOADS = (_Load(100, 0.1, 1.2, 9), _Load(500, 0.5, 1.5, 5), _Load(500, 0.1, 1.2, 5, ("OpenAI SDK",)))
_QUICK = (_Load(100, 0.1, 0.6, 2),)


async def _run(read: peers.AsyncRead, load: _Load) -> tuple[float, float]:
    """CPU seconds a token, and the share of the tokens that came in time."""
    every = [peers.Seen() for _ in range(load.streams)]
    begin = time.monotonic()

    async def one(number: int) -> None:
        await asyncio.sleep(max(begin + number / _OPENED - time.monotonic(), 0.0))
        await read(every[number])

    tasks = [asyncio.create_task(one(number)) for number in range(load.streams)]
    try:
        # Two tokens: then the head is past, and what comes is nothing but tokens.
        while any(seen.tokens < 2 for seen in every):
            _raise(task for task in tasks if task.done())
            await asyncio.sleep(0.05)
        settle()
        # What piled up meanwhile is read first.
        await asyncio.sleep(0.1)
        before, begin_cpu, begin_wall = sum(seen.tokens for seen in every), time.process_time(), time.monotonic()
        await asyncio.sleep(load.window)
        spent, passed = time.process_time() - begin_cpu, time.monotonic() - begin_wall
        tokens = sum(seen.tokens for seen in every) - before
        _raise(task for task in tasks if task.done())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # The server's part of closing is not to fall into the next one's window.
        await asyncio.sleep(0.3)
    return spent / tokens, tokens / (load.streams * passed / load.pace)


def _raise(done: Iterable[asyncio.Task[None]]) -> None:
    for task in done:
        task.result()
        raise RuntimeError("a stream ended before its time")


async def _measure(url: str, load: _Load) -> tuple[Costs, dict[str, str]]:
    contestants = {name: peer for name, peer in CONTESTANTS.items() if name not in load.without}
    shares: dict[str, list[float]] = {name: [] for name in contestants}
    async with contextlib.AsyncExitStack() as stack:

        def one(name: str, read: peers.AsyncRead) -> Callable[[], Awaitable[float]]:
            async def measure() -> float:
                cost, share = await _run(read, load)
                shares[name].append(share)
                return cost

            return measure

        ready = {}
        for name, peer in contestants.items():
            ready[name] = one(name, await stack.enter_async_context(peer(url)))
        costs = await ainterleaved(ready, load.rounds)
    # The first round is not counted.
    worst = {name: max(each[1:], key=lambda share: abs(share - 1.0)) for name, each in shares.items()}
    notes = {name: f"saw {share:.0%}" for name, share in worst.items() if abs(share - 1.0) > _TOLERATED}
    return costs, notes


def measure(quick: bool) -> list[Line]:
    """100 streams and 500, over bare httpcore and over the raw protocol."""
    lines = []
    for load in _QUICK if quick else _LOADS:
        with server(_TOKENS, load.pace) as url:
            costs, notes = asyncio.run(_measure(url, load))
        for floor, budget in ((_FLOOR, 1.1), (_RAW, None)):
            label = f"{load.streams} streams, each {load.pace * 1000:g} ms" + (", over raw" if floor == _RAW else "")
            line = Line(
                subject=label, unit="us/token", costs=costs, ours=_OURS, floor=floor, budget=budget, notes=notes
            )
            lines.append(line)
    return lines
