"""`deltawire.testing.ChatServer`, on real sockets. Nothing here sleeps: every wait is for an event."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import re
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trustme
from asking import CHAT, ask, dechunk, events, exchange
from by_hand import dial, read_all, read_reset, read_until
from driving import lasting_threads

from deltawire.testing import Answer, ChatServer


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(tokens=["a", " b", "ç"]) as running:
        yield running


def request_bytes(body: Any = None, *, version: str = "1.1", fields: str = "", method: str = "POST") -> bytes:
    content = json.dumps({"model": "m", "stream": True} if body is None else body).encode()
    head = f"{method} {CHAT} HTTP/{version}\r\nHost: x\r\nContent-Length: {len(content)}\r\n{fields}\r\n"
    return head.encode() + content


# What it says by itself


def test_stream_is_framed_as_openai_frames_it(server: ChatServer) -> None:
    raw = exchange(server, request_bytes(fields="Connection: close\r\n"))
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-type: text/event-stream; charset=utf-8" in head
    assert b"x-request-id: req_1" in head
    chunks = dechunk(body)
    got = [events(chunk)[0] for chunk in chunks]  # one event a chunk
    assert got.pop() == "[DONE]"
    choices = [chunk["choices"][0] for chunk in got]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": ""},
        {"content": "a"},
        {"content": " b"},
        {"content": "ç"},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, None, "stop"]
    assert {chunk["object"] for chunk in got} == {"chat.completion.chunk"}
    assert {chunk["model"] for chunk in got} == {"m"}
    assert len({chunk["id"] for chunk in got}) == len({chunk["created"] for chunk in got}) == 1
    assert all(chunk["system_fingerprint"] for chunk in got)
    assert all("usage" not in chunk for chunk in got)
    assert "ç".encode() in body
    assert b'{"index":0,' in body  # compact


def test_usage_comes_when_asked_for(server: ChatServer) -> None:
    body = {"stream": True, "stream_options": {"include_usage": True}, "messages": [{"content": "one two"}]}
    *chunks, usage, done = events(ask(server, body)[2])
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    assert all(chunk["usage"] is None for chunk in chunks)
    assert chunks[0]["model"] == "local-model"


def test_choices_are_interleaved(server: ChatServer) -> None:
    *chunks, _ = events(ask(server, {"stream": True, "n": 2})[2])
    assert [chunk["choices"][0]["index"] for chunk in chunks] == [0, 1] * 5
    whole = json.loads(ask(server, {"n": 2})[2])
    assert [choice["index"] for choice in whole["choices"]] == [0, 1]
    assert whole["usage"]["completion_tokens"] == 6


def test_without_stream_it_is_one_document(server: ChatServer) -> None:
    status, headers, body = ask(server, {"model": "mine", "messages": [{"content": [{"text": "x y z"}]}]})
    whole = json.loads(body)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert whole["object"] == "chat.completion"
    assert whole["model"] == "mine"
    assert whole["choices"][0]["message"]["content"] == "a bç"
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}


def test_models_and_errors(server: ChatServer) -> None:
    status, _, body = ask(server, path="/any/prefix/models", method="GET")
    (model,) = json.loads(body)["data"]
    assert (status, json.loads(body)["object"]) == (200, "list")
    assert {**model, "created": 0} == {
        "id": "local-model",
        "object": "model",
        "created": 0,
        "owned_by": "deltawire",
    }
    for path, method, payload, expected in (
        ("/v1/elsewhere", "POST", {}, 404),
        (CHAT, "GET", None, 405),
        ("/v1/models", "POST", {}, 405),
        (CHAT, "POST", [], 400),
        (CHAT, "POST", {"n": 0}, 400),
    ):
        status, headers, body = ask(server, payload, path=path, method=method)
        assert status == expected
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
        assert ("allow" in headers) == (expected == 405)
    raw = exchange(server, f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert raw.startswith(b"HTTP/1.1 400 ")
    assert [record.header("x-nothing") for record in server.requests] == [None] * 7
    assert ask(server, path="/v1/models", method="GET")[1]["x-request-id"] == "req_8"
    head = exchange(server, request_bytes(method="HEAD", fields="Connection: close\r\n"))
    assert head.startswith(b"HTTP/1.1 405 ")
    assert head.endswith(b"\r\n\r\n")  # and no body


def test_api_key() -> None:
    with ChatServer(api_key="kéy") as server:
        assert "kéy" not in repr(server)
        server.plan(Answer(status=503))
        for given in ("", "Bearer wrong", "Basic kéy"):
            status, _, body = ask(server, Authorization=given)
            assert status == 401
            assert json.loads(body)["error"]["code"] == "invalid_api_key"
        key = "Bearer kéy".encode().decode("latin-1")
        assert ask(server, Authorization=key)[0] == 503  # the three refusals took nothing from the plan
        assert ask(server, Authorization=key)[0] == 200
        assert "kéy" not in repr(server.requests)


def test_recorded_request(server: ChatServer) -> None:
    with dial(server) as sock:
        sock.sendall(
            request_bytes({"k": [1]}, fields="X-Two: 1\r\nX-Two: 2\r\n").replace(b"completions ", b"completions?q=1 ")
        )
        read_until(sock, b'"usage"')
        (record,) = server.requests
        assert (record.method, record.target, record.path) == ("POST", CHAT + "?q=1", CHAT)
        assert record.json() == {"k": [1]}
        assert (b"x-two", b"1") in record.headers
        assert record.header("X-Two") == "1, 2"
        assert (record.connection, record.status, record.sent) == (1, 200, [])
        assert server.wait_outcome(0) == "complete"
        assert (server.connections, server.open_connections) == (1, 1)
    server.wait_closed()
    assert server.open_connections == 0
    assert server.requests is not server.requests


def test_absolute_form_target(server: ChatServer) -> None:
    raw = exchange(server, b"GET http://other/v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 200 ")
    assert server.requests[0].path == "/v1/models"


# HTTP


def test_keep_alive_and_pipelining(server: ChatServer) -> None:
    with dial(server) as sock:
        sock.sendall(request_bytes() + request_bytes({}))
        got = read_until(sock, b'"chat.completion"')
        assert got.count(b"HTTP/1.1 200 OK") == 2
        sock.sendall(request_bytes(fields="Connection: close\r\n"))
        assert read_all(sock).endswith(b"0\r\n\r\n")
    assert [record.connection for record in server.requests] == [1, 1, 1]
    assert [server.wait_outcome(index) for index in range(3)] == ["complete"] * 3


def test_http_1_0_is_answered_without_chunks(server: ChatServer) -> None:
    raw = exchange(server, request_bytes(version="1.0"))
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert events(body)[-1] == "[DONE]"


def test_expect_100_continue_and_a_large_body(server: ChatServer) -> None:
    content = json.dumps({"messages": [{"content": "x" * (8 << 20)}]}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {len(content)}\r\n\r\n"
    with dial(server) as sock:
        sock.sendall(head.encode())
        assert read_until(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(content)
        assert read_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert server.requests[0].body == content


def test_a_body_beyond_64_mib_is_refused_and_the_refusal_arrives(server: ChatServer) -> None:
    piece = b"x" * (1 << 20)
    with dial(server) as sock:
        sock.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {80 << 20}\r\n\r\n".encode())
        for _ in range(80):
            sock.sendall(piece)
        assert read_all(sock).startswith(b"HTTP/1.1 413 ")
    server.wait_closed()
    assert server.requests == []


@pytest.mark.parametrize("garbage", [b"no http\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70000])
def test_what_is_no_http_is_refused(server: ChatServer, garbage: bytes) -> None:
    raw = exchange(server, garbage)
    assert re.match(rb"HTTP/1.1 4(00|31) ", raw)
    assert b"connection: close" in raw
    assert "error" in json.loads(raw.partition(b"\r\n\r\n")[2])
    server.wait_closed()


def test_nodelay(server: ChatServer) -> None:
    with dial(server) as sock:
        sock.sendall(request_bytes())
        read_until(sock, b"[DONE]")
        (peer,) = server._peers
        assert peer.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_tls() -> None:
    authority = trustme.CA()
    ours, theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(ours)
    authority.configure_trust(theirs)
    with ChatServer(ssl_context=ours) as server:
        assert server.url == f"https://127.0.0.1:{server.port}/v1"
        client = http.client.HTTPSConnection(server.host, server.port, timeout=5, context=theirs)
        client.request("POST", CHAT, json.dumps({"stream": True}))
        assert events(client.getresponse().read())[-1] == "[DONE]"
        client.close()
        server.plan(Answer(ending="close", tokens=["x"]), Answer(cut_after=0, ending="reset"))
        client.request("POST", CHAT, json.dumps({"stream": True}))
        with pytest.raises(http.client.IncompleteRead):
            client.getresponse().read()
        client.close()
        client.request("POST", CHAT, json.dumps({"stream": True}))
        with pytest.raises((ConnectionResetError, ssl.SSLError)):
            client.getresponse()
        client.close()
        with pytest.raises(ssl.SSLError):  # it does not trust the certificate
            ssl.create_default_context().wrap_socket(dial(server), server_hostname="127.0.0.1")
        server.wait_closed()
        half = dial(server)  # its handshake is never made
        server.stop()
        assert half.recv(1) == b""
        half.close()
        assert [record.outcome for record in server.requests] == ["complete", "cut", "reset"]


# Planned answers


def test_the_plan_is_a_queue(server: ChatServer) -> None:
    server.plan(Answer.error(429, "Wait.", retry_after=1.5), Answer(json={"mine": True}))
    server.plan(Answer(tokens=["Z"]))
    status, headers, body = ask(server)
    assert (status, headers["retry-after"]) == (429, "1.5")
    assert json.loads(body) == {
        "error": {"message": "Wait.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    }
    assert json.loads(ask(server, path="/v1/models", method="GET")[2]) == {"mine": True}
    assert json.loads(ask(server, {})[2])["choices"][0]["message"]["content"] == "Z"
    assert json.loads(ask(server, {})[2])["choices"][0]["message"]["content"] == "a bç"


def test_fields_of_an_answer(server: ChatServer) -> None:
    server.plan(
        Answer(status=500),
        Answer(body=b"<p>", status=502, content_type="text/html", headers=[("X-Request-Id", "mine")]),
        Answer(finish_reason=None, done=False),
        Answer(finish_reason="length", usage={"total_tokens": 9}),
        Answer(status=204, body=b""),
        Answer.error(404, type="t", code="c", headers=[("x-a", "b")]),
    )
    status, _, body = ask(server)
    assert (status, json.loads(body)["error"]["type"]) == (500, "server_error")
    status, headers, body = ask(server)
    assert (status, headers["content-type"], body) == (502, "text/html", b"<p>")
    assert (headers["X-Request-Id"], "x-request-id" in headers) == ("mine", False)
    chunks = events(ask(server)[2])
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 4
    *_, last, usage, _ = events(ask(server)[2])
    assert last["choices"][0]["finish_reason"] == "length"
    assert usage["usage"] == {"total_tokens": 9}
    status, headers, body = ask(server)
    assert (status, body, "content-length" in headers) == (204, b"", False)
    status, headers, body = ask(server)
    assert (headers["x-a"], json.loads(body)["error"]["type"], json.loads(body)["error"]["code"]) == (
        "b",
        "t",
        "c",
    )


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_framing(server: ChatServer, framing: Any) -> None:
    server.plan(Answer(framing=framing))
    close = "" if framing == "close" else "Connection: close\r\n"
    raw = exchange(server, request_bytes(fields=close))
    head, _, body = raw.partition(b"\r\n\r\n")
    assert (b"chunked" in head.lower()) == (framing == "chunked")
    assert (b"content-length" in head.lower()) == (framing == "length")
    assert b"connection: close" in head.lower()
    assert events(b"".join(dechunk(body)) if framing == "chunked" else body)[-1] == "[DONE]"
    assert server.wait_outcome(0) == "complete"


def test_events_are_exact_and_written_apart(server: ChatServer) -> None:
    pieces = [b"data: {\n\n", b"\xff\xfe", b"garbage"]
    server.plan(Answer(events=pieces, pace=0.01))
    raw = exchange(server, request_bytes(fields="Connection: close\r\n"))
    assert dechunk(raw.partition(b"\r\n\r\n")[2]) == pieces
    (record,) = server.requests
    assert [at - record.arrived >= 0.009 * step for step, at in enumerate(record.sent)] == [True] * 3


def test_pace_and_delay() -> None:
    with ChatServer(pace=0.1, tokens=["x"] * 5) as server:
        server.plan(Answer(delay=0.05), Answer(pace=0.0))
        ask(server)
        ask(server)
        first, second = server.requests
        assert len(first.sent) == len(second.sent) == 5
        # Each is due so long after the head: never earlier, and a late one does not move those after it.
        assert all(at - first.arrived >= 0.049 + 0.1 * step for step, at in enumerate(first.sent))
        assert second.sent[4] - second.sent[0] < 0.4


def test_raw(server: ChatServer) -> None:
    recorded = b"HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nhi"
    server.plan(Answer(raw=recorded, keep_open=True), Answer.replay(recorded[:-1]), Answer.replay(b"?"))
    with dial(server) as sock:
        sock.sendall(request_bytes() * 2)  # the second one is in h11's buffer when the first is answered
        assert read_all(sock) == recorded + recorded[:-1]
    assert exchange(server, request_bytes()) == b"?"
    assert [record.status for record in server.requests] == [299, 299, None]
    assert [record.outcome for record in server.requests] == ["complete"] * 3


# Endings


@pytest.mark.parametrize("limit", [0, 1, 100, 400])
def test_cut_is_exact_on_the_wire(server: ChatServer, limit: int) -> None:
    whole = Answer(events=[b"one", b"two" * 100], headers=[("x-request-id", "same")])
    server.plan(whole, Answer(events=whole.events, headers=whole.headers, cut_after=limit))
    wire = exchange(server, request_bytes(fields="Connection: close\r\n"))
    assert exchange(server, request_bytes(fields="Connection: close\r\n")) == wire[:limit]
    assert server.wait_outcome(1) == "cut"
    assert server.requests[1].status == (200 if limit else None)


def test_cut_beyond_the_end(server: ChatServer) -> None:
    server.plan(Answer(json={}, cut_after=10**6))
    assert exchange(server, request_bytes()).endswith(b"{}")
    assert server.wait_outcome(0) == "complete"


def test_reset(server: ChatServer) -> None:
    server.plan(Answer(cut_after=150, ending="reset"), Answer(json={}, ending="reset"))
    for expected in (150, None):
        with dial(server) as sock:
            sock.sendall(request_bytes())
            got = len(read_reset(sock))
            assert expected is None or got <= expected
    assert [server.wait_outcome(index) for index in range(2)] == ["reset", "reset"]


def test_an_ending_without_a_cut_withholds_the_last_chunk(server: ChatServer) -> None:
    server.plan(Answer(tokens=["x"], ending="close"), Answer(json={}, ending="close"))
    raw = exchange(server, request_bytes())
    assert raw.endswith(b"data: [DONE]\n\n\r\n")
    assert exchange(server, request_bytes()).endswith(b"{}")
    assert [server.wait_outcome(index) for index in range(2)] == ["cut", "complete"]


def test_stall_ends_when_the_client_goes(server: ChatServer) -> None:
    server.plan(Answer(cut_after=0, ending="stall"), Answer(tokens=["x"], done=False, ending="stall"))
    with dial(server) as silent, dial(server) as hanging:
        silent.sendall(request_bytes())
        server.wait_requests(1)
        hanging.sendall(request_bytes())
        assert not read_until(hanging, b'"finish_reason":"stop"').endswith(b"0\r\n\r\n")
        with pytest.raises(TimeoutError, match=r"the end of answer 0.*\n.*\[0\] <POST .*stalled"):
            server.wait_outcome(0, timeout=0.05)
        hanging.close()
        assert server.wait_outcome(1) == "client-closed"
        silent.close()
        assert server.wait_outcome(0) == "client-closed"


def test_stalled_is_final_when_the_server_stops() -> None:
    with ChatServer(pace=60) as server:
        server.plan(Answer(cut_after=0, ending="stall"))
        with dial(server) as one, dial(server) as other:
            one.sendall(request_bytes())
            server.wait_requests(1)
            other.sendall(request_bytes())
            read_until(other, b'"The"')
            server.stop()
            assert [server.wait_outcome(index) for index in range(2)] == ["stalled", "cut"]


@pytest.mark.parametrize("how", ["close", "reset", "with the request"])
def test_the_clients_end_is_noticed_at_once(how: str) -> None:
    with ChatServer(pace=60) as server:
        sock = dial(server)
        sock.sendall(request_bytes())
        if how != "with the request":
            read_until(sock, b'"The"')
        if how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        assert server.wait_outcome(0) == "client-closed"
        assert len(server.requests[0].sent) <= 1
        server.wait_closed()


def test_a_client_that_does_not_read_holds_up_the_server_but_not_others() -> None:
    with ChatServer() as server:
        server.plan(Answer(body=b"x" * (32 << 20)))
        with dial(server) as idle:
            idle.sendall(request_bytes())
            server.wait_requests(1)
            assert ask(server)[0] == 200
            assert server.requests[0].outcome == "pending"
        assert server.wait_outcome(0) == "client-closed"


# Waiting, starting, stopping


def test_waiting(server: ChatServer) -> None:
    with pytest.raises(TimeoutError, match=r"waited 0\.01 s for 1 requests\. 0 requests so far"):
        server.wait_requests(1, timeout=0.01)
    with pytest.raises(ValueError, match="from 0"):
        server.wait_outcome(-1)
    asker = threading.Thread(target=ask, args=(server,))
    asker.start()
    assert server.wait_requests(1)[0].method == "POST"
    assert server.wait_outcome(0) == "complete"
    asker.join()
    for _ in range(40):
        ask(server, path="/x", method="GET")
    shown = r"(?s)1 connections open.*\.\.\. 12 earlier ones.*\[41\]"
    with dial(server) as sock:
        sock.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        server.wait_requests(42)
        with pytest.raises(TimeoutError, match=shown):
            server.wait_closed(timeout=0.05)


def test_start_and_stop_may_be_repeated() -> None:
    server = ChatServer()
    server.stop()
    with pytest.raises(RuntimeError, match="start"):
        server.url  # noqa: B018
    assert server.start() is server.start()
    port = server.port
    assert server.url == f"http://127.0.0.1:{port}/v1"
    with pytest.raises(OSError):
        ChatServer(port=port).start()
    server.stop()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with server:
        assert ask(server)[0] == 200
    assert lasting_threads() == [threading.main_thread()]


def test_a_connection_accepted_in_the_turn_of_stop_is_closed_too() -> None:
    for _ in range(20):
        with ChatServer() as server:
            sock = dial(server)
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            pass  # it was not accepted yet
        sock.close()


def test_200_paced_streams_at_once() -> None:
    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        try:
            writer.write(request_bytes(fields="Connection: close\r\n"))
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()

    async def main(server: ChatServer) -> list[bytes]:
        # All connected first: that takes longer than a stream does, and they are to run side by side.
        ends = [await asyncio.open_connection(server.host, server.port) for _ in range(200)]
        return await asyncio.gather(*(stream(*both) for both in ends))

    with ChatServer(pace=0.1) as server:
        for raw in asyncio.run(main(server), debug=False):
            chunks = [events(chunk)[0] for chunk in dechunk(raw.partition(b"\r\n\r\n")[2])]
            text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1])
            assert text == "The quick brown fox jumps over the lazy dog."
            assert chunks[-1] == "[DONE]"
        server.wait_closed()
        records = server.requests
        assert [record.outcome for record in records] == ["complete"] * 200
        # They ran side by side: the last had begun before the first was done.
        assert max(record.sent[0] for record in records) < min(record.sent[-1] for record in records)


def test_stop_leaves_nothing_behind() -> None:
    program = """
        import socket, threading
        from deltawire.testing import ChatServer, ProxyServer

        body = b'{"stream": true}'
        head = b"POST %s/v1/chat/completions HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 16\\r\\n\\r\\n" + body
        with ChatServer(pace=30) as server, ProxyServer() as proxy:
            direct = [socket.create_connection((server.host, server.port)) for _ in range(50)]
            through = [socket.create_connection((proxy.host, proxy.port)) for _ in range(10)]
            idle = socket.create_connection((server.host, server.port))
            for sock in direct:
                sock.sendall(head % b"")
            for sock in through:
                sock.sendall(head % server.url.removesuffix("/v1").encode())
            server.wait_requests(60)
            for sock in direct + through:
                assert sock.recv(1) == b"H"
            late = socket.create_connection((server.host, server.port))
        assert threading.enumerate() == [threading.main_thread()]
        assert {record.outcome for record in server.requests} <= {"cut", "client-closed"}
        assert server.open_connections == proxy.open_connections == 0
        for sock in [*direct, *through, idle, late]:
            sock.close()
    """
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Answers that contradict themselves


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"json": {}, "body": b""}, "json and body .* keep one"),
        ({"raw": b"", "events": []}, "events and raw .* keep one"),
        ({"raw": b"", "status": 500}, "status would not be used"),
        ({"raw": b"", "keep_open": True, "ending": "stall"}, "drop keep_open"),
        ({"keep_open": True}, "goes with raw"),
        ({"tokens": "abc"}, "tokens=\\['abc'\\]"),
        ({"cut_after": -1}, "from 0 on"),
        ({"framing": "none"}, "chunked, length, close"),
        ({"ending": "explode"}, "close, reset, stall"),
        ({"status": 100}, "use raw"),
        ({"pace": -1.0}, "number of seconds"),
        ({"delay": float("nan")}, "number of seconds"),
        ({"headers": [("Content-Length", "3")]}, "framing="),
        ({"headers": [("x", "a\r\nb")]}, "use raw"),
        ({"headers": [("x", "\N{SNOWMAN}")]}, "use raw"),
    ],
)
def test_contradictions(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Answer(**fields)


def test_an_answer_does_not_change_once_made() -> None:
    tokens = ["a"]
    answer = Answer(tokens=tokens)
    tokens.append("b")
    assert answer.tokens == ("a",)
    assert list(itertools.chain(Answer().headers)) == []
