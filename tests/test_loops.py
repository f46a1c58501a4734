"""One `AsyncClient` and several event loops: one after the other, at once in threads, and streams that get into another
one than theirs: it works, or is told in our words; and no socket is left."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio
from driving import HI, MODEL, STALLED

from deltawire import AsyncClient, DeltawireError, UsageError
from deltawire.testing import Answer, ChatServer

pytestmark = pytest.mark.usefixtures("_tidy", "transports")


def on_asyncio(main: Callable[[], Any]) -> Any:
    async def awaited() -> Any:
        return await main()

    return asyncio.run(awaited())


LOOPS: dict[str, Callable[[Callable[[], Any]], Any]] = {"asyncio": on_asyncio, "trio": trio.run}

both = pytest.mark.parametrize("second", sorted(LOOPS))
each_loop = pytest.mark.parametrize("first", sorted(LOOPS))


async def begun(client: AsyncClient) -> Any:
    stream = await client.chat.completions.create(HI, MODEL, stream=True)
    await stream.__anext__()
    return stream


async def ask(client: AsyncClient) -> str:
    call = client.chat.completions.create(HI, MODEL, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in call])


def test_by_turns(server: ChatServer) -> None:
    client = AsyncClient(base_url=server.url)
    for name in ("asyncio", "trio", "asyncio", "trio"):
        assert LOOPS[name](lambda: ask(client)) == "Hello"
        server.wait_closed()
    assert server.connections == 4


@pytest.mark.parametrize("call", [ask, begun], ids=["idle", "busy"])
def test_a_loop_that_was_closed_without_a_word(server: ChatServer, call: Callable[[AsyncClient], Any]) -> None:
    """Without ``shutdown_asyncgens``, that is: what it had is closed when the next one comes."""
    client = AsyncClient(base_url=server.url)
    if call is begun:
        server.plan(STALLED)
    closed = asyncio.new_event_loop()
    left = closed.run_until_complete(call(client))
    closed.close()

    async def main() -> None:
        assert await ask(client) == "Hello"
        # Its own one, but for which there is none.
        await asyncio.to_thread(server.wait_until, lambda: server.open_connections == 1, "the other one to be closed")

    # That the loop did not close its sockets, asyncio tells when they are collected.
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        asyncio.run(main())
        del left
        gc.collect()
    assert {each.category for each in told} == {ResourceWarning}
    server.wait_closed()


@each_loop
@both
def test_a_stream_whose_loop_is_over(server: ChatServer, first: str, second: str) -> None:
    """What had come may still be had; then it fails, and closing it is no mistake."""
    server.plan(STALLED)
    client = AsyncClient(base_url=server.url)
    stream = LOOPS[first](lambda: begun(client))

    async def read() -> None:
        with pytest.raises(DeltawireError):
            [chunk async for chunk in stream]
        await stream.aclose()
        assert await ask(client) == "Hello"

    LOOPS[second](read)
    server.wait_closed()


@each_loop
@both
def test_a_stream_whose_loop_goes_on_elsewhere(server: ChatServer, first: str, second: str) -> None:
    """Another thread's loop can't wait for it, and its own one is not disturbed."""
    server.plan(Answer(tokens=["a"], finish_reason=None, done=False, ending="stall"))
    client = AsyncClient(base_url=server.url, timeout=5)
    there, over, streams = threading.Event(), threading.Event(), []

    async def keep() -> None:
        streams.append(await begun(client))
        there.set()
        if first == "trio":
            await trio.to_thread.run_sync(over.wait, 10)
        else:
            await asyncio.to_thread(over.wait, 10)
        await streams[0].aclose()

    async def read() -> None:
        stream = streams[0]
        with pytest.raises(UsageError, match="another event loop"):
            [chunk async for chunk in stream]
        assert await ask(client) == "Hello"

    owner = threading.Thread(target=LOOPS[first], args=(keep,))
    owner.start()
    try:
        assert there.wait(10)
        LOOPS[second](read)
    finally:
        over.set()
        owner.join(10)
    assert not owner.is_alive()
    server.wait_closed()
    streams.clear()
    gc.collect()


@each_loop
@both
def test_closing_a_stream_that_another_loop_reads(server: ChatServer, first: str, second: str) -> None:
    """Its reader is told, and nobody waits for the other."""
    server.plan(Answer(tokens=["a"], finish_reason=None, done=False, ending="stall"))
    client = AsyncClient(base_url=server.url, timeout=30)
    there, streams, heard = threading.Event(), [], []

    async def read() -> None:
        streams.append(await begun(client))
        there.set()
        try:
            heard.extend([chunk.choices[0].delta.content async for chunk in streams[0]])
        except DeltawireError as error:
            heard.append(error)

    async def close() -> None:
        with anyio.fail_after(5):
            await streams[0].aclose()

    reader = threading.Thread(target=LOOPS[first], args=(read,), daemon=True)
    closer = threading.Thread(target=LOOPS[second], args=(close,), daemon=True)
    reader.start()
    assert there.wait(10)
    closer.start()
    for thread in (closer, reader):
        thread.join(10)
        assert not thread.is_alive()
    assert len(heard) <= 2
    server.wait_closed()
    streams.clear()
    gc.collect()


@each_loop
def test_closing_in_a_loop_closes_nothing_of_others(server: ChatServer, first: str) -> None:
    """But from then on the client opens nothing anywhere; what the other loop had ends with it."""
    client = AsyncClient(base_url=server.url)
    there, over = threading.Event(), threading.Event()

    async def keep() -> None:
        assert await ask(client) == "Hello"
        there.set()
        wait = trio.to_thread.run_sync if first == "trio" else asyncio.to_thread
        await wait(over.wait, 10)
        assert client.transport.connections() == (0, 1)  # type: ignore[attr-defined]
        with pytest.raises(UsageError, match="closed"):
            await ask(client)

    async def close() -> None:
        assert await ask(client) == "Hello"
        await client.aclose()

    owner = threading.Thread(target=LOOPS[first], args=(keep,))
    owner.start()
    try:
        assert there.wait(10)
        asyncio.run(close())
    finally:
        over.set()
        owner.join(10)
    server.wait_closed()
    assert server.connections == 2


@each_loop
def test_closing_in_a_loop_leaves_the_streams_of_others(server: ChatServer, first: str) -> None:
    """Each comes to its own end: that of one is not that of another."""
    server.plan(*[Answer(tokens=["Hel", "lo"], pace=0.4)] * 2)
    client = AsyncClient(base_url=server.url)
    there, over = threading.Event(), threading.Event()
    texts: list[str] = []

    async def keep() -> None:
        streams = [await begun(client) for _ in range(2)]
        there.set()
        wait = trio.to_thread.run_sync if first == "trio" else asyncio.to_thread
        await wait(over.wait, 10)
        await streams.pop().aclose()
        texts.extend([chunk.choices[0].delta.content or "" async for chunk in streams.pop()])

    async def close() -> None:
        await client.aclose()

    owner = threading.Thread(target=LOOPS[first], args=(keep,))
    owner.start()
    try:
        assert there.wait(10)
        asyncio.run(close())
    finally:
        over.set()
        owner.join(10)
    assert "".join(texts) == "Hello"
    server.wait_closed()
