"""What the sync and the async httpcore transport have in common: their options, and how a request looks
to httpcore."""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import time
from typing import TYPE_CHECKING, Any

import httpcore
import msgspec

from deltawire.protocol import APIStatusError, ConfigurationError, StreamEnded, StreamFailed, absolute_form

from ._tls import tls_context
from .streams.layers import HAS_UNIX_SOCKETS, Expired, acknowledge_quickly
from .streams.opening import Way

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterator, Mapping

    from deltawire.protocol import Deadlines, Event, HTTPRequest, Proxy

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
    keepalive_expiry: float | None = 60.0
    max_connections: int | None = None
    max_keepalive_connections: int | None = 20
    uds: Any = None
    local_address: str | None = None
    contexts: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.http2 and importlib.util.find_spec("h2") is None:
            raise ConfigurationError("http2=True needs the h2 package: pip install 'deltawire[http2]'")
        if self.uds is not None and not HAS_UNIX_SOCKETS:
            raise ConfigurationError("uds= needs Unix domain sockets, which this system has not")
        socket_path(self.uds)

    def pool_arguments(self, proxy: Proxy | None) -> dict[str, Any]:
        """The arguments of a pool for connections through this proxy."""
        if self.uds is not None and proxy is not None:
            raise ConfigurationError("uds= names the socket to connect to: it can't be reached through a proxy")
        return {
            "way": Way(
                proxy=proxy,
                proxy_context=functools.partial(self._context, "proxy"),
                uds=socket_path(self.uds),
                local_address=self.local_address,
            ),
            "context": functools.partial(self._context, "http2" if self.http2 else ""),
            "arguments": {
                "http2": self.http2,
                "keepalive_expiry": self.keepalive_expiry,
                "max_connections": self.max_connections,
                "max_keepalive_connections": self.max_keepalive_connections,
            },
        }

    def _context(self, purpose: str) -> ssl.SSLContext:
        context: ssl.SSLContext | None = self.contexts.get(purpose)
        if context is None:
            context = self.contexts[purpose] = tls_context(self.verify, purpose=purpose)
        return context


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
    """One sending of a request: which connection takes it, and when that stands. Its methods are called from within
    httpcore: by our connections, and by the ``trace`` extension."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        connect = above_zero(deadlines.remaining(time.monotonic()))
        self.timeouts = {"connect": connect, "pool": connect, "read": connect, "write": connect}
        self.connection: Any = None
        self._reused = False

    def taken(self, connection: Any) -> None:
        """This connection takes the request."""
        self.connection = connection
        self._reused = connection.served > 0
        # The pool may have had us wait for it.
        self.timeouts["connect"] = above_zero(self._deadlines.remaining(time.monotonic()))

    def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """The connection stands when the request begins to be sent."""
        protocol, _, event = name.partition(".")
        if event == "send_request_headers.started":
            now = time.monotonic()
            self._deadlines.connected(now)
            stream = self.connection.network.stream
            stream.silent = True
            stream.deadline = self._deadlines.wait_until(now)
            # For HTTP/2, which looks at them after this.
            self.timeouts["read"] = self.timeouts["write"] = above_zero(self._deadlines.remaining(now))
            # Many proxies don't send a small piece before the one before it is acknowledged (Nagle's algorithm), which
            # receivers put off for 40 ms: so the body is not to follow its head, but to go along with it,
            stream.corked = protocol == "http11"
        elif event == "send_request_body.started":
            self.connection.network.stream.corked = False
        elif event == "send_request_body.complete":
            # and the first piece of the answer is acknowledged at once.
            acknowledge_quickly(self.connection.network.stream.get_extra_info("socket"))

    async def atrace(self, name: str, info: Mapping[str, Any]) -> None:
        """As `trace`."""
        self.trace(name, info)

    def died_in_keeping(self, error: Exception) -> bool:
        """Whether all that failed is a kept connection, which its peer had given up: nothing came on it since the
        request was sent. Browsers send such a request again, too (RFC 9112 section 9.3.1 on why they may)."""
        timed_out = isinstance(error, (Expired, httpcore.TimeoutException))
        return self._reused and not timed_out and bool(self.connection.network.stream.silent)


def above_zero(seconds: float | None) -> float | None:
    """For sockets, whose timeout of 0 means another thing."""
    return None if seconds is None else max(seconds, 0.001)


def time_left(until: float) -> float | None:
    """The same as a time-out."""
    return None if until == math.inf else max(until - time.monotonic(), 0.001)


def is_sound(event: Event) -> bool:
    """Whether a reply that ends with this event says nothing against the connection it came on: it is good, or an
    error of the server's own making. What is left of any other may be anything."""
    if isinstance(event, StreamFailed):
        return isinstance(event.error, APIStatusError)
    return isinstance(event, StreamEnded)


def core_request(
    request: HTTPRequest, progress: Progress, proxy: Proxy | None, *, asynchronous: bool = False
) -> dict[str, Any]:
    """The arguments of ``httpcore.Request`` for this request."""
    url = request.parts
    scheme, host, port, target = url.scheme, url.host, url.port, url.target
    if proxy is not None and scheme == "http" and not proxy.speaks_socks:
        # Sent to the proxy itself. TLS with it, if any, is the stream's business.
        request = absolute_form(request, proxy)
        host, port, target = proxy.host, proxy.port, str(url)
    return {
        "method": request.method.encode("ascii"),
        "url": httpcore.URL(
            scheme=scheme.encode("ascii"), host=host.encode("ascii"), port=port, target=target.encode("ascii")
        ),
        "headers": list(request.headers),
        "content": Body(request.body),
        "extensions": {
            "timeout": progress.timeouts,
            "deltawire": progress,
            "trace": progress.atrace if asynchronous else progress.trace,
        },
    }
