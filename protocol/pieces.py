"""What a provider's generator yields: the answer as plain ``str``, and all else as pieces of their own.

Whoever joins ``str(piece)`` of all that comes gets the answer and nothing but it: a piece that is no part of
the answer is "" as a text.

`Pieces` makes them of chunks. Text and reasoning are given as they come. A tool call is worth nothing before
it is whole, and finish reason and usage may come in either order, some of them twice: these wait for the end.
Only the choice with index 0 is told: a generator of text can't say which of several choices it means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .accumulate import Accumulator
from .chunks import ToolCall, Usage
from .objects import same_origin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .chunks import ChatCompletionChunk, ChunkChoice


class Reasoning(msgspec.Struct, frozen=True):
    """Some of the model's reasoning."""

    text: str

    @property
    def token(self) -> str:
        """The same, by its older name."""
        return self.text

    def __str__(self) -> str:
        return ""


class ToolCalls(msgspec.Struct, frozen=True):
    """The tool calls of the answer, whole; iterating gives them in their order."""

    tool_calls: list[ToolCall]

    def __iter__(self) -> Iterator[ToolCall]:
        return iter(self.tool_calls)

    def __len__(self) -> int:
        return len(self.tool_calls)

    def __str__(self) -> str:
        return ""

    # The last of the class: below it, "list" means this.
    @property
    def list(self) -> list[ToolCall]:
        """The same as a list, by its older name."""
        return self.tool_calls


class UsageReport(Usage):
    """The tokens that the answer took, as the server counts them; None where it did not say."""

    def __str__(self) -> str:
        return ""


class FinishReason(msgspec.Struct, frozen=True):
    """Why the model stopped: "stop", "length", "tool_calls", "content_filter", or a server's own word."""

    reason: str

    def __str__(self) -> str:
        return ""


Piece = Reasoning | ToolCalls | UsageReport | FinishReason
"""What a provider's generator yields besides ``str``."""


class Pieces:
    """Makes pieces of the chunks of one reply."""

    __slots__ = ("_accumulator", "_ended")

    def __init__(self) -> None:
        # Holds no text but that which comes along with what waits for the end.
        self._accumulator = Accumulator()
        self._ended = False

    def receive(self, chunk: ChatCompletionChunk) -> list[str | Piece]:
        """What this chunk adds: reasoning, then text (a refusal is the text of an answer, too)."""
        if self._ended:
            return []
        found: list[str | Piece] = []
        waits = chunk.usage is not None
        for choice in chunk.choices:
            if choice.index == 0:
                waits = waits or _waits(choice)
                delta = choice.delta
                if delta.reasoning_content:
                    found.append(Reasoning(delta.reasoning_content))
                found += [text for text in (delta.content, delta.refusal) if text]
        if waits:
            self._accumulator.add(chunk)
        return found

    def end(self) -> list[str | Piece]:
        """The reply has ended well: its tool calls, its usage, its finish reason, those that it had, in this order.

        A legacy function call counts as a tool call without an id. Again: [].
        """
        if self._ended:
            return []
        self._ended = True
        whole = self._accumulator.completion()
        found: list[str | Piece] = []
        choice = next((choice for choice in whole.choices if choice.index == 0), None)
        if choice is not None:
            message = choice.message
            calls = message.tool_calls
            if not calls and message.function_call is not None:
                calls = [ToolCall(type="function", function=message.function_call)]
            if calls:
                found.append(ToolCalls(calls))
        if whole.usage is not None:
            found.append(_report(whole.usage))
        if choice is not None and choice.finish_reason:
            found.append(FinishReason(choice.finish_reason))
        return found


def _waits(choice: ChunkChoice) -> bool:
    delta = choice.delta
    return bool(choice.finish_reason or delta.tool_calls or delta.function_call is not None)


def _report(usage: Usage) -> UsageReport:
    report = UsageReport(**{name: getattr(usage, name) for name in usage.__struct_fields__})
    same_origin(usage, report)
    return report
