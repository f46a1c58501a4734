"""Requests to the test servers, byte by byte or by `http.client`, and what their replies hold."""

from __future__ import annotations

import http.client
import json
from typing import Any

from by_hand import dial, read_all

from deltawire.testing import ChatServer

CHAT = "/v1/chat/completions"


def exchange(server: ChatServer, data: bytes) -> bytes:
    """Send, and read until the server closes."""
    with dial(server) as sock:
        sock.sendall(data)
        return read_all(sock)


def ask(server: ChatServer, body: Any = None, *, path: str = CHAT, method: str = "POST", **headers: str) -> Any:
    """One request by http.client; returns (status, headers, body)."""
    client = http.client.HTTPConnection(server.host, server.port, timeout=5)
    try:
        payload = None if method == "GET" else json.dumps({"stream": True} if body is None else body)
        client.request(method, path, payload, {name.replace("_", "-"): value for name, value in headers.items()})
        reply = client.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read()
    finally:
        client.close()


def events(body: bytes) -> list[Any]:
    """The JSON of each event; every one ends with a blank line, and "[DONE]" stands for itself."""
    assert body.endswith(b"\n\n")
    blocks = body[:-2].split(b"\n\n")
    assert all(block.startswith(b"data: ") for block in blocks)
    return [block[6:].decode() if block == b"data: [DONE]" else json.loads(block[6:]) for block in blocks]


def dechunk(data: bytes) -> list[bytes]:
    """The chunks of a complete chunked body."""
    chunks = []
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        chunks.append(data[:length])
        assert data[length : length + 2] == b"\r\n"
        data = data[length + 2 :]
        if not length:
            assert not data
            return chunks[:-1]
