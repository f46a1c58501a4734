"""Every way to a server: direct, through each kind of proxy, a Unix domain socket; sync, on asyncio and on trio."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from driving import Driver, Peer, Route, free_port, shown, unix_socket
from faults import HEAD, chunk
from ways import BY_NAME, PASSWORD, USER, WAYS, Way, assert_no_secret, assert_taken, laid, named

from deltawire import ConfigurationError, ConnectError, ProxyError
from deltawire.protocol import Proxy
from deltawire.testing import ChatServer, ProxyServer, SocksServer
from deltawire.testing.records import find_header

pytestmark = pytest.mark.usefixtures("_tidy", "transports")

PROXIED = [way for way in WAYS if way.through]
TUNNELS = [way for way in WAYS if way.tunnels]
# One that names the whole URL, one that opens a tunnel.
HTTP = [BY_NAME["http by http"], BY_NAME["https by http"], BY_NAME["http by https"], BY_NAME["https by https"]]


def way_name(way: Way) -> str:
    return way.name


def options(route: Route, **more: Any) -> dict[str, Any]:
    return route.options(base_url=named(route.server.url), max_retries=0, **more)


def both(driver: Driver, given: dict[str, Any], **parameters: Any) -> None:
    """Chat streams, and whole replies."""
    streamed = driver.stream(given, **parameters)
    assert (streamed.text, streamed.error) == ("Hello", None)
    whole = driver.ask(given, **parameters)
    assert (whole.text, whole.error) == ("Hello", None)


# --- Each way -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("credentials", [True, False], ids=["password", "open"])
@pytest.mark.parametrize("way", WAYS, ids=way_name)
def test_each_way(
    driver: Driver, way: Way, credentials: bool, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    given: dict[str, Any] = {} if credentials else {"username": None, "password": None}
    with laid(way, server_context, trusting, **given) as route:
        both(driver, options(route, api_key="sk-secret"))
        assert_taken(way, route, 2, credentials=credentials)
        assert route.server.requests[0].header("authorization") == "Bearer sk-secret"
        if way.tunnels:
            # The key is for the server.
            assert route.between is not None
            assert not any(name == b"authorization" for each in route.between.requests for name, _ in each.headers)


@pytest.mark.parametrize("variable", ["all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("way", [way for way in PROXIED if way.through != "http"], ids=way_name)
def test_by_the_environment(
    driver: Driver,
    way: Way,
    variable: str,
    server_context: ssl.SSLContext,
    trusting: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with laid(way, server_context, trusting) as route:
        assert route.proxies is not None
        monkeypatch.setenv(variable, route.proxies)
        both(driver, options(route, proxies=None))
        assert_taken(way, route, 2)


@pytest.mark.parametrize("form", ["url", "object"])
@pytest.mark.parametrize("way", PROXIED, ids=way_name)
def test_by_the_call(
    driver: Driver, way: Way, form: str, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    with laid(way, server_context, trusting) as route:
        assert route.proxies is not None
        dead = f"http://127.0.0.1:{free_port()}"
        both(driver, options(route, proxies=dead), proxy=route.proxies if form == "url" else Proxy.parse(route.proxies))
        assert_taken(way, route, 2)


# --- What the proxy is told ---------------------------------------------------------------------------

# Every sort of character, so that each means something to somebody: URLs, Basic, base64, SOCKS, shells, JSON.
SORTS = {
    "URL": "a:b@c/d?e#f[g]h%41%i&j=k+l;m,n",
    "blanks": " a b\tc\u00a0d ",
    "quotes": "a\"b'c`d\\e$f{g}h|i<j>k^l~m*n!o(p)",
    "Latin-1": "".join(map(chr, range(0xA1, 0x100))),
    "beyond": "Zoë 密码 🔑 \u202e\ufeff",
    "controls": "".join(map(chr, [*range(1, 0x20), *range(0x7F, 0xA0)])),
    "nothing": "",
    "long": "x" * 255,
}


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize(
    "way", [BY_NAME["http by http"], BY_NAME["https by http"], BY_NAME["http by socks5"]], ids=way_name
)
def test_user_names_and_passwords(
    driver: Driver, way: Way, sort: str, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    # Basic authentication has no user names with a colon in them, SOCKS none that are empty.
    username = SORTS[sort].replace(":", "") or USER
    with laid(way, server_context, trusting, username=username, password=SORTS[sort]) as route:
        both(driver, options(route))
        assert_taken(way, route, 2)
        # And as an object, not percent-encoded.
        assert route.between is not None
        given = Proxy(way.through, "127.0.0.1", route.between.port, username, SORTS[sort])
        assert driver.ask(options(route, proxies=given)).text == "Hello"


@pytest.mark.parametrize("way", HTTP, ids=way_name)
def test_further_fields(driver: Driver, way: Way, server_context: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    with laid(way, server_context, trusting) as route:
        assert route.proxy is not None
        proxy = Proxy.parse(route.proxy.url, headers={"X-Team": "a team", "Proxy-Tag": "one"})
        both(driver, options(route, proxies=proxy))
        assert_taken(way, route, 2)
        for request in route.proxy.requests:
            assert find_header(request.headers, "x-team") == "a team"
            assert find_header(request.headers, "proxy-tag") == "one"
        for recorded in route.server.requests:
            assert recorded.header("proxy-tag") is None
            if way.tunnels:
                # (One that is not named Proxy- is, in a request that goes to the proxy itself, also the server's.)
                assert recorded.header("x-team") is None


@pytest.mark.parametrize("way", HTTP, ids=way_name)
def test_another_authorization(
    driver: Driver, way: Way, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """A Proxy-Authorization among the fields takes the place of user and password."""
    with laid(way, server_context, trusting) as route:
        assert route.proxy is not None
        right = Proxy.parse(route.proxy.url).authorization
        assert right is not None
        wrong = route.proxy.address.replace("//", "//somebody:else-secret@")
        both(driver, options(route, proxies=Proxy.parse(wrong, headers={"proxy-authorization": right.decode()})))
        assert_taken(way, route, 2)
        token = Proxy.parse(route.proxy.url, headers={"Proxy-Authorization": "Bearer tok-secret"})
        error = driver.ask(options(route, proxies=token)).error
        assert isinstance(error, ProxyError)
        assert error.status_code == 407
        assert_no_secret(error, "tok-secret", "else-secret")


@pytest.mark.parametrize("target", ["http", "https"])
def test_a_bearer_token_replaces_basic(driver: Driver, target: str) -> None:
    with Peer(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", close=True) as peer:
        url = f"http://me:else-secret@127.0.0.1:{peer.port}"
        proxy = Proxy.parse(url, headers={"Proxy-Authorization": "Bearer tok-secret", "X-Team": "a"})
        error = driver.stream({"base_url": f"{target}://x.invalid/v1", "proxies": proxy, "max_retries": 0}).error
    assert getattr(error, "status_code", None) == 403
    assert error is not None
    assert_no_secret(error, "tok-secret", "else-secret")
    lines = [line.split(b": ") for line in peer.first.split(b"\r\n\r\n")[0].split(b"\r\n")]
    assert lines[0][0].split(b" ")[0] == (b"POST" if target == "http" else b"CONNECT")
    fields = [(name.lower(), value) for name, value in lines[1:]]
    assert [value for name, value in fields if name == b"proxy-authorization"] == [b"Bearer tok-secret"]
    assert [value for name, value in fields if name == b"x-team"] == [b"a"]
    assert b"authorization" not in dict(fields)


# --- IPv6 ---------------------------------------------------------------------------------------------


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.fixture(scope="session")
def ipv6_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("::1", "localhost").configure_cert(context)
    return context


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no ::1")
@pytest.mark.parametrize("way", WAYS, ids=way_name)
def test_ipv6(driver: Driver, way: Way, ipv6_context: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    with laid(way, ipv6_context, trusting, host="::1", proxy_host="::1") as route:
        both(driver, route.options(max_retries=0))
        if route.between is None:
            return
        target = f"[::1]:{route.server.port}"
        shown_target = target if way.tunnels else f"http://{target}/v1/chat/completions"
        assert [each.target for each in route.between.requests] == [shown_target] * 2
        assert route.server.connections == route.between.connections == 2


# --- A Unix domain socket -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["http", "https"])
def test_a_unix_domain_socket(
    driver: Driver, kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: ChatServer = request.getfixturevalue("server" if kind == "http" else "tls_server")
    # The name in the URL is the Host, and whose certificate is asked for; nobody looks it up.
    url = f"{kind}://localhost:1/v1"
    path = tmp_path / "s"
    # There is no way for proxies to such a socket.
    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with unix_socket(str(path), found.port):
        trusting: ssl.SSLContext = request.getfixturevalue("trusting")
        for given in (path, str(path)):
            both(driver, {"base_url": url, "uds": given, "verify": trusting, "max_retries": 0})
        assert driver.ask({"base_url": url, "uds": path, "verify": trusting}, proxy=None).text == "Hello"
    assert [each.status for each in found.requests] == [200] * 5
    assert {each.header("host") for each in found.requests} == {"localhost:1"}


def test_a_unix_domain_socket_and_a_proxy(driver: Driver, tmp_path: Path) -> None:
    given = {"base_url": "http://localhost/v1", "uds": str(tmp_path / "s"), "max_retries": 0}
    proxy = "http://me:pw-secret@127.0.0.1:1"
    for proxies in (proxy, Proxy.parse(proxy), {"all": proxy}):
        with pytest.raises(ConfigurationError, match="uds=") as caught:
            driver.stream({**given, "proxies": proxies})
        assert "pw-secret" not in shown(caught.value)
    error = driver.stream(given, proxy=proxy).error
    assert isinstance(error, ConfigurationError)
    assert "pw-secret" not in shown(error)


@pytest.mark.parametrize("there", [False, True], ids=["missing", "deserted"])
def test_a_unix_domain_socket_where_nobody_listens(driver: Driver, tmp_path: Path, there: bool) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as left:
        if there:
            left.bind(path)
        error = driver.stream({"base_url": "http://localhost/v1", "uds": path, "max_retries": 0}).error
    assert type(error) is ConnectError
    assert path in str(error)


# --- The address that one connects from ---------------------------------------------------------------

ANSWER = HEAD + b"".join(
    chunk(b'data: {"choices": [{"index": 0, %s}]}\n\n' % each)
    for each in (b'"delta": {"content": "Hello"}', b'"delta": {}, "finish_reason": "stop"')
)
ANSWER += chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


@pytest.mark.parametrize("by_proxy", [False, True])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_a_local_address(driver: Driver, address: str, by_proxy: bool) -> None:
    with Peer(ANSWER) as peer:
        url = f"http://127.0.0.1:{peer.port}"
        options = {"base_url": f"{url}/v1", "local_address": address, "max_retries": 0}
        if by_proxy:
            options |= {"base_url": "http://x.invalid/v1", "proxies": url}
        heard = driver.stream(options)
        assert (heard.text, heard.error) == ("Hello", None)
        assert peer.clients == [address]


@pytest.mark.parametrize("through", ["", "http", "https", "socks5", "socks5h"])
@pytest.mark.parametrize("address", ["192.0.2.1", "::1", "nonsense"])
def test_a_bad_local_address(driver: Driver, server: ChatServer, address: str, through: str) -> None:
    options = {"base_url": server.url, "local_address": address, "max_retries": 0}
    if through:
        options["proxies"] = f"{through}://{USER}:else-secret@127.0.0.1:{free_port()}"
    error = driver.stream(options).error
    assert isinstance(error, ProxyError if through else ConnectError), repr(error)
    assert address in str(error)
    assert_no_secret(error, "else-secret")
    assert server.connections == 0


# --- One client, many ways ----------------------------------------------------------------------------


def test_a_socks_proxy_that_resolves_what_we_cannot(driver: Driver, server: ChatServer) -> None:
    """socks5h:// asks nobody here for the name, so its failure is the proxy's."""
    with SocksServer(username=USER, password=PASSWORD) as proxy:
        options = {"base_url": "http://nowhere.invalid/v1", "max_retries": 0}
        error = driver.stream({**options, "proxies": proxy.remote_url}).error
        assert isinstance(error, ProxyError)
        assert error.reply_code == 4
        assert [each.target for each in proxy.requests] == ["nowhere.invalid:80"]
        error = driver.stream({**options, "proxies": proxy.url}).error
        assert isinstance(error, ConnectError)
        assert not isinstance(error, ProxyError), "the name was looked up here"
        assert "nowhere.invalid" in str(error)
        assert len(proxy.requests) == 1


def test_another_address_of_the_name(driver: Driver, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """socks5:// tries the addresses of a name one by one, as a client without a proxy does."""
    real = socket.getaddrinfo
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, server.port)) for address in ("127.0.0.9", "127.0.0.1")
    ]

    def two(host: Any, *arguments: Any, **more: Any) -> Any:
        return found if host in ("two.invalid", b"two.invalid") else real(host, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", two)
    with SocksServer() as proxy:
        options = {"base_url": f"http://two.invalid:{server.port}/v1", "proxies": proxy.url, "max_retries": 0}
        assert driver.stream(options).text == "Hello"
        asked = [(each.target, each.status) for each in proxy.requests]
        assert asked == [(f"127.0.0.9:{server.port}", 5), (f"127.0.0.1:{server.port}", 0)]


def test_the_connections_of_each_proxy_are_kept_apart(driver: Driver, server: ChatServer) -> None:
    with ProxyServer() as first, SocksServer() as second:
        options = {"base_url": server.url, "proxies": first.url, "max_retries": 0}
        assert driver.stream(options).text == "Hello"
        assert driver.stream(options, proxy=second.url).text == "Hello"
        assert driver.stream(options, proxy=second.remote_url).text == "Hello"
        assert driver.stream(options, proxy=None).text == "Hello"
        assert (len(first.requests), len(second.requests), len(server.requests)) == (1, 2, 4)
