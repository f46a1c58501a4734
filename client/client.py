"""`Client` and `AsyncClient`: what a program imports."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from deltawire.protocol import ChatCompletion, ChatRequest, ConfigurationError

from .calls import Call
from .drivers import arun, run
from .settings import Settings, make
from .streams import AsyncStream, Stream

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Callable, Generator, Mapping
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from deltawire.protocol import ChatCompletionChunk, Limits, ModelList, RetryPolicy, Timeout
    from deltawire.transports import AsyncTransport, Transport

    from .parameters import CallOptions, ChatOptions, Messages
    from .settings import ApiKey, Proxies

_T = TypeVar("_T")

_OPTIONS = ("proxy", "timeout", "max_retries")
_EXTRAS = ("extra_headers", "extra_query", "extra_body")


def _chat_call(settings: Settings, messages: Any, model: str, stream: bool | None, given: dict[str, Any]) -> Call:
    options = {name: given.pop(name) for name in _OPTIONS if name in given}
    extras = {name: None if (value := given.pop(name)) is None else dict(value) for name in _EXTRAS if name in given}
    chat = ChatRequest(messages=messages, model=model, stream=stream, params=given, **extras)
    return Call(settings, chat, **options)


class _Owner:
    """What a client and its copies share; when the last of them goes, so do the connections."""

    def __init__(self, transport: Any, close: Callable[[], object] | None) -> None:
        self.transport = transport
        if close is not None:
            weakref.finalize(self, close)


class _Client:
    """What both clients are: settings, and a transport that is made on first use."""

    def __init__(
        self,
        *,
        api_key: ApiKey | None = None,
        base_url: str | None = None,
        api_base: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        default_headers: Mapping[str, str | None] | None = None,
        default_query: Mapping[str, object] | None = None,
        proxies: Proxies | None = None,
        trust_env: bool = True,
        timeout: float | Timeout | None = None,
        max_retries: int | RetryPolicy = 2,
        limits: Limits | None = None,
        verify: Any = True,
        http2: bool = False,
        uds: str | os.PathLike[str] | None = None,
        local_address: str | None = None,
        transport: Any = None,
    ) -> None:
        """All arguments are optional.

        ``api_key``: or the environment's ``OPENAI_API_KEY``; a callable is asked anew for each attempt.
        ``base_url`` (also ``api_base``): such as "http://localhost:8000/v1"; or ``OPENAI_BASE_URL``.
        ``organization``, ``project``: or ``OPENAI_ORG_ID``, ``OPENAI_PROJECT_ID``.
        ``proxies``: a proxy's URL (http, https, socks5, or socks5h, which looks names up at the proxy), or a mapping of
        "http", "https", "all" to URLs (None: no proxy); without it the environment's ``HTTP_PROXY``,
        ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``.
        ``trust_env=False``: the environment is not asked for anything.
        ``timeout``: seconds, for the first content and between contents; or a `Timeout`.
        ``max_retries``: extra attempts, before the first content only; or a `RetryPolicy`.
        ``verify``: True, a file of certificate authorities, an ``ssl.SSLContext``, or False.
        ``http2``: offer HTTP/2 (needs ``deltawire[http2]``).
        ``uds``: the path of a Unix domain socket to connect to, whatever host the base URL names; no proxy then.
        ``local_address``: the IP address to connect from.
        ``transport``: an object with the methods of `deltawire.transports.Transport` (`AsyncTransport`), or
        the name "httpcore"; an object is not closed by the client, since it may serve others.

        Raises `ConfigurationError` for what can't work.
        """
        self._settings = make(
            api_key=api_key,
            base_url=base_url,
            api_base=api_base,
            organization=organization,
            project=project,
            default_headers=default_headers,
            default_query=default_query,
            proxies=proxies,
            trust_env=trust_env,
            timeout=timeout,
            max_retries=max_retries,
            limits=limits,
            direct=uds is not None,
        )
        options = {"verify": verify, "http2": http2, "uds": uds, "local_address": local_address}
        self._owner = self._owner_of(transport, options)

    def _owner_of(self, transport: Any, options: dict[str, Any]) -> _Owner:
        if transport is None or transport == "httpcore":
            return self._own(**options)
        if isinstance(transport, str):
            raise ConfigurationError(f"unknown transport {transport!r}: use 'httpcore', or an object")
        return _Owner(transport, None)

    def _own(self, **options: Any) -> _Owner:
        raise TypeError("use Client or AsyncClient")

    @property
    def base_url(self) -> str:
        """Where requests go."""
        return self._settings.base_url

    def with_options(self, **changes: Any) -> Self:
        """A client like this one but for these arguments, on the same connections.

        Takes what the constructor takes, but for what its connections are made with: ``verify``, ``http2``, ``uds``,
        ``local_address`` and ``transport``.
        """
        copy = type(self).__new__(type(self))
        copy._settings = self._settings.changed(**changes)
        copy._owner = self._owner
        return copy

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._settings.base_url}>"


class Client(_Client):
    """A client for programs that block. May be shared between threads."""

    def _own(self, **options: Any) -> _Owner:
        from deltawire.transports import HTTPCoreTransport

        transport = HTTPCoreTransport(**options)
        return _Owner(transport, transport.close)

    @property
    def chat(self) -> Chat:
        """``client.chat.completions.create(...)``"""
        return Chat(self)

    @property
    def models(self) -> Models:
        """``client.models.list()``"""
        return Models(self)

    @property
    def transport(self) -> Transport:
        """The transport, shared with the copies that `with_options` makes."""
        return self._owner.transport  # type: ignore[no-any-return]

    def close(self) -> None:
        """Close all connections, also those of copies. Idempotent."""
        self.transport.close()

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
        self, messages: Messages, model: str, stream: Literal[False] | None = None, **options: Unpack[ChatOptions]
    ) -> ChatCompletion: ...

    @overload
    def create(
        self, messages: Messages, model: str, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> Stream: ...

    @overload
    def create(
        self, messages: Messages, model: str, stream: bool | None, **options: Unpack[ChatOptions]
    ) -> ChatCompletion | Stream: ...

    def create(
        self, messages: Messages, model: str, stream: bool | None = None, **options: Unpack[ChatOptions]
    ) -> ChatCompletion | Stream:
        """Ask a model. Sends at once.

        With ``stream=True`` gives a `Stream` as soon as the first content is there, and raises what went
        wrong before that, after the retries; else gives the whole `ChatCompletion`. ``options``: OpenAI's
        parameters, and those of `CallOptions`. Raises the errors of `deltawire.protocol.errors`.
        """
        client = self._client
        call = _chat_call(client._settings, messages, model, stream, dict(options))
        attempt, exchange, retries = run(call, client.transport)
        if call.stream:
            return Stream(attempt, exchange, client._owner, retries)
        exchange.close()
        return attempt.completion()


class Models:
    """``client.models``"""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, **options: Unpack[CallOptions]) -> ModelList:
        """The models that the server offers (``GET /models``), as it lists them."""
        attempt, exchange, _ = run(Call(self._client._settings, None, **options), self._client.transport)  # type: ignore[misc]
        exchange.close()
        return attempt.models()


class AsyncClient(_Client):
    """A client for asyncio and trio. May be shared between tasks; each event loop has its own connections."""

    def _own(self, **options: Any) -> _Owner:
        from deltawire.transports import AsyncHTTPCoreTransport

        transport = AsyncHTTPCoreTransport(**options)
        return _Owner(transport, transport.abandon)

    @property
    def chat(self) -> AsyncChat:
        """``client.chat.completions.create(...)``"""
        return AsyncChat(self)

    @property
    def models(self) -> AsyncModels:
        """``client.models.list()``"""
        return AsyncModels(self)

    @property
    def transport(self) -> AsyncTransport:
        """The transport, shared with the copies that `with_options` makes."""
        return self._owner.transport  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        """Close all connections of the running loop, also those of copies. Idempotent."""
        await self.transport.aclose()

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


class AsyncCall(Generic[_T]):
    """A call that has not been sent: ``await`` it, or iterate it at once where it streams.

    It sends at the first ``await`` or step. Awaited twice, it gives the same object; never awaited, it sends
    nothing.
    """

    def __init__(self, call: Call, client: AsyncClient) -> None:
        self._call = call
        self._client = client
        self._result: _T | None = None
        self._lock: Any = None

    def __await__(self) -> Generator[Any, None, _T]:
        return self._get().__await__()

    async def _get(self) -> _T:
        import anyio

        # Two tasks may await the same call.
        if self._lock is None:
            self._lock = anyio.Lock()
        async with self._lock:
            if self._result is None:
                self._result = await self._send()
            return self._result

    async def _send(self) -> Any:
        attempt, exchange, retries = await arun(self._call, self._client.transport)
        if self._call.stream:
            return AsyncStream(attempt, exchange, self._client._owner, retries)
        await exchange.aclose()
        return attempt.completion() if self._call.chat is not None else attempt.models()


class AsyncStreamCall(AsyncCall[AsyncStream]):
    """A streaming call: also an async iterator of chunks, and an async context manager."""

    def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        return self

    async def __anext__(self) -> ChatCompletionChunk:
        stream = self._result or await self._get()
        return await stream.__anext__()

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

    # The OpenAI SDK's name.
    close = aclose


class AsyncCompletions:
    """``client.chat.completions``"""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    @overload
    def create(
        self, messages: Messages, model: str, stream: Literal[False] | None = None, **options: Unpack[ChatOptions]
    ) -> AsyncCall[ChatCompletion]: ...

    @overload
    def create(
        self, messages: Messages, model: str, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> AsyncStreamCall: ...

    @overload
    def create(
        self, messages: Messages, model: str, stream: bool | None, **options: Unpack[ChatOptions]
    ) -> AsyncCall[ChatCompletion] | AsyncStreamCall: ...

    def create(
        self, messages: Messages, model: str, stream: bool | None = None, **options: Unpack[ChatOptions]
    ) -> AsyncCall[Any]:
        """Ask a model; as `Completions.create`, but nothing is sent before the first ``await`` or step.

        ``completion = await create(...)``; ``async for chunk in create(..., stream=True)``, with or without
        ``await`` before it.
        """
        call = _chat_call(self._client._settings, messages, model, stream, dict(options))
        return (AsyncStreamCall if call.stream else AsyncCall)(call, self._client)


class AsyncModels:
    """``client.models``"""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def list(self, **options: Unpack[CallOptions]) -> AsyncCall[ModelList]:
        """The models that the server offers; to be awaited."""
        return AsyncCall(Call(self._client._settings, None, **options), self._client)  # type: ignore[misc]
