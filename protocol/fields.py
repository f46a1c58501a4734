"""The header fields of a reply: what they say, and how errors show them (RFC 9110 section 5)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .dates import parse_http_date

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .context import Context


def header(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first field of that name (in lower case), or None."""
    return next((value for key, value in headers if key.lower() == name), None)


def request_id(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """The reply's ``x-request-id``, or None."""
    value = header(headers, b"x-request-id")
    return None if value is None else value.decode("latin-1")


# What a terminal would obey: the controls of ISO 6429, C0 and C1. Lines may end, and hold tabs.
_CONTROLS: dict[int, str | None] = {
    code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"
} | {0x0D: None}

# Longer names of requests help nobody; a head has room for 64 KiB.
_LONGEST_ID = 200


def visible(words: str) -> str:
    """A peer's words for a message: without what would make a terminal do something else than show them."""
    return words.translate(_CONTROLS)


def shown_id(headers: Sequence[tuple[bytes, bytes]], context: Context) -> str:
    """How messages name the request, after the reply's ``x-request-id``; "" without one."""
    identity = request_id(headers)
    return f"request id {visible(context.excerpt(identity, _LONGEST_ID))}" if identity else ""


def retry_after(headers: Sequence[tuple[bytes, bytes]], now: float | None = None) -> float | None:
    """How many seconds the server asks to wait: ``retry-after-ms``, else ``Retry-After``.

    RFC 9110 section 10.2.3: seconds or an HTTP date. A date counts from ``now`` (Unix time), else
    from the reply's own ``Date``. None when absent or unreadable (nan, inf, rubbish); it may be
    negative or huge: what to make of it is the retry policy's business.
    """
    for name, unit in ((b"retry-after-ms", 1000.0), (b"retry-after", 1.0)):
        value = header(headers, name)
        if value is None:
            continue
        try:
            seconds = float(value.decode("latin-1")) / unit
        except ValueError:
            at = parse_http_date(value) if unit == 1.0 else None
            if now is None:
                now = parse_http_date(header(headers, b"date") or b"")
            if at is None or now is None:
                continue
            seconds = at - now
        if math.isfinite(seconds):
            return seconds
    return None


class _Unshown(bytes):
    """A field's value as the peer sent it, which is of use, but shows as what is fit to be shown."""

    shown: bytes

    def __repr__(self) -> str:
        return repr(self.shown)

    __str__ = __repr__

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies and pickles lie about, and nobody follows them.
        return bytes, (self.shown,)


def said(name: bytes, value: bytes, context: Context) -> tuple[bytes, bytes]:
    """A header field for an error: its value without secrets, but for where to ask instead."""
    fit = context.redact(value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    if fit == value or name != b"location":
        return name, fit
    kept = _Unshown(value)
    kept.shown = fit
    return name, kept
