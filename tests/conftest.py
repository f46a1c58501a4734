"""What every test has: an environment that says nothing, and a check that no thread outlives the test."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
import trustme
from collecting import COLLECTORS, Collect
from driving import DRIVERS, TRANSPORTS, Driver, Route, Run, Transports, no_leaks
from streaming import RUNTIMES, Runtime

from deltawire import OpenaiTemplate, owners
from deltawire.testing import ChatServer, ProxyServer, SocksServer


@pytest.fixture(scope="session", autouse=True)
def _quick_collections() -> Iterator[None]:
    # What was loaded before the first test stays; looking through it for garbage, twice a test, takes most of the time.
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c() -> Iterator[None]:
    # What a shell's script runs in the background (``pytest &``) ignores it, and so would the programs of the tests.
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _silent_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith("OPENAI_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    # anyio's workers end after their loop; trio's are daemons and wait for more work.
    for thread in set(threading.enumerate()) - before:
        if not thread.daemon:
            thread.join(2)
            assert not thread.is_alive(), f"{thread.name} is left behind"


@pytest.fixture
def _tidy() -> Iterator[None]:
    """Fail a test after which there are more sockets than before."""
    with no_leaks():
        yield


@pytest.fixture(params=sorted(TRANSPORTS))
def transports(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Transports:
    """The transports of one kind, httpcore or wire; clients that name none have these, also in programs of their own.

    What is true of sockets, servers and proxies is to be true of both: tests of that use this fixture.
    """
    found = TRANSPORTS[request.param]
    monkeypatch.setattr(owners, "_USUAL", found.name)
    return found


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    """``run(main, *arguments)``: the result of an async function, on asyncio and on trio."""

    def on_asyncio(main: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        async def awaited() -> Any:
            return await main(*arguments)

        return asyncio.run(awaited())

    return on_asyncio if request.param == "asyncio" else trio.run


@pytest.fixture(params=RUNTIMES, ids=lambda runtime: runtime.name)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Streams that block, or those of asyncio or trio."""
    found: Runtime = request.param
    return found


@pytest.fixture(params=sorted(DRIVERS))
def driver(request: pytest.FixtureRequest) -> Driver:
    """One way to make calls: `Client`, or `AsyncClient` on asyncio or trio."""
    return DRIVERS[request.param]


@pytest.fixture(params=sorted(COLLECTORS))
def collect(request: pytest.FixtureRequest) -> Collect:
    """One way to ask a provider by itself: blocking, or on asyncio or trio."""
    return COLLECTORS[request.param]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(tokens=["Hel", "lo"]) as running:
        yield running


@pytest.fixture
def local(server: ChatServer) -> type[OpenaiTemplate]:
    """A provider: this server."""
    return type("Local", (OpenaiTemplate,), {"api_base": server.url})


@pytest.fixture
def proxy() -> Iterator[ProxyServer]:
    with ProxyServer(username="me", password="pa ss:w@rd") as running:
        yield running


@pytest.fixture
def socks() -> Iterator[SocksServer]:
    with SocksServer(username="me", password="pa ss:w@rd") as running:
        yield running


@pytest.fixture
def tls_proxy(server_context: ssl.SSLContext) -> Iterator[ProxyServer]:
    with ProxyServer(username="me", password="pa ss:w@rd", ssl_context=server_context) as running:
        yield running


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client's context that trusts the authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def tls_server(server_context: ssl.SSLContext) -> Iterator[ChatServer]:
    with ChatServer(tokens=["Hel", "lo"], ssl_context=server_context) as running:
        yield running


def _route(name: str, request: pytest.FixtureRequest) -> Route:
    fixture = request.getfixturevalue
    found: ChatServer = fixture("server" if name in ("direct", "proxy") else "tls_server")
    proxy = {"proxy": "proxy", "tunnel": "proxy", "tls in tls": "tls_proxy"}.get(name)
    through: ProxyServer | None = None if proxy is None else fixture(proxy)
    socks: SocksServer | None = fixture("socks") if name == "socks" else None
    return Route(name, found, through, fixture("trusting"), socks)


@pytest.fixture(params=["direct", "tls", "proxy", "tunnel", "socks", "tls in tls"])
def route(request: pytest.FixtureRequest) -> Route:
    """A way to a server: plain or TLS, direct or through a proxy."""
    return _route(request.param, request)


@pytest.fixture(params=["direct", "tunnel"])
def short_route(request: pytest.FixtureRequest) -> Route:
    """The shortest of them and a long one, for tests of which there are many."""
    return _route(request.param, request)
