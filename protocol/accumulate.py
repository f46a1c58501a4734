"""Folding chunks into one completion.

Servers disagree on what a delta is. What holds for all of them:

- Only content, reasoning, refusal, arguments and audio data append. Role, id, type and name are set
  once, by their first non-empty value; finish reason and usage keep their last (a null after a value
  erases nothing, and cumulative usage is never summed).
- The index of a tool call is a key, not a position: it may begin at 1, leave gaps, interleave. A
  fragment with a new non-empty id on an index in use starts a new call (servers that number all calls
  0). Without an index a fragment belongs to the call of its id, a name starts a new call, and what
  has neither continues the latest call.
- Vendor fields: at the top level the last value stays; inside a delta lists extend (citations and
  reasoning details come in pieces), anything else keeps its last value that is not null.

Texts are kept in lists and joined at the end, so folding is linear in the length of the reply. A token by itself takes
ten times the space of its letters: so every now and then the last ones are made one piece (`Text`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .chunks import (
    Audio,
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    Function,
    Logprobs,
    Message,
    StatusChunk,
    ToolCall,
    Usage,
    has_content,
)
from .objects import Read, with_extra

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .chunks import ChunkChoice, TokenLogprob, ToolCallDelta


# So many contents come between two packings, and so many pieces are worth one. (A power of two.)
PACKED = 64


class Text(list[str]):
    """A text in pieces: those at its beginning are long, made of `PACKED` or more that came."""

    __slots__ = ("_packed",)

    def __init__(self) -> None:
        super().__init__()
        self._packed = 0

    def pack(self) -> None:
        """Make the last pieces one, if there are enough of them."""
        if len(self) - self._packed >= PACKED:
            self[self._packed :] = ["".join(self[self._packed :])]
            self._packed += 1


class _Call:
    """A tool call, or the legacy function call, while it arrives."""

    __slots__ = ("arguments", "extra", "id", "key", "name", "type")

    def __init__(self, key: int) -> None:
        self.key = key
        self.id: str | None = None
        self.type: str | None = None
        self.name: str | None = None
        self.arguments = Text()
        self.extra: dict[str, Any] = {}

    def add_function(self, function: Function) -> None:
        self.name = self.name or function.name
        if function.arguments:
            self.arguments.append(function.arguments)
            self.arguments.pack()

    def function(self) -> Function:
        return Function(name=self.name, arguments="".join(self.arguments))


class _Calls:
    """The tool calls of one choice; which fragment belongs to which."""

    __slots__ = ("_by_id", "_by_index", "_latest", "all")

    def __init__(self) -> None:
        self.all: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}
        self._latest: _Call | None = None

    def add(self, fragment: ToolCallDelta) -> _Call:
        call = self._latest = self._find(fragment)
        if fragment.id and not call.id:
            call.id = fragment.id
            self._by_id[fragment.id] = call
        call.type = call.type or fragment.type
        if fragment.function is not None:
            call.add_function(fragment.function)
        return call

    def _find(self, fragment: ToolCallDelta) -> _Call:
        index, id_ = fragment.index, fragment.id
        if index is not None:
            call = self._by_index.get(index)
            if call is None or (id_ and call.id and call.id != id_):
                known = self._by_id.get(id_) if id_ else None
                call = known if known is not None and known.key == index else self._new(index)
                self._by_index[index] = call
            return call
        if id_:
            return self._by_id.get(id_) or self._new(None)
        if self._latest is None or (fragment.function is not None and fragment.function.name):
            return self._new(None)
        return self._latest

    def _new(self, index: int | None) -> _Call:
        call = _Call(len(self.all) if index is None else index)
        self.all.append(call)
        return call

    def whole(self) -> list[ToolCall]:
        return [
            with_extra(ToolCall(id=call.id, type=call.type or "function", function=call.function()), call.extra)
            for call in sorted(self.all, key=lambda call: call.key)
        ]


class _AudioParts:
    __slots__ = ("data", "expires_at", "id", "transcript")

    def __init__(self) -> None:
        self.id: str | None = None
        self.data: list[str] = []
        self.transcript: list[str] = []
        self.expires_at: int | None = None

    def add(self, audio: Audio) -> None:
        self.id = self.id or audio.id
        self.data.append(audio.data or "")
        self.transcript.append(audio.transcript or "")
        self.expires_at = self.expires_at if audio.expires_at is None else audio.expires_at

    def whole(self) -> Audio:
        return Audio(
            id=self.id,
            data="".join(self.data),
            transcript="".join(self.transcript),
            expires_at=self.expires_at,
        )


class _ChoiceParts:
    """One choice while it arrives."""

    __slots__ = (
        "audio", "calls", "content", "extra", "finish_reason", "function_call", "index",
        "logprobs_content", "logprobs_refusal", "message_extra", "reasoning", "refusal", "role",
    )  # fmt: skip

    def __init__(self, index: int) -> None:
        self.index = index
        self.role: str | None = None
        self.content = Text()
        self.reasoning = Text()
        self.refusal = Text()
        self.calls: _Calls | None = None
        self.function_call: _Call | None = None
        self.audio: _AudioParts | None = None
        self.finish_reason: str | None = None
        self.logprobs_content: list[TokenLogprob] | None = None
        self.logprobs_refusal: list[TokenLogprob] | None = None
        self.extra: dict[str, Any] = {}
        self.message_extra: dict[str, Any] = {}

    def add_rest(self, choice: ChunkChoice, read: Read | None) -> int:
        """All but the text; gives how many tool calls have begun. ``read``: None, if the vendor fields don't count."""
        delta = choice.delta
        begun = 0
        self.role = self.role or delta.role
        self.finish_reason = choice.finish_reason or self.finish_reason
        if delta.reasoning_content is not None:
            self.reasoning.append(delta.reasoning_content)
        if delta.refusal is not None:
            self.refusal.append(delta.refusal)
        if delta.tool_calls:
            if self.calls is None:
                self.calls = _Calls()
            begun = -len(self.calls.all)
            for fragment in delta.tool_calls:
                call = self.calls.add(fragment)
                if read is not None:
                    _merge(call.extra, fragment._extra(read))
            begun += len(self.calls.all)
        if delta.function_call is not None:
            if self.function_call is None:
                self.function_call = _Call(0)
            self.function_call.add_function(delta.function_call)
        if delta.audio is not None:
            if self.audio is None:
                self.audio = _AudioParts()
            self.audio.add(delta.audio)
        if choice.logprobs is not None:
            self.add_logprobs(choice.logprobs)
        return begun

    def add_logprobs(self, logprobs: Logprobs) -> None:
        if logprobs.content is not None:
            self.logprobs_content = self.logprobs_content or []
            self.logprobs_content += logprobs.content
        if logprobs.refusal is not None:
            self.logprobs_refusal = self.logprobs_refusal or []
            self.logprobs_refusal += logprobs.refusal

    def pack(self) -> None:
        for text in (self.content, self.reasoning, self.refusal):
            text.pack()

    def whole(self) -> Choice:
        reasoning = _joined(self.reasoning)
        message = Message(
            role=self.role or "assistant",
            content=_joined(self.content),
            refusal=_joined(self.refusal),
            tool_calls=self.calls.whole() if self.calls else None,
            function_call=self.function_call.function() if self.function_call else None,
            audio=self.audio.whole() if self.audio else None,
            reasoning_content=reasoning,
        )
        logprobs = None
        if self.logprobs_content is not None or self.logprobs_refusal is not None:
            logprobs = Logprobs(content=self.logprobs_content, refusal=self.logprobs_refusal)
        choice = Choice(
            message=with_extra(message, self.message_extra),
            index=self.index,
            finish_reason=self.finish_reason,
            logprobs=logprobs,
        )
        return with_extra(choice, self.extra)


def _joined(parts: list[str]) -> str | None:
    # A message with nothing but tool calls has content null, not "".
    return "".join(parts) if parts else None


def _merge(into: dict[str, Any], extra: dict[str, Any], *, extend: bool = False) -> None:
    for name, value in extra.items():
        held = into.get(name)
        if extend and isinstance(value, list):
            if isinstance(held, list):
                held += value
            else:
                # A list of our own, which the next one may extend.
                into[name] = list(value)
        elif value is not None or name not in into:
            into[name] = value


class Accumulator:
    """Takes chunks one by one; gives the completion that they make so far.

    With ``extras=False`` vendor fields are left out, which spares decoding every payload twice.
    """

    __slots__ = (
        "_choices", "_extra", "_extras", "_first", "_packed_at", "_usage", "contents", "last", "most", "named",
        "opened", "texts",
    )  # fmt: skip

    def __init__(self, *, extras: bool = True, most: float = math.inf) -> None:
        self._extras = extras
        self.most = most
        """How many objects an event may hold, and the reply open (`Limits.objects`): for readers of events to mind."""
        self.opened = 0
        """How many choices, and tool calls of theirs, there are."""
        self._choices: dict[int, _ChoiceParts] = {}
        # The content of each choice so far. A reader may append here itself what comes in a chunk
        # that holds one choice and nothing but its text (nearly all chunks do), and note it as `last`.
        self.texts: dict[int, Text] = {}
        # How many chunks had content; see `has_content`.
        self.contents = 0
        # How many there were at the last packing.
        self._packed_at = 0
        self._extra: dict[str, Any] = {}
        # The first chunk that has an id (Azure's first one has none) names the reply.
        self._first: ChatCompletionChunk | None = None
        self.named = False
        """Has a chunk come that has an id?"""
        self.last: ChatCompletionChunk | None = None
        self._usage: Usage | None = None

    @property
    def empty(self) -> bool:
        """Has no chunk come yet?"""
        return self.last is None

    @property
    def finished(self) -> bool:
        """Has any choice had its finish reason?"""
        return any(parts.finish_reason for parts in self._choices.values())

    @property
    def complete(self) -> bool:
        """Has there been a choice, and has each had its finish reason?"""
        return bool(self._choices) and all(parts.finish_reason for parts in self._choices.values())

    def add(self, chunk: ChatCompletionChunk) -> None:
        """Fold one chunk in. A `StatusChunk` is no part of the reply."""
        if type(chunk) is StatusChunk:
            return
        self.last = chunk
        self.contents += has_content(chunk)
        read: Read | None = {} if self._extras else None
        for choice in chunk.choices:
            parts = self._parts(choice.index)
            delta = choice.delta
            if delta.content is not None:
                parts.content.append(delta.content)
            self.opened += parts.add_rest(choice, read)
            parts.pack()
            if read is not None:
                _merge(parts.extra, choice._extra(read))
                _merge(parts.message_extra, delta._extra(read), extend=True)
        if chunk.usage is not None:
            self._usage = chunk.usage
        if self._first is None and chunk.id:
            self._first, self.named = chunk, True
        if read is not None:
            _merge(self._extra, chunk._extra(read))

    def add_text(self, chunk: ChatCompletionChunk) -> None:
        """As `add`, for a chunk that holds a first choice and nothing but its text; sooner done."""
        text = chunk.choices[0].delta.content
        if 0 not in self.texts:
            self.add(chunk)
        elif text is not None:
            self.texts[0].append(text)
            self.contents += bool(text)
            if not self.contents % PACKED:
                self.pack()
        self.last = chunk

    def pack(self) -> None:
        """Let the texts so far take little more space than their letters."""
        if self.contents - self._packed_at < len(self._choices):
            # To go through them all is to cost each content a part of a step: no server opens so many.
            return
        self._packed_at = self.contents
        for parts in self._choices.values():
            parts.pack()

    def _parts(self, index: int) -> _ChoiceParts:
        parts = self._choices.get(index)
        if parts is None:
            parts = self._choices[index] = _ChoiceParts(index)
            self.texts[index] = parts.content
            self.opened += 1
        return parts

    def completion(self) -> ChatCompletion:
        """What the chunks so far make. The accumulator goes on."""
        last = self.last or ChatCompletionChunk()
        first = self._first or last
        whole = ChatCompletion(
            id=first.id,
            created=first.created,
            model=first.model,
            service_tier=last.service_tier or first.service_tier,
            system_fingerprint=last.system_fingerprint or first.system_fingerprint,
            choices=[self._choices[index].whole() for index in sorted(self._choices)],
            usage=self._usage,
        )
        whole._provider = getattr(last, "_provider", "")
        return with_extra(whole, self._extra)


def accumulate(chunks: Iterable[ChatCompletionChunk]) -> ChatCompletion:
    """Fold an iterable of chunks into the completion that they make.

    Nothing is judged here: a stream cut in half gives half a completion.
    """
    accumulator = Accumulator()
    for chunk in chunks:
        accumulator.add(chunk)
    return accumulator.completion()
