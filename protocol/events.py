"""The events of a reply beside its chunks."""

from __future__ import annotations

import msgspec

from .chunks import ChatCompletion, ChatCompletionChunk, ModelList
from .errors import DeltawireError


class StreamEnded(msgspec.Struct, frozen=True):
    """The reply is over, and good."""

    finished: bool
    """Whether any choice had a finish reason; some servers never send one."""
    completion: ChatCompletion | None = None
    """The reply itself, when it came as one JSON document."""


class StreamFailed(msgspec.Struct, frozen=True):
    """The reply is over, and no good."""

    error: DeltawireError
    """Why."""


Event = ChatCompletionChunk | ModelList | StreamEnded | StreamFailed
"""What the verbs of `Reply` return lists of. (`ModelList` comes only with ``dialect="models"``.)"""
