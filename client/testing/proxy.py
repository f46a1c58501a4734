"""`ProxyServer`: a local HTTP proxy, for tests of programs that must work behind one."""

from __future__ import annotations

import base64
import binascii
import ssl
import time
from collections.abc import Iterable

import h11

from ._forward import ClientSide
from ._heads import LocalReply
from ._proxies import Proxy
from .answers import encode_headers, reason_phrase
from .records import ProxiedRequest, find_header

_CHALLENGE = (b"proxy-authenticate", b'Basic realm="deltawire"')


class ProxyServer(Proxy):
    """An HTTP proxy on this machine, in a thread of its own.

    It forwards requests in absolute form (``GET http://host/path``) and opens tunnels for CONNECT. With
    `username` or `password`, requests must carry both in ``Proxy-Authorization: Basic`` (in UTF-8) or are
    answered 407; with `ssl_context` (a server's) clients reach it over TLS. Port 0 takes a free one. A
    target that cannot be reached is answered 502; one that dies in the midst of a reply dies for the
    client too, in the same way.

    Use it in ``with``, or call `start` and `stop`. Every method may be called from any thread; those
    that wait block the calling thread, so an async test runs them in a thread.
    """

    def __init__(
        self,
        *,
        username: str | None = None,
        password: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(username=username, password=password, host=host, port=port, ssl_context=ssl_context)
        if username is not None and ":" in username:
            raise ValueError("username holds a colon, which Basic authentication cannot carry; choose another")
        self._refusal: LocalReply | None = None

    @property
    def address(self) -> str:
        """The URL without user name and password. Raises ``RuntimeError`` unless it runs."""
        scheme = "http" if self._ssl_context is None else "https"
        return f"{scheme}://{self._netloc()}"

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
        self._note(record)
        with self._changed:
            refusal = self._refusal
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
        username, colon, password = given.partition(b":")
        return scheme.lower() == "basic" and colon == b":" and self._are_right(username, password)
