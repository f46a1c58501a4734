"""Where a server of the OpenAI dialect lives, and how requests to it are built.

OpenAI's API reference: "Authentication", "Create chat completion", "Create image", "List models".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .errors import ConfigurationError, MissingAuthError
from .request import HTTPRequest, field, merge_fields
from .urls import join_url, parse_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .images import ImageRequest
    from .request import ChatRequest

DEFAULT_BASE_URL = "https://api.openai.com/v1"

CHAT_PATH = "/chat/completions"
IMAGES_PATH = "/images/generations"
MODELS_PATH = "/models"

# "identity": a compressed stream arrives in lumps, and every proxy between may hold it back.
_FIXED = ((b"accept-encoding", b"identity"),)


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A server: its base URL and what goes with every request to it.

    Build one with `Endpoint.at`, which checks everything once, so that a request costs little.
    """

    chat_url: str
    images_url: str
    models_url: str
    fields: tuple[tuple[bytes, bytes], ...]
    needs_key: bool

    @classmethod
    def at(
        cls,
        base_url: str,
        *,
        user_agent: str = "deltawire",
        organization: str | None = None,
        project: str | None = None,
        default_headers: Mapping[str, str | None] | None = None,
        default_query: Mapping[str, object] | None = None,
    ) -> Endpoint:
        """The server at a base URL, such as "http://localhost:8000/v1".

        Raises `ConfigurationError` for a bad URL or header.
        """
        fields = [(b"host", parse_url(base_url).authority.encode("ascii")), *_FIXED]
        fields.append(field("user-agent", user_agent))
        if organization:
            fields.append(field("openai-organization", organization))
        if project:
            fields.append(field("openai-project", project))
        chat_url = join_url(base_url, CHAT_PATH, default_query)
        base = base_url.partition("?")[0].rstrip("/").removesuffix(CHAT_PATH)
        base += _query_of(base_url)
        images_url = join_url(base, IMAGES_PATH, default_query)
        models_url = join_url(base, MODELS_PATH, default_query)
        merged = merge_fields(fields, default_headers)
        # Asked of the one server that is known to take no request without a key.
        has_own = any(name in (b"authorization", b"api-key", b"x-api-key") for name, _ in merged)
        needs_key = parse_url(base_url).host == "api.openai.com" and not has_own
        return cls(chat_url=chat_url, images_url=images_url, models_url=models_url, fields=merged, needs_key=needs_key)

    def __repr__(self) -> str:
        # The fields may hold a key.
        return f"Endpoint({self.chat_url!r})"

    def chat(self, chat: ChatRequest, *, api_key: str | None = None) -> HTTPRequest:
        """The request for a chat completion.

        Raises `ConfigurationError` for what can't be sent, `MissingAuthError` where a key is needed.
        """
        accept = b"text/event-stream" if chat.stream else b"application/json"
        url = self.chat_url if not chat.extra_query else join_url(self.chat_url, CHAT_PATH, chat.extra_query)
        return self._post(url, chat, accept, api_key)

    def images(self, request: ImageRequest, *, api_key: str | None = None) -> HTTPRequest:
        """The request for images. Raises as `chat` does."""
        url = join_url(self.images_url, IMAGES_PATH, request.extra_query)
        return self._post(url, request, b"application/json", api_key)

    def models(
        self, *, api_key: str | None = None, extra_headers: Mapping[str, str | None] | None = None
    ) -> HTTPRequest:
        """The request for the list of models."""
        return HTTPRequest(
            "GET", self.models_url, merge_fields(self._fields(b"application/json", api_key), extra_headers)
        )

    def _post(self, url: str, request: ChatRequest | ImageRequest, accept: bytes, api_key: str | None) -> HTTPRequest:
        body = request.encode()
        fields = (
            *self._fields(accept, api_key),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        )
        if request.extra_headers:
            fields = merge_fields(fields, request.extra_headers)
        return HTTPRequest("POST", url, fields, body)

    def _fields(self, accept: bytes, api_key: str | None) -> tuple[tuple[bytes, bytes], ...]:
        if api_key:
            key = field(b"authorization", f"Bearer {_checked_key(api_key)}")
            fields = [pair for pair in self.fields if pair[0] != b"authorization"]
            return (*fields, key, (b"accept", accept))
        if self.needs_key:
            raise MissingAuthError("no API key was given: pass api_key=, or set OPENAI_API_KEY", status_code=401)
        return (*self.fields, (b"accept", accept))


def _checked_key(api_key: object) -> str:
    if not isinstance(api_key, str):
        raise ConfigurationError(f"api_key must be a str or a callable that gives one, not {type(api_key).__name__}")
    return api_key


def _query_of(url: str) -> str:
    _, mark, query = url.partition("?")
    return mark + query
