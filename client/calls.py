"""One call, but for the waiting: what the sync and the async driver share.

A driver runs the plan (`deltawire.protocol.retry`): for `Send` and `Prepare` it opens an exchange for an `Attempt` and
reads until that says how it went; for `Sleep` it sleeps; for `GiveUp` it raises.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from deltawire.protocol import (
    ChatCompletion,
    ChatCompletionChunk,
    ChunkChoice,
    Context,
    Deadlines,
    Delta,
    EmptyReplyError,
    ModelList,
    Outcome,
    Prepare,
    ProviderNotWorkingError,
    Reply,
    RetryPolicy,
    SessionStarted,
    StreamEnded,
    StreamFailed,
    Timeout,
    UsageError,
    accumulate,
    attempts,
)
from deltawire.protocol.images import ImagesResponse, markdown
from deltawire.protocol.messages import last_user_text
from deltawire.protocol.objects import Answer, with_extra

from .behalf import Behalf
from .providers.methods import is_own
from .settings import UNSET, Settings, as_provider, holds_providers, name_of, not_a_provider, policy_of
from .targets import Ask, Session, Target

if TYPE_CHECKING:
    from collections.abc import Generator

    from deltawire.protocol import Event, HTTPRequest, Send
    from deltawire.protocol.retry import Effect

    from .logs import Diary
    from .owners import Owner


_T = TypeVar("_T")

IMAGES = "images"
"""The vendor field in which a chunk keeps the images that an image model gave for a chat."""


class Attempt:
    """One exchange of a call: its request, its reply, its deadlines."""

    diary: Diary | None = None
    """What tells of it, where anybody listens."""
    method = ""
    """That of its request; "" where it is none of ours."""

    def __init__(
        self, call: Call, target: Target, request: HTTPRequest, key: str | None, session: Session | None = None
    ) -> None:
        self.request = request
        self.method = request.method
        self.url = request.url
        self.proxy = proxy = call.settings.proxy_for(request.url, call.proxy)
        self.context = Context.of(
            request,
            provider=target.name if call.names_provider else "",
            proxy=proxy,
            key=key,
            key_name=target.key_name,
        )
        self.answers = session is None
        """Whether it is the call's own, and not one for the session that the call needs."""
        self._session = session
        self.reply = Reply(
            target.dialect if session is None else session.dialect,
            stream=call.stream,
            limits=call.settings.limits,
            context=self.context,
            stop=target.stop if self.answers else None,
        )
        self.deadlines = Deadlines(call.timeout, time.monotonic(), call.total_at)
        self.events: list[Event] = []
        self.target = target
        self._call = call
        self.streams = call.stream and self.answers
        """Whether its first content decides it."""

    def open(self, owner: Owner[Any]) -> Any:
        """The exchange; nothing is sent before its first events are asked for."""
        transport = owner.transport_for(self.target.name, self.target.verify, self.request.impersonate)
        return transport.open(self.request, self.reply, self.deadlines, proxy=self.proxy)

    def outcome(self, events: list[Event]) -> Outcome | None:
        """How the attempt went, as far as these further events tell; None: read on.

        A stream is decided by its first content: from there on what comes is the caller's. Without a stream
        nothing reaches the caller before the end, so the end decides.
        """
        self.events += events
        last = self.events[-1] if self.events else None
        if self.streams and self.reply.contents:
            return Outcome(None)
        if isinstance(last, StreamFailed):
            session = self.target.session
            refused = self.answers and session is not None and session.is_refused(last.error)
            self.named(getattr(last.error, "partial", None))
            return self._call.failed(last.error, self.url, needs_session=refused)
        if isinstance(last, StreamEnded):
            if lacking := self._lacking(last):
                empty = EmptyReplyError(f"the reply is empty{self.context.where()}: {lacking}")
                return self._call.failed(empty, self.url)
            self._ended()
            return Outcome(None)
        return None

    def _lacking(self, ended: StreamEnded) -> str:
        """What an answer lacks that ended well and says nothing; "" for nothing. (Sites say so themselves.)"""
        if any(isinstance(event, ImagesResponse) and not event.data for event in self.events):
            return "no image"
        if self.reply.dialect not in ("openai", "generated") or ended.finished or self.reply.contents:
            return ""
        return "no content, no finish reason"

    def _ended(self) -> None:
        for position, event in enumerate(self.events):
            if isinstance(event, SessionStarted) and self._session is not None:
                store = self._session.store
                store.nonce, store.session_id = event.nonce, event.session_id
            elif isinstance(event, ImagesResponse) and self._call.ask.kind == "chat":
                # (Nothing but the verdict comes after it.)
                self.events[position : position + 1] = _images_chunks(event, self._call.prompt)
                self._call.draws = True
        self.over()

    def over(self) -> None:
        """The reply is read no further: take over what it has said beside the answer."""
        session = self.target.session
        if session is not None and self.reply.new_token:
            session.store.nonce = self.reply.new_token

    def completion(self) -> ChatCompletion:
        """The whole reply, once it has ended well."""
        ended = self.events[-1]
        if isinstance(ended, StreamEnded) and ended.completion is not None:
            whole = ended.completion
        else:
            whole = accumulate(event for event in self.events if isinstance(event, ChatCompletionChunk))
        return self.named(whole)

    def named(self, answer: _T) -> _T:
        """This, with the name of the provider whose answer (or part of one) it is."""
        if isinstance(answer, Answer):
            answer._provider = self.target.name
        return answer

    def models(self) -> ModelList:
        """The list of models, once the reply has ended well."""
        return self.named(next(event for event in self.events if isinstance(event, ModelList)))

    def images(self) -> ImagesResponse:
        """The images, once the reply has ended well."""
        return self.named(next(event for event in self.events if isinstance(event, ImagesResponse)))

    def result(self) -> Any:
        """What the call gives that does not stream."""
        kind = self._call.ask.kind
        return self.completion() if kind == "chat" else self.models() if kind == "models" else self.images()


class Call:
    """What one call of ``create``, ``list`` or ``generate`` asks for, and of whom."""

    def __init__(
        self,
        settings: Settings,
        ask: Ask,
        *,
        provider: Any = None,
        proxy: Any = UNSET,
        timeout: float | Timeout | None = None,
        max_retries: int | RetryPolicy | None = None,
        native: bool = False,
    ) -> None:
        own = settings.media_provider if ask.kind == "images" else None
        given = as_provider(provider) or own or settings.provider
        # An error should name a provider whom the caller has named.
        self.names_provider = given is not None
        if given is None:
            given = settings.unnamed
        self.settings = settings
        self.ask = ask
        self.provider = given
        self.stream = ask.kind == "chat" and bool(ask.stream)
        self.proxy = proxy
        if proxy is not UNSET:
            # A mistake in it should be told now, not at the first attempt.
            settings.proxy_for("https://example.org/", proxy)
        self.timeout = settings.timeout if timeout is None else Timeout.of(timeout)
        self.policy = settings.policy if max_retries is None else policy_of(max_retries)
        self.total_at: float | None = None
        """When the call must be over, on the monotonic clock: it begins with its plan."""
        self.ends_at: float | None = None
        """When the call must be over of which this one is a part, on the same clock."""
        self.draws = False
        """Whether an image model has answered a chat, with images."""
        self._targets: dict[int, Target] = {}
        # Several providers have their turns; what one of them can't do, another may.
        self.several = holds_providers(given)
        self._native = native and not self.several
        if not self.several:
            self.target(given)

    @property
    def prompt(self) -> str:
        """What images are asked for with."""
        return last_user_text(self.ask.messages) if self.ask.prompt is None else self.ask.prompt

    def plan(self) -> Generator[Effect[Any], Outcome | None, None]:
        """The plan of the call's attempts, which begins now."""
        total = self.timeout.total
        ends = (None if total is None else time.monotonic() + total, self.ends_at)
        self.total_at = min((each for each in ends if each is not None), default=None)
        if self.several:
            return self.provider.plan(self.policy, self.settings.budget)  # type: ignore[no-any-return]
        return attempts(self.provider, self.policy, budget=self.settings.budget)

    def target(self, provider: Any) -> Target:
        """What this call becomes for a provider. Raises `ConfigurationError`, `ProviderNotWorkingError`."""
        target = self._targets.get(id(provider))
        if target is None:
            target = self._targets[id(provider)] = self._bind(as_provider(provider))
        return target

    def _bind(self, provider: Any) -> Target:
        # Whoever overrides the way to chats has said nothing of models and images.
        overridden = self.ask.kind == "chat" and not self._native and is_own(provider, "create_async_generator")
        if not overridden and hasattr(provider, "target"):
            # One's own get_model may ask for the list of models.
            with Behalf(provider, self.settings, None, given={}, meant={"proxy": self.proxy}).current():
                target: Target = provider.target(self.ask, self.settings)
            working = target.working
        elif hasattr(provider, "create_async_generator"):
            from .generated import GeneratedTarget

            target = GeneratedTarget(provider, self)
            working = getattr(provider, "working", True)
        else:
            raise not_a_provider(provider)
        if not (working or self.ask.ignore_working or self.settings.ignore_working):
            raise ProviderNotWorkingError(
                f"{name_of(provider)} is marked as not working: name another provider, or say ignore_working=True"
            )
        return target

    def begin(
        self, effect: Send[Any] | Prepare[Any], target: Target, key: str | None, owner: Owner[Any]
    ) -> tuple[Any, Any] | Outcome:
        """The attempt that an effect asks for, with this key, and its exchange; or how it went, where a session has to
        be fetched first. Raises where it can't be sent."""
        session = target.session
        if isinstance(effect, Prepare):
            assert session is not None, "a provider without sessions asks for none"
            assert session.build is not None
            if session.renewed:
                return Outcome(None)
            attempt = Attempt(self, target, self.dressed(session.build()), None, session)
        else:
            # Made even where a session is to be fetched first: what can't be sent is refused before anything is.
            attempt = target.attempt(self, key, effect.url)
            # Tracebacks may show variables.
            key = None
            if session is not None and session.missing:
                return Outcome(None, needs_session=True)
        return attempt, attempt.open(owner)

    def dressed(self, request: HTTPRequest) -> HTTPRequest:
        """A request of this call, as the browser's that it is to look like."""
        profile = self.ask.impersonate or self.settings.impersonate
        return msgspec.structs.replace(request, impersonate=profile) if profile else request

    def not_sent(self, error: Exception) -> Outcome:
        """The outcome where no attempt could be made, or its exchange not be opened, be it by the caller's own code (a
        callable key, `get_headers`): another provider may do. What is out of turn is raised."""
        if isinstance(error, UsageError):
            raise error
        return self.failed(error)

    def failed(self, error: Exception, url: str = "", needs_session: bool = False) -> Outcome:
        """The outcome of an attempt that failed so."""
        return Outcome(
            error,
            url=url,
            now=time.time(),
            jitter=random.random(),
            time_left=None if self.total_at is None else self.total_at - time.monotonic(),
            needs_session=needs_session,
        )


def _images_chunks(images: ImagesResponse, prompt: str) -> list[ChatCompletionChunk]:
    """Images as a chat's answer: the text shows them, the vendor field holds them; then the finish reason."""
    shown = ChunkChoice(delta=Delta(role="assistant", content=markdown(images, prompt)))
    answer = with_extra(ChatCompletionChunk(choices=[shown], created=images.created), {IMAGES: images})
    return [answer, ChatCompletionChunk(choices=[ChunkChoice(finish_reason="stop")], created=images.created)]


def http_attempt(call: Call, target: Target, key: str | None, url: str | None) -> Attempt:
    """An attempt of a target that speaks HTTP; sent to this URL after a redirect."""
    request = call.dressed(target.build(key))
    return Attempt(call, target, request if url is None else request.to(url), key)
