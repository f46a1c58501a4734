"""`AsyncClient`: what a program on asyncio or trio imports."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from deltawire.protocol import ChatCompletion

from .asking import call_of
from .base import BaseClient
from .drivers import arun
from .learning import anames
from .owners import aclose, async_owner
from .streams import AsyncStream

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator, Awaitable, Generator
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from deltawire.protocol import ChatCompletionChunk, ModelList
    from deltawire.protocol.images import ImagesResponse
    from deltawire.transports import AsyncTransport

    from .calls import Call
    from .owners import Owner
    from .parameters import CallOptions, ChatOptions, MessagesLike

_T = TypeVar("_T")


class AsyncClient(BaseClient):
    """A client for asyncio and trio.

    Tasks may share it, as threads a `Client`. Event loops may, too, one after the other or at once in threads: each
    loop has its own connections, which end with it. A stream is of use in the loop that began it only.
    """

    def _own(self, transport: Any, **options: Any) -> Owner[AsyncTransport]:
        return async_owner(transport, **options)

    @property
    def chat(self) -> AsyncChat:
        """``client.chat.completions.create(...)``"""
        return AsyncChat(self)

    @property
    def models(self) -> AsyncModels:
        """``client.models.list()``"""
        return AsyncModels(self)

    @property
    def images(self) -> AsyncImages:
        """``client.images.generate(...)``"""
        return AsyncImages(self)

    @property
    def transport(self) -> AsyncTransport:
        """The transport, shared with the copies that `with_options` makes."""
        return self._owner.transport  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        """Close all connections of the running loop, also those of copies. Idempotent."""
        await aclose(self._owner)

    # The OpenAI SDK's name.
    close = aclose

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class AsyncChat:
    """``client.chat``"""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    @property
    def completions(self) -> AsyncCompletions:
        """``client.chat.completions``"""
        return AsyncCompletions(self._client)


class AsyncCall(Coroutine[Any, Any, _T]):
    """A call that has not been sent: ``await`` it, or iterate it at once where it streams.

    It sends at the first ``await`` or step. Awaited twice, it gives the same object; never awaited, it sends
    nothing. As a coroutine it may be given to ``asyncio.create_task``, too.
    """

    def __init__(self, call: Call, client: AsyncClient) -> None:
        self._call = call
        self._client = client
        self._result: _T | None = None
        self._lock: Any = None
        # What a task runs, which drives us by `send`.
        self._running: Coroutine[Any, Any, _T] | None = None

    def __await__(self) -> Generator[Any, None, _T]:
        return self._get().__await__()

    def send(self, value: Any) -> Any:
        """See ``collections.abc.Coroutine``."""
        return self._step("send", value)

    def throw(self, *error: Any) -> Any:
        """See ``collections.abc.Coroutine``."""
        return self._step("throw", *error)

    def _step(self, how: str, *arguments: Any) -> Any:
        if self._running is None:
            self._running = self._get()
        try:
            return getattr(self._running, how)(*arguments)
        except BaseException:
            # It is over, by a result or by an error; another task may ask once more.
            self._running = None
            raise

    def close(self) -> Any:
        """See ``collections.abc.Coroutine``."""
        running, self._running = self._running, None
        if running is not None:
            running.close()

    async def _get(self) -> _T:
        if self._result is not None:
            return self._result
        import anyio

        # Two tasks may await the same call.
        if self._lock is None:
            self._lock = anyio.Lock()
        async with self._lock:
            if self._result is None:
                self._result = await self._send()
        # Of further use to nobody, and there may be thousands of streams.
        self._lock = None
        return self._result

    async def _send(self) -> Any:
        owner = self._client._owner
        attempt, exchange, failures = await arun(self._call, owner)
        if self._call.stream:
            return AsyncStream(attempt, exchange, owner, failures)
        await exchange.aclose()
        return attempt.result()


class AsyncStreamCall(AsyncCall[AsyncStream]):
    """A streaming call: also an async iterator of chunks, and an async context manager."""

    def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        return self

    def __anext__(self) -> Awaitable[ChatCompletionChunk]:
        # No coroutine of its own for each token.
        return self._first() if self._result is None else self._result.__anext__()

    async def _first(self) -> ChatCompletionChunk:
        return await (await self._get()).__anext__()

    async def __aenter__(self) -> AsyncStream:
        return await self._get()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the reply and free its connection; nothing if it was never sent."""
        if self._result is not None:
            await self._result.aclose()

    def close(self) -> Closing:  # type: ignore[override] # it can be awaited, too
        """A coroutine's ``close``; and ``await call.close()``, the OpenAI SDK's name, is `aclose`."""
        super().close()
        return Closing(self)


class Closing:
    """To be awaited; or not."""

    def __init__(self, call: AsyncStreamCall) -> None:
        self._call = call

    def __await__(self) -> Generator[Any, None, None]:
        return self._call.aclose().__await__()


class AsyncCompletions:
    """``client.chat.completions``"""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    @overload
    def create(
        self,
        messages: MessagesLike,
        model: str | None = None,
        stream: Literal[False] | None = None,
        **options: Unpack[ChatOptions],
    ) -> AsyncCall[ChatCompletion]: ...

    @overload
    def create(
        self, messages: MessagesLike, model: str | None, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> AsyncStreamCall: ...

    @overload
    def create(
        self, messages: MessagesLike, model: str | None = None, *, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> AsyncStreamCall: ...

    @overload
    def create(
        self, messages: MessagesLike, model: str | None, stream: bool | None, **options: Unpack[ChatOptions]
    ) -> AsyncCall[ChatCompletion] | AsyncStreamCall: ...

    def create(
        self,
        messages: MessagesLike,
        model: str | None = None,
        stream: bool | None = None,
        **options: Unpack[ChatOptions],
    ) -> AsyncCall[Any]:
        """Ask a model; as `Completions.create`, but nothing is sent before the first ``await`` or step.

        ``completion = await create(...)``; ``async for chunk in create(..., stream=True)``, with or without
        ``await`` before it.
        """
        # Not a copy: what holds keys is taken out of it, and tracebacks show it.
        given: Any = options
        call = call_of(self._client._settings, messages, model, stream, given)
        return (AsyncStreamCall if call.stream else AsyncCall)(call, self._client)

    def stream(
        self, messages: MessagesLike, model: str | None = None, **options: Unpack[ChatOptions]
    ) -> AsyncStreamCall:
        """``create(..., stream=True)``."""
        result: AsyncStreamCall = self.create(messages, model, True, **options)
        return result


class AsyncModels:
    """``client.models``"""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def list(self, **options: Unpack[CallOptions]) -> AsyncCall[ModelList]:
        """The models that the server offers; to be awaited."""
        given: Any = options
        return AsyncCall(call_of(self._client._settings, None, None, None, given, kind="models"), self._client)

    async def get_all(self, **options: Any) -> builtins.list[str]:
        """As `Models.get_all`."""
        return await self._names("names", options)

    async def get_image(self, **options: Any) -> builtins.list[str]:
        """The names of those that draw."""
        return await self._names("image_models", options)

    async def get_vision(self, **options: Any) -> builtins.list[str]:
        """The names of those that see."""
        return await self._names("vision_models", options)

    async def _names(self, which: str, options: dict[str, Any]) -> builtins.list[str]:
        wanted = await anames(self._client._settings, options, self._client._owner)
        await wanted.aask()
        return wanted.result(which)


class AsyncImages:
    """``client.images``"""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def generate(self, prompt: str, model: str | None = None, **options: Any) -> AsyncCall[ImagesResponse]:
        """As `Images.generate`; to be awaited."""
        options["prompt"] = prompt
        return AsyncCall(call_of(self._client._settings, None, model, None, options, kind="images"), self._client)
