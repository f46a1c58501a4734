"""microsocks and dante: what SOCKS5 has that HTTP proxies have not."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import interop_servers
import pytest
from driving import free_port
from interop_calls import Ask, ask, converse, only
from interop_proxies import PROXYS_NAME, SOCKS_PROXIES, ProxyProgram, without_password
from interop_servers import HAS_IPV6, Authority

from deltawire import ConnectError, ProxyError, ReadError
from deltawire.testing import Answer, ChatServer

pytestmark = pytest.mark.usefixtures("transports")

WORDS = ["One", " two", " three", "."]
NAMED = [pytest.param(name, marks=pytest.mark.interop(name)) for name in SOCKS_PROXIES]
ONLY_DANTE = pytest.mark.interop("dante")

GetProxy = Callable[[str], ProxyProgram]


@pytest.fixture(params=NAMED)
def socks(request: pytest.FixtureRequest, proxies: GetProxy) -> ProxyProgram:
    """Each in turn."""
    return proxies(request.param)


@pytest.fixture(params=["socks5", "socks5h"])
def scheme(request: pytest.FixtureRequest) -> str:
    """Where names are resolved: here, or by the proxy."""
    value: str = request.param
    return value


def speaking(scheme: str, url: str) -> str:
    """The proxy's URL with this scheme."""
    return f"{scheme}://{url.partition('://')[2]}"


@pytest.fixture(params=["127.0.0.1", "::1", "localhost"])
def host(request: pytest.FixtureRequest) -> str:
    """How the server is called."""
    if request.param == "::1" and not HAS_IPV6:
        pytest.skip("this machine has no ::1")
    value: str = request.param
    return value


@pytest.fixture(params=["http", "https"])
def server(request: pytest.FixtureRequest, authority: Authority, host: str) -> Iterator[ChatServer]:
    """A server at that host; of the addresses of a name, at the first, which is the one that microsocks tries."""
    address = socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)[0][4][0]
    context = authority.context if request.param == "https" else None
    with ChatServer(tokens=WORDS, ssl_context=context, host=str(address)) as running:
        yield running


def url_of(server: ChatServer, host: str) -> str:
    return f"{server.url.partition('://')[0]}://{f'[{host}]' if ':' in host else host}:{server.port}/v1"


@pytest.mark.parametrize("locked", [False, True], ids=["open", "password"])
def test_a_chat(
    flavour: str,
    socks: ProxyProgram,
    scheme: str,
    host: str,
    server: ChatServer,
    authority: Authority,
    locked: bool,
) -> None:
    before = len(socks.requests(server.port))
    told = ask(
        flavour,
        Ask(),
        base_url=url_of(server, host),
        proxies=speaking(scheme, socks.locked if locked else socks.open),
        verify=authority.ca,
    )
    assert told.text == "".join(WORDS)
    (received,) = server.requests
    assert received.header("host") == url_of(server, host).split("/")[2]
    assert server.wait_outcome(0) == "complete"
    assert len(socks.wait_requests(before + 1, server.port)) == before + 1


def test_five_streams_in_one_tunnel(flavour: str, socks: ProxyProgram, scheme: str) -> None:
    with ChatServer(tokens=WORDS) as server:
        before = len(socks.requests(server.port))
        asks = [Ask(scoped=number % 2 == 0) for number in range(5)]
        talk = converse(flavour, asks, base_url=server.url, proxies=speaking(scheme, socks.locked))
        assert [told.text for told in talk.told] == ["".join(WORDS)] * 5
        assert (talk.busy, talk.idle, server.connections) == (0, 1, 1)
        assert len(socks.wait_requests(before + 1, server.port)) == before + 1


@pytest.mark.parametrize("kind", ["wrong", "missing"])
def test_a_refused_password(flavour: str, socks: ProxyProgram, scheme: str, kind: str) -> None:
    url = speaking(scheme, socks.refused if kind == "wrong" else socks.missing)
    with ChatServer() as server:
        told = ask(flavour, Ask(), base_url=server.url, proxies=url, max_retries=2)
        assert server.connections == 0
    error = only(told.error, ProxyError)
    assert isinstance(error, ProxyError)
    # RFC 1929 has one bit for it, RFC 1928 a method that is none.
    assert ("refused user and password" if kind == "wrong" else "wants user and password") in str(error)
    assert without_password(url) in str(error)
    assert (error.status_code, error.reply_code, error.transient, error.retries_taken) == (None, None, False, 0)


# For each: where to, and the reply by microsocks and by dante. A multicast address is one to which no TCP connection
# leads, and the system knows at once.
NOWHERE = [
    pytest.param("127.0.0.1:{closed}", (5, 5), id="refused"),
    pytest.param("localhost:{closed}", (5, 5), id="refused, by name"),
    pytest.param("224.0.0.1:80", (3, 3), id="no network"),
    # microsocks does not say that it found no such name. The name is reserved for having no address (RFC 6761).
    pytest.param("nowhere.invalid:80", (1, 4), id="no name"),
]


@pytest.mark.parametrize(("target", "replies"), NOWHERE)
def test_a_target_that_is_not_there(flavour: str, socks: ProxyProgram, target: str, replies: tuple[int, int]) -> None:
    target = target.format(closed=free_port())
    told = ask(flavour, Ask(), base_url=f"http://{target}/v1", proxies=socks.locked)
    error = only(told.error, ProxyError)
    assert isinstance(error, ProxyError)
    assert error.reply_code == replies[SOCKS_PROXIES.index(socks.name)]
    assert f"no tunnel to {target}" in str(error)
    assert error.transient
    assert error.status_code is None


def test_a_target_that_is_there_at_last(flavour: str, socks: ProxyProgram) -> None:
    # As a server that is being started: its port refuses, and is tried again.
    port = interop_servers.free_port()
    running: list[ChatServer] = []

    def key() -> str:
        if asked and not running:
            running.append(ChatServer(tokens=WORDS, port=port).start())
        asked.append(None)
        return "sk-interop"

    asked: list[None] = []
    try:
        told = ask(
            flavour, Ask(), base_url=f"http://127.0.0.1:{port}/v1", proxies=socks.locked, api_key=key, max_retries=2
        )
        assert told.text == "".join(WORDS)
    finally:
        for server in running:
            server.stop()


@ONLY_DANTE
def test_a_target_that_the_rules_forbid(flavour: str, proxies: GetProxy, scheme: str) -> None:
    dante = proxies("dante")
    url = f"http://127.0.0.1:{dante.forbidden}/v1"
    told = ask(flavour, Ask(), base_url=url, proxies=speaking(scheme, dante.locked), max_retries=2)
    error = only(told.error, ProxyError)
    assert isinstance(error, ProxyError)
    assert (error.reply_code, error.transient, error.retries_taken) == (2, False, 0)
    assert "by its rules" in str(error)


@ONLY_DANTE
def test_a_name_that_only_the_proxy_knows(flavour: str, proxies: GetProxy, scheme: str, authority: Authority) -> None:
    proxy = speaking(scheme, proxies("dante").locked)
    with ChatServer(tokens=WORDS, ssl_context=authority.context) as server:
        told = ask(
            flavour, Ask(), base_url=url_of(server, PROXYS_NAME), proxies=proxy, verify=authority.ca, max_retries=0
        )
        if scheme == "socks5h":
            assert told.text == "".join(WORDS)
            return
        error = only(told.error, ConnectError)
        assert f"the name {PROXYS_NAME} can't be looked up here" in str(error)
        assert "socks5h://" in str(error)
        assert server.connections == 0


@pytest.mark.parametrize("scoped", [False, True], ids=["dropped", "closed"])
def test_an_early_end_frees_the_tunnel(flavour: str, socks: ProxyProgram, scoped: bool) -> None:
    with ChatServer() as server:
        server.plan(Answer(tokens=WORDS * 500, pace=0.01))
        told = ask(flavour, Ask(take=3, scoped=scoped), base_url=server.url, proxies=socks.locked)
        left = time.monotonic()
        assert len(told.chunks) == 3
        assert server.wait_outcome(0, 1) == "client-closed"
        if socks.name == "dante":
            # It says which of its two sides has gone.
            while not any(over(line, server) for log in socks.logs for line in log.read_text().splitlines()):
                assert time.monotonic() < left + 1
                time.sleep(0.01)


def over(line: str, server: ChatServer) -> bool:
    # It may hear of the end by writing, before it reads it.
    gone = "local client closed" in line or "local client error" in line
    return "tcp/connect ]:" in line and f"127.0.0.1.{server.port} " in line and gone


@pytest.mark.parametrize("secured", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_wrong_scheme(flavour: str, socks: ProxyProgram, scheme: str, authority: Authority, secured: bool) -> None:
    wrong = speaking(scheme, socks.open)
    with ChatServer(ssl_context=authority.context if secured else None) as server:
        told = ask(flavour, Ask(), base_url=server.url, proxies=wrong, verify=authority.ca)
        assert server.connections == 0
    # Where no tunnel is asked for, it might be the server that answers so.
    error = only(told.error, ProxyError if secured or scheme == "https" else ReadError)
    assert f"the proxy {wrong} " in str(error) or f"via proxy {wrong})" in str(error)
    if scheme == "https":
        assert "is it an https:// proxy" in str(error)
    elif secured:
        # microsocks says that it takes no such authentication, dante nothing.
        assert ("does not answer in HTTP" if socks.name == "microsocks" else "closed the connection") in str(error)
