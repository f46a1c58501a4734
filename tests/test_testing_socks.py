"""`deltawire.testing.SocksServer`, on real sockets, message by message. Nothing here sleeps."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from by_hand import TLSOver, accept, dial, kill, listen, origin, read_all, read_exactly, read_reset, read_until
from driving import lasting_threads

from deltawire.testing import ChatServer, SocksServer

pytestmark = pytest.mark.usefixtures("_tidy")

HELLO, NO_PASSWORD, PASSWORD, NO_METHOD = b"\5\1\0", b"\5\0", b"\5\2", b"\5\xff"
NOWHERE = b"\0\1\0\0\0\0\0\0"  # the end of every reply but for success


@pytest.fixture
def socks() -> Iterator[SocksServer]:
    with SocksServer() as running:
        yield running
        running.wait_closed()


@pytest.fixture
def target() -> Iterator[socket.socket]:
    with listen() as listener:
        yield listener


def port_of(sock: socket.socket) -> bytes:
    port: int = sock.getsockname()[1]
    return port.to_bytes(2, "big")


def request(to: socket.socket | None = None, *, name: bytes | None = None, command: int = 1) -> bytes:
    """To a listening socket, by its address or by this name."""
    if to is None:
        kind, address, port = 1, bytes([127, 0, 0, 1]), b"\0\1"
    else:
        kind = 4 if to.family is socket.AF_INET6 else 1
        address, port = socket.inet_pton(to.family, to.getsockname()[0]), port_of(to)
    if name is not None:
        kind, address = 3, bytes([len(name)]) + name
    return bytes([5, command, 0, kind]) + address + port


def login(username: bytes, password: bytes) -> bytes:
    return b"\1" + bytes([len(username)]) + username + bytes([len(password)]) + password


def succeeded(upstream: socket.socket) -> bytes:
    """The reply when this is the target's end of the tunnel."""
    kind = b"\4" if upstream.family is socket.AF_INET6 else b"\1"
    host, port = upstream.getpeername()[:2]
    return b"\5\0\0" + kind + socket.inet_pton(upstream.family, host) + int(port).to_bytes(2, "big")


@contextmanager
def tunnel(
    socks: SocksServer, target: socket.socket, early: bytes = b"", name: bytes | None = None
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """An open tunnel: the client's socket and the target's. `early` is sent with the request."""
    with dial(socks) as client:
        client.sendall(HELLO)
        assert read_exactly(client, 2) == NO_PASSWORD
        client.sendall(request(target, name=name) + early)
        with accept(target) as upstream:
            expected = succeeded(upstream)
            assert read_exactly(client, len(expected)) == expected
            yield client, upstream


# The handshake


def test_by_address(socks: SocksServer, target: socket.socket) -> None:
    assert socks.url == socks.address == f"socks5://127.0.0.1:{socks.port}"
    assert socks.remote_url == f"socks5h://127.0.0.1:{socks.port}"
    with tunnel(socks, target) as (client, upstream):
        client.sendall(b"up")
        assert read_exactly(upstream, 2) == b"up"
        upstream.sendall(b"down")
        assert read_exactly(client, 4) == b"down"
        (record,) = socks.wait_requests(1)
        assert (record.method, record.target, record.headers) == ("CONNECT", origin(target), [])
        assert (record.authorized, record.status, record.connection) == (True, 0, 1)
        assert (socks.connections, socks.open_connections) == (1, 1)


@pytest.mark.parametrize("name", [b"localhost", b"127.0.0.1", b"LocalHost"])
def test_by_name(socks: SocksServer, target: socket.socket, name: bytes) -> None:
    with tunnel(socks, target, name=name):
        pass
    assert socks.requests[0].target == f"{name.decode()}:{target.getsockname()[1]}"


def test_by_ipv6_address(socks: SocksServer) -> None:
    with listen("::1") as target:
        with tunnel(socks, target) as (client, upstream):
            client.sendall(b"up")
            assert read_exactly(upstream, 2) == b"up"
        assert socks.requests[0].target == f"[::1]:{target.getsockname()[1]}"


def test_on_ipv6() -> None:
    with SocksServer(host="::1") as socks, listen() as target:
        assert socks.remote_url == f"socks5h://[::1]:{socks.port}"
        with tunnel(socks, target):
            pass


def test_byte_by_byte(target: socket.socket) -> None:
    with SocksServer(username="me", password="pw") as socks, dial(socks) as client:
        whole = b"\5\2\0\2" + login(b"me", b"pw") + request(target, name=b"localhost") + b"early"
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(whole)):
            client.sendall(whole[at : at + 1])
        with accept(target) as upstream:
            assert read_exactly(upstream, 5) == b"early"
            assert read_exactly(client, 14) == PASSWORD + b"\1\0" + succeeded(upstream)


def test_all_at_once_and_early_bytes(target: socket.socket) -> None:
    with SocksServer(username="me", password="pw") as socks, dial(socks) as client:
        client.sendall(b"\5\1\2" + login(b"me", b"pw") + request(target) + b"early")
        with accept(target) as upstream:
            assert read_exactly(upstream, 5) == b"early"
            upstream.sendall(b"first")
            assert read_exactly(client, 19) == PASSWORD + b"\1\0" + succeeded(upstream) + b"first"


@pytest.mark.parametrize("methods", [b"\0", b"\1\0", b"\2\0\x80", bytes(range(255))])
def test_the_method_is_found_among_others(socks: SocksServer, methods: bytes) -> None:
    with dial(socks) as client:
        client.sendall(b"\5" + bytes([len(methods)]) + methods)
        assert read_exactly(client, 2) == NO_PASSWORD


# Refusals


@pytest.mark.parametrize("methods", [b"", b"\2", b"\1\x80", b"\xff"])
def test_no_method_will_do(socks: SocksServer, methods: bytes) -> None:
    with dial(socks) as client:
        client.sendall(b"\5" + bytes([len(methods)]) + methods + request())
        assert read_all(client) == NO_METHOD
    (record,) = socks.wait_requests(1)
    assert (record.method, record.target, record.authorized, record.status) == ("CONNECT", "", False, None)


@pytest.mark.parametrize("hello", [HELLO, b"\5\2\0\1"])
def test_a_password_is_wanted(hello: bytes) -> None:
    with SocksServer(password="pw") as socks, dial(socks) as client:
        client.sendall(hello)
        assert read_all(client) == NO_METHOD
        assert [record.authorized for record in socks.requests] == [False]


@pytest.mark.parametrize(
    ("username", "password"),
    [("me", "pw"), ("us er", "p:ä@/%"), ("a:b", "\0\r\n\x7f"), ("日本", "🔑"), ("x" * 255, "ü" * 127), ("", "pw")],
)
def test_credentials(target: socket.socket, username: str, password: str) -> None:
    right = (username.encode(), password.encode())
    wrong = [(b"", b""), (right[0], b"no"), (b"no", right[1]), (right[0], b""), (right[0], right[1] + b" ")]
    with SocksServer(username=username, password=password) as socks:
        for given in [*wrong, tuple(reversed(right))]:
            with dial(socks) as client:
                client.sendall(b"\5\1\2" + login(*given) + request(target))
                assert read_all(client) == PASSWORD + b"\1\1"
        with dial(socks) as client:
            client.sendall(b"\5\1\2" + login(*right) + request(target))
            with accept(target) as upstream:
                assert read_exactly(client, 14) == PASSWORD + b"\1\0" + succeeded(upstream)
        assert [record.authorized for record in socks.requests] == [False] * 6 + [True]
        assert [record.status for record in socks.requests] == [None] * 6 + [0]
        for shown in (repr(socks), repr(socks.requests)):
            assert password not in shown or password == "pw"


def test_credentials_in_the_url() -> None:
    with SocksServer(username="us er", password="p:ä@/") as socks:
        assert socks.url == f"socks5://us%20er:p%3A%C3%A4%40%2F@127.0.0.1:{socks.port}"
        assert socks.remote_url == socks.url.replace("socks5:", "socks5h:")
        assert socks.address == f"socks5://127.0.0.1:{socks.port}"
        assert "ä" not in repr(socks)
    with pytest.raises(ValueError, match="username is longer than the 255 bytes"):
        SocksServer(username="ü" * 128)
    with pytest.raises(ValueError, match="password is longer than the 255 bytes"):
        SocksServer(password="x" * 256)
    with pytest.raises(ValueError, match="password holds half a character"):
        SocksServer(password="\ud800")


def test_a_login_of_another_version() -> None:
    with SocksServer(password="pw") as socks, dial(socks) as client:
        client.sendall(b"\5\1\2\5")
        assert read_all(client) == PASSWORD + b"\1\1"
        assert socks.requests[0].authorized is False


@pytest.mark.parametrize("said", [b"\4\1\0\x50\x7f\0\0\1\0", b"GET http://x/ HTTP/1.1\r\n\r\n", HELLO + b"\4"])
def test_what_is_no_socks5_gets_no_answer(socks: SocksServer, said: bytes) -> None:
    with dial(socks) as client:
        client.sendall(said)
        assert read_all(client) == (NO_PASSWORD if said.startswith(HELLO) else b"")
    socks.wait_closed()
    assert socks.requests == []


@pytest.mark.parametrize(("command", "method"), [(2, "BIND"), (3, "UDP ASSOCIATE"), (0, "command 0")])
def test_other_commands(socks: SocksServer, command: int, method: str) -> None:
    with dial(socks) as client:
        client.sendall(HELLO + request(command=command) + b"more")
        assert read_all(client) == NO_PASSWORD + b"\5\7" + NOWHERE
    (record,) = socks.requests
    assert (record.method, record.target, record.status) == (method, "127.0.0.1:1", 7)


@pytest.mark.parametrize("kind", [0, 2, 5, 255])
def test_other_types_of_address(socks: SocksServer, kind: int) -> None:
    with dial(socks) as client:
        client.sendall(HELLO + b"\5\1\0" + bytes([kind]) + b"\1\2\3\4\5\6")
        assert read_all(client) == NO_PASSWORD + b"\5\x08" + NOWHERE
    (record,) = socks.requests
    assert (record.target, record.authorized, record.status) == ("", True, 8)


@pytest.mark.parametrize("name", [b"127.0.0.1", b"localhost", None])
def test_a_target_that_refuses(socks: SocksServer, name: bytes | None) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # bound, but nobody listens
        with dial(socks) as client:
            client.sendall(HELLO + request(unheard, name=name))
            assert read_all(client) == NO_PASSWORD + b"\5\5" + NOWHERE
    assert socks.requests[0].status == 5


@pytest.mark.parametrize("name", [b"", b"a\0b", b"x" * 200, b"\xff\xfe", b"a..b", b"nowhere.invalid"])
def test_names_that_nobody_has(socks: SocksServer, name: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with dial(socks) as client:
        if name.endswith(b".invalid"):  # not to ask anybody
            monkeypatch.setattr(socket, "getaddrinfo", unknown)
        client.sendall(HELLO + request(name=name))
        assert read_all(client) == NO_PASSWORD + b"\5\4" + NOWHERE
    assert socks.requests[0].target == name.decode("utf-8", "backslashreplace") + ":1"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENETUNREACH, "Network is unreachable"), 3),
        (OSError(errno.EHOSTUNREACH, "No route to host"), 4),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), 5),
        (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), 1),
        (PermissionError(errno.EACCES, "Permission denied"), 1),
        (OSError("no number"), 1),
    ],
)
def test_reply_codes(socks: SocksServer, monkeypatch: pytest.MonkeyPatch, error: OSError, code: int) -> None:
    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(asyncio.SelectorEventLoop, "create_connection", fail)
    with dial(socks) as client:
        client.sendall(HELLO + request())
        assert read_all(client) == NO_PASSWORD + b"\5" + bytes([code]) + NOWHERE
    assert socks.requests[0].status == code


def test_refuse(socks: SocksServer, target: socket.socket) -> None:
    for code in (1, 2, 9, 255):
        socks.refuse(code)
        with dial(socks) as client:
            client.sendall(HELLO + request(target))
            assert read_all(client) == NO_PASSWORD + b"\5" + bytes([code]) + NOWHERE
    socks.refuse(None)
    with tunnel(socks, target):
        pass
    assert [record.status for record in socks.requests] == [1, 2, 9, 255, 0]
    for wrong in (0, 256, -1):
        with pytest.raises(ValueError, match="1 to 255"):
            socks.refuse(wrong)


# Tunnels


def test_tunnel_passes_each_end_on(socks: SocksServer, target: socket.socket) -> None:
    with tunnel(socks, target, early=b"early") as (client, upstream):
        assert read_until(upstream, b"early") == b"early"
        client.shutdown(socket.SHUT_WR)
        assert read_all(upstream) == b""
        upstream.sendall(b"still")  # the other direction is open yet
        assert read_until(client, b"still") == b"still"
        upstream.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
        socks.wait_closed()


@pytest.mark.parametrize("who", ["client", "target"])
def test_tunnel_reset(socks: SocksServer, target: socket.socket, who: str) -> None:
    with tunnel(socks, target) as (client, upstream):
        dying, other = (client, upstream) if who == "client" else (upstream, client)
        kill(dying)
        assert read_reset(other) == b""


def test_tunnel_carries_megabytes_with_back_pressure(socks: SocksServer, target: socket.socket) -> None:
    data = bytes(range(256)) * (64 << 10)
    with tunnel(socks, target) as (client, upstream):

        def send_all() -> None:
            upstream.sendall(data)
            upstream.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send_all)
        sender.start()
        assert read_all(client) == data
        sender.join()


def test_tls_in_a_tunnel(socks: SocksServer, tls_server: ChatServer, trusting: ssl.SSLContext) -> None:
    with dial(socks) as client:
        client.sendall(HELLO + b"\5\1\0\3\x09localhost" + tls_server.port.to_bytes(2, "big"))
        read_exactly(client, 12)
        inner = TLSOver(client, trusting, "localhost")
        inner.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read_all(inner).startswith(b"HTTP/1.1 200 OK\r\n")


# Starting and stopping


def test_a_client_that_goes_midway(socks: SocksServer) -> None:
    for said in (b"", b"\5", HELLO, HELLO + b"\5\1\0\3\xff"):
        with dial(socks) as client:
            client.sendall(said)
        socks.wait_closed()
    assert socks.requests == []


def test_start_and_stop_may_be_repeated(target: socket.socket) -> None:
    socks = SocksServer()
    for property_name in ("url", "address", "remote_url"):
        with pytest.raises(RuntimeError, match="start"):
            getattr(socks, property_name)
    assert repr(socks) == "<SocksServer stopped, 0 requests>"
    with socks.start(), tunnel(socks, target) as (client, upstream):
        socks.stop()
        assert socks.open_connections == 0
        for sock in (client, upstream):
            assert sock.recv(1) == b""
    with socks, tunnel(socks, target):
        assert [record.connection for record in socks.requests] == [1, 2]
    assert lasting_threads() == [threading.main_thread()]
