"""What goes wrong with a connection, in our words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltawire.protocol import DeltawireError, TransportError
from deltawire.protocol.verdicts import broken

from .streams.layers import Expired

if TYPE_CHECKING:
    from deltawire.protocol import Context, Deadlines

# What opening, reading and writing a stream raise, on purpose or by the operating system.
LINK_ERRORS: tuple[type[Exception], ...] = (TransportError, Expired, OSError)


def exchange_error(error: Exception, deadlines: Deadlines, context: Context) -> DeltawireError:
    """Anything that went wrong with an exchange."""
    if isinstance(error, DeltawireError):
        return error
    if isinstance(error, Expired):
        # It has words of its own where a stream was opened.
        return deadlines.error(context.where(), str(error))
    return broken(error, context)
