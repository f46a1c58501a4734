"""Deadlines, to the point, through real proxies: no keep-alive comment and no byte of a head moves one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from interop_calls import Ask, Told, ask, converse, only
from interop_proxies import ProxyProgram, part_of
from interop_servers import Authority, full_listener

from deltawire import Timeout, TimeoutError
from deltawire.testing import Answer, ChatServer

pytestmark = pytest.mark.usefixtures("transports")

# Seconds that a deadline may come late, on a machine that has other things to do.
LATE = 2.0

PING = b": ping\n\n"
PINGS = [PING] * 100
CHUNK = b'data: {"choices": [{"index": 0, "delta": {"content": "word "}}]}\n\n'

# A tunnel with TLS in it; TLS in TLS; tunnels of SOCKS with and without; and a request that is forwarded.
WAYS = [("squid", True), ("squid-tls", True), ("microsocks", True), ("dante", False), ("squid", False)]


@pytest.fixture(
    params=[
        pytest.param(way, marks=pytest.mark.interop(part_of(way[0])), id=f"{way[0]}-{'https' if way[1] else 'http'}")
        for way in WAYS
    ]
)
def way(request: pytest.FixtureRequest) -> tuple[str, bool]:
    """A proxy, and whether the server speaks TLS."""
    found: tuple[str, bool] = request.param
    return found


@pytest.fixture
def through(way: tuple[str, bool], request: pytest.FixtureRequest) -> ProxyProgram:
    program: ProxyProgram = request.getfixturevalue("proxies")(way[0])
    return program


@pytest.fixture
def server(way: tuple[str, bool], authority: Authority) -> Iterator[ChatServer]:
    with ChatServer(ssl_context=authority.context if way[1] else None) as running:
        yield running


def late(told: Told, deadline: str, after: float) -> TimeoutError:
    """The error of a call that ended at this deadline, so many seconds after its start, and not a while later."""
    error = only(told.error, TimeoutError)
    assert isinstance(error, TimeoutError)
    assert error.deadline == deadline
    assert after <= told.seconds < after + LATE, f"{told.seconds:.3f} s"
    return error


def text(error: TimeoutError) -> str:
    return "" if error.partial is None else error.partial.choices[0].message.content or ""


def test_first_content(flavour: str, through: ProxyProgram, server: ChatServer, authority: Authority) -> None:
    server.plan(Answer(events=PINGS, pace=0.05))
    timeout = Timeout(first_content=0.4, idle=20)
    told = ask(flavour, Ask(), base_url=server.url, proxies=through.locked, verify=authority.ca, timeout=timeout)
    assert text(late(told, "first_content", 0.4)) == ""
    assert server.wait_outcome(0, 5) == "client-closed"


def test_idle(flavour: str, through: ProxyProgram, server: ChatServer, authority: Authority) -> None:
    server.plan(Answer(events=[CHUNK, PING, CHUNK, PING, CHUNK, *PINGS], pace=0.05))
    timeout = Timeout(first_content=20, idle=1.0)
    told = ask(flavour, Ask(), base_url=server.url, proxies=through.locked, verify=authority.ca, timeout=timeout)
    # The last content comes after 0.2 seconds.
    assert text(late(told, "idle", 1.2)) == "word word word "
    assert server.wait_outcome(0, 5) == "client-closed"


def test_total(flavour: str, through: ProxyProgram, server: ChatServer, authority: Authority) -> None:
    server.plan(Answer(events=[CHUNK] * 500, pace=0.02))
    timeout = Timeout(total=1.0)
    told = ask(flavour, Ask(), base_url=server.url, proxies=through.locked, verify=authority.ca, timeout=timeout)
    assert 1 <= text(late(told, "total", 1.0)).count("word ") <= 50
    assert server.wait_outcome(0, 5) == "client-closed"


def test_total_before_any_reply(flavour: str, through: ProxyProgram, server: ChatServer, authority: Authority) -> None:
    # With retries, and nothing that they could still do.
    server.plan(Answer(delay=10))
    told = ask(
        flavour,
        Ask(stream=False),
        base_url=server.url,
        proxies=through.locked,
        verify=authority.ca,
        timeout=Timeout(total=1.0),
        max_retries=2,
    )
    late(told, "total", 1.0)
    assert len(server.requests) == 1


def test_in_a_kept_tunnel(flavour: str, through: ProxyProgram, server: ChatServer, authority: Authority) -> None:
    # The second call has deadlines of its own, on a connection that had others; and the third another connection.
    server.plan(Answer(), Answer(events=PINGS, pace=0.05), Answer())
    asks = [
        Ask(options={"timeout": Timeout(total=20)}),
        Ask(options={"timeout": Timeout(first_content=0.3, idle=20)}),
        Ask(options={"timeout": Timeout(first_content=20, idle=20)}),
    ]
    talk = converse(flavour, asks, base_url=server.url, proxies=through.locked, verify=authority.ca)
    late(talk.told[1], "first_content", 0.3)
    assert talk.told[0].text == talk.told[2].text
    assert talk.busy == 0
    if through.socks or server.url.startswith("https:"):
        first, second, third = (request.connection for request in server.requests)
        assert first == second != third


def test_a_server_that_takes_no_connection(flavour: str, through: ProxyProgram, way: tuple[str, bool]) -> None:
    # The proxy waits for it; a tunnel is waited for as long as a connection is.
    with full_listener() as port:
        told = ask(
            flavour,
            Ask(),
            base_url=f"{'https' if way[1] else 'http'}://127.0.0.1:{port}/v1",
            proxies=through.locked,
            verify=False,
            timeout=Timeout(connect=1.0, first_content=1.2),
        )
    tunnel = through.socks or way[1]
    error = late(told, "connect" if tunnel else "first_content", 1.0 if tunnel else 1.2)
    assert f"{through.missing}" in str(error)
