"""The models of providers: those that they declare, and what their servers say."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from deltawire.protocol import (
    AuthenticationError,
    ConfigurationError,
    DeltawireError,
    PermissionDeniedError,
    ProxyError,
    UsageError,
)
from deltawire.protocol.catalogue import Catalogue, catalogue
from deltawire.protocol.retry import failure

from .asking import call_of
from .behalf import Behalf
from .drivers import arun, run
from .providers.base import Learnt, declared_in
from .providers.methods import is_own
from .settings import UNSET, as_provider, holds_providers, keep

if TYPE_CHECKING:
    from deltawire.protocol import ModelList

    from .calls import Call
    from .owners import Owner
    from .settings import Settings


class Learning:
    """What one provider's models are, but for the waiting: where `call` is not None, it has to be made, and `learn` or
    `fail` be told how it went."""

    def __init__(
        self, provider: Any, settings: Settings, options: dict[str, Any], owner: Owner[Any], *, native: bool
    ) -> None:
        """``native``: by the machines here, also where the provider has a ``get_models`` of its own."""
        self.provider = provider
        self._owner = owner
        self.call: Call | None = None
        self._found: Catalogue | None = None
        self.error: Exception | None = None
        try:
            self._begin(settings, options, native)
        except Exception as error:
            # Others may be asked yet.
            self.fail(error)

    def _begin(self, settings: Settings, options: dict[str, Any], native: bool) -> None:
        provider = self.provider
        declared = declared_in(getattr(provider, "models", []))
        if declared:
            self._found = self._catalogue(declared)
            return
        if not native and is_own(provider, "get_models"):
            meant = {"proxy": options.get("proxy", UNSET)}
            with Behalf(provider, settings, self._owner, given=options, meant=meant).current():
                self._found = self._catalogue(provider.get_models(**options))
            return
        if not hasattr(provider, "base_of"):
            # One that has a way of its own to a server may say nothing of models.
            self._found = self._catalogue(provider.get_models() if hasattr(provider, "get_models") else [])
            return
        call = call_of(settings, None, None, None, {**options, "provider": provider}, kind="models", native=True)
        self._at = (provider.base_of(call.ask, settings), call.target(provider).key)
        self._found = provider._catalogues.get(self._at)
        if self._found is None:
            self.call = call
        else:
            self._keep()

    def _catalogue(self, names: list[str]) -> Catalogue:
        drawing, seeing = (list(getattr(self.provider, name, ())) for name in ("image_models", "vision_models"))
        return Catalogue(names=list(names), image_models=drawing, vision_models=seeing)

    def learn(self, models: ModelList) -> None:
        """The server has answered."""
        self._found = catalogue(models, sort=self.provider.sort_models)
        keep(self.provider._catalogues, self._at, self._found)
        self._keep()

    def _keep(self) -> None:
        assert self._found is not None
        provider = self.provider
        provider.models = Learnt(self._found.names, declared=[])
        # What was declared holds, whether or not the server says so; what another server said does not.
        for name in ("image_models", "vision_models"):
            declared = declared_in(getattr(provider, name))
            setattr(provider, name, Learnt([*declared, *getattr(self._found, name)], declared=declared))

    def fail(self, error: Exception) -> None:
        """The server has not answered, or not well: what it would have said is declared, or it is an error. Faults of
        the caller, keys that are refused, and proxies that refuse for good, are errors in any case."""
        theirs = (AuthenticationError, PermissionDeniedError, ConfigurationError, UsageError)
        refused = isinstance(error, ProxyError) and not error.transient
        instead = getattr(self.provider, "fallback_models", [])
        if not isinstance(error, DeltawireError) or isinstance(error, theirs) or refused or not instead:
            self.error = error
        else:
            self._found = self._catalogue(instead)

    def result(self, which: str = "names") -> list[str]:
        """Their names; ``which``: a field of `Catalogue`. Raises what it failed with."""
        if self.error is not None:
            raise self.error
        assert self._found is not None
        found: list[str] = getattr(self._found, which)
        # Not as the provider has it: another thread may have learnt of another server meanwhile.
        declared = [] if which == "names" else declared_in(getattr(self.provider, which, []))
        return list(dict.fromkeys([*declared, *found]))


class Names:
    """The models of a client's provider, or of all the providers that it has several of."""

    def __init__(self, settings: Settings, options: dict[str, Any], owner: Owner[Any], *, native: bool = False) -> None:
        """``native``: as for `Learning`; where there are several, each of them is asked in its own way."""
        options = dict(options)
        given = _asked(settings, options.pop("provider", None))
        if holds_providers(given):
            native = False
        self._owner = owner
        self._each = [Learning(provider, settings, dict(options), owner, native=native) for provider in _members(given)]

    def ask(self) -> None:
        """Ask those whose models are not known yet; for a program that blocks."""
        for each in self._each:
            if each.call is None:
                continue
            try:
                attempt, exchange, _ = run(each.call, self._owner)
                exchange.close()
                each.learn(attempt.models())
            except Exception as error:
                each.fail(error)

    async def aask(self) -> None:
        """As `ask`."""
        for each in self._each:
            if each.call is None:
                continue
            try:
                attempt, exchange, _ = await arun(each.call, self._owner)
                await exchange.aclose()
                each.learn(attempt.models())
            except Exception as error:
                each.fail(error)

    def result(self, which: str) -> list[str]:
        """The names, each once. What failed is left out, unless all did."""
        errors = [each.error for each in self._each if each.error is not None]
        if errors and len(errors) == len(self._each):
            raise failure(errors)
        found = [name for each in self._each if each.error is None for name in each.result(which)]
        return list(dict.fromkeys(found))


async def anames(settings: Settings, options: dict[str, Any], owner: Owner[Any], *, native: bool = False) -> Names:
    """`Names`, for a program that awaits: a provider's own ``get_models`` blocks."""
    make = functools.partial(Names, settings, options, owner, native=native)
    given = _asked(settings, options.get("provider"))
    if not any(is_own(each, "get_models") for each in _members(given)):
        return make()
    import anyio.to_thread

    return await anyio.to_thread.run_sync(make)


def _asked(settings: Settings, provider: Any) -> Any:
    return as_provider(provider) or settings.provider or settings.unnamed


def _members(provider: Any) -> list[Any]:
    return list(provider.providers) if holds_providers(provider) else [provider]
