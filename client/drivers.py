"""The two loops that run a plan: one that blocks, one that awaits."""

from __future__ import annotations

import inspect
import time
from typing import TYPE_CHECKING, Any

from deltawire.protocol import ConfigurationError, GiveUp, Outcome, Send, Sleep

if TYPE_CHECKING:
    from deltawire.transports import AsyncExchange, AsyncTransport, Exchange, Transport

    from .calls import Attempt, Call
    from .logs import Diary
    from .owners import Owner


def run(call: Call, owner: Owner[Transport]) -> tuple[Attempt, Exchange, int]:
    """Attempt until one succeeds: gives it, its exchange (still open), and how many attempts failed before."""
    plan = call.plan()
    effect: Any = next(plan)
    failures = 0
    diary = _diary(call)
    while not isinstance(effect, GiveUp):
        if isinstance(effect, Sleep):
            time.sleep(effect.seconds)
            effect = plan.send(None)
            continue
        begun: tuple[Attempt, Exchange] | Outcome
        try:
            target = call.target(effect.provider)
            begun = call.begin(effect, target, plain_key(target.key), owner)
        except Exception as error:
            begun = call.not_sent(error)
        if isinstance(begun, Outcome):
            outcome = begun
        else:
            attempt, exchange = begun
            try:
                diary.sends(attempt)
                while (decided := attempt.outcome(exchange.next_events())) is None:
                    pass
                diary.answered(attempt, decided)
            except Exception as error:
                exchange.close()
                decided = call.not_sent(error)
            except BaseException:
                exchange.close()
                raise
            if decided.error is None and attempt.answers:
                return attempt, exchange, failures
            exchange.close()
            outcome = decided
        following = plan.send(outcome)
        failures += _moved_on(effect, following)
        diary.decided(effect, outcome, following)
        effect = following
    raise effect.error


async def arun(call: Call, owner: Owner[AsyncTransport]) -> tuple[Attempt, AsyncExchange, int]:
    """As `run`."""
    plan = call.plan()
    effect: Any = next(plan)
    failures = 0
    diary = _diary(call)
    while not isinstance(effect, GiveUp):
        if isinstance(effect, Sleep):
            # Not at the head of the module: it takes long to load, and sync programs never need it.
            import anyio

            await anyio.sleep(effect.seconds)
            effect = plan.send(None)
            continue
        begun: tuple[Attempt, AsyncExchange] | Outcome
        try:
            target = call.target(effect.provider)
            begun = call.begin(effect, target, await _akey(target.key), owner)
        except Exception as error:
            begun = call.not_sent(error)
        if isinstance(begun, Outcome):
            outcome = begun
        else:
            attempt, exchange = begun
            try:
                diary.sends(attempt)
                while (decided := attempt.outcome(await exchange.next_events())) is None:
                    pass
                diary.answered(attempt, decided)
            except Exception as error:
                await exchange.aclose()
                decided = call.not_sent(error)
            except BaseException:
                await exchange.aclose()
                raise
            if decided.error is None and attempt.answers:
                return attempt, exchange, failures
            await exchange.aclose()
            outcome = decided
        following = plan.send(outcome)
        failures += _moved_on(effect, following)
        diary.decided(effect, outcome, following)
        effect = following
    raise effect.error


def _diary(call: Call) -> Diary:
    # Not at the head of the module: what it says it with is the transports', which load on first use.
    from .logs import Diary

    return Diary(call)


def _moved_on(effect: Any, following: Any) -> bool:
    """Whether the plan has given up an attempt for another one. (A redirect, or a fresh session, is part of it.)"""
    return isinstance(following, Sleep) or (isinstance(following, Send) and following.provider is not effect.provider)


def plain_key(api_key: Any) -> str | None:
    """The key itself, of whatever gives it. Raises `ConfigurationError` where that has to be awaited."""
    key = api_key() if callable(api_key) else api_key
    if inspect.isawaitable(key):
        if inspect.iscoroutine(key):
            key.close()
        raise ConfigurationError("api_key gives an awaitable: that needs AsyncClient")
    return key  # type: ignore[no-any-return]


async def _akey(api_key: Any) -> str | None:
    key = api_key() if callable(api_key) else api_key
    return await key if inspect.isawaitable(key) else key  # type: ignore[no-any-return]
