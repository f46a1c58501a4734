"""The programs of ``examples/`` through real proxies with a password, before a server that fails at first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from interop_proxies import ProxyProgram
from interop_servers import Authority
from programs import EXAMPLES, KEY, Example, environment_of, launch, run_program

from deltawire.testing import ChatServer

pytestmark = pytest.mark.usefixtures("transports")

# A program takes a second to start: of the four combinations each test has two, and both tests have all.
# test_proxies_real.py has all for each proxy.
ONE_WAY = [("httpcore", "http"), ("wire", "https")]
OTHER_WAY = [("httpcore", "https"), ("wire", "http")]


def combined(ways: list[tuple[str, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("transports", "server"), ways, ids=map("-".join, ways), indirect=True)


every = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name.removesuffix(".py"))


@pytest.fixture
def server(request: pytest.FixtureRequest, authority: Authority) -> Iterator[ChatServer]:
    context = authority.context if request.param == "https" else None
    with ChatServer(tokens=["Hel", "lo"], api_key=KEY, ssl_context=context) as running:
        yield running


@combined(ONE_WAY)
@every
def test_through_a_proxy(example: Example, server: ChatServer, proxy: ProxyProgram, authority: Authority) -> None:
    server.plan(*example.failures)
    environment = environment_of(server, proxy.locked) | {"SSL_CERT_FILE": authority.ca}
    printed = run_program(example.source, **environment)
    example.check(printed, server)
    assert all(each.header("proxy-authorization") is None for each in server.requests)
    tunnelled = proxy.socks or server.url.startswith("https:")
    # In a tunnel a proxy sees connections.
    passed = len({each.connection for each in server.requests}) if tunnelled else len(server.requests)
    proxy.wait_requests(passed, server.port)
    # (A busy proxy may refuse one of its own accord; the program then asks again.)
    assert len(proxy.requests(server.port)) >= passed > 0
    assert tunnelled or all(each.header("via") for each in server.requests)


@combined(OTHER_WAY)
@every
def test_a_wrong_password(example: Example, server: ChatServer, proxy: ProxyProgram, authority: Authority) -> None:
    environment = environment_of(server, proxy.refused) | {"SSL_CERT_FILE": authority.ca}
    done = launch(example.source, **environment)
    assert done.returncode == 1
    assert server.requests == []
    # tinyproxy 1.11 answers a wrong password with 401, as the server might: see test_proxies_real.py.
    assert "ProxyError: " in done.stderr or (proxy.name == "tinyproxy" and "AuthenticationError: " in done.stderr)
    assert "Hello" not in done.stdout
    assert "s3cret" not in done.stdout + done.stderr
    assert KEY not in done.stdout + done.stderr
