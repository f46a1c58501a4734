"""What the tests of `Opchatgpts` share."""

from __future__ import annotations

from typing import Any

from deltawire.testing import ChatServer, RecordedRequest


def asked(server: ChatServer) -> list[str]:
    """What the server was asked for, in order: "start_session", "submit", or "" for its page."""
    return [request.target.rpartition("/")[2] for request in server.requests]


def submits(server: ChatServer) -> list[RecordedRequest]:
    """The requests for an answer."""
    return [request for request in server.requests if request.target.endswith("/submit")]


def nonces(server: ChatServer) -> list[str | None]:
    """The nonces of these."""
    return [request.header("x-wp-nonce") for request in submits(server)]


def fields(request: RecordedRequest) -> dict[str, str]:
    """The header fields."""
    return {name.decode(): value.decode() for name, value in request.headers}


def body(server: ChatServer) -> dict[str, Any]:
    """The body of the last request for an answer."""
    found: dict[str, Any] = submits(server)[-1].json()
    return found
