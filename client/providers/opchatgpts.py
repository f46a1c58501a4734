"""`Opchatgpts`: WordPress sites with the AI Engine plugin, as declarations."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from deltawire.protocol import (
    ConfigurationError,
    Site,
    as_messages,
    chat_id_of,
    fold_system,
    render_history,
    with_prompt,
)
from deltawire.protocol.site import SESSION_PATH, SUBMIT_PATH, site_options

from ..settings import USER_AGENT, make_room, name_of, one_of
from ..targets import Session, Store, Target
from .base import AsyncGeneratorProvider, ProviderModelMixin, RaiseErrorMixin
from .methods import built_in, either

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deltawire.protocol import ChatRequest, HTTPRequest, Limits, Proxy, Reply, Timeout

    from ..generating import AsyncPieces
    from ..parameters import MessagesLike
    from ..settings import Settings
    from ..targets import Ask


class Opchatgpts(AsyncGeneratorProvider, ProviderModelMixin, RaiseErrorMixin):
    """A chatbot on a WordPress site with AI Engine.

    opchatgpts.net itself is gone; give the ``url`` of another one, in a subclass or to an instance. What else is said
    here, instances and subclasses may say otherwise. Parameters of a call go into the body as they are
    (``temperature=0.2``, ``botId="x"``), but for ``stop``, which is heeded here.
    """

    url: str | None = "https://opchatgpts.net"
    working = False
    supports_gpt_35_turbo: bool = True

    path: str = SUBMIT_PATH
    """Where messages go; "/?rest_route=/mwai-ui/v1/chats/submit" on sites without rewritten URLs."""
    session_path: str = SESSION_PATH
    page_path: str | None = None
    """The page with the chatbot, for ``nonce_from="page"``."""
    bot_id: str | None = "default"
    context_id: int | str | None = None
    custom_id: str | None = None
    chat_id: str | None = None
    """Names the conversation; None for another one with each call."""
    session: str | None = None
    """The body's ``session``; None for that of the site."""
    nonce: str | None = None
    """One to begin with."""
    nonce_from: Any = "default"
    """"start_session", "page", or None: there is none. "default": as today's plugin (or that of old) wants it."""
    history_with_last: bool | None = None
    """Whether the history holds the last message, too; None: as today's plugin (or that of old) wants it."""
    historical: bool = False
    """The request as clients made it in 2023: other fields, a browser's headers, no nonce."""
    headers: Mapping[str, str | None] = {}
    """Header fields of every request; None removes one."""
    ssl: Any = None
    """How the site's certificate is checked; see `OpenaiTemplate.ssl`."""

    _stores: dict[Any, Store] = {}  # noqa: RUF012 - of this class; each other one, and each instance, has its own

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._stores = {}
        if self.url != type(self).url and "working" not in attributes:
            self.working = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._stores = {}
        if "base_url" in cls.__dict__:
            # The other name of it, for instances too.
            cls.url = one_of("url", cls.__dict__.get("url"), "base_url", cls.__dict__["base_url"])
            delattr(cls, "base_url")
        if "url" in cls.__dict__ and "working" not in cls.__dict__:
            cls.working = True

    @built_in
    def create_async_generator(
        self,
        model: str | None,
        messages: MessagesLike,
        proxy: str | Proxy | None = None,
        timeout: float | Timeout | None = 120,
        stream: bool = True,
        **kwargs: Any,
    ) -> AsyncPieces:
        """The answer, piece by piece, as `OpenaiTemplate.create_async_generator` gives it.

        ``model`` is not sent: a site's bot has its own. ``kwargs`` go into the body, and win.
        """
        from ..generating import pieces_of

        options = {"proxy": proxy, "timeout": timeout, "stream": stream, **kwargs}
        return pieces_of(self, model, messages, options)

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
        """What a call of the client becomes for this site. Raises `ConfigurationError`."""
        name = name_of(self)
        if ask.kind != "chat":
            raise ConfigurationError(f"{name} is for chats: it has no list of models, and draws nothing")
        if ask.media:
            raise ConfigurationError(f"{name} takes texts only: leave out media")
        if ask.api_endpoint:
            raise ConfigurationError(f"{name} takes no api_endpoint: give the site's URL as base_url")
        url = ask.base_url or settings.given_url or self.url
        if not url:
            raise ConfigurationError(f"{name} has no url: give it that of a site")
        site = self._site(url, ask, settings)
        seen_as = _identity(self.headers, settings.default_headers, ask.extra_headers)
        at = (url, *seen_as)
        make_room(self._stores, at)
        store = self._stores.setdefault(at, Store(self.nonce))
        options = site_options(ask.params, ask.extra_body)
        messages = _messages(self, ask)
        chat_id = self.chat_id or chat_id_of(os.urandom(16))
        session = _session(site, store, ask.extra_headers)

        def build(key: str | None) -> HTTPRequest:
            return site.submit(
                messages,
                stream=bool(ask.stream),
                nonce=session.nonce(),
                chat_id=chat_id,
                session_id=self.session or store.session_id,
                options=options,
                extra_headers=ask.extra_headers,
            )

        return Target(
            name,
            "opchatgpts",
            build,
            verify=self.ssl,
            stop=ask.params.get("stop"),
            session=session,
            # Another site than the one that is marked.
            working=self.working or url != self.url,
        )

    @either
    def _site(self, url: str, ask: Ask, settings: Settings) -> Site:
        # A browser that is to be looked like has a name of its own.
        of_old = self.historical and not (ask.impersonate or settings.impersonate)
        return Site.at(
            url,
            path=self.path,
            session_path=self.session_path,
            page_path=self.page_path,
            bot_id=self.bot_id,
            context_id=self.context_id,
            custom_id=self.custom_id,
            session=self.session,
            history_with_last=self.history_with_last,
            historical=self.historical,
            nonce_from=self.nonce_from,
            user_agent=None if of_old else USER_AGENT,
            default_headers={**self.headers, **(settings.default_headers or {})},
            default_query={**(settings.default_query or {}), **(ask.extra_query or {})},
        )


def _session(site: Site, store: Store, headers: Mapping[str, str | None] | None) -> Session:
    """The session of a call, whose own header fields go with the request for it, too: a cookie, a password."""
    if site.nonce_from is None:
        return Session("session", None, store)
    page = site.nonce_from == "page"
    fetch = site.page if page else site.start_session
    return Session("page" if page else "session", lambda: fetch(extra_headers=headers), store)


def _identity(*headers: Mapping[str, str | None] | None) -> list[tuple[str, str]]:
    """Whom a site takes us for: a nonce of one user's is no other's."""
    given = {name.lower(): value for each in headers if each for name, value in each.items()}
    return [(name, value) for name in ("authorization", "cookie") if (value := given.get(name))]


def _messages(provider: Any, ask: Ask) -> Any:
    # Read once: each attempt says them again.
    messages = as_messages(ask.messages) if ask.prompt is None else with_prompt(ask.messages, ask.prompt)
    if not provider.supports_system_message:
        messages = fold_system(messages)
    return messages if provider.supports_message_history else render_history(messages)
