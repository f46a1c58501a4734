"""The impersonating transports: that they look like a browser, and are like any other transport in all else; sync, on
asyncio and on trio."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
import trustme
from driving import (
    DRIVERS,
    HI,
    MODEL,
    STALLED,
    Driver,
    Heard,
    Peer,
    Route,
    Run,
    blocking,
    cancelled_when,
    dribbling,
    free_port,
    full_listener,
    shown,
    unix_socket,
)
from faults import FAULTS, HEAD, LONG, QUICK, check, chunk, deadlines, each_fault, event, reply_for, request_for
from faults import simple_request as simple
from hypothesis import HealthCheck, settings
from hypothesis import given as given_data
from hypothesis.strategies import DataObject, binary, data, integers
from test_http2 import HTTP2Server
from ways import BY_NAME, PASSWORD, USER, WAYS, Way, assert_no_secret, assert_taken, laid, named

from deltawire import (
    AsyncClient,
    Client,
    ConfigurationError,
    ConnectError,
    DeltawireError,
    Opchatgpts,
    ProxyError,
    RateLimitError,
    ReadError,
    Timeout,
    TimeoutError,
    UnexpectedReplyError,
    UsageError,
)
from deltawire.protocol import (
    ChatCompletionChunk,
    ChatRequest,
    Endpoint,
    Event,
    HTTPRequest,
    Proxy,
    Reply,
    StreamEnded,
    StreamFailed,
    absolute_form,
)
from deltawire.testing import Answer, ChatServer, Fault, ProxyServer, SocksServer
from deltawire.transports import (
    AsyncHTTPCoreTransport,
    AsyncImpersonateTransport,
    HTTPCoreTransport,
    ImpersonateTransport,
)
from deltawire.transports.impersonate import profiles

pytestmark = pytest.mark.usefixtures("_tidy")

KEY = "sk-secret-key"
SOON = 1.0
SYNC = DRIVERS["sync"]


@pytest.fixture(scope="session")
def ca(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("impersonate") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def given(driver: Driver, url: str, *, proxies: Any = None, timeout: Any = 5, **transport: Any) -> dict[str, Any]:
    """The arguments of a client that impersonates."""
    kind = ImpersonateTransport if driver.name == "sync" else AsyncImpersonateTransport
    return {
        "base_url": url,
        "proxies": proxies,
        "timeout": timeout,
        "max_retries": 0,
        "api_key": KEY,
        "transport": kind(**transport),
    }


def hang_up(driver: Driver, options: dict[str, Any]) -> None:
    """Close the transport, for peers that wait for that. (Loops take their connections along.)"""
    if driver.name == "sync":
        options["transport"].close()


def on(driver: Driver, route: Route, ca: str, **more: Any) -> dict[str, Any]:
    """The same, for a way to a server."""
    return given(driver, named(route.server.url), **{"proxies": route.proxies, "verify": ca, **more})


def text_of(events: list[Event]) -> str:
    return "".join(each.choices[0].delta.content or "" for each in events if isinstance(each, ChatCompletionChunk))


class Runs:
    """Exchanges by themselves."""

    def __init__(self, name: str) -> None:
        self.name = name

    def transport(self, **options: Any) -> Any:
        return (ImpersonateTransport if self.name == "sync" else AsyncImpersonateTransport)(**options)

    def all_of(self, transport: Any, *exchanges: Callable[[], Any]) -> list[list[Event]]:
        """The events of these, one exchange after the other, to the end; then the transport is closed."""
        if self.name == "sync":
            found = []
            for make in exchanges:
                exchange, events = make(), []
                while more := exchange.next_events():
                    events += more
                assert exchange.next_events() == []
                exchange.close()
                exchange.close()
                assert transport.connections()[0] == 0
                found.append(events)
            transport.close()
            transport.close()
            assert transport.connections() == (0, 0)
            return found

        async def main() -> list[list[Event]]:
            found = []
            for make in exchanges:
                exchange, events = make(), []
                while more := await exchange.next_events():
                    events += more
                assert await exchange.next_events() == []
                await exchange.aclose()
                await exchange.aclose()
                assert transport.connections()[0] == 0
                found.append(events)
            await transport.aclose()
            await transport.aclose()
            assert transport.connections() == (0, 0)
            return found

        if self.name == "asyncio":
            return asyncio.run(main())
        return trio.run(main)


@pytest.fixture(params=["sync", "asyncio", "trio"])
def runs(request: pytest.FixtureRequest) -> Runs:
    return Runs(request.param)


# --- A browser ------------------------------------------------------------------------------------------


class Hello:
    """A ClientHello (RFC 8446 section 4.1.2), as far as it tells browsers apart."""

    def __init__(self, data: bytes) -> None:
        assert data[:1] == b"\x16"
        at = 5 + 4 + 2 + 32
        at += 1 + data[at]
        (length,) = struct.unpack_from(">H", data, at)
        self.ciphers = list(struct.unpack_from(f">{length // 2}H", data, at + 2))
        at += 2 + length
        at += 1 + data[at]
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        at += 2
        self.extensions: list[int] = []
        while at < end:
            kind, length = struct.unpack_from(">HH", data, at)
            self.extensions.append(kind)
            at += 4 + length

    @property
    def greased(self) -> bool:
        """RFC 8701: both bytes alike, and each ends in A."""
        return any(each & 0x0F0F == 0x0A0A and each >> 8 == each & 0xFF for each in self.ciphers)


@contextlib.contextmanager
def hellos() -> Iterator[tuple[int, list[bytes]]]:
    """A port that reads one ClientHello of each connection, and closes."""
    heard: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(5)
                    data = b""
                    while len(data) < 5 or len(data) < 5 + int.from_bytes(data[3:5], "big"):
                        piece = connection.recv(65536)
                        if not piece:
                            break
                        data += piece
                    heard.append(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], heard
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_the_handshake_is_a_browsers(driver: Driver) -> None:
    with hellos() as (port, heard):
        url = f"https://127.0.0.1:{port}/v1"
        for options in ({"impersonate": "chrome"}, {"impersonate": "firefox"}):
            error = driver.stream(given(driver, url, verify=False, **options)).error
            assert type(error) is ConnectError
        driver.stream({"base_url": url, "verify": False, "max_retries": 0})
    chrome, firefox, ours = map(Hello, heard)
    assert chrome.greased
    assert not firefox.greased
    assert not ours.greased
    # ALPS (0x44CD) is Chrome's alone, record_size_limit (RFC 8449) Firefox's among these.
    assert 0x44CD in chrome.extensions
    assert 28 in firefox.extensions
    assert chrome.ciphers != ours.ciphers != firefox.ciphers


def test_the_head_is_a_browsers(driver: Driver, server: ChatServer) -> None:
    heard = driver.stream(given(driver, server.url), extra_headers={"X-Thing": "1", "Accept-Language": "de"})
    assert (heard.text, heard.error) == ("Hello", None)
    (request,) = server.requests
    names = [name for name, _ in request.headers]
    assert len(names) == len(set(names))
    assert "Chrome/" in (request.header("user-agent") or "")
    assert request.header("sec-ch-ua") is not None
    assert request.header("accept-encoding") == "gzip, deflate, br, zstd"
    # What is asked for wins, in the place where the browser would say it.
    assert request.header("accept") == "text/event-stream"
    assert request.header("accept-language") == "de"
    assert request.header("x-thing") == "1"
    assert request.header("authorization") == f"Bearer {KEY}"
    assert request.header("content-type") == "application/json"
    assert request.header("host") == f"127.0.0.1:{server.port}"
    assert request.header("content-length") == str(len(request.body))
    for absent in ("upgrade", "http2-settings", "expect", "proxy-connection"):
        assert request.header(absent) is None
    order = [names.index(name) for name in (b"host", b"sec-ch-ua", b"user-agent", b"accept", b"accept-language")]
    assert order == sorted(order)


METADATA = ("sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "sec-fetch-user", "upgrade-insecure-requests")
VISIT = ["none", "navigate", "document", "?1", "1"]
FETCH = ["same-origin", "cors", "empty", None, None]


@pytest.mark.parametrize(
    ("method", "fields", "seen"),
    [
        ("POST", {}, FETCH),
        ("POST", {"Accept": "text/html"}, FETCH),
        ("POST", {"Origin": "https://else.example"}, ["cross-site", *FETCH[1:]]),
        (
            "POST",
            {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-User": "?1"},
            ["same-origin", "no-cors", "empty", "?1", None],
        ),
        ("GET", {"Accept": "application/json"}, FETCH),
        ("GET", {"Accept": "text/html"}, VISIT),
        ("GET", {}, VISIT),
    ],
)
def test_what_the_request_is_for(server: ChatServer, method: str, fields: dict[str, str], seen: list[Any]) -> None:
    plain = simple(server.url)
    headers = (*plain.headers, *((name.lower().encode(), value.encode()) for name, value in fields.items()))
    transport = ImpersonateTransport(impersonate="chrome")
    for more in ((), ((b"origin", server.site_url.encode()),)):
        request = HTTPRequest(method, plain.url, headers if b"origin" in dict(headers) else headers + more, plain.body)
        exchange = transport.open(request, Reply(), deadlines(LONG))
        exchange.next_events()
        exchange.close()
        assert [server.requests[-1].header(name) for name in METADATA] == seen
    if method == "POST" and not fields:
        assert server.requests[-1].header("accept") == "*/*"
    transport.close()


def test_a_browser_of_before_fetch_metadata(server: ChatServer) -> None:
    with Client(base_url=server.url, impersonate="safari155") as client:
        client.chat.completions.create(model="m", messages="Hi")
    assert [server.requests[0].header(name) for name in METADATA] == [None] * 5


def test_the_browser_of_2023_is_not_the_one_that_is_looked_like(server: ChatServer) -> None:
    provider = Opchatgpts(url=server.site_url, historical=True, nonce=server.nonce)
    ways: list[dict[str, Any]] = [{"impersonate": "chrome"}, {"transport": "impersonate"}]
    for options in ways:
        with Client(provider=provider, **options) as client:
            client.chat.completions.create(messages="Hi")
        request = server.requests[-1]
        version = re.search(r'"Chromium";v="(\d+)"', request.header("sec-ch-ua") or "")
        assert version is not None
        assert f"Chrome/{version[1]}." in (request.header("user-agent") or "")


def test_ones_own_user_agent(driver: Driver, server: ChatServer) -> None:
    mine = {"User-Agent": "mine", "Accept-Encoding": "identity;q=1", "Host": "else.example", "X-Empty": ""}
    assert driver.ask(given(driver, server.url), extra_headers=mine).text == "Hello"
    (request,) = server.requests
    assert [request.header(name) for name in ("user-agent", "accept-encoding", "host", "x-empty")] == [
        "mine",
        "identity;q=1",
        "else.example",
        "",
    ]


def test_a_request_names_its_own_browser(runs: Runs, server: ChatServer) -> None:
    transport = runs.transport(impersonate="safari")
    plain = simple(server.url)
    firefox = HTTPRequest(plain.method, plain.url, plain.headers, plain.body, impersonate="firefox")
    found = runs.all_of(
        transport,
        *(lambda each=each: transport.open(each, Reply(), deadlines(LONG)) for each in (plain, firefox, plain)),
    )
    assert [text_of(events) for events in found] == ["Hello"] * 3
    agents = [each.header("user-agent") or "" for each in server.requests]
    assert ["Firefox" in agent for agent in agents] == [False, True, False]
    assert ["Safari" in agent for agent in agents] == [True, False, True]
    # Of each browser its own connection.
    assert server.connections == 2


@pytest.mark.parametrize("name", profiles())
def test_each_browser(server: ChatServer, name: str) -> None:
    transport = ImpersonateTransport(impersonate=name)
    exchange = transport.open(simple(server.url), Reply(), deadlines(LONG))
    events: list[Event] = []
    while more := exchange.next_events():
        events += more
    assert text_of(events) == "Hello"
    exchange.close()
    transport.close()
    assert "Mozilla/5.0" in (server.requests[0].header("user-agent") or "")


def test_an_unknown_browser(driver: Driver, server: ChatServer) -> None:
    kind = ImpersonateTransport if driver.name == "sync" else AsyncImpersonateTransport
    with pytest.raises(ConfigurationError, match=r"'chrme'.*did you mean.*'chrome'.*profiles\(\)"):
        kind(impersonate="chrme")
    strange: list[Any] = ["", "chrome\0x", None, 3, ["chrome"]]
    for bad in strange:
        with pytest.raises(ConfigurationError, match="profiles"):
            kind(impersonate=bad)
    request = HTTPRequest("GET", f"{server.url}/models", (), impersonate="netscape")
    with pytest.raises(ConfigurationError, match="netscape"):
        kind().open(request, Reply(), deadlines())
    assert server.connections == 0


def test_an_unknown_browser_of_a_client(server: ChatServer) -> None:
    strange: list[Any] = ["netscape", ["chrome"]]
    for bad in strange:
        for kind in (Client, AsyncClient):
            with pytest.raises(ConfigurationError, match=re.escape(f"impersonate={bad!r} is no browser")):
                kind(base_url=server.url, impersonate=bad)
    with Client(base_url=server.url) as client, pytest.raises(ConfigurationError, match="netscape"):
        client.chat.completions.create(model="m", messages="Hi", impersonate="netscape")
    assert server.connections == 0


def test_a_client_on_a_way_of_its_own(driver: Driver, tmp_path: Path) -> None:
    options = {"impersonate": "chrome", "http2": True, "timeout": 5, "max_retries": 0, "api_key": KEY}
    with Peer(HEAD + chunk(event("a")) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n") as peer:
        url = f"http://127.0.0.1:{peer.port}/v1"
        assert driver.stream({"base_url": url, "local_address": "127.0.0.2", **options}).text == "a"
        assert peer.clients == ["127.0.0.2"]
    missing = str(tmp_path / "socket")
    error = driver.stream({"base_url": url, "uds": missing, **options}).error
    assert type(error) is ConnectError
    assert missing in str(error)


def test_other_transports_refuse(server: ChatServer) -> None:
    request = HTTPRequest("GET", f"{server.url}/models", (), impersonate="chrome")
    for transport in (HTTPCoreTransport(), AsyncHTTPCoreTransport()):
        assert not hasattr(transport, "impersonates")
        with pytest.raises(ConfigurationError, match=r"impersonate='chrome'.*pip install 'deltawire\[impersonate\]'"):
            transport.open(request, Reply(), deadlines())
    assert ImpersonateTransport.impersonates
    assert AsyncImpersonateTransport.impersonates
    assert server.connections == 0


def test_the_request_keeps_its_browser() -> None:
    request = HTTPRequest("GET", "http://x/", (), impersonate="chrome")
    assert request.to("http://x/y") == HTTPRequest("GET", "http://x/y", (), impersonate="chrome")
    assert absolute_form(request, Proxy.parse("http://me:pw@p")).impersonate == "chrome"
    assert "impersonate='chrome'" in repr(request)
    assert "impersonate" not in repr(HTTPRequest("GET", "http://x/", ()))


def test_a_prepared_request_shows_no_secret() -> None:
    from deltawire.transports._curl_request import Setup, prepared

    sent = HTTPRequest("POST", "http://x/?key=" + KEY, ((b"authorization", KEY.encode()),), b"{}")
    ready = prepared(sent, Proxy.parse(f"socks5://me:{KEY}@p"), "chrome", Setup.of(True, None, None))
    for words in (repr(ready), str(ready)):
        assert KEY not in words
        assert "http://x/?key=***" in words


def test_without_curl_cffi() -> None:
    code = """
import sys
sys.modules["curl_cffi"] = None
from deltawire import ConfigurationError
from deltawire.transports import AsyncImpersonateTransport, ImpersonateTransport
from deltawire.transports.impersonate import profiles
for make in (AsyncImpersonateTransport, ImpersonateTransport, profiles):
    try:
        make()
    except ConfigurationError as error:
        assert "pip install 'deltawire[impersonate]'" in str(error), error
    else:
        raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_curl_cffi_is_loaded_on_first_use() -> None:
    code = "import sys, deltawire.transports.impersonate; assert 'curl_cffi' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --- Ways ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("credentials", [True, False], ids=["password", "open"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_each_way(
    driver: Driver,
    way: Way,
    credentials: bool,
    ca: str,
    server_context: ssl.SSLContext,
    trusting: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # libcurl would read these by itself.
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    if way.through:
        monkeypatch.setenv("NO_PROXY", "*")
        monkeypatch.setenv("no_proxy", "*")
    none: dict[str, Any] = {} if credentials else {"username": None, "password": None}
    with laid(way, server_context, trusting, **none) as route:
        for ask in (driver.stream, driver.ask):
            options = {**on(driver, route, ca), "trust_env": False}
            heard = ask(options)
            assert (heard.text, heard.error) == ("Hello", None)
        assert_taken(way, route, 2, credentials=credentials)
        if way.tunnels:
            assert route.between is not None
            names = {name for each in route.between.requests for name, _ in each.headers}
            assert names <= {b"host", b"proxy-authorization", b"proxy-connection"}


@pytest.mark.parametrize("password", ["a:b@c/d?e#f%41", "Zoë 密码 🔑", "", "x" * 255, " a\tb\x01"])
@pytest.mark.parametrize("name", ["http by http", "https by http", "http by socks5h"])
def test_passwords(
    driver: Driver, name: str, password: str, ca: str, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    with laid(BY_NAME[name], server_context, trusting, password=password) as route:
        heard = driver.ask(on(driver, route, ca))
        assert (heard.text, heard.error) == ("Hello", None)


def test_a_password_that_c_cannot_say(driver: Driver, server: ChatServer) -> None:
    proxy = Proxy("socks5", "127.0.0.1", 1, "me", "secret\0word")
    error = driver.stream(given(driver, server.url, proxies=proxy)).error
    assert isinstance(error, ConfigurationError)
    assert "secret" not in shown(error)
    assert server.connections == 0


@pytest.mark.parametrize("name", ["http by http", "https by http", "https by https"])
def test_further_fields(
    driver: Driver, name: str, ca: str, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    with laid(BY_NAME[name], server_context, trusting) as route:
        assert route.proxy is not None
        proxy = Proxy.parse(route.proxy.url, headers={"Proxy-Tag": "one"})
        assert driver.stream(on(driver, route, ca, proxies=proxy)).text == "Hello"
        assert [dict(each.headers).get(b"proxy-tag") for each in route.proxy.requests] == [b"one"]
        assert route.server.requests[0].header("proxy-tag") is None
        token = Proxy.parse(route.proxy.url, headers={"Proxy-Authorization": "Bearer tok-secret"})
        error = driver.stream(on(driver, route, ca, proxies=token)).error
        assert isinstance(error, ProxyError)
        assert (error.status_code, error.transient) == (407, False)
        assert_no_secret(error, "tok-secret", KEY)


@pytest.mark.parametrize("way", [way for way in WAYS if way.through], ids=lambda way: way.name)
def test_a_wrong_password(
    driver: Driver, way: Way, ca: str, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    with laid(way, server_context, trusting) as route:
        assert route.between is not None
        wrong = f"{way.through}://{USER}:wrong-secret@127.0.0.1:{route.between.port}"
        error = driver.stream(on(driver, route, ca, proxies=wrong)).error
        assert isinstance(error, ProxyError)
        assert not error.transient
        assert error.status_code == (407 if route.socks is None else None)
        assert error.proxy == f"{way.through}://127.0.0.1:{route.between.port}"
        assert error.proxy in str(error)
        assert_no_secret(error, "wrong-secret", KEY)
        assert route.server.connections == 0


@pytest.mark.parametrize("way", [way for way in WAYS if way.through], ids=lambda way: way.name)
def test_a_dead_proxy(driver: Driver, way: Way, server: ChatServer) -> None:
    proxy = f"{way.through}://{USER}:else-secret@127.0.0.1:{free_port()}"
    url = server.url.replace("http", way.target, 1)
    error = driver.stream(given(driver, url, proxies=proxy)).error
    assert isinstance(error, ProxyError)
    assert error.transient
    assert "can't be reached ([Errno" in str(error)
    assert_no_secret(error, "else-secret", KEY)
    assert server.connections == 0, "nothing goes round a proxy"


def test_an_unknown_proxy(driver: Driver, server: ChatServer) -> None:
    error = driver.stream(given(driver, server.url, proxies="http://nowhere.invalid:1")).error
    assert isinstance(error, ProxyError)
    assert server.connections == 0


@pytest.mark.parametrize("status", [403, 502])
def test_a_refused_tunnel(driver: Driver, tls_server: ChatServer, proxy: ProxyServer, status: int) -> None:
    proxy.refuse(status, "Not today, pa ss:w@rd")
    error = driver.stream(given(driver, tls_server.url, proxies=proxy.url)).error
    assert isinstance(error, ProxyError)
    assert (error.status_code, error.transient) == (status, status == 502)
    assert "Not today" in str(error)
    assert_no_secret(error, "pa ss:w@rd", KEY)


@pytest.mark.parametrize("code", range(1, 10))
def test_a_socks_proxy_that_refuses(driver: Driver, server: ChatServer, code: int) -> None:
    with SocksServer(username=USER, password=PASSWORD) as proxy:
        proxy.refuse(code)
        error = driver.stream(given(driver, server.url, proxies=proxy.url)).error
        assert isinstance(error, ProxyError)
        assert error.reply_code == (code if code < 9 else None)
        assert f"127.0.0.1:{proxy.port}" in str(error)
        assert_no_secret(error)


def test_who_looks_the_name_up(driver: Driver) -> None:
    with SocksServer() as proxy:
        error = driver.stream(given(driver, "http://nowhere.invalid/v1", proxies=proxy.remote_url)).error
        assert isinstance(error, ProxyError)
        assert [each.target for each in proxy.requests] == ["nowhere.invalid:80"]
        error = driver.stream(given(driver, "http://nowhere.invalid/v1", proxies=proxy.url)).error
        assert type(error) is ConnectError
        assert "nowhere.invalid can't be looked up here" in str(error)
        assert len(proxy.requests) == 1


# Where a handshake may end: the bytes of the proxy's that come before.
HANDSHAKES = {"https by http": 39, "http by socks5h": 12}


@pytest.mark.parametrize("ending", ["close", "reset"])
@pytest.mark.parametrize("name", HANDSHAKES)
def test_each_byte_of_a_handshake(
    name: str, ending: Any, ca: str, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    with laid(BY_NAME[name], server_context, trusting) as route:
        assert route.between is not None
        with Client(**on(SYNC, route, ca)) as client:
            for position in range(HANDSHAKES[name]):
                route.between.plan(Fault(position, ending, raw=True))
                with pytest.raises(ProxyError) as caught:
                    client.chat.completions.create(HI, MODEL, stream=True)
                assert caught.value.proxy == route.between.address.replace("socks5:", "socks5h:")
                assert_no_secret(caught.value, KEY, traced=False)
        route.between.wait_closed(SOON)
        assert route.server.requests == []


def test_ipv6(driver: Driver) -> None:
    with ChatServer(tokens=["Hi"], host="::1") as server, ProxyServer(username=USER, password=PASSWORD) as proxy:
        assert driver.ask(given(driver, server.url)).text == "Hi"
        # libcurl can't ask an HTTP proxy for such a URL, so it asks for a tunnel.
        assert driver.ask(given(driver, server.url, proxies=proxy.url)).text == "Hi"
        assert [(each.method, each.target) for each in proxy.requests] == [("CONNECT", f"[::1]:{server.port}")]


def test_a_unix_domain_socket(driver: Driver, server: ChatServer, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with unix_socket(str(path), server.port):
        options = {**given(driver, "http://localhost:1/v1", uds=path), "trust_env": False}
        assert driver.stream(options).text == "Hello"
        hang_up(driver, options)
    assert server.requests[0].header("host") == "localhost:1"
    error = driver.stream(given(driver, "http://localhost/v1", uds=str(tmp_path / "none"))).error
    assert type(error) is ConnectError
    assert str(tmp_path / "none") in str(error)
    kind = ImpersonateTransport if driver.name == "sync" else AsyncImpersonateTransport
    with pytest.raises(ConfigurationError, match="uds="):
        kind(uds=path).open(simple(server.url), Reply(), deadlines(), proxy=Proxy.parse("http://p"))


def test_no_path_of_a_socket() -> None:
    for kind in (ImpersonateTransport, AsyncImpersonateTransport, HTTPCoreTransport, AsyncHTTPCoreTransport):
        with pytest.raises(ConfigurationError, match="uds= must be the path of a socket, not int"):
            kind(uds=5)  # type: ignore[arg-type]


def test_a_local_address(driver: Driver, server: ChatServer) -> None:
    with Peer(HEAD + chunk(event("a")) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n") as peer:
        options = given(driver, f"http://127.0.0.1:{peer.port}/v1", local_address="127.0.0.2")
        assert driver.stream(options).text == "a"
        hang_up(driver, options)
        assert peer.clients == ["127.0.0.2"]
    error = driver.stream(given(driver, server.url, local_address="192.0.2.1")).error
    assert type(error) is ConnectError
    assert "from the local address 192.0.2.1" in str(error)


# --- Whom to trust ------------------------------------------------------------------------------------


def test_trust(driver: Driver, tls_server: ChatServer, ca: str, trusting: ssl.SSLContext) -> None:
    for verify in (ca, Path(ca), False):
        assert driver.stream(given(driver, tls_server.url, verify=verify)).text == "Hello"
    error = driver.stream(given(driver, tls_server.url)).error
    assert type(error) is ConnectError
    assert not error.transient
    assert "certificate of 127.0.0.1 is not trusted" in str(error)
    assert len(tls_server.requests) == 3
    kind = ImpersonateTransport if driver.name == "sync" else AsyncImpersonateTransport
    with pytest.raises(ConfigurationError, match=r"can't be an ssl\.SSLContext"):
        kind(verify=trusting)
    with pytest.raises(ConfigurationError, match="can't be loaded"):
        kind(verify="/nowhere.pem")


def test_a_folder_of_authorities(tls_server: ChatServer, tmp_path: Path, authority: trustme.CA) -> None:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    (tmp_path / f"{subject_hash(path)}.0").symlink_to(path)
    assert SYNC.stream(given(SYNC, tls_server.url, verify=tmp_path)).text == "Hello"


def subject_hash(path: Path) -> str:
    command = ["openssl", "x509", "-subject_hash", "-noout", "-in", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()


def test_an_authority_by_the_environment(
    driver: Driver, tls_server: ChatServer, ca: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", ca)
    assert driver.stream(given(driver, tls_server.url)).text == "Hello"


def test_the_wrong_name(driver: Driver, authority: trustme.CA, ca: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("example.org").configure_cert(context)
    with ChatServer(ssl_context=context) as server:
        error = driver.stream(given(driver, server.url, verify=ca)).error
        assert type(error) is ConnectError
        assert not error.transient
        assert server.requests == []


def test_an_untrusted_proxy(driver: Driver, server: ChatServer, tls_proxy: ProxyServer) -> None:
    error = driver.stream(given(driver, server.url, proxies=tls_proxy.url)).error
    assert isinstance(error, ProxyError)
    assert not error.transient
    assert "certificate of the proxy" in str(error)
    assert_no_secret(error, "pa ss:w@rd")


def test_a_server_that_speaks_no_tls(driver: Driver, server: ChatServer) -> None:
    error = driver.stream(given(driver, server.url.replace("http:", "https:"), verify=False)).error
    assert type(error) is ConnectError
    assert error.transient
    assert "does the server speak https?" in str(error)


# --- Replies, and what goes wrong with them -----------------------------------------------------------


@each_fault
def test_fault(runs: Runs, short_route: Route, name: str, ca: str) -> None:
    route = short_route
    route.server.plan(FAULTS[name].answer)
    transport = runs.transport(verify=ca)
    proxy = None if route.proxies is None else Proxy.parse(route.proxies)

    def exchange(timeout: Timeout = QUICK) -> Any:
        return transport.open(request_for(route), reply_for(route), deadlines(timeout), proxy=proxy)

    bad, good = runs.all_of(transport, exchange, lambda: exchange(LONG))
    if name in ("end in the head", "reset in the head"):
        last = bad[-1]
        assert isinstance(last, StreamFailed)
        assert isinstance(last.error, ReadError)
    else:
        words = shown(check(name, route, bad))
        assert "sk-secret" not in words
        assert "pa ss:w@rd" not in words
    assert text_of(good) == "Hello"
    assert isinstance(good[-1], StreamEnded)


STREAM = HEAD + chunk(event("a")) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 2001OK\r\n\r\n",
        b"HTTP/1.1 200;OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\rT3e\r\n",
        b"HTTP/1.1 999 What\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_strange_heads(driver: Driver, server: ChatServer, head: bytes) -> None:
    server.plan(Answer(raw=head + event("a")))
    error = driver.stream(given(driver, server.url)).error
    assert isinstance(error, DeltawireError)
    assert not isinstance(error, UsageError)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given_data(data())
def test_any_damage_is_told(server: ChatServer, drawn: DataObject) -> None:
    """Wherever bytes of a reply are lost, doubled or others, there is one verdict, and nothing is raised."""
    position = drawn.draw(integers(0, len(STREAM)))
    length, put = drawn.draw(integers(0, 3)), drawn.draw(binary(max_size=3))
    server.plan(Answer(raw=STREAM[:position] + put + STREAM[position + length :]))
    transport = ImpersonateTransport()
    exchange = transport.open(simple(server.url), Reply(), deadlines(LONG))
    events: list[Event] = []
    while more := exchange.next_events():
        events += more
    assert [isinstance(each, (StreamEnded, StreamFailed)) for each in events].count(True) == 1
    assert isinstance(events[-1], (StreamEnded, StreamFailed))
    exchange.close()
    transport.close()


def test_an_error_status(driver: Driver, server: ChatServer) -> None:
    server.plan(Answer.error(429, "Too fast", retry_after=7))
    error = driver.stream(given(driver, server.url)).error
    assert isinstance(error, RateLimitError)
    assert (error.status_code, error.retry_after, error.request_id) == (429, 7, "req_1")
    assert "Too fast" in str(error)


def test_redirects_are_not_followed(driver: Driver, server: ChatServer) -> None:
    server.plan(Answer(status=302, headers=[("Location", "http://127.0.0.1:1/")], body=b""))
    error = driver.stream(given(driver, server.url)).error
    assert getattr(error, "location", None) == "http://127.0.0.1:1/"


def test_nobody_listens(driver: Driver) -> None:
    port = free_port()
    error = driver.stream(given(driver, f"http://127.0.0.1:{port}/v1")).error
    assert type(error) is ConnectError
    assert error.transient
    assert f"no connection to 127.0.0.1:{port} ([Errno" in str(error)
    error = driver.stream(given(driver, "http://nowhere.invalid/v1")).error
    assert type(error) is ConnectError
    assert "nowhere.invalid" in str(error)


BODY = event("Hel") + event("lo") + b"data: [DONE]\n\n"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "x-gzip", "identity"])
def test_codings_are_undone(driver: Driver, server: ChatServer, coding: str) -> None:
    ways: dict[str, Callable[[bytes], bytes]] = {"deflate": zlib.compress, "identity": bytes}
    coded = ways.get(coding, gzip.compress)(BODY)
    fields = [("Content-Encoding", coding), ("Content-Type", "text/event-stream")]
    server.plan(Answer(body=coded, headers=fields))
    heard = driver.stream(given(driver, server.url))
    assert (heard.text, heard.error) == ("Hello", None)


def test_a_coded_stream_comes_as_it_is_sent(driver: Driver, server: ChatServer) -> None:
    """The first piece is had before there is another."""
    press = zlib.compressobj(wbits=31)
    first = press.compress(event("Hel")) + press.flush(zlib.Z_SYNC_FLUSH)
    fields = [("Content-Encoding", "gzip"), ("Content-Type", "text/event-stream")]
    server.plan(Answer(events=[first], headers=fields, ending="stall"))
    heard = driver.stream(given(driver, server.url, timeout=Timeout(idle=0.2)))
    assert heard.text == "Hel"
    assert isinstance(heard.error, TimeoutError)
    assert heard.error.deadline == "idle"


def test_a_coding_that_nobody_asked_for(driver: Driver, server: ChatServer) -> None:
    server.plan(Answer(body=b"xxx", headers=[("Content-Encoding", "compress")]))
    error = driver.stream(given(driver, server.url)).error
    assert isinstance(error, UnexpectedReplyError)
    assert "compress" in str(error)


def test_a_bomb(runs: Runs, server: ChatServer) -> None:
    """What is inflated meets the limits piece by piece."""
    bomb = gzip.compress(b"data: " + b"x" * 100_000_000)
    server.plan(Answer(body=bomb, headers=[("Content-Encoding", "gzip"), ("Content-Type", "text/event-stream")]))
    transport = runs.transport()
    (events,) = runs.all_of(transport, lambda: transport.open(simple(server.url), Reply(), deadlines(LONG)))
    (failed,) = events
    assert isinstance(failed, StreamFailed)
    assert getattr(failed.error, "limit_name", None) is not None


def test_fields_that_cannot_be_sent(driver: Driver, server: ChatServer) -> None:
    kind = ImpersonateTransport if driver.name == "sync" else AsyncImpersonateTransport
    for request in (
        HTTPRequest("POST", server.url, ((b"x", b"a\r\nb: c"),)),
        HTTPRequest("POST", server.url, ((b"x y", b"a"),)),
        HTTPRequest("GET / HTTP/1.1\r\nx:", server.url, ()),
    ):
        with pytest.raises(ConfigurationError):
            kind().open(request, Reply(), deadlines())
    assert server.connections == 0


def test_other_methods_and_long_bodies(driver: Driver, server: ChatServer) -> None:
    heard = driver.ask(given(driver, server.url), extra_body={"user": "é" * 2_000_000})
    assert heard.text == "Hello"
    assert len(server.requests[0].body) > 4_000_000
    assert server.requests[0].header("expect") is None


def test_http2(driver: Driver, authority: trustme.CA, tmp_path: Path, ca: str, proxy: ProxyServer) -> None:
    path = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
    server = HTTP2Server(path)
    thread = threading.Thread(target=lambda: asyncio.run(server.main()))
    thread.start()
    assert server.started.wait(5)

    def stream(model: str = MODEL, **more: Any) -> Heard:
        options = given(driver, f"https://127.0.0.1:{server.port}/v1", verify=ca, **more)
        heard = driver.stream(options, model=model)
        hang_up(driver, options)
        return heard

    try:
        for proxies in (None, proxy.url):
            heard = stream(proxies=proxies)
            assert (heard.text, heard.error) == ("ab", None)
        error = stream("stall", timeout=Timeout(idle=0.2)).error
        assert isinstance(error, TimeoutError)
        assert server.gone.acquire(timeout=5)
        assert server.versions == ["2"] * 3
    finally:
        server.stop()
        thread.join()


# --- Deadlines ----------------------------------------------------------------------------------------


def in_time(driver: Driver, options: dict[str, Any], name: str) -> TimeoutError:
    begin = time.monotonic()
    error = driver.stream(options).error
    assert 0.19 <= time.monotonic() - begin < SOON
    assert isinstance(error, TimeoutError), repr(error)
    assert (error.deadline, error.seconds) == (name, 0.2)
    assert_no_secret(error, KEY)
    return error


def test_connect(driver: Driver) -> None:
    with full_listener() as port:
        url = f"http://127.0.0.1:{port}"
        error = in_time(driver, given(driver, f"{url}/v1", timeout=Timeout(connect=0.2)), "connect")
        assert "the server takes no connection" in str(error)
        error = in_time(driver, given(driver, "http://x/v1", proxies=url, timeout=Timeout(connect=0.2)), "connect")
        assert f"the proxy {url} takes no connection" in str(error)
        error = in_time(driver, given(driver, f"{url}/v1", timeout=Timeout(connect=5, total=0.2)), "total")


@pytest.mark.parametrize(
    ("url", "proxy", "words"),
    [
        ("https://127.0.0.1:{}/v1", None, "the TLS handshake with 127.0.0.1 does not end"),
        ("https://x.invalid/v1", "http://me:pw-secret@127.0.0.1:{}", "no answer in time"),
        ("http://x.invalid/v1", "https://me:pw-secret@127.0.0.1:{}", "the TLS handshake with the proxy"),
        ("http://x.invalid/v1", "socks5h://me:pw-secret@127.0.0.1:{}", "opens no tunnel"),
    ],
)
def test_connect_covers_handshakes(driver: Driver, url: str, proxy: str | None, words: str) -> None:
    with Peer() as peer:
        proxies = None if proxy is None else proxy.format(peer.port)
        options = given(driver, url.format(peer.port), proxies=proxies, timeout=Timeout(connect=0.2))
        error = in_time(driver, options, "connect")
        assert words in str(error)
        assert_no_secret(error, "pw-secret")
        assert peer.gone.wait(SOON)


@pytest.mark.parametrize("name", ["first_content", "idle", "total"])
def test_the_others(driver: Driver, short_route: Route, name: str, ca: str) -> None:
    """Comments are no content, and the total has no regard for content."""
    if name == "total":
        answer = Answer(tokens=["a"] * 1000, pace=0.01)
    else:
        first = [event(), event("a")] if name == "idle" else [event()]
        answer = Answer(events=[*first, *[b": ping\n\n"] * 200], pace=0.02)
    short_route.server.plan(answer)
    limits = Timeout(**{"connect": 5, "first_content": 5, "idle": 5, name: 0.2})
    in_time(driver, on(driver, short_route, ca, timeout=limits), name)
    assert short_route.server.wait_outcome(0, SOON) == "client-closed"


def test_a_head_that_comes_in_drops(driver: Driver) -> None:
    with dribbling(HEAD, 0.05) as port:
        in_time(
            driver, given(driver, f"http://127.0.0.1:{port}/v1", timeout=Timeout(first_content=0.2)), "first_content"
        )


# --- Lifetimes ----------------------------------------------------------------------------------------


def test_a_connection_is_kept(runs: Runs, route: Route, ca: str) -> None:
    transport = runs.transport(verify=ca)
    proxy = None if route.proxies is None else Proxy.parse(route.proxies)
    make = lambda: transport.open(request_for(route), reply_for(route), deadlines(LONG), proxy=proxy)  # noqa: E731
    found = runs.all_of(transport, *[make] * 5)
    assert [text_of(events) for events in found] == ["Hello"] * 5
    # (The proxy makes a new one to the server for each request that it forwards.)
    assert (route.between or route.server).connections == 1
    route.server.wait_closed(SOON)


def test_a_connection_that_died_in_keeping(runs: Runs, server: ChatServer) -> None:
    transport = runs.transport()
    make = lambda: transport.open(simple(server.url), Reply(), deadlines(LONG))  # noqa: E731
    server.plan(Answer(headers=[("Connection", "close")]), Answer(), Answer())
    found = runs.all_of(transport, make, make, make)
    assert [text_of(events) for events in found] == ["Hello"] * 3
    assert server.connections == 2


def test_how_long_and_how_many_are_kept(server: ChatServer) -> None:
    cases: list[tuple[dict[str, Any], int]] = [
        ({"keepalive_expiry": 0.0}, 2),
        ({"max_keepalive_connections": 0}, 2),
        ({"keepalive_expiry": None, "max_keepalive_connections": None}, 1),
    ]
    for options, kept in cases:
        before = server.connections
        transport = ImpersonateTransport(**options)
        for _ in range(2):
            exchange = transport.open(simple(server.url), Reply(), deadlines(LONG))
            while exchange.next_events():
                pass
            exchange.close()
        transport.close()
        assert server.connections - before == kept


def test_leaving_early(route: Route, ca: str) -> None:
    for leave in ("break", "close", "drop", "transport"):
        index = len(route.server.requests)
        route.server.plan(STALLED)
        client = Client(**on(SYNC, route, ca))
        stream = client.chat.completions.create(HI, MODEL, stream=True)
        next(stream)
        if leave == "close":
            stream.close()
        elif leave == "transport":
            client.transport.close()
            with pytest.raises(DeltawireError):
                list(stream)
        del stream
        gc.collect()
        assert route.server.wait_outcome(index, SOON) == "client-closed"
        assert client.transport.connections() == (0, 0)  # type: ignore[attr-defined]
        client.transport.close()


def test_async_leaving_early(run: Run, route: Route, ca: str) -> None:
    async def main() -> None:
        for leave in ("close", "drop", "transport"):
            index = len(route.server.requests)
            route.server.plan(STALLED)
            transport = AsyncImpersonateTransport(verify=ca)
            client = AsyncClient(base_url=route.server.url, proxies=route.proxies, transport=transport)
            stream = await client.chat.completions.create(HI, MODEL, stream=True)
            await stream.__anext__()
            if leave == "close":
                await stream.aclose()
            elif leave == "transport":
                await transport.aclose()
                with pytest.raises(DeltawireError):
                    [each async for each in stream]
            del stream
            gc.collect()
            assert await blocking(route.server.wait_outcome, index, SOON) == "client-closed"
            assert transport.connections() == (0, 0)
            await transport.aclose()

    run(main)


CANCELLED: dict[str, tuple[Answer, str]] = {
    "before the head": (Answer(cut_after=0, ending="stall"), ""),
    "mid-stream": (STALLED, "Hello"),
}


@pytest.mark.parametrize("phase", CANCELLED)
def test_cancelling(run: Run, route: Route, phase: str, ca: str) -> None:
    async def main() -> None:
        transport = AsyncImpersonateTransport(verify=ca)
        async with AsyncClient(base_url=route.server.url, proxies=route.proxies, transport=transport) as client:
            route.server.plan(CANCELLED[phase][0])

            async def work() -> None:
                async for _ in client.chat.completions.create(HI, MODEL, stream=True):
                    pass

            await cancelled_when(lambda: route.server.wait_requests(1), work)
            assert await blocking(route.server.wait_outcome, 0, SOON) == "client-closed"
            assert transport.connections() == (0, 0)
            stream = client.chat.completions.create(HI, MODEL, stream=True)
            assert "".join([each.choices[0].delta.content or "" async for each in stream]) == "Hello"

    run(main)


@pytest.mark.parametrize("times", [1, 3])
def test_cancelling_an_asyncio_task(server: ChatServer, times: int) -> None:
    """By asyncio's own means, which know no shields; and again while it is being cancelled."""

    async def main() -> None:
        transport = AsyncImpersonateTransport()
        async with AsyncClient(base_url=server.url, transport=transport) as client:
            server.plan(STALLED)

            async def work() -> None:
                async for _ in client.chat.completions.create(HI, MODEL, stream=True):
                    pass

            task = asyncio.create_task(work())
            await blocking(server.wait_requests, 1)
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await blocking(server.wait_outcome, 0, SOON) == "client-closed"
            assert transport.connections() == (0, 0)

    asyncio.run(main())


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_cancelling_while_connecting(run: Run, scheme: str) -> None:
    async def main() -> None:
        with Peer() as peer:
            transport = AsyncImpersonateTransport(verify=False)
            url = f"{scheme}://127.0.0.1:{peer.port}/v1"
            async with AsyncClient(base_url=url, transport=transport, max_retries=0) as client:

                async def work() -> None:
                    await client.chat.completions.create(HI, MODEL)

                await cancelled_when(lambda: peer.heard.wait(5), work)
                assert await blocking(peer.gone.wait, SOON)
                assert transport.connections() == (0, 0)

    run(main)


def test_a_stream_that_was_cancelled_says_so(run: Run, server: ChatServer) -> None:
    async def main() -> None:
        async with AsyncClient(base_url=server.url, transport=AsyncImpersonateTransport()) as client:
            server.plan(STALLED)
            stream = await client.chat.completions.create(HI, MODEL, stream=True)
            with anyio.move_on_after(0.05):
                async for _ in stream:
                    pass
            with anyio.fail_after(5), pytest.raises(DeltawireError):
                async for _ in stream:
                    pass
            assert [each async for each in stream] == []

    run(main)


def test_a_loop_that_ends_under_a_stream(run: Run, server: ChatServer) -> None:
    transport = AsyncImpersonateTransport()
    kept: list[Any] = []

    async def main() -> None:
        exchange = transport.open(simple(server.url), Reply(), deadlines(LONG))
        kept.append(exchange)
        assert await exchange.next_events()

    server.plan(STALLED)
    run(main)
    assert server.wait_outcome(0, SOON) == "client-closed"
    kept[0].abandon()
    transport.abandon()


def test_many_at_once(run: Run, server: ChatServer) -> None:
    """More than anyio has threads, unless it is told otherwise."""
    texts: list[str] = []

    async def main() -> None:
        async with AsyncClient(base_url=server.url, transport=AsyncImpersonateTransport()) as client:

            async def work() -> None:
                stream = client.chat.completions.create(HI, MODEL, stream=True)
                texts.append("".join([each.choices[0].delta.content or "" async for each in stream]))

            async with anyio.create_task_group() as group:
                for _ in range(60):
                    group.start_soon(work)

    server.plan(*[Answer(tokens=["a", "b"], pace=0.3)] * 60)
    begin = time.monotonic()
    run(main)
    assert texts == ["ab"] * 60
    # In turns it would be twice as long, at least; and there is some work in it.
    assert time.monotonic() - begin < 5


def test_closing_while_another_thread_waits(server: ChatServer) -> None:
    server.plan(Answer(cut_after=0, ending="stall"))
    transport = ImpersonateTransport()
    found: list[Any] = []

    def work() -> None:
        found.extend(transport.open(simple(server.url), Reply(), deadlines(LONG)).next_events())

    thread = threading.Thread(target=work)
    thread.start()
    server.wait_requests(1)
    transport.close()
    thread.join(SOON)
    assert not thread.is_alive()
    (failed,) = found
    assert isinstance(failed, StreamFailed)
    assert isinstance(failed.error, ReadError)
    assert server.wait_outcome(0, SOON) == "client-closed"
    with pytest.raises(UsageError, match="closed"):
        transport.open(simple(server.url), Reply(), deadlines(LONG))


def test_interrupting(server: ChatServer) -> None:
    """Ctrl-C, while libcurl waits."""

    class Interruption(BaseException):
        pass

    def interrupt(*ignored: object) -> None:
        raise Interruption

    server.plan(Answer(cut_after=0, ending="stall"))
    transport = ImpersonateTransport()
    main = threading.main_thread().ident
    assert main is not None

    def watch() -> None:
        server.wait_requests(1)
        while sys._current_frames()[main].f_code.co_name != "wait" and not over.wait(0.001):
            pass
        signal.pthread_kill(main, signal.SIGUSR1)

    over = threading.Event()
    before = signal.signal(signal.SIGUSR1, interrupt)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with pytest.raises(Interruption):
            transport.open(simple(server.url), Reply(), deadlines(LONG)).next_events()
    finally:
        over.set()
        watcher.join()
        signal.signal(signal.SIGUSR1, before)
    assert server.wait_outcome(0, SOON) == "client-closed"
    assert transport.connections() == (0, 0)
    transport.close()


def test_an_exception_out_of_a_callback(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interruption(BaseException):
        pass

    def interrupted(self: Reply, data: bytes) -> list[Event]:
        raise Interruption

    server.plan(STALLED)
    monkeypatch.setattr(Reply, "receive", interrupted)
    transport = ImpersonateTransport()
    exchange = transport.open(simple(server.url), Reply(), deadlines(LONG))
    with pytest.raises(Interruption):
        exchange.next_events()
    assert server.wait_outcome(0, SOON) == "client-closed"
    assert transport.connections() == (0, 0)


def test_nothing_is_sent_before_the_first_step(runs: Runs, server: ChatServer) -> None:
    transport = runs.transport()
    exchange = transport.open(simple(server.url), Reply(), deadlines(LONG))
    exchange.abandon()

    def fails() -> Any:
        return exchange

    with pytest.raises(UsageError, match="closed"):
        runs.all_of(transport, fails)
    assert server.connections == 0


def test_a_transport_that_nobody_holds(server: ChatServer) -> None:
    transport = ImpersonateTransport()
    exchange = transport.open(simple(server.url), Reply(), deadlines(LONG))
    while exchange.next_events():
        pass
    exchange.close()
    assert server.open_connections == 1
    gone = weakref.ref(transport)
    del transport, exchange
    gc.collect()
    assert gone() is None
    server.wait_closed(SOON)


@pytest.fixture
def _no_garbage_is_collected() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_garbage_is_collected")
def test_an_exchange_that_nobody_holds(server: ChatServer) -> None:
    """Its connection is closed at once."""
    server.plan(STALLED)
    transport = ImpersonateTransport()
    exchange = transport.open(simple(server.url), Reply(), deadlines(LONG))
    assert exchange.next_events()
    assert transport.connections() == (1, 0)
    del exchange
    assert transport.connections() == (0, 0)
    assert server.wait_outcome(0, SOON) == "client-closed"
    transport.close()


@pytest.mark.usefixtures("_no_garbage_is_collected")
def test_an_async_exchange_that_nobody_holds(run: Run, server: ChatServer) -> None:
    server.plan(STALLED)

    async def main() -> None:
        transport = AsyncImpersonateTransport()
        exchange = transport.open(simple(server.url), Reply(), deadlines(LONG))
        assert await exchange.next_events()
        assert transport.connections() == (1, 0)
        del exchange
        # The thread that has worked for it may be the last to hold it, for a moment.
        assert await blocking(server.wait_outcome, 0, SOON) == "client-closed"
        assert transport.connections() == (0, 0)
        await transport.aclose()

    run(main)


def test_a_body_that_does_not_end_after_the_end(runs: Runs, server: ChatServer) -> None:
    """It is waited for, for a moment; then the connection is closed."""
    server.plan(Answer(events=[event("a"), b"data: [DONE]\n\n"], ending="stall"), Answer())
    transport = runs.transport()
    make = lambda: transport.open(simple(server.url), Reply(), deadlines(LONG))  # noqa: E731
    first, second = runs.all_of(transport, make, make)
    assert (text_of(first), text_of(second)) == ("a", "Hello")
    assert server.connections == 2
    assert server.wait_outcome(0, SOON) == "client-closed"


def test_models(driver: Driver, server: ChatServer) -> None:
    """A request without a body."""
    request = Endpoint.at(server.url).models(api_key=KEY)
    runs = Runs(driver.name)
    transport = runs.transport()
    (events,) = runs.all_of(transport, lambda: transport.open(request, Reply("models"), deadlines(LONG)))
    assert isinstance(events[-1], StreamEnded)
    (recorded,) = server.requests
    assert (recorded.method, recorded.body, recorded.header("content-type")) == ("GET", b"", None)


def test_chat_requests_are_unchanged() -> None:
    request = Endpoint.at("http://x/v1").chat(ChatRequest(messages=HI, model=MODEL))
    assert request.impersonate == ""
