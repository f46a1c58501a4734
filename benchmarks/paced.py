"""Many streams at once, a token each 50 to 500 ms, on asyncio and trio: the CPU time of the client, a token.

This is what a program does that talks to many models: nothing comes in bulk, each token is one turn of the
loop, one read, one event. Each measurement opens its streams evenly over a while, waits until all have
begun, and then counts CPU time and tokens over a window of time; what connecting and closing cost is not in it.

A client that can't keep up, or a server that stalls and then catches up, makes several tokens come in one
read, which makes each of them cheaper than it is. Where that happened the line says what share of the tokens
that were due the client saw.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Collection
from typing import NamedTuple

import _peers as peers
import anyio
from _measure import Costs, Line, ainterleaved, settle
from _server import open_files, server

_WIRE, _RAW, _TRIO = "wire", "asyncio.Protocol", "trio.SocketStream"
_CORE, _BARE = "httpcore transport", "bare httpcore"
_AIOHTTP, _SDK = "aiohttp + json", "OpenAI SDK"
_NO_TIMEOUTS = "bare httpcore without time-outs"

ASYNCIO: dict[str, peers.AsyncPeer] = {
    _RAW: peers.raw_protocol,
    _WIRE: peers.awire,
    _AIOHTTP: peers.aaiohttp,
    _BARE: peers.abare_httpcore,
    _CORE: peers.adeltawire,
    _NO_TIMEOUTS: peers.abare_httpcore_without_timeouts,
    _SDK: peers.aopenai_sdk,
}
TRIO: dict[str, peers.AsyncPeer] = {_TRIO: peers.raw_trio, _WIRE: peers.awire}


class _Comparison(NamedTuple):
    ours: str
    floor: str
    budget: float


_BUDGETS = {
    "asyncio": (
        _Comparison(_WIRE, _RAW, 2.1),
        _Comparison(_WIRE, _AIOHTTP, 1.0),
        _Comparison(_WIRE, _SDK, 1 / 7),
        _Comparison(_CORE, _BARE, 1.1),
    ),
    "trio": (_Comparison(_WIRE, _TRIO, 1.5),),
}

# Longer than any measurement: the readers are stopped, not the server.
_TOKENS = 2_000
# How many streams are opened a second.
_OPENED = 400.0
# Of the tokens that were due, by how much the share that came may differ from all.
_TOLERATED = 0.05


class _Load(NamedTuple):
    streams: int
    pace: float
    window: float
    rounds: int
    who: Collection[str]


_ALL = frozenset(ASYNCIO)
# More than some 3,000 tokens a second are too many for the OpenAI SDK: it needs minutes to get the streams to begin.
_LOADS = (
    _Load(100, 0.1, 1.2, 7, _ALL),
    _Load(100, 0.05, 1.2, 7, {_RAW, _WIRE, _AIOHTTP}),
    _Load(1_000, 0.5, 1.5, 4, _ALL - {_NO_TIMEOUTS}),
    _Load(1_000, 0.2, 1.5, 4, _ALL - {_NO_TIMEOUTS, _SDK}),
)
_QUICK = (_Load(100, 0.1, 0.6, 2, _ALL),)


async def _run(read: peers.AsyncRead, load: _Load) -> tuple[float, float]:
    """CPU seconds a token, and the share of the tokens that came in time."""
    every = [peers.Seen() for _ in range(load.streams)]
    begin = time.monotonic()

    async def one(number: int) -> None:
        await anyio.sleep(max(begin + number / _OPENED - time.monotonic(), 0.0))
        await read(every[number])
        raise RuntimeError("a stream ended before its time")

    async with anyio.create_task_group() as tasks:
        for number in range(load.streams):
            tasks.start_soon(one, number)
        # Two tokens: then the head is past, and what comes is nothing but tokens.
        while any(seen.tokens < 2 for seen in every):  # noqa: ASYNC110 (an event would cost something for each token)
            await anyio.sleep(0.05)
        settle()
        # What piled up meanwhile is read first.
        await anyio.sleep(0.1)
        before, begin_cpu, begin_wall = sum(seen.tokens for seen in every), time.process_time(), time.monotonic()
        await anyio.sleep(load.window)
        spent, passed = time.process_time() - begin_cpu, time.monotonic() - begin_wall
        tokens = sum(seen.tokens for seen in every) - before
        tasks.cancel_scope.cancel()
    # The server's part of closing is not to fall into the next one's window.
    await anyio.sleep(0.3)
    return spent / tokens, tokens / (load.streams * passed / load.pace)


async def _measure(contestants: dict[str, peers.AsyncPeer], url: str, load: _Load) -> tuple[Costs, dict[str, str]]:
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
    """Each load on asyncio, with all contestants in one run, and on trio."""
    open_files()
    lines = []
    for load in _QUICK if quick else _LOADS:
        asyncio = {name: peer for name, peer in ASYNCIO.items() if name in load.who}
        for way, contestants in (("asyncio", asyncio), ("trio", TRIO)):
            with server(_TOKENS, load.pace) as url:
                costs, notes = anyio.run(_measure, contestants, url, load, backend=way)
            for ours, floor, budget in _BUDGETS[way]:
                if floor in contestants:
                    label = f"{way}, {load.streams:,} x {load.pace * 1000:g} ms: {ours} over {floor}"
                    lines.append(
                        Line(label, unit="us/token", costs=costs, ours=ours, floor=floor, budget=budget, notes=notes)
                    )
    return lines
