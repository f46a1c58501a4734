"""The events of a reply beside its chunks."""

from __future__ import annotations

import msgspec

from .chunks import ChatCompletion, ChatCompletionChunk, ModelList
from .errors import DeltawireError
from .images import ImagesResponse


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


class SessionStarted(msgspec.Struct, frozen=True):
    """A site of the Opchatgpts protocol lets us in."""

    session_id: str
    """The session's name; "" when the site does not tell."""
    nonce: str
    """What each request must carry (`Site.submit`); it lives 12 to 24 hours."""

    def __repr__(self) -> str:
        return f"SessionStarted(session_id={self.session_id!r}, nonce='***')"


Event = ChatCompletionChunk | ModelList | ImagesResponse | SessionStarted | StreamEnded | StreamFailed
"""What the verbs of `Reply` return lists of. (`ModelList` comes only with ``dialect="models"``, `ImagesResponse` with
"images", `SessionStarted` with "session" and "page".)"""
