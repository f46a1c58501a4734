"""The impersonating transports: to the server they look like a browser, down to its TLS and its HTTP.

Some servers turn away what is no browser, by the order of ciphers in a ClientHello, of settings in HTTP/2, of header
fields. libcurl, in the build that curl_cffi brings along, says each of these as the chosen browser does.

The browser's header fields go out as well, its User-Agent among them; fields of the request win. What the browser
accepts in the way of content codings is accepted, and undone.
"""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from deltawire.protocol import ConfigurationError, UsageError

from ._forking import keep, tell
from ._lifetime import Runner, running_loop

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from deltawire.protocol import Deadlines, Event, HTTPRequest, Proxy, Reply

    from ._curl_exchange import ImpersonateExchange, Lines
    from ._curl_request import Prepared
    from ._tls import Verify


def profiles() -> list[str]:
    """The names that ``impersonate=`` takes: browsers ("chrome" is the newest one that curl_cffi knows), and versions
    of them. Raises `ConfigurationError` without curl_cffi."""
    _check_installed()
    from ._curl import profiles

    return profiles()


def _check_installed() -> None:
    try:
        import curl_cffi  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            f"impersonate needs curl_cffi ({error}): pip install 'deltawire[impersonate]'"
        ) from None


class _Options:
    """What both transports know: the options, and how a request is made ready."""

    impersonates = True

    def __init__(
        self,
        *,
        impersonate: str = "chrome",
        verify: Verify = True,
        keepalive_expiry: float | None = 60.0,
        max_keepalive_connections: int | None = 20,
        uds: str | os.PathLike[str] | None = None,
        local_address: str | None = None,
    ) -> None:
        _check_installed()
        from ._curl import profile
        from ._curl_exchange import Lines
        from ._curl_request import Setup

        self.impersonate = impersonate
        # By the name that was given: asking libcurl takes longer.
        self._cached = functools.lru_cache(maxsize=64)(profile)
        self.profile(impersonate)
        self._setup = Setup.of(verify, uds, local_address)
        self._new_lines = functools.partial(Lines, keepalive_expiry, max_keepalive_connections)
        self._closed = False
        self._begin()
        tell(self)

    def forked(self) -> None:
        """See `Forked`. libcurl says goodbye on what it closes: so what it has is kept to the very end of the process,
        which closes the sockets without a word."""
        keep(self.__dict__.copy())
        self._begin()

    def _begin(self) -> None:
        raise NotImplementedError

    def profile(self, impersonate: str) -> str:
        """The browser's name as libcurl knows it. Raises `ConfigurationError` for one that it does not know."""
        from ._curl import profile

        return self._cached(impersonate) if isinstance(impersonate, str) else profile(impersonate)

    def _prepare(self, request: HTTPRequest, proxy: Proxy | None) -> Prepared:
        from ._curl_request import prepared

        if self._closed:
            raise UsageError("the client is closed: make a new one")
        return prepared(request, proxy, self.profile(request.impersonate or self.impersonate), self._setup)


class ImpersonateTransport(_Options):
    """Exchanges that pass for a browser's. Shared between threads as one likes. Needs ``deltawire[impersonate]``.

    ``impersonate``: the browser, for requests that name none; see `profiles`. ``verify``: True, a file or folder of
    certificate authorities, or False; for servers and for https:// proxies. ``keepalive_expiry``: seconds that an idle
    connection is kept (None: for ever). ``uds``: the path of a Unix domain socket, to which all connections are made in
    place of the host that the URL names. ``local_address``: the IP address to connect from. HTTP/2 is spoken where the
    browser would.

    Raises `ConfigurationError` for an unknown browser, an ``ssl.SSLContext``, and without curl_cffi.
    """

    def _begin(self) -> None:
        self._lines: Lines = self._new_lines()

    def open(
        self, request: HTTPRequest, reply: Reply, deadlines: Deadlines, *, proxy: Proxy | None = None
    ) -> ImpersonateExchange:
        """An exchange for the request. Raises `UsageError` when the transport is closed, `ConfigurationError` for a
        browser that is not known, and for what can't be sent."""
        from ._curl_exchange import ImpersonateExchange

        return ImpersonateExchange(self._lines, self._prepare(request, proxy), reply, deadlines)

    def connections(self) -> tuple[int, int]:
        """How many connections are busy, and how many are idle."""
        return self._lines.count()

    def close(self) -> None:
        """Close all connections. Idempotent."""
        self._closed = True
        self._lines.close()


class _Loop:
    """What belongs to one event loop."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.runner = Runner()

    async def aclose(self) -> None:
        self.lines.close()

    async def finish(self) -> None:
        """Close, with nothing left to do when the loop ends."""
        await self.aclose()
        await self.runner.forget()


class AsyncImpersonateTransport(_Options):
    """As `ImpersonateTransport`, for asyncio and trio. Each event loop has its own connections, which are closed with
    it.

    libcurl waits in a thread of its own for each exchange that waits; cancelling wakes it.
    """

    def _begin(self) -> None:
        self._loops: weakref.WeakKeyDictionary[Any, _Loop] = weakref.WeakKeyDictionary()

    def open(
        self, request: HTTPRequest, reply: Reply, deadlines: Deadlines, *, proxy: Proxy | None = None
    ) -> AsyncImpersonateExchange:
        """As `ImpersonateTransport.open`."""
        return AsyncImpersonateExchange(self, self._prepare(request, proxy), reply, deadlines)

    def connections(self) -> tuple[int, int]:
        """How many connections of the running loop are busy, and how many are idle."""
        found = self._loops.get(running_loop())
        return (0, 0) if found is None else found.lines.count()

    async def aclose(self) -> None:
        """Close all connections of the running loop. Idempotent."""
        self._closed = True
        found = self._loops.pop(running_loop(), None)
        if found is not None:
            with anyio.CancelScope(shield=True):
                await found.finish()

    def abandon(self) -> None:
        """As `aclose`, from a finaliser, for all loops."""
        self._closed = True
        for found in list(self._loops.values()):
            found.lines.close()
            found.runner.spawn(found.finish)

    async def _here(self) -> _Loop:
        """What belongs to the running loop."""
        loop = running_loop()
        found = self._loops.get(loop)
        if found is None:
            if self._closed:
                raise UsageError("the client is closed: make a new one")
            found = self._loops[loop] = _Loop(self._new_lines())
            await found.runner.at_end(found.aclose)
        return found


class AsyncImpersonateExchange:
    """As `ImpersonateExchange`, which does the work, in threads."""

    def __init__(
        self, transport: AsyncImpersonateTransport, prepared: Prepared, reply: Reply, deadlines: Deadlines
    ) -> None:
        self._transport = transport
        self._prepared = prepared
        self._reply = reply
        self._deadlines = deadlines
        self._exchange: ImpersonateExchange | None = None
        self._runner: Runner | None = None
        self._closed = False

    async def next_events(self) -> list[Event]:
        """See `AsyncExchange`."""
        if self._exchange is None:
            await self._open()
        assert self._exchange is not None
        assert self._runner is not None
        try:
            while self._exchange.wants:
                await _in_thread(self._exchange.work)
        except BaseException:
            # The thread may still be at it: woken, it ends at once.
            self.abandon()
            await self._runner.uncancelled(self._at_rest)
            raise
        return self._exchange.take()

    async def _open(self) -> None:
        from ._curl_exchange import ImpersonateExchange

        if self._closed:
            raise UsageError("the exchange is closed")
        here = await self._transport._here()
        self._runner = here.runner
        self._exchange = ImpersonateExchange(here.lines, self._prepared, self._reply, self._deadlines)

    async def aclose(self) -> None:
        """See `AsyncExchange`."""
        if self._closed:
            return
        try:
            if self._exchange is not None and self._exchange.drains:
                await _in_thread(self._exchange.close)
        finally:
            self.abandon()
            if self._runner is not None:
                await self._runner.uncancelled(self._at_rest)

    async def _at_rest(self) -> None:
        """Wait until no thread is at work."""
        assert self._exchange is not None
        if not self._exchange.at_rest.is_set():
            await _in_thread(self._exchange.at_rest.wait)

    def abandon(self) -> None:
        """See `AsyncExchange`. Takes no loop, and no time."""
        self._closed = True
        if self._exchange is not None:
            self._exchange.abandon()


async def _in_thread(work: Callable[[], object]) -> None:
    # Each has a thread to itself: anyio's usual forty would have the forty-first stream wait for one of the others.
    await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
