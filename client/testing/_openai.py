"""What a server that speaks OpenAI's chat completions says. Pure: from a request and an answer to a reply."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from ._replies import Format, count_words
from ._wire import Piece, Reply
from .answers import Answer, Failure

JSON_TYPE = "application/json"
STREAM_TYPE = "text/event-stream; charset=utf-8"
_FINGERPRINT = "fp_deltawire"
_MAX_CHOICES = 128

# What OpenAI says for these; every other status follows from its class.
_ERROR_KINDS: dict[int, tuple[str, str | None]] = {
    401: ("invalid_request_error", "invalid_api_key"),
    429: ("requests", "rate_limit_exceeded"),
}

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
        asked = parse_object(body)
        choices = count_of(asked, _MAX_CHOICES)
        options = asked.get("stream_options")
        model = asked.get("model")
        return cls(
            id=f"chatcmpl-{number}",
            model=model if isinstance(model, str) else default_model,
            stream=asked.get("stream") is True,
            include_usage=isinstance(options, dict) and options.get("include_usage") is True,
            choices=choices,
            prompt_tokens=count_words(asked.get("messages")),
        )


def parse_object(body: bytes) -> dict[str, Any]:
    """A body that must be a JSON object. Raises `BadRequest`."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The body is not JSON: {error}") from None
    if not isinstance(asked, dict):
        raise BadRequest("The body is JSON, but no object.")
    return asked


def count_of(asked: Mapping[str, Any], most: int) -> int:
    """How many choices or images are asked for. Raises `BadRequest`."""
    count = asked.get("n")
    if count is None:
        return 1
    if type(count) is not int or not 1 <= count <= most:
        raise BadRequest(f"n is a whole number from 1 to {most}.", "n")
    return count


def openai_format(number: int) -> Format:
    """How an OpenAI-compatible server writes its reply to request `number`."""
    return Format(
        json_type=JSON_TYPE,
        stream_type=STREAM_TYPE,
        fields=[("x-request-id", f"req_{number}")],
        encode=dump,
        error=_error_body,
    )


def chat_reply(answer: Answer, chat: Chat, number: int, tokens: Sequence[str], pace: float) -> Reply:
    """A completion: a stream of chunks if the client asked for one, else one document."""
    if answer.tokens is not None:
        tokens = answer.tokens
    elif answer.tool_calls:
        tokens = ()
    created = int(time.time())
    deltas = list(_deltas(answer, tokens, number))
    usage = _usage(chat, len(deltas), answer.reasoning) if answer.usage is None else answer.usage
    if chat.stream:
        return openai_format(number).stream(answer, _chunks(answer, chat, created, deltas, usage), pace)
    return openai_format(number).document(answer, _completion(answer, chat, created, tokens, usage, number))


def models_reply(answer: Answer, models: Sequence[Mapping[str, Any]], created: int, number: int) -> Reply:
    """The list of models."""
    data = [_model(model, created) for model in models]
    return openai_format(number).document(answer, {"object": "list", "data": data})


def model_id(path: str) -> str | None:
    """The model that a path asks about, or None if it asks about none. (A slash in it may stand as it is.)"""
    _, slash, name = path.partition("/models/")
    return unquote(name) if slash and name else None


def model_reply(answer: Answer, wanted: str, models: Sequence[Mapping[str, Any]], created: int, number: int) -> Reply:
    """One model."""
    for model in models:
        if model["id"] == wanted:
            return openai_format(number).document(answer, _model(model, created))
    message = f"The model '{wanted}' does not exist."
    return error_reply(404, message, number, param="model", code="model_not_found")


def _model(model: Mapping[str, Any], created: int) -> dict[str, Any]:
    """What it says of itself goes before what is said of every one."""
    return {"id": model["id"], "object": "model", "created": created, "owned_by": "deltawire", **model}


def error_reply(
    status: int, message: str, number: int, *, param: str | None = None, code: str | None = None, allow: str = ""
) -> Reply:
    """An error of the server's own."""
    answer = Answer(
        status=status,
        failure=Failure(message=message, param=param, code=code),
        headers=[("allow", allow)] if allow else [],
    )
    return openai_format(number).whole(answer, 0.0)


def dump(value: Any) -> bytes:
    """Compact JSON in UTF-8, as OpenAI writes it."""
    try:
        return _compact(value).encode()
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can carry
        return json.dumps(value, separators=(",", ":")).encode()


def _error_body(status: int, failure: Failure) -> dict[str, Any]:
    usual = ("server_error" if status >= 500 else "invalid_request_error", None)
    usual_type, usual_code = _ERROR_KINDS.get(status, usual)
    return {
        "error": {
            "message": failure.message,
            "type": usual_type if failure.type is None else failure.type,
            "param": failure.param,
            "code": usual_code if failure.code is None else failure.code,
        }
    }


def argument_pieces(call: Mapping[str, Any]) -> Sequence[str]:
    """The arguments of a call, in the pieces in which they are streamed."""
    arguments = call.get("arguments", {})
    if isinstance(arguments, str):
        return (arguments,)
    return (_compact(arguments),) if isinstance(arguments, Mapping) else arguments


def call_id(call: Mapping[str, Any], number: int, index: int) -> Any:
    """The id of a call: its own, or one that no other has."""
    return call.get("id", f"call_{number}_{index}")


def _deltas(answer: Answer, tokens: Sequence[str], number: int) -> Iterator[dict[str, Any]]:
    """What a stream adds, chunk by chunk, between the role and the finish reason."""
    for token in answer.reasoning or ():
        yield {"reasoning_content": token}
    for token in tokens:
        yield {"content": token}
    for index, call in enumerate(answer.tool_calls or ()):
        function = {"name": call["name"], "arguments": ""}
        yield {"tool_calls": [{"index": index, **_call(call, number, index, function)}]}
        for piece in argument_pieces(call):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _call(call: Mapping[str, Any], number: int, index: int, function: Mapping[str, str]) -> dict[str, Any]:
    return {"id": call_id(call, number, index), "type": "function", "function": function}


def _chunks(
    answer: Answer, chat: Chat, created: int, deltas: Sequence[Mapping[str, Any]], usage: Mapping[str, Any]
) -> Iterator[Piece]:
    """The events of a stream. With several choices, each delta comes once per choice before the next one."""
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

    def chunk(index: int, delta: Mapping[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return before + dump([choice]) + after

    choices = range(chat.choices)
    for index in choices:
        yield Piece(chunk(index, {"role": "assistant", "content": None if answer.tool_calls else ""}))
    step = 0
    for step, delta in enumerate(deltas):
        for index in choices:
            yield Piece(chunk(index, delta), step, True)
    if answer.finish_reason is not None:
        for index in choices:
            yield Piece(chunk(index, {}, answer.finish_reason), step)
    if with_usage:
        yield Piece(before + b'[],"usage":' + dump(usage) + b"}\n\n", step)
    if answer.done:
        yield Piece(b"data: [DONE]\n\n", step)


def _completion(
    answer: Answer, chat: Chat, created: int, tokens: Sequence[str], usage: Mapping[str, Any], number: int
) -> dict[str, Any]:
    text = "".join(tokens)
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if answer.reasoning is not None:
        message["reasoning_content"] = "".join(answer.reasoning)
    if answer.tool_calls:
        message["content"] = text or None
        message["tool_calls"] = [
            _call(call, number, index, {"name": call["name"], "arguments": "".join(argument_pieces(call))})
            for index, call in enumerate(answer.tool_calls)
        ]
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


def _usage(chat: Chat, deltas: int, reasoning: Sequence[str] | None) -> dict[str, Any]:
    completion = deltas * chat.choices
    usage: dict[str, Any] = {
        "prompt_tokens": chat.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": chat.prompt_tokens + completion,
    }
    if reasoning is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": len(reasoning) * chat.choices}
    return usage
