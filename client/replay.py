"""``deltawire replay FILE``: a recorded reply through the machines, each event on a line."""

from __future__ import annotations

import collections
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import h11

from deltawire.protocol import (
    ChatCompletionChunk,
    ConfigurationError,
    Event,
    ReadError,
    Reply,
    SessionStarted,
    StreamEnded,
    StreamFailed,
)
from deltawire.protocol.images import ImagesResponse


def run(file: str, *, content_type: str, dialect: str, split: int, as_json: bool) -> int:
    """Replay a file; gives the exit status: 0 when each reply in it ended well."""
    data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    if split < 0:
        raise ConfigurationError("--split takes a number of bytes from 1")
    replies = (
        _responses(data, dialect, split) if data.startswith(b"HTTP/") else [_body(data, content_type, dialect, split)]
    )
    good = True
    for events in replies:
        for event in events:
            print(_line(event, as_json))
            good = good and not isinstance(event, StreamFailed)
    return 0 if good else 1


def _pieces(data: bytes, split: int) -> Iterable[bytes]:
    return [data[start : start + split] for start in range(0, len(data), split)] if split else [data]


def _body(data: bytes, content_type: str, dialect: str, split: int) -> list[Event]:
    reply = Reply(dialect)
    events = reply.start(200, [(b"content-type", content_type.encode())] if content_type else [])
    for piece in _pieces(data, split):
        events += reply.receive(piece)
    return events + reply.end()


def _responses(data: bytes, dialect: str, split: int) -> Iterator[list[Event]]:
    """The events of each response of a connection: a recording may hold several."""
    pieces = collections.deque(_pieces(data, split))
    unread = b""
    while unread or pieces:
        http = h11.Connection(h11.CLIENT)
        # h11 wants to have asked before it is answered.
        http.send(h11.Request(method="POST", target="/", headers=[("host", "replay"), ("content-length", "0")]))
        http.send(h11.EndOfMessage())
        if unread:
            http.receive_data(unread)
        yield _response(http, pieces, dialect)
        if http.their_state is not h11.DONE:
            return
        unread = bytes(http.trailing_data[0])


def _response(http: h11.Connection, pieces: collections.deque[bytes], dialect: str) -> list[Event]:
    reply = Reply(dialect)
    events: list[Event] = []
    while True:
        try:
            event = http.next_event()
        except h11.RemoteProtocolError as error:
            return events + reply.fail(ReadError(f"the response is cut off, or is no HTTP/1.1: {error}"))
        if event is h11.NEED_DATA:
            http.receive_data(pieces.popleft() if pieces else b"")
        elif isinstance(event, (h11.Response, h11.InformationalResponse)):
            events += reply.start(event.status_code, list(event.headers))
        elif isinstance(event, h11.Data):
            events += reply.receive(bytes(event.data))
        else:
            return events + reply.end()


def _line(event: Event, as_json: bool) -> str:
    if isinstance(event, StreamEnded):
        said: dict[str, object] = {"event": "ended", "finished": event.finished}
        return json.dumps(said) if as_json else f"ended, {'finished' if event.finished else 'without a finish reason'}"
    if isinstance(event, StreamFailed):
        name = type(event.error).__name__
        said = {"event": "failed", "error": name, "message": str(event.error)}
        return json.dumps(said) if as_json else f"failed: {name}: {event.error}"
    if isinstance(event, SessionStarted):
        said = {"event": "session", "session_id": event.session_id, "nonce": event.nonce}
        return json.dumps(said) if as_json else f"session {event.session_id!r}, nonce {event.nonce!r}"
    kind = (
        "chunk"
        if isinstance(event, ChatCompletionChunk)
        else "images"
        if isinstance(event, ImagesResponse)
        else "models"
    )
    if as_json:
        return json.dumps({"event": kind, kind: event.to_dict()})
    return f"{kind} {event.to_json(indent=None)}"
