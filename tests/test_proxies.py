"""Through HTTP proxies: which one, with which words, and all that proxies do wrong; sync, on asyncio and on trio."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest
from driving import SOON, SOON_ONCE, Driver, Peer, Route, free_port, full_listener, shown
from faults import HEAD, chunk, event

from deltawire import ConfigurationError, ProxyError, ReadError, Timeout, TimeoutError, TruncatedStreamError
from deltawire.protocol import Proxy
from deltawire.testing import Answer, ChatServer, ProxyServer

pytestmark = pytest.mark.usefixtures("_tidy", "transports")

PASSWORDS = ("pa ss:w@rd", "pa%20ss", "bWU6cGEgc3M6d0ByZA")  # plain, in a URL, in Basic


@pytest.fixture(params=["proxy", "tunnel"])
def through(request: pytest.FixtureRequest, proxy: ProxyServer, trusting: ssl.SSLContext) -> Route:
    found: ChatServer = request.getfixturevalue("server" if request.param == "proxy" else "tls_server")
    return Route(request.param, found, proxy, trusting)


def assert_no_secret(error: BaseException) -> None:
    words = shown(error)
    assert not any(each in words for each in (*PASSWORDS, "sk-secret")), words


# --- Which proxy --------------------------------------------------------------------------------------


def assert_through(heard_text: str, through: Route, count: int = 1) -> None:
    assert heard_text == "Hello"
    assert through.proxy is not None
    requests = through.proxy.requests
    assert len(requests) == count
    assert all(each.authorized for each in requests)
    assert {each.method for each in requests} == ({"POST"} if through.name == "proxy" else {"CONNECT"})
    target = f"{through.server.url}/chat/completions" if through.name == "proxy" else f"127.0.0.1:{through.server.port}"
    assert {each.target for each in requests} == {target}


@pytest.mark.parametrize("form", ["string", "object", "mapping", "all", "other scheme", "case"])
def test_forms(driver: Driver, through: Route, form: str) -> None:
    assert through.proxy is not None
    url = through.proxy.url
    other = "http" if through.name == "tunnel" else "https"
    proxies = {
        "string": url,
        "object": Proxy.parse(url),
        "mapping": {"http": url, "https": url},
        "all": {"all": url},
        "other scheme": {other: url},
        "case": {"HTTP://": url, "HTTPS://": url},
    }[form]
    heard = driver.stream(through.options(proxies=proxies))
    assert_through(heard.text, through)
    # The proxy's password is for the proxy.
    assert through.server.requests[0].header("proxy-authorization") is None


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_environment(driver: Driver, server: ChatServer, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with ProxyServer() as proxy:
        monkeypatch.setenv(name, proxy.url)
        assert driver.stream({"base_url": server.url}).text == "Hello"
        assert len(proxy.requests) == 1
        assert driver.stream({"base_url": server.url, "trust_env": False}).text == "Hello"
        assert driver.stream({"base_url": server.url}, proxy=None).text == "Hello"
        assert driver.stream({"base_url": server.url, "proxies": {"all": None}}).text == "Hello"
        assert len(proxy.requests) == 1
        monkeypatch.setenv("NO_PROXY", f"example.org,127.0.0.1:{server.port}")
        assert driver.stream({"base_url": server.url}).text == "Hello"
        assert len(proxy.requests) == 1
        monkeypatch.setenv("NO_PROXY", "127.0.0.1:1")
        assert driver.stream({"base_url": server.url}).text == "Hello"
        assert len(proxy.requests) == 2


def test_https_environment(
    driver: Driver, tls_server: ChatServer, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ProxyServer() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
        assert driver.stream({"base_url": tls_server.url, "verify": trusting}).text == "Hello"
        assert [each.method for each in proxy.requests] == ["CONNECT"]


def test_the_call_has_its_own(driver: Driver, server: ChatServer) -> None:
    with ProxyServer() as proxy:
        dead = f"http://127.0.0.1:{free_port()}"
        assert driver.stream({"base_url": server.url, "proxies": dead}, proxy=proxy.url).text == "Hello"
        assert driver.stream({"base_url": server.url, "proxies": dead}, proxy=Proxy.parse(proxy.url)).text == "Hello"
        assert len(proxy.requests) == 2
        assert driver.stream({"base_url": server.url, "proxies": dead}, proxy=None).text == "Hello"
        assert len(proxy.requests) == 2


@pytest.mark.parametrize("bad", ["127.0.0.1:3128", "socks4://h:1", "http://me:pw-secret@h:x", {"ftp": "http://h:1"}])
def test_what_is_no_proxy(driver: Driver, bad: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        driver.stream({"base_url": "http://127.0.0.1:9/v1", "proxies": bad})
    assert "pw-secret" not in shown(caught.value)


def test_what_is_no_proxy_for_a_call(driver: Driver, server: ChatServer) -> None:
    error = driver.stream({"base_url": server.url}, proxy="gopher://h").error
    assert isinstance(error, ConfigurationError)
    assert server.connections == 0


# --- Retries ------------------------------------------------------------------------------------------


def test_retries_go_through_it_too(driver: Driver, through: Route) -> None:
    through.server.plan(Answer.error(503, retry_after=0.01), Answer(cut_after=0, ending="reset"))
    heard = driver.stream(through.options(max_retries=SOON))
    assert heard.text == "Hello"
    assert len(through.server.requests) == 3
    assert through.proxy is not None
    if through.name == "proxy":
        assert len(through.proxy.requests) == 3
    else:
        # The first two were sent through one tunnel.
        assert [each.method for each in through.proxy.requests] == ["CONNECT"] * 2
    assert all(each.authorized for each in through.proxy.requests)


def test_what_breaks_off_behind_it(driver: Driver, through: Route) -> None:
    through.server.plan(Answer(events=[event("a"), event("b")], ending="close"))
    heard = driver.stream(through.options())
    assert heard.text == "ab"
    assert isinstance(heard.error, TruncatedStreamError)
    assert through.proxy is not None
    assert through.proxy.address in str(heard.error)
    assert_no_secret(heard.error)


# --- What proxies do wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("credentials", ["", "me:wrong-secret@"])
def test_407(driver: Driver, through: Route, credentials: str) -> None:
    assert through.proxy is not None
    url = through.proxy.address.replace("//", f"//{credentials}")
    error = driver.stream(through.options(proxies=url, max_retries=SOON, api_key="sk-secret")).error
    assert isinstance(error, ProxyError)
    assert (error.status_code, error.transient, error.proxy) == (407, False, through.proxy.address)
    assert "user:password" in str(error)
    assert_no_secret(error)
    assert "wrong-secret" not in shown(error)
    assert len(through.proxy.requests) == 1, "asking again does not help"
    assert through.server.connections == 0


@pytest.mark.parametrize("status", [403, 502])
def test_a_refused_tunnel(driver: Driver, through: Route, status: int) -> None:
    assert through.proxy is not None
    through.proxy.refuse(status, "Not today")
    error = driver.stream(through.options(max_retries=SOON_ONCE, api_key="sk-secret")).error
    assert error is not None
    if through.name == "tunnel":
        assert isinstance(error, ProxyError)
        assert error.status_code == status
        # A policy stays what it is; a gateway may come back.
        assert len(through.proxy.requests) == (1 if status == 403 else 2)
    else:
        # An answer to the request like any other: nobody can tell whose it is.
        assert getattr(error, "status_code", None) == status
        assert len(through.proxy.requests) == (1 if status == 403 else 2)
    assert "Not today" in str(error)
    assert through.proxy.address in str(error)
    assert_no_secret(error)
    assert through.server.connections == 0


def test_a_dead_proxy(driver: Driver, through: Route) -> None:
    port = free_port()
    url = f"http://me:pa%20ss%3Aw%40rd@127.0.0.1:{port}"
    error = driver.stream(through.options(proxies=url, max_retries=SOON_ONCE, api_key="sk-secret")).error
    assert isinstance(error, ProxyError)
    assert error.transient
    assert error.retries_taken == 1
    assert error.proxy == f"http://127.0.0.1:{port}"
    assert f"http://127.0.0.1:{port} can't be reached" in str(error)
    assert_no_secret(error)
    assert through.server.connections == 0, "nothing goes round a proxy"


def test_an_unknown_proxy(driver: Driver, server: ChatServer) -> None:
    error = driver.stream({"base_url": server.url, "proxies": "http://nowhere.invalid:1", "max_retries": 0}).error
    assert isinstance(error, ProxyError)
    assert server.connections == 0


def test_a_proxy_that_takes_no_connection(driver: Driver, through: Route) -> None:
    with full_listener() as port:
        options = through.options(proxies=f"http://127.0.0.1:{port}", timeout=Timeout(connect=0.2), max_retries=0)
        error = driver.stream(options).error
    assert isinstance(error, TimeoutError)
    assert error.deadline == "connect"
    assert f"the proxy http://127.0.0.1:{port} takes no connection" in str(error)


@pytest.mark.parametrize("words", [b"", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 2"])
def test_a_proxy_that_closes_or_speaks_another_language(driver: Driver, through: Route, words: bytes) -> None:
    with Peer(words, close=True) as peer:
        url = f"http://me:pa%20ss%3Aw%40rd@127.0.0.1:{peer.port}"
        error = driver.stream(through.options(proxies=url, max_retries=SOON_ONCE, api_key="sk-secret")).error
        assert peer.connections == 2
    assert isinstance(error, ProxyError if through.name == "tunnel" else ReadError)
    assert f"http://127.0.0.1:{peer.port}" in str(error)
    assert_no_secret(error)


def test_a_proxy_that_answers_nothing(driver: Driver, through: Route) -> None:
    with Peer() as peer:
        url = f"http://me:pa%20ss%3Aw%40rd@127.0.0.1:{peer.port}"
        limits = Timeout(connect=0.2, first_content=0.2)
        error = driver.stream(through.options(proxies=url, timeout=limits, max_retries=0)).error
        assert peer.gone.wait(1)
    assert isinstance(error, TimeoutError)
    if through.name == "tunnel":
        assert error.deadline == "connect"
        assert "no answer in time" in str(error)
    else:
        assert error.deadline == "first_content"
    assert f"http://127.0.0.1:{peer.port}" in str(error)
    assert_no_secret(error)


def test_a_head_that_does_not_end(driver: Driver, tls_server: ChatServer) -> None:
    with Peer(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000, close=True) as peer:
        options = {"base_url": tls_server.url, "proxies": f"http://127.0.0.1:{peer.port}", "max_retries": 0}
        error = driver.stream(options).error
    assert isinstance(error, ProxyError)


def test_a_proxy_that_echoes_the_password(driver: Driver, through: Route) -> None:
    assert through.proxy is not None
    through.proxy.refuse(503, "Who is me with pa ss:w@rd")
    error = driver.stream(through.options(max_retries=0)).error
    assert error is not None
    assert "Who is me with" in str(error)
    assert_no_secret(error)


def test_a_socks_proxy_that_answers_ahead_of_its_turn(driver: Driver) -> None:
    """What is due to it is sent all the same."""
    heard: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            heard.append(connection.recv(3))
            # Its choice of method, and that the tunnel stands, before it was asked for one.
            connection.sendall(b"\x05\x00" + b"\x05\x00\x00\x01\0\0\0\0\0\0")
            request = b""
            while b"\r\n\r\n{" not in request:
                request += connection.recv(65536)
            heard.append(request)
            connection.sendall(HEAD + chunk(event("ok") + b"data: [DONE]\n\n") + b"0\r\n\r\n")
            while connection.recv(65536):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        proxy = f"socks5h://127.0.0.1:{listener.getsockname()[1]}"
        text = driver.stream({"base_url": "http://example.org/v1", "proxies": proxy, "max_retries": 0}).text
        thread.join()
    assert text == "ok"
    assert heard[0] == b"\x05\x01\x00"
    assert heard[1].startswith(b"\x05\x01\x00\x03\x0bexample.org\x00\x50POST /v1/chat/completions HTTP/1.1\r\n")
