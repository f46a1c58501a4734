"""`Blocking`: an async iterator in a thread of its own, step by step, and all ways in which it may end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest
from programs import run_program

from deltawire import ConfigurationError
from deltawire.blocking import Blocking

NAME = "deltawire generator"


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def gone(threads: list[threading.Thread]) -> bool:
    for thread in threads:
        thread.join(5)
    return not any(thread.is_alive() for thread in threads)


@pytest.fixture(autouse=True)
def _no_worker_left() -> Iterator[None]:
    yield
    gc.collect()
    assert gone(workers()), "a generator's thread is left behind"


class Log:
    """What a generator lives through."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.waits = threading.Event()
        self.ended = threading.Event()

    async def count(self, until: int = 3) -> AsyncIterator[str]:
        """The numbers from 0, and how it ends."""
        try:
            for number in range(until):
                self.said.append(f"make {number}")
                yield str(number)
        except GeneratorExit:
            self.said.append("closed")
            raise
        finally:
            await asyncio.sleep(0)
            self.said.append("cleaned")
            self.ended.set()

    async def hang(self, after: int = 0) -> AsyncIterator[str]:
        """Some numbers, and then nothing for ever."""
        try:
            for number in range(after):
                yield str(number)
            self.waits.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.said.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0)
            self.said.append("cleaned")
            self.ended.set()


@pytest.fixture
def log() -> Log:
    return Log()


# --- Steps ---------------------------------------------------------------------------------------------


def test_to_the_end(log: Log) -> None:
    pieces = Blocking(log.count())
    assert list(pieces) == ["0", "1", "2"]
    assert log.said[-1] == "cleaned"
    assert workers() == []
    assert list(pieces) == []
    pieces.close()


def test_nothing_runs_ahead(log: Log) -> None:
    pieces = Blocking(log.count(1000))
    assert log.said == [], "it begins with the first step"
    for number in range(3):
        assert next(pieces) == str(number)
        assert log.said == [f"make {each}" for each in range(number + 1)]
    pieces.close()


def test_many_pieces(log: Log) -> None:
    assert len(list(Blocking(log.count(2000)))) == 2000


async def _made(log: Log) -> AsyncIterator[str]:
    await asyncio.sleep(0)
    return log.count()


class Countdown:
    """An async iterator that is no generator, and can't be closed."""

    def __init__(self) -> None:
        self.left = 3

    def __aiter__(self) -> Countdown:
        return self

    async def __anext__(self) -> str:
        self.left -= 1
        if self.left < 0:
            raise StopAsyncIteration
        return str(2 - self.left)


@pytest.mark.parametrize("result", [lambda log: _made(log), lambda log: Countdown()])
def test_what_gives_an_iterator(log: Log, result: Callable[[Log], Any]) -> None:
    assert list(Blocking(result(log))) == ["0", "1", "2"]


@pytest.mark.parametrize("result", [None, "text", ["a", "b"], iter("ab"), 3])
def test_what_gives_none(result: object) -> None:
    with pytest.raises(ConfigurationError, match=f"no async iterator but {type(result).__name__}"):
        next(Blocking(result))


def test_in_one_task() -> None:
    """What is entered before a piece is left after it, in the same task; else anyio would complain."""

    async def nested() -> AsyncIterator[str]:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                yield "a"
                group.start_soon(anyio.sleep, 0)
                yield "b"

    assert list(Blocking(nested())) == ["a", "b"]


def test_its_own_tasks_go_on() -> None:
    """Between two pieces the loop is not held up."""
    ticked = threading.Event()

    async def tick() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        ticked.set()

    async def busy() -> AsyncIterator[str]:
        task = asyncio.ensure_future(tick())
        yield "a"
        await task
        yield "b"

    pieces = Blocking(busy())
    assert next(pieces) == "a"
    assert ticked.wait(5), "the task goes on while nobody asks for a piece"
    assert list(pieces) == ["b"]


def test_in_a_running_loop(log: Log) -> None:
    """As in a notebook, whose cells run inside a loop."""

    async def cell() -> list[str]:
        return list(Blocking(log.count()))

    assert asyncio.run(cell()) == ["0", "1", "2"]


def test_context_variables() -> None:
    variable = contextvars.ContextVar("variable", default="default")

    async def tell() -> AsyncIterator[str]:
        yield variable.get()
        variable.set("the generator's")
        yield variable.get()

    variable.set("the program's")
    assert list(Blocking(tell())) == ["the program's", "the generator's"]
    assert variable.get() == "the program's"


# --- Errors ----------------------------------------------------------------------------------------------


class OwnError(Exception):
    pass


async def failing(error: BaseException, after: int) -> AsyncIterator[str]:
    for number in range(after):
        yield str(number)
    raise error


@pytest.mark.parametrize("after", [0, 1, 5])
@pytest.mark.parametrize("error", [OwnError("mine"), KeyboardInterrupt(), SystemExit(3)])
def test_errors_are_raised_as_they_are(error: BaseException, after: int) -> None:
    pieces = Blocking(failing(error, after))
    for number in range(after):
        assert next(pieces) == str(number)
    with pytest.raises(type(error)) as caught:
        next(pieces)
    assert caught.value is error
    assert list(pieces) == [], "it is over"
    pieces.close()


def test_a_coroutine_that_fails() -> None:
    async def fail() -> AsyncIterator[str]:
        raise OwnError

    with pytest.raises(OwnError):
        next(Blocking(fail()))


# --- Ends ------------------------------------------------------------------------------------------------


def test_closed_between_two_pieces(log: Log) -> None:
    """The generator is closed where it stands, at a yield, and may await as it cleans up."""
    pieces = Blocking(log.count())
    next(pieces)
    pieces.close()
    assert log.said == ["make 0", "closed", "cleaned"]
    assert workers() == []
    assert list(pieces) == []
    pieces.close()


async def _never(log: Log) -> AsyncIterator[str]:
    raise AssertionError("it was never asked")


@pytest.mark.parametrize("result", [Log.count, Log.hang, _never])
@pytest.mark.parametrize("way", ["close", "abandon", "drop"])
def test_closed_before_it_began(log: Log, result: Callable[[Log], Any], way: str) -> None:
    pieces: Blocking | None = Blocking(result(log))
    assert pieces is not None
    if way == "drop":
        pieces = None
        gc.collect()
    else:
        getattr(pieces, way)()
        assert list(pieces) == []
    assert log.said == []
    assert workers() == []


@pytest.mark.parametrize("way", ["abandon", "drop"])
@pytest.mark.parametrize("after", [1, 2])
def test_dropped(log: Log, way: str, after: int) -> None:
    pieces: Blocking | None = Blocking(log.count())
    assert pieces is not None
    for _ in range(after):
        next(pieces)
    if way == "abandon":
        pieces.abandon()
    pieces = None
    gc.collect()
    assert log.ended.wait(5)
    assert log.said[-2:] == ["closed", "cleaned"]


def test_closed_from_another_thread_while_it_hangs(log: Log) -> None:
    pieces = Blocking(log.hang(1))
    next(pieces)
    heard: list[str] = []
    reader = threading.Thread(target=lambda: heard.extend(pieces))
    reader.start()
    assert log.waits.wait(5)
    pieces.close()
    reader.join(5)
    assert not reader.is_alive()
    assert heard == []
    assert log.said == ["cancelled", "cleaned"]


@pytest.mark.parametrize("delay", [0.0, 0.0002, 0.002, 0.02])
def test_closed_while_it_begins(delay: float) -> None:
    """Whether or not its thread has a loop yet."""
    for _ in range(20):
        pieces = Blocking(Log().hang())
        reader = threading.Thread(target=lambda pieces=pieces: list(pieces))
        reader.start()
        time.sleep(delay)
        pieces.close()
        reader.join(5)
        assert not reader.is_alive()


def test_interrupted(log: Log) -> None:
    """Ctrl-C while it waits: the wait ends, and the generator."""

    def interrupt() -> None:
        log.waits.wait(5)
        # Again, should the first come in the moment before the wait begins.
        while not log.ended.wait(0.2):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    pieces = Blocking(log.hang(1))
    next(pieces)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        next(pieces)
    thread.join()
    assert log.said == ["cancelled", "cleaned"]
    assert list(pieces) == []


def test_a_failing_end_is_told() -> None:
    async def untidy() -> AsyncIterator[str]:
        try:
            yield "a"
        finally:
            raise OwnError("at the end")

    pieces = Blocking(untidy())
    next(pieces)
    with pytest.raises(OwnError, match="at the end"):
        pieces.close()
    pieces.close()


def test_who_goes_on_at_his_end_is_told_so() -> None:
    async def stubborn() -> AsyncIterator[str]:
        try:
            yield "a"
        finally:
            yield "b"

    pieces = Blocking(stubborn())
    next(pieces)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        pieces.close()


def test_cancelled_and_of_another_opinion(log: Log) -> None:
    """A generator that goes on after its cancellation is closed at its next piece."""

    async def deaf() -> AsyncIterator[str]:
        try:
            log.waits.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            yield "late"
            log.said.append("asked again")
        finally:
            log.said.append("cleaned")

    pieces = Blocking(deaf())
    heard: list[str] = []
    reader = threading.Thread(target=lambda: heard.extend(pieces))
    reader.start()
    assert log.waits.wait(5)
    pieces.close()
    reader.join(5)
    assert log.said == ["cleaned"]


@pytest.mark.parametrize("held", ["pieces = ", ""])
def test_a_program_that_ends_first(held: str) -> None:
    """It ends at once, and nothing complains."""
    printed = run_program(
        f"""
        import asyncio
        from deltawire.blocking import Blocking

        async def count():
            yield "a"
            await asyncio.sleep(0)
            yield "b"

        {held}Blocking(count())
        print(next(pieces if {bool(held)} else Blocking(count())))
        """
    )
    assert printed == "a\n"
