"""Requests: what a caller wants (`ChatRequest`), and what goes out (`HTTPRequest`).

Whatever could make a request mean something else is refused here, before anything is sent: RFC 9110
section 5.5 has the rules for field values, section 5.6.2 for names; RFC 9112 section 11.1 says why.
"""

from __future__ import annotations

import binascii
import functools
import re
from typing import TYPE_CHECKING, Any

import msgspec

from .encoding import encode_body
from .errors import ConfigurationError
from .messages import as_messages
from .reserved import Reserved
from .urls import URL, parse_url, shown_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# OpenAI's API reference, "Create chat completion". Anything else goes through `extra_body`.
PARAMETERS = frozenset({
    "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs",
    "max_completion_tokens", "max_tokens", "metadata", "modalities", "n", "parallel_tool_calls",
    "prediction", "presence_penalty", "prompt_cache_key", "prompt_cache_retention", "reasoning_effort",
    "response_format", "safety_identifier", "seed", "service_tier", "stop", "store", "stream_options",
    "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity",
    "web_search_options",
})  # fmt: skip

# These stand before `stream` in a body, as in the requests that people have recorded and compare with.
_BEFORE_STREAM = ("temperature", "max_tokens", "top_p", "stop")

# What makes a field one of credentials: without any of them, and without a key, a 401 says that one is missing.
_CREDENTIALS = frozenset({b"authorization", b"proxy-authorization", b"api-key", b"x-api-key", b"cookie", b"x-wp-nonce"})

# Never shown, whoever prints a request: these, and those whose names speak of secrets (X-Auth-Token, Ocp-Apim-
# Subscription-Key). Rather one too many: such a value is of no use to a reader.
_SECRETIVE = re.compile(rb"auth|key|token|secret|passw|cookie|session|nonce|credential|signature")

# These say where a body ends: set by the builder, who knows the body, and by nobody else.
_FRAMING_FIELDS = frozenset({b"content-length", b"transfer-encoding"})

_TOKEN = re.compile(rb"\A[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE = re.compile(rb"\A(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?\Z")


class HTTPRequest(Reserved, frozen=True):
    """One HTTP request, complete: Host and Content-Length are among the fields."""

    method: str
    url: str
    headers: tuple[tuple[bytes, bytes], ...]
    """Names in lower case, in the order in which they go out."""
    body: bytes = b""
    hidden: frozenset[bytes] = frozenset()
    """Names of fields whose values are never shown, besides those that hold secrets in any request."""
    impersonate: str = ""
    """The browser to pass for, such as "chrome" or "safari"; "" leaves that to the transport. Transports that can't
    do it refuse the request."""
    private: tuple[str, ...] = ()
    """What the body holds that must never be shown, such as the session with a site."""

    @property
    def parts(self) -> URL:
        """The URL, taken apart."""
        return parse_url(self.url)

    def to(self, url: str) -> HTTPRequest:
        """The same request, sent to another URL of the same origin."""
        return msgspec.structs.replace(self, url=url)

    @property
    def has_credentials(self) -> bool:
        """Whether one of its fields says who asks."""
        known = _CREDENTIALS | self.hidden
        return any(value and name in known for name, value in self.headers)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What it holds that must never be shown: in its fields (`secrets_in`), and in its body."""
        found = [*self.private]
        for name, raw in self.headers:
            if _is_secretive(name) or name in self.hidden:
                found += secrets_in(name, raw)
        return tuple(found)

    def __repr__(self) -> str:
        fields = self.headers
        shown = [(name, b"***" if _is_secretive(name) or name in self.hidden else value) for name, value in fields]
        more = f", impersonate={self.impersonate!r}" if self.impersonate else ""
        return f"HTTPRequest({self.method!r}, {shown_url(self.url)!r}, {shown!r}, {len(self.body)} bytes{more})"


@functools.lru_cache(maxsize=512)
def _is_secretive(name: bytes) -> bool:
    return _SECRETIVE.search(name) is not None


def secrets_in(name: bytes, raw: bytes) -> list[str]:
    """What must not be shown of the value of a field that carries secrets: the value (in both codings in which a peer
    may have read it), without the scheme's name ("Bearer"); of Basic the password, of cookies each value, too."""
    values = [raw.decode("latin-1")]
    if not raw.isascii():
        values.append(raw.decode("utf-8", "replace"))
    return [part for value in values for part in _parts(name, value) if part]


def _parts(name: bytes, value: str) -> list[str]:
    if name.endswith(b"authorization"):
        # RFC 9110 section 11.4: a scheme, and what it needs.
        scheme, _, needs = value.partition(" ")
        if scheme.lower() != "basic":
            return [needs or value]
        # RFC 7617.
        try:
            pair = binascii.a2b_base64(needs).decode()
        except ValueError:
            pair = ""
        return [needs or value, pair.partition(":")[2]]
    if name == b"cookie":
        # RFC 6265 section 4.2.1.
        return [value, *(pair.partition("=")[2].strip(' "') for pair in value.split(";"))]
    return [value]


class ChatRequest(Reserved, frozen=True, kw_only=True):
    """What a caller asks of a model, in OpenAI's words."""

    messages: Any
    """A list of messages (dicts, or objects such as a completion's message), or a text: the user's."""
    model: str | None
    """None: the field is not sent, and the server has a model of its own."""
    stream: bool | None = None
    """None: the field is not sent, which means no stream."""
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    """Further fields of the body; those that are None are not sent. 0, False and "" are."""
    extra_body: dict[str, Any] | None = None
    """Fields of the body that win over all others, None included."""
    extra_headers: dict[str, str | None] | None = None
    """Header fields that win over all others; None removes a field."""
    extra_query: dict[str, Any] | None = None
    """Added to the URL's query."""

    def __post_init__(self) -> None:
        check_parameters(self.params, PARAMETERS, ("messages", "model", "stream"))

    def __repr__(self) -> str:
        return shown_request(self)

    def encode(self) -> bytes:
        """The body, as JSON. Raises `ConfigurationError` for what JSON can't say."""
        body: dict[str, Any] = {"messages": as_messages(self.messages)}
        if self.model is not None:
            body["model"] = self.model
        params = self.params
        if self.stream is not None:
            first = {name: params[name] for name in _BEFORE_STREAM if name in params}
            params = {**first, "stream": self.stream, **params}
        return encode_body(body, params, self.extra_body)


def shown_request(asked: msgspec.Struct) -> str:
    """The repr of what a caller asks, without the values of header fields and queries: they may be keys."""
    fields = []
    for name in asked.__struct_fields__:
        value = getattr(asked, name)
        if name in ("extra_headers", "extra_query") and value is not None:
            value = dict.fromkeys(value, "***")
        fields.append(f"{name}={value!r}")
    return f"{type(asked).__name__}({', '.join(fields)})"


def check_parameters(params: Mapping[str, Any], known: frozenset[str], fields: tuple[str, ...]) -> None:
    """Raise `ConfigurationError` for a parameter that is none of the known ones; ``fields`` are the request's own."""
    if params.keys() <= known:
        return
    # Only on the way to an error: difflib takes a while to load.
    import difflib

    name = sorted(params.keys() - known)[0]
    if name in fields:
        raise ConfigurationError(f"{name!r} is a field of its own, not one of params")
    near = difflib.get_close_matches(name, known.union(fields), 1)
    mean = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigurationError(
        f"unknown parameter {name!r}{mean} (what only some servers know goes into extra_body={{{name!r}: ...}})"
    )


def first_fields(url: str, user_agent: str, name: str = "base_url") -> list[tuple[bytes, bytes]]:
    """The fields that every request to this URL begins with. Raises `ConfigurationError` for a bad URL, which ``name``
    names, or a bad user agent."""
    host = parse_url(url, name).authority.encode("ascii")
    # "identity": a compressed stream arrives in lumps, and every proxy between may hold it back.
    return [(b"host", host), (b"accept-encoding", b"identity"), field("user-agent", user_agent)]


def field(name: str | bytes, value: str | bytes) -> tuple[bytes, bytes]:
    """A header field as bytes, its name in lower case.

    Raises `ConfigurationError` for bytes that RFC 9110 does not allow; the value is not repeated, since
    it may be a key.
    """
    raw_name = name.encode("latin-1", "replace") if isinstance(name, str) else name
    if not _TOKEN.match(raw_name):
        # Whoever gives a whole line as a name has a secret in it.
        called = repr(raw_name.decode("latin-1")) if b":" not in raw_name and len(raw_name) <= 30 else "what is given"
        raise ConfigurationError(f"{called} is no valid header name")
    shown = raw_name.decode("ascii")
    if not isinstance(value, (str, bytes)):
        raise ConfigurationError(f"the header {shown} must be a str, not {type(value).__name__}")
    raw_value = encoded(value, "latin-1") if isinstance(value, str) else value
    if raw_value is None:
        raise ConfigurationError(f"the header {shown} holds characters beyond Latin-1")
    if not _VALUE.match(raw_value):
        raise ConfigurationError(
            f"the header {shown} holds a line break or another control, or begins or ends with a blank"
            + (": strip the API key" if raw_name.lower() == b"authorization" else "")
        )
    return raw_name.lower(), raw_value


def encoded(text: str, coding: str) -> bytes | None:
    """The text in this coding, or None. (A `UnicodeEncodeError` holds all of the text, which may be a secret: it should
    be nobody's ``__context__``.)"""
    try:
        return text.encode(coding)
    except UnicodeEncodeError:
        return None


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
