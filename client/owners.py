"""The connections of a client: made on first use, shared with its copies, closed for certain."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from deltawire.protocol import ConfigurationError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from deltawire.transports import AsyncTransport, Transport

_T = TypeVar("_T")

_NAMES = {"httpcore", "impersonate", "wire"}

# That of a client which names none.
_USUAL = "httpcore"


class Owner(Generic[_T]):
    """What a client and its copies share; when the last of them goes, so do the connections.

    A client has one transport, and a further one for each other way that a provider wants its server's certificate
    checked (``ssl``), or for requests that are to look like a browser's.
    """

    def __init__(
        self,
        given: Any,
        options: dict[str, Any],
        make: Callable[[str, dict[str, Any]], _T],
        close: Callable[[_T], object],
        *,
        blocks: bool,
    ) -> None:
        """``given``: the client's argument; ``make``: of a name and options; ``close``: from a finaliser."""
        if isinstance(given, str) and given not in _NAMES:
            raise ConfigurationError(
                f"unknown transport {given!r}: use {', '.join(map(repr, sorted(_NAMES)))}, or an object"
            )
        self.blocks = blocks
        """Whether it is of a client that blocks."""
        self._given = given
        self._own = given is not None and not isinstance(given, str)
        self._options = options
        self._make = make
        self._closed = False
        # Not at the head of the module: who imports the protocol alone should not load it.
        from deltawire.transports._forking import tell

        self.forked()
        tell(self)
        self._made: dict[Any, _T] = {}
        if self._own:
            for name, value in options.items():
                if value is not True if name == "verify" else value:
                    raise ConfigurationError(
                        f"{name}= is for the transports that a client makes: the object given as transport= has its own"
                    )
        weakref.finalize(self, _close_all, self._made, close)

    def forked(self) -> None:
        """See `deltawire.transports._forking`: another thread may have held the lock."""
        from threading import Lock

        self._lock = Lock()

    @property
    def transport(self) -> _T:
        """The object that was given, or the transport that was made first."""
        if self._own:
            return self._given  # type: ignore[no-any-return]
        return next(iter(self._made.values()), None) or self._one(self._given or _USUAL, self._options["verify"])

    def transport_for(self, provider: str, verify: Any, impersonate: str) -> _T:
        """The transport for a request. Raises `ConfigurationError` where the client's can't send it."""
        given, usual = self._given, self._options["verify"]
        # What the client names (True is its default) counts; but where the provider wants a check there is one.
        if verify is None or usual not in (True, False):
            verify = usual
        if self._own:
            self.check()
            if verify is not usual:
                raise ConfigurationError(
                    f"{provider} sets ssl=, which the client's own transport object does not heed: give that object "
                    "the setting, and leave ssl out"
                )
            if impersonate and not getattr(given, "impersonates", False):
                raise ConfigurationError(_CANNOT_IMPERSONATE)
            return self.transport
        if impersonate and given in ("httpcore", "wire"):
            raise ConfigurationError(_CANNOT_IMPERSONATE)
        if not impersonate:
            return self._one(given or _USUAL, verify)
        transport: Any = self._one("impersonate", verify)
        # That it is a browser's name is told here, before anything is asked.
        transport.profile(impersonate)
        return transport  # type: ignore[no-any-return]

    def _one(self, name: str, verify: Any) -> _T:
        # A context is held by its transport, a path object is not: another one may come to have its id.
        path = os.fspath(verify) if isinstance(verify, os.PathLike) else verify
        at = (name, path if isinstance(path, (bool, str)) else id(path))
        with self._lock:
            self.check()
            transport = self._made.get(at)
            if transport is None:
                transport = self._made[at] = self._make(name, {**self._options, "verify": verify})
            return transport

    @property
    def is_given(self) -> bool:
        """Whether the transport is an object that was given."""
        return self._own

    @property
    def arguments(self) -> dict[str, Any]:
        """Those for another one like it."""
        return {"transport": self._given, **self._options}

    def check(self) -> None:
        """Raises `UsageError` once it is closed."""
        if self._closed:
            raise UsageError("the client is closed: make a new one")

    def close(self) -> list[_T]:
        """Nothing is opened from now on; gives the transports that are to be closed."""
        with self._lock:
            self._closed = True
            return list(self._made.values())


def sync_owner(transport: Any = None, **options: Any) -> Owner[Transport]:
    """The connections of a client that blocks; ``options`` of `HTTPCoreTransport`."""
    return Owner(transport, {"verify": True, **options}, _make, _shut, blocks=True)


def async_owner(transport: Any = None, **options: Any) -> Owner[AsyncTransport]:
    """The connections of an async client."""
    return Owner(transport, {"verify": True, **options}, _amake, _abandon, blocks=False)


def close(owner: Owner[Transport]) -> None:
    """Close all connections. Idempotent."""
    for transport in owner.close():
        transport.close()


async def aclose(owner: Owner[AsyncTransport]) -> None:
    """Close all connections of the running loop. Idempotent."""
    for transport in owner.close():
        await transport.aclose()


def _make(name: str, options: dict[str, Any]) -> Transport:
    from deltawire import transports

    if name == "impersonate":
        return transports.ImpersonateTransport(**_without_http2(options))
    if name == "wire":
        return transports.WireTransport(**_on_wire(options))
    return transports.HTTPCoreTransport(**options)


def _amake(name: str, options: dict[str, Any]) -> AsyncTransport:
    from deltawire import transports

    if name == "impersonate":
        return transports.AsyncImpersonateTransport(**_without_http2(options))
    if name == "wire":
        return transports.AsyncWireTransport(**_on_wire(options))
    return transports.AsyncHTTPCoreTransport(**options)


def _on_wire(options: dict[str, Any]) -> dict[str, Any]:
    if options.get("http2"):
        raise ConfigurationError("transport='wire' speaks HTTP/1.1: leave out http2, or say transport='httpcore'")
    return _without_http2(options)


def _without_http2(options: dict[str, Any]) -> dict[str, Any]:
    # (Browsers have a mind of their own about it.)
    return {name: value for name, value in options.items() if name != "http2"}


def _shut(transport: Transport) -> None:
    transport.close()


def _abandon(transport: Any) -> None:
    transport.abandon()


_CANNOT_IMPERSONATE = (
    "impersonate= needs a transport that can look like a browser: leave transport= out, or say "
    "transport='impersonate' (pip install 'deltawire[impersonate]')"
)


def _close_all(made: dict[Any, _T], close: Callable[[_T], object]) -> None:
    for transport in made.values():
        close(transport)
