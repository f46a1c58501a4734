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
    from collections.abc import AsyncIterator, Iterator, Mapping

    from deltawire.protocol import Context, Deadlines, HTTPRequest, Proxy

# How long the end of a reply may take after its last event, so that the connection can be kept.
DRAIN_SECONDS = 0.1
DRAIN_BYTES = 64 * 1024

# How long to look for what has come while the caller was away.
LATE_SECONDS = 0.02

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
            "ssl_context": tls_context(self.verify, http2=self.http2),
            "http2": self.http2,
            "keepalive_expiry": self.keepalive_expiry,
            "max_connections": self.max_connections,
            "max_keepalive_connections": self.max_keepalive_connections,
        }


class Body:
    """A request's body, for httpcore: an iterable that is no async generator, which a connection that breaks
    while the body is written would leave unfinished (trio warns of that)."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        return iter((self._data,))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Once(self._data)


class _Once:
    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data, self._data = self._data, None
        if data is None:
            raise StopAsyncIteration
        return data


class Progress:
    """Tells the deadlines when the connection stands: when httpcore begins to send the request. Its methods are
    what httpcore's ``trace`` extension calls."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        now = time.monotonic()
        connect, wait = above_zero(deadlines.remaining(now)), above_zero(deadlines.remaining_after_connect(now))
        self.timeouts = {"connect": connect, "pool": connect, "read": wait, "write": wait}

    def trace(self, name: str, info: Mapping[str, Any]) -> None:
        if name.endswith("send_request_headers.started"):
            now = time.monotonic()
            self._deadlines.connected(now)
            # httpcore looks at them after this.
            self.timeouts["read"] = self.timeouts["write"] = above_zero(self._deadlines.remaining(now))

    async def atrace(self, name: str, info: Mapping[str, Any]) -> None:
        self.trace(name, info)


def above_zero(seconds: float | None) -> float | None:
    """For sockets, whose timeout of 0 means another thing."""
    return None if seconds is None else max(seconds, 0.001)


def read_timeout(deadlines: Deadlines, now: float, since: float, context: Context) -> float | None:
    """How long the next read may take, whose caller has waited ``since`` then.

    Raises `TimeoutError` when a deadline has passed; unless that was before the caller began to wait. Then it was
    he who was away, and what the server has sent meanwhile is read first, which takes no time.
    """
    left = deadlines.remaining(now)
    if left != 0.0:
        return left
    error = deadlines.error(context.where())
    if error.deadline == "total" or deadlines.remaining(since) != 0.0:
        raise error
    return LATE_SECONDS


def core_origin(request: HTTPRequest) -> httpcore.Origin:
    """The server of a request, as httpcore's connections know it."""
    url = request.parts
    return httpcore.Origin(url.scheme.encode("ascii"), url.host.encode("ascii"), url.port)


def core_request(
    request: HTTPRequest, deadlines: Deadlines, proxy: Proxy | None, *, asynchronous: bool = False
) -> dict[str, Any]:
    """The arguments of ``httpcore.Request`` for this request."""
    url = request.parts
    scheme, host, port, target = url.scheme, url.host, url.port, url.target
    if proxy is not None and scheme == "http":
        request = absolute_form(request, proxy)
        scheme, host, port, target = proxy.scheme, proxy.host, proxy.port, str(url)
    progress = Progress(deadlines)
    return {
        "method": request.method.encode("ascii"),
        "url": httpcore.URL(
            scheme=scheme.encode("ascii"), host=host.encode("ascii"), port=port, target=target.encode("ascii")
        ),
        "headers": list(request.headers),
        "content": Body(request.body),
        "extensions": {
            "timeout": progress.timeouts,
            "trace": progress.atrace if asynchronous else progress.trace,
        },
    }
