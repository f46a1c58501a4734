"""A stream that one thread or task reads, and another one closes: the reader hears of it, and nothing is left."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest
from driving import HI, MODEL, STALLED, Route, Run, blocking, settled
from test_lifetimes import ENDLESS, assert_ended, ready

from deltawire import AsyncClient, Client, DeltawireError
from deltawire.testing import ChatServer

pytestmark = pytest.mark.usefixtures("_tidy", "transports")


def text(chunk: Any) -> str:
    return chunk.choices[0].delta.content or ""


def test_a_thread_that_reads(route: Route) -> None:
    route.server.plan(STALLED)
    heard: list[Any] = []

    def read() -> None:
        try:
            heard.extend(map(text, stream))
        except DeltawireError as error:
            heard.append(error)

    with Client(**route.options(timeout=10)) as client:
        stream = client.chat.completions.create(HI, MODEL, stream=True)
        reader = threading.Thread(target=read)
        reader.start()
        ready(route.server, "mid-stream")
        stream.close()
        reader.join(5)
        assert not reader.is_alive()
        assert_ended(route.server)
        assert client.transport.connections() == (0, 0)  # type: ignore[attr-defined]
        assert client.chat.completions.create(HI, MODEL).choices[0].message.content == "Hello"
        assert list(stream) == []
    words = [each for each in heard if isinstance(each, str)]
    assert "Hello".startswith("".join(words))
    assert all(isinstance(each, (str, DeltawireError)) for each in heard)


def test_a_task_that_reads(run: Run, route: Route) -> None:
    heard: list[Any] = []

    async def main() -> None:
        async with AsyncClient(**route.options(timeout=10)) as client:
            route.server.plan(STALLED)
            stream = await client.chat.completions.create(HI, MODEL, stream=True)

            async def read() -> None:
                try:
                    async for chunk in stream:
                        heard.append(text(chunk))  # noqa: PERF401
                except DeltawireError as error:
                    heard.append(error)

            async with anyio.create_task_group() as group:
                group.start_soon(read)
                await blocking(ready, route.server, "mid-stream")
                assert await settled(lambda: "".join(map(str, heard)) == "Hello")
                with anyio.fail_after(5):
                    await stream.close()
            await blocking(assert_ended, route.server)
            assert client.transport.connections() == (0, 0)  # type: ignore[attr-defined]
            assert (await client.chat.completions.create(HI, MODEL)).choices[0].message.content == "Hello"
            assert [each async for each in stream] == []

    run(main)
    assert heard[:3] == ["", "Hel", "lo"]
    assert all(isinstance(each, (str, DeltawireError)) for each in heard)


class Together(Client):
    """One that several threads close the streams of, again and again."""

    def close_together(self, server: ChatServer) -> None:
        server.plan(ENDLESS)
        stream = self.chat.completions.create(HI, MODEL, stream=True)
        barrier, errors = threading.Barrier(3), []

        def close() -> None:
            barrier.wait(5)
            try:
                stream.close()
            except BaseException as error:
                errors.append(error)

        # All of it is read, but for the end of the body, for which each of them would wait a little.
        for _ in range(3):
            next(stream)
        threads = [threading.Thread(target=close) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []


def test_threads_that_close_together(server: ChatServer) -> None:
    with Together(base_url=server.url) as client:
        for _ in range(5):
            client.close_together(server)
            assert client.transport.connections() == (0, 0)  # type: ignore[attr-defined]
            assert client.chat.completions.create(HI, MODEL).choices[0].message.content == "Hello"


def test_tasks_that_close_together(run: Run, server: ChatServer) -> None:
    """Each would wait for the end of the body."""

    async def main() -> None:
        async with AsyncClient(base_url=server.url) as client:
            server.plan(ENDLESS)
            stream = await client.chat.completions.create(HI, MODEL, stream=True)
            for _ in range(3):
                await stream.__anext__()
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(stream.aclose)
            assert client.transport.connections() == (0, 0)  # type: ignore[attr-defined]
            assert (await client.chat.completions.create(HI, MODEL)).choices[0].message.content == "Hello"

    run(main)
