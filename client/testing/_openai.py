"""What a server that speaks OpenAI's chat completions says. Pure: from a request and an answer to a reply."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ._wire import Piece, Reply
from .answers import Answer, encode_headers, error_body

JSON_TYPE = "application/json"
STREAM_TYPE = "text/event-stream; charset=utf-8"
_FINGERPRINT = "fp_deltawire"
_MAX_CHOICES = 128

# One encoder for all: `json.dumps` makes one per call, which doubles the price of a small chunk.
_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class BadRequest(Exception):
    """The request is answered with 400 and this message; `param` is the field at fault."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, kw_only=True)
class Chat:
    """What a request body asks for."""

    id: str
    model: str
    stream: bool
    include_usage: bool
    choices: int
    prompt_tokens: int

    @classmethod
    def parse(cls, body: bytes, number: int, default_model: str) -> Chat:
        """Read a request body. `number` makes the id. Raises `BadRequest`."""
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"The body is not JSON: {error}") from None
        if not isinstance(asked, dict):
            raise BadRequest("The body is JSON, but no object.")
        choices = asked.get("n")
        if choices is None:
            choices = 1
        if type(choices) is not int or not 1 <= choices <= _MAX_CHOICES:
            raise BadRequest(f"n is a whole number from 1 to {_MAX_CHOICES}.", "n")
        options = asked.get("stream_options")
        model = asked.get("model")
        return cls(
            id=f"chatcmpl-{number}",
            model=model if isinstance(model, str) else default_model,
            stream=asked.get("stream") is True,
            include_usage=isinstance(options, dict) and options.get("include_usage") is True,
            choices=choices,
            prompt_tokens=_count_words(asked.get("messages")),
        )


def is_whole(answer: Answer) -> bool:
    """Whether the answer is complete in itself, so that the request's body does not matter."""
    own = (answer.json, answer.body, answer.events, answer.raw)
    return (answer.status >= 400 and answer.tokens is None) or any(value is not None for value in own)


def whole_reply(answer: Answer, request_id: str, pace: float) -> Reply:
    """The reply for an answer that `is_whole`."""
    if answer.raw is not None:
        words = answer.raw[:12].split(b" ")
        known = len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit()
        reply = _reply(answer, request_id, JSON_TYPE, [])
        reply.raw, reply.keep_open = answer.raw, answer.keep_open
        reply.status = int(words[1]) if known else None
        return reply
    if answer.events is not None:
        pieces = [Piece(data, step, True) for step, data in enumerate(answer.events) if data]
        reply = _reply(answer, request_id, STREAM_TYPE, pieces, streamed=True)
        reply.pace = pace if answer.pace is None else answer.pace
        reply.apart = True
        return reply
    if answer.body is not None:
        return _reply(answer, request_id, JSON_TYPE, [Piece(answer.body)])
    body = answer.json
    if body is None:
        body = error_body(answer.status, "The test asked for this error.")
    return _reply(answer, request_id, JSON_TYPE, [Piece(dump(body))])


def chat_reply(answer: Answer, chat: Chat, request_id: str, tokens: Sequence[str], pace: float) -> Reply:
    """A completion: a stream of chunks if the client asked for one, else one document."""
    if answer.tokens is not None:
        tokens = answer.tokens
    created = int(time.time())
    usage = _usage(chat, len(tokens)) if answer.usage is None else answer.usage
    if not chat.stream:
        body = _completion(answer, chat, created, tokens, usage)
        return _reply(answer, request_id, JSON_TYPE, [Piece(dump(body))])
    pieces = _chunks(answer, chat, created, tokens, usage)
    reply = _reply(answer, request_id, STREAM_TYPE, pieces, streamed=True)
    reply.pace = pace if answer.pace is None else answer.pace
    return reply


def models_reply(answer: Answer, model: str, created: int, request_id: str) -> Reply:
    """The list of models, which has one."""
    entry = {"id": model, "object": "model", "created": created, "owned_by": "deltawire"}
    return _reply(answer, request_id, JSON_TYPE, [Piece(dump({"object": "list", "data": [entry]}))])


def error_reply(status: int, message: str, request_id: str, *, param: str | None = None, allow: str = "") -> Reply:
    """An error of the server's own."""
    answer = Answer(
        status=status,
        json=error_body(status, message, param=param),
        headers=[("allow", allow)] if allow else [],
    )
    return whole_reply(answer, request_id, 0.0)


def dump(value: Any) -> bytes:
    """Compact JSON in UTF-8, as OpenAI writes it."""
    try:
        return _compact(value).encode()
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can carry
        return json.dumps(value, separators=(",", ":")).encode()


def _reply(
    answer: Answer,
    request_id: str,
    content_type: str,
    pieces: Sequence[Piece] | Iterator[Piece],
    streamed: bool = False,
) -> Reply:
    own = [("content-type", content_type), ("x-request-id", request_id)]
    extra = answer.all_headers()
    replaced = {name.lower() for name, _ in extra}
    headers = [field for field in own if field[0] not in replaced] + extra
    return Reply(
        status=answer.status,
        headers=encode_headers(headers),
        pieces=pieces,
        framing=answer.framing or ("chunked" if streamed else "length"),
        delay=answer.delay,
        cut_after=answer.cut_after,
        ending=answer.ending,
    )


def _chunks(
    answer: Answer, chat: Chat, created: int, tokens: Sequence[str], usage: Mapping[str, Any]
) -> Iterator[Piece]:
    """The events of a stream. With several choices, each token comes once per choice before the next one."""
    with_usage = chat.include_usage or answer.usage is not None
    head = {
        "id": chat.id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": chat.model,
        "system_fingerprint": _FINGERPRINT,
    }
    # Only "choices" differs from chunk to chunk, and a test may stream thousands at full speed: the rest is
    # written as JSON once, and each chunk is put between the two halves.
    before = b"data: " + dump(head)[:-1] + b',"choices":'
    after = (b',"usage":null}' if with_usage else b"}") + b"\n\n"

    def chunk(index: int, delta: dict[str, str], reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return before + dump([choice]) + after

    choices = range(chat.choices)
    for index in choices:
        yield Piece(chunk(index, {"role": "assistant", "content": ""}))
    step = 0
    for step, token in enumerate(tokens):
        for index in choices:
            yield Piece(chunk(index, {"content": token}), step, True)
    if answer.finish_reason is not None:
        for index in choices:
            yield Piece(chunk(index, {}, answer.finish_reason), step)
    if with_usage:
        yield Piece(before + b'[],"usage":' + dump(usage) + b"}\n\n", step)
    if answer.done:
        yield Piece(b"data: [DONE]\n\n", step)


def _completion(
    answer: Answer, chat: Chat, created: int, tokens: Sequence[str], usage: Mapping[str, Any]
) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(tokens), "refusal": None}
    return {
        "id": chat.id,
        "object": "chat.completion",
        "created": created,
        "model": chat.model,
        "choices": [
            {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
            for index in range(chat.choices)
        ],
        "usage": usage,
        "system_fingerprint": _FINGERPRINT,
    }


def _usage(chat: Chat, tokens: int) -> dict[str, int]:
    completion = tokens * chat.choices
    return {
        "prompt_tokens": chat.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": chat.prompt_tokens + completion,
    }


def _count_words(messages: Any) -> int:
    """The words in every text of the messages: no tokenizer's count, but a number a test can foretell."""
    words = 0
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        parts = content if isinstance(content, list) else [{"text": content}]
        for part in parts:
            text = part.get("text") if isinstance(part, dict) else None
            words += len(text.split()) if isinstance(text, str) else 0
    return words
