"""The words of the errors that a reply ends with: what happened, where, what to do.

``where`` is the clause that says where (`Context.where`). What a peer has sent is redacted before it is cut.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .dialects.signals import EMPTY, TOO_MANY, BadEvent
from .errors import (
    APIStatusError,
    ConnectError,
    DeltawireError,
    EmptyReplyError,
    LimitExceededError,
    MalformedEventError,
    ReadError,
    TruncatedStreamError,
    UnexpectedReplyError,
)
from .events import StreamEnded, StreamFailed
from .status import ErrorObject, stream_error

if TYPE_CHECKING:
    from .context import Context
    from .dialects.signals import Signal
    from .events import Event
    from .reply import Reply

# How much of a body that is no chat reply is kept to be shown.
FIRST_BYTES = 2000

# How h11 shows what a peer has sent: as Python writes it, at any length, and there a secret may not be recognised.
_WRITTEN = re.compile(r"""bytearray\(b(['"])((?:[^\\]|\\.)*?)\1\)""")


def truncated(
    what: str, context: Context, where: str, cause: Exception | None = None, body: bytes = b""
) -> TruncatedStreamError:
    """The reply ends too early; ``body``: its beginning, if that tells something."""
    why = f" ({context.redact(str(cause))})" if cause is not None else ""
    start = f" It begins {context.excerpt(body, 200)!r}." if body else ""
    return TruncatedStreamError(f"{what}{why}{where}: the server or a proxy broke it off; try again.{start}")


def malformed(what: str, context: Context, where: str, data: bytes) -> MalformedEventError:
    """An event that is no JSON object."""
    line = context.excerpt(data, 1000, more="")
    return MalformedEventError(f"an event of the reply {what}{where}: {line[:500]!r}", line=line)


def cut_off(signal: Signal, data: bytes) -> bool:
    """Whether the last event, which no blank line ends, does not parse: an error's JSON, too, then says nothing."""
    if isinstance(signal, ErrorObject):
        # (An error event may be plain words.)
        return signal.body is None and data.lstrip()[:1] in (b"{", b"[", b'"')
    return isinstance(signal, BadEvent)


def unexpected(what: str, context: Context, where: str, body: bytes) -> UnexpectedReplyError:
    """A reply that is no chat reply."""
    shown = context.excerpt(body, FIRST_BYTES, more="")
    return UnexpectedReplyError(
        f"{what}{where}: check the base URL, and what stands between. It begins {shown[:500]!r}", body=shown.encode()
    )


def broken(error: Exception, context: Context) -> ReadError:
    """The connection broke, or what came on it was no HTTP."""
    reason = _WRITTEN.sub(lambda found: repr(context.excerpt(_bytes(found[2]), 200)), str(error))
    reason = context.redact(reason) or type(error).__name__
    return ReadError(f"the connection broke{context.where()}: {reason}")


def of_signal(signal: Signal, reply: Reply) -> DeltawireError | None:
    """What an event said beside chunks; None: that the reply is over, and good."""
    where = reply.where()
    if isinstance(signal, BadEvent):
        return malformed(signal.what, reply.context, where, signal.data)
    if isinstance(signal, ErrorObject):
        return stream_error(signal, reply.headers, reply.context, reply.dialect)
    if signal == EMPTY:
        return empty(reply.kind.empty, where)
    return too_large("an event, or the stream,", where, "objects", reply.limits.objects) if signal == TOO_MANY else None


def empty(why: str, where: str) -> EmptyReplyError:
    """A reply that ended in good order, and said nothing."""
    return EmptyReplyError(f"the reply is empty{where}: {why}")


def too_large(what: str, where: str, name: str, limit: int) -> LimitExceededError:
    """More than ``Limits.name`` allows."""
    size = f"holds more than {limit} objects" if name == "objects" else f"is larger than {limit} bytes"
    message = f"{what} {size} (Limits.{name}){where}: raise it if you expect that"
    return LimitExceededError(message, limit_name=name, limit=limit)


def typed(error: Exception, context: Context) -> DeltawireError:
    """Whatever broke a connection, as an error of ours."""
    if isinstance(error, ConnectError) and not error.message.endswith(where := context.where()):
        # Who connects knows of hosts, and nothing of providers and what they are asked for.
        error.message += where
        error.args = (error.message,)
    if isinstance(error, DeltawireError):
        return error
    wrapped = ReadError(f"{context.redact(str(error)) or type(error).__name__}{context.where()}")
    wrapped.__cause__ = error
    return wrapped


def is_sound(event: Event) -> bool:
    """Whether a reply that ends with this event says nothing against the connection it came on: it is good, or an
    error of the server's own making. What is left of any other may be anything."""
    if isinstance(event, StreamFailed):
        return isinstance(event.error, APIStatusError)
    return isinstance(event, StreamEnded)


def _bytes(written: str) -> bytes:
    """What stands between the quotes of a ``bytes``'s repr."""
    return written.encode("ascii", "replace").decode("unicode_escape", "replace").encode("latin-1", "replace")
