"""What ``create_async_generator`` and its sync twin give: pieces that print as the answer alone, and an end that leaves
nothing behind, whenever and however it comes."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from collecting import Collect, told
from driving import HI, MODEL, STALLED, Run, blocking, cancelled_when, free_port

from deltawire import (
    BadRequestError,
    ConnectError,
    EmptyReplyError,
    InternalServerError,
    OpenaiTemplate,
    TruncatedStreamError,
)
from deltawire.protocol.pieces import FinishReason, Reasoning, ToolCalls, UsageReport
from deltawire.testing import Answer, ChatServer

pytestmark = pytest.mark.usefixtures("_tidy")

# Content, and then the end of the connection.
BROKEN = Answer(tokens=["Hel"], finish_reason=None, done=False, ending="close")


# --- Pieces -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_the_answer_alone_is_printed(collect: Collect, server: ChatServer, local: Any, stream: bool) -> None:
    call = {"name": "add", "arguments": {"a": 1}, "id": "call_1"}
    server.plan(Answer(reasoning=["Hm", "m"], tokens=["Hel", "lo"], tool_calls=[call], usage={"total_tokens": 7}))
    pieces = collect(local, stream=stream)
    assert told(pieces) == "Hello"
    kinds = [type(piece) for piece in pieces]
    if stream:
        assert kinds == [Reasoning, Reasoning, str, str, ToolCalls, UsageReport, FinishReason]
    else:
        assert kinds == [Reasoning, str, ToolCalls, UsageReport, FinishReason]
    calls, usage, reason = pieces[-3:]
    assert "".join(piece.text for piece in pieces if isinstance(piece, Reasoning)) == "Hmm"
    assert [(each.id, each.function.name, each.function.arguments) for each in calls] == [("call_1", "add", '{"a":1}')]
    assert (usage.total_tokens, reason.reason) == (7, "tool_calls")
    assert [str(piece) for piece in pieces if not isinstance(piece, str)] == [""] * (len(pieces) - kinds.count(str))


def test_tokens_come_as_they_are_sent(server: ChatServer, local: Any) -> None:
    server.plan(STALLED)
    with local.create_generator(MODEL, HI, stream=True) as pieces:
        assert [next(pieces), next(pieces)] == ["Hel", "lo"]


# --- With and without await -------------------------------------------------------------------------------


def test_with_and_without_await(run: Run, server: ChatServer, local: Any) -> None:
    async def main() -> None:
        pieces = local.create_async_generator(MODEL, HI, stream=True)
        assert server.requests == []
        assert await pieces is pieces
        assert len(server.requests) == 1
        assert await pieces is pieces
        assert told([piece async for piece in pieces]) == "Hello"
        assert [piece async for piece in pieces] == []
        assert await pieces is pieces
        assert told([piece async for piece in local.create_async_generator(MODEL, HI)]) == "Hello"
        async with local.create_async_generator(MODEL, HI, stream=True) as pieces:
            assert await pieces.__anext__() == "Hel"
        assert await local.create_async(MODEL, HI, stream=True) == await local().create_async(MODEL, HI) == "Hello"

    run(main)
    assert len(server.requests) == 5


def test_two_tasks_may_await_one_answer(run: Run, server: ChatServer, local: Any) -> None:
    async def main() -> None:
        pieces = local.create_async_generator(MODEL, HI, stream=True)

        async def wait() -> None:
            assert await pieces is pieces

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            group.start_soon(wait)
        assert told([piece async for piece in pieces]) == "Hello"

    run(main)
    assert len(server.requests) == 1


def test_going_on_after_a_break(run: Run, local: Any) -> None:
    async def main() -> None:
        pieces = local.create_async_generator(MODEL, HI, stream=True)
        async for piece in pieces:
            assert piece == "Hel"
            break
        assert told([piece async for piece in pieces]) == "lo"

    run(main)


def test_what_nobody_asks_for_is_not_sent(run: Run, server: ChatServer, local: Any) -> None:
    async def main() -> None:
        local.create_async_generator(MODEL, HI, stream=True)
        await local.create_async_generator(MODEL, HI, stream=True).aclose()
        gc.collect()

    run(main)
    assert server.requests == []


def test_the_sync_twin_sends_at_once(server: ChatServer, local: Any) -> None:
    pieces = local.create_generator(MODEL, HI, stream=True)
    assert len(server.requests) == 1
    assert told(pieces) == "Hello"
    assert list(pieces) == []


# --- Errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([Answer.error(400)], BadRequestError),
        ([Answer.error(503, retry_after=0.01)] * 3, InternalServerError),
        ([Answer(tokens=[], finish_reason=None, headers=[("retry-after", "0.01")])], EmptyReplyError),
    ],
)
def test_errors_before_content(
    collect: Collect, run: Run, server: ChatServer, local: Any, stream: bool, answers: Any, error: type[Exception]
) -> None:
    retries = {} if len(answers) > 1 else {"max_retries": 0}
    server.plan(*answers)
    with pytest.raises(error):
        collect(local, stream=stream, **retries)
    assert len(server.requests) == len(answers)

    async def main() -> None:
        pieces = local.create_async_generator(MODEL, HI, stream=stream, **retries)
        with pytest.raises(error):
            await pieces
        # Nothing was shown: it may be asked again.
        assert told([piece async for piece in pieces]) == "Hello"

    server.plan(*answers)
    run(main)
    assert len(server.requests) == 2 * len(answers) + 1


def test_what_fails_before_content_is_tried_again(collect: Collect, server: ChatServer, local: Any) -> None:
    server.plan(Answer.error(503, retry_after=0.01), Answer.error(429, retry_after=0.01))
    assert told(collect(local, stream=True)) == "Hello"
    assert len(server.requests) == 3


def test_one_that_is_no_key(collect: Collect, server: ChatServer, local: Any) -> None:
    @dataclasses.dataclass
    class Equal(local):  # type: ignore[misc]
        extra: str = ""

    with pytest.raises(TypeError):
        hash(Equal())
    assert told(collect(Equal())) == "Hello"


def test_nobody_listens(collect: Collect) -> None:
    with pytest.raises(ConnectError):
        collect(OpenaiTemplate(api_base=f"http://127.0.0.1:{free_port()}/v1"), max_retries=0)


def test_an_error_after_content(run: Run, server: ChatServer, local: Any) -> None:
    server.plan(BROKEN, BROKEN)
    pieces = local.create_generator(MODEL, HI, stream=True)
    assert next(pieces) == "Hel"
    with pytest.raises(TruncatedStreamError) as caught:
        next(pieces)
    assert list(pieces) == []
    assert caught.value.partial is not None
    assert caught.value.partial.choices[0].message.content == "Hel"

    async def main() -> None:
        pieces = await local.create_async_generator(MODEL, HI, stream=True)
        assert await pieces.__anext__() == "Hel"
        with pytest.raises(TruncatedStreamError):
            await pieces.__anext__()
        assert [piece async for piece in pieces] == []

    run(main)
    assert len(server.requests) == 2


# --- Ends before the end: sync ----------------------------------------------------------------------------


def leave_and_close(pieces: Any) -> None:
    for _ in pieces:
        break
    pieces.close()
    pieces.close()
    assert list(pieces) == []


def leave_and_drop(pieces: Any) -> None:
    assert next(pieces) == "Hel"


def leave_in_a_cycle(pieces: Any) -> None:
    next(pieces)
    pieces.itself = pieces


def leave_a_with_block(pieces: Any) -> None:
    with pieces:
        next(pieces)


def leave_by_an_exception(pieces: Any) -> None:
    with contextlib.suppress(ZeroDivisionError):
        for piece in pieces:
            raise ZeroDivisionError(piece)


@pytest.mark.parametrize(
    "leave", [leave_and_close, leave_and_drop, leave_in_a_cycle, leave_a_with_block, leave_by_an_exception]
)
@pytest.mark.parametrize("create", ["create_generator", "create_completion"])
def test_leaving_early(server: ChatServer, local: Any, leave: Callable[[Any], None], create: str) -> None:
    server.plan(STALLED)
    leave(getattr(local, create)(MODEL, HI, stream=True))
    gc.collect()
    assert server.wait_outcome(0) == "client-closed"
    server.wait_closed(1)


# --- Ends before the end: async ---------------------------------------------------------------------------


async def aleave_and_close(pieces: Any) -> None:
    async for _ in pieces:
        break
    await pieces.aclose()
    await pieces.aclose()
    assert [piece async for piece in pieces] == []


async def aleave_and_drop(pieces: Any) -> None:
    assert await pieces.__anext__() == "Hel"


async def aleave_an_awaited_one(pieces: Any) -> None:
    await pieces


async def aleave_in_a_cycle(pieces: Any) -> None:
    await pieces.__anext__()
    pieces.itself = pieces


async def aleave_a_with_block(pieces: Any) -> None:
    async with pieces:
        await pieces.__anext__()


async def aleave_by_an_exception(pieces: Any) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async for piece in pieces:
            raise ZeroDivisionError(piece)


@pytest.mark.parametrize(
    "leave",
    [
        aleave_and_close,
        aleave_and_drop,
        aleave_an_awaited_one,
        aleave_in_a_cycle,
        aleave_a_with_block,
        aleave_by_an_exception,
    ],
)
def test_async_leaving_early(run: Run, server: ChatServer, local: Any, leave: Callable[[Any], Awaitable[None]]) -> None:
    async def main() -> None:
        await leave(local.create_async_generator(MODEL, HI, stream=True))
        gc.collect()
        # While the loop runs: it is not its end that does it.
        assert await blocking(server.wait_outcome, 0) == "client-closed"
        await blocking(server.wait_closed, 1)

    server.plan(STALLED)
    run(main)


@pytest.mark.parametrize("phase", ["before the head", "in the stream"])
@pytest.mark.parametrize("kind", ["iterated", "create_async"])
def test_cancelling(run: Run, server: ChatServer, local: Any, phase: str, kind: str) -> None:
    def stalled() -> bool:
        return any(each.outcome == "stalled" for each in server.requests)

    def ready() -> None:
        if phase == "before the head":
            server.wait_requests(1)
        else:
            server.wait_until(stalled)

    async def work() -> None:
        if kind == "create_async":
            await local.create_async(MODEL, HI, stream=True)
        else:
            async for _ in local.create_async_generator(MODEL, HI, stream=True):
                pass
        raise AssertionError("it has come to its end")

    async def main() -> None:
        await cancelled_when(ready, work)
        assert await blocking(server.wait_outcome, 0) == "client-closed"

    server.plan(Answer(delay=60) if phase == "before the head" else STALLED)
    run(main)
    assert len(server.requests) == 1


def test_a_scope_around_it(run: Run, server: ChatServer, local: Any) -> None:
    async def main() -> None:
        text = ""
        with anyio.CancelScope() as scope:
            async for piece in local.create_async_generator(MODEL, HI, stream=True):
                text += str(piece)
                if text == "Hello":
                    scope.cancel()
        assert (text, scope.cancelled_caught) == ("Hello", True)
        assert await blocking(server.wait_outcome, 0) == "client-closed"

    server.plan(STALLED)
    run(main)
