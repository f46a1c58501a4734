"""squid with TLS to itself, an https:// proxy: what may go wrong with that TLS. (All else it does as the others do.)"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from interop_calls import Ask, ask, converse, only
from interop_proxies import ProxyProgram
from interop_servers import Authority

from deltawire import ProxyError, ReadError
from deltawire.testing import ChatServer

pytestmark = [pytest.mark.interop("squid"), pytest.mark.usefixtures("transports")]

WORDS = ["One", " two", " three", "."]

GetProxy = Callable[[str], ProxyProgram]


@pytest.fixture
def tls(proxies: GetProxy) -> ProxyProgram:
    return proxies("squid-tls")


@pytest.fixture(params=["http", "https"])
def server(request: pytest.FixtureRequest, authority: Authority) -> Iterator[ChatServer]:
    context = authority.context if request.param == "https" else None
    with ChatServer(tokens=WORDS, ssl_context=context) as running:
        yield running


def trusting(authority: Authority, kind: str) -> Any:
    """Each way to say whom to trust."""
    if kind == "file":
        return authority.ca
    return ssl.create_default_context(cafile=authority.ca) if kind == "context" else False


@pytest.mark.parametrize(
    ("transports", "http2"),
    [("httpcore", False), ("httpcore", True), ("wire", False)],
    ids=["http1", "http2", "wire"],
    indirect=["transports"],
)
@pytest.mark.parametrize("kind", ["file", "context", "no"])
def test_whom_to_trust(
    flavour: str, tls: ProxyProgram, server: ChatServer, authority: Authority, kind: str, http2: bool
) -> None:
    # With one context for proxy and server, too; and HTTP/2, which is for servers, is no matter for the proxy.
    verify = trusting(authority, kind)
    talk = converse(
        flavour, [Ask(), Ask(stream=False)], base_url=server.url, proxies=tls.locked, verify=verify, http2=http2
    )
    assert [told.text for told in talk.told] == ["".join(WORDS)] * 2
    assert (talk.busy, talk.idle) == (0, 1)


def test_an_untrusted_proxy(flavour: str, tls: ProxyProgram, server: ChatServer) -> None:
    before = len(tls.requests(server.port))
    told = ask(flavour, Ask(), base_url=server.url, proxies=tls.locked, max_retries=2)
    error = only(told.error, ProxyError)
    assert isinstance(error, ProxyError)
    assert not error.transient
    assert error.retries_taken == 0
    assert f"the certificate of the proxy {tls.missing} is not trusted" in str(error)
    assert server.connections == 0
    # It has not heard the password.
    assert len(tls.requests(server.port)) == before


def test_a_proxy_of_another_name(flavour: str, tls: ProxyProgram, server: ChatServer, authority: Authority) -> None:
    # 0.0.0.0 leads to 127.0.0.1, too, and is not in the certificate.
    other = tls.locked.replace("@127.0.0.1", "@0.0.0.0")
    told = ask(flavour, Ask(), base_url=server.url, proxies=other, verify=authority.ca)
    error = only(told.error, ProxyError)
    assert isinstance(error, ProxyError)
    assert not error.transient
    assert "IP address mismatch, certificate is not valid for '0.0.0.0'" in str(error)


def test_http_to_a_proxy_that_wants_tls(
    flavour: str, tls: ProxyProgram, server: ChatServer, authority: Authority
) -> None:
    plain = tls.locked.replace("https:", "http:")
    told = ask(flavour, Ask(), base_url=server.url, proxies=plain, verify=authority.ca)
    shown = tls.missing.replace("https:", "http:")
    if server.url.startswith("https:"):
        error = only(told.error, ProxyError)
        assert f"the proxy {shown} does not answer in HTTP" in str(error)
        assert "is it an HTTP proxy?" in str(error)
    else:
        # It might be the server that answers with a TLS alert.
        assert f"via proxy {shown}" in str(only(told.error, ReadError))
    assert server.connections == 0


def test_tls_to_a_proxy_that_has_none(
    flavour: str, proxies: GetProxy, server: ChatServer, authority: Authority
) -> None:
    squid = proxies("squid")
    told = ask(
        flavour, Ask(), base_url=server.url, proxies=squid.locked.replace("http:", "https:"), verify=authority.ca
    )
    error = only(told.error, ProxyError)
    assert f"no TLS connection to the proxy {squid.missing.replace('http:', 'https:')}" in str(error)
    assert "is it an https:// proxy, or an http:// one?" in str(error)
    assert server.connections == 0
