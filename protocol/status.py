"""From an error status, or an error object in a stream, to the error that says so.

Servers word their errors in many ways; all that were seen are read here: OpenAI's
``{"error": {"message", "type", "code", "param"}}``, an ``error`` that is a string or true, a flat
``{"object": "error", ...}`` (vLLM), ``{"detail": "..."}`` or a list of details (FastAPI),
``{"message": "..."}``, ``{"error_message": "..."}``, any of these in a list (Gemini), plain text,
HTML.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ._json import loads
from .errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InternalServerError,
    MissingAuthError,
    NotFoundError,
    PermissionDeniedError,
    ProxyError,
    RateLimitError,
    RedirectError,
    UnprocessableEntityError,
)
from .fields import header, request_id, retry_after, said, shown_id, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .context import Context

_CLASSES: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}

_ADVICE: dict[int, str] = {
    400: "The server does not accept this request: see its words, mend the parameters.",
    401: "Check the API key, and that it belongs to this server.",
    403: "The key may not do this: check its rights, the organisation, the region.",
    404: "Check the base URL (it usually ends in /v1) and the model's name.",
    413: "Send less: the request is too large for this server.",
    422: "A value in the request is not valid: see the server's words.",
    429: "Slow down, or check the account's quota.",
}
# WordPress' REST API, which knows no keys: the refusals of a nonce, and what else its codes say better than the status.
NONCE_CODES = frozenset({"rest_cookie_invalid_nonce", "rest_forbidden", "rest_not_logged_in"})
_ADVICE_BY_CODE: dict[str, str] = dict.fromkeys(NONCE_CODES, "The site wants a nonce, or a newer one: fetch it.") | {
    "rest_no_route": "The site has no such route: check its URL and path, and that AI Engine is there.",
}
# A site has neither keys nor models.
_SITES = frozenset({"opchatgpts", "session", "page"})
_SITE_ADVICE: dict[int, str] = _ADVICE | {
    403: "The site, or what stands before it, wants no such visitor; some let in browsers only: try impersonate.",
    404: "Check the site's URL and path (where URLs are not rewritten it is '/?rest_route=/mwai-ui/v1/chats/submit'), "
    "and that AI Engine is there.",
}
_SERVER_ADVICE = "The fault is the server's or a gateway's: try again later."

# `type` and `code` of errors in a stream, which has sent its status long ago. From OpenAI's "Error
# codes" guide, and the names that vLLM, LiteLLM, Anthropic and OpenRouter use.
_STATUS_BY_NAME: dict[str, int] = {
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "bad_request": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "content_policy_violation": 400,
    "string_above_max_length": 400,
    "authentication_error": 401,
    "authenticationerror": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "permissiondeniederror": 403,
    "not_found_error": 404,
    "notfounderror": 404,
    "model_not_found": 404,
    "conflict": 409,
    "request_too_large": 413,
    "unprocessable_entity": 422,
    "unprocessableentityerror": 422,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "ratelimiterror": 429,
    "insufficient_quota": 429,
    "requests": 429,
    "tokens": 429,
    "server_error": 500,
    "internal_error": 500,
    "internal_server_error": 500,
    "internalservererror": 500,
    "api_error": 500,
    "overloaded_error": 503,
    "service_unavailable": 503,
    "engine_overloaded": 503,
    "timeout": 504,
    "timeout_error": 504,
}


class ErrorObject(msgspec.Struct, frozen=True):
    """What an error says of itself, in whichever form it came."""

    message: str
    code: Any = None
    type: Any = None
    param: Any = None
    body: Any = None


def error_object(value: Any, *, flat: bool = False) -> ErrorObject | None:
    """The error that a decoded JSON document is or carries, or None.

    ``flat``: the surroundings say that it is one (an error status, ``event: error``), so its own
    fields are the error's when there is no ``error`` in it.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str) and flat:
        return ErrorObject(value, body=value)
    if not isinstance(value, dict):
        return ErrorObject(_text(value), body=value) if flat and value else None
    error = value.get("error")
    if error:
        if isinstance(error, dict):
            return _from_fields(error)
        message = error if isinstance(error, str) else _message(value)
        return ErrorObject(message or _text(value), value.get("code"), value.get("error_type"), body=value)
    if flat or value.get("object") == "error" or value.get("error_message"):
        return _from_fields(value)
    return None


def tells_error(value: Any) -> bool:
    """Whether a decoded JSON document, with status 200, is an error by its own fields: it says a "detail" or a
    "message", and there are no choices."""
    if not isinstance(value, dict) or value.get("choices") or value.get("success") is True:
        return False
    message, detail = value.get("message"), value.get("detail")
    return bool((message and isinstance(message, (str, list))) or (detail and isinstance(detail, (str, list, dict))))


def _from_fields(value: dict[str, Any]) -> ErrorObject:
    message = _message(value) or _text(value)
    return ErrorObject(message, value.get("code"), value.get("type"), value.get("param"), body=value)


def _message(value: dict[str, Any]) -> str:
    for name in ("message", "error_message", "detail", "failed_generation", "msg"):
        found = value.get(name)
        if isinstance(found, str) and found:
            return found
        if found and not isinstance(found, (bool, int, float)):
            return _text(found)
    return ""


def _text(value: Any) -> str:
    """What is no text, as JSON."""
    return msgspec.json.encode(value).decode("utf-8", "replace")


def stream_error(
    error: ErrorObject, headers: Sequence[tuple[bytes, bytes]], context: Context, dialect: str = "openai"
) -> APIStatusError:
    """The error for an error object that came with status 200."""
    return _build(_status_of(error), error, headers, context, "the server reports an error in the reply", dialect)


def _status_of(error: ErrorObject) -> int | None:
    for name in (error.code, error.type):
        if isinstance(name, str) and name.isdecimal() and len(name) == 3:
            name = int(name)
        if isinstance(name, int) and 400 <= name <= 599:
            return name
        if isinstance(name, str) and name.lower() in _STATUS_BY_NAME:
            return _STATUS_BY_NAME[name.lower()]
    return None


def one_line(words: str | bytes, context: Context, length: int = 300, *, cut: bool = False) -> str:
    """The beginning of a peer's words, fit for a message: one line, no controls, no secrets. ``cut``: they may
    end within a secret."""
    text = words if isinstance(words, str) else words.decode("utf-8", "replace")
    text = context.redact(text, cut=cut)
    text = "".join(each if each.isprintable() else " " for each in text)
    return context.excerpt(" ".join(text.split()), length)


def words_of(body: bytes, context: Context) -> str:
    """What the body of a refusal says, as `one_line`: the message in its JSON, a page without its markup, text.
    ``body``: as much of it as was kept."""
    try:
        error = error_object(loads(body), flat=True) if body else None
        return one_line(error.message if error else "", context)
    except ValueError:
        # A secret may stand in a page as it is, or in character references.
        text = context.redact(body.decode("utf-8", "replace"), cut=True)
        return one_line(_without_markup(text) if text.lstrip().startswith("<") else text, context, cut=True)


def _plain(words: str, context: Context) -> str:
    """A page without its markup, other words as they are. (WordPress puts markup into its JSON, too.)"""
    if not words.lstrip().startswith("<"):
        return words
    # A secret may stand in it as it is, or in character references; and the page may be cut.
    return context.redact(" ".join(_without_markup(context.redact(words)).split()), cut=True)


def _without_markup(page: str) -> str:
    # Only on the way to an error: it loads a large table.
    import html

    # No parser: words to be shown need none. In time that grows with the page's length, whatever stands in it.
    first, *pieces = page.split("<")
    texts = [first]
    until = ""
    for piece in pieces:
        tag, _, text = piece.partition(">")
        name = tag.lower().partition(" ")[0]
        if not until:
            # What ends a part that is not shown.
            until = "-->" if piece.startswith("!--") else f"/{name}" if name in ("script", "style") else ""
        if until == "-->" and until in piece:
            until, text = "", piece.partition("-->")[2]
        elif until == name:
            until = ""
        if not until:
            texts.append(text)
    return html.unescape(" ".join(texts))


def status_error(
    status: int,
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes,
    context: Context,
    dialect: str = "openai",
) -> APIStatusError | ProxyError:
    """The error for a reply whose status is not 2xx. ``body``: as much of it as was kept."""
    if status == 407:
        # RFC 9110 section 15.5.8: only a proxy sends this.
        return ProxyError(
            f"the proxy {context.proxy or '(unknown)'} wants other credentials (407 Proxy Authentication "
            f"Required){context.where()}: put user and password into its URL, percent-encoded, as "
            "http://user:password@host:port",
            proxy=context.proxy or None,
            status_code=407,
            body=context.redact(body.decode("utf-8", "replace"), cut=True).encode(),
            transient=False,
        )
    try:
        error = error_object(loads(body), flat=True) if body else None
    except ValueError:
        # Whoever kept this may have cut it, and through a secret.
        text = context.redact(body.decode("utf-8", "replace"), cut=True)
        error = ErrorObject(text, body=text)
    return _build(status, error or ErrorObject(""), headers, context, f"status {status}", dialect)


def _refuses(body: Any) -> bool:
    """Whether the plugin itself says no, and not WordPress or a gateway."""
    return isinstance(body, dict) and body.get("success") is False


def _build(
    status: int | None,
    error: ErrorObject,
    headers: Sequence[tuple[bytes, bytes]],
    context: Context,
    what: str,
    dialect: str,
) -> APIStatusError:
    cls: type[APIStatusError] = APIStatusError
    advice = (_SITE_ADVICE if dialect in _SITES else _ADVICE).get(status or 0, "")
    if status is not None:
        cls = _CLASSES.get(status, InternalServerError if status >= 500 else APIStatusError)
        advice = advice or (_SERVER_ADVICE if status >= 500 else "")
    by_code = _ADVICE_BY_CODE.get(error.code, "") if isinstance(error.code, str) else ""
    if by_code:
        advice = by_code
    elif dialect in _SITES and status in (401, 403) and _refuses(error.body):
        advice = "The site refuses this message: see its words."
    details: dict[str, Any] = {}
    if status is not None and 300 <= status <= 399:
        cls = RedirectError
        target = header(headers, b"location")
        details["location"] = None if target is None else context.redact(target.decode("latin-1"))
        advice = "It was not followed: use the final address as base_url."
    if status == 401 and not by_code:
        if not context.key_name:
            advice = "It wants fields that say who asks: give them with headers."
        elif not context.key_given:
            cls = MissingAuthError
            advice = f"No API key was given: pass api_key=, or set {context.key_name}."
        if context.proxy:
            # tinyproxy answers a wrong password so, instead of 407.
            advice += " Or it's the proxy's password."
    identity = context.redact(request_id(headers) or "") or None
    wait = retry_after(headers)
    if wait is not None and wait > 0:
        advice += f" The server asks to wait {wait:g} s."
    words = visible(context.excerpt(_plain(error.message, context)))
    if details.get("location"):
        words = f"redirected to {visible(context.excerpt(details['location']))}" + (f": {words}" if words else "")
    message = what + context.where(shown_id(headers, context))
    message += f": {words}" if words else ": no message in the reply"
    if advice:
        message = message.rstrip(".") + ". " + advice.strip()
    return cls(
        message,
        status_code=status,
        request_id=identity,
        retry_after=wait,
        body=context.redacted(error.body),
        code=context.redacted(error.code),
        type=context.redacted(error.type),
        param=context.redacted(error.param),
        headers=[said(key.lower(), value, context) for key, value in headers],
        **details,
    )
