"""A provider's request and the machine for its reply, for those who move the bytes by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltawire.protocol import ConfigurationError

from .calls import Call, http_attempt
from .drivers import plain_key
from .settings import make, name_of
from .targets import Ask

if TYPE_CHECKING:
    from deltawire.protocol import ChatRequest, HTTPRequest, Limits, Proxy, Reply


def prepared(
    provider: Any, chat: ChatRequest, *, api_key: Any = None, proxy: Proxy | None = None, limits: Limits | None = None
) -> tuple[HTTPRequest, Reply]:
    """What a client would send for this chat, and the machine that would read the reply.

    ``api_key``: else that of the declaration, or the environment. Raises `ConfigurationError`, also for a site that
    gives its nonce by a session: fetch that first (`Site.start_session`), and say ``nonce`` of the declaration.
    """
    ask = Ask(
        kind="chat",
        messages=chat.messages,
        model=chat.model,
        stream=chat.stream,
        params=dict(chat.params),
        extra_body=chat.extra_body,
        extra_headers=chat.extra_headers,
        extra_query=chat.extra_query,
    )
    call = Call(make(provider=provider, api_key=api_key, limits=limits), ask, proxy=proxy, native=True)
    target = call.target(call.provider)
    if target.session is not None and target.session.missing:
        raise ConfigurationError(
            f"{name_of(provider)} takes no message before it has given a nonce: fetch one "
            "(deltawire.protocol.Site.start_session), and set nonce"
        )
    attempt = http_attempt(call, target, plain_key(target.key), None)
    return attempt.request, attempt.reply
