"""What the servers remember of each request. Written by the server's thread, for tests to read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["pending", "complete", "client-closed", "cut", "reset", "stalled"]
"""How the answer to one request ended, or that it has not.

pending: it is being written. complete: all of it was written. client-closed: the client ended the
connection before that. cut: the server ended the connection before that. reset: the server reset the
connection. stalled: the server writes no more and holds the connection; when the client then goes, this
becomes client-closed.
"""

_SECRET = b"***"


@dataclass(eq=False, kw_only=True)
class RecordedRequest:
    """One request that `ChatServer` received. `status`, `sent` and `outcome` are kept up to date."""

    method: str
    """The method, such as "POST"."""
    target: str
    """The request target as it stood in the request line."""
    path: str
    """The path in the target, without host and query."""
    headers: list[tuple[bytes, bytes]]
    """The header fields in order of arrival, the names in lower case."""
    body: bytes
    """The whole body, without transfer coding."""
    connection: int
    """Which of the server's TCP connections it came on, counted from 1."""
    arrived: float
    """When its last byte was read: seconds, as `time.monotonic` counts them."""
    sent: list[float] = field(default_factory=list)
    """When each token (or each of `Answer.events`) was written: seconds, as `time.monotonic` counts them."""
    status: int | None = None
    """The status code of the answer, or None as long as nothing of it is sent."""
    outcome: Outcome = "pending"
    """How the answer ended; see `Outcome`."""

    def json(self) -> Any:
        """The body as JSON. Raises ``ValueError`` if it is none."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The value of a header field, several joined by ", ", or None without one."""
        return find_header(self.headers, name)

    def __repr__(self) -> str:
        # Not the header fields (they hold the key) and not the body (it may be 64 MiB).
        return (
            f"<{self.method} {self.target} on connection {self.connection}, {len(self.body)} bytes: "
            f"{self.status}, {len(self.sent)} tokens sent, {self.outcome}>"
        )


@dataclass(eq=False, kw_only=True)
class ProxiedRequest:
    """One request that `ProxyServer` or `SocksServer` received. `status` is kept up to date."""

    method: str
    """The method, such as "CONNECT". SOCKS has "BIND" and "UDP ASSOCIATE" too."""
    target: str
    """For CONNECT "host:port", else the absolute URL. A user name and password in it show as "***". SOCKS:
    the name or the address as the client sent it ("[::1]:443" for IPv6); "" if it did not come to that."""
    headers: list[tuple[bytes, bytes]]
    """The header fields in order of arrival, the names in lower case; Proxy-Authorization shows as b"***".
    SOCKS has none."""
    authorized: bool
    """Whether it carried the right credentials, or the proxy asks for none."""
    status: int | None
    """The status code (SOCKS: the reply code, 0 for success) that the client was answered, or None as long as
    there is none. It stands here even if a planned `Fault` swallowed that answer."""
    connection: int
    """Which of the proxy's TCP connections from clients it came on, counted from 1."""
    arrived: float
    """When its head (SOCKS: the whole) was read: seconds, as `time.monotonic` counts them."""

    def __post_init__(self) -> None:
        self.headers = [
            (name, _SECRET if name.lower() == b"proxy-authorization" else value) for name, value in self.headers
        ]

    def __repr__(self) -> str:
        refused = "" if self.authorized else " (not authorized)"
        return f"<{self.method} {self.target} on connection {self.connection}{refused}: {self.status}>"


def find_header(headers: list[tuple[bytes, bytes]], name: str) -> str | None:
    """The values of a field, joined by ", ", or None."""
    wanted = name.lower().encode("latin-1")
    values = [value.decode("latin-1") for key, value in headers if key == wanted]
    return ", ".join(values) if values else None
