"""What the transports have in common that connect by themselves: their options."""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import time
from typing import TYPE_CHECKING, Any

import msgspec

from deltawire.protocol import ConfigurationError

from ._tls import tls_context
from .streams.layers import HAS_UNIX_SOCKETS
from .streams.opening import Way

if TYPE_CHECKING:
    import ssl

    from deltawire.protocol import HTTPRequest, Proxy

# How long the end of a reply may take after its last event, so that the connection can be kept.
DRAIN_SECONDS = 0.1
DRAIN_BYTES = 64 * 1024


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a transport."""

    verify: Any = True
    http2: bool = False
    keepalive_expiry: float | None = 60.0
    max_connections: int | None = None
    max_keepalive_connections: int | None = 20
    uds: Any = None
    local_address: str | None = None
    contexts: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.http2 and importlib.util.find_spec("h2") is None:
            raise ConfigurationError("http2=True needs the h2 package: pip install 'deltawire[http2]'")
        if self.http2:
            _quieten_hpack()
        if self.uds is not None and not HAS_UNIX_SOCKETS:
            raise ConfigurationError("uds= needs Unix domain sockets, which this system has not")
        socket_path(self.uds)

    def way(self, proxy: Proxy | None) -> Way:
        """How servers are reached through this proxy. Raises `ConfigurationError`."""
        if self.uds is not None and proxy is not None:
            raise ConfigurationError("uds= names the socket to connect to: it can't be reached through a proxy")
        return Way(
            proxy=proxy,
            proxy_context=functools.partial(self.context, "proxy"),
            uds=socket_path(self.uds),
            local_address=self.local_address,
        )

    def context(self, purpose: str = "") -> ssl.SSLContext:
        """The settings of TLS: with servers (""), with servers over HTTP/2 ("http2"), with proxies ("proxy")."""
        context: ssl.SSLContext | None = self.contexts.get(purpose)
        if context is None:
            context = self.contexts[purpose] = tls_context(self.verify, purpose=purpose)
        return context


def _quieten_hpack() -> None:
    """It writes each header field to its log, at DEBUG, keys among them: let that be for those who ask for its log by
    name, and not for all who look at everything."""
    import logging

    logger = logging.getLogger("hpack")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def socket_path(uds: Any) -> str | None:
    """What ``uds=`` names. Raises `ConfigurationError` for what is no path."""
    try:
        return None if uds is None else os.fsdecode(uds)
    except TypeError:
        raise ConfigurationError(f"uds= must be the path of a socket, not {type(uds).__name__}") from None


def refuse_impersonation(request: HTTPRequest) -> None:
    """For transports that have one TLS of their own. Raises `ConfigurationError`."""
    if request.impersonate:
        raise ConfigurationError(
            f"impersonate={request.impersonate!r} needs the impersonating transport: pip install "
            "'deltawire[impersonate]', and pass transport=ImpersonateTransport() (AsyncImpersonateTransport() to "
            "AsyncClient), of deltawire.transports"
        )


def time_left(until: float) -> float | None:
    """The time until then as a time-out."""
    return None if until == math.inf else max(until - time.monotonic(), 0.001)
