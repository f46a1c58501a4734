"""The soak of `AsyncClient`: tasks of asyncio or trio, which share clients; a new event loop each round."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import random
import sys
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel
import trio
from acts import HEADER, Act, acts, judge, judge_failure
from soaking import ROUTE_OPTIONS, Soak, delta

from deltawire import AsyncClient, OpenaiTemplate, RetryProvider
from deltawire.transports import AsyncHTTPCoreTransport, AsyncWireTransport

HI = "Hi"

MANNERS = {
    "read": 6, "ask": 3, "models": 2, "close": 2, "drop": 2, "cycle": 1, "with": 1, "raise": 1, "generator": 1,
    "cancel": 4, "move on": 2, "task cancel": 3, "time out": 2, "closed elsewhere": 1, "client closed": 1,
    "client dropped": 1, "fail over": 1, "left to the loop": 1,
}  # fmt: skip
WORKERS = 16


class Tasks:
    """Clients, and workers that share them."""

    def __init__(self, soak: Soak) -> None:
        self._soak = soak
        kind = {"httpcore": AsyncHTTPCoreTransport, "wire": AsyncWireTransport}[soak.transport]
        self._few = kind(verify=soak.peers.authority, max_connections=WORKERS // 2)
        self.clients = {route: self._client(route) for route in soak.peers.routes}
        bases = [soak.peers.routes[name][0] for name in ("direct", "tls")]
        self._both = RetryProvider([OpenaiTemplate(api_base=base) for base in bases], shuffle=False)
        self._workers = [(random.Random(f"{soak.seed} {each}"), itertools.count()) for each in range(WORKERS)]
        self._on_trio = soak.flavour == "trio"
        # Streams that are under way when their loop ends.
        self._left: list[Any] = []

    def _client(self, route: str) -> AsyncClient:
        options: dict[str, Any] = {"transport": self._few} if route == "few" else self._soak.connection_options()
        base, proxy = self._soak.peers.routes[route]
        return AsyncClient(base_url=base, proxies=proxy, **ROUTE_OPTIONS, **options)

    def round(self, until: float) -> None:
        """An event loop, in which all workers work and come to rest, and which then ends; what it had is gone."""
        loop = trio.run(self._round, until) if self._on_trio else asyncio.run(self._round(until))
        self._left.clear()
        gc.collect()
        self._soak.check(loop() is None, f"the loop of a round that is over is kept: {loop()}")

    async def _round(self, until: float) -> weakref.ref[Any]:
        tasks = self._tasks()
        async with anyio.create_task_group() as group:
            for worker in range(WORKERS):
                group.start_soon(self._work, worker, until)
        gc.collect()
        # Streams that were dropped are closed on the loop's own time, of which nobody hears.
        deadline = time.monotonic() + 5
        while (self._busy() or self._tasks() != tasks) and time.monotonic() < deadline:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        self._soak.check(not self._busy(), f"busy, and nobody is: {self._busy()}")
        self._soak.check(self._tasks() == tasks, f"tasks {self._tasks()}, before {tasks}")
        if self._on_trio:
            return weakref.ref(trio.lowlevel.current_trio_token())
        return weakref.ref(asyncio.get_running_loop())

    def _busy(self) -> dict[str, int]:
        busy = {route: client.transport.connections()[0] for route, client in self.clients.items()}  # type: ignore[attr-defined]
        return {route: count for route, count in busy.items() if count}

    def _tasks(self) -> list[str]:
        """Those that are not over, by their names."""
        if not self._on_trio:
            return sorted(each.get_coro().__qualname__ for each in asyncio.all_tasks())  # type: ignore[union-attr]
        left: list[Any] = [trio.lowlevel.current_root_task()]
        found = []
        while left:
            task = left.pop()
            found.append(task.name)
            left += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        # That is one for all streams of a run, and lasts as long as the run.
        with contextlib.suppress(ValueError):
            found.remove("deltawire deadlines")
        return sorted(found)

    def close(self) -> None:
        """The end of it all."""

        async def main() -> None:
            for client in self.clients.values():
                await client.aclose()
            await self._few.aclose()

        if self._on_trio:
            trio.run(main)
        else:
            asyncio.run(main())

    async def _work(self, worker: int, until: float) -> None:
        dice, numbers = self._workers[worker]
        while time.monotonic() < until and not self._soak.failed:
            with self._soak.noting():
                act = acts(f"{self._soak.seed}.{worker}", dice, MANNERS, next(numbers))
                self._soak.done(await self._do(act))
            # Others have to have their turn, too, where nothing waits.
            await anyio.lowlevel.checkpoint()

    async def _do(self, act: Act) -> str:
        """Do it; gives its outcome."""
        call: Callable[[Act, list[str]], Awaitable[bool | None]] = getattr(self, "_" + act.manner.replace(" ", "_"))
        heard: list[str] = []
        error: Exception | None = None
        ended: bool | None = False
        try:
            ended = await call(act, heard)
        except Exception as raised:
            error = raised
        text = "".join(heard)
        outcome = judge(act, text, error, ended=bool(ended))
        if act.manner in ("read", "ask", "models", "fail over", "client dropped"):
            judge_failure(act, text, error)
        return "cancelled" if ended is None and error is None else outcome

    def _start(self, act: Act, client: AsyncClient | None = None) -> Any:
        return (client or self.clients[act.route]).chat.completions.create(HI, stream=True, **act.options())

    async def _read(self, act: Act, heard: list[str]) -> bool:
        await _hear(self._start(act), heard)
        return True

    async def _ask(self, act: Act, heard: list[str]) -> bool:
        found = await self.clients[act.route].chat.completions.create(HI, **act.options())
        heard.append(found.choices[0].message.content)
        return True

    async def _models(self, act: Act, heard: list[str]) -> bool:
        options = act.options()
        del options["model"]
        heard.extend(each.id for each in (await self.clients[act.route].models.list(**options)).data)
        return True

    async def _fail_over(self, act: Act, heard: list[str]) -> bool:
        options = {**act.options(), "provider": self._both, "extra_headers": {HEADER: act.script.header()}}
        del options["max_retries"]
        await _hear(self.clients["tls"].chat.completions.create(HI, stream=True, **options), heard)
        return True

    # Left early

    async def _some(self, act: Act, stream: Any, heard: list[str]) -> None:
        while len(heard) < act.after:
            try:
                heard.append(delta(await stream.__anext__()))
            except StopAsyncIteration:
                return

    async def _close(self, act: Act, heard: list[str]) -> bool:
        stream = await self._start(act)
        await self._some(act, stream, heard)
        await stream.close()
        assert [each async for each in stream] == []
        return False

    async def _drop(self, act: Act, heard: list[str]) -> bool:
        await self._some(act, self._start(act), heard)
        return False

    async def _cycle(self, act: Act, heard: list[str]) -> bool:
        stream = await self._start(act)
        stream.itself = stream
        await self._some(act, stream, heard)
        return False

    async def _with(self, act: Act, heard: list[str]) -> bool:
        async with self._start(act) as stream:
            await self._some(act, stream, heard)
        return False

    async def _raise(self, act: Act, heard: list[str]) -> bool:
        with contextlib.suppress(ZeroDivisionError):
            async for chunk in self._start(act):
                heard.append(delta(chunk))
                if len(heard) > act.after:
                    raise ZeroDivisionError
        return False

    async def _generator(self, act: Act, heard: list[str]) -> bool:
        async def words() -> Any:
            async for chunk in self._start(act):
                yield chunk

        async with contextlib.aclosing(words()) as generator:
            await self._some(act, generator, heard)
        return False

    async def _left_to_the_loop(self, act: Act, heard: list[str]) -> bool:
        """Neither closed nor dropped: the loop ends under it, and under its client. (A few a round.)"""
        if len(self._left) > 3:
            return await self._drop(act, heard)
        client = self._client("direct" if act.route == "few" else act.route)
        stream = await self._start(act, client)
        await self._some(act, stream, heard)
        self._left.append((client, stream))
        return False

    # Cancelled

    async def _cancel(self, act: Act, heard: list[str]) -> bool | None:
        """By a scope that somebody else cancels."""
        scope = anyio.CancelScope()

        async def cancel() -> None:
            await anyio.sleep(act.seconds)
            scope.cancel()

        async def read() -> bool | None:
            with scope:
                return await self._read(act, heard)
            return None

        return await _beside(cancel, read)

    async def _move_on(self, act: Act, heard: list[str]) -> bool | None:
        with trio.move_on_after(act.seconds) if self._on_trio else anyio.move_on_after(act.seconds):
            return await self._read(act, heard)
        return None

    async def _task_cancel(self, act: Act, heard: list[str]) -> bool | None:
        """By asyncio's own means, and more than once."""
        if self._on_trio:
            return await self._move_on(act, heard)
        task = asyncio.create_task(self._read(act, heard))
        await asyncio.sleep(act.seconds)
        for _ in range(1 + act.after % 3):
            task.cancel()
            await asyncio.sleep(0)
        try:
            return await task
        except asyncio.CancelledError:
            return None

    async def _time_out(self, act: Act, heard: list[str]) -> bool | None:
        if self._on_trio:
            return await self._move_on(act, heard)
        timed_out = asyncio.TimeoutError
        try:
            if sys.version_info >= (3, 11) and act.after % 2:
                async with asyncio.timeout(act.seconds):
                    return await self._read(act, heard)
            return await asyncio.wait_for(self._read(act, heard), act.seconds)
        except timed_out as error:
            if type(error) is not timed_out:
                raise
            return None

    # Closed

    async def _closed_elsewhere(self, act: Act, heard: list[str]) -> bool:
        """Another task closes the stream while this one reads."""
        stream = await self._start(act)
        return await self._until_closed(act, stream, stream.aclose, heard)

    async def _client_closed(self, act: Act, heard: list[str]) -> bool:
        """Another task closes the client, which is this one's alone."""
        client = self._client("direct" if act.route == "few" else act.route)
        try:
            return await self._until_closed(act, await self._start(act, client), client.aclose, heard)
        finally:
            await client.aclose()

    async def _until_closed(self, act: Act, stream: Any, close: Any, heard: list[str]) -> bool:
        async def later() -> None:
            await anyio.sleep(act.seconds)
            await close()

        async def read() -> bool:
            await _hear(stream, heard)
            return "".join(heard) == act.script.text and not act.cannot_be_whole

        return bool(await _beside(later, read))

    async def _client_dropped(self, act: Act, heard: list[str]) -> bool:
        """A client of its own, of which nothing is kept but the call."""
        await _hear(self._start(act, self._client("direct" if act.route == "few" else act.route)), heard)
        return True


async def _hear(stream: Any, heard: list[str]) -> None:
    async for chunk in stream:
        heard.append(delta(chunk))  # noqa: PERF401 - what came before an error counts


async def _beside(
    other: Callable[[], Coroutine[Any, Any, None]], work: Callable[[], Awaitable[bool | None]]
) -> bool | None:
    """What the work gives, or raises (by itself, and not in a group), while another task does something else."""
    error: Exception | None = None
    result: bool | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(other)
        try:
            result = await work()
        except Exception as raised:
            error = raised
    if error is not None:
        raise error
    return result
