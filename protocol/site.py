"""Where a site of the Opchatgpts protocol lives, and how requests to it are built.

opchatgpts.net was a WordPress site with the AI Engine plugin; thousands of sites run it. What is sent here is what
the plugin's own front end sends (observed on AI Engine 3.6.2): a POST that carries the user's new message, the
messages before it, and a nonce, which a session or a page with a chatbot gives.

``historical=True`` stands for what clients sent in 2023: no nonce, a browser's header fields, all messages with the
last among them. Sites of that time differed: in ``context_id`` (2, 7, 9, 25, 28, 58), in ``session`` ("N/A" or
random), in whether the history held the last message, in further fields that were null (``options={"newImageId":
None}``), in where the nonce came from. Each of these is an option of its own, and wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from .context import Context
from .encoding import encode_body
from .errors import ConfigurationError
from .messages import as_messages, as_texts
from .reply import Reply
from .request import HTTPRequest, field, first_fields, merge_fields
from .reserved import Reserved
from .urls import join_url, parse_url

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .limits import Limits
    from .proxy import Proxy
    from .request import ChatRequest

_SUBMIT_ROUTE = "/mwai-ui/v1/chats/submit"
_SESSION_ROUTE = "/mwai/v1/start_session"
SUBMIT_PATH = "/wp-json" + _SUBMIT_ROUTE
SESSION_PATH = "/wp-json" + _SESSION_ROUTE

# WordPress's own form of an address, which works where URLs are not rewritten.
_REST_ROUTE = re.compile(r"(?:\A|(?<=&))rest_route=[^&]*")

_HISTORICAL_PAGE = "/chatgpt-free-use/"
HISTORICAL_USER_AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/116.0.0.0 Safari/537.36"
)
_HISTORICAL_LANGUAGES = b"de,en-US;q=0.7,en;q=0.3"

_BLANK = "the site takes no blank message: the last message of the user must hold text (or give newMessage)"
_NOT_LAST = (
    "the site takes the user's message after all others: end the messages with it (or give newMessage), or make one "
    "text of them all (render_history, or supports_message_history = False of the provider)"
)

# What OpenAI's names are called there. The model is the bot's own: naming another one breaks it.
_NAMES = {"max_tokens": "maxTokens", "max_completion_tokens": "maxTokens"}

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


class Site(Reserved, frozen=True, kw_only=True):
    """An AI Engine site: its URLs and what goes with every request to it.

    Build one with `Site.at`, which checks everything once.
    """

    submit_url: str
    session_url: str
    page_url: str
    bot_id: str | None
    context_id: int | str | None
    custom_id: str | None
    session: str | None
    history_with_last: bool
    historical: bool
    nonce_from: Literal["start_session", "page"] | None
    """What gives the nonce: `start_session`, `page`, or None where none is needed."""
    fields: tuple[tuple[bytes, bytes], ...]
    default_headers: dict[str, str | None]

    @classmethod
    def at(
        cls,
        url: str,
        *,
        path: str = SUBMIT_PATH,
        session_path: str = SESSION_PATH,
        page_path: str | None = None,
        bot_id: str | None = "default",
        context_id: int | str | None = None,
        custom_id: str | None = None,
        session: str | None = None,
        history_with_last: bool | None = None,
        historical: bool = False,
        nonce_from: Literal["default", "start_session", "page"] | None = "default",
        user_agent: str | None = None,
        default_headers: Mapping[str, str | None] | None = None,
        default_query: Mapping[str, object] | None = None,
    ) -> Site:
        """The site at a URL, such as "https://example.org" or "https://example.org/blog/".

        ``path`` and ``session_path`` may hold a query, for sites without rewritten URLs:
        "/?rest_route=/mwai-ui/v1/chats/submit" (the URL may end so as well); a session path that is not given takes
        the form of ``path``. ``page_path`` is the page with the chatbot ("/"). What is not given is as today's front
        end has it, or as in 2023 with ``historical``; ``nonce_from="default"`` means "start_session", and None with
        ``historical``. ``default_headers`` win over all fields of ours; None removes one. Raises `ConfigurationError`
        for a bad URL, path or header, and when there is no bot.
        """
        if nonce_from not in ("default", "start_session", "page", None):
            raise ConfigurationError(f"nonce_from must be 'start_session', 'page' or None, not {nonce_from!r}")
        if not bot_id and not custom_id:
            raise ConfigurationError("a site is asked for one of its bots: give bot_id or custom_id")
        url, path = _with_route(url, path)
        submit_url = _under(url, path, path, default_query)
        if session_path == SESSION_PATH:
            session_path = _session_path(path)
        if historical:
            context_id = 28 if context_id is None else context_id
            session = "N/A" if session is None else session
            user_agent = HISTORICAL_USER_AGENT if user_agent is None else user_agent
        if page_path is None:
            page_path = _HISTORICAL_PAGE if historical else "/"
        fields = first_fields(url, "deltawire" if user_agent is None else user_agent)
        if historical:
            fields += _browser_fields(url, _under(url, page_path, path, None))
        headers = dict(default_headers or {})
        merge_fields(fields, headers)
        return cls(
            submit_url=submit_url,
            session_url=_under(url, session_path, path, default_query),
            page_url=_under(url, page_path, path, default_query),
            bot_id=bot_id,
            context_id=context_id,
            custom_id=custom_id,
            session=session,
            history_with_last=historical if history_with_last is None else history_with_last,
            historical=historical,
            nonce_from=(None if historical else "start_session") if nonce_from == "default" else nonce_from,
            fields=tuple(fields),
            default_headers=headers,
        )

    def __repr__(self) -> str:
        # The fields and the query may hold credentials.
        return f"Site({self.submit_url.partition('?')[0]!r})"

    def submit(
        self,
        messages: Any,
        *,
        stream: bool,
        nonce: str | None = None,
        chat_id: str | None = None,
        session_id: str | None = None,
        options: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, str | None] | None = None,
    ) -> HTTPRequest:
        """The request for an answer; its reply is a ``Reply("opchatgpts")``.

        ``messages`` as in `ChatRequest`: texts only, and the last one, the user's, is the new message; with
        ``newMessage`` or ``shortcutId`` among the ``options`` it may be another's. ``chat_id``:
        ten characters of a-z and 0-9 (`chat_id_of`), the same for one conversation. ``session_id``: of
        `SessionStarted`. ``options`` go into the body as they are, and win: settings of the bot such as
        ``{"maxTokens": 4}``. Raises `ConfigurationError` for what can't be sent.
        """
        options = options or {}
        listed = as_messages(messages)
        texts = as_texts(listed)
        # Of old the new message was the last one, whoever had said it.
        ends_new = bool(texts) and (self.historical or texts[-1]["role"] == "user")
        new = texts[-1]["content"] if ends_new else ""
        if not new.strip() and not {"newMessage", "shortcutId"} & options.keys():
            raise ConfigurationError(_BLANK if ends_new or not texts else _NOT_LAST)
        history = list(listed if self.historical else texts)
        if ends_new and not self.history_with_last:
            del history[-1]
        session = session_id or self.session
        body = self._body(history, new, stream, chat_id, session)
        accept = b"*/*" if self.historical else b"text/event-stream" if stream else b"application/json"
        own = [(b"accept", accept), (b"content-type", b"application/json")]
        if nonce:
            own.append(field("x-wp-nonce", nonce))
        request = self._request("POST", self.submit_url, own, encode_body(body, None, options), extra_headers)
        return msgspec.structs.replace(request, private=(session,)) if session else request

    def prepare(
        self,
        chat: ChatRequest,
        *,
        nonce: str | None = None,
        chat_id: str | None = None,
        session_id: str | None = None,
        proxy: Proxy | None = None,
        limits: Limits | None = None,
    ) -> tuple[HTTPRequest, Reply]:
        """The request for an answer (`submit`), and the machine for its reply, whose errors know where they happened.

        The chat's ``params`` and ``extra_body`` are the ``options`` of `submit`, but for ``stop``, which the reply
        heeds; its ``model`` is the site's own business. ``proxy``: through which. Raises `ConfigurationError`.
        """
        request = self.submit(
            chat.messages,
            stream=bool(chat.stream),
            nonce=nonce,
            chat_id=chat_id,
            session_id=session_id,
            options=site_options(chat.params, chat.extra_body),
            extra_headers=chat.extra_headers,
        )
        if chat.extra_query:
            request = request.to(join_url(request.url, "", chat.extra_query))
        context = Context.of(request, proxy=proxy, key_name="")
        stop = chat.params.get("stop")
        return request, Reply("opchatgpts", stream=bool(chat.stream), limits=limits, context=context, stop=stop)

    def start_session(self, *, extra_headers: Mapping[str, str | None] | None = None) -> HTTPRequest:
        """The request for a session and its nonce; its reply is a ``Reply("session")``."""
        return self._request("POST", self.session_url, [(b"accept", b"application/json")], b"", extra_headers)

    def page(self, *, extra_headers: Mapping[str, str | None] | None = None) -> HTTPRequest:
        """The request for a page with a chatbot, where a nonce stands; its reply is a ``Reply("page")``."""
        return self._request("GET", self.page_url, [(b"accept", b"text/html")], b"", extra_headers)

    def _body(
        self, history: list[Any], new: str, stream: bool, chat_id: str | None, session: str | None
    ) -> dict[str, Any]:
        if self.historical:
            return {
                "botId": self.bot_id,
                "chatId": chat_id,
                "contextId": self.context_id,
                "customId": self.custom_id,
                "messages": history,
                "newMessage": new,
                "session": session,
                # Such sites know nothing else.
                "stream": True,
            }
        return {
            "botId": self.bot_id,
            "customId": self.custom_id,
            "session": session,
            "chatId": chat_id,
            "contextId": self.context_id,
            "messages": history,
            "newMessage": new,
            "newFileId": None,
            "newFileIds": None,
            "stream": stream,
        }

    def _request(
        self,
        method: str,
        url: str,
        own: Iterable[tuple[bytes, bytes]],
        body: bytes,
        extra_headers: Mapping[str, str | None] | None,
    ) -> HTTPRequest:
        length = [(b"content-length", b"%d" % len(body))] if method == "POST" else []
        fields = merge_fields((*self.fields, *own, *length), self.default_headers)
        return HTTPRequest(method, url, merge_fields(fields, extra_headers), body)


def site_options(params: Mapping[str, Any], extra_body: Mapping[str, Any] | None) -> dict[str, Any]:
    """A chat's parameters as a site takes them: without those that are None, and without ``stop``, of which sites know
    nothing; the further fields of the body win."""
    options = {_NAMES.get(key, key): value for key, value in params.items() if value is not None and key != "stop"}
    return options | dict(extra_body or {})


def chat_id_of(chance: bytes) -> str:
    """A name for a conversation: ten characters of a-z and 0-9, from random bytes (16 are plenty).

    Raises `ConfigurationError` for fewer than eight, which would name too few conversations.
    """
    if len(chance) < 8:
        raise ConfigurationError("chat_id_of needs at least 8 random bytes")
    number = int.from_bytes(chance, "big")
    letters = []
    for _ in range(10):
        number, place = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[place])
    return "".join(letters)


def _browser_fields(url: str, page_url: str) -> list[tuple[bytes, bytes]]:
    parts = parse_url(url)
    return [
        (b"accept-language", _HISTORICAL_LANGUAGES),
        field("origin", f"{parts.scheme}://{parts.authority}"),
        field("referer", page_url),
    ]


def _with_route(url: str, path: str) -> tuple[str, str]:
    """The URL and the path of a site whose URL may hold a route; a path that is given wins over that."""
    parse_url(url, "url")
    base, _, query = url.partition("#")[0].partition("?")
    route = _REST_ROUTE.search(query)
    if route is None:
        return url, path
    site = base.removesuffix("/index.php")
    if path == SUBMIT_PATH:
        path = f"{base[len(site) :] or '/'}?{route[0]}"
    rest = "&".join(filter(None, _REST_ROUTE.sub("", query).split("&")))
    return site + ("?" + rest if rest else ""), path


def _session_path(path: str) -> str:
    """The path of the session's request, in the form that the one for messages has."""
    plain, _, query = path.partition("?")
    if _REST_ROUTE.search(query):
        return f"{plain}?{_REST_ROUTE.sub(f'rest_route={_SESSION_ROUTE}', query)}"
    return plain.removesuffix(_SUBMIT_ROUTE) + _SESSION_ROUTE if plain.endswith(_SUBMIT_ROUTE) else SESSION_PATH


def _under(url: str, path: str, submit_path: str, query: Mapping[str, object] | None) -> str:
    """The URL of a path, which may hold a query of its own, at a site; its URL may end in ``submit_path`` already."""
    if not isinstance(path, str) or not path.startswith("/"):
        raise ConfigurationError(f"a path of a site begins with '/', not as {path!r} does")
    base, _, held = url.partition("?")
    base = base.rstrip("/").removesuffix(submit_path.partition("?")[0].rstrip("/"))
    path, _, more = path.partition("?")
    both = "&".join(filter(None, [held, more]))
    # Only the base is checked where it is joined.
    return str(parse_url(join_url(base + ("?" + both if both else ""), path, query, "url"), "path"))
