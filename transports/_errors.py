"""httpcore's exceptions, in our words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpcore

from deltawire.protocol import DeltawireError, ReadError, TransportError

from .streams.layers import Expired

if TYPE_CHECKING:
    from deltawire.protocol import Deadlines

# What may go wrong with an exchange: our own errors from connecting, what httpcore raises on purpose (it
# has no root of its own), and what the operating system says where httpcore does not translate it.
PEER_ERRORS: tuple[type[Exception], ...] = (
    TransportError,
    Expired,
    OSError,
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    httpcore.ProxyError,
    httpcore.ConnectionNotAvailable,
)


def exchange_error(error: Exception, deadlines: Deadlines, where: str) -> DeltawireError:
    """Anything that went wrong with an exchange."""
    if isinstance(error, DeltawireError):
        return error
    reason = str(error)
    if isinstance(error, (Expired, httpcore.TimeoutException)):
        # Expired has words of its own where a stream was opened.
        return deadlines.error(where, reason if isinstance(error, Expired) else "")
    reason = reason or type(error).__name__
    return ReadError(f"the connection broke{where}: {reason}")
