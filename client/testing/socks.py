"""`SocksServer`: a local SOCKS5 proxy, for tests of programs that must work behind one."""

from __future__ import annotations

import time

from ._proxies import Proxy
from ._socks import SocksSide
from .records import ProxiedRequest

# RFC 1929 counts a user name and a password in one byte each.
_LONGEST = 255


class SocksServer(Proxy):
    """A SOCKS5 proxy (RFC 1928) on this machine, in a thread of its own.

    It opens tunnels (CONNECT) to IPv4 and IPv6 addresses and to names, which it resolves itself. With
    `username` or `password`, clients must log in with both (RFC 1929, in UTF-8); without, they must offer
    to do without. Port 0 takes a free one. A target that cannot be reached is answered with the reply
    code that fits; one that dies later dies for the client too, in the same way.

    A client that does not get as far as a request, because it offers no method that will do or its
    password is wrong, stands in `requests` too: not `authorized`, with no `status` and the target "".

    Use it in ``with``, or call `start` and `stop`. Every method may be called from any thread; those
    that wait block the calling thread, so an async test runs them in a thread.
    """

    def __init__(
        self,
        *,
        username: str | None = None,
        password: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(username=username, password=password, host=host, port=port, ssl_context=None)
        for name, value in (("username", username), ("password", password)):
            if value is not None and len(value.encode()) > _LONGEST:
                raise ValueError(f"{name} is longer than the {_LONGEST} bytes that SOCKS5 can carry; choose another")
        self._refusal: int | None = None

    @property
    def address(self) -> str:
        """The URL without user name and password, "socks5://...". Raises ``RuntimeError`` unless it runs."""
        return f"socks5://{self._netloc()}"

    @property
    def remote_url(self) -> str:
        """`url` with the scheme socks5h, which asks the client to leave it to the proxy to resolve names."""
        return self.url.replace("socks5:", "socks5h:", 1)

    def refuse(self, code: int | None) -> None:
        """From now on answer every request with this reply code (1 to 255). None ends this."""
        if code is not None and not 1 <= code <= 255:
            raise ValueError(f"code is a SOCKS reply code, 1 to 255, not {code}; None ends the refusal")
        with self._changed:
            self._refusal = code

    # In the loop's thread

    def _peer(self, number: int) -> SocksSide:
        return SocksSide(self, number)

    @property
    def _wants_password(self) -> bool:
        return self._credentials is not None

    def _take(self, method: str, target: str, connection: int, *, authorized: bool) -> tuple[ProxiedRequest, int]:
        """Record a request; returns the reply code too, if it is not to be carried out, or 0."""
        record = ProxiedRequest(
            method=method,
            target=target,
            headers=[],
            authorized=authorized,
            status=None,
            connection=connection,
            arrived=time.monotonic(),
        )
        self._note(record)
        with self._changed:
            return record, self._refusal or 0
