"""How a request leaves: its head and its body in one piece, whatever the way."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from driving import Driver

pytestmark = pytest.mark.usefixtures("_tidy")

REPLY = b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]}'


class Pieces:
    """Answers each request, and notes in which pieces it came."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.pieces: list[list[bytes]] = []

    def serve(self) -> None:
        connection, _ = self._listener.accept()
        self._listener.close()
        with connection:
            connection.settimeout(5)
            pieces: list[bytes] = []
            while data := connection.recv(1 << 20):
                pieces.append(data)
                if b"".join(pieces).endswith(b"}"):
                    self.pieces.append(pieces)
                    pieces = []
                    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                    connection.sendall(head % len(REPLY) + REPLY)


@pytest.fixture
def server() -> Iterator[Pieces]:
    running = Pieces()
    thread = threading.Thread(target=running.serve)
    thread.start()
    yield running
    thread.join()


def test_head_and_body_leave_together(driver: Driver, server: Pieces) -> None:
    # A proxy that waits for an acknowledgement of the head (Nagle's algorithm) would hold the body for 40 ms.
    options: dict[str, Any] = {"base_url": f"http://127.0.0.1:{server.port}/v1", "proxies": None, "trust_env": False}
    assert driver.ask({**options, "api_key": "sk-x"}).text == "ok"
    ((piece,),) = server.pieces
    head, _, body = piece.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert json.loads(body)["messages"]
