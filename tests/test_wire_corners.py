"""What goes wrong with the wire only when much comes together: other loops, two tasks, ends of runs, interrupts."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
import textwrap
import time
import weakref
from typing import Any

import pytest
import trio
import trio.testing
from driving import HI, MODEL

from deltawire import AsyncClient, Client, ReadError, Timeout, UsageError
from deltawire.testing import Answer, ChatServer
from deltawire.transports import WireTransport
from deltawire.transports.streams.blocking import BlockingStream
from deltawire.transports.streams.layers import Expired
from deltawire.transports.streams.on_trio import TrioStream

pytestmark = pytest.mark.usefixtures("_tidy")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt()"])
def test_who_leaves_the_program_within_a_stream(loop: str, error: str, server: ChatServer) -> None:
    """It ends, on uvloop, too, which lets nothing out that comes from a protocol."""
    server.plan(Answer(tokens=list("abcdef"), pace=0.01))
    program = f"""
        import {loop}, sys
        from deltawire import AsyncClient

        async def main():
            async with AsyncClient(base_url={server.url!r}, transport="wire") as client:
                async for chunk in client.chat.completions.create("Hi", "m", stream=True):
                    if chunk.choices[0].delta.content == "c":
                        raise {error}

        try:
            {loop}.run(main())
        except BaseException as error:
            print(type(error).__name__)
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == error.partition("(")[0] + "\n", done.stderr


def test_two_tasks_wait_for_one_stream() -> None:
    """The second one is told so, and neither hangs."""

    async def main(url: str) -> None:
        async with AsyncClient(base_url=url, transport="wire", timeout=Timeout(idle=30)) as client:
            stream = await client.chat.completions.create(HI, MODEL, stream=True)
            while (await stream.__anext__()).choices[0].delta.content != "lo":
                pass
            tasks = [asyncio.create_task(_step(stream)) for _ in range(2)]
            first, second = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
            assert isinstance(second, UsageError)
            assert "one task" in str(second)
            assert "the connection is closed" in str(first)
            await stream.aclose()

    with ChatServer() as server:
        server.plan(Answer(tokens=["Hel", "lo"], finish_reason=None, done=False, ending="stall"))
        asyncio.run(main(server.url))


async def _step(stream: Any) -> Any:
    return await stream.__anext__()


@pytest.mark.parametrize("how", ["dropped", "held"])
def test_a_loop_that_is_over_is_let_go(how: str, server: ChatServer) -> None:
    """Whatever was under way on it, and however long its client lives."""
    loops: list[weakref.ref[Any]] = []
    held: list[Any] = []

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        stream = await client.chat.completions.create(HI, MODEL, stream=True)
        await stream.__anext__()
        if how == "held":
            held.append(stream)

    server.plan(*[Answer(tokens=["a", "b"], finish_reason=None, done=False, ending="stall")] * 3)
    client = AsyncClient(base_url=server.url, transport="wire")
    for _ in range(3):
        asyncio.run(main())
    held.clear()
    gc.collect()
    assert [each() for each in loops] == [None] * 3


def test_an_interrupt_between_the_turn_and_the_request(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line and its place are given back."""
    real = BlockingStream.get_extra_info

    def interrupted(stream: BlockingStream, info: str) -> Any:
        if info == "is_readable":
            raise KeyboardInterrupt
        return real(stream, info)

    transport = WireTransport(max_connections=1)
    with Client(base_url=server.url, transport=transport) as client:
        client.chat.completions.create(HI, MODEL)
        with monkeypatch.context() as patched:
            patched.setattr(BlockingStream, "get_extra_info", interrupted)
            with pytest.raises(KeyboardInterrupt):
                client.chat.completions.create(HI, MODEL)
        assert transport.connections()[0] == 0
        assert client.chat.completions.create(HI, MODEL).choices[0].message.content == "Hello"
    transport.close()


def test_a_client_closed_while_a_kept_line_is_asked(server: ChatServer) -> None:
    """No further connection is made for nothing."""

    async def main() -> None:
        client = AsyncClient(base_url=server.url, transport="wire", max_retries=0)
        await client.chat.completions.create(HI, MODEL)
        task = asyncio.create_task(_ask(client))
        await asyncio.to_thread(server.wait_requests, 2)
        await client.aclose()
        with pytest.raises((ReadError, UsageError)):
            await task

    server.plan(Answer(), Answer(cut_after=0, ending="stall"))
    asyncio.run(main())
    assert server.connections == 1


async def _ask(client: AsyncClient) -> Any:
    return await client.chat.completions.create(HI, MODEL)


# --- trio's deadlines ------------------------------------------------------------------------------------------


def test_a_readers_time_is_not_the_writers() -> None:
    """On a stream that many share, the end of one's wait to read ends nobody's wait to write."""
    size = 10_000_000

    async def main() -> None:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        stream = TrioStream(ours, time.monotonic() + 100)
        stream.shared = True
        expired = trio.Event()

        async def read() -> None:
            with pytest.raises(Expired):
                await stream.read(timeout=0.05)
            expired.set()

        async def take() -> None:
            await expired.wait()
            left = size
            while left:
                await trio.lowlevel.wait_readable(theirs)
                left -= len(theirs.recv(1 << 20))

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                nursery.start_soon(take)
                await stream.write(b"x" * size, timeout=10)
        stream.abort()
        theirs.close()

    trio.run(main)


def test_who_waits_when_the_run_ends_hears_of_his_deadline() -> None:
    heard: list[str] = []

    async def main() -> None:
        ours, theirs = socket.socketpair()

        async def system() -> None:
            stream = TrioStream(ours, time.monotonic() + 0.2)
            begun.set()
            with trio.CancelScope(shield=True):
                try:
                    await stream.read()
                except Expired:
                    heard.append("expired")
            stream.abort()
            theirs.close()

        begun = trio.Event()
        trio.lowlevel.spawn_system_task(system)
        await begun.wait()
        await trio.testing.wait_all_tasks_blocked()

    trio.run(main)
    assert heard == ["expired"]
