"""streams/waiting.py: waits with few timers, and those whose end is the waiter's turn at once."""

from __future__ import annotations

import asyncio
import asyncio.tasks
import contextvars
import math
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import anyio
import pytest
import uvloop

from deltawire.transports.streams.waiting import Turn, Wait

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="")

# asyncio has its tasks twice; so do others who write loops.
PythonTask: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]


def _python_tasks(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
    return PythonTask(coroutine, loop=loop, **options)


@pytest.fixture(params=["asyncio", "python tasks", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]:
    """Runs a main on each kind of loop and task."""

    def by(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        loop = uvloop.new_event_loop() if request.param == "uvloop" else asyncio.new_event_loop()
        if request.param == "python tasks":
            loop.set_task_factory(_python_tasks)
        try:
            # (A task inside, as the outermost may have been made otherwise.)
            return loop.run_until_complete(main())
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    return by


Main = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


async def _rounds(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Waiter:
    """A task that waits, again and again, and says what happened."""

    def __init__(self) -> None:
        self.turn = Turn(asyncio.get_running_loop())
        self.heard: list[str] = []
        self.task = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        VARIABLE.set("the waiter's")
        try:
            while True:
                await self.turn
                assert VARIABLE.get() == "the waiter's"
                assert asyncio.current_task() is self.task
                self.heard.append("turn")
        except asyncio.CancelledError as error:
            self.heard.append(f"cancelled {error}".strip())
            raise

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def test_his_turn_comes_at_once(run: Main) -> None:
    async def main() -> None:
        waiter = Waiter()
        await _rounds()
        seen: list[int] = []

        def callback() -> None:
            for _ in range(3):
                waiter.turn.resume()
                seen.append(len(waiter.heard))

        asyncio.get_running_loop().call_soon(callback)
        await _rounds()
        assert seen == [1, 2, 3]
        assert VARIABLE.get() == ""
        await waiter.end()

    run(main)


def test_not_in_the_midst_of_another_task(run: Main) -> None:
    async def main() -> None:
        waiter = Waiter()
        await _rounds()
        waiter.turn.resume()
        assert waiter.heard == []
        # Once, however often it is said.
        waiter.turn.resume()
        waiter.turn.wake()
        await _rounds()
        assert waiter.heard == ["turn"]
        await waiter.end()

    run(main)


def test_a_callback_without_a_context() -> None:
    async def main() -> None:
        turn = Turn(asyncio.get_running_loop())
        heard: list[Any] = []
        for go_on in (turn.resume, turn.wake):
            turn.add_done_callback(heard.append)
            asyncio.get_running_loop().call_soon(go_on)
            await _rounds()
        assert heard == [turn, turn]

    asyncio.run(main())


def test_nobody_waits(run: Main) -> None:
    async def main() -> None:
        turn = Turn(asyncio.get_running_loop())
        turn.resume()
        turn.wake()
        assert not turn.cancel()
        await _rounds()

    run(main)


def test_cancelled(run: Main) -> None:
    async def main() -> None:
        waiter = Waiter()
        await _rounds()
        assert waiter.task.cancel("enough")
        # What comes now comes too late.
        asyncio.get_running_loop().call_soon(waiter.turn.resume)
        with pytest.raises(asyncio.CancelledError):
            await waiter.task
        assert waiter.heard == ["cancelled enough"]
        # The next one does not hear of it.
        again = asyncio.ensure_future(_await(waiter.turn))
        await _rounds()
        waiter.turn.wake()
        await again

    run(main)


async def _await(turn: Turn) -> None:
    await turn


def test_it_says_whether_anybody_waits(run: Main) -> None:
    """For those who look at what tasks wait for."""

    async def main() -> None:
        turn = Turn(asyncio.get_running_loop())
        assert turn.done()
        task = asyncio.create_task(_await(turn))
        await anyio.wait_all_tasks_blocked()
        assert not turn.done()
        turn.wake()
        assert turn.done()
        await task

    run(main)


def test_cancelled_when_his_turn_has_come(run: Main) -> None:
    async def main() -> None:
        waiter = Waiter()
        await _rounds()
        waiter.turn.wake()
        waiter.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter.task
        assert waiter.heard == ["cancelled"]

    run(main)


def test_within_scopes_and_time_outs(run: Main) -> None:
    async def main() -> None:
        turn = Turn(asyncio.get_running_loop())
        with anyio.move_on_after(0.01) as scope:
            await turn
        assert scope.cancelled_caught
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_await(turn), 0.01)

    run(main)


def test_what_the_waiter_raises_is_his_tasks(run: Main) -> None:
    async def fails(turn: Turn) -> None:
        await turn
        raise ValueError("mine")

    async def main() -> None:
        turn = Turn(asyncio.get_running_loop())
        task = asyncio.ensure_future(fails(turn))
        await _rounds()
        asyncio.get_running_loop().call_soon(turn.resume)
        with pytest.raises(ValueError, match="mine"):
            await task

    run(main)


def test_an_interrupt_is_the_loops() -> None:
    async def interrupted(turn: Turn) -> None:
        await turn
        raise KeyboardInterrupt

    async def main() -> None:
        turn = Turn(asyncio.get_running_loop())
        asyncio.get_running_loop().call_later(0, lambda: asyncio.get_running_loop().call_soon(turn.resume))
        await interrupted(turn)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())


def test_of_another_loop() -> None:
    other = asyncio.new_event_loop()
    turn = Turn(other)
    assert turn.get_loop() is other
    other.close()
    with pytest.raises(RuntimeError, match="loop"):
        asyncio.run(_await(turn))


# --- Timers ---------------------------------------------------------------------------------------------------


class Clock:
    """A loop, as far as timers go."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.cancelled = 0

    def call_later(self, delay: float, callback: Callable[[], None]) -> Clock:
        self.timers.append((delay, callback))
        return self

    def cancel(self) -> None:
        self.cancelled += 1


def test_one_timer_for_many_waits() -> None:
    async def main() -> None:
        clock: Any = Clock()
        loop = asyncio.get_running_loop()
        clock.create_future = loop.create_future
        wait = Wait(clock)
        now = time.monotonic()
        for later in range(100):
            future = wait.begin(now + 60 + later)
            wait.wake()
            assert future.done()
        assert len(clock.timers) == 1
        # It looks at the wait that is on, and goes on to its end.
        future = wait.begin(now + 1000)
        clock.timers[0][1]()
        assert not future.done()
        assert len(clock.timers) == 2
        assert 900 < clock.timers[1][0] <= 1000
        # An earlier deadline needs another one.
        future = wait.begin(now - 1)
        assert clock.cancelled == 1
        clock.timers[2][1]()
        assert future.done()
        # For ever, there is none.
        wait.begin(math.inf)
        assert len(clock.timers) == 3
        wait.stop()

    asyncio.run(main())


def test_the_time_of_a_turn() -> None:
    async def main() -> Generator[Any, None, None] | None:
        turn = Turn(asyncio.get_running_loop())
        begun = time.monotonic()
        turn._until = begun + 0.02
        turn._set_timer(turn._until)
        await turn
        assert time.monotonic() >= begun + 0.02
        # Nobody waits when it goes off: nothing happens.
        turn._look()
        return None

    asyncio.run(main())
