"""Where a server of the OpenAI dialect lives, and how requests to it are built.

OpenAI's API reference: "Authentication", "Create chat completion", "List models".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .context import Context
from .errors import ConfigurationError, MissingAuthError
from .reply import Reply
from .request import HTTPRequest, field, first_fields, merge_fields
from .reserved import Reserved
from .urls import join_url, parse_url, shown_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .images import ImageRequest
    from .limits import Limits
    from .proxy import Proxy
    from .request import ChatRequest

DEFAULT_BASE_URL = "https://api.openai.com/v1"

CHAT_PATH = "/chat/completions"
MODELS_PATH = "/models"
IMAGES_PATH = "/images/generations"

# The header field that carries the key, and how.
BEARER = "authorization"


class Endpoint(Reserved, frozen=True, kw_only=True):
    """A server: its base URL and what goes with every request to it.

    Build one with `Endpoint.at`, which checks everything once, so that a request costs little.
    """

    chat_url: str
    models_url: str
    images_url: str
    fields: tuple[tuple[bytes, bytes], ...]
    needs_key: bool
    key_field: str = BEARER
    """The header field for the key: ``authorization``, as "Bearer KEY", or another one, as it is."""
    key_names: str = "OPENAI_API_KEY"
    """The environment variable that a message about a missing key names."""

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
        chat_url: str | None = None,
        chat_path: str = CHAT_PATH,
        models_path: str = MODELS_PATH,
        images_path: str = IMAGES_PATH,
        key_field: str = BEARER,
        needs_key: bool | None = None,
        key_names: str = "OPENAI_API_KEY",
    ) -> Endpoint:
        """The server at a base URL, such as "http://localhost:8000/v1".

        ``chat_url``: the whole URL of chat completions, for an endpoint that is used for nothing else. The paths are
        those below the base URL. ``needs_key``: whether requests without a key are refused; None: if the server is
        OpenAI's.

        Raises `ConfigurationError` for a bad URL or header.
        """
        target = base_url if chat_url is None else chat_url
        fields = first_fields(target, user_agent, "base_url" if chat_url is None else "api_endpoint")
        if organization:
            fields.append(field("openai-organization", organization))
        if project:
            fields.append(field("openai-project", project))
        base = base_below(base_url, chat_path) or base_url
        merged = merge_fields(fields, default_headers)
        if needs_key is None:
            # Asked of the one server that is known to take no request without a key.
            needs_key = parse_url(target).host == "api.openai.com"
        has_own = any(name in (b"authorization", b"api-key", b"x-api-key") for name, _ in merged)
        return cls(
            chat_url=join_url(base_url, chat_path, default_query)
            if chat_url is None
            else join_url(chat_url, "", default_query, "api_endpoint"),
            models_url=join_url(base, models_path, default_query),
            images_url=join_url(base, images_path, default_query),
            fields=merged,
            needs_key=needs_key and not has_own,
            key_field=key_field.lower(),
            key_names=key_names,
        )

    def __repr__(self) -> str:
        # The fields may hold a key, and so may the query.
        return f"Endpoint({shown_url(self.chat_url)!r})"

    def chat(
        self, chat: ChatRequest, *, api_key: str | None = None, headers: Mapping[str, str | None] | None = None
    ) -> HTTPRequest:
        """The request for a chat completion. ``headers``: all that are the request's own, as `api_headers` makes
        them, in place of those made from the key.

        Raises `ConfigurationError` for what can't be sent, `MissingAuthError` where a key is needed.
        """
        accept = b"text/event-stream" if chat.stream else b"application/json"
        return self._post(self.chat_url, chat, accept, api_key, headers)

    def prepare(
        self,
        chat: ChatRequest,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str | None] | None = None,
        proxy: Proxy | None = None,
        limits: Limits | None = None,
    ) -> tuple[HTTPRequest, Reply]:
        """The request for a chat completion (`chat`), and the machine for its reply, whose errors know where they
        happened; ``proxy``: through which. Raises as `chat` does."""
        request = self.chat(chat, api_key=api_key, headers=headers)
        context = Context.of(request, proxy=proxy, key=api_key, key_name=self.key_names)
        return request, Reply(stream=bool(chat.stream), limits=limits, context=context)

    def images(
        self, images: ImageRequest, *, api_key: str | None = None, headers: Mapping[str, str | None] | None = None
    ) -> HTTPRequest:
        """The request for images ("Create image"); as `chat`."""
        return self._post(self.images_url, images, b"application/json", api_key, headers)

    def models(
        self,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str | None] | None = None,
        extra_headers: Mapping[str, str | None] | None = None,
    ) -> HTTPRequest:
        """The request for the list of models; as `chat`."""
        if headers is not None:
            # There is no body to tell the type of.
            headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
        fields = self._fields(b"application/json", api_key, headers)
        return HTTPRequest("GET", self.models_url, merge_fields(fields, extra_headers), hidden=self._hidden)

    def _post(
        self,
        url: str,
        asked: ChatRequest | ImageRequest,
        accept: bytes,
        api_key: str | None,
        headers: Mapping[str, str | None] | None,
    ) -> HTTPRequest:
        body = asked.encode()
        if asked.extra_query:
            url = join_url(url, "", asked.extra_query)
        fields = (
            *self._fields(accept, api_key, headers, b"application/json"),
            (b"content-length", b"%d" % len(body)),
        )
        if asked.extra_headers:
            fields = merge_fields(fields, asked.extra_headers)
        return HTTPRequest("POST", url, fields, body, self._hidden)

    @property
    def _hidden(self) -> frozenset[bytes]:
        return frozenset() if self.key_field == BEARER else frozenset((self.key_field.encode(),))

    def _fields(
        self,
        accept: bytes,
        api_key: str | None,
        headers: Mapping[str, str | None] | None,
        content_type: bytes = b"",
    ) -> tuple[tuple[bytes, bytes], ...]:
        if self.needs_key and not api_key and not (headers and self.key_field in map(str.lower, headers)):
            raise MissingAuthError(f"no API key was given: pass api_key=, or set {self.key_names}", status_code=401)
        fields = self.fields
        if headers is not None:
            return merge_fields(fields, headers)
        if api_key:
            key = field(*key_header(api_key, self.key_field))
            fields = (*(pair for pair in fields if pair[0] != key[0]), key)
        fields = (*fields, (b"accept", accept))
        return (*fields, (b"content-type", content_type)) if content_type else fields


def key_header(api_key: object, key_field: str = BEARER) -> tuple[str, str]:
    """The name and the value of the header field that carries the key. Raises `ConfigurationError`."""
    key_field = key_field.lower()
    if not isinstance(api_key, str):
        raise ConfigurationError(f"api_key must be a str or a callable that gives one, not {type(api_key).__name__}")
    return key_field, f"Bearer {api_key}" if key_field == BEARER else api_key


def api_headers(
    stream: bool,
    api_key: str | None = None,
    headers: Mapping[str, str | None] | None = None,
    *,
    key_field: str = BEARER,
) -> dict[str, str]:
    """The header fields that are a request's own: ``Accept``, ``Content-Type`` and the key's, if there is one.

    ``headers`` win over them, whatever the case of their names; None removes one.
    """
    made = {"Accept": "text/event-stream" if stream else "application/json", "Content-Type": "application/json"}
    if api_key:
        name, value = key_header(api_key, key_field)
        made["Authorization" if name == BEARER else name] = value
    given = headers or {}
    replaced = {name.lower() for name in given}
    made = {name: value for name, value in made.items() if name.lower() not in replaced}
    return made | {name: value for name, value in given.items() if value is not None}


def base_below(chat_url: str, chat_path: str = CHAT_PATH) -> str | None:
    """The base URL of the server whose chat completions have this URL; None where that does not end in their path."""
    head, mark, query = chat_url.partition("?")
    head = head.rstrip("/")
    return head.removesuffix(chat_path) + mark + query if head.endswith(chat_path) else None
