"""What an exchange does on a line, but for the waiting: what the sync and the async one share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from deltawire.protocol import ConfigurationError, HTTP1Exchange, HTTP1State, UsageError

from .._errors import exchange_error
from .._log import DEBUG, LOG, tell_end
from .._options import Options, refuse_impersonation
from ..streams.layers import Expired
from .pool import Ticket, key_of

if TYPE_CHECKING:
    import os
    import ssl

    from deltawire.protocol import Deadlines, Event, HTTPRequest, Proxy, Reply

    from .._tls import Verify
    from ..streams.opening import Way
    from .pool import Line


def wire_options(
    verify: Verify,
    keepalive_expiry: float | None,
    max_connections: int | None,
    max_keepalive_connections: int | None,
    uds: str | os.PathLike[str] | None,
    local_address: str | None,
) -> Options:
    """The settings of a transport. Raises `ConfigurationError`."""
    if max_connections is not None and max_connections < 1:
        raise ConfigurationError(f"max_connections must be at least 1, or None for no bound, not {max_connections!r}")
    return Options(
        verify=verify,
        keepalive_expiry=keepalive_expiry,
        max_connections=max_connections,
        max_keepalive_connections=max_keepalive_connections,
        uds=uds,
        local_address=local_address,
    )


class LineExchange:
    """One request and its reply, on whichever line there is."""

    def __init__(
        self, options: Options, request: HTTPRequest, reply: Reply, deadlines: Deadlines, proxy: Proxy | None
    ) -> None:
        refuse_impersonation(request)
        self._options = options
        self._request = request
        self._reply = reply
        self._deadlines = deadlines
        self._proxy = proxy
        url = request.parts
        self._host, self._port = url.host, url.port
        self._is_tls = url.scheme == "https"
        way = options.way(proxy)
        self._way: Way = way if proxy is None or not proxy.takes(url.scheme) else way.forwarding()
        self._key = key_of(url.scheme, url.host, url.port, proxy)
        self._line: Line | None = None
        self._machine: HTTP1Exchange | None = None
        self._contents = 0
        self._closed = False

    def _ticket(self) -> Ticket:
        if self._closed:
            raise UsageError("the exchange is closed")
        return Ticket(self._key)

    def _no_turn(self, bound: float) -> Expired:
        """The time has passed while others had all the lines."""
        return Expired(f"all {bound:.0f} connections are in use (max_connections)")

    def _context(self) -> ssl.SSLContext:
        context = self._options.context()
        # A caller's own may have been told something else.
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _begin(self, line: Line) -> bytes:
        """The request is to go out on this line: gives its bytes."""
        self._line = line
        now = time.monotonic()
        self._deadlines.connected(now)
        stream = line.stream
        stream.silent = True
        stream.deadline = self._deadlines.wait_until(now)
        last = line.machine
        if last is None:
            machine = HTTP1Exchange(self._request, self._reply, proxy=self._proxy)
        else:
            LOG.say(DEBUG, "a kept connection to %s is used again", self._host, event="reused", to=self._host)
            machine = last.next(self._request, self._reply)
        self._machine = line.machine = machine
        return machine.data_to_send()

    def _given_up(self, line: Line, kept: bool) -> bool:
        """Whether the line, over which nothing has come, had been given up by its peer while it was kept. (Not so if it
        was ended here.)"""
        return kept and bool(line.stream.untouched) and not line.stream.closed

    def _again(self) -> None:
        """The line was given up by the peer while it was kept: another one is begun."""
        LOG.say(DEBUG, "a kept connection to %s was dead: another one is opened", self._host, event="dead")
        self._machine = self._line = None
        self._deadlines.connecting(time.monotonic())

    def _fail(self, error: Exception) -> list[Event]:
        told = exchange_error(error, self._deadlines, self._reply.context)
        return self._reply.fail(told) if self._machine is None else self._machine.fail(told)

    def _until(self) -> float:
        """The caller begins to wait: until when he may."""
        now = time.monotonic()
        until = self._deadlines.wait_until(now)
        if now >= until:
            # Even if there is something left to read.
            raise Expired
        return until

    @property
    def _drains(self) -> bool:
        """Whether a little patience would save the connection."""
        return not self._closed and self._machine is not None and self._machine.state is HTTP1State.DRAINING

    def _tell_end(self) -> None:
        """The exchange has been closed by its caller."""
        if self._machine is not None:
            tell_end(self._host, self._machine.reusable, self._reply)

    def _is_good(self, line: Line) -> bool:
        """Whether the line is good for another exchange."""
        machine, stream = self._machine, line.stream
        return machine is not None and machine.reusable and bool(stream.all_sent) and not stream.closed
