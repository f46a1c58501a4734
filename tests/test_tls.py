"""TLS: who is trusted, and who is not; direct and through a tunnel."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from driving import SOON, Driver, Peer, shown

from deltawire import ConfigurationError, ConnectError
from deltawire.testing import ChatServer, ProxyServer
from deltawire.transports._tls import tls_context

pytestmark = pytest.mark.usefixtures("_tidy", "transports")


@pytest.fixture
def pem(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture(params=["direct", "tunnel"])
def proxies(request: pytest.FixtureRequest) -> str | None:
    if request.param == "direct":
        return None
    proxy: ProxyServer = request.getfixturevalue("proxy")
    return proxy.url


def test_a_file_of_authorities(driver: Driver, tls_server: ChatServer, proxies: str | None, pem: str) -> None:
    heard = driver.stream({"base_url": tls_server.url, "proxies": proxies, "verify": pem})
    assert (heard.text, heard.error) == ("Hello", None)


def test_a_path_object(driver: Driver, tls_server: ChatServer, pem: str) -> None:
    assert driver.ask({"base_url": tls_server.url, "verify": Path(pem)}).text == "Hello"


def test_a_context(driver: Driver, tls_server: ChatServer, proxies: str | None, trusting: ssl.SSLContext) -> None:
    heard = driver.stream({"base_url": tls_server.url, "proxies": proxies, "verify": trusting})
    assert (heard.text, heard.error) == ("Hello", None)


def test_no_verification(driver: Driver, tls_server: ChatServer, proxies: str | None) -> None:
    heard = driver.stream({"base_url": tls_server.url, "proxies": proxies, "verify": False})
    assert (heard.text, heard.error) == ("Hello", None)


def test_an_untrusted_certificate(driver: Driver, tls_server: ChatServer, proxies: str | None) -> None:
    options = {"base_url": tls_server.url, "proxies": proxies, "max_retries": SOON, "api_key": "sk-secret"}
    error = driver.stream(options).error
    assert isinstance(error, ConnectError)
    assert not error.transient
    assert error.retries_taken == 0
    assert "certificate of 127.0.0.1 is not trusted" in str(error)
    assert "verify=" in str(error)
    assert tls_server.connections == 1, "it was tried again"
    assert tls_server.requests == []
    assert "sk-secret" not in shown(error)


def test_another_authority(driver: Driver, tls_server: ChatServer, tmp_path: Path) -> None:
    path = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    error = driver.stream({"base_url": tls_server.url, "verify": str(path), "max_retries": SOON}).error
    assert isinstance(error, ConnectError)
    assert not error.transient


def test_the_wrong_hostname(
    driver: Driver, authority: trustme.CA, trusting: ssl.SSLContext, proxies: str | None
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("example.org").configure_cert(context)
    with ChatServer(ssl_context=context) as server:
        options = {"base_url": server.url, "proxies": proxies, "verify": trusting, "max_retries": SOON}
        error = driver.stream(options).error
        assert isinstance(error, ConnectError)
        assert not error.transient
        assert server.connections == 1
        assert server.requests == []


def test_a_server_that_speaks_no_tls(driver: Driver, server: ChatServer, proxies: str | None) -> None:
    url = server.url.replace("http://", "https://")
    error = driver.stream({"base_url": url, "proxies": proxies, "max_retries": 0, "verify": False}).error
    assert isinstance(error, ConnectError)
    assert error.transient
    assert "does the server speak https?" in str(error)


def test_a_server_that_closes_in_the_handshake(driver: Driver, trusting: ssl.SSLContext) -> None:
    with Peer(close=True) as peer:
        options = {"base_url": f"https://127.0.0.1:{peer.port}/v1", "verify": trusting, "max_retries": 0}
        error = driver.stream(options).error
    assert isinstance(error, ConnectError)
    assert error.transient


def test_plain_http_to_a_tls_port(driver: Driver, tls_server: ChatServer) -> None:
    error = driver.stream({"base_url": tls_server.url.replace("https", "http"), "max_retries": 0}).error
    assert error is not None
    assert "127.0.0.1" in str(error)


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_a_file_that_holds_no_authorities(driver: Driver, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "ca.pem"
    if kind == "empty":
        path.write_text("nothing\n")
    error = driver.stream({"base_url": "https://127.0.0.1:9/v1", "verify": str(path)}).error
    assert isinstance(error, ConfigurationError)
    assert str(path) in str(error)


def test_contexts() -> None:
    assert tls_context(True).verify_mode is ssl.CERT_REQUIRED
    assert tls_context(True).check_hostname
    assert tls_context(True) is tls_context(True), "loaded once: it takes long"
    assert tls_context(True) is not tls_context(True, purpose="http2"), "httpcore notes in it what it offers"
    assert tls_context(False).verify_mode is ssl.CERT_NONE
    own = ssl.create_default_context()
    assert tls_context(own) is own


def test_a_directory_of_authorities(tmp_path: Path) -> None:
    assert tls_context(tmp_path).verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("verify", ["", 0, 1, None, b"ca.pem"])
def test_what_is_no_setting(verify: object) -> None:
    with pytest.raises(ConfigurationError, match=r"verify= .* must be True, False, the path"):
        tls_context(verify)  # type: ignore[arg-type]
