"""From an answer to a reply, whatever was asked: its header fields, its framing, and the bodies that are whole
in themselves. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ._wire import Piece, Reply
from .answers import Answer, Failure, encode_headers
from .records import RecordedRequest

_DEFAULT_FAILURE = Failure(message="The test asked for this error.")


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """One request, as those who reply to it see it."""

    record: RecordedRequest
    number: int
    """Which of the server's requests it is, from 1."""
    site_url: str
    """The server's own URL, without a path."""

    @property
    def rest_route(self) -> str | None:
        """WordPress's route, if it was given as a parameter: ``/?rest_route=/mwai/v1/start_session``."""
        routes = parse_qs(self.record.target.partition("?")[2]).get("rest_route")
        return routes[-1] if routes else None

    @property
    def route(self) -> str:
        """What it asks for: the path, or WordPress's route."""
        return self.rest_route or self.record.path


@dataclass(frozen=True, kw_only=True)
class Format:
    """How one kind of server writes what it replies."""

    json_type: str
    stream_type: str
    fields: Sequence[tuple[str, str]]
    """The header fields beside Content-Type, if the answer has none of these names."""
    stream_fields: Sequence[tuple[str, str]] = ()
    """Those that only a stream has."""
    encode: Callable[[Any], bytes]
    error: Callable[[int, Failure], Any]
    """The body of an error with that status, not encoded yet."""

    def document(self, answer: Answer, value: Any) -> Reply:
        """A JSON document."""
        return self.reply(answer, self.json_type, [Piece(self.encode(value))])

    def stream(self, answer: Answer, pieces: Iterable[Piece], pace: float) -> Reply:
        """An event stream, as fast as the answer says or else `pace`."""
        reply = self.reply(answer, self.stream_type, pieces, self.stream_fields)
        reply.framing = answer.framing or "chunked"
        reply.pace = pace if answer.pace is None else answer.pace
        return reply

    def whole(self, answer: Answer, pace: float) -> Reply:
        """The reply for an answer that `is_whole`."""
        if answer.raw is not None:
            words = answer.raw[:12].split(b" ")
            known = len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit()
            reply = self.reply(answer, self.json_type, [])
            reply.raw, reply.keep_open = answer.raw, answer.keep_open
            reply.status = int(words[1]) if known else None
            return reply
        if answer.events is not None:
            pieces = [Piece(data, step, True) for step, data in enumerate(answer.events) if data]
            reply = self.stream(answer, pieces, pace)
            reply.apart = True
            return reply
        if answer.body is not None:
            return self.reply(answer, self.json_type, [Piece(answer.body)])
        if answer.json is not None:
            return self.document(answer, answer.json)
        return self.document(answer, self.error(answer.status, answer.failure or _DEFAULT_FAILURE))

    def reply(
        self, answer: Answer, content_type: str, pieces: Iterable[Piece], more: Sequence[tuple[str, str]] = ()
    ) -> Reply:
        """A body of any type, framed by its length unless the answer says otherwise."""
        extra = answer.all_headers()
        replaced = {name.lower() for name, _ in extra}
        own = [("content-type", content_type), *self.fields, *more]
        headers = [field for field in own if field[0].lower() not in replaced] + extra
        return Reply(
            status=answer.status,
            headers=encode_headers(headers),
            pieces=pieces,
            framing=answer.framing or "length",
            delay=answer.delay,
            cut_after=answer.cut_after,
            ending=answer.ending,
        )


def is_whole(answer: Answer) -> bool:
    """Whether the answer is complete in itself, so that the request's body does not matter."""
    if any(value is not None for value in (answer.failure, answer.json, answer.body, answer.events, answer.raw)):
        return True
    said = (answer.tokens, answer.reasoning, answer.tool_calls)
    return answer.status >= 400 and all(value is None for value in said)


def path_of(target: str) -> str:
    """The path of an origin-form ("/v1/models?x") or absolute-form ("http://host/v1/models") target."""
    if target.startswith("/"):
        return target.partition("?")[0]
    try:
        return urlsplit(target).path
    except ValueError:
        return target


def count_words(messages: Any) -> int:
    """The words in every text of the messages: no tokenizer's count, but a number a test can foretell."""
    words = 0
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        parts = content if isinstance(content, list) else [{"text": content}]
        for part in parts:
            text = part.get("text") if isinstance(part, dict) else None
            words += len(text.split()) if isinstance(text, str) else 0
    return words
