"""`ProxyServer`: a local HTTP proxy, for tests of programs that must work behind one."""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Iterable
from urllib.parse import quote

import h11

from ._forward import ClientSide
from ._heads import LocalReply
from ._loop import Service
from .answers import encode_headers, reason_phrase
from .records import ProxiedRequest, find_header

_CHALLENGE = (b"proxy-authenticate", b'Basic realm="deltawire"')


class ProxyServer(Service):
    """An HTTP proxy on this machine, in a thread of its own.

    It forwards requests in absolute form (``GET http://host/path``) and opens tunnels for CONNECT. With
    `username` or `password`, requests must carry both in ``Proxy-Authorization: Basic`` (in UTF-8) or are
    answered 407. Port 0 takes a free one. A target that cannot be reached is answered 502; one that dies
    in the midst of a reply dies for the client too, in the same way.

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
        super().__init__(host=host, port=port)
        if username is not None and ":" in username:
            raise ValueError("username holds a colon, which Basic authentication cannot carry; choose another")
        self._credentials = None if username is None and password is None else (username or "", password or "")
        self._requests: list[ProxiedRequest] = []
        self._refusal: LocalReply | None = None

    def __repr__(self) -> str:
        state = "stopped" if self._bound is None else self.address
        return f"<ProxyServer {state}, {len(self._requests)} requests>"

    @property
    def url(self) -> str:
        """The URL to hand to a client, such as "http://user:password@127.0.0.1:40002".

        User name and password are percent-encoded. Raises ``RuntimeError`` unless it runs.
        """
        if self._credentials is None:
            return self.address
        username, password = (quote(part, safe="") for part in self._credentials)
        return f"http://{username}:{password}@{self._netloc()}"

    @property
    def address(self) -> str:
        """The URL without user name and password. Raises ``RuntimeError`` unless it runs."""
        return f"http://{self._netloc()}"

    @property
    def requests(self) -> list[ProxiedRequest]:
        """The requests so far, in order of arrival: a snapshot, but its records are kept up to date."""
        with self._changed:
            return list(self._requests)

    def refuse(self, status: int | None, reason: str | None = None, headers: Iterable[tuple[str, str]] = ()) -> None:
        """From now on answer every request with this status (200 to 599), reason phrase and further fields.

        The reason is also the body. Without one it is the status code's own. A status of None ends this.
        """
        if status is None:
            refusal = None
        else:
            refusal = LocalReply.text(status, reason or reason_phrase(status) or "Refused", encode_headers(headers))
        with self._changed:
            self._refusal = refusal

    def wait_requests(self, count: int, timeout: float = 5.0) -> list[ProxiedRequest]:
        """Wait for `count` requests in all, and return those so far.

        Raises ``TimeoutError``, which shows the log, after `timeout` seconds.
        """
        self._wait(lambda: len(self._requests) >= count, f"{count} requests", timeout)
        return self.requests

    def _entries(self) -> list[ProxiedRequest]:
        return self._requests

    # In the loop's thread

    def _peer(self, number: int) -> ClientSide:
        return ClientSide(self, number)

    def _take(self, head: h11.Request, shown: str, connection: int) -> tuple[ProxiedRequest, LocalReply | None]:
        """Record a request; returns the refusal too, if it is not to be forwarded. `shown` is its target."""
        authorized = self._may(list(head.headers))
        record = ProxiedRequest(
            method=head.method.decode("ascii"),
            target=shown,
            headers=list(head.headers),
            authorized=authorized,
            status=None,
            connection=connection,
            arrived=time.monotonic(),
        )
        with self._changed:
            self._requests.append(record)
            refusal = self._refusal
            self._changed.notify_all()
        if refusal is None and not authorized:
            refusal = LocalReply.text(407, "Proxy Authentication Required", [_CHALLENGE])
        return record, refusal

    def _may(self, headers: list[tuple[bytes, bytes]]) -> bool:
        if self._credentials is None:
            return True
        scheme, _, token = (find_header(headers, "proxy-authorization") or "").partition(" ")
        try:
            given = base64.b64decode(token.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        return scheme.lower() == "basic" and hmac.compare_digest(given, ":".join(self._credentials).encode())
