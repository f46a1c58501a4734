"""Providers with a generator of their own: what they are given, what they yield, how they fail and end."""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from driving import HI, SOON, Driver, Run, settled

from deltawire import (
    AsyncClient,
    AsyncGeneratorProvider,
    ChatCompletionChunk,
    Client,
    ConfigurationError,
    EmptyReplyError,
    Message,
    OpenaiTemplate,
    ProviderNotWorkingError,
    RateLimitError,
    RetryProvider,
    RetryProviderError,
    Timeout,
    UsageError,
)
from deltawire.protocol import ChunkChoice, Delta, Function, ToolCall
from deltawire.protocol.pieces import FinishReason, Reasoning, ToolCalls, UsageReport
from deltawire.testing import ChatServer

pytestmark = pytest.mark.usefixtures("_tidy")

both_kinds = pytest.mark.parametrize("stream", [True, False])


class OwnError(Exception):
    pass


class Own(AsyncGeneratorProvider):
    """Yields what it was told, and remembers what it was given."""

    def __init__(self, *pieces: Any, error: BaseException | None = None) -> None:
        super().__init__()
        self.pieces = pieces
        self.error = error
        self.given: list[dict[str, Any]] = []
        self.ended = threading.Event()

    async def create_async_generator(  # type: ignore[override]
        self, model: str | None, messages: Any, **options: Any
    ) -> AsyncIterator[Any]:
        self.given.append({"model": model, "messages": messages, **options})
        try:
            for piece in self.pieces:
                await anyio.lowlevel.checkpoint()
                yield piece
            if self.error is not None:
                raise self.error
        finally:
            self.ended.set()


class Classic(AsyncGeneratorProvider):
    """As people write it."""

    @classmethod
    async def create_async_generator(cls, model: str | None, messages: Any, **kwargs: Any) -> AsyncIterator[Any]:
        for text in ("Hel", "lo"):
            yield text


class Awaited(AsyncGeneratorProvider):
    """A coroutine that gives an iterator."""

    @classmethod
    async def create_async_generator(  # type: ignore[override]
        cls, model: str | None, messages: Any, **kwargs: Any
    ) -> Any:
        await anyio.lowlevel.checkpoint()
        return Own("Hel", "lo").create_async_generator(model, messages, **kwargs)


class Plain:
    """No class of ours behind it."""

    @staticmethod
    async def create_async_generator(model: str, messages: Any, **kwargs: Any) -> Any:
        yield "Hel"
        yield "lo"


class Wrapping(OpenaiTemplate):
    """Ours, with something done to the answer."""

    @classmethod
    async def create_async_generator(cls, model: Any, messages: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        async for piece in super().create_async_generator(model, messages, **kwargs):
            yield piece.upper() if isinstance(piece, str) else piece


# --- What they yield -------------------------------------------------------------------------------------


@both_kinds
@pytest.mark.parametrize("provider", [Classic, Classic(), Awaited, Plain, Plain(), Own("Hel", None, "", "lo")])
def test_texts(driver: Driver, provider: Any, stream: bool) -> None:
    heard = driver.ask({"provider": provider}, stream=stream)
    assert (heard.text, heard.error) == ("Hello", None)


@both_kinds
def test_one_that_wraps_ours(driver: Driver, server: ChatServer, stream: bool) -> None:
    """What is given to it can be given on."""
    heard = driver.ask({"provider": Wrapping, "base_url": server.url, "api_key": "sk-1"}, stream=stream, temperature=0)
    assert (heard.text, heard.error) == ("HELLO", None)
    (request,) = server.requests
    assert request.header("authorization") == "Bearer sk-1"
    assert request.json()["temperature"] == 0


def test_the_last_chunk(driver: Driver) -> None:
    usage = UsageReport(prompt_tokens=1, completion_tokens=2, total_tokens=3)
    provider = Own("a", usage, "b", FinishReason("length"))
    with Client(provider=provider) as client:
        *_, last = client.chat.completions.create(HI, "m", stream=True)
    assert (last.choices[0].delta.content, last.choices[0].finish_reason, last.provider) == (None, "length", "Own")
    assert last.usage is not None
    assert last.usage.total_tokens == 3
    completion = driver.ask({"provider": provider}).reply
    assert (completion.choices[0].message.content, completion.choices[0].finish_reason) == ("ab", "length")
    assert (completion.usage.total_tokens, completion.provider) == (3, "Own")


def test_pieces_that_are_no_text(driver: Driver) -> None:
    calls = ToolCalls([ToolCall(id="1", type="function", function=Function(name="f", arguments="{}"))])
    more = ToolCalls([ToolCall(id=None, type="function", function=Function(name="g", arguments="[]"))])
    message = driver.ask({"provider": Own(Reasoning("hm"), "a", calls, more)}).reply.choices[0].message
    assert (message.reasoning_content, message.content) == ("hm", "a")
    assert [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls] == [
        ("1", "f", "{}"),
        (None, "g", "[]"),
    ]
    assert driver.ask({"provider": Own(calls)}).reply.choices[0].finish_reason == "tool_calls"


def test_chunks_go_through(driver: Driver) -> None:
    usage = UsageReport(total_tokens=7)
    chunk = ChatCompletionChunk(id="x", choices=[ChunkChoice(delta=Delta(content="a"), finish_reason="length")])
    completion = driver.ask({"provider": Own(chunk, usage)}).reply
    assert (completion.id, completion.choices[0].finish_reason, completion.usage.total_tokens) == ("x", "length", 7)


def test_other_objects_are_what_they_print_as(driver: Driver) -> None:
    assert driver.ask({"provider": Own(anyio.Path("a"), 7)}).text == "a7"


@both_kinds
@pytest.mark.parametrize("kind", [bytes, bytearray, list, dict, set, tuple])
def test_what_is_no_text(driver: Driver, kind: Callable[[], Any], stream: bool) -> None:
    """Its repr() in the midst of the answer is what nobody means."""
    provider = Own("a", kind())
    heard = driver.ask({"provider": provider}, stream=stream, max_retries=0)
    assert isinstance(heard.error, ConfigurationError)
    assert f"yields {kind.__name__}, which is no text" in str(heard.error)
    assert heard.text == ("a" if stream else "")
    assert provider.ended.is_set()


@both_kinds
@pytest.mark.parametrize("pieces", [(OwnError("no"),), ("a", OwnError("first"), OwnError("no"), None, "")])
def test_an_error_that_is_yielded_ends_the_answer(driver: Driver, pieces: Any, stream: bool) -> None:
    heard = driver.ask({"provider": Own(*pieces)}, stream=stream, max_retries=0)
    assert isinstance(heard.error, OwnError)
    assert str(heard.error) == "no"
    assert heard.text == ("a" if stream and len(pieces) > 1 else "")


@both_kinds
def test_an_error_that_is_yielded_before_the_answer(driver: Driver, stream: bool) -> None:
    """g4f's own providers tell so of what they have tried in vain."""
    heard = driver.ask({"provider": Own(OwnError("no"), "a")}, stream=stream)
    assert (heard.text, heard.error) == ("a", None)


@both_kinds
def test_stop_words_in_chunks(driver: Driver, stream: bool) -> None:
    def said(text: str | None, **more: Any) -> ChatCompletionChunk:
        return ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(content=text), **more)])

    cases = [
        ([said("one S"), said("TO"), said("P two"), said(None, finish_reason="length")], "one ", "stop"),
        ([said("one S"), said("TO"), said("RE", finish_reason="length")], "one STORE", "length"),
        ([said("one S"), said("TOP", finish_reason="length")], "one ", "stop"),
        ([said("one S"), said(None, finish_reason="length")], "one S", "length"),
    ]
    for chunks, text, reason in cases:
        heard = driver.ask({"provider": Own(*chunks)}, stream=stream, stop="STOP", max_retries=0)
        assert (heard.text, heard.error) == (text, None)
        if not stream:
            assert heard.reply.choices[0].finish_reason == reason


def test_the_timeout_is_what_is_left_of_the_total(driver: Driver) -> None:
    provider = Own("a")
    driver.ask({"provider": provider, "timeout": Timeout(first_content=None, total=7)})
    driver.ask({"provider": provider, "timeout": Timeout(first_content=3, total=7)})
    driver.ask({"provider": provider, "timeout": Timeout(first_content=None)})
    assert 0 < provider.given[0]["timeout"] <= 7
    assert provider.given[1]["timeout"] == 3
    assert "timeout" not in provider.given[2]


@both_kinds
@pytest.mark.parametrize(
    ("pieces", "stop", "text"),
    [
        (["one S", "TO", "P two"], "STOP", "one "),
        (["one S", "TO", "RE"], ["STOP", "END"], "one STORE"),
        (["one S"], "STOP", "one S"),
        (["STOP"], "STOP", ""),
    ],
)
def test_stop_words(driver: Driver, pieces: list[str], stop: Any, text: str, stream: bool) -> None:
    provider = Own(*pieces, FinishReason("length"))
    heard = driver.ask({"provider": provider}, stream=stream, stop=stop, max_retries=0)
    if text:
        assert (heard.text, heard.error) == (text, None)
    assert provider.given[0]["stop"] == stop
    assert provider.ended.wait(5), "nobody waits for the rest"


@both_kinds
@pytest.mark.parametrize("pieces", [[], [None], [""], [UsageReport(total_tokens=1)]])
def test_nothing(driver: Driver, pieces: list[Any], stream: bool) -> None:
    provider = Own(*pieces)
    heard = driver.ask({"provider": provider, "max_retries": SOON}, stream=stream)
    assert isinstance(heard.error, EmptyReplyError)
    assert len(provider.given) == 3


# --- What they are given -----------------------------------------------------------------------------------


def test_arguments(driver: Driver) -> None:
    provider = Own("a")
    client = {
        "provider": provider,
        "proxies": "http://me:pa%20ss:w%40rd@127.0.0.1:1",
        "api_key": {"Own": "sk-1"},
        "base_url": "http://host/v1",
        "timeout": 7,
        "default_headers": {"x-a": "1"},
    }
    call = {
        "media": [(b"1", "a.png"), b"2"],
        "temperature": 0,
        "tools": None,
        "own": "thing",
        "extra_headers": {"x-b": "2"},
        "extra_body": {"more": None},
        "extra_query": {"q": 1},
        "model": "m",
    }
    assert driver.ask(client, **call).error is None
    assert provider.given == [
        {
            "model": "m",
            "messages": HI,
            "stream": False,
            "proxy": "http://me:pa%20ss%3Aw%40rd@127.0.0.1:1",
            "timeout": 7,
            "media": [(b"1", "a.png"), (b"2", None)],
            "api_key": "sk-1",
            "api_base": "http://host/v1",
            "temperature": 0,
            "own": "thing",
            "headers": {"x-a": "1", "x-b": "2"},
            "more": None,
            "extra_query": {"q": 1},
        }
    ]


def test_no_arguments(driver: Driver) -> None:
    provider = Own("a")
    driver.stream({"provider": provider})
    assert provider.given == [{"model": "local-model", "messages": HI, "stream": True, "timeout": 600}]


@pytest.mark.parametrize(
    ("client", "call", "seconds"),
    [(None, None, 600), (7, None, 7), (7, 3, 3), (Timeout(first_content=5, idle=1), None, 5), (7, Timeout(), 600)],
)
def test_timeouts(client: Any, call: Any, seconds: float) -> None:
    provider = Own("a")
    with Client(provider=provider, timeout=client) as made:
        made.chat.completions.create(HI, "m", timeout=call)
    assert provider.given[0]["timeout"] == seconds


@pytest.mark.parametrize(
    "messages",
    ["Hi", HI, tuple(HI), iter(HI), [Message(role="user", content="Hi")]],
    ids=["text", "list", "tuple", "iterator", "objects"],
)
def test_messages_are_its_own(messages: Any) -> None:
    """A list of dicts in any case, for each attempt another one, which it may change."""
    first, second = Own(error=OwnError()), Own("a")
    with Client(provider=RetryProvider([first, second], shuffle=False)) as client:
        client.chat.completions.create(messages, "m")
    for provider in (first, second):
        assert provider.given[0]["messages"] == HI
        provider.given[0]["messages"][0]["content"] = "changed"
    assert HI[0]["content"] == "Hi"


# --- How they fail --------------------------------------------------------------------------------------------


@both_kinds
@pytest.mark.parametrize("error", [OwnError("mine"), ConfigurationError("no"), FileNotFoundError("disk")])
def test_errors_are_raised_as_they_are(driver: Driver, error: Exception, stream: bool) -> None:
    provider = Own(error=error)
    heard = driver.ask({"provider": provider}, stream=stream)
    assert heard.error is error
    assert len(provider.given) == 1


def test_errors_that_pass_are_retried(driver: Driver) -> None:
    provider = Own(error=ConnectionResetError())
    assert isinstance(driver.stream({"provider": provider, "max_retries": SOON}).error, ConnectionResetError)
    assert len(provider.given) == 3


@both_kinds
def test_the_next_one_is_asked(driver: Driver, stream: bool) -> None:
    failing = [Own(error=OwnError()), Own(), Own(error=RateLimitError("slow down", status_code=429))]
    last = Own("a", "b")
    several = RetryProvider([*failing, last], shuffle=False)
    assert driver.ask({"provider": several}, stream=stream).text == "ab"
    assert [len(each.given) for each in (*failing, last)] == [1, 1, 1, 1]
    assert several.last_provider is last


def test_all_fail(driver: Driver) -> None:
    first, second = OwnError("one"), OwnError("two")
    error = driver.stream({"provider": RetryProvider([Own(error=first), Own(error=second)], shuffle=False)}).error
    assert isinstance(error, RetryProviderError)
    assert list(error.errors) == [first, second]


def test_after_content_nobody_else_is_asked(driver: Driver) -> None:
    error, other = OwnError(), Own("other")
    heard = driver.stream({"provider": RetryProvider([Own("a", "b", error=error), other], shuffle=False)})
    assert (heard.text, heard.error, other.given) == ("ab", error, [])


def test_text_held_back_comes_before_the_error(driver: Driver) -> None:
    error = OwnError()
    heard = driver.stream({"provider": Own("a ST", error=error)}, stop="STOP")
    assert (heard.text, heard.error) == ("a ST", error)


def test_faults_in_other_methods_are_faults_of_the_attempt(driver: Driver) -> None:
    class Strict(Classic):
        @classmethod
        def get_model(cls, model: str) -> str:
            raise OwnError(model)

    assert isinstance(driver.ask({"provider": Strict}).error, OwnError)
    assert driver.ask({"provider": RetryProvider([Strict, Classic], shuffle=False)}).text == "Hello"


@pytest.mark.parametrize("result", [None, "text", ["a"], 3])
def test_what_is_no_generator(driver: Driver, result: Any) -> None:
    class Wrong:
        def create_async_generator(self, *args: Any, **kwargs: Any) -> Any:
            return result

    error = driver.ask({"provider": Wrong()}).error
    assert isinstance(error, ConfigurationError)
    assert "async def" in str(error)


def test_bytes_are_refused(driver: Driver) -> None:
    error = driver.ask({"provider": Own(b"a")}).error
    assert isinstance(error, ConfigurationError)
    assert "bytes" in str(error)


def test_undefined(driver: Driver) -> None:
    assert isinstance(driver.ask({"provider": AsyncGeneratorProvider}).error, NotImplementedError)


def test_not_working(driver: Driver) -> None:
    class Off(Classic):
        working = False

    assert isinstance(driver.ask({"provider": Off}).error, ProviderNotWorkingError)
    assert driver.ask({"provider": Off}, ignore_working=True).text == "Hello"
    assert driver.ask({"provider": Off, "ignore_working": True}).text == "Hello"


def test_not_for_images_nor_after_the_end() -> None:
    client = Client(provider=Classic)
    with pytest.raises(ConfigurationError, match="only for chats"):
        client.images.generate("a cat")
    client.close()
    with pytest.raises(UsageError, match="closed"):
        client.chat.completions.create(HI)


# --- How they end ---------------------------------------------------------------------------------------------


def test_leaving_early() -> None:
    for leave in (lambda stream: stream.close(), lambda stream: None):
        provider = Own(*"abc")
        stream = Client(provider=provider).chat.completions.create(HI, stream=True)
        assert next(stream).choices[0].delta.content == "a"
        leave(stream)
        del stream
        gc.collect()
        assert provider.ended.wait(5)


@pytest.mark.parametrize("way", ["close", "drop"])
def test_leaving_early_async(run: Run, way: str) -> None:
    """Trio complains of generators that are merely dropped; not of these."""
    provider = Own(*"abc")

    async def main() -> None:
        stream = await AsyncClient(provider=provider).chat.completions.create(HI, stream=True)
        assert (await stream.__anext__()).choices[0].delta.content == "a"
        if way == "close":
            await stream.aclose()
            assert provider.ended.is_set()
        del stream
        gc.collect()
        assert await settled(provider.ended.is_set)

    run(main)


class Hanging(Own):
    async def create_async_generator(self, model: Any, messages: Any, **options: Any) -> Any:  # type: ignore[override]
        self.started = anyio.Event()
        try:
            yield "a"
            self.started.set()
            await anyio.sleep_forever()
        finally:
            self.ended.set()


def test_cancelled(run: Run) -> None:
    """What comes after it is no answer, much less the end of one."""

    async def main() -> None:
        provider = Hanging()
        async with AsyncClient(provider=provider) as client:
            stream = await client.chat.completions.create(HI, stream=True)
            await stream.__anext__()
            async with anyio.create_task_group() as group:
                group.start_soon(stream.__anext__)
                await provider.started.wait()
                group.cancel_scope.cancel()
            assert provider.ended.is_set()
            with pytest.raises(UsageError, match="closed"):
                await stream.__anext__()
            await stream.aclose()

    run(main)


@pytest.mark.parametrize("hold", [True, False])
def test_the_loop_ends_first(hold: bool) -> None:
    held: list[Any] = []
    for backend in ("asyncio", "trio"):
        provider = Own(*"abc")

        async def main(provider: Own = provider) -> None:
            stream = await AsyncClient(provider=provider).chat.completions.create(HI, stream=True)
            await stream.__anext__()
            if hold:
                held.append(stream)

        anyio.run(main, backend=backend)
        assert provider.ended.is_set()
    held.clear()
    gc.collect()


# --- Without a client ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["create_generator", "create_completion"])
@pytest.mark.parametrize("provider", [Classic, Classic(), Awaited])
def test_create_generator(provider: Any, method: str) -> None:
    assert list(getattr(provider, method)("m", HI)) == ["Hel", "lo"]


@pytest.mark.parametrize("provider", [Classic, Classic(), Awaited, Own("Hel", Reasoning("x"), None, "lo")])
def test_create_async(run: Run, provider: Any) -> None:
    assert run(provider.create_async, "m", HI) == "Hello"


def test_several_of_them(run: Run) -> None:
    several = RetryProvider([Own(error=OwnError()), Classic], shuffle=False)
    assert "".join(str(piece) for piece in several.create_generator("m", HI)) == "Hello"
    assert run(several.create_async, "m", HI) == "Hello"
