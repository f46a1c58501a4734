"""racing.py: several addresses at once, on asyncio and on trio; whoever is late is closed."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from driving import Run
from streaming import turns

from deltawire.transports.streams import racing
from deltawire.transports.streams.racing import addresses, first_of


class Stream:
    """All that the race knows of one."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


class Course:
    """Addresses that answer as they are told: when (None: never), and whether well."""

    def __init__(self, *times: float | None, failing: tuple[int, ...] = ()) -> None:
        self.addresses: list[Any] = [(socket.AF_INET, 1, 6, "", (number, 80)) for number in range(len(times))]
        self.begun: list[tuple[int, float]] = []
        self.cancelled: list[int] = []
        self.streams: dict[int, Stream] = {}
        self.begin = time.monotonic()
        self._times = times
        self._failing = failing

    async def connect(self, address: Any) -> Any:
        number = address[4][0]
        self.begun.append((number, time.monotonic() - self.begin))
        try:
            wait = self._times[number]
            # As many turns of the loop, if it is a whole number.
            await (
                turns(wait) if isinstance(wait, int) else anyio.sleep_forever() if wait is None else anyio.sleep(wait)
            )
        except BaseException:
            self.cancelled.append(number)
            raise
        if number in self._failing:
            raise ConnectionRefusedError(str(number))
        self.streams[number] = Stream()
        return self.streams[number]

    async def run(self) -> Any:
        return await first_of(self.addresses, self.connect)

    def check(self, winner: Any) -> None:
        assert [number for number, stream in self.streams.items() if not stream.aborted] == [
            number for number, stream in self.streams.items() if stream is winner
        ]


def test_the_first_one(run: Run) -> None:
    async def main() -> None:
        course = Course(0, 0, 0)
        winner = await course.run()
        assert winner is course.streams[0]
        assert len(course.begun) == 1
        course.check(winner)

    run(main)


def test_who_refuses_makes_way_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(racing, "_ATTEMPT_DELAY", 30)

    async def main() -> None:
        course = Course(0, 0, 0, failing=(0, 1))
        winner = await course.run()
        assert winner is course.streams[2]
        assert course.begun[2][1] < 10
        with pytest.raises(ConnectionRefusedError, match="0"):
            await Course(0, 0, failing=(0, 1)).run()
        with pytest.raises(OSError, match="no address"):
            await Course().run()

    run(main)


def test_who_is_silent_does_not_hold_up_the_next(run: Run) -> None:
    async def main() -> None:
        course = Course(None, None, 0)
        winner = await course.run()
        assert winner is course.streams[2]
        assert [number for number, _ in course.begun] == [0, 1, 2]
        first, second, third = (at for _, at in course.begun)
        assert min(second - first, third - second) > 0.2
        assert sorted(course.cancelled) == [0, 1]
        course.check(winner)

    run(main)


def test_a_late_winner(run: Run) -> None:
    """The first one answers after all, while the second is silent."""

    async def main() -> None:
        course = Course(0.3, None)
        assert await course.run() is course.streams[0]
        assert course.cancelled == [1]

    run(main)


def test_a_tie(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(racing, "_ATTEMPT_DELAY", 0.0)

    async def main() -> None:
        for others in range(12):
            course = Course(10, others, 5, 10)
            course.check(await course.run())

    run(main)


def test_cancelled_at_every_turn(run: Run) -> None:
    async def main() -> None:
        over = False
        for turn in range(100):
            course = Course(5)
            winners: list[Any] = []

            async def work(course: Course = course, winners: list[Any] = winners) -> None:
                winners.append(await course.run())

            async with anyio.create_task_group() as group:
                group.start_soon(work)
                await turns(turn)
                group.cancel_scope.cancel()
            course.check(winners[0] if winners else None)
            over = over or bool(winners)
        assert over

    run(main)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_an_asyncio_task_cancelled_at_every_turn(times: int) -> None:
    async def main() -> None:
        over = False
        for turn in range(100):
            course = Course(5)
            task = asyncio.ensure_future(course.run())
            for _ in range(turn):
                await asyncio.sleep(0)
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(0)
            winner = None
            try:
                winner = await task
                over = True
            except asyncio.CancelledError:
                pass
            course.check(winner)
        assert over

    asyncio.run(main())


def test_addresses(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(host: Any, port: Any, *more: Any, **named: Any) -> list[Any]:
        looked_up.append(host)
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::2", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]

    looked_up: list[Any] = []

    async def main() -> None:
        assert [each[4][0] for each in await addresses("127.0.0.1", 80)] == ["127.0.0.1"]
        assert [(each[0], each[4][:2]) for each in await addresses("::1", 80)] == [(socket.AF_INET6, ("::1", 80))]
        assert looked_up == [], "there is nothing to look up"
        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", found)
            assert [each[4][0] for each in await addresses("name", 80)] == ["::1", "127.0.0.1", "::2"]

    run(main)
