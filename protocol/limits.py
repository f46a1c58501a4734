"""How much a peer may make us hold. One frozen object, passed in; nothing is read from the environment."""

from __future__ import annotations

import msgspec

KIB = 1024
MIB = 1024 * KIB


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on what one reply may make a machine keep: in bytes, but for ``objects``.

    Every machine checks a bound before it grows a buffer, so what it keeps of the bytes stays near the bound however
    they are split. Over a bound the reply fails with :class:`LimitExceededError`, which names the field; the events
    before it are delivered first.

    Raises ``ValueError`` for a bound below 1.
    """

    # The longest legal lines seen are images and audio as base64 in one `data:` line, some 2 to 5 MiB.
    line: int = 8 * MIB
    """One line of an event stream, without its end of line."""

    # One event is one JSON document; servers that pretty-print it spread it over several data lines.
    event: int = 16 * MIB
    """One block of an event stream: all lines up to the blank line."""

    # Error bodies are read to be shown. Gateways send HTML pages of some 10 KiB; more helps nobody,
    # so a longer body is cut there, and is no error of its own.
    error_body: int = 64 * KIB
    """What is kept of the body of an error status."""

    # Fields are many behind gateways (cookies, security policies): some KiB. Servers themselves allow 8 to 80 KiB.
    head: int = 64 * KIB
    """The head of a reply over HTTP/1.1, interim ones (1xx) included; about as much for the line before a chunk, and
    for trailers. (`HTTP1Exchange`; other transports have bounds of their own.)"""

    # A model that writes for an hour at 100 tokens a second, 300 bytes an event, sends some 100 MiB.
    reply: int = 256 * MIB
    """The whole body of a reply, after any Content-Encoding is undone."""

    # A whole JSON reply is held until its end; images and audio in base64 fit.
    document: int = 64 * MIB
    """A reply that is one JSON document."""

    # Decoded, an object takes some hundred bytes, of which its JSON may have been two. Servers send the most of them as
    # logprobs: twenty alternatives a token make 840,000 of a document of 40,000 tokens.
    objects: int = 1_000_000
    """JSON objects in one event or document; and choices, with their tool calls, in all of a stream."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) < 1:
                unit = "" if name == "objects" else " byte"
                raise ValueError(f"Limits.{name} must be at least 1{unit}, not {getattr(self, name)!r}")


DEFAULT_LIMITS = Limits()
