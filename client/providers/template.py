"""`OpenaiTemplate`: any server of the OpenAI dialect, as a declaration; `OpenaiChat`: OpenAI's own."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

from deltawire.protocol import DEFAULT_BASE_URL, ChatRequest, ConfigurationError
from deltawire.protocol.endpoint import BEARER, CHAT_PATH, IMAGES_PATH, MODELS_PATH, api_headers, base_below
from deltawire.protocol.images import IMAGE_PARAMETERS, ImageRequest
from deltawire.protocol.messages import fold_system, last_user_text, render_history, with_media, with_prompt
from deltawire.protocol.request import PARAMETERS

from ..asking import EXTRA_PARAMETERS
from ..media import read_media
from ..settings import Settings, key_among, name_of
from ..targets import Ask, Target
from .base import AsyncGeneratorProvider, Learnt, ListedModelMixin, RaiseErrorMixin, declared_in
from .methods import built_in, either

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deltawire.protocol import Endpoint, HTTPRequest, Limits, Proxy, Reply, Timeout
    from deltawire.protocol.catalogue import Catalogue

    from ..generating import AsyncPieces
    from ..media import MediaListType
    from ..parameters import MessagesLike


class OpenaiTemplate(AsyncGeneratorProvider, ListedModelMixin, RaiseErrorMixin):
    """A server of the OpenAI dialect. Subclass it and set attributes, or make an instance that says otherwise."""

    api_base: str = ""
    """Such as "http://localhost:8000/v1"; "" for that of `api_endpoint`, ``OPENAI_BASE_URL``, or OpenAI's."""
    api_key: Any = None
    """The key, a callable that gives it (without arguments), or None: see ``api_key_env``; "" for none."""
    api_endpoint: str | None = None
    """The whole URL of chat completions, where it does not lie below ``api_base``."""
    ssl: Any = None
    """How the server's certificate is checked: None (as the client says) or True, False, the path of a file of
    certificate authorities, or an ``ssl.SSLContext``."""

    api_base_env: str | None = "OPENAI_BASE_URL"
    """The environment variable for a base URL that is not said here."""
    api_key_env: str | None = "OPENAI_API_KEY"
    """The environment variable for a key that is not said here."""
    api_version: str | None = None
    """Sent as ``?api-version=`` (Azure)."""
    key_field: str = BEARER
    """The header field for the key: "authorization" means "Bearer KEY", others get the key as it is."""
    chat_path: str = CHAT_PATH
    """Below the base URL; "{model}" stands for the model's name."""
    models_path: str = MODELS_PATH
    images_path: str = IMAGES_PATH
    default_headers: Mapping[str, str] = {}
    """Header fields of every request."""
    needs_base: bool = False
    """Whether each user has a base URL of his own: then there is none by default."""

    _catalogues: dict[Any, Catalogue] = {}  # noqa: RUF012 - of this class; each other one, and each instance, has its own

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        if self.api_base != type(self).api_base and "api_endpoint" not in attributes:
            # That of the class is another server's.
            self.api_endpoint = None
        self._catalogues = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._catalogues = {}
        if isinstance(key := vars(cls).get("api_key"), types.FunctionType):
            # It gives a key, and is no method.
            cls.api_key = staticmethod(key)

    @either
    def get_headers(
        self, stream: bool, api_key: str | None = None, headers: Mapping[str, str | None] | None = None
    ) -> dict[str, str]:
        """The header fields of a request: ``Accept``, ``Content-Type``, and the key's if there is one. ``headers`` win
        over them; None removes one."""
        if api_key is None and isinstance(self.api_key, str):
            api_key = self.api_key
        headers = headers or {}
        replaced = {name.lower() for name in headers}
        default = {name: value for name, value in self.default_headers.items() if name.lower() not in replaced}
        return api_headers(stream, api_key, {**default, **headers}, key_field=self.key_field)

    @built_in
    def create_async_generator(
        self,
        model: str | None,
        messages: MessagesLike,
        proxy: str | Proxy | None = None,
        timeout: float | Timeout | None = 120,
        media: MediaListType | None = None,
        api_key: Any = None,
        api_endpoint: str | None = None,
        api_base: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] | None = None,
        stream: bool | None = False,
        prompt: str | None = None,
        headers: Mapping[str, str | None] | None = None,
        impersonate: str | None = None,
        extra_parameters: Sequence[str] | None = EXTRA_PARAMETERS,
        extra_data: Mapping[str, Any] | None = {},
        **kwargs: Any,
    ) -> AsyncPieces:
        """The answer, piece by piece: texts, and objects whose ``str()`` is "" (see `deltawire.protocol.pieces`).

        Iterate it at once, or ``await`` it first: then what fails before the first content is raised there. It has
        connections of its own, which are closed with it. What is None is not sent; 0, False and "" are.

        ``proxy``: its URL; None for the environment's. ``timeout``: seconds, or a `Timeout`. ``media``: images and
        audio, as `(data, file name)`, for the last message. ``api_key``: "" for none. ``api_endpoint``: the whole URL
        of chat completions. ``prompt``: what to draw, for an image model (else the user's last message); for other
        models the user's last message. ``impersonate``: the browser to look like (``deltawire[impersonate]``).
        ``extra_parameters``: names of those ``kwargs`` that go into the body beside OpenAI's own; others are refused.
        ``extra_data``: fields of the body that win over all others. ``headers`` win over ours, too.

        Raises `ConfigurationError` for what can't be sent, at once; the rest when it is iterated.
        """
        from ..generating import pieces_of

        given = {
            "proxy": proxy, "stream": stream, "timeout": timeout, "media": media, "api_key": api_key,
            "api_endpoint": api_endpoint, "api_base": api_base, "temperature": temperature, "max_tokens": max_tokens,
            "top_p": top_p, "stop": stop, "prompt": prompt, "headers": headers, "impersonate": impersonate,
            "extra_parameters": extra_parameters, "extra_data": extra_data,
        }  # fmt: skip
        return pieces_of(self, model, messages, {**given, **kwargs})

    @either
    def prepare(
        self, chat: ChatRequest, *, api_key: Any = None, proxy: Proxy | None = None, limits: Limits | None = None
    ) -> tuple[HTTPRequest, Reply]:
        """The request for a chat, as a client would send it, and the machine for its reply: for `HTTP1Exchange.chat`,
        and for those who send it by other means. ``proxy``: through which; ``api_key``: else the declaration's, or the
        environment's. Raises `ConfigurationError`."""
        from ..preparing import prepared

        return prepared(self, chat, api_key=api_key, proxy=proxy, limits=limits)

    @either
    def target(self, ask: Ask, settings: Settings) -> Target:
        """What a call of the client becomes for this provider. Raises `ConfigurationError`."""
        name = name_of(self)
        # (A list of models is no model's; and one's own get_model may ask for that list.)
        model = None
        if ask.kind == "images" and not ask.model:
            model = _usual_image_model(self)
        elif ask.kind != "models":
            model = self.get_model(ask.model) or ask.model
        key = key_among(name, ask.api_key, settings.given_key, self.api_key, settings.variable(self.api_key_env))
        draws = ask.kind == "images" or (ask.kind == "chat" and self._draws(model, ask, settings, key))
        endpoint = self._endpoint(ask, settings, model, draws)
        asked = _image_request(ask, model) if draws else _chat_request(self, ask, model)
        stream = bool(ask.stream) and self.supports_stream and not draws

        def build(key: str | None) -> HTTPRequest:
            given = {**(settings.default_headers or {}), **(ask.extra_headers or {})}
            # "": there is none, whatever is declared.
            headers = self.get_headers(stream, api_key=key or "", headers=given)
            if asked is None:
                request = endpoint.models(api_key=key, headers=headers, extra_headers=ask.extra_headers)
            elif isinstance(asked, ImageRequest):
                request = endpoint.images(asked, api_key=key, headers=headers)
            else:
                request = endpoint.chat(asked, api_key=key, headers=headers)
            return request

        return Target(
            name,
            "models" if asked is None else "images" if draws else "openai",
            build,
            key=key,
            key_name=self.api_key_env or "the provider's api_key",
            verify=self.ssl,
            working=self.working,
        )

    @either
    def _draws(self, model: str | None, ask: Ask, settings: Settings, key: Any) -> bool:
        if model in declared_in(self.image_models):
            return True
        # What a server has said of its models holds for it alone.
        if not isinstance(self.image_models, Learnt) or model not in self.image_models:
            return False
        known = self._catalogues.get((self.base_of(ask, settings), key))
        return known is not None and model in known.image_models

    @either
    def base_of(self, ask: Ask, settings: Settings) -> str:
        """The base URL of a call: its own, the client's, the declared one (or that of the declared `api_endpoint`), the
        environment's, OpenAI's. Raises `ConfigurationError` where everybody needs one of his own, and where only an
        `api_endpoint` is declared that tells of none."""
        base: str | None = ask.base_url or settings.given_url or self.api_base
        if not base and self.api_endpoint:
            # Not the environment's, nor OpenAI's: the key is for this server.
            base = base_below(self.api_endpoint, self.chat_path)
            if not base:
                raise ConfigurationError(
                    f"{name_of(self)} says where chats are (api_endpoint), and not where the rest is: set api_base"
                )
        base = base or settings.variable(self.api_base_env)
        if not base and self.needs_base:
            variable = f", or set {self.api_base_env}" if self.api_base_env else ""
            raise ConfigurationError(f"{name_of(self)} has no base URL: pass api_base={variable}")
        return base or DEFAULT_BASE_URL

    @either
    def _endpoint(self, ask: Ask, settings: Settings, model: str | None, draws: bool) -> Endpoint:
        options: dict[str, Any] = {
            "openai": self.api_key_env == OpenaiTemplate.api_key_env,
            "key_field": self.key_field,
            "needs_key": self.needs_auth,
            "key_names": self.api_key_env or "the provider's api_key",
            "chat_path": self.chat_path,
            "models_path": self.models_path,
            "images_path": self.images_path,
        }
        if self.api_version:
            options["default_query"] = {"api-version": self.api_version}
        # A base URL that the caller or the client names is no other than the one to ask.
        chat_url = ask.api_endpoint or (None if ask.base_url or settings.given_url else self.api_endpoint)
        if draws:
            options["images_path"] = _path(self.images_path, model)
        elif ask.kind == "chat" and chat_url:
            return settings.endpoint_at(chat_url, chat_url=chat_url, **options)
        elif ask.kind == "chat":
            options["chat_path"] = _path(self.chat_path, model)
        return settings.endpoint_at(self.base_of(ask, settings), **options)


class OpenaiChat(OpenaiTemplate):
    """OpenAI's own API."""

    url = "https://platform.openai.com"
    needs_auth = True
    default_model = "gpt-4o-mini"
    image_models = ["dall-e-2", "dall-e-3", "gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5"]  # noqa: RUF012


def _path(path: str, model: str | None) -> str:
    if "{model}" not in path:
        return path
    if not model:
        raise ConfigurationError("the model is part of this provider's URL: name one")
    from urllib.parse import quote

    return path.replace("{model}", quote(model, safe=""))


def _usual_image_model(provider: Any) -> str | None:
    """The model for images of which none is named: the usual one unless it is for chats; then the server chooses."""
    usual: str | None = provider.get_model(None) or None
    return usual if not provider.image_models or usual in provider.image_models else None


def _chat_request(provider: Any, ask: Ask, model: str | None) -> ChatRequest | None:
    if ask.kind == "models":
        return None
    messages = ask.messages
    if ask.prompt is not None:
        messages = with_prompt(messages, ask.prompt)
    if ask.media is not None:
        if ask.parts is None:
            ask.parts = read_media(ask.media)
        messages = with_media(messages, ask.parts)
    if not provider.supports_system_message:
        messages = fold_system(messages)
    if not provider.supports_message_history:
        messages = render_history(messages)
    params, extra_body = _sorted_out(ask, PARAMETERS)
    return ChatRequest(
        messages=messages,
        model=model,
        stream=ask.stream and provider.supports_stream,
        params=params,
        extra_body=extra_body,
        extra_headers=ask.extra_headers,
        extra_query=ask.extra_query,
    )


def _image_request(ask: Ask, model: str | None) -> ImageRequest:
    if ask.media:
        raise ConfigurationError(f"{model or 'an image model'} draws from the prompt alone: leave out media and image")
    params, extra_body = _sorted_out(ask, IMAGE_PARAMETERS)
    return ImageRequest(
        prompt=last_user_text(ask.messages) if ask.prompt is None else ask.prompt,
        model=model,
        params=params,
        extra_body=extra_body,
        extra_headers=ask.extra_headers,
        extra_query=ask.extra_query,
    )


def _sorted_out(ask: Ask, known: frozenset[str]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The parameters that the API knows, and the others that the caller or the provider vouches for."""
    vouched = EXTRA_PARAMETERS if ask.extra_parameters is None else ask.extra_parameters
    extra = {
        name: value
        for name, value in ask.params.items()
        if name not in known and name in vouched and not (name in EXTRA_PARAMETERS and name in PARAMETERS)
    }
    # A chat's parameters that are None say nothing, to those who don't chat either.
    said = {name: value for name, value in ask.params.items() if value is not None or name not in PARAMETERS - known}
    params = {name: value for name, value in said.items() if name not in extra}
    # extra_body wins, and may say null.
    body = {**{name: value for name, value in extra.items() if value is not None}, **(ask.extra_body or {})}
    return params, body or None
