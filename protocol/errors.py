"""The errors of deltawire, one tree.

::

    DeltawireError
    +-- ConfigurationError            what the caller asked for can't be sent (also a ValueError)
    |   +-- ProviderNotFoundError         there is no provider of that name
    |   +-- ProviderNotWorkingError       it is marked as not working
    +-- UsageError                    a machine or a client used out of turn (also a RuntimeError)
    +-- APIError                      the server, or its reply
    |   +-- APIStatusError            an error status, or an error object in the stream
    |   |   +-- BadRequestError           400
    |   |   +-- AuthenticationError       401
    |   |   |   +-- MissingAuthError          and no key was given
    |   |   +-- PermissionDeniedError     403
    |   |   +-- NotFoundError             404
    |   |   +-- ConflictError             409
    |   |   +-- UnprocessableEntityError  422
    |   |   +-- RateLimitError            429
    |   |   +-- InternalServerError       500 and above
    |   |   +-- RedirectError             3xx, not followed (.location)
    |   +-- StreamError               the bytes of a reply
    |       +-- TruncatedStreamError      they end too early (.partial: what had arrived)
    |       +-- MalformedEventError       an event that is no JSON object (also a RuntimeError)
    |       +-- LimitExceededError        more than Limits allows (.limit_name, .limit)
    |       +-- UnexpectedReplyError      no chat reply at all: HTML, text, an unknown coding
    |       +-- EmptyReplyError           it ended well, with no content and no finish reason
    +-- TransportError                the way to the server
    |   +-- ConnectError                  no connection, or no trust in its certificate
    |   |   +-- ProxyError                    the proxy refused, is dead, or wants a password
    |   +-- TimeoutError                  a deadline passed (also a builtin TimeoutError)
    |   +-- ReadError                     the connection broke after the request was sent
    +-- RetryProviderError            every provider failed (.errors, in order)
    +-- RetryNoProviderError          there was no provider to try, or all were empty

Faults of the caller (ConfigurationError, UsageError) are raised at once and never retried. The rest
are faults of peers: machines give them as the last event, clients raise them. Every message says what
happened, where, and what to do; where the words are a peer's, secrets are cut out of them before they
get here (``Context.redact``).
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .chunks import ChatCompletion


def _rebuild(cls: type[DeltawireError], args: tuple[Any, ...], state: dict[str, Any]) -> DeltawireError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class DeltawireError(Exception):
    """The root: ``except DeltawireError`` catches all that deltawire raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only constructors would otherwise break pickling, hence process pools.
        return (_rebuild, (type(self), self.args, self.__dict__))


class ConfigurationError(DeltawireError, ValueError):
    """What the caller asked for can't be done or sent; raised before anything is."""


class ProviderNotFoundError(ConfigurationError):
    """There is no provider of that name."""


class ProviderNotWorkingError(ConfigurationError):
    """The provider is marked as not working; ``ignore_working=True`` asks it all the same."""


class UsageError(DeltawireError, RuntimeError):
    """A machine, stream or client was used out of turn: fed before its start, used after its close."""


class APIError(DeltawireError):
    """The server answered, and the answer is no good."""

    retries_taken: int = 0
    """How many attempts came before the one that failed so."""
    gave_up: str = ""
    """Why there was no further attempt though some were left; "" otherwise."""
    partial: ChatCompletion | None = None
    """What had arrived before the fault, accumulated; None when that was nothing."""


class APIStatusError(APIError):
    """An HTTP error status, or an error object inside a stream.

    ``status_code`` is None when an error in a stream names no status that we know.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        body: object = None,
        code: Any = None,
        type: Any = None,
        param: Any = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.request_id = request_id
        """The reply's ``x-request-id``, or None."""
        self.retry_after = retry_after
        """Seconds, as ``retry-after-ms`` or ``Retry-After`` says, whatever its size; or None."""
        self.body = body
        """The decoded JSON of the error, or its text; its secrets cut out."""
        self.code = code
        """The server's own code, as it sent it: text or a number."""
        self.type = type
        self.param = param
        self.headers = list(headers)
        """The reply's header fields, names in lower case; secrets are cut out of their values, though not out of the
        bytes of a ``Location``, which only shows without them."""


class BadRequestError(APIStatusError):
    """400: the server does not accept the request as it is."""


class AuthenticationError(APIStatusError):
    """401: the key is wrong, revoked, or for another server."""


class MissingAuthError(AuthenticationError):
    """A key is needed, and none was given."""


class PermissionDeniedError(APIStatusError):
    """403: the key is known, and not allowed to do this."""


class NotFoundError(APIStatusError):
    """404: no such model, or no such path under the base URL."""


class ConflictError(APIStatusError):
    """409: the server says that a retry may help."""


class UnprocessableEntityError(APIStatusError):
    """422: the request is well formed, a value in it is not."""


class RateLimitError(APIStatusError):
    """429: too many requests, or no quota left."""


class InternalServerError(APIStatusError):
    """500 and above: the server, or a gateway before it, failed."""


class RedirectError(APIStatusError):
    """3xx that is not followed: following would send the key, or turn the POST into a GET."""

    def __init__(self, message: str, *, location: str | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.location = location
        """The ``Location`` field, its secrets cut out, or None."""


class StreamError(APIError):
    """The bytes of a reply are not what they should be."""

    request_id: str | None = None


class TruncatedStreamError(StreamError):
    """The reply ends before it is complete: no end marker, and a choice without finish reason."""


class MalformedEventError(StreamError, RuntimeError):
    """An event of the stream is no JSON object."""

    def __init__(self, message: str, *, line: str = "") -> None:
        super().__init__(message)
        self.line = line
        """The event's data, at most its first 1,000 characters."""


class LimitExceededError(StreamError):
    """The reply is larger than ``Limits`` allows."""

    def __init__(self, message: str, *, limit_name: str, limit: int) -> None:
        super().__init__(message)
        self.limit_name = limit_name
        """The field of ``Limits``."""
        self.limit = limit
        """Its value, in bytes."""


class UnexpectedReplyError(StreamError):
    """The reply is no chat reply: HTML, plain text, JSON of another kind, an unknown coding."""

    def __init__(self, message: str, *, body: bytes = b"") -> None:
        super().__init__(message)
        self.body = body
        """The first bytes of the reply."""


class EmptyReplyError(StreamError):
    """The reply ended in good order and says nothing: no content, no finish reason."""


class TransportError(DeltawireError):
    """The way to the server failed."""

    retries_taken: int = 0
    """How many attempts came before the one that failed so."""
    gave_up: str = ""
    """Why there was no further attempt though some were left; "" otherwise."""
    partial: ChatCompletion | None = None
    """What had arrived before the fault, accumulated; None when that was nothing."""

    def __init__(self, message: str, *, transient: bool = True) -> None:
        super().__init__(message)
        self.transient = transient
        """Whether trying again may help; False for a bad certificate, or a proxy that refuses the password or by
        its rules."""


class ConnectError(TransportError):
    """No connection to the server: refused, unreachable, unknown name, a TLS failure, or no way past a proxy."""


class ProxyError(ConnectError):
    """The proxy is dead, refused the tunnel, or wants other credentials (407)."""

    def __init__(
        self,
        message: str,
        *,
        proxy: str | None = None,
        status_code: int | None = None,
        reply_code: int | None = None,
        body: bytes = b"",
        transient: bool = True,
    ) -> None:
        super().__init__(message, transient=transient)
        self.proxy = proxy
        """The proxy's URL without its credentials."""
        self.status_code = status_code
        """The status with which an HTTP proxy refused, or None."""
        self.reply_code = reply_code
        """The reply code (REP, RFC 1928 section 6) with which a SOCKS proxy refused, or None."""
        self.body = body
        """The page that came with an HTTP proxy's refusal, as far as it came, its secrets cut out."""


class TimeoutError(TransportError, builtins.TimeoutError):
    """A deadline passed. ``except TimeoutError`` with the builtin name catches it too."""

    def __init__(self, message: str, *, deadline: str | None = None, seconds: float | None = None) -> None:
        super().__init__(message)
        self.deadline = deadline
        """Which one: "connect", "first_content", "idle" or "total" (fields of ``Timeout``)."""
        self.seconds = seconds
        """Its length."""


class ReadError(TransportError):
    """The connection broke, or the peer broke HTTP, after the request was sent."""


class RetryProviderError(DeltawireError):
    """Every provider failed."""

    def __init__(self, message: str, *, errors: Sequence[Exception] = ()) -> None:
        super().__init__(message)
        self.errors = list(errors)
        """What each attempt failed with, in order."""


class RetryNoProviderError(DeltawireError):
    """There was no provider to try, or none gave anything."""


# Names under which programs written for g4f catch the same.
ResponseError = APIError
ResponseStatusError = APIStatusError
ModelNotFoundError = NotFoundError
