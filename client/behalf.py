"""On whose behalf a provider's own methods ask ours.

A provider may override a method and ask the one of ours behind it: ``super().create_async_generator(...)``, or
``super().get_models(...)``. When a client has called it, what that client says of proxies, keys, deadlines and
connections holds for this request as for any other. Arguments can't say all of that (one ``proxy`` is not a mapping of
several, None is both "nothing said" and "none"), and a method may not pass them on. So a context variable says who
asks.
"""

from __future__ import annotations

import contextlib
import contextvars
from typing import TYPE_CHECKING, Any

from deltawire.protocol import ConfigurationError

from .owners import aclose, async_owner, close, sync_owner
from .settings import UNSET, make, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deltawire.protocol import RetryBudget
    from deltawire.transports import AsyncTransport, Transport

    from .calls import Call
    from .owners import Owner
    from .settings import Settings

_current: contextvars.ContextVar[Behalf | None] = contextvars.ContextVar("deltawire_behalf", default=None)


class Behalf:
    """A client that asks a provider."""

    def __init__(
        self,
        provider: Any,
        settings: Settings,
        owner: Owner[Any] | None,
        *,
        given: dict[str, Any],
        meant: dict[str, Any],
        total_at: float | None = None,
    ) -> None:
        """``given``: arguments of the provider's method; ``meant``: those that stand for something else here, which
        counts unless the method has replaced them. ``owner``: None where the call is not under way."""
        self._provider = provider
        self._settings = settings
        self.owner = owner
        self._given = given
        self._meant = meant
        self._total_at = total_at

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """In this block, and in what it starts, it is who asks."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def speaks_for(self, provider: Any) -> bool:
        """Whether it is this provider that was asked. (A class method of an instance is called on its class.)"""
        return provider is self._provider or provider is type(self._provider)

    def settings(self) -> Settings:
        """The client's, for this provider."""
        return self._settings.of(self._provider)

    def translate(self, options: dict[str, Any]) -> None:
        """Arguments as they came through the provider's method: as the client means them."""
        for name, value in self._meant.items():
            if options.get(name) is None or options[name] == self._given.get(name):
                options[name] = value

    def bound(self, call: Call) -> None:
        """The call is part of the client's."""
        call.ends_at = self._total_at


def behalf_of(provider: Any) -> Behalf | None:
    """The client that asks this provider now; None for none."""
    current = _current.get()
    return current if current is not None and current.speaks_for(provider) else None


def settings_for(provider: Any, options: dict[str, Any], budget: RetryBudget | None = None) -> Settings:
    """What holds for a request of a provider's; ``options`` are its arguments, which are translated. Without a client
    ``proxy=None`` is the environment's."""
    behalf = behalf_of(provider)
    if behalf is not None:
        behalf.translate(options)
        return behalf.settings()
    if options.get("proxy", UNSET) is None:
        options["proxy"] = UNSET
    return make(provider=provider, budget=budget)


class Lent:
    """The connections for one answer of a provider's: the client's, where there is one, else those of its own."""

    def __init__(self, provider: Any) -> None:
        behalf = behalf_of(provider)
        self._name = name_of(provider)
        self._clients = None if behalf is None else behalf.owner

    def blocking(self) -> Owner[Transport]:
        """For a program that blocks."""
        if self._clients is None:
            return sync_owner()
        return self._clients if self._clients.blocks else sync_owner(**self._alike(self._clients))

    def waiting(self) -> Owner[AsyncTransport]:
        """For one that awaits."""
        if self._clients is None:
            return async_owner()
        return async_owner(**self._alike(self._clients)) if self._clients.blocks else self._clients

    def _alike(self, owner: Owner[Any]) -> dict[str, Any]:
        if owner.is_given:
            wanted = "AsyncClient" if owner.blocks else "Client"
            raise ConfigurationError(
                f"{self._name} asks in a way of its own, for which the client's transport object is of the wrong kind: "
                f"leave transport= out, or use {wanted}"
            )
        return owner.arguments

    def give_back(self, owner: Owner[Transport]) -> None:
        """Close them, if they are our own. Idempotent."""
        if owner is not self._clients:
            close(owner)

    async def agive_back(self, owner: Owner[AsyncTransport]) -> None:
        """As `give_back`."""
        if owner is not self._clients:
            await aclose(owner)
