"""The two loops that run a plan: one that blocks, one that awaits."""

from __future__ import annotations

import inspect
import time
from typing import TYPE_CHECKING, Any

from deltawire.protocol import ConfigurationError, GiveUp, Send

if TYPE_CHECKING:
    from deltawire.transports import AsyncExchange, AsyncTransport, Exchange, Transport

    from .calls import Attempt, Call


def run(call: Call, transport: Transport) -> tuple[Attempt, Exchange, int]:
    """Attempt until one succeeds: gives it, its exchange (still open), and how many retries came before."""
    plan = call.plan()
    effect: Any = next(plan)
    retries = 0
    while not isinstance(effect, GiveUp):
        if not isinstance(effect, Send):
            time.sleep(effect.seconds)
            retries += 1
            effect = plan.send(None)
            continue
        attempt = call.attempt(_key(call.settings.api_key), effect.url)
        exchange = transport.open(attempt.request, attempt.reply, attempt.deadlines, proxy=attempt.proxy)
        try:
            outcome = attempt.outcome(exchange.next_events())
            while outcome is None:
                outcome = attempt.outcome(exchange.next_events())
        except BaseException:
            exchange.close()
            raise
        if outcome.error is None:
            return attempt, exchange, retries
        exchange.close()
        effect = plan.send(outcome)
    raise effect.error


async def arun(call: Call, transport: AsyncTransport) -> tuple[Attempt, AsyncExchange, int]:
    """As `run`."""
    plan = call.plan()
    effect: Any = next(plan)
    retries = 0
    while not isinstance(effect, GiveUp):
        if not isinstance(effect, Send):
            # Not at the head of the module: it takes long to load, and sync programs never need it.
            import anyio

            await anyio.sleep(effect.seconds)
            retries += 1
            effect = plan.send(None)
            continue
        attempt = call.attempt(await _akey(call.settings.api_key), effect.url)
        exchange = transport.open(attempt.request, attempt.reply, attempt.deadlines, proxy=attempt.proxy)
        try:
            outcome = attempt.outcome(await exchange.next_events())
            while outcome is None:
                outcome = attempt.outcome(await exchange.next_events())
        except BaseException:
            await exchange.aclose()
            raise
        if outcome.error is None:
            return attempt, exchange, retries
        await exchange.aclose()
        effect = plan.send(outcome)
    raise effect.error


def _key(api_key: Any) -> str | None:
    key = api_key() if callable(api_key) else api_key
    if inspect.isawaitable(key):
        if inspect.iscoroutine(key):
            key.close()
        raise ConfigurationError("api_key gives an awaitable: that needs AsyncClient")
    return key  # type: ignore[no-any-return]


async def _akey(api_key: Any) -> str | None:
    key = api_key() if callable(api_key) else api_key
    return await key if inspect.isawaitable(key) else key  # type: ignore[no-any-return]
