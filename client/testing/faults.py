"""`Fault`: where and how a connection is to fail, as a value that a test writes down beforehand."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal

FaultEnding = Literal["close", "reset", "stall", "garbage"]

_ENDINGS = ("close", "reset", "stall", "garbage")

# No HTTP, no TLS, no SOCKS; with an empty line, so that a reader of heads need not wait for more.
_GARBAGE = b"\xff\xfe\x00 this is no protocol\r\n\r\n"


@dataclass(frozen=True)
class Fault:
    """How ONE connection from a client fails: ``Fault(12, "reset")`` sends 12 bytes, then RST.

    What counts is everything that the server writes to that client; of a proxy its own answers, and what it
    forwards or tunnels. A connection on which it writes less, and that ends before, does not fail. Raises
    ``ValueError`` for fields that make no sense.
    """

    after: int
    """So many bytes are sent, exactly, however they are divided into writes."""
    ending: FaultEnding = "close"
    """What happens then:

    close: FIN, as soon as these bytes are sent. What the client still sends is thrown away until it ends,
    too, or a second has passed. Over TLS the closing message goes before, but not with `raw`.
    reset: RST, as soon as the client's system has received these bytes (on Linux; elsewhere, when ours has
    taken them, and then it may lose some). A client that is slow to read gets them before it hears of RST.
    stall: nothing more is sent, and the connection is held until the client ends it or the server stops.
    What the client sends is still read and handed on.
    garbage: `garbage` is sent in place of the first byte beyond, at the time when that would have been
    sent. Then as with "stall".

    With `after=0`, "close" and "reset" happen when the client's first bytes have arrived. These are thrown
    away, so no request is recorded. See `at_accept`, too."""
    _: KW_ONLY
    garbage: bytes = _GARBAGE
    """What "garbage" sends."""
    raw: bool = False
    """Count the bytes on the wire, of a server with TLS its handshake and records too. Otherwise they are
    counted inside this TLS. Without TLS, both are the same. (TLS inside a tunnel is just bytes to either.)"""
    at_accept: bool = False
    """With `after=0` and "close" or "reset": it happens as soon as the connection is accepted, and the client's first
    bytes are not awaited. A client may hear of a reset while it connects."""

    def __post_init__(self) -> None:
        if not isinstance(self.after, int) or isinstance(self.after, bool) or self.after < 0:
            raise ValueError(f"after counts bytes to the client from 0 on, not {self.after!r}")
        if self.ending not in _ENDINGS:
            raise ValueError(f"ending is one of {', '.join(_ENDINGS)}, not {self.ending!r}")
        if not isinstance(self.garbage, bytes) or not self.garbage:
            raise ValueError(f"garbage is one byte or more, not {self.garbage!r}; use ending='stall' to send nothing")
        if self.garbage != _GARBAGE and self.ending != "garbage":
            raise ValueError(f"garbage would not be sent with ending={self.ending!r}; say ending='garbage'")
        if self.at_accept and (self.after or self.ending not in ("close", "reset")):
            raise ValueError(
                "at_accept is for a connection that is closed or reset at once; say Fault(0, 'reset', ...)"
            )
