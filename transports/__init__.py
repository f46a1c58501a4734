"""Transports: the only code that moves bytes, and it does nothing else.

A transport opens an exchange for a request and a `Reply`. The exchange sends the one, feeds the other, and
hands out the events; what they mean is not its business. Write your own by these protocols and pass it as
``Client(transport=...)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from deltawire.protocol import Deadlines, Event, HTTPRequest, Proxy, Reply

    from .httpcore_async import AsyncHTTPCoreTransport
    from .httpcore_sync import HTTPCoreTransport
    from .impersonate import AsyncImpersonateTransport, ImpersonateTransport
    from .wire.asynchronous import AsyncWireTransport
    from .wire.blocking import WireTransport

__all__ = [
    "AsyncExchange",
    "AsyncHTTPCoreTransport",
    "AsyncImpersonateTransport",
    "AsyncTransport",
    "AsyncWireTransport",
    "Exchange",
    "HTTPCoreTransport",
    "ImpersonateTransport",
    "Transport",
    "WireTransport",
]


class Exchange(Protocol):
    """One request and its reply, under way. Not to be shared between threads."""

    def next_events(self) -> list[Event]:
        """Wait for the next events of the reply; empty only after the verdict.

        What goes wrong on the way comes as the reply's `StreamFailed`, and raises nothing.
        """

    def close(self) -> None:
        """Give the connection back if the reply is over, else close it. Idempotent."""

    def abandon(self) -> None:
        """The same, from a finaliser: waits for nothing, raises nothing."""


class Transport(Protocol):
    """Opens exchanges. May be shared between threads."""

    def open(self, request: HTTPRequest, reply: Reply, deadlines: Deadlines, *, proxy: Proxy | None = None) -> Exchange:
        """An exchange for the request. Nothing is sent before its first `next_events`."""

    def close(self) -> None:
        """Close all connections. Idempotent."""


class AsyncExchange(Protocol):
    """One request and its reply, under way. Not to be shared between tasks."""

    async def next_events(self) -> list[Event]:
        """As `Exchange.next_events`. Cancelled, it closes the connection."""

    async def aclose(self) -> None:
        """As `Exchange.close`; shielded from cancellation."""

    def abandon(self) -> None:
        """The same later, from a finaliser, on the loop that opened the exchange."""


class AsyncTransport(Protocol):
    """Opens exchanges, on asyncio or trio; connections are kept apart by event loop."""

    def open(
        self, request: HTTPRequest, reply: Reply, deadlines: Deadlines, *, proxy: Proxy | None = None
    ) -> AsyncExchange:
        """An exchange for the request. Nothing is sent before its first `next_events`."""

    async def aclose(self) -> None:
        """Close all connections of the running loop. Idempotent."""


_MODULES = {
    "AsyncHTTPCoreTransport": "httpcore_async",
    "AsyncImpersonateTransport": "impersonate",
    "AsyncWireTransport": "wire.asynchronous",
    "HTTPCoreTransport": "httpcore_sync",
    "ImpersonateTransport": "impersonate",
    "WireTransport": "wire.blocking",
}


def __getattr__(name: str) -> Any:
    # httpcore and anyio take long to load; who brings a transport of his own never needs them.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
