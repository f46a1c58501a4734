"""Requests: what a caller wants (`ChatRequest`), and what goes out (`HTTPRequest`).

Whatever could make a request mean something else is refused here, before anything is sent: RFC 9110
section 5.5 has the rules for field values, section 5.6.2 for names; RFC 9112 section 11.1 says why.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from .errors import ConfigurationError
from .urls import URL, parse_url

if TYPE_CHECKING:
    from collections.abc import Iterable

# OpenAI's API reference, "Create chat completion". Anything else goes through `extra_body`.
PARAMETERS = frozenset({
    "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs",
    "max_completion_tokens", "max_tokens", "metadata", "modalities", "n", "parallel_tool_calls",
    "prediction", "presence_penalty", "prompt_cache_key", "prompt_cache_retention", "reasoning_effort",
    "response_format", "safety_identifier", "seed", "service_tier", "stop", "store", "stream_options",
    "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity",
    "web_search_options",
})  # fmt: skip

# Never shown, whoever prints a request.
_SECRET_FIELDS = frozenset({b"authorization", b"proxy-authorization", b"api-key", b"x-api-key", b"cookie"})

_MAX_DEPTH = 64

# These say where a body ends: set by the builder, who knows the body, and by nobody else.
_FRAMING_FIELDS = frozenset({b"content-length", b"transfer-encoding"})

_TOKEN = re.compile(rb"\A[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE = re.compile(rb"\A(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?\Z")


class HTTPRequest(msgspec.Struct, frozen=True):
    """One HTTP request, complete: Host and Content-Length are among the fields."""

    method: str
    url: str
    headers: tuple[tuple[bytes, bytes], ...]
    """Names in lower case, in the order in which they go out."""
    body: bytes = b""
    hidden: frozenset[bytes] = frozenset()
    """Names of fields whose values are never shown, besides those that hold secrets in any request."""

    @property
    def parts(self) -> URL:
        """The URL, taken apart."""
        return parse_url(self.url)

    def to(self, url: str) -> HTTPRequest:
        """The same request, sent to another URL of the same origin."""
        return HTTPRequest(self.method, url, self.headers, self.body, self.hidden)

    def __repr__(self) -> str:
        secret = _SECRET_FIELDS | self.hidden
        shown = [(name, b"***" if name in secret else value) for name, value in self.headers]
        return f"HTTPRequest({self.method!r}, {self.url!r}, {shown!r}, {len(self.body)} bytes)"


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller asks of a model, in OpenAI's words."""

    messages: Any
    """A list of messages (dicts, or objects such as a completion's message), or a text: the user's."""
    model: str
    stream: bool | None = None
    """None: the field is not sent, which means no stream."""
    params: dict[str, Any] = {}
    """Further fields of the body; those that are None are not sent. 0, False and "" are."""
    extra_body: dict[str, Any] | None = None
    """Fields of the body that win over all others, None included."""
    extra_headers: dict[str, str | None] | None = None
    """Header fields that win over all others; None removes a field."""
    extra_query: dict[str, Any] | None = None
    """Added to the URL's query."""

    def __post_init__(self) -> None:
        unknown = self.params.keys() - PARAMETERS
        if unknown:
            raise ConfigurationError(_unknown(sorted(unknown)[0]))

    def encode(self) -> bytes:
        """The body, as JSON. Raises `ConfigurationError` for what JSON can't say."""
        body: dict[str, Any] = {"messages": listed_messages(self.messages), "model": self.model}
        if self.stream is not None:
            body["stream"] = self.stream
        for name, value in self.params.items():
            if value is not None:
                check(value, name)
                body[name] = value
        for name, value in (self.extra_body or {}).items():
            check(value, name)
            body[name] = value
        return encode_body(body)


def encode_body(body: dict[str, Any]) -> bytes:
    """The body, as JSON. Raises `ConfigurationError` for what JSON can't say; see also `check`."""
    try:
        return _encode(body)
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            "the request holds a lone surrogate, which UTF-8 can't say "
            f"(at {error.object[max(error.start - 10, 0) : error.start]!a}...): replace it"
        ) from None
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ConfigurationError(f"the request can't be said in JSON: {error}") from None


def _unknown(name: str) -> str:
    # Only on the way to an error: difflib takes a while to load.
    import difflib

    if name in ("messages", "model", "stream"):
        return f"{name!r} is a field of its own, not one of params"
    near = difflib.get_close_matches(name, PARAMETERS | {"messages", "model", "stream"}, 1)
    mean = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown parameter {name!r}{mean} (what only some servers know goes into extra_body={{{name!r}: ...}})"


def listed_messages(messages: Any) -> list[Any]:
    """The messages that a caller gives, as a list. Raises `ConfigurationError` for what is none."""
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if isinstance(messages, (dict, bytes)) or not hasattr(messages, "__iter__"):
        raise ConfigurationError(f"messages must be a list of messages or a str, not {type(messages).__name__}")
    listed = messages if type(messages) is list else list(messages)
    if not _are_texts(listed):
        for message in listed:
            if isinstance(message, str):
                raise ConfigurationError("messages must hold dicts such as {'role': 'user', 'content': ...}, not str")
            check(message, "messages")
    return listed


_content = operator.itemgetter("content")


def _are_texts(messages: list[Any]) -> bool:
    """Whether all contents are texts, as in nearly all lists; told at the speed of C."""
    try:
        "".join(map(_content, messages))
    except (TypeError, LookupError):
        return False
    return True


def check(value: Any, name: str, depth: int = 0) -> None:
    """Refuse what msgspec would send as something else, without a word: bytes as base64, NaN as null."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise ConfigurationError(f"{name} holds bytes, which JSON can't say: decode them, or encode them as base64")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigurationError(f"{name} must hold finite numbers only, not {value}")
    inside: Iterable[Any] = ()
    if isinstance(value, (list, tuple)):
        inside = value
    elif isinstance(value, msgspec.Struct):
        inside = msgspec.structs.astuple(value)
    elif isinstance(value, Mapping):
        inside = value.values()
    # What is nested deeper than any API allows may be nested without end; encoding will tell.
    if depth < _MAX_DEPTH:
        for each in inside:
            if type(each) is not str:
                check(each, name, depth + 1)


def _plain(value: Any) -> Any:
    """Objects of other libraries: pydantic's (such as the OpenAI SDK's own messages), mappings, iterables."""
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json", exclude_unset=True)
    if hasattr(value, "keys") and hasattr(value, "__getitem__"):
        return {key: value[key] for key in value.keys()}  # noqa: SIM118 - a mapping by its methods only
    if hasattr(value, "__iter__"):
        return list(value)
    raise TypeError(f"objects of type {type(value).__name__} have no JSON form")


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def first_fields(url: str, user_agent: str) -> list[tuple[bytes, bytes]]:
    """The fields that every request to this URL begins with. Raises `ConfigurationError` for a bad URL or name."""
    host = parse_url(url).authority.encode("ascii")
    # "identity": a compressed stream arrives in lumps, and every proxy between may hold it back.
    return [(b"host", host), (b"accept-encoding", b"identity"), field("user-agent", user_agent)]


def field(name: str | bytes, value: str | bytes) -> tuple[bytes, bytes]:
    """A header field as bytes, its name in lower case.

    Raises `ConfigurationError` for bytes that RFC 9110 does not allow; the value is not repeated, since
    it may be a key.
    """
    raw_name = name.encode("latin-1", "replace") if isinstance(name, str) else name
    if not _TOKEN.match(raw_name):
        raise ConfigurationError(f"{raw_name.decode('latin-1')!r} is no valid header name")
    shown = raw_name.decode("ascii")
    if not isinstance(value, (str, bytes)):
        raise ConfigurationError(f"the header {shown} must be a str, not {type(value).__name__}")
    try:
        raw_value = value.encode("latin-1") if isinstance(value, str) else value
    except UnicodeEncodeError:
        raise ConfigurationError(f"the header {shown} holds characters beyond Latin-1") from None
    if not _VALUE.match(raw_value):
        raise ConfigurationError(
            f"the header {shown} holds a line break or another control, or begins or ends with a blank"
            + (": strip the API key" if raw_name.lower() == b"authorization" else "")
        )
    return raw_name.lower(), raw_value


def merge_fields(
    fields: Iterable[tuple[bytes, bytes]], more: Mapping[str, str | None] | None
) -> tuple[tuple[bytes, bytes], ...]:
    """The fields, with those in ``more`` in place of their namesakes; a value of None removes one.

    Raises `ConfigurationError` for illegal bytes, and for the fields that say where a body ends.
    """
    if not more:
        return tuple(fields)
    merged = dict(fields)
    for name, value in more.items():
        key, raw = field(name, "" if value is None else value)
        if key in _FRAMING_FIELDS:
            raise ConfigurationError(f"the header {key.decode()} is set by deltawire, from the body")
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = raw
    return tuple(merged.items())
