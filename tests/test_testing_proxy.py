"""`deltawire.testing.ProxyServer`, on real sockets. Nothing here sleeps: every wait is for an event."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
import trustme
from by_hand import (
    RST,
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
from driving import lasting_threads

from deltawire.testing import Answer, ChatServer, ProxyServer


@pytest.fixture
def proxy() -> Iterator[ProxyServer]:
    with ProxyServer() as running:
        yield running
        running.wait_closed()


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


@pytest.fixture
def target() -> Iterator[socket.socket]:
    """A listening socket, to be the target by hand."""
    with listen() as listener:
        yield listener


def ask(proxy: ProxyServer, url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    with closing(http.client.HTTPConnection(proxy.host, proxy.port, timeout=5)) as client:
        client.request("GET", url, headers={name.replace("_", "-"): value for name, value in headers.items()})
        reply = client.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read()


@contextmanager
def forwarded(
    proxy: ProxyServer, target: socket.socket, version: str = "1.1"
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A GET that has reached the target: the client's socket and the target's."""
    with dial(proxy) as client:
        client.sendall(f"GET http://{origin(target)}/ HTTP/{version}\r\nHost: x\r\n\r\n".encode())
        with accept(target) as upstream:
            read_until(upstream, b"\r\n\r\n")
            yield client, upstream


@contextmanager
def tunnel(
    proxy: ProxyServer, target: socket.socket, early: bytes = b""
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """An open tunnel: the client's socket and the target's. `early` is sent with the request."""
    with dial(proxy) as client:
        client.sendall(f"CONNECT {origin(target)} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + early)
        with accept(target) as upstream:
            assert read_until(client, b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
            yield client, upstream


# Forwarding


def test_forwards_and_records(proxy: ProxyServer, chat: ChatServer) -> None:
    assert proxy.url == proxy.address == f"http://127.0.0.1:{proxy.port}"
    status, headers, body = ask(proxy, chat.url + "/models?x=1")
    assert (status, headers["via"]) == (200, "1.1 deltawire-testing")
    assert json.loads(body)["data"]
    (record,) = proxy.wait_requests(1)
    assert (record.method, record.target) == ("GET", chat.url + "/models?x=1")
    assert (record.authorized, record.status, record.connection) == (True, 200, 1)
    (received,) = chat.requests
    assert received.target == "/v1/models?x=1"
    assert received.header("via") == "1.1 deltawire-testing"
    assert received.header("host") == f"127.0.0.1:{chat.port}"


def test_hop_by_hop_fields_stay_here(proxy: ProxyServer, target: socket.socket) -> None:
    with dial(proxy) as client:
        client.sendall(
            f"POST http://u:secret@{origin(target)}?q#f HTTP/1.1\r\nHost: wrong\r\nX-Keep: 1\r\n"
            "Connection: X-Mine, keep-alive\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\n"
            "Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic c2VjcmV0\r\n"
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n".encode()
        )
        with accept(target) as upstream:
            got = read_until(upstream, b"abc\r\n")  # though the request is not complete
            head = got.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
            assert head[0] == b"post /?q http/1.1"
            assert sorted(head[1:]) == sorted(
                [
                    b"host: " + origin(target).encode(),
                    b"x-keep: 1",
                    b"transfer-encoding: chunked",
                    b"via: 1.1 deltawire-testing",
                    b"connection: close",
                ]
            )
            client.sendall(b"0\r\n\r\n")
            read_until(upstream, b"0\r\n\r\n")
            upstream.sendall(
                b"HTTP/1.1 201 Made\r\nConnection: X-Hop\r\nX-Hop: 1\r\nProxy-Authenticate: x\r\n"
                b"X-End: 1\r\nContent-Length: 2\r\n\r\nok"
            )
            reply = read_until(client, b"ok").lower()
            assert reply.startswith(b"http/1.1 201 made\r\n")
            assert b"x-end: 1" in reply
            assert b"via: 1.1 deltawire-testing" in reply
            assert b"hop" not in reply
            assert b"proxy-auth" not in reply
    (record,) = proxy.requests
    assert record.target == f"http://***@{origin(target)}?q#f"
    assert (b"proxy-authorization", b"***") in record.headers
    assert "secret" not in repr(record)
    assert "c2VjcmV0" not in repr(record.headers)


def test_each_piece_is_forwarded_at_once(proxy: ProxyServer, target: socket.socket) -> None:
    with forwarded(proxy, target) as (client, upstream):
        upstream.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        read_until(client, b"\r\n\r\n")
        for piece in (b"one", b"two", b"three"):  # the next is sent when the last has arrived
            upstream.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            read_until(client, piece)
        upstream.sendall(b"0\r\n\r\n")
        read_until(client, b"0\r\n\r\n")
        assert proxy.open_connections == 1


def test_keep_alive_and_pipelining(proxy: ProxyServer, chat: ChatServer) -> None:
    request = f"GET {chat.url}/models HTTP/1.1\r\nHost: x\r\n".encode()
    with dial(proxy) as client:
        client.sendall((request + b"\r\n") * 2 + request + b"Connection: close\r\n\r\n")
        assert read_all(client).count(b"HTTP/1.1 200 OK") == 3
    assert [record.connection for record in proxy.requests] == [1, 1, 1]


def test_large_bodies_both_ways(proxy: ProxyServer, chat: ChatServer) -> None:
    body = json.dumps({"messages": [{"content": "x" * (8 << 20)}]})
    answer = b"y" * (8 << 20)
    chat.plan(Answer(body=answer))
    with closing(http.client.HTTPConnection(proxy.host, proxy.port, timeout=10)) as client:
        client.request("POST", chat.url + "/chat/completions", body)
        assert client.getresponse().read() == answer
    assert chat.requests[0].body == body.encode()


def test_expect_100_continue_is_the_targets_business(proxy: ProxyServer, chat: ChatServer) -> None:
    with dial(proxy) as client:
        head = f"POST {chat.url}/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        client.sendall(f"{head}Content-Length: 2\r\n\r\n".encode())
        assert b" 100 Continue" in read_until(client, b"\r\n\r\n")
        client.sendall(b"{}")
        assert b" 200 OK" in read_until(client, b"chat.completion")


def test_a_reply_before_the_end_of_the_request(proxy: ProxyServer, target: socket.socket) -> None:
    with dial(proxy) as client:
        client.sendall(f"POST http://{origin(target)}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n".encode())
        with accept(target) as upstream:
            read_until(upstream, b"\r\n\r\n")
            upstream.sendall(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
            assert read_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 413 No")
        client.sendall(b"too late.")
        assert read_all(client) == b""


def test_replies_without_a_body(proxy: ProxyServer, target: socket.socket) -> None:
    with dial(proxy) as client:
        for method, head in ((b"HEAD", b"200 OK\r\nContent-Length: 9"), (b"GET", b"304 Not Modified")):
            client.sendall(b"%s http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n" % (method, origin(target).encode()))
            with accept(target) as upstream:
                read_until(upstream, b"\r\n\r\n")
                upstream.sendall(b"HTTP/1.1 %s\r\n\r\n" % head)
                assert read_until(client, b"\r\n\r\n").endswith(b"\r\n\r\n")


# Ends


@pytest.mark.parametrize("head", [b"Content-Length: 9\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"])
def test_a_truncated_reply_stays_truncated(proxy: ProxyServer, target: socket.socket, head: bytes) -> None:
    with forwarded(proxy, target) as (client, upstream):
        upstream.sendall(b"HTTP/1.1 200 OK\r\n" + head)
        upstream.shutdown(socket.SHUT_WR)
        got = read_all(client)
        assert b"abc" in got
        assert not got.endswith(b"0\r\n\r\n")


def test_a_truncated_reply_to_http_1_0_is_a_reset(proxy: ProxyServer, target: socket.socket) -> None:
    with forwarded(proxy, target, "1.0") as (client, upstream):
        upstream.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        got = read_until(client, b"abc")
        assert b"chunked" not in got
        upstream.close()
        read_reset(client)


def test_a_reply_delimited_by_close_stays_one(proxy: ProxyServer, target: socket.socket) -> None:
    with forwarded(proxy, target) as (client, upstream):
        upstream.sendall(b"HTTP/1.1 200 Fine\r\nX-A: b\r\n\r\nabc")
        got = read_until(client, b"abc")
        assert got.startswith(b"HTTP/1.1 200 Fine\r\n")
        assert b"chunked" not in got
        upstream.close()
        assert read_all(client) == b""


@pytest.mark.parametrize(
    "begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", b"HTTP/1.1 200 OK\r\n\r\nabc"]
)
def test_a_reset_is_passed_on(proxy: ProxyServer, target: socket.socket, begun: bytes) -> None:
    with forwarded(proxy, target) as (client, upstream):
        if begun:
            upstream.sendall(begun)
            read_until(client, b"abc")
        upstream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        upstream.close()
        read_reset(client)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 20", b"no http\r\n\r\n"])
def test_a_target_that_makes_no_sense_gets_no_answer_made_up(
    proxy: ProxyServer, target: socket.socket, said: bytes
) -> None:
    with forwarded(proxy, target) as (client, upstream):
        upstream.sendall(said)
        upstream.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
    assert proxy.requests[0].status is None


@pytest.mark.parametrize("linger", [None, RST])
def test_when_the_client_goes_so_does_the_target(proxy: ProxyServer, linger: bytes | None) -> None:
    with ChatServer(pace=60) as chat:
        with dial(proxy) as client:
            body = b'{"stream": true}'
            client.sendall(f"POST {chat.url}/chat/completions HTTP/1.1\r\nHost: x\r\n".encode())
            client.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            read_until(client, b'"The"')
            if linger:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        assert chat.wait_outcome(0) == "client-closed"
        proxy.wait_closed()


# Tunnels


def test_tunnel(proxy: ProxyServer, target: socket.socket) -> None:
    with tunnel(proxy, target, early=b"early") as (client, upstream):
        assert read_until(upstream, b"early") == b"early"
        upstream.sendall(b"down")
        assert read_until(client, b"down") == b"down"
        client.shutdown(socket.SHUT_WR)
        assert read_all(upstream) == b""
        upstream.sendall(b"still")  # the other direction is open yet
        assert read_until(client, b"still") == b"still"
        upstream.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
        proxy.wait_closed()
    (record,) = proxy.requests
    assert (record.method, record.target, record.status) == ("CONNECT", origin(target), 200)


def test_tunnel_half_closed_by_the_target(proxy: ProxyServer, target: socket.socket) -> None:
    with tunnel(proxy, target) as (client, upstream):
        upstream.sendall(b"bye")
        upstream.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"bye"
        client.sendall(b"so long")
        client.shutdown(socket.SHUT_WR)
        assert read_all(upstream) == b"so long"


@pytest.mark.parametrize("who", ["client", "target"])
def test_tunnel_reset(proxy: ProxyServer, target: socket.socket, who: str) -> None:
    with tunnel(proxy, target) as (client, upstream):
        dying, other = (client, upstream) if who == "client" else (upstream, client)
        dying.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        dying.close()
        read_reset(other)


def test_tunnel_carries_megabytes_with_back_pressure(proxy: ProxyServer, target: socket.socket) -> None:
    data = bytes(range(256)) * (64 << 10)
    with tunnel(proxy, target) as (client, upstream):

        def send_all() -> None:
            upstream.sendall(data)
            upstream.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send_all)
        sender.start()
        assert read_all(client) == data
        sender.join()


def test_target_speaks_first(proxy: ProxyServer, target: socket.socket) -> None:
    with dial(proxy) as client:
        client.sendall(f"CONNECT {origin(target)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        with accept(target) as upstream:
            upstream.sendall(b"220 hello\r\n")
            upstream.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"HTTP/1.1 200 Connection established\r\n\r\n220 hello\r\n"


# Refusals


def test_credentials(chat: ChatServer) -> None:
    with ProxyServer(username="us er", password="p:ä@/") as proxy:
        assert proxy.url == f"http://us%20er:p%3A%C3%A4%40%2F@127.0.0.1:{proxy.port}"
        assert proxy.address == f"http://127.0.0.1:{proxy.port}"
        right = base64.b64encode("us er:p:ä@/".encode()).decode()
        wrong = base64.b64encode(b"us er:p").decode()
        for given in ("", f"Basic {wrong}", f"Bearer {right}", "Basic ?"):
            status, headers, body = ask(proxy, chat.url + "/models", Proxy_Authorization=given)
            assert (status, headers["proxy-authenticate"]) == (407, 'Basic realm="deltawire"')
            assert body == b"Proxy Authentication Required\n"
        assert ask(proxy, chat.url + "/models", Proxy_Authorization=f"basic {right}")[0] == 200
        assert chat.requests[0].header("proxy-authorization") is None
        assert [record.authorized for record in proxy.requests] == [False] * 4 + [True]
        for shown in (repr(proxy), repr(proxy.requests), repr([r.headers for r in proxy.requests])):
            assert "ä" not in shown
            assert right not in shown
        with pytest.raises(TimeoutError) as caught:
            proxy.wait_requests(9, timeout=0.01)
        assert "not authorized" in str(caught.value)
        assert right not in str(caught.value)
    with pytest.raises(ValueError, match="colon"):
        ProxyServer(username="a:b")


@pytest.mark.parametrize(("username", "password"), [("", "pw"), ("日本", "🔑"), ("me", "a:b\0\r\n\x7f"), ("me", "")])
def test_any_characters_make_a_password(chat: ChatServer, username: str, password: str) -> None:
    right = base64.b64encode(f"{username}:{password}".encode()).decode()
    nearly = [f"{username}:{password} ", f"{username}{password}", password, username]
    with ProxyServer(username=username, password=password) as proxy:
        for given in nearly:
            token = base64.b64encode(given.encode()).decode()
            assert ask(proxy, chat.url + "/models", Proxy_Authorization=f"Basic {token}")[0] == 407
        assert ask(proxy, chat.url + "/models", Proxy_Authorization=f"Basic {right}")[0] == 200


def test_refused_connect_and_then_another_try(chat: ChatServer) -> None:
    token = base64.b64encode(b":pw").decode()
    with ProxyServer(password="pw") as proxy, dial(proxy) as client:
        connect = f"CONNECT 127.0.0.1:{chat.port} HTTP/1.1\r\nHost: x\r\n"
        client.sendall(f"{connect}\r\n".encode())
        assert b" 407 " in read_until(client, b"Required\n")
        client.sendall(f"{connect}Proxy-Authorization: Basic {token}\r\n\r\n".encode())
        assert b" 200 " in read_until(client, b"\r\n\r\n")
        assert [record.connection for record in proxy.requests] == [1, 1]


def test_an_unreachable_target(proxy: ProxyServer) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"127.0.0.1:{unheard.getsockname()[1]}"
        status, _, body = ask(proxy, f"http://{address}/")
        assert status == 502
        assert body.startswith(f"Cannot connect to {address}: ".encode())
        with dial(proxy) as client:
            client.sendall(f"CONNECT {address} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert b" 502 " in read_until(client, b"\n\r\n")
    assert [record.status for record in proxy.requests] == [502, 502]


@pytest.mark.parametrize(
    "line",
    [
        "GET / ",
        "GET https://x/ ",
        "CONNECT x ",
        "CONNECT x:0 ",
        "GET http://x:99999/ ",
        "GET http:/// ",
        "OPTIONS * ",
    ],
)
def test_targets_that_name_nowhere(proxy: ProxyServer, line: str) -> None:
    with dial(proxy) as client:
        client.sendall(f"{line}HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert read_all(client).startswith(b"HTTP/1.1 400 ")
    assert proxy.requests[0].status == 400


def test_what_is_no_http_is_refused(proxy: ProxyServer) -> None:
    with dial(proxy) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 400 ")


def test_refuse(proxy: ProxyServer, chat: ChatServer) -> None:
    proxy.refuse(403, "Not today", [("x-why", "test")])
    status, headers, body = ask(proxy, chat.url + "/models")
    assert (status, headers["x-why"], body) == (403, "test", b"Not today\n")
    with dial(proxy) as client:
        client.sendall(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_until(client, b"today\n").startswith(b"HTTP/1.1 403 Not today\r\n")
        # A client that waits for leave to send its body is refused before it does.
        client.sendall(b"POST http://x/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
        got = read_until(client, b"today\n")
        assert b"connection: close" in got.lower()
        assert read_all(client) == b""
    proxy.refuse(503)
    assert ask(proxy, chat.url + "/models")[2] == b"Service Unavailable\n"
    proxy.refuse(None)
    assert ask(proxy, chat.url + "/models")[0] == 200
    assert [record.status for record in proxy.requests] == [403, 403, 403, 503, 200]
    for status, reason in ((99, "x"), (403, "a\r\nb")):
        with pytest.raises(ValueError):
            proxy.refuse(status, reason)


def test_start_and_stop_may_be_repeated() -> None:
    proxy = ProxyServer()
    with pytest.raises(RuntimeError, match="start"):
        proxy.url  # noqa: B018
    with proxy.start(), dial(proxy) as client:
        client.sendall(b"GET ")
        proxy.stop()
        assert proxy.open_connections == 0
    assert lasting_threads() == [threading.main_thread()]


def test_a_target_that_resets_as_soon_as_it_is_reached(proxy: ProxyServer, target: socket.socket) -> None:
    for _ in range(20):
        with dial(proxy) as client:
            fields = "Host: x\r\nConnection: close\r\n"
            client.sendall(f"CONNECT {origin(target)} HTTP/1.1\r\n{fields}\r\n".encode())
            with accept(target) as upstream:
                upstream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
            try:
                got = read_all(client)
            except ConnectionResetError:
                continue
            # The system may report the reset as a failure to connect.
            assert got.startswith(b"HTTP/1.1 502 ")


# TLS to the proxy


@pytest.fixture
def tls_proxy(server_context: ssl.SSLContext) -> Iterator[ProxyServer]:
    with ProxyServer(ssl_context=server_context) as running:
        yield running
        running.wait_closed()


def dial_tls(proxy: ProxyServer, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(dial(proxy), server_hostname="127.0.0.1", suppress_ragged_eofs=False)


@contextmanager
def tls_tunnel(
    proxy: ProxyServer, context: ssl.SSLContext, target: socket.socket
) -> Iterator[tuple[TLSOver, socket.socket, socket.socket]]:
    """A tunnel whose first leg is TLS: the client's TLS, the socket below it, and the target's socket."""
    with dial(proxy) as below:
        client = TLSOver(below, context)
        client.sendall(f"CONNECT {origin(target)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        with accept(target) as upstream:
            assert read_until(client, b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
            yield client, below, upstream


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def each_tls(request: pytest.FixtureRequest, authority: trustme.CA) -> ssl.SSLContext:
    """A client's context that speaks one version only."""
    context = ssl.create_default_context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion[request.param]
    authority.configure_trust(context)
    return context


@pytest.mark.usefixtures("_tidy")
def test_tls_forwards(tls_proxy: ProxyServer, chat: ChatServer, each_tls: ssl.SSLContext) -> None:
    assert tls_proxy.url == tls_proxy.address == f"https://127.0.0.1:{tls_proxy.port}"
    request = f"GET {chat.url}/models HTTP/1.1\r\nHost: x\r\n".encode()
    with dial_tls(tls_proxy, each_tls) as client:
        client.sendall((request + b"\r\n") * 2 + request + b"Connection: close\r\n\r\n")
        assert read_all(client).count(b"HTTP/1.1 200 OK") == 3  # and then the closing message
    assert [record.target for record in tls_proxy.requests] == [f"{chat.url}/models"] * 3


def test_tls_credentials_in_the_url(server_context: ssl.SSLContext) -> None:
    with ProxyServer(username="日", password="p:@/", ssl_context=server_context) as proxy:
        assert proxy.url == f"https://%E6%97%A5:p%3A%40%2F@127.0.0.1:{proxy.port}"
    with pytest.raises(ValueError, match="username holds half a character"):
        ProxyServer(username="\udc80")
    with pytest.raises(ValueError, match="ssl_context is a client's"):
        ProxyServer(ssl_context=ssl.create_default_context())


@pytest.mark.usefixtures("_tidy")
def test_tls_in_tls(tls_proxy: ProxyServer, tls_server: ChatServer, each_tls: ssl.SSLContext) -> None:
    with dial(tls_proxy) as below:
        outer = TLSOver(below, each_tls)
        outer.sendall(f"CONNECT localhost:{tls_server.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert b" 200 " in read_until(outer, b"\r\n\r\n")
        inner = TLSOver(outer, each_tls, "localhost")
        body = json.dumps({"stream": True, "messages": [{"content": "x" * 100_000}]})
        inner.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n".encode())
        inner.sendall(f"Connection: close\r\n\r\n{body}".encode())
        assert read_all(inner).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert read_all(outer) == b""
    assert tls_server.wait_outcome(0) == "complete"
    assert tls_server.requests[0].body == body.encode()


@pytest.mark.usefixtures("_tidy")
def test_tls_tunnel_ends_one_direction_at_a_time(
    tls_proxy: ProxyServer, target: socket.socket, each_tls: ssl.SSLContext
) -> None:
    with tls_tunnel(tls_proxy, each_tls, target) as (client, _, upstream):
        client.send_closing_message()
        assert read_all(upstream) == b""
        upstream.sendall(b"still" * 10_000)
        assert read_exactly(client, 50_000) == b"still" * 10_000
        upstream.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
        tls_proxy.wait_closed()
    with tls_tunnel(tls_proxy, each_tls, target) as (client, _, upstream):
        upstream.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
        client.sendall(b"so long")
        client.send_closing_message()
        assert read_all(upstream) == b"so long"


def test_tls_tunnel_ended_with_fin_alone(
    tls_proxy: ProxyServer, target: socket.socket, trusting: ssl.SSLContext
) -> None:
    with tls_tunnel(tls_proxy, trusting, target) as (client, below, upstream):
        below.shutdown(socket.SHUT_WR)
        assert read_all(upstream) == b""
        upstream.sendall(b"still")
        upstream.close()
        assert read_all(client) == b"still"


@pytest.mark.parametrize("who", ["client", "target"])
def test_tls_tunnel_reset(tls_proxy: ProxyServer, target: socket.socket, trusting: ssl.SSLContext, who: str) -> None:
    with tls_tunnel(tls_proxy, trusting, target) as (_, below, upstream):
        dying, other = (below, upstream) if who == "client" else (upstream, below)
        kill(dying)
        read_reset(other)


def test_tls_tunnel_carries_megabytes_both_ways(
    tls_proxy: ProxyServer, target: socket.socket, trusting: ssl.SSLContext
) -> None:
    data = bytes(range(256)) * (32 << 10)
    with tls_tunnel(tls_proxy, trusting, target) as (client, _, upstream):

        def echo() -> None:
            assert read_exactly(upstream, len(data)) == data
            upstream.sendall(data)
            upstream.shutdown(socket.SHUT_WR)

        echoing = threading.Thread(target=echo)
        echoing.start()
        client.sendall(data)
        assert read_all(client) == data
        echoing.join()


def test_tls_that_is_none_or_not_trusted_or_given_up(
    tls_proxy: ProxyServer, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    with dial(tls_proxy) as client:
        client.sendall(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_all(client)[:1] in (b"", b"\x15")  # an alert at most
    with dial(tls_proxy) as client, pytest.raises(ssl.SSLCertVerificationError):
        TLSOver(client, ssl.create_default_context())
    with dial(tls_proxy) as client:
        client.sendall(client_hello(trusting)[:100])
    with dial(tls_proxy) as client:
        client.sendall(client_hello(trusting))
        assert read_exactly(client, 3)[:2] == b"\x16\x03"
        assert tls_proxy.open_connections >= 1  # seen before its handshake is complete
    tls_proxy.wait_closed()
    assert tls_proxy.requests == []


def test_tls_tells_of_its_end_when_stopped(server_context: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    with ProxyServer(ssl_context=server_context) as proxy, dial(proxy) as half, dial(proxy) as whole:
        TLSOver(whole, trusting)
        proxy.stop()
        assert half.recv(1) == b""
        read_all(whole)
