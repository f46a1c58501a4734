"""What the sync and the async httpcore transport have in common: their options, and how a request looks
to httpcore."""

from __future__ import annotations

import importlib.util
import time
from typing import TYPE_CHECKING, Any

import httpcore
import msgspec

from deltawire.protocol import ConfigurationError, absolute_form

from ._tls import tls_context

if TYPE_CHECKING:
    from deltawire.protocol import Deadlines, HTTPRequest, Proxy

# How long the end of a reply may take after its last event, so that the connection can be kept.
DRAIN_SECONDS = 0.1
DRAIN_BYTES = 64 * 1024

# Pools of proxies beyond this number are closed, the longest unused first: who rotates through thousands
# of proxies should not keep a connection to each.
MAX_POOLS = 64


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a transport."""

    verify: Any = True
    http2: bool = False
    keepalive_expiry: float = 60.0
    max_connections: int | None = None
    max_keepalive_connections: int = 20

    def __post_init__(self) -> None:
        if self.http2 and importlib.util.find_spec("h2") is None:
            raise ConfigurationError("http2=True needs the h2 package: pip install 'deltawire[http2]'")

    def pool_arguments(self) -> dict[str, Any]:
        """The arguments of ``httpcore.ConnectionPool`` but for its network backend."""
        return {
            "ssl_context": tls_context(self.verify),
            "http2": self.http2,
            "keepalive_expiry": self.keepalive_expiry,
            "max_connections": self.max_connections,
            "max_keepalive_connections": self.max_keepalive_connections,
        }


def core_request(request: HTTPRequest, deadlines: Deadlines, proxy: Proxy | None) -> dict[str, Any]:
    """The arguments of ``httpcore.Request`` for this request."""
    url = request.parts
    scheme, host, port, target = url.scheme, url.host, url.port, url.target
    if proxy is not None and scheme == "http":
        request = absolute_form(request, proxy)
        scheme, host, port, target = proxy.scheme, proxy.host, proxy.port, str(url)
    now = time.monotonic()
    connect, wait = deadlines.remaining(now), deadlines.remaining_after_connect(now)
    return {
        "method": request.method.encode("ascii"),
        "url": httpcore.URL(
            scheme=scheme.encode("ascii"), host=host.encode("ascii"), port=port, target=target.encode("ascii")
        ),
        "headers": list(request.headers),
        "content": request.body,
        "extensions": {"timeout": {"connect": connect, "read": wait, "write": wait, "pool": connect}},
    }
