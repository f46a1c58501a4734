"""What the proxies have in common, towards the test: credentials, the log, and the plan of faults."""

from __future__ import annotations

import hmac
import ssl
from abc import abstractmethod
from urllib.parse import quote

from ._loop import Service
from .faults import Fault
from .records import ProxiedRequest


class Proxy(Service):
    """The part of `ProxyServer` and `SocksServer` that is the same."""

    def __init__(
        self, *, username: str | None, password: str | None, host: str, port: int, ssl_context: ssl.SSLContext | None
    ) -> None:
        super().__init__(host=host, port=port, ssl_context=ssl_context)
        self._credentials = None if username is None and password is None else (username or "", password or "")
        self._requests: list[ProxiedRequest] = []
        for name, value in (("username", username), ("password", password)):
            try:
                (value or "").encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"{name} holds half a character (a surrogate), which UTF-8 cannot carry") from error

    def __repr__(self) -> str:
        state = "stopped" if self._bound is None else self.address
        return f"<{type(self).__name__} {state}, {len(self._requests)} requests>"

    @property
    @abstractmethod
    def address(self) -> str:
        """The URL without user name and password."""

    @property
    def url(self) -> str:
        """The URL to hand to a client, such as "http://user:password@127.0.0.1:40002".

        User name and password are percent-encoded. Raises ``RuntimeError`` unless it runs.
        """
        if self._credentials is None:
            return self.address
        username, password = (quote(part, safe="") for part in self._credentials)
        return self.address.replace("://", f"://{username}:{password}@", 1)

    @property
    def requests(self) -> list[ProxiedRequest]:
        """The requests so far, in order of arrival: a snapshot, but its records are kept up to date."""
        with self._changed:
            return list(self._requests)

    def plan(self, *faults: Fault | None) -> None:
        """Queue faults, as `plan_faults` does."""
        self.plan_faults(*faults)

    @property
    def open_targets(self) -> int:
        """How many connections to targets are open now."""
        with self._changed:
            return len(self._peers) - self._count_open()

    def wait_requests(self, count: int, timeout: float = 5.0) -> list[ProxiedRequest]:
        """Wait for `count` requests in all, and return those so far.

        Raises ``TimeoutError``, which shows the log, after `timeout` seconds.
        """
        self.wait_until(lambda: len(self._requests) >= count, f"{count} requests", timeout)
        return self.requests

    def _entries(self) -> list[ProxiedRequest]:
        return self._requests

    # In the loop's thread

    def _note(self, record: ProxiedRequest) -> None:
        with self._changed:
            self._requests.append(record)
            self._changed.notify_all()

    def _are_right(self, username: bytes, password: bytes) -> bool:
        """Whether these are the credentials, in UTF-8."""
        assert self._credentials is not None
        wanted = [part.encode() for part in self._credentials]
        return hmac.compare_digest(username, wanted[0]) and hmac.compare_digest(password, wanted[1])
