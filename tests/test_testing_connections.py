"""Connections to the test servers that fail before there is a request, or are refused."""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asking import CHAT, ask, exchange
from by_hand import dial, read_all, read_reset, read_until
from driving import lasting_threads

from deltawire.testing import Answer, ChatServer, Fault, ProxyServer, SocksServer

REQUEST = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode()

each_service = pytest.mark.parametrize("service", [ChatServer, ProxyServer, SocksServer])
Made = Callable[[], "ChatServer | ProxyServer | SocksServer"]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running
        running.wait_closed()


# Faults


def test_faults_of_a_chat_server_count_its_bytes(server: ChatServer) -> None:
    server.plan(Answer(json={}), Answer(json={}), Answer(json={}))
    server.plan_faults(None, Fault(20), Fault(5, "reset"), Fault(0, "reset"))
    with dial(server) as sock:
        sock.sendall(REQUEST)
        assert read_until(sock, b"{}").startswith(b"HTTP/1.1 200 OK")
    assert exchange(server, REQUEST) == b"HTTP/1.1 200 OK\r\nconn"[:15] + b"\r\ncon"
    for expected in (b"HTTP/", b""):
        with dial(server) as sock:
            sock.sendall(REQUEST)
            assert read_reset(sock) == expected
    assert len(server.requests) == 3  # the last fault swallowed its own
    assert server.connections == 4


@each_service
def test_a_connection_that_ends_as_soon_as_it_is_accepted(service: Made) -> None:
    with service() as server:
        server.plan_faults(Fault(0, "reset", at_accept=True), Fault(0, at_accept=True))
        with pytest.raises(ConnectionResetError), dial(server) as sock:  # it may be heard of while connecting
            sock.recv(1)
        with dial(server) as sock:
            assert read_all(sock) == b""
        server.wait_closed()
        assert server.connections == 2
        assert server.requests == []


@pytest.mark.parametrize("raw", [False, True])
def test_the_same_before_tls(server_context: ssl.SSLContext, raw: bool) -> None:
    with ChatServer(ssl_context=server_context) as server:
        server.plan_faults(Fault(0, at_accept=True, raw=raw), Fault(0, "reset", at_accept=True, raw=raw))
        with dial(server) as sock:
            assert read_all(sock) == b""
        # (No handshake on this side: on Python 3.10 ssl leaves a socket open that is reset before it.)
        with pytest.raises(ConnectionResetError), dial(server) as sock:
            sock.recv(1)
        server.wait_closed()


def test_what_no_connection_took_is_forgotten(server: ChatServer) -> None:
    server.plan_faults(Fault(0), None, Fault(3))
    assert exchange(server, REQUEST) == b""
    assert server.clear_faults() == 2
    assert server.clear_faults() == 0
    assert ask(server)[0] == 200


@pytest.mark.parametrize("fields", [{"after": 1}, {"ending": "stall"}, {"ending": "garbage"}])
def test_only_an_end_can_come_at_accept(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"Fault\(0, 'reset'"):
        Fault(**{"after": 0, "at_accept": True, **fields})  # type: ignore[arg-type]


# Refusals


@each_service
def test_connections_are_refused_for_a_while(service: Made) -> None:
    with service() as server:
        port = server.port
        with dial(server) as before:
            with server.refuse_connections():
                for _ in range(3):
                    with pytest.raises(ConnectionRefusedError):
                        dial(server)
                with socket.socket() as other, pytest.raises(OSError):  # it is ours all the while
                    other.bind(("127.0.0.1", port))
                server.wait_connections(1)
                assert server.open_connections == 1
                with pytest.raises(RuntimeError, match="already"), server.refuse_connections():
                    pass
            before.close()
            with dial(server):
                server.wait_connections(2)
        assert (server.connections, server.port) == (2, port)
        server.wait_closed()


def test_who_came_before_is_not_refused(server: ChatServer) -> None:
    for _ in range(20):
        with dial(server) as sock, server.refuse_connections():
            sock.sendall(REQUEST)
            assert read_until(sock, b'"chat.completion"')
    assert ask(server)[0] == 200


def test_a_server_may_be_stopped_while_it_refuses() -> None:
    with ChatServer() as server, server.refuse_connections():
        port = server.port
        server.stop()
        socket.create_server(("127.0.0.1", port)).close()  # it gave the port back
    with ChatServer() as server:
        with server.refuse_connections():
            server.stop()
            server.start()
            assert ask(server)[0] == 200
        assert ask(server)[0] == 200
    with pytest.raises(RuntimeError, match="start"), server.refuse_connections():
        pass
    assert lasting_threads() == [threading.main_thread()]


def test_ipv6() -> None:
    with ChatServer(host="::1") as server:
        with server.refuse_connections(), pytest.raises(ConnectionRefusedError):
            dial(server)
        with dial(server) as sock:
            sock.sendall(REQUEST)
            assert read_until(sock, b"fp_deltawire")
        assert server.site_url == f"http://[::1]:{server.port}"


def test_a_port_that_was_taken_meanwhile(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*arguments: object) -> socket.socket:
        raise OSError("Address already in use")

    monkeypatch.setattr(socket.socket, "bind", taken)
    with pytest.raises(OSError, match="in use"), server.refuse_connections():
        pass
    with pytest.raises(ConnectionRefusedError):
        dial(server)


def test_it_accepts_again_when_the_system_has_descriptors_again(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors = [OSError(errno.EMFILE, "Too many open files")]
    accept = socket.socket.accept

    def scarce(self: socket.socket) -> Any:
        if errors:
            raise errors.pop()
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", scarce)
    monkeypatch.setattr("deltawire.testing._acceptor._ACCEPT_AGAIN", 0.0)
    assert ask(server)[0] == 200
    assert "<ChatServer" in caplog.text
    assert "cannot accept" in caplog.text


# Waiting


def test_waiting_for_connections_and_anything_else(server: ChatServer) -> None:
    with pytest.raises(TimeoutError, match=r"waited 0\.01 s for 1 connections\. 0 requests so far"):
        server.wait_connections(1, timeout=0.01)
    with pytest.raises(TimeoutError, match=r"for a miracle\. 0 requests"):
        server.wait_until(lambda: False, "a miracle", timeout=0.01)
    with dial(server) as sock:
        server.wait_connections(1)
        assert (server.connections, server.open_connections) == (1, 1)
        server.plan(Answer(cut_after=0, ending="stall"))
        sock.sendall(REQUEST)
        server.wait_until(lambda: [each.outcome for each in server.requests] == ["stalled"])


def test_a_proxys_connections_to_targets(server: ChatServer) -> None:
    with ProxyServer() as proxy:
        assert proxy.open_targets == 0
        with dial(proxy) as sock:
            sock.sendall(f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            read_until(sock, b"\r\n\r\n")
            assert (proxy.open_connections, proxy.open_targets) == (1, 1)
        proxy.wait_closed()
        assert proxy.open_targets == 0
