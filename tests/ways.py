"""Every way to a server that there is: what the tests of ways, faults and deadlines share."""

from __future__ import annotations

import base64
import contextlib
import functools
import ssl
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote

from driving import Route, shown

from deltawire.testing import ChatServer, ProxyServer, SocksServer

USER = "me"
PASSWORD = "pa ss:w@rd/ä"


class Way(NamedTuple):
    """A server's scheme, and that of the proxy on the way to it, or ""."""

    target: str
    through: str = ""

    @property
    def name(self) -> str:
        """ "https by socks5"."""
        return f"{self.target} by {self.through}" if self.through else self.target

    @property
    def tunnels(self) -> bool:
        """Whether the proxy opens a tunnel; else it takes the request itself."""
        return self.through.startswith("socks") or (self.through != "" and self.target == "https")


WAYS = [Way(target, through) for through in ("", "http", "https", "socks5", "socks5h") for target in ("http", "https")]
BY_NAME = {way.name: way for way in WAYS}


def named(url: str) -> str:
    """The URL with a name for the host, in place of its address."""
    return url.replace("127.0.0.1", "localhost").replace("[::1]", "localhost")


@contextlib.contextmanager
def laid(
    way: Way,
    server_context: ssl.SSLContext,
    trusting: ssl.SSLContext,
    *,
    username: str | None = USER,
    password: str | None = PASSWORD,
    host: str = "127.0.0.1",
    proxy_host: str = "127.0.0.1",
    server: ChatServer | None = None,
) -> Iterator[Route]:
    """A server and a proxy, such that this is the way; username and password of None for a proxy that asks for none."""
    with contextlib.ExitStack() as stack:
        if server is None:
            server = ChatServer(
                tokens=["Hel", "lo"], ssl_context=server_context if way.target == "https" else None, host=host
            )
        stack.enter_context(server)
        proxy: ProxyServer | None = None
        socks: SocksServer | None = None
        if way.through in ("http", "https"):
            context = server_context if way.through == "https" else None
            proxy = ProxyServer(username=username, password=password, ssl_context=context, host=proxy_host)
            stack.enter_context(proxy)
        elif way.through:
            socks = stack.enter_context(SocksServer(username=username, password=password, host=proxy_host))
        yield Route(way.name, server, proxy, trusting, socks)


@functools.lru_cache
def forms(secret: str) -> list[str]:
    """All the ways in which a secret may be written down."""
    pairs = (f"{USER}:{secret}", secret)
    encoded = [base64.b64encode(pair.encode()).decode() for pair in pairs]
    return [secret, quote(secret), quote(secret, safe=""), repr(secret)[1:-1], *encoded]


def assert_no_secret(error: BaseException, *secrets: str, traced: bool = True) -> None:
    """Nothing that can be printed of the error shows a secret."""
    words = shown(error, traced=traced)
    for secret in (PASSWORD, *secrets):
        for form in forms(secret):
            assert form not in words, words


def assert_taken(way: Way, route: Route, count: int = 1, *, credentials: bool = True) -> None:
    """That so many calls went this way, each on a connection of its own, and no other, the proxy's log tells."""
    server = route.server
    assert [each.status for each in server.requests] == [200] * count
    for request in server.requests:
        assert request.header("proxy-authorization") is None
        told = repr(request.headers) + request.target + repr(request.body)
        assert not any(form in told for form in forms(PASSWORD)), told
    assert server.connections == count
    if route.between is None:
        assert all(each.header("via") is None for each in server.requests)
        return
    requests = route.between.requests
    # The proxy opens one connection for each of these, so none of the server's is anybody else's.
    assert len(requests) == count
    assert route.between.connections == count
    assert all(each.authorized for each in requests)
    authority = f"[::1]:{server.port}" if ":" in server.host else f"127.0.0.1:{server.port}"
    if way.through != "socks5":
        # Only that leaves it to the client to look names up.
        authority = f"localhost:{server.port}"
    methods, targets = {each.method for each in requests}, {each.target for each in requests}
    if way.tunnels:
        assert (methods, targets) == ({"CONNECT"}, {authority})
        assert {each.status for each in requests} == {0 if route.socks is not None else 200}
        # Inside, the bytes are none of the proxy's business.
        assert all(each.header("via") is None for each in server.requests)
        assert all(each.target == "/v1/chat/completions" for each in server.requests)
    else:
        assert (methods, targets) == ({"POST"}, {f"http://{authority}/v1/chat/completions"})
        assert all(each.header("via") is not None for each in server.requests)
    if isinstance(route.between, ProxyServer):
        sent = [name for name, _ in requests[0].headers].count(b"proxy-authorization")
        assert sent == (1 if credentials else 0)
