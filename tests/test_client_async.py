"""`AsyncClient`: what people type, on asyncio and on trio."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import anyio
import pytest
from driving import HI, MODEL, Peer, Run, blocking
from programs import run_program

from deltawire import AsyncClient, AsyncStream, AuthenticationError, MissingAuthError, ReadError, UsageError
from deltawire.testing import Answer, ChatServer, ProxyServer

pytestmark = pytest.mark.usefixtures("_tidy", "transports")

PROGRAM = """
import sys
import asyncio
from deltawire import AsyncClient

async def main():
    base_url, proxy = sys.argv[1:3]
    client = AsyncClient(base_url=base_url, proxies={"http": proxy, "https": proxy})
    stream = client.chat.completions.create(
        model="gpt-4",
        messages=[{"role": "user", "content": "Hello"}],
        stream=True,
    )
    accumulated_text = ""
    try:
        async for chunk in stream:
            content = chunk.choices[0].delta.content
            if content:
                accumulated_text += content
                print(content, flush=True)
    except Exception as e:
        print(f"Error: {e}")
    finally:
        print("Final accumulated text:", accumulated_text)
    completion = await client.chat.completions.create(
        model="gpt-4", messages=[{"role": "user", "content": "Hello"}]
    )
    print(completion.choices[0].message.content)

"""


@pytest.mark.parametrize("start", ["asyncio.run(main())", "import trio; trio.run(main)"])
def test_the_classic_program(server: ChatServer, proxy: ProxyServer, start: str) -> None:
    """As it stands in a thousand scripts: no await before the stream, nothing closed, and nothing complains."""
    printed = run_program(PROGRAM + start, server.url, proxy.url)
    assert printed.splitlines() == ["Hel", "lo", "Final accumulated text: Hello", "Hello"]
    assert len(proxy.requests) == 2
    assert all(each.authorized and each.target.startswith(server.url) for each in proxy.requests)
    assert all(each.header("via") for each in server.requests)


async def text_of(stream: Any) -> str:
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


def test_tasks(server: ChatServer) -> None:
    """`asyncio` makes tasks of coroutines only, and programs give it calls."""

    async def main() -> None:
        async with AsyncClient(base_url=server.url) as client:
            create = client.chat.completions.create
            call = create(HI, MODEL)
            task = asyncio.create_task(call)
            assert (await task).choices[0].message.content == "Hello"
            assert await asyncio.create_task(call) is task.result()
            assert await text_of(await asyncio.create_task(create(HI, MODEL, stream=True))) == "Hello"
            several = await asyncio.gather(*[create(HI, MODEL) for _ in range(3)])
            assert [each.choices[0].message.content for each in several] == ["Hello"] * 3
            assert (await asyncio.wait_for(create(HI, MODEL), 5)).choices
            server.plan(Answer(status=401))
            failing = create(HI, MODEL)
            with pytest.raises(AuthenticationError):
                await asyncio.create_task(failing)
            assert (await asyncio.create_task(failing)).choices, "asked again"
            assert asyncio.iscoroutine(failing)

    asyncio.run(main())
    client = AsyncClient(base_url=server.url)
    assert asyncio.run(client.chat.completions.create(HI, MODEL)).choices
    assert len(server.requests) == 9


def test_a_task_that_is_cancelled(server: ChatServer) -> None:
    async def main() -> None:
        async with AsyncClient(base_url=server.url) as client:
            server.plan(Answer(cut_after=0, ending="stall"))
            task = asyncio.create_task(client.chat.completions.create(HI, MODEL))
            await blocking(server.wait_requests, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await blocking(server.wait_outcome, 0, 5) == "client-closed"

    asyncio.run(main())


def test_closing_a_call(run: Run, server: ChatServer) -> None:
    async def main() -> None:
        async with AsyncClient(base_url=server.url) as client:
            call = client.chat.completions.create(HI, MODEL)
            call.close()
            assert (await call).choices, "it was not begun"
            stream = client.chat.completions.create(HI, MODEL, stream=True)
            await stream.close()
            stream.close()
            await stream.__anext__()
            await stream.close()
            with pytest.raises(StopAsyncIteration):
                await stream.__anext__()

    run(main)


def test_the_forms_of_a_streaming_call(run: Run, server: ChatServer) -> None:
    async def main() -> None:
        async with AsyncClient(base_url=server.url) as client:
            create = client.chat.completions.create
            assert await text_of(create(HI, MODEL, stream=True)) == "Hello"
            assert await text_of(await create(HI, MODEL, stream=True)) == "Hello"
            async with create(HI, MODEL, stream=True) as stream:
                assert await text_of(stream) == "Hello"
            async with await create(HI, MODEL, stream=True) as stream:
                assert await text_of(stream) == "Hello"
            call = create(HI, MODEL, stream=True)
            async with call as stream:
                assert await text_of(call) == "Hello"
                assert await text_of(stream) == ""

    run(main)
    assert len(server.requests) == 5
    assert server.connections == 1


def test_a_stream(run: Run, server: ChatServer) -> None:
    async def main() -> None:
        async with AsyncClient(base_url=server.url) as client:
            stream = await client.chat.completions.create(HI, MODEL, stream=True)
            assert isinstance(stream, AsyncStream)
            assert stream.request_id == "req_1"
            assert stream.retries_taken == 0
            assert dict(stream.headers)[b"x-request-id"] == b"req_1"
            chunks = [chunk async for chunk in stream]
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello"
            assert chunks[-1].choices[0].finish_reason == "stop"
            partial = stream.partial()
            assert partial is not None
            assert partial.choices[0].message.content == "Hello"

    run(main)


def test_a_completion_and_the_models(run: Run, server: ChatServer) -> None:
    async def main() -> None:
        async with AsyncClient(base_url=server.url, api_key="sk-1") as client:
            completion = await client.chat.completions.create("Hi", MODEL)
            assert completion.choices[0].message.content == "Hello"
            models = await client.models.list()
            assert [model.id for model in models.data] == [MODEL]

    run(main)
    first, second = server.requests
    assert first.json() == {"messages": HI, "model": MODEL}
    assert (second.method, second.target) == ("GET", "/v1/models")
    assert second.header("authorization") == "Bearer sk-1"


def test_awaited_twice(run: Run, server: ChatServer) -> None:
    async def main() -> None:
        async with AsyncClient(base_url=server.url) as client:
            call = client.chat.completions.create(HI, MODEL, stream=True)
            assert await call is await call
            whole = client.chat.completions.create(HI, MODEL)
            assert await whole is await whole

    run(main)
    assert len(server.requests) == 2


def test_never_awaited(run: Run, server: ChatServer) -> None:
    async def main() -> None:
        async with AsyncClient(base_url=server.url) as client:
            call = client.chat.completions.create(HI, MODEL, stream=True)
            await call.aclose()
            del call
            client.chat.completions.create(HI, MODEL, stream=True)
            client.chat.completions.create(HI, MODEL)  # type: ignore[unused-awaitable, unused-ignore]
            client.models.list()  # type: ignore[unused-awaitable, unused-ignore]
            gc.collect()

    run(main)
    assert server.connections == 0


def test_outside_any_loop(server: ChatServer, run: Run) -> None:
    """Client and call may be made anywhere."""
    client = AsyncClient(base_url=server.url)
    call = client.chat.completions.create(HI, MODEL, stream=True)
    assert run(text_of, call) == "Hello"


def test_two_tasks_await_one_call(run: Run, server: ChatServer) -> None:
    async def main() -> None:
        streams: list[Any] = []

        async def work(call: Any) -> None:
            streams.append(await call)

        async with AsyncClient(base_url=server.url) as client:
            call = client.chat.completions.create(HI, MODEL, stream=True)
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(work, call)
            assert len({id(stream) for stream in streams}) == 1
            assert await text_of(call) == "Hello"

    run(main)
    assert len(server.requests) == 1


def test_a_call_that_failed_may_be_awaited_again(run: Run, server: ChatServer) -> None:
    async def main() -> None:
        async with AsyncClient(base_url=server.url) as client:
            server.plan(Answer.error(401))
            call = client.chat.completions.create(HI, MODEL, stream=True)
            with pytest.raises(MissingAuthError):
                await call
            assert await text_of(call) == "Hello"

    run(main)


def test_going_on_after_a_break(run: Run, server: ChatServer) -> None:
    async def main() -> None:
        async with AsyncClient(base_url=server.url) as client:
            call = client.chat.completions.create(HI, MODEL, stream=True)
            text = ""
            async for chunk in call:
                text += chunk.choices[0].delta.content or ""
                if text:
                    break
            assert text + await text_of(call) == "Hello"

    run(main)


def test_closed_is_closed(run: Run, server: ChatServer) -> None:
    async def main() -> None:
        client = AsyncClient(base_url=server.url)
        async with client:
            await client.models.list()
        await client.aclose()
        await client.close()
        call = client.chat.completions.create(HI, MODEL, stream=True)
        with pytest.raises(UsageError, match="closed"):
            await call
        with pytest.raises(UsageError, match="closed"):
            await client.models.list()

    run(main)


def test_a_client_that_nobody_holds(run: Run, server: ChatServer) -> None:
    async def main() -> None:
        text = ""
        async for chunk in AsyncClient(base_url=server.url).chat.completions.create(HI, MODEL, stream=True):
            gc.collect()
            text += chunk.choices[0].delta.content or ""
        assert text == "Hello"
        client = AsyncClient(base_url="http://127.0.0.1:9/v1").with_options(base_url=server.url)
        gc.collect()
        assert (await client.chat.completions.create(HI, MODEL)).choices[0].message.content == "Hello"
        assert (await AsyncClient(base_url=server.url).models.list()).data
        del client
        gc.collect()
        await blocking(server.wait_closed, 1)

    run(main)


def test_with_options_shares_connections(run: Run, server: ChatServer) -> None:
    async def main() -> None:
        async with AsyncClient(base_url=server.url) as client:
            await client.models.list()
            await client.with_options(api_key="sk-2").models.list()

    run(main)
    assert server.connections == 1
    assert [each.header("authorization") for each in server.requests] == [None, "Bearer sk-2"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_key_is_asked_for_anew(run: Run, server: ChatServer, kind: str) -> None:
    keys = iter(["sk-1", "sk-2", "sk-3"])

    async def awaited() -> str:
        await anyio.lowlevel.checkpoint()
        return next(keys)

    async def main() -> None:
        key: Any = awaited if kind == "async" else lambda: next(keys)
        async with AsyncClient(base_url=server.url, api_key=key) as client:
            assert await text_of(client.chat.completions.create(HI, MODEL, stream=True)) == "Hello"
            await client.models.list()

    server.plan(Answer.error(503, retry_after=0.01))
    run(main)
    assert [each.header("authorization") for each in server.requests] == [f"Bearer sk-{n}" for n in (1, 2, 3)]


def test_many_streams_at_once(run: Run, server: ChatServer) -> None:
    tokens = [f" {number}" for number in range(50)]
    server.plan(*[Answer(tokens=tokens, pace=0.002)] * 40)
    texts: list[str] = []

    async def main() -> None:
        async def work(client: AsyncClient) -> None:
            first = await text_of(client.chat.completions.create(HI, MODEL, stream=True))
            texts.extend([first, await text_of(client.chat.completions.create(HI, MODEL, stream=True))])

        async with AsyncClient(base_url=server.url, max_retries=0) as client:
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(work, client)
            assert client.transport.connections() == (0, 20)  # type: ignore[attr-defined]

    run(main)
    assert texts == ["".join(tokens)] * 40
    assert server.connections == 20


def test_a_connection_that_breaks_while_the_request_is_written(run: Run) -> None:
    # Nothing of the request is left open, of which trio would warn.
    async def main() -> None:
        with Peer(close=True) as peer:
            client = AsyncClient(base_url=f"http://127.0.0.1:{peer.port}/v1", max_retries=0)
            with pytest.raises(ReadError):
                await client.chat.completions.create([{"role": "user", "content": "x" * 30_000_000}], "m")
            gc.collect()
            await client.aclose()

    run(main)
