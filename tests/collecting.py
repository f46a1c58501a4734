"""Asking a provider by itself, without a client: all the pieces of its answer, in each of the ways to get them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import trio
from driving import HI, MODEL

from deltawire import Client

Collect = Callable[..., list[Any]]
"""``collect(provider, model, messages, **arguments)``: the pieces; raises as the provider does."""


def _sync(provider: Any, model: Any = MODEL, messages: Any = HI, **arguments: Any) -> list[Any]:
    return list(provider.create_generator(model, messages, **arguments))


async def _async(provider: Any, model: Any, messages: Any, arguments: dict[str, Any]) -> list[Any]:
    return [piece async for piece in provider.create_async_generator(model, messages, **arguments)]


def _asyncio(provider: Any, model: Any = MODEL, messages: Any = HI, **arguments: Any) -> list[Any]:
    return asyncio.run(_async(provider, model, messages, arguments))


def _trio(provider: Any, model: Any = MODEL, messages: Any = HI, **arguments: Any) -> list[Any]:
    return trio.run(_async, provider, model, messages, arguments)


COLLECTORS: dict[str, Collect] = {"sync": _sync, "asyncio": _asyncio, "trio": _trio}


def told(pieces: Iterable[Any]) -> str:
    """The answer, as people print it."""
    return "".join(map(str, pieces))


def asked(provider: Any, **parameters: Any) -> str:
    """The answer that a client gets."""
    with Client(provider) as client:
        completion = client.chat.completions.create(parameters.pop("messages", HI), **{"model": MODEL, **parameters})
    return completion.choices[0].message.content or ""
