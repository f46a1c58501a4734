"""One stream at full speed, over a loopback socket: the CPU time of the client, a token.

The server has its reply ready as bytes and is never waited for on the CPU, since only the client's own CPU
time counts. The floor of the wire is a socket and h11, that of the httpcore transport is the loop over the body of bare
httpcore: both look at nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import _peers as peers
import trio
from _measure import Costs, Line, ainterleaved, cpu, interleaved, settle
from _server import server

_WIRE, _H11 = "wire", "bare h11"
_CORE, _BARE = "httpcore transport", "bare httpcore"
_HTTPX, _SDK = "httpx-sse + json", "OpenAI SDK"

SYNC: dict[str, peers.Peer] = {
    _H11: peers.bare_h11,
    _WIRE: peers.wire,
    _BARE: peers.bare_httpcore,
    _CORE: peers.deltawire,
    _HTTPX: peers.httpx_with_sse,
    _SDK: peers.openai_sdk,
}
ASYNC: dict[str, peers.AsyncPeer] = {
    _WIRE: peers.awire,
    _BARE: peers.abare_httpcore,
    _CORE: peers.adeltawire,
    _HTTPX: peers.ahttpx_with_sse,
    _SDK: peers.aopenai_sdk,
}
ASYNCIO: dict[str, peers.AsyncPeer] = {_H11: peers.h11_protocol, **ASYNC, "aiohttp + json": peers.aaiohttp}
TRIO: dict[str, peers.AsyncPeer] = {_H11: peers.h11_trio, **ASYNC}

_BUDGETS = ((_WIRE, _H11, 1.5), (_CORE, _BARE, 1.4))


def _check(name: str, seen: peers.Seen, tokens: int) -> None:
    # The bare ones count pieces of the body, of which there are some more.
    if seen.tokens < tokens or (name not in (_H11, _BARE) and seen.tokens > tokens):
        raise RuntimeError(f"{name} saw {seen.tokens} tokens of {tokens}")


def _sync(url: str, tokens: int, rounds: int) -> Costs:
    with contextlib.ExitStack() as stack:

        def one(name: str, read: peers.Read) -> Callable[[], float]:
            def measure() -> float:
                seen = peers.Seen()
                cost = cpu(lambda: read(seen), tokens)
                _check(name, seen, tokens)
                return cost

            return measure

        return interleaved({name: one(name, stack.enter_context(peer(url))) for name, peer in SYNC.items()}, rounds)


async def _async(contestants: dict[str, peers.AsyncPeer], url: str, tokens: int, rounds: int) -> Costs:
    async with contextlib.AsyncExitStack() as stack:

        def one(name: str, read: peers.AsyncRead) -> Callable[[], Awaitable[float]]:
            async def measure() -> float:
                seen = peers.Seen()
                settle()
                begin = time.process_time()
                await read(seen)
                cost = (time.process_time() - begin) / tokens
                _check(name, seen, tokens)
                return cost

            return measure

        ready = {}
        for name, peer in contestants.items():
            ready[name] = one(name, await stack.enter_async_context(peer(url)))
        return await ainterleaved(ready, rounds)


def measure(quick: bool) -> list[Line]:
    """Sync, asyncio, trio."""
    tokens, rounds = (2_000, 3) if quick else (20_000, 9)
    with server(tokens) as url:
        costs = {
            "sync": _sync(url, tokens, rounds),
            "asyncio": asyncio.run(_async(ASYNCIO, url, tokens, rounds)),
            "trio": trio.run(_async, TRIO, url, tokens, rounds),
        }
    return [
        Line(f"{way}: {ours} over {floor}", unit="us/token", costs=each, ours=ours, floor=floor, budget=budget)
        for way, each in costs.items()
        for ours, floor, budget in _BUDGETS
    ]
