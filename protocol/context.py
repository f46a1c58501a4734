"""Where an error happened, and which words must never be shown."""

from __future__ import annotations

import msgspec


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What the errors of a reply say about their surroundings. Given to machines as ``context=``."""

    provider: str = ""
    """The provider's name, as the caller knows it."""
    url: str = ""
    """The request's URL, without credentials."""
    proxy: str = ""
    """The URL of the proxy that the request goes through, without credentials; "" for none."""
    key_given: bool = True
    """Whether the request carries a key: a 401 without one is a ``MissingAuthError``."""
    secrets: tuple[str, ...] = ()
    """The key, the proxy password: cut out of whatever a peer echoes."""

    def redact(self, text: str) -> str:
        """The text, with "***" for each secret."""
        for secret in self.secrets:
            if secret:
                text = text.replace(secret, "***")
        return text

    def redacted(self, value: object) -> object:
        """``redact`` for every string in a decoded JSON document."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, list):
            return [self.redacted(item) for item in value]
        if isinstance(value, dict):
            return {self.redacted(key): self.redacted(item) for key, item in value.items()}
        return value

    def where(self, *more: str) -> str:
        """The clause in parentheses that messages end with, or ""."""
        via = f"via proxy {self.proxy}" if self.proxy else ""
        parts = [part for part in (self.provider, self.url, via, *more) if part]
        return f" ({', '.join(parts)})" if parts else ""

    def __repr__(self) -> str:
        return f"Context(provider={self.provider!r}, url={self.url!r}, proxy={self.proxy!r})"


NO_CONTEXT = Context()
