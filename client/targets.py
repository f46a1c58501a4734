"""What a call asks for (`Ask`), and what a provider makes of it (`Target`).

A provider is a declaration. For each call it is bound to what the caller asks and what the client says: the result is
a `Target`, which builds the requests of all attempts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from deltawire.protocol import is_stale_nonce

if TYPE_CHECKING:
    from collections.abc import Callable

    from deltawire.protocol import HTTPRequest

    from .calls import Call

Kind = Literal["chat", "models", "images"]


class Ask(msgspec.Struct, kw_only=True):
    """What a call asks for, in the words of its caller; what it leaves out, None."""

    def __repr__(self) -> str:
        # It may hold keys, in more than one place.
        return f"<Ask: {self.kind} of {self.model!r}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # As `Reserved`, but for a struct that is changed.
        return [("shown", repr(self))]

    kind: Kind
    messages: Any = None
    model: str | None = None
    stream: bool | None = None
    params: dict[str, Any] = {}
    """Further fields of the body; which of them there are is the provider's business."""
    extra_parameters: Any = None
    """Names of fields beyond those that are known; None: the provider's."""
    extra_body: dict[str, Any] | None = None
    extra_headers: dict[str, str | None] | None = None
    extra_query: dict[str, Any] | None = None
    media: list[tuple[Any, str | None]] | None = None
    parts: list[dict[str, Any]] | None = None
    """The media, read: files that can't seek can be read but once, and several providers may be asked."""
    prompt: str | None = None
    """For images; for a chat the user's last message."""
    api_key: Any = None
    base_url: str | None = None
    api_endpoint: str | None = None
    impersonate: str | None = None
    ignore_working: bool = False


class Store:
    """Where the session of a site is kept between calls. (Of calls that begin at once, each may fetch one; any will do,
    and the last of them stays.)"""

    def __init__(self, nonce: str | None = None) -> None:
        self.nonce = nonce
        self.session_id: str | None = None


class Session:
    """A session that a provider's requests need, as one call sees it: how to get one, and where it is kept."""

    def __init__(self, dialect: str, build: Callable[[], HTTPRequest] | None, store: Store) -> None:
        self.dialect = dialect
        """That of the reply to the request for it."""
        self.build = build
        """Makes that request; None: nothing gives a session but the caller."""
        self.store = store
        self._sent: str | None = None

    def nonce(self) -> str | None:
        """The nonce for a request that is being made."""
        self._sent = self.store.nonce
        return self._sent

    @property
    def missing(self) -> bool:
        """Whether one has to be fetched before anything is sent."""
        return self.build is not None and not self.store.nonce

    @property
    def renewed(self) -> bool:
        """Whether there is a newer one already than that of the last request: another call has fetched it."""
        return bool(self.store.nonce) and self.store.nonce != self._sent

    def is_refused(self, error: Exception) -> bool:
        """Whether an error says so of it, such that another one is worth another attempt."""
        return self.build is not None and is_stale_nonce(error)


class Target:
    """One provider, ready to be asked in one call."""

    def __init__(
        self,
        name: str,
        dialect: str,
        build: Callable[[str | None], HTTPRequest],
        *,
        key: Any = None,
        key_name: str = "",
        verify: Any = None,
        stop: Any = None,
        session: Session | None = None,
        working: bool = True,
    ) -> None:
        self.name = name
        self.dialect = dialect
        """That of its replies."""
        self.build = build
        """Makes the request, with this key."""
        self.key = key
        """The key, a callable that gives it or an awaitable of it, or None."""
        self.key_name = key_name
        """The environment variable for it; "" where there is no such thing."""
        self.verify = verify
        """How the provider's certificate is checked; None: as the client says."""
        self.stop = stop
        """Stop words that are heeded here, since the server has none."""
        self.session = session
        self.working = working

    def attempt(self, call: Call, key: str | None, url: str | None) -> Any:
        """An attempt, with this key; at this URL after a redirect. Raises what the request's builder raises."""
        from .calls import http_attempt

        return http_attempt(call, self, key, url)
