"""The OpenAI dialect of replies: delta chunks, whole JSON replies, errors in the stream, ``[DONE]``.

Sources: OpenAI's API reference ("Chat streaming", "The chat completion object", "Error codes") and
what real servers send instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import astuple

from .._json import NOT_TYPED, clean, is_dense, loads, loads_keeping_surrogates
from ..accumulate import PACKED
from ..chunks import (
    ChatCompletion,
    ChatCompletionChunk,
    ChunkChoice,
    Delta,
    Model,
    ModelList,
    ToolCallDelta,
    keep_choice_payload,
    keep_payload,
    one_reasoning,
)
from ..lenient import HalfJoiner, build, build_with_extra
from ..objects import keep_whole_payload, same_origin
from ..status import ErrorObject, error_object, tells_error
from .signals import DONE, TOO_MANY, BadEvent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..accumulate import Accumulator
    from ..chunks import Choice
    from .signals import Signal

_decode_chunk = msgspec.json.Decoder(ChatCompletionChunk).decode
_decode_completion = msgspec.json.Decoder(ChatCompletion).decode

_CHUNK = "chat.completion.chunk"


class OpenAIEvents:
    """Reads the events of one reply, one after the other, and folds their chunks as it goes."""

    __slots__ = ("_accumulator", "_halves")

    def __init__(self, accumulator: Accumulator) -> None:
        self._accumulator = accumulator
        self._halves: HalfJoiner | None = None

    def read(self, payloads: Iterable[bytes], into: list[Any], event: bytes = b"") -> Signal | None:
        """Read the data of events of this name, in order, and append their chunks.

        Gives what stopped the reading, if anything did: the end marker, or an error (an event may
        carry both choices and an error: then its chunk is appended, too).

        The loop is written for the one shape that nearly all events have: one choice, with a delta of
        text. `astuple` because attribute access is slow on classes that have a ``__getattr__``.
        """
        accumulator = self._accumulator
        texts, most = accumulator.texts, accumulator.most
        contents = 0
        signal: Signal | None = None
        # As `_is_odd`.
        odd = self._halves is not None or event == b"error" or not accumulator.named
        for data in payloads:
            if len(data) > most and is_dense(data, most):
                signal = TOO_MANY
                break
            try:
                chunk = _decode_chunk(data)
            except NOT_TYPED:
                if (signal := self._read_odd(data, event, into)) is not None:
                    break
                odd = self._is_odd(event)
                continue
            _, choices, _, _, kind, _, _, usage, error = astuple(chunk)
            if odd or usage is not None or error is not None or kind != _CHUNK or len(choices) != 1:
                if (signal := self._take(chunk, data, event, into)) is not None:
                    break
                odd = self._is_odd(event)
                continue
            choice = choices[0]
            delta, index, finish_reason, logprobs = astuple(choice)
            content, role, refusal, tool_calls, function_call, audio, reasoning, other = astuple(delta)
            if content is None and b'"message"' in data:
                if (signal := self._take(chunk, data, event, into)) is not None:
                    break
                continue
            chunk._raw = choice._raw = delta._raw = data
            into.append(chunk)
            if (
                finish_reason or role or reasoning or tool_calls or other or logprobs
                or refusal or function_call or audio or content is None or index not in texts
            ):  # fmt: skip
                keep_choice_payload(choice, data, 0)
                accumulator.add(chunk)
                if accumulator.opened > most:
                    signal = TOO_MANY
                    break
            else:
                texts[index].append(content)
                accumulator.last = chunk
                if content:
                    contents += 1
        if contents:
            accumulator.contents += contents
            if accumulator.contents % PACKED < contents:
                accumulator.pack()
        return signal

    def _is_odd(self, event: bytes) -> bool:
        """Whether the next chunk needs more than the short way: halves to join, an error to find, the reply's
        name to learn."""
        return self._halves is not None or event == b"error" or not self._accumulator.named

    def _take(self, chunk: ChatCompletionChunk, data: bytes, event: bytes, into: list[Any]) -> Signal | None:
        """A chunk that is not of the usual shape."""
        # "message", "error_message", "detail".
        tells = not chunk.choices and chunk.usage is None and (b'message"' in data or b'"detail"' in data)
        if tells or chunk.error is not None or chunk.object == "error" or event == b"error":
            try:
                value = loads(data)
                # An event that has choices, be they none, is a chunk: Azure's first one.
                flat = event == b"error" or (tells_error(value) and value.get("choices") is None)
                error = error_object(value, flat=flat)
            except ValueError as problem:
                return BadEvent(data, f"can't be read ({problem})")
            if error is not None:
                if chunk.choices:
                    keep_payload(chunk, data)
                    self._accumulator.add(chunk)
                    into.append(chunk)
                return error
            chunk.error = None
        keep_payload(chunk, data)
        if chunk.choices and _is_whole(data):
            # A whole reply, sent as the only event of a stream.
            try:
                whole = read_completion(data)
            except ValueError as problem:
                return BadEvent(data, f"can't be read ({problem})")
            chunk = chunk if whole is None else chunk_of(whole)
        if self._halves is not None:
            self._halves.join(chunk)
        self._accumulator.add(chunk)
        into.append(chunk)
        return TOO_MANY if self._accumulator.opened > self._accumulator.most else None

    def _read_odd(self, data: bytes, event: bytes, into: list[Any]) -> Signal | None:
        """Data that the typed decoder does not take: the end marker, a keep-alive, odd or broken JSON."""
        text = data.strip()
        if text == b"[DONE]":
            return DONE
        if not text:
            return None
        try:
            value = loads_keeping_surrogates(data)
        except ValueError as error:
            if event == b"error":
                return ErrorObject(data.decode("utf-8", "replace"))
            return BadEvent(data, f"is no JSON ({error})")
        if not isinstance(value, dict):
            return error_object(clean(value), flat=event == b"error") or BadEvent(data, "is no JSON object")
        if self._halves is None:
            self._halves = HalfJoiner()
        chunk = build(ChatCompletionChunk, value)
        return self._take(chunk, data, event, into)

    def flush(self, into: list[Any]) -> None:
        """The reply has ended: append a chunk with the text that was held back, if there is any."""
        if self._halves:
            choices = [ChunkChoice(index=index, delta=delta) for index, delta in self._halves.flush()]
            chunk = ChatCompletionChunk(choices=choices)
            self._accumulator.add(chunk)
            into.append(chunk)


def _choices(data: bytes) -> tuple[Any, list[dict[str, Any]]]:
    """A document, and the choices in it; none in what can't be read, or is no object."""
    try:
        value = loads(data)
    except ValueError:
        return None, []
    choices = value.get("choices") if isinstance(value, dict) else None
    return value, [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _is_whole(data: bytes) -> bool:
    """Whether the choices of an event are those of a whole reply: with messages, and no delta, be it empty. (Each of
    them knows its fields, too, but looks through all of the payload for them.)"""
    if b'"delta"' not in data:
        return b'"message"' in data
    _, choices = _choices(data)
    messages, deltas = (any(each.get(name) is not None for each in choices) for name in ("message", "delta"))
    return messages and not deltas


def _with_messages(body: bytes) -> bytes:
    """A whole reply. Where it is a chunk, whose choices have deltas and no messages: the reply that says the same."""
    if b'"delta"' not in body:
        return body
    value, choices = _choices(body)
    bare = [each for each in choices if isinstance(each.get("delta"), dict) and not each.get("message")]
    if not bare:
        return body
    for choice in bare:
        choice["message"] = choice.pop("delta")
    value["object"] = "chat.completion"
    # As `loads` hardly ever needs it. (Not msgspec's: it makes a null of Infinity.)
    import json

    return json.dumps(value).encode()


def read_completion(body: bytes) -> ChatCompletion | None:
    """A whole reply, or None when the document is JSON but no completion (no list of choices).

    Raises ``ValueError`` when it is no JSON.
    """
    body = _with_messages(body)
    try:
        whole = _decode_completion(body)
    except NOT_TYPED:
        value = loads(body)
        if not isinstance(value, dict):
            return None
        whole = build(ChatCompletion, value)
    if not whole.choices:
        return None
    if len({choice.index for choice in whole.choices}) < len(whole.choices):
        # Servers leave the index out, or say the same for all: folded by it they would become one text.
        for position, choice in enumerate(whole.choices):
            choice.index = position
    keep_whole_payload(whole, body)
    for choice in whole.choices:
        one_reasoning(choice.message)
    return whole


def error_in_document(body: bytes) -> ErrorObject | None:
    """The error that a whole JSON document with status 200 is, or None."""
    value = loads(body)
    # Some servers answer every error with 200.
    return error_object(value, flat=tells_error(value))


def chunk_of(whole: ChatCompletion) -> ChatCompletionChunk:
    """A whole reply as the one chunk that says the same."""
    chunk = ChatCompletionChunk(
        id=whole.id,
        created=whole.created,
        model=whole.model,
        service_tier=whole.service_tier,
        system_fingerprint=whole.system_fingerprint,
        usage=whole.usage,
        choices=[_chunk_choice(choice) for choice in whole.choices],
    )
    same_origin(whole, chunk)
    return chunk


def _chunk_choice(choice: Choice) -> ChunkChoice:
    message = choice.message
    calls: list[ToolCallDelta] | None = None
    if message.tool_calls is not None:
        calls = []
        for position, call in enumerate(message.tool_calls):
            fragment = ToolCallDelta(index=position, id=call.id, type=call.type, function=call.function)
            same_origin(call, fragment)
            calls.append(fragment)
    delta = Delta(
        role=message.role,
        content=message.content,
        refusal=message.refusal,
        tool_calls=calls,
        function_call=message.function_call,
        audio=message.audio,
        reasoning_content=message.reasoning_content,
        reasoning=message.reasoning,
    )
    same_origin(message, delta)
    new = ChunkChoice(index=choice.index, delta=delta, finish_reason=choice.finish_reason, logprobs=choice.logprobs)
    same_origin(choice, new)
    return new


def read_models(body: bytes) -> ModelList | None:
    """The reply to ``GET /models``: ``{"data": [...]}``, a bare list, or ``{"models": [...]}``.

    A model without an ``id`` (Ollama, Cohere) gets what it has as ``model`` or ``name`` instead. None when the
    document is JSON and none of these; ``ValueError`` when it is no JSON.
    """
    value, rest = loads(body), {}
    if isinstance(value, dict):
        rest = {key: held for key, held in value.items() if key not in ("data", "models")}
        says_list = value.get("object") == "list" and "data" in value
        value = value.get("data") or value.get("models", value.get("data"))
        if value is None and says_list:
            # An empty one, as Go writes it.
            value = []
    if not isinstance(value, list):
        return None
    models = build_with_extra(ModelList, rest)
    # Built one by one: found in the kept bytes, as elsewhere, vendor fields would cost each model a look at all.
    items = ({"id": item} if isinstance(item, str) else item for item in value)
    models.data = [_model(item) for item in items if isinstance(item, dict)]
    return models


def _model(item: dict[str, Any]) -> Model:
    model = build_with_extra(Model, item)
    if not model.id:
        model.id = next((name for key in ("model", "name") if isinstance(name := item.get(key), str) and name), "")
    return model
