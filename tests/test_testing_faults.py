"""`Fault`, planned for `ProxyServer` and `SocksServer`: at every byte of what they write. Nothing here sleeps."""

from __future__ import annotations

import dataclasses
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from by_hand import (
    Stream,
    TLSOver,
    accept,
    client_hello,
    dial,
    kill,
    listen,
    origin,
    read_all,
    read_exactly,
    read_reset,
    read_until,
)

from deltawire.testing import ChatServer, Fault, ProxyServer, SocksServer

pytestmark = pytest.mark.usefixtures("_tidy")

Proxy = ProxyServer | SocksServer
GARBAGE = b"\0garbage\xff"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
LOGIN = b"\1\2me\2pw"
NEVER = b"what the target says, never to arrive"


@pytest.fixture
def proxy() -> Iterator[ProxyServer]:
    with ProxyServer() as running:
        yield running
        running.wait_closed()


@pytest.fixture
def socks() -> Iterator[SocksServer]:
    with SocksServer(username="me", password="pw") as running:
        yield running
        running.wait_closed()


@pytest.fixture
def tls_proxy(server_context: ssl.SSLContext) -> Iterator[ProxyServer]:
    with ProxyServer(ssl_context=server_context) as running:
        yield running
        running.wait_closed()


@pytest.fixture
def target() -> Iterator[socket.socket]:
    with listen() as listener:
        yield listener


@pytest.fixture
def greeter() -> Iterator[socket.socket]:
    """A target that says NEVER to everybody who comes, and waits for the end."""
    with listen() as listener:

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    sock.settimeout(5)
                    try:
                        sock.sendall(NEVER)
                        read_all(sock)
                    except ConnectionError:
                        pass

        listener.settimeout(None)
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def connect_to(listener: socket.socket) -> bytes:
    return f"CONNECT {origin(listener)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def socks_to(listener: socket.socket) -> bytes:
    """All that a client says."""
    port: int = listener.getsockname()[1]
    return b"\5\1\2" + LOGIN + b"\5\1\0\1\x7f\0\0\1" + port.to_bytes(2, "big")


def bound_apart(answer: bytes) -> bytes:
    """A SOCKS handshake's answers without the port of the proxy's end, which is another each time."""
    return answer[:12] + b"??"[: len(answer[12:14])] + answer[14:]


def wait_open(proxy: Proxy) -> None:
    """Where nothing is ever said, this tells that the client has been accepted."""
    proxy.wait_until(lambda: proxy.open_connections == 1, "one connection")


def check(client: Stream, hang_up: Callable[[], None], fault: Fault, expected: bytes, proxy: Proxy) -> bytes:
    """That this arrives, and that the fault's ending follows; `hang_up` ends the client's direction."""
    if fault.ending == "close":
        return read_all(client)
    if fault.ending == "reset":
        return read_reset(client)
    got = read_exactly(client, len(expected))
    wait_open(proxy)
    hang_up()
    return got + read_all(client)  # the proxy lets go, and has said no more


def every(length: int, *endings: str) -> list[Fault]:
    kinds: Any = endings or ("close", "reset", "stall", "garbage")
    faults = [Fault(after, ending) for ending in kinds for after in range(length)]
    return [dataclasses.replace(fault, garbage=GARBAGE) if fault.ending == "garbage" else fault for fault in faults]


# Every byte


def test_every_byte_of_a_connect_answer(proxy: ProxyServer, greeter: socket.socket) -> None:
    whole = ESTABLISHED + NEVER
    for fault in every(len(whole)):
        proxy.plan(fault)
        with dial(proxy) as client:
            client.sendall(connect_to(greeter))
            expected = whole[: fault.after] + (GARBAGE if fault.ending == "garbage" else b"")

            def hang_up(client: socket.socket = client) -> None:
                client.shutdown(socket.SHUT_WR)

            assert check(client, hang_up, fault, expected, proxy) == expected, fault
        proxy.wait_closed()
    # Where no byte was to be sent there was no answer, and no request either if the connection was to end.
    assert len(proxy.requests) == len(whole) * 4 - 2


@pytest.mark.parametrize("in_steps", [False, True])
def test_every_byte_of_the_socks_handshake(socks: SocksServer, greeter: socket.socket, in_steps: bool) -> None:
    whole = b"\5\2" + b"\1\0" + b"\5\0\0\1\x7f\0\0\1??" + NEVER[:5]
    said = socks_to(greeter)
    parts = [(said[:3], 2), (said[3:10], 2), (said[10:], 10)] if in_steps else [(said, 0)]
    for fault in every(len(whole)):
        socks.plan(fault)
        with dial(socks) as client:
            got = b""
            for part, answer in parts:
                client.sendall(part)
                room = fault.after - len(got) - answer
                if room < 0 or (room == 0 and fault.ending == "reset") or not in_steps:
                    break
                got += read_exactly(client, answer)
            expected = whole[: fault.after] + (GARBAGE if fault.ending == "garbage" else b"")

            def hang_up(client: socket.socket = client) -> None:
                client.shutdown(socket.SHUT_WR)

            got += check(client, hang_up, fault, expected[len(got) :], socks)
            shown = got if fault.ending == "garbage" and fault.after < 14 else bound_apart(got)
            kept = shown[: min(fault.after, 12)]
            assert (len(got), kept) == (len(expected), expected[: len(kept)]), fault
            assert got[14 if fault.after > 14 else fault.after :] == expected[14 if fault.after > 14 else fault.after :]
        socks.wait_closed()


def test_every_byte_of_a_forwarded_reply(proxy: ProxyServer, target: socket.socket) -> None:
    def exchange(fault: Fault | None) -> bytes:
        proxy.plan(fault)
        with dial(proxy) as client:
            client.sendall(f"GET http://{origin(target)}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            if fault is None or fault.after:
                with accept(target) as upstream:
                    read_until(upstream, b"\r\n\r\n")
                    upstream.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
                    return read_reset(client) if fault and fault.ending == "reset" else read_all(client)
            return read_reset(client) if fault.ending == "reset" else read_all(client)

    whole = exchange(None)
    assert b"abc" in whole
    for fault in every(len(whole), "close", "reset"):
        assert exchange(fault) == whole[: fault.after], fault


def test_every_byte_inside_the_proxys_tls(
    tls_proxy: ProxyServer, greeter: socket.socket, trusting: ssl.SSLContext
) -> None:
    whole = ESTABLISHED + NEVER[:3]
    for fault in every(len(whole)):
        tls_proxy.plan(fault)
        with dial(tls_proxy) as below:
            client = TLSOver(below, trusting)
            client.sendall(connect_to(greeter))
            expected = whole[: fault.after] + (GARBAGE if fault.ending == "garbage" else b"")
            if fault.ending in ("stall", "garbage"):
                assert read_exactly(client, len(expected)) == expected
                wait_open(tls_proxy)
                below.shutdown(socket.SHUT_WR)
                with pytest.raises(ssl.SSLError):  # no more bytes, and no closing message
                    client.recv(1)
            else:
                got = read_reset(client) if fault.ending == "reset" else read_all(client)
                assert got == expected, fault
        tls_proxy.wait_closed()


@pytest.mark.parametrize("ending", ["close", "reset", "stall", "garbage"])
def test_bytes_on_the_wire_of_the_proxys_handshake(
    tls_proxy: ProxyServer, trusting: ssl.SSLContext, ending: Any
) -> None:
    hello = client_hello(trusting)
    with dial(tls_proxy) as client:
        client.sendall(hello)
        client.shutdown(socket.SHUT_WR)
        length = len(read_all(client))
    assert length > 500
    for after in [*range(12), *range(12, length - 20, 61)]:  # signatures may differ by some bytes in length
        fault = Fault(after, ending, raw=True)
        tls_proxy.plan(fault)
        with dial(tls_proxy) as client:
            client.sendall(hello)
            tail = fault.garbage if ending == "garbage" else b""

            def hang_up(client: socket.socket = client) -> None:
                client.shutdown(socket.SHUT_WR)

            got = check(client, hang_up, fault, b"?" * after + tail, tls_proxy)
            assert (len(got), got[after:]) == (after + len(tail), tail), after  # no alert, no closing message
            assert got[:3] == b"\x16\x03\x03"[:after] + tail[: max(0, 3 - after)]
        tls_proxy.wait_closed()
    assert tls_proxy.requests == []


def test_bytes_on_the_wire_after_the_proxys_handshake(
    tls_proxy: ProxyServer, greeter: socket.socket, trusting: ssl.SSLContext
) -> None:
    class Counting:
        """The stream below TLS, and how much came on it."""

        def __init__(self, sock: socket.socket) -> None:
            self.sock, self.count = sock, 0

        def recv(self, size: int) -> bytes:
            data = self.sock.recv(size)
            self.count += len(data)
            return data

        def sendall(self, data: bytes) -> None:
            self.sock.sendall(data)

    # A record's bytes do not count one by one above it: short of its last one, nothing of it arrives.
    tls_proxy.plan(Fault(6000, raw=True))
    with dial(tls_proxy) as sock:
        below = Counting(sock)
        client = TLSOver(below, trusting)
        client.sendall(connect_to(greeter))
        assert read_until(client, NEVER) == ESTABLISHED + NEVER
        assert len(ESTABLISHED + NEVER) < below.count < 6000
    tls_proxy.plan(Fault(below.count - 20, "close", raw=True))  # signatures may differ by some bytes in length
    with dial(tls_proxy) as sock:
        below = Counting(sock)
        client = TLSOver(below, trusting)
        client.sendall(connect_to(greeter))
        assert read_exactly(client, len(ESTABLISHED)) == ESTABLISHED
        with pytest.raises(ssl.SSLError):  # the end without a closing message
            client.recv(1)


def test_tls_in_a_tunnel_is_just_bytes(proxy: ProxyServer, tls_server: ChatServer, trusting: ssl.SSLContext) -> None:
    for raw in (False, True):
        for after in (0, 1, 5, 100, 700):
            proxy.plan(Fault(len(ESTABLISHED) + after, raw=raw))
            with dial(proxy) as client:
                client.sendall(f"CONNECT 127.0.0.1:{tls_server.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert read_exactly(client, len(ESTABLISHED)) == ESTABLISHED
                if after:
                    client.sendall(client_hello(trusting))
                assert len(read_all(client)) == after


# One write or many, few bytes or many


class Exchange(NamedTuple):
    client: socket.socket
    upstream: socket.socket


@pytest.fixture
def tunnel(proxy: ProxyServer, target: socket.socket) -> Iterator[Callable[[Fault], Exchange]]:
    """Open a tunnel on which a fault is planned, beyond the answer to CONNECT."""
    opened: list[socket.socket] = []

    def make(fault: Fault) -> Exchange:
        proxy.plan(dataclasses.replace(fault, after=len(ESTABLISHED) + fault.after))
        client = dial(proxy)
        client.sendall(connect_to(target))
        upstream = accept(target)
        opened.extend((client, upstream))
        assert read_exactly(client, len(ESTABLISHED)) == ESTABLISHED
        return Exchange(client, upstream)

    yield make
    for sock in opened:
        sock.close()


@pytest.mark.parametrize("ending", ["close", "reset"])
@pytest.mark.parametrize("pieces", [[100], [50, 50], [49, 1, 50], [1] * 51, [51]])
def test_writes_that_span_the_limit(tunnel: Callable[[Fault], Exchange], ending: Any, pieces: list[int]) -> None:
    client, upstream = tunnel(Fault(50, ending))
    got = b""
    for size in pieces:
        upstream.sendall(b"x" * size)
        if len(got) + size < 50:
            got += read_exactly(client, size)
        else:
            break
    got += read_reset(client) if ending == "reset" else read_all(client)
    assert got == b"x" * 50


@pytest.mark.parametrize("ending", ["close", "reset", "stall", "garbage"])
def test_megabytes_arrive_before_the_end(tunnel: Callable[[Fault], Exchange], ending: Any) -> None:
    count = (3 << 20) + 1
    client, upstream = tunnel(Fault(count, ending))

    def send_more() -> None:
        try:
            upstream.sendall(b"x" * (count + 100_000))
        except ConnectionError:
            pass

    sender = threading.Thread(target=send_more)
    sender.start()
    if ending == "reset":
        assert len(read_reset(client)) == count
    elif ending == "close":
        assert len(read_all(client)) == count
    else:
        tail = Fault(0, "garbage").garbage if ending == "garbage" else b""
        assert read_exactly(client, count + len(tail)) == b"x" * count + tail
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
    sender.join()


def test_a_slow_client_gets_all_before_it_is_reset(tunnel: Callable[[Fault], Exchange], proxy: ProxyServer) -> None:
    count = 16 << 20  # more than the system holds for both
    client, upstream = tunnel(Fault(count, "reset"))
    sender = threading.Thread(target=upstream.sendall, args=(b"x" * count,))
    sender.start()
    with pytest.raises(TimeoutError):
        proxy.wait_closed(timeout=0.1)  # it waits
    assert len(read_reset(client)) == count
    sender.join()


# What the fault does to the rest


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("ending", ["stall", "garbage"])
def test_a_held_connection_outlives_the_target_until_the_client_goes(
    tunnel: Callable[[Fault], Exchange], proxy: ProxyServer, ending: Any, how: str
) -> None:
    client, upstream = tunnel(Fault(3, ending))
    upstream.sendall(b"abcdef")
    tail = Fault(0, ending).garbage if ending == "garbage" else b""
    assert read_exactly(client, 3 + len(tail)) == b"abc" + tail
    client.sendall(b"still handed on")
    assert read_exactly(upstream, 15) == b"still handed on"
    if how == "rst":
        kill(upstream)
        proxy.wait_until(lambda: proxy.open_targets == 0, "the end of the target's connection")
    else:
        upstream.close()
    assert proxy.open_connections == 1
    client.settimeout(0.01)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.close()
    proxy.wait_closed()


def test_the_target_is_told_when_the_client_of_a_stalled_connection_goes(proxy: ProxyServer) -> None:
    with ChatServer(pace=60) as chat:
        body = json.dumps({"stream": True}).encode()
        head = f"POST {chat.url}/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        proxy.plan(Fault(5, "stall"))
        with dial(proxy) as client:
            client.sendall(head.encode() + body)
            assert read_exactly(client, 5) == b"HTTP/"
            assert chat.wait_requests(1)[0].outcome == "pending"
            assert proxy.open_connections == 1
        assert chat.wait_outcome(0) == "client-closed"
        proxy.wait_closed()


def test_a_refusal_is_held_too(proxy: ProxyServer, socks: SocksServer) -> None:
    proxy.plan(Fault(4, "stall"))
    with dial(proxy) as client:
        client.sendall(b"CONNECT nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read_exactly(client, 4) == b"HTTP"
        (record,) = proxy.wait_requests(1)
        assert record.status == 400  # what it would have been
        client.sendall(b"more, and no HTTP\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
    socks.plan(Fault(2, "stall"))
    with dial(socks) as client:
        client.sendall(b"\5\1\2\1\0\0")
        assert read_exactly(client, 2) == b"\5\2"
        (refused,) = socks.wait_requests(1)
        assert not refused.authorized
        assert socks.open_connections == 1


@pytest.mark.parametrize("ending", ["stall", "garbage"])
def test_a_client_that_ended_its_direction_before_counts_as_gone(
    tunnel: Callable[[Fault], Exchange], proxy: ProxyServer, ending: Any
) -> None:
    client, upstream = tunnel(Fault(3, ending))
    client.shutdown(socket.SHUT_WR)
    assert read_all(upstream) == b""
    upstream.sendall(b"abcdef")
    tail = Fault(0, ending).garbage if ending == "garbage" else b""
    assert read_all(client) == b"abc" + tail
    proxy.wait_closed()


def test_a_connection_that_ends_before_does_not_fail(tunnel: Callable[[Fault], Exchange], proxy: ProxyServer) -> None:
    endings: Any = ("close", "reset", "stall", "garbage")
    for ending in endings:
        client, upstream = tunnel(Fault(4, ending))
        upstream.sendall(b"abc")
        upstream.close()
        assert read_all(client) == b"abc"
        client.close()
        proxy.wait_closed()


def test_garbage_waits_for_what_it_stands_for(tunnel: Callable[[Fault], Exchange]) -> None:
    client, upstream = tunnel(Fault(3, "garbage", garbage=GARBAGE))
    upstream.sendall(b"abc")
    assert read_exactly(client, 3) == b"abc"
    client.sendall(b"go on")
    assert read_exactly(upstream, 5) == b"go on"
    upstream.sendall(b"d")
    assert read_exactly(client, len(GARBAGE)) == GARBAGE


def test_a_client_that_keeps_sending_still_reads_the_end(
    tunnel: Callable[[Fault], Exchange],
) -> None:
    client, upstream = tunnel(Fault(3))
    upstream.sendall(b"abc")
    assert read_exactly(client, 3) == b"abc"
    for _ in range(100):  # RST in answer to these would come before FIN was read
        client.sendall(b"x" * 1000)
    assert client.recv(1) == b""


# Planning


def test_each_connection_takes_one(proxy: ProxyServer, socks: SocksServer, greeter: socket.socket) -> None:
    plan = (Fault(3), None, Fault(0), Fault(5, "reset"))
    for server, said, whole in (
        (proxy, connect_to(greeter), len(ESTABLISHED + NEVER)),
        (socks, socks_to(greeter), 14 + len(NEVER)),
    ):
        server.plan(*plan[:2])
        server.plan(*plan[2:])
        lengths = []
        for fault in (*plan, None):
            with dial(server) as client:
                client.sendall(said)
                if fault is None:
                    lengths.append(len(read_exactly(client, whole)))
                else:
                    lengths.append(len(read_reset(client) if fault.ending == "reset" else read_all(client)))
        assert lengths == [3, whole, 0, 5, whole]
        assert server.connections == 5
        assert [record.connection for record in server.wait_requests(4)] == [1, 2, 4, 5]


def test_stop_ends_what_a_fault_holds(
    greeter: socket.socket, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    for context, raw, said in ((None, False, connect_to(greeter)), (server_context, True, client_hello(trusting))):
        with ProxyServer(ssl_context=context) as proxy:
            proxy.plan(*[Fault(0, ending, raw=raw) for ending in ("stall", "garbage")])
            with dial(proxy) as stalled, dial(proxy) as puzzled:
                for client in (stalled, puzzled):
                    client.sendall(said)
                read_exactly(puzzled, len(Fault(0).garbage))
                proxy.stop()
                assert proxy.open_connections == 0
                assert read_all(puzzled) == b""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"after": -1}, "from 0 on, not -1"),
        ({"after": True}, "not True"),
        ({"after": 1.5}, "not 1.5"),
        ({"after": "3"}, "not '3'"),
        ({"ending": "explode"}, "close, reset, stall, garbage"),
        ({"ending": "garbage", "garbage": b""}, "ending='stall'"),
        ({"ending": "garbage", "garbage": "text"}, "not 'text'"),
        ({"garbage": b"x"}, "ending='garbage'"),
        ({"ending": "reset", "garbage": b"x"}, "would not be sent with ending='reset'"),
    ],
)
def test_contradictions(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fault(**{"after": 0, **fields})


def test_a_fault_is_a_value() -> None:
    assert Fault(3) == Fault(after=3, ending="close", raw=False)
    assert len({Fault(3), Fault(3), Fault(3, raw=True)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        Fault(3).after = 4  # type: ignore[misc]
