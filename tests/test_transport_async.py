"""The async transports, `AsyncHTTPCoreTransport` and `AsyncWireTransport`: exchanges on real sockets, and every way in
which they fail, on asyncio and trio."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from driving import STALLED, Route, Run, Transports, blocking, free_port, full_listener, settled, shown
from faults import FAULTS, LONG, QUICK, check, deadlines, each_fault, reply_for, request_for, simple_request
from streaming import turns

from deltawire import ConfigurationError, ConnectError, DeltawireError, Timeout, TimeoutError, UsageError
from deltawire.protocol import ChatCompletionChunk, Event, HTTPRequest, Proxy, Reply, StreamEnded, StreamFailed
from deltawire.testing import Answer, ChatServer, ProxyServer
from deltawire.transports import AsyncExchange, httpcore_async

pytestmark = pytest.mark.usefixtures("_tidy", "transports")

Main = Callable[[Any], Awaitable[None]]


def exchange_on(transport: Any, route: Route, timeout: Timeout = QUICK) -> AsyncExchange:
    proxy = None if route.proxies is None else Proxy.parse(route.proxies)
    found: AsyncExchange = transport.open(request_for(route), reply_for(route), deadlines(timeout), proxy=proxy)
    return found


async def failed(exchange: AsyncExchange) -> None:
    """It ends with an error."""
    events = await exchange.next_events()
    while not isinstance(events[-1], StreamFailed):
        events = await exchange.next_events()
    assert isinstance(events[-1].error, DeltawireError)


async def run_out(exchange: AsyncExchange) -> list[Event]:
    events: list[Event] = []
    while more := await exchange.next_events():
        events += more
    assert await exchange.next_events() == []
    await exchange.aclose()
    await exchange.aclose()
    return events


def text_of(events: list[Event]) -> str:
    return "".join(event.choices[0].delta.content or "" for event in events if isinstance(event, ChatCompletionChunk))


@each_fault
def test_fault(run: Run, short_route: Route, name: str, transports: Transports) -> None:
    route = short_route

    async def main() -> None:
        transport = transports.asynchronous(verify=route.trusting)
        route.server.plan(FAULTS[name].answer)
        error = check(name, route, await run_out(exchange_on(transport, route)))
        words = shown(error)
        assert "sk-secret" not in words
        assert route.between is None or "pa ss:w@rd" not in words
        # The connection is given back or closed; what comes next is not disturbed.
        assert transport.connections()[0] == 0
        assert text_of(await run_out(exchange_on(transport, route, LONG))) == "Hello"
        await transport.aclose()

    run(main)


def test_cancelling_who_waits_beside_another(run: Run, short_route: Route, transports: Transports) -> None:
    """httpcore may give one kept connection to two requests; who is second then waits for another one, and must not
    end the first one's when he is cancelled."""
    route, words = short_route, ["word " * 200] * 500

    async def main() -> None:
        transport = transports.asynchronous(verify=route.trusting, max_connections=1)
        for _ in range(10):  # trio shuffles whose turn it is
            route.server.plan(*[Answer(tokens=words)] * 3)
            # There is one kept connection.
            assert text_of(await run_out(exchange_on(transport, route, LONG))) == "".join(words)
            heard: list[Event] = []
            begun, cancelled = anyio.Event(), anyio.Event()
            scope = anyio.CancelScope()

            async def first(
                heard: list[Event] = heard, begun: anyio.Event = begun, go: anyio.Event = cancelled
            ) -> None:
                exchange = exchange_on(transport, route, LONG)
                heard += await exchange.next_events()
                begun.set()
                await go.wait()
                heard += await run_out(exchange)

            async def second(scope: anyio.CancelScope = scope) -> None:
                with scope:
                    await run_out(exchange_on(transport, route, LONG))

            async with anyio.create_task_group() as group:
                group.start_soon(first)
                group.start_soon(second)
                await begun.wait()
                scope.cancel()
                await turns()
                cancelled.set()
            assert text_of(heard) == "".join(words)
            assert transport.connections()[0] == 0
        await transport.aclose()

    run(main)


def test_a_good_reply(run: Run, route: Route, transports: Transports) -> None:
    async def main() -> None:
        transport = transports.asynchronous(verify=route.trusting)
        events = await run_out(exchange_on(transport, route))
        assert isinstance(events[-1], StreamEnded)
        assert text_of(events) == "Hello"
        assert transport.connections() == (0, 1)
        await transport.aclose()
        await transport.aclose()
        assert transport.connections() == (0, 0)
        with pytest.raises(UsageError, match="closed"):
            exchange_on(transport, route)

    run(main)


def test_nothing_is_sent_before_the_first_step(run: Run, route: Route, transports: Transports) -> None:
    async def main() -> None:
        transport = transports.asynchronous()
        exchange = exchange_on(transport, route)
        exchange.abandon()
        await exchange.aclose()
        with pytest.raises(UsageError, match="closed"):
            await exchange.next_events()
        assert route.server.connections == 0

    run(main)


def test_abandoned(run: Run, route: Route, transports: Transports) -> None:
    async def main() -> None:
        transport = transports.asynchronous(verify=route.trusting)
        route.server.plan(STALLED)
        exchange = exchange_on(transport, route, LONG)
        assert await exchange.next_events()
        exchange.abandon()
        exchange.abandon()
        assert await blocking(route.server.wait_outcome, 0, 1) == "client-closed"
        assert await settled(lambda: transport.connections() == (0, 0))
        await exchange.aclose()
        await transport.aclose()

    run(main)


def test_abandoned_when_the_loop_is_over(run: Run, route: Route, transports: Transports) -> None:
    transport = transports.asynchronous(verify=route.trusting)

    async def main() -> AsyncExchange:
        exchange = exchange_on(transport, route, LONG)
        assert await exchange.next_events()
        return exchange

    route.server.plan(STALLED)
    exchange = run(main)
    assert route.server.wait_outcome(0, 1) == "client-closed"
    exchange.abandon()
    transport.abandon()


def test_abandoned_in_another_thread(run: Run, route: Route, transports: Transports) -> None:
    """Where the collector runs, finalisers run."""

    async def main() -> None:
        transport = transports.asynchronous(verify=route.trusting)
        route.server.plan(STALLED)
        exchange = exchange_on(transport, route, LONG)
        assert await exchange.next_events()
        await blocking(exchange.abandon)
        assert await blocking(route.server.wait_outcome, 0, 1) == "client-closed"
        await transport.aclose()

    run(main)


def test_closed_in_the_midst_of_a_reply(run: Run, route: Route, transports: Transports) -> None:
    """Whoever goes on asking is told."""

    async def main() -> None:
        transport = transports.asynchronous(verify=route.trusting)
        route.server.plan(STALLED)
        exchange = exchange_on(transport, route, LONG)
        assert await exchange.next_events()
        await exchange.aclose()
        await failed(exchange)
        await transport.aclose()

    run(main)


# (Exchanges are one task's; those of httpcore really are, on trio.)
@pytest.mark.parametrize("transports", ["wire"], indirect=True)
def test_closed_by_another_task(run: Run, route: Route, transports: Transports) -> None:
    """Whoever asks already is told, and does not wait for his deadline."""

    async def main() -> None:
        transport = transports.asynchronous(verify=route.trusting)
        route.server.plan(STALLED)
        exchange = exchange_on(transport, route, LONG)
        assert await exchange.next_events()
        with anyio.fail_after(2):
            async with anyio.create_task_group() as group:
                group.start_soon(failed, exchange)
                await turns()
                await exchange.aclose()
        assert transport.connections() == (0, 0)
        await transport.aclose()

    run(main)


def test_complete_when_its_transport_is_closed(run: Run, route: Route, transports: Transports) -> None:
    async def main() -> None:
        transport = transports.asynchronous(verify=route.trusting)
        exchange = exchange_on(transport, route)
        while await exchange.next_events():
            pass
        await transport.aclose()
        await exchange.aclose()
        assert transport.connections() == (0, 0)

    run(main)


async def _failure(transport: Any, url: str, timeout: Timeout = QUICK) -> Exception:
    exchange = transport.open(simple_request(url), Reply(), deadlines(timeout))
    (failed,) = await exchange.next_events()
    await exchange.aclose()
    assert transport.connections() == (0, 0)
    assert isinstance(failed, StreamFailed)
    return failed.error


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_nobody_listens(run: Run, host: str, transports: Transports) -> None:
    async def main() -> None:
        error = await _failure(transports.asynchronous(), f"http://{host}:{free_port()}/v1", LONG)
        assert isinstance(error, ConnectError)
        assert error.transient
        assert "is the server running" in str(error)

    run(main)


def test_an_unknown_name(run: Run, transports: Transports) -> None:
    async def main() -> None:
        error = await _failure(transports.asynchronous(), "http://nowhere.invalid/v1", LONG)
        assert isinstance(error, ConnectError)
        assert "nowhere.invalid" in str(error)

    run(main)


def test_connecting_takes_too_long(run: Run, transports: Transports) -> None:
    async def main(port: int) -> None:
        begin = time.monotonic()
        error = await _failure(transports.asynchronous(), f"http://127.0.0.1:{port}/v1", Timeout(connect=0.2))
        assert time.monotonic() - begin < 2
        assert isinstance(error, TimeoutError)
        assert (error.deadline, error.seconds) == ("connect", 0.2)

    with full_listener() as port:
        run(main, port)


def test_a_request_that_is_no_http(run: Run, server: ChatServer, transports: Transports) -> None:
    async def main() -> None:
        request = HTTPRequest("POST", f"{server.url}/chat/completions", ((b"x", b"a\nb"),))
        transport = transports.asynchronous()
        exchange = transport.open(request, Reply(), deadlines())
        if transports.name == "httpcore":
            (failed,) = await exchange.next_events()
            assert isinstance(failed, StreamFailed)
            assert isinstance(failed.error, DeltawireError)
        else:
            # The wire sees whose fault that is.
            with pytest.raises(ConfigurationError):
                await exchange.next_events()
        await exchange.aclose()
        assert transport.connections() == (0, 0)

    run(main)
    assert server.requests == []


def test_an_exception_of_the_caller_closes(
    run: Run, server: ChatServer, monkeypatch: pytest.MonkeyPatch, transports: Transports
) -> None:
    class Interruption(BaseException):
        pass

    def interrupted(self: Reply, data: bytes) -> list[Event]:
        raise Interruption

    async def main() -> None:
        transport = transports.asynchronous()
        exchange = transport.open(simple_request(server.url), Reply(), deadlines(LONG))
        with pytest.raises(Interruption):
            await exchange.next_events()
        assert await blocking(server.wait_outcome, 0, 1) == "client-closed"
        assert transport.connections() == (0, 0)

    server.plan(STALLED)
    monkeypatch.setattr(Reply, "receive", interrupted)
    run(main)


def test_pools_of_many_proxies_are_closed(
    run: Run, server: ChatServer, monkeypatch: pytest.MonkeyPatch, transports: Transports
) -> None:
    """Who rotates through proxies keeps no connection to each."""
    # httpcore has a pool for each; the wire one for all, with so many idle connections.
    monkeypatch.setattr(httpcore_async, "MAX_POOLS", 2)

    async def main(proxy: ProxyServer) -> None:
        transport = transports.asynchronous(max_keepalive_connections=2)
        for user in range(5):
            target = Proxy("http", "127.0.0.1", proxy.port, f"user{user}", "x")
            exchange = transport.open(simple_request(server.url), Reply(), deadlines(LONG), proxy=target)
            assert text_of(await run_out(exchange)) == "Hello"
        assert transport.connections() == (0, 2)
        await transport.aclose()

    with ProxyServer() as proxy:
        run(main, proxy)
