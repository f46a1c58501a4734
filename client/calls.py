"""One call, but for the waiting: what the sync and the async driver share.

A driver runs the plan (`deltawire.protocol.attempts`): for `Send` it opens an exchange for an `Attempt` and
reads until that says how it went; for `Sleep` it sleeps; for `GiveUp` it raises.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from deltawire.protocol import (
    ChatCompletion,
    ChatCompletionChunk,
    Context,
    Deadlines,
    EmptyReplyError,
    ModelList,
    Outcome,
    Reply,
    RetryPolicy,
    StreamEnded,
    StreamFailed,
    Timeout,
    accumulate,
    attempts,
)

from .settings import UNSET, Settings, _policy

if TYPE_CHECKING:
    from collections.abc import Generator

    from deltawire.protocol import ChatRequest, Event, HTTPRequest
    from deltawire.protocol.retry import Effect


class Attempt:
    """One exchange of a call: its request, its reply, its deadlines."""

    def __init__(self, call: Call, request: HTTPRequest, key: str | None) -> None:
        self.request = request
        self.proxy = proxy = call.settings.proxy_for(request.url, call.proxy)
        # Servers of one's own take any key, and "token" or "x" is no secret, but a part of many words.
        secrets = [key] if key and len(key) >= 8 else []
        if proxy is not None:
            secrets += proxy.secrets
        self.context = Context(
            url=request.url.partition("?")[0],
            proxy=proxy.url if proxy is not None else "",
            key_given=key is not None or any(name == b"authorization" for name, _ in request.headers),
            secrets=tuple(secrets),
        )
        self.reply = Reply(call.dialect, stream=call.stream, limits=call.settings.limits, context=self.context)
        self.deadlines = Deadlines(call.timeout, time.monotonic(), call.total_at)
        self.events: list[Event] = []
        self._call = call

    def outcome(self, events: list[Event]) -> Outcome | None:
        """How the attempt went, as far as these further events tell; None: read on.

        A stream is decided by its first content: from there on what comes is the caller's. Without a stream
        nothing reaches the caller before the end, so the end decides.
        """
        self.events += events
        last = self.events[-1] if self.events else None
        if self._call.stream and self.reply.contents:
            return Outcome(None)
        if isinstance(last, StreamFailed):
            return self._failed(last.error)
        if isinstance(last, StreamEnded):
            if self._call.dialect == "openai" and not last.finished and not self.reply.contents:
                return self._failed(
                    EmptyReplyError(f"the reply is empty{self.context.where()}: no content, no finish reason")
                )
            return Outcome(None)
        return None

    def _failed(self, error: Exception) -> Outcome:
        total_at = self._call.total_at
        return Outcome(
            error,
            url=self.request.url,
            now=time.time(),
            jitter=random.random(),
            time_left=None if total_at is None else total_at - time.monotonic(),
        )

    def completion(self) -> ChatCompletion:
        """The whole reply, once it has ended well."""
        ended = self.events[-1]
        if isinstance(ended, StreamEnded) and ended.completion is not None:
            return ended.completion
        return accumulate(event for event in self.events if isinstance(event, ChatCompletionChunk))

    def models(self) -> ModelList:
        """The list of models, once the reply has ended well."""
        return next(event for event in self.events if isinstance(event, ModelList))


class Call:
    """What one call of `create` or `list` asks for. ``chat`` is None for the list of models."""

    def __init__(
        self,
        settings: Settings,
        chat: ChatRequest | None,
        *,
        proxy: Any = UNSET,
        timeout: float | Timeout | None = None,
        max_retries: int | RetryPolicy | None = None,
        extra_headers: Any = None,
    ) -> None:
        self.settings = settings
        self.chat = chat
        self.dialect = "models" if chat is None else "openai"
        self.stream = chat is not None and bool(chat.stream)
        self.proxy = proxy
        self.timeout = settings.timeout if timeout is None else Timeout.of(timeout)
        self.policy = settings.policy if max_retries is None else _policy(max_retries)
        total = self.timeout.total
        self.total_at = None if total is None else time.monotonic() + total
        self._extra_headers = extra_headers

    def plan(self) -> Generator[Effect[Call], Outcome | None, None]:
        """The plan of the call's attempts."""
        return attempts(self, self.policy)

    def attempt(self, key: str | None, url: str | None) -> Attempt:
        """The next attempt, with this key; sent to this URL after a redirect."""
        endpoint = self.settings.endpoint
        if self.chat is None:
            request = endpoint.models(api_key=key, extra_headers=self._extra_headers)
        else:
            request = endpoint.chat(self.chat, api_key=key)
        return Attempt(self, request if url is None else request.to(url), key)
