"""The sync transports, `HTTPCoreTransport` and `WireTransport`: exchanges on real sockets, and every way in which they
fail."""

from __future__ import annotations

import time
from typing import Any

import pytest
from driving import STALLED, Route, Transports, free_port, full_listener, httpcore_only, shown
from faults import FAULTS, LONG, QUICK, check, deadlines, each_fault, reply_for, request_for, simple_request

from deltawire import ConfigurationError, ConnectError, DeltawireError, Timeout, TimeoutError, UsageError
from deltawire.protocol import ChatCompletionChunk, Event, HTTPRequest, Proxy, Reply, StreamEnded, StreamFailed
from deltawire.testing import ChatServer, ProxyServer
from deltawire.transports import Exchange, httpcore_sync

pytestmark = pytest.mark.usefixtures("_tidy", "transports")


def exchange_on(transport: Any, route: Route, timeout: Timeout = QUICK) -> Exchange:
    proxy = None if route.proxies is None else Proxy.parse(route.proxies)
    found: Exchange = transport.open(request_for(route), reply_for(route), deadlines(timeout), proxy=proxy)
    return found


def run_out(transport: Any, route: Route, timeout: Timeout = QUICK) -> list[Event]:
    exchange = exchange_on(transport, route, timeout)
    events: list[Event] = []
    while more := exchange.next_events():
        events += more
    assert exchange.next_events() == []
    exchange.close()
    exchange.close()
    return events


def text_of(events: list[Event]) -> str:
    return "".join(event.choices[0].delta.content or "" for event in events if isinstance(event, ChatCompletionChunk))


@each_fault
def test_fault(route: Route, name: str, transports: Transports) -> None:
    transport = transports.blocking(verify=route.trusting)
    try:
        route.server.plan(FAULTS[name].answer)
        error = check(name, route, run_out(transport, route))
        words = shown(error)
        assert "sk-secret" not in words
        assert route.between is None or "pa ss:w@rd" not in words
        # The connection is given back or closed; what comes next is not disturbed.
        assert transport.connections()[0] == 0
        assert text_of(run_out(transport, route, LONG)) == "Hello"
    finally:
        transport.close()


def test_a_good_reply(route: Route, transports: Transports) -> None:
    transport = transports.blocking(verify=route.trusting)
    events = run_out(transport, route)
    assert isinstance(events[-1], StreamEnded)
    assert text_of(events) == "Hello"
    assert transport.connections() == (0, 1)
    transport.close()
    assert transport.connections() == (0, 0)


def test_nothing_is_sent_before_the_first_step(route: Route, transports: Transports) -> None:
    transport = transports.blocking()
    exchange = exchange_on(transport, route)
    assert transport.connections() == (0, 0)
    exchange.close()
    with pytest.raises(UsageError, match="closed"):
        exchange.next_events()
    assert route.server.connections == 0
    transport.close()


def test_closed_is_closed(route: Route, transports: Transports) -> None:
    transport = transports.blocking()
    transport.close()
    transport.close()
    with pytest.raises(UsageError, match="closed"):
        exchange_on(transport, route)


def test_abandoned(route: Route, transports: Transports) -> None:
    transport = transports.blocking(verify=route.trusting)
    route.server.plan(STALLED)
    exchange = exchange_on(transport, route, LONG)
    assert exchange.next_events()
    exchange.abandon()
    assert route.server.wait_outcome(0, 1) == "client-closed"
    exchange.abandon()
    assert transport.connections() == (0, 0)
    transport.close()
    exchange.abandon()


@httpcore_only
def test_abandoned_inside_httpcore(route: Route, transports: Transports) -> None:
    transport = transports.blocking(verify=route.trusting)
    route.server.plan(STALLED)
    exchange = exchange_on(transport, route, LONG)
    assert exchange.next_events()
    transport.enter()
    exchange.abandon()
    assert transport.connections()[0] == 1
    transport.leave()
    assert route.server.wait_outcome(0, 1) == "client-closed"
    assert transport.connections() == (0, 0)
    transport.close()


def test_closed_in_the_midst_of_a_reply(route: Route, transports: Transports) -> None:
    """Whoever goes on asking is told."""
    transport = transports.blocking(verify=route.trusting)
    route.server.plan(STALLED)
    exchange = exchange_on(transport, route, LONG)
    assert exchange.next_events()
    exchange.close()
    events = exchange.next_events()
    while not isinstance(events[-1], StreamFailed):
        events = exchange.next_events()
    assert isinstance(events[-1].error, DeltawireError)
    assert exchange.next_events() == []
    transport.close()


def test_complete_when_its_transport_is_closed(route: Route, transports: Transports) -> None:
    transport = transports.blocking(verify=route.trusting)
    exchange = exchange_on(transport, route)
    while exchange.next_events():
        pass
    transport.close()
    exchange.close()
    assert transport.connections() == (0, 0)


def _failure(transport: Any, url: str, timeout: Timeout = QUICK) -> Exception:
    exchange = transport.open(simple_request(url), Reply(), deadlines(timeout))
    (failed,) = exchange.next_events()
    exchange.close()
    assert transport.connections() == (0, 0)
    assert isinstance(failed, StreamFailed)
    return failed.error


def test_nobody_listens(transports: Transports) -> None:
    transport = transports.blocking()
    error = _failure(transport, f"http://127.0.0.1:{free_port()}/v1")
    assert isinstance(error, ConnectError)
    assert error.transient
    assert "is the server running" in str(error)
    transport.close()


def test_an_unknown_name(transports: Transports) -> None:
    transport = transports.blocking()
    error = _failure(transport, "http://nowhere.invalid/v1")
    assert isinstance(error, ConnectError)
    assert "nowhere.invalid" in str(error)
    transport.close()


def test_connecting_takes_too_long(transports: Transports) -> None:
    transport = transports.blocking()
    with full_listener() as port:
        begin = time.monotonic()
        error = _failure(transport, f"http://127.0.0.1:{port}/v1", Timeout(connect=0.2))
        assert time.monotonic() - begin < 2
    assert isinstance(error, TimeoutError)
    assert (error.deadline, error.seconds) == ("connect", 0.2)
    transport.close()


def test_a_request_that_is_no_http(server: ChatServer, transports: Transports) -> None:
    transport = transports.blocking()
    request = HTTPRequest("POST", f"{server.url}/chat/completions", ((b"x", b"a\nb"),))
    exchange = transport.open(request, Reply(), deadlines())
    if transports.name == "httpcore":
        (failed,) = exchange.next_events()
        assert isinstance(failed, StreamFailed)
        assert isinstance(failed.error, DeltawireError)
    else:
        # The wire sees whose fault that is.
        with pytest.raises(ConfigurationError):
            exchange.next_events()
    exchange.close()
    assert transport.connections() == (0, 0)
    transport.close()
    assert server.requests == []


def test_an_exception_of_the_caller_closes(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, transports: Transports
) -> None:
    """Ctrl-C, above all."""

    def interrupted(self: Reply, data: bytes) -> list[Event]:
        raise KeyboardInterrupt

    server.plan(STALLED)
    transport = transports.blocking()
    monkeypatch.setattr(Reply, "receive", interrupted)
    exchange = transport.open(simple_request(server.url), Reply(), deadlines(LONG))
    with pytest.raises(KeyboardInterrupt):
        exchange.next_events()
    assert server.wait_outcome(0, 1) == "client-closed"
    assert transport.connections() == (0, 0)
    transport.close()


def test_pools_of_many_proxies_are_closed(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, transports: Transports
) -> None:
    """Who rotates through proxies keeps no connection to each."""
    # httpcore has a pool for each; the wire one for all, with so many idle connections.
    monkeypatch.setattr(httpcore_sync, "MAX_POOLS", 2)
    transport = transports.blocking(max_keepalive_connections=2)
    with ProxyServer() as proxy:
        for user in range(5):
            target = Proxy("http", "127.0.0.1", proxy.port, f"user{user}", "x")
            exchange = transport.open(simple_request(server.url), Reply(), deadlines(LONG), proxy=target)
            while exchange.next_events():
                pass
            exchange.close()
        assert transport.connections() == (0, 2)
    transport.close()
