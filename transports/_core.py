"""How httpcore is asked: its pools' arguments, its requests, its exceptions in our words."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

import httpcore

from deltawire.protocol import absolute_form
from deltawire.protocol.verdicts import is_sound

from ._errors import LINK_ERRORS, exchange_error
from ._log import DEBUG, LOG
from .streams.layers import Expired, acknowledge_quickly

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from deltawire.protocol import Context, Deadlines, DeltawireError, Event, HTTPRequest, Proxy

    from ._options import Options

# Pools of proxies beyond this number are closed, the longest unused first: who rotates through thousands
# of proxies should not keep a connection to each.
MAX_POOLS = 64

# What may go wrong with an exchange: beside what goes wrong with streams, what httpcore raises on purpose (it
# has no root of its own).
PEER_ERRORS: tuple[type[Exception], ...] = (
    *LINK_ERRORS,
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    httpcore.ProxyError,
    httpcore.ConnectionNotAvailable,
)


def peer_error(error: Exception, deadlines: Deadlines, context: Context) -> DeltawireError:
    """Anything that went wrong with an exchange."""
    return exchange_error(Expired() if isinstance(error, httpcore.TimeoutException) else error, deadlines, context)


def speaks_well(event: Event, response: httpcore.Response | None) -> bool:
    """Whether a reply that ends with this event says nothing against its connection: its verdict does not, and it was
    framed in one way only. (Who reads one framed in two in the other way sees another message begin: RFC 9112 section
    6.1.)"""
    if response is None or not is_sound(event):
        return False
    names = {name.lower() for name, _ in response.headers}
    return not {b"transfer-encoding", b"content-length"} <= names


def is_overfed(connection: Any, response: httpcore.Response) -> bool:
    """Whether the peer has sent more than the reply, which has been read to its end and not been closed yet. httpcore
    would keep what is left, and give it to whoever asks next as the answer.

    Its public interface does not tell: so this looks behind it, and takes what it can't see for the worse.
    """
    if response.extensions.get("http_version") == b"HTTP/2":
        return False
    machine = getattr(getattr(connection, "_connection", None), "_h11_state", None)
    return machine is None or bool(machine.trailing_data[0])


def pool_arguments(options: Options, proxy: Proxy | None) -> dict[str, Any]:
    """The arguments of a pool for connections through this proxy."""
    return {
        "way": options.way(proxy),
        "context": functools.partial(options.context, "http2" if options.http2 else ""),
        "arguments": {
            "http2": options.http2,
            "keepalive_expiry": options.keepalive_expiry,
            "max_connections": options.max_connections,
            "max_keepalive_connections": options.max_keepalive_connections,
        },
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


class Shown:
    """Anything, as it may be shown. Nothing is done before it is."""

    def __init__(self, value: object, context: Context) -> None:
        self._value = value
        self._context = context

    def __repr__(self) -> str:
        return repr(self._fit(self._value))

    def _fit(self, value: object) -> object:
        if isinstance(value, bytes):
            return self._context.redact(value.decode("utf-8", "replace"))
        if isinstance(value, (list, tuple)):
            return type(value)(map(self._fit, value))
        # Errors have bytes of the peer's in their words.
        return type(value) if isinstance(value, Exception) else value


class Progress:
    """One sending of a request: which connection takes it, and when that stands. Its methods are called from within
    httpcore: by our connections, and by the ``trace`` extension."""

    def __init__(self, deadlines: Deadlines, host: str, context: Context) -> None:
        self._deadlines = deadlines
        self._host = host
        self._context = context
        connect = above_zero(deadlines.remaining(time.monotonic()))
        self.timeouts = {"connect": connect, "pool": connect, "read": connect, "write": connect}
        self.connection: Any = None
        self.holds = False
        """Whether the connection is this request's. A pool may give a kept one to two, of which the second goes back to
        wait."""
        self._reused = False

    def taken(self, connection: Any) -> None:
        """This connection takes the request."""
        self.connection = connection
        self._reused = connection.served > 0
        self.holds = not self._reused
        if self._reused:
            LOG.say(DEBUG, "a kept connection to %s is used again", self._host, event="reused", to=self._host)
        # The pool may have had us wait for it.
        self.timeouts["connect"] = above_zero(self._deadlines.remaining(time.monotonic()))

    def trace(self, name: str, info: dict[str, Any]) -> None:
        """The connection stands when the request begins to be sent."""
        for what in ("return_value", "exception"):
            # httpcore writes these into its log, at DEBUG, when this has returned: a reply's header fields, too.
            if info.get(what) is not None:
                info[what] = Shown(info[what], self._context)
        protocol, _, event = name.partition(".")
        if event == "send_request_headers.started":
            self.holds = True
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

    async def atrace(self, name: str, info: dict[str, Any]) -> None:
        """As `trace`."""
        self.trace(name, info)

    def died_in_keeping(self, error: Exception) -> bool:
        """Whether all that failed is a kept connection, which its peer had given up: nothing came on it since the
        request was sent. Browsers send such a request again, too (RFC 9112 section 9.3.1 on why they may)."""
        timed_out = isinstance(error, (Expired, httpcore.TimeoutException))
        dead = self._reused and not timed_out and bool(self.connection.network.stream.silent)
        if dead:
            LOG.say(DEBUG, "a kept connection to %s was dead: another one is opened", self._host, event="dead")
        return dead


def above_zero(seconds: float | None) -> float | None:
    """For sockets, whose timeout of 0 means another thing."""
    return None if seconds is None else max(seconds, 0.001)


def core_request(
    request: HTTPRequest, progress: Progress, proxy: Proxy | None, *, asynchronous: bool = False
) -> dict[str, Any]:
    """The arguments of ``httpcore.Request`` for this request."""
    url = request.parts
    scheme, host, port, target = url.scheme, url.host, url.port, url.target
    if proxy is not None and proxy.takes(scheme):
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
