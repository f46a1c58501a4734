"""Several providers as one: `RetryProvider`, `IterListProvider`, `RotatedProvider`.

They stand wherever a provider is taken. What is tried, and after how long, is `deltawire.protocol.retry`'s business;
here is only who is asked, in which order.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from deltawire.protocol import ConfigurationError, Send, fail_over
from deltawire.protocol.retry import repeated

from ..settings import as_provider, holds_providers, name_of, not_a_provider
from .base import AsyncGeneratorProvider, ListedModelMixin

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from deltawire.protocol import Outcome, RetryBudget, RetryPolicy
    from deltawire.protocol.retry import Effect

    from ..generating import AsyncPieces
    from ..parameters import MessagesLike


class _Several(AsyncGeneratorProvider, ListedModelMixin):
    """What they share."""

    def __init__(self, providers: Sequence[Any]) -> None:
        """``providers``: classes, instances, or names of ours."""
        super().__init__()
        if isinstance(providers, (str, type)) or not hasattr(providers, "__iter__"):
            raise ConfigurationError("providers must be a list of providers")
        self.providers = [as_provider(provider) for provider in providers]
        for provider in self.providers:
            if not (hasattr(provider, "target") or hasattr(provider, "create_async_generator")):
                raise not_a_provider(provider)
            if holds_providers(provider):
                raise ConfigurationError(f"{name_of(provider)} holds providers itself: list those instead")
        self.last_provider: Any = None
        """The one that was asked last; after a call, the one that answered."""

    def __repr__(self) -> str:
        return f"<{name_of(self)} of {', '.join(map(name_of, self.providers))}>"

    def plan(self, policy: RetryPolicy, budget: RetryBudget) -> Generator[Effect[Any], Outcome | None, None]:
        """The plan of one call; the waits are the policy's, the number of attempts is not."""
        plan = fail_over(self.turns(), policy, budget=budget)
        outcome = None
        while True:
            try:
                effect = plan.send(outcome)
            except StopIteration:
                return
            if isinstance(effect, Send):
                self.last_provider = effect.provider
            outcome = yield effect

    def turns(self) -> Iterable[Any]:
        """Who is asked in one call, in turn."""
        raise NotImplementedError

    def create_async_generator(  # type: ignore[override] # they are instances
        self, model: str | None, messages: MessagesLike, **options: Any
    ) -> AsyncPieces:
        """The answer, piece by piece, of the first that gives one: see `OpenaiTemplate.create_async_generator`.

        Raises `RetryProviderError` when several failed, `RetryNoProviderError` when none said anything.
        """
        from ..generating import pieces_of

        return pieces_of(self, model, messages, options)


class RetryProvider(_Several):
    """Providers that are asked in turn until one succeeds; or the first alone, again and again.

    ``shuffle``: in an order of chance, another one for each call. ``single_provider_retry``: only the first provider,
    ``max_retries`` attempts in all. Nothing is repeated once content has reached the caller.
    """

    def __init__(
        self,
        providers: Sequence[Any],
        shuffle: bool = True,
        single_provider_retry: bool = False,
        max_retries: int = 3,
    ) -> None:
        super().__init__(providers)
        if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < single_provider_retry:
            raise ConfigurationError(f"max_retries counts attempts, a whole number from 1 on, not {max_retries!r}")
        self.shuffle = shuffle
        self.single_provider_retry = single_provider_retry
        self.max_retries = max_retries

    def turns(self) -> Iterable[Any]:
        """See `_Several.turns`."""
        if self.single_provider_retry and self.providers:
            return repeated(self.providers[0], self.max_retries)
        turns = list(self.providers)
        if self.shuffle:
            random.shuffle(turns)
        return turns


class IterListProvider(RetryProvider):
    """Providers that are asked in turn until one succeeds."""

    def __init__(self, providers: Sequence[Any], shuffle: bool = True) -> None:
        super().__init__(providers, shuffle)


class RotatedProvider(_Several):
    """Providers in a circle: each call starts with the one after the last that was asked."""

    def __init__(self, providers: Sequence[Any]) -> None:
        super().__init__(providers)
        self._next = 0

    def turns(self) -> Iterator[Any]:
        """See `_Several.turns`."""
        count = len(self.providers)
        start = self._next
        for step in range(count):
            at = (start + step) % count
            self._next = (at + 1) % count
            yield self.providers[at]
