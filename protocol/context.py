"""Where an error happened, and which words must never be shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from .reserved import Reserved
from .urls import query_values

if TYPE_CHECKING:
    from .proxy import Proxy
    from .request import HTTPRequest

# Servers of one's own take any key, and "token" or "x" is no secret, but a part of many words.
_SHORTEST_SECRET = 8

# Of a long secret a part is cut out, too: the whole of it would be worth little more. ("sk-ant-api03-" is none: all
# keys of some servers begin with it.)
_LONG_SECRET = 32
_PART = 16

# What is written everywhere as it is (RFC 3986 section 2.3).
_PLAIN = re.compile(r"[A-Za-z0-9._~-]*")


class Context(Reserved, frozen=True, kw_only=True):
    """What the errors of a reply say about their surroundings. Given to machines as ``context=``."""

    provider: str = ""
    """The provider's name, as the caller knows it."""
    url: str = ""
    """The request's URL, without credentials."""
    proxy: str = ""
    """The URL of the proxy that the request goes through, without credentials; "" for none."""
    key_given: bool = True
    """Whether the request carries a key: a 401 without one is a ``MissingAuthError``."""
    key_name: str = "OPENAI_API_KEY"
    """The environment variable for the key; "" where there is no such thing."""
    secrets: tuple[str, ...] = ()
    """The key, the proxy password: cut out of whatever a peer echoes."""

    @classmethod
    def of(
        cls,
        request: HTTPRequest,
        *,
        provider: str = "",
        proxy: Proxy | None = None,
        key: str | None = None,
        key_name: str = "OPENAI_API_KEY",
    ) -> Context:
        """What errors of the reply to this request say; ``key``: the one that it was made with."""
        given = [*([key] if key else []), *request.secrets]
        secrets = [secret for secret in [*given, *query_values(request.url)] if len(secret) >= _SHORTEST_SECRET]
        if proxy is not None:
            secrets += proxy.secrets
        return cls(
            provider=provider,
            url=request.url.partition("?")[0],
            proxy=proxy.url if proxy is not None else "",
            key_given=bool(key) or request.has_credentials,
            key_name=key_name,
            secrets=tuple(dict.fromkeys(secrets)),
        )

    def redact(self, text: str, *, cut: bool = False) -> str:
        """The text, with "***" for each secret; with ``cut``, for the beginning of one at its end, too."""
        return _redacted(text, _sought(self.secrets), cut)

    def excerpt(self, text: str | bytes, length: int = 500, *, more: str = "...", cut: bool = False) -> str:
        """The beginning of a peer's words, fit to be shown: redacted before it is cut, since half a secret
        would not be recognised. ``more`` stands for what is left out, which is something in any case with
        ``cut``."""
        window = self.window(length)
        cut = cut or len(text) > window
        text = text[:window]
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        text = self.redact(text.strip(), cut=cut)
        return text if len(text) <= length and not cut else text[:length] + more

    def window(self, length: int) -> int:
        """How much of a text decides what its first ``length`` characters are when they are redacted."""
        return length + max((len(secret.encode("utf-8", "replace")) for secret in _sought(self.secrets)), default=0)

    def redacted(self, value: object) -> object:
        """``redact`` for every string in a decoded JSON document."""
        return _redacted_in(value, _sought(self.secrets))

    def where(self, *more: str) -> str:
        """The clause in parentheses that messages end with, or ""."""
        via = f"via proxy {self.proxy}" if self.proxy else ""
        parts = [part for part in (self.provider, self.url, via, *more) if part]
        return f" ({', '.join(parts)})" if parts else ""

    def __repr__(self) -> str:
        return f"Context(provider={self.provider!r}, url={self.url!r}, proxy={self.proxy!r})"


NO_CONTEXT = Context()


def _sought(secrets: tuple[str, ...]) -> list[str]:
    """All forms of these, the longest first: one may stand inside another. (Made anew for each text: in a cache they
    would outlive whoever holds them, and most replies are no errors.)"""
    found = dict.fromkeys(form for secret in secrets if secret for form in _forms(secret))
    return sorted(found, key=len, reverse=True)


def _forms(secret: str) -> list[str]:
    """How a peer may write a secret down: as it is, and escaped for JSON (by Python or PHP), for URLs, for HTML."""
    if _PLAIN.fullmatch(secret):
        return [secret]
    from urllib.parse import quote

    # (A lone surrogate can't be sent.)
    json = msgspec.json.encode(secret.encode("utf-8", "replace").decode()).decode()[1:-1]
    ascii_json = re.sub(r"[^\x00-\x7f]", _escaped, json)
    html = secret.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    quoted = html.replace('"', "&quot;")
    return [
        secret, json, ascii_json, json.replace("/", "\\/"), ascii_json.replace("/", "\\/"),
        quote(secret, safe="", errors="replace"), quote(secret, errors="replace"),
        html, quoted, quoted.replace("'", "&#x27;"), quoted.replace("'", "&#039;"),
    ]  # fmt: skip


def _escaped(found: re.Match[str]) -> str:
    """A character as JSON's escapes (RFC 8259 section 7)."""
    units = found[0].encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _redacted(text: str, secrets: list[str], cut: bool) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    for secret in secrets:
        if len(secret) >= _LONG_SECRET:
            text = _without_parts(text, secret)
        if cut:
            shown = next((n for n in range(len(secret) - 1, 3, -1) if text.endswith(secret[:n])), 0)
            text = text[: len(text) - shown]
    return text


def _redacted_in(value: object, secrets: list[str]) -> object:
    if isinstance(value, str):
        return _redacted(value, secrets, False)
    if isinstance(value, list):
        return [_redacted_in(item, secrets) for item in value]
    if isinstance(value, dict):
        return {_redacted_in(key, secrets): _redacted_in(item, secrets) for key, item in value.items()}
    return value


def _without_parts(text: str, secret: str) -> str:
    """The text without what are so many characters of a long secret, in a row: a peer has broken it off, or into lines.

    Each such part holds one of the secret's blocks of half that length whole, so only these are looked for.
    """
    size = _PART // 2
    for start in range(0, len(secret) - size + 1, size):
        block = secret[start : start + size]
        pieces: list[str] = []
        done, at = 0, text.find(block)
        while at >= 0:
            first, last = at, at + size
            before, behind = start, start + size
            while first > done and before and text[first - 1] == secret[before - 1]:
                first, before = first - 1, before - 1
            while last < len(text) and behind < len(secret) and text[last] == secret[behind]:
                last, behind = last + 1, behind + 1
            if last - first >= _PART:
                pieces += text[done:first], "***"
                done = last
            at = text.find(block, max(done, at + 1))
        if pieces:
            text = "".join([*pieces, text[done:]])
    return text
