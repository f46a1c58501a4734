"""`Client`: what a program that blocks imports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from deltawire.protocol import ChatCompletion

from .asking import call_of
from .base import BaseClient
from .drivers import run
from .learning import Names
from .owners import close, sync_owner
from .streams import Stream

if TYPE_CHECKING:
    import builtins
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from deltawire.protocol import ModelList
    from deltawire.protocol.images import ImagesResponse
    from deltawire.transports import Transport

    from .owners import Owner
    from .parameters import CallOptions, ChatOptions, MessagesLike


class Client(BaseClient):
    """A client for programs that block.

    Threads may share it: as many as like ask at once, on the same connections. A stream is read by one thread at a
    time, whichever; any other may close it, or the client, meanwhile: who reads has what had come, and then the end or
    a `TransportError`. A forked process may go on with its parent's client, on connections of its own. The streams that
    were under way stay the parent's: the child still has what had been read before the fork, and then a
    `TransportError`.
    """

    def _own(self, transport: Any, **options: Any) -> Owner[Transport]:
        return sync_owner(transport, **options)

    @property
    def chat(self) -> Chat:
        """``client.chat.completions.create(...)``"""
        return Chat(self)

    @property
    def models(self) -> Models:
        """``client.models.list()``"""
        return Models(self)

    @property
    def images(self) -> Images:
        """``client.images.generate(...)``"""
        return Images(self)

    @property
    def transport(self) -> Transport:
        """The transport, shared with the copies that `with_options` makes."""
        return self._owner.transport  # type: ignore[no-any-return]

    def _get(self, kind: Any, model: str | None, prompt: str | None, options: dict[str, Any]) -> Any:
        """The result of a call that is no chat."""
        options["prompt"] = prompt
        call = call_of(self._settings, None, model, None, options, kind=kind)
        attempt, exchange, _ = run(call, self._owner)
        exchange.close()
        return attempt.result()

    def close(self) -> None:
        """Close all connections, also those of copies. Idempotent."""
        close(self._owner)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Chat:
    """``client.chat``"""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def completions(self) -> Completions:
        """``client.chat.completions``"""
        return Completions(self._client)


class Completions:
    """``client.chat.completions``"""

    def __init__(self, client: Client) -> None:
        self._client = client

    @overload
    def create(
        self,
        messages: MessagesLike,
        model: str | None = None,
        stream: Literal[False] | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion: ...

    @overload
    def create(
        self, messages: MessagesLike, model: str | None, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> Stream: ...

    @overload
    def create(
        self, messages: MessagesLike, model: str | None = None, *, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> Stream: ...

    @overload
    def create(
        self, messages: MessagesLike, model: str | None, stream: bool | None, **options: Unpack[ChatOptions]
    ) -> ChatCompletion | Stream: ...

    def create(
        self,
        messages: MessagesLike,
        model: str | None = None,
        stream: bool | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion | Stream:
        """Ask a model. Sends at once.

        With ``stream=True`` gives a `Stream` as soon as the first content is there, and raises what went
        wrong before that, after the retries; else gives the whole `ChatCompletion`. ``options``: OpenAI's
        parameters, and those of `CallOptions`. Raises the errors of `deltawire.protocol.errors`.
        """
        client = self._client
        # Not a copy: what holds keys is taken out of it, and tracebacks show it.
        given: Any = options
        call = call_of(client._settings, messages, model, stream, given)
        attempt, exchange, failures = run(call, client._owner)
        if call.stream:
            return Stream(attempt, exchange, client._owner, failures)
        exchange.close()
        return attempt.completion()

    def stream(self, messages: MessagesLike, model: str | None = None, **options: Unpack[ChatOptions]) -> Stream:
        """``create(..., stream=True)``."""
        result: Stream = self.create(messages, model, True, **options)
        return result


class Models:
    """``client.models``"""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, **options: Unpack[CallOptions]) -> ModelList:
        """The models that the server offers (``GET /models``), as it lists them."""
        given: Any = options
        return self._client._get("models", None, None, given)  # type: ignore[no-any-return]

    def get_all(self, **options: Any) -> builtins.list[str]:
        """Their names. Those that the provider declares, else those that its server lists (asked once for each
        base URL and key, but each time where there is no provider); of a `RetryProvider` those of all its providers.

        ``options``: ``provider``, ``api_key``, ``base_url``, ``proxy``, ``timeout``. Raises as
        `OpenaiTemplate.get_models`.
        """
        return self._names("names", options)

    def get_image(self, **options: Any) -> builtins.list[str]:
        """The names of those that draw."""
        return self._names("image_models", options)

    def get_vision(self, **options: Any) -> builtins.list[str]:
        """The names of those that see."""
        return self._names("vision_models", options)

    def _names(self, which: str, options: dict[str, Any]) -> builtins.list[str]:
        wanted = Names(self._client._settings, options, self._client._owner)
        wanted.ask()
        return wanted.result(which)


class Images:
    """``client.images``"""

    def __init__(self, client: Client) -> None:
        self._client = client

    def generate(self, prompt: str, model: str | None = None, **options: Any) -> ImagesResponse:
        """Images of what the prompt says ("Create image" in OpenAI's API reference).

        ``options``: OpenAI's parameters, such as ``n``, ``size`` and ``response_format`` ("url" or "b64_json"), and
        those of `CallOptions`. Asks the client's ``media_provider``, else its ``provider``.
        """
        return self._client._get("images", model, prompt, options)  # type: ignore[no-any-return]
