"""The typed objects of a chat: chunks, completions, models. OpenAI's field names and attribute access.

Names and meaning are those of OpenAI's API reference, "Chat completion chunk object" and "Chat
completion object"; every field may be absent, since servers leave out what they like. What they add
is kept: see ``objects.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from .objects import Answer, Object, keep_inside

if TYPE_CHECKING:
    from collections.abc import Iterator


class TopLogprob(Object):
    """One of the likeliest tokens at a position."""

    token: str = ""
    logprob: float = 0.0
    bytes: list[int] | None = None


class TokenLogprob(Object):
    """A token of the output with its log probability."""

    token: str = ""
    logprob: float = 0.0
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprob] | None = None


class Logprobs(Object):
    """Log probabilities of content and refusal tokens."""

    _path = ("choices", 0, "logprobs")
    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None


class Function(Object):
    """Name and arguments (JSON text, in deltas a fragment of it) of a call."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(Object):
    """A fragment of a tool call. ``index`` says which call of the choice it belongs to."""

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: Function | None = None


class ToolCall(Object):
    """A whole tool call of a message."""

    id: str | None = None
    type: str | None = None
    function: Function = msgspec.field(default_factory=Function)


class Audio(Object):
    """Audio output, base64 in ``data`` (in deltas a fragment)."""

    id: str | None = None
    data: str | None = None
    transcript: str | None = None
    expires_at: int | None = None


class Delta(Object):
    """What a chunk adds to a message."""

    _path = ("choices", 0, "delta")
    content: str | None = None
    role: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    function_call: Function | None = None
    audio: Audio | None = None
    reasoning_content: str | None = None
    """The model's reasoning, under whichever of its two names the server sends it."""
    reasoning: Any = None
    """The same as some servers (vLLM, OpenRouter) name it; what they sent, untouched."""


class Message(Object):
    """A whole message of the assistant. May be appended to the ``messages`` of a next request."""

    _path = ("choices", 0, "message")
    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None
    audio: Audio | None = None
    reasoning_content: str | None = None
    reasoning: Any = None


class ChunkChoice(Object):
    """One of the ``n`` choices, in a chunk."""

    _path = ("choices", 0)
    delta: Delta = msgspec.field(default_factory=Delta)
    index: int = 0
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class Choice(Object):
    """One of the ``n`` choices, in a completion."""

    _path = ("choices", 0)
    message: Message = msgspec.field(default_factory=Message)
    index: int = 0
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class PromptTokensDetails(Object):
    """Of the prompt's tokens."""

    _path = ("usage", "prompt_tokens_details")
    audio_tokens: int | None = None
    cached_tokens: int | None = None


class CompletionTokensDetails(Object):
    """Of the completion's tokens."""

    _path = ("usage", "completion_tokens_details")
    accepted_prediction_tokens: int | None = None
    audio_tokens: int | None = None
    reasoning_tokens: int | None = None
    rejected_prediction_tokens: int | None = None


class Usage(Object):
    """Tokens counted by the server."""

    _path = ("usage",)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None


class ChatCompletionChunk(Answer):
    """One event of a streamed reply: the unit of streaming in every dialect."""

    id: str = ""
    choices: list[ChunkChoice] = []  # noqa: RUF012 - msgspec copies it
    created: int = 0
    """Unix time, in seconds."""
    model: str = ""
    # A Literal decodes to one shared string; any other word takes the lenient way, and stays as it is.
    object: Literal["chat.completion.chunk", "chat.completion", "error", ""] = "chat.completion.chunk"
    service_tier: str | None = None
    system_fingerprint: str | None = None
    usage: Usage | None = None

    error: Any = None
    """An error beside the choices, as OpenRouter sends it; the reply fails right after this chunk."""


class StatusChunk(ChatCompletionChunk):
    """A line of a site's event log (the Opchatgpts protocol), between the chunks of the answer and no part of it.

    What the line says are vendor fields: ``subtype`` ("status", "thinking", "tool_call"...), ``data`` (its text),
    ``metadata``, ``visibility``, ``timestamp``. Its one choice says nothing: whoever prints
    ``chunk.choices[0].delta.content or ""`` need not know of it.
    """

    choices: list[ChunkChoice] = msgspec.field(default_factory=lambda: [ChunkChoice()])


class ChatCompletion(Answer):
    """A whole reply."""

    id: str = ""
    choices: list[Choice] = []  # noqa: RUF012 - msgspec copies it
    created: int = 0
    """Unix time, in seconds."""
    model: str = ""
    object: str = "chat.completion"
    service_tier: str | None = None
    system_fingerprint: str | None = None
    usage: Usage | None = None


class Model(Object):
    """A model that the server offers."""

    id: str = ""
    created: int = 0
    object: str = "model"
    owned_by: str = ""


class ModelList(Answer):
    """The reply to ``GET /models``; iterating it gives its models."""

    data: list[Model] = []  # noqa: RUF012 - msgspec copies it
    object: str = "list"

    def __iter__(self) -> Iterator[Model]:
        return iter(self.data)


def has_content(chunk: ChatCompletionChunk) -> bool:
    """Does the chunk add anything to what a model says?

    Content is a non-empty content, reasoning, refusal, tool call, function call or audio delta: it
    alone ends retrying and re-arms deadlines. Roles, finish reasons and usage are none.
    """
    for choice in chunk.choices:
        delta = choice.delta
        if delta.content or delta.reasoning_content or delta.tool_calls or delta.refusal:
            return True
        call, audio = delta.function_call, delta.audio
        if call is not None and (call.name or call.arguments):
            return True
        if audio is not None and (audio.id or audio.data or audio.transcript):
            return True
    return False


def keep_payload(chunk: ChatCompletionChunk, payload: bytes) -> None:
    """Leave with a chunk, and with each object in it, the bytes where its vendor fields stand."""
    chunk._raw = payload
    for position, choice in enumerate(chunk.choices):
        keep_choice_payload(choice, payload, position)
    if chunk.usage:
        keep_inside(chunk.usage, payload, ("usage",))


def keep_choice_payload(choice: ChunkChoice, payload: bytes, position: int) -> None:
    """``keep_payload`` for one choice, which stands at this position of its chunk."""
    keep_inside(choice, payload, ("choices", position))
    one_reasoning(choice.delta)


def one_reasoning(said: Delta | Message) -> None:
    """Let ``reasoning_content`` hold the reasoning also where the server calls it ``reasoning``."""
    if said.reasoning_content is None and isinstance(said.reasoning, str):
        said.reasoning_content = said.reasoning
