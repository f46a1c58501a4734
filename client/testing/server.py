"""`ChatServer`: OpenAI's chat completions on this machine, and on request all that goes wrong there."""

from __future__ import annotations

import hmac
import ssl
import time
from collections import deque
from collections.abc import Sequence
from urllib.parse import urlsplit

import h11

from ._connection import ServerConnection
from ._loop import Service
from ._openai import (
    BadRequest,
    Chat,
    chat_reply,
    error_reply,
    is_whole,
    models_reply,
    whole_reply,
)
from ._wire import Reply
from .answers import Answer
from .records import Outcome, RecordedRequest

DEFAULT_TOKENS = ("The", " quick", " brown", " fox", " jumps", " over", " the", " lazy", " dog", ".")

_DEFAULT = Answer()
_CHAT = "/chat/completions"
_MODELS = "/models"


class ChatServer(Service):
    """A chat server on this machine, in a thread of its own.

    By itself it answers ``POST .../chat/completions`` with `tokens` (a stream, if the body asks for one),
    `pace` seconds apart, and ``GET .../models`` with `model`. With `api_key` it answers a request that
    lacks it with 401; with `ssl_context` (a server's) it speaks HTTPS. Port 0 takes a free one. What
    else shall happen is said with `plan`; what has happened stands in `requests`.

    Use it in ``with``, or call `start` and `stop`. Every method may be called from any thread; those
    that wait block the calling thread, so an async test runs them in a thread.
    """

    def __init__(
        self,
        *,
        tokens: Sequence[str] = DEFAULT_TOKENS,
        pace: float = 0.0,
        model: str = "local-model",
        api_key: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(host=host, port=port, ssl_context=ssl_context)
        Answer(tokens=tokens, pace=pace)  # the same checks, the same messages
        self._tokens = tuple(tokens)
        self._pace = pace
        self._model = model
        self._api_key = api_key
        self._created = int(time.time())
        self._requests: list[RecordedRequest] = []
        self._planned: deque[Answer] = deque()

    def __repr__(self) -> str:
        state = "stopped" if self._bound is None else self.url
        return f"<ChatServer {state}, {len(self._requests)} requests>"

    @property
    def url(self) -> str:
        """The base URL, such as "http://127.0.0.1:40001/v1". Raises ``RuntimeError`` unless it runs."""
        scheme = "http" if self._ssl_context is None else "https"
        return f"{scheme}://{self._netloc()}/v1"

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests so far, in order of arrival: a snapshot, but its records are kept up to date."""
        with self._changed:
            return list(self._requests)

    def plan(self, *answers: Answer) -> None:
        """Queue answers: each further request for a chat or for the models takes one, in order of arrival.

        When none is left, requests are answered by default again. A request without the right key, with
        the wrong method or to an unknown path takes none.
        """
        with self._changed:
            self._planned.extend(answers)

    def wait_requests(self, count: int, timeout: float = 5.0) -> list[RecordedRequest]:
        """Wait for `count` requests in all, and return those so far.

        Raises ``TimeoutError``, which shows the log, after `timeout` seconds.
        """
        self._wait(lambda: len(self._requests) >= count, f"{count} requests", timeout)
        return self.requests

    def wait_outcome(self, index: int, timeout: float = 5.0) -> Outcome:
        """Wait until the answer to request `index` (from 0; it may yet have to arrive) has ended, return how.

        A stalled answer has not ended before the client has gone or the server stopped. Raises
        ``TimeoutError``, which shows the log, after `timeout` seconds.
        """
        if index < 0:
            raise ValueError(f"index counts the requests from 0 in order of arrival; it cannot be {index}")
        self._wait(lambda: self._has_ended(index), f"the end of answer {index}", timeout)
        return self._requests[index].outcome

    def _has_ended(self, index: int) -> bool:
        if index >= len(self._requests):
            return False
        record = self._requests[index]
        if record.outcome == "stalled":  # for good only when its connection is no more
            return all(peer.number != record.connection for peer in self._peers)
        return record.outcome != "pending"

    def _entries(self) -> list[RecordedRequest]:
        return self._requests

    # In the loop's thread

    def _peer(self, number: int) -> ServerConnection:
        return ServerConnection(self, number)

    def _take(self, head: h11.Request, body: bytes, connection: int) -> tuple[RecordedRequest, Reply]:
        """Record a request and choose what to reply."""
        target = head.target.decode("latin-1")
        record = RecordedRequest(
            method=head.method.decode("ascii"),
            target=target,
            path=_path(target),
            headers=list(head.headers),
            body=body,
            connection=connection,
            arrived=time.monotonic(),
        )
        # One step, so that whoever waits for this request sees its answer gone from the plan.
        with self._changed:
            self._requests.append(record)
            reply = self._choose(record, len(self._requests))
            self._changed.notify_all()
        return record, reply

    def _finish(self, record: RecordedRequest, outcome: Outcome) -> None:
        with self._changed:
            record.outcome = outcome
            self._changed.notify_all()

    def _rejection(self, status: int, message: str) -> Reply:
        """The reply to what is no whole request, and is therefore not recorded."""
        reply = error_reply(status, message, "req_0")
        reply.headers.append((b"connection", b"close"))
        return reply

    def _choose(self, record: RecordedRequest, number: int) -> Reply:
        request_id = f"req_{number}"
        is_chat = record.path.endswith(_CHAT)
        if not is_chat and not record.path.endswith(_MODELS):
            return error_reply(404, f"Unknown request URL: {record.method} {record.path}.", request_id)
        method = "POST" if is_chat else "GET"
        if record.method != method:
            message = f"Not allowed to {record.method} on {record.path}; use {method}."
            return error_reply(405, message, request_id, allow=method)
        if not self._may(record):
            return error_reply(401, "Incorrect API key provided.", request_id)
        answer = self._planned.popleft() if self._planned else _DEFAULT
        if is_whole(answer):
            return whole_reply(answer, request_id, self._pace)
        if not is_chat:
            return models_reply(answer, self._model, self._created, request_id)
        try:
            chat = Chat.parse(record.body, number, self._model)
        except BadRequest as error:
            return error_reply(400, str(error), request_id, param=error.param)
        return chat_reply(answer, chat, request_id, self._tokens, self._pace)

    def _may(self, record: RecordedRequest) -> bool:
        if self._api_key is None:
            return True
        scheme, _, key = (record.header("authorization") or "").partition(" ")
        # A header field's bytes were read as Latin-1; a key beyond ASCII is compared as the UTF-8 it came as.
        given, wanted = key.strip().encode("latin-1"), self._api_key.encode()
        return scheme.lower() == "bearer" and hmac.compare_digest(given, wanted)


def _path(target: str) -> str:
    """The path of an origin-form ("/v1/models?x") or absolute-form ("http://host/v1/models") target."""
    if target.startswith("/"):
        return target.partition("?")[0]
    try:
        return urlsplit(target).path
    except ValueError:
        return target
