"""`ChatServer`: OpenAI's API and a WordPress chatbot on this machine, and on request all that goes wrong there."""

from __future__ import annotations

import hmac
import secrets
import ssl
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import h11

from ._ai_engine import Site, is_rest
from ._connection import ServerConnection
from ._images import file_index, file_reply, images_reply
from ._loop import Service
from ._openai import BadRequest, Chat, chat_reply, error_reply, model_id, model_reply, models_reply, openai_format
from ._replies import Incoming, is_whole, path_of
from ._wire import Reply
from .answers import Answer
from .records import Outcome, RecordedRequest

DEFAULT_TOKENS = ("The", " quick", " brown", " fox", " jumps", " over", " the", " lazy", " dog", ".")

_DEFAULT = Answer()

# The endpoints, by the end of their path, and the method that each is for.
_CHAT = "/chat/completions"
_MODELS = "/models"
_IMAGES = "/images/generations"
_SUBMIT = "/chats/submit"
_SESSION = "/start_session"
_METHODS = {_CHAT: "POST", _MODELS: "GET", _IMAGES: "POST", _SUBMIT: "POST", _SESSION: "POST"}

# Three more, whose paths do not tell them by their end.
_MODEL = "model"
_PAGE = "page"
_FILE = "file"

_WITH_KEY = (_CHAT, _MODELS, _MODEL, _IMAGES)
_PLANNED = (*_WITH_KEY, _SUBMIT)
"""Those that take a planned answer which is not addressed."""


class ChatServer(Service):
    """A chat server on this machine, in a thread of its own.

    By itself it answers ``POST .../chat/completions`` with `tokens` (a stream, if the body asks for one), `pace`
    seconds apart; ``GET .../models`` with `models` (ids, or objects that have one; by default `model` alone), and
    ``GET .../models/ID`` with one of them; ``POST .../images/generations`` with the URLs, or the bytes, of images of
    one pixel. With `api_key` it answers these with 401 to a request that lacks it (``Authorization: Bearer KEY``, or
    ``api-key: KEY`` as on Azure).

    It is a WordPress site with an AI Engine chatbot, too: ``POST .../wp-json/mwai/v1/start_session`` gives a nonce,
    without which (unless `needs_nonce` is False, as of old) ``POST .../wp-json/mwai-ui/v1/chats/submit`` is refused;
    that answers with `tokens`, as a chat does. ``GET`` of `page` is a page that carries the nonce.

    With `ssl_context` (a server's) it speaks HTTPS. Port 0 takes a free one. What else shall happen is said with
    `plan`; what has happened stands in `requests`.

    Use it in ``with``, or call `start` and `stop`. Every method may be called from any thread; those
    that wait block the calling thread, so an async test runs them in a thread.
    """

    def __init__(
        self,
        *,
        tokens: Sequence[str] = DEFAULT_TOKENS,
        pace: float = 0.0,
        model: str = "local-model",
        models: Sequence[str | Mapping[str, Any]] | None = None,
        needs_nonce: bool = True,
        page: str = "/",
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
        self._models = [_entry(each) for each in ([model] if models is None else models)]
        self._site = Site(_new_nonce(), needs_nonce=needs_nonce)
        if not page.startswith("/"):
            raise ValueError(f"page is a path, such as '/chat/', not {page!r}")
        self._page = page
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
        return f"{self.site_url}/v1"

    @property
    def site_url(self) -> str:
        """The URL of the site, such as "http://127.0.0.1:40001". Raises ``RuntimeError`` unless it runs."""
        scheme = "http" if self._ssl_context is None else "https"
        return f"{scheme}://{self._netloc()}"

    @property
    def nonce(self) -> str:
        """The nonce that the site gives out now."""
        with self._changed:
            return self._site.nonce

    def expire_nonce(self) -> None:
        """From now on the site takes none of the nonces that it gave out, and gives out a new one."""
        with self._changed:
            self._site.expire(_new_nonce())

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests so far, in order of arrival: a snapshot, but its records are kept up to date."""
        with self._changed:
            return list(self._requests)

    def plan(self, *answers: Answer) -> None:
        """Queue answers: each further request takes the first that is for it.

        An answer with `to` is for a request whose path (or WordPress's route) ends so, any other for one for a
        chat, of a site too, for the models or for images. When there is none, a request is answered by default.
        A request without the right key or nonce, or with the wrong method, takes none.
        """
        with self._changed:
            self._planned.extend(answers)

    def wait_requests(self, count: int, timeout: float = 5.0) -> list[RecordedRequest]:
        """Wait for `count` requests in all, and return those so far.

        Raises ``TimeoutError``, which shows the log, after `timeout` seconds.
        """
        self.wait_until(lambda: len(self._requests) >= count, f"{count} requests", timeout)
        return self.requests

    def wait_outcome(self, index: int, timeout: float = 5.0) -> Outcome:
        """Wait until the answer to request `index` (from 0; it may yet have to arrive) has ended, return how.

        A stalled answer has not ended before the client has gone or the server stopped. Raises
        ``TimeoutError``, which shows the log, after `timeout` seconds.
        """
        if index < 0:
            raise ValueError(f"index counts the requests from 0 in order of arrival; it cannot be {index}")
        self.wait_until(lambda: self._has_ended(index), f"the end of answer {index}", timeout)
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
            path=path_of(target),
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
        reply = error_reply(status, message, 0)
        reply.headers.append((b"connection", b"close"))
        return reply

    def _choose(self, record: RecordedRequest, number: int) -> Reply:
        incoming = Incoming(record=record, number=number, site_url=self.site_url)
        endpoint = self._endpoint(incoming)
        refusal = self._refusal(incoming, endpoint)
        if refusal is not None:
            return refusal
        place = self._place(incoming, endpoint)
        answer = _DEFAULT
        if place is not None:
            answer = self._planned[place]
            del self._planned[place]
        if answer.new_token is not None:
            self._site.add(answer.new_token)
        return self._answer(incoming, endpoint, answer)

    def _endpoint(self, incoming: Incoming) -> str | None:
        """What is asked for, or None for what the server does not know."""
        for end in _METHODS:
            if incoming.route.endswith(end):
                return end
        if file_index(incoming.record.path) is not None:
            return _FILE
        if incoming.route == self._page:
            return _PAGE
        # With another method it is nothing that the server knows: other APIs have such paths.
        return _MODEL if incoming.record.method == "GET" and model_id(incoming.record.path) is not None else None

    def _place(self, incoming: Incoming, endpoint: str | None) -> int | None:
        """Where in the plan its answer is."""
        for place, answer in enumerate(self._planned):
            if endpoint in _PLANNED if answer.to is None else incoming.route.endswith(answer.to):
                return place
        return None

    def _refusal(self, incoming: Incoming, endpoint: str | None) -> Reply | None:
        """The reply to a request that takes no answer."""
        record, number = incoming.record, incoming.number
        if endpoint is None:
            if self._place(incoming, endpoint) is not None:
                return None
            if is_rest(incoming):
                return self._site.no_route(incoming)
            return error_reply(404, f"Unknown request URL: {record.method} {record.path}.", number)
        method = _METHODS.get(endpoint, "GET")
        if record.method != method:
            if endpoint in (_SUBMIT, _SESSION):
                return self._site.no_route(incoming)
            message = f"Not allowed to {record.method} on {record.path}; use {method}."
            return error_reply(405, message, number, allow=method)
        if endpoint in _WITH_KEY and not self._may(record):
            return error_reply(401, "Incorrect API key provided.", number)
        if endpoint in (_SUBMIT, _SESSION):
            return self._site.refusal(incoming, starts=endpoint == _SESSION)
        return None

    def _answer(self, incoming: Incoming, endpoint: str | None, answer: Answer) -> Reply:
        number = incoming.number
        if endpoint == _SUBMIT:
            return self._site.submit_reply(answer, incoming, self._tokens, self._pace)
        if endpoint == _SESSION:
            return self._site.session_reply(answer, incoming, self._pace)
        if endpoint == _PAGE:
            return self._site.page_reply(answer, incoming, self._pace)
        if is_whole(answer):
            return openai_format(number).whole(answer, self._pace)
        if endpoint == _MODELS:
            return models_reply(answer, self._models, self._created, number)
        if endpoint == _MODEL:
            wanted = model_id(incoming.record.path)
            assert wanted is not None
            return model_reply(answer, wanted, self._models, self._created, number)
        if endpoint == _FILE:
            return file_reply(answer, incoming)
        try:
            if endpoint == _IMAGES:
                return images_reply(answer, incoming)
            chat = Chat.parse(incoming.record.body, number, self._model)
        except BadRequest as error:
            return error_reply(400, str(error), number, param=error.param)
        return chat_reply(answer, chat, number, self._tokens, self._pace)

    def _may(self, record: RecordedRequest) -> bool:
        if self._api_key is None:
            return True
        scheme, _, key = (record.header("authorization") or "").partition(" ")
        given = [record.header("api-key") or ""]
        if scheme.lower() == "bearer":
            given.append(key.strip())
        # A header field's bytes were read as Latin-1; a key beyond ASCII is compared as the UTF-8 it came as.
        wanted = self._api_key.encode()
        return any(hmac.compare_digest(each.encode("latin-1"), wanted) for each in given)


def _entry(model: str | Mapping[str, Any]) -> dict[str, Any]:
    entry = {"id": model} if isinstance(model, str) else dict(model)
    if not isinstance(entry.get("id"), str):
        raise ValueError(f'models are ids, or objects with an "id", not {model!r}; use Answer(json=...) for others')
    return entry


def _new_nonce() -> str:
    """Ten hexadecimal digits, as WordPress's are; no two servers share one."""
    return secrets.token_hex(5)
