"""Deadlines: to connect, to the first content, between contents, in total; sync, on asyncio and on trio."""

from __future__ import annotations

import time

import anyio
import pytest
from driving import HI, MODEL, Driver, Peer, Run, dribbling, full_listener
from faults import HEAD, event

from deltawire import AsyncClient, Client, ConfigurationError, RetryPolicy, Timeout, TimeoutError
from deltawire.testing import Answer, ChatServer

pytestmark = pytest.mark.usefixtures("_tidy", "transports")

PING = b": ping\n\n"


def timed_out(heard_error: BaseException | None, deadline: str, seconds: float) -> TimeoutError:
    assert isinstance(heard_error, TimeoutError), repr(heard_error)
    assert (heard_error.deadline, heard_error.seconds) == (deadline, seconds)
    assert f"Timeout.{deadline}" in str(heard_error)
    return heard_error


def options(url: str, timeout: float | Timeout, retries: int = 0) -> dict[str, object]:
    return {"base_url": url, "timeout": timeout, "max_retries": RetryPolicy(max_retries=retries, initial=0.01)}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("cut_after", [0, 20])
def test_first_content_before_the_head(driver: Driver, server: ChatServer, cut_after: int, stream: bool) -> None:
    server.plan(Answer(cut_after=cut_after, ending="stall"))
    begin = time.monotonic()
    limits = Timeout(connect=5, first_content=0.2, idle=5)
    error = driver.ask(options(server.url, limits), stream=stream).error
    assert 0.2 <= time.monotonic() - begin < 1.5
    timed_out(error, "first_content", 0.2)
    assert server.wait_outcome(0, 1) == "client-closed"


def test_first_content_is_counted_once(driver: Driver, server: ChatServer) -> None:
    """The head does not start it anew, nor do comments, nor the chunk with the role."""
    server.plan(Answer(events=[event(), *[PING] * 100], delay=0.7, pace=0.05))
    begin = time.monotonic()
    error = driver.stream(options(server.url, Timeout(first_content=0.9))).error
    assert time.monotonic() - begin < 1.6
    timed_out(error, "first_content", 0.9)


def test_idle(driver: Driver, server: ChatServer) -> None:
    server.plan(Answer(events=[event("a"), *[PING] * 100], pace=0.05))
    heard = driver.stream(options(server.url, Timeout(idle=0.2)))
    error = timed_out(heard.error, "idle", 0.2)
    assert heard.text == "a"
    assert error.partial is not None
    assert error.partial.choices[0].message.content == "a"
    assert isinstance(error, OSError), "the builtin TimeoutError"


def test_idle_is_armed_anew_by_content(driver: Driver, server: ChatServer) -> None:
    tokens = [str(number) for number in range(5)]
    server.plan(Answer(tokens=tokens, pace=0.1))
    heard = driver.stream(options(server.url, Timeout(first_content=0.3, idle=0.3)))
    assert (heard.text, heard.error) == ("01234", None)


def test_a_slow_caller_is_no_timeout(server: ChatServer) -> None:
    """Deadlines are for the server: what waits in the socket is read, however late the caller comes."""
    server.plan(Answer(tokens=["a", "b"], pace=0.01), Answer(events=[event("a"), event("b")], ending="stall"))
    limits = Timeout(idle=0.1)
    with Client(base_url=server.url, timeout=limits) as client:
        text = ""
        for chunk in client.chat.completions.create(HI, MODEL, stream=True):
            text += chunk.choices[0].delta.content or ""
            time.sleep(0.13)
        assert text == "ab"
        stream = client.chat.completions.create(HI, MODEL, stream=True)
        next(stream)
        time.sleep(0.13)
        assert next(stream).choices[0].delta.content == "b"
        time.sleep(0.13)
        begin = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            next(stream)
        timed_out(caught.value, "idle", 0.1)
        assert time.monotonic() - begin < 2


def test_a_slow_task_is_no_timeout(run: Run, server: ChatServer) -> None:
    async def main() -> None:
        async with AsyncClient(base_url=server.url, timeout=Timeout(idle=0.1)) as client:
            text = ""
            async for chunk in client.chat.completions.create(HI, MODEL, stream=True):
                text += chunk.choices[0].delta.content or ""
                await anyio.sleep(0.13)
            assert text == "ab"
            stream = await client.chat.completions.create(HI, MODEL, stream=True)
            await stream.__anext__()
            await anyio.sleep(0.13)
            assert (await stream.__anext__()).choices[0].delta.content == "b"
            await anyio.sleep(0.13)
            with pytest.raises(TimeoutError) as caught:
                await stream.__anext__()
            timed_out(caught.value, "idle", 0.1)

    server.plan(Answer(tokens=["a", "b"], pace=0.01), Answer(events=[event("a"), event("b")], ending="stall"))
    run(main)


def test_total_is_for_callers_too(server: ChatServer) -> None:
    """What has not been read by then, in whatever pieces it is read, is late."""
    server.plan(Answer(tokens=["Hel", "lo"], pace=0.03))
    with Client(base_url=server.url, timeout=Timeout(total=0.1)) as client:
        stream = client.chat.completions.create(HI, MODEL, stream=True)
        time.sleep(0.13)
        with pytest.raises(TimeoutError) as caught:
            list(stream)
        timed_out(caught.value, "total", 0.1)


def test_total(driver: Driver, server: ChatServer) -> None:
    server.plan(Answer(tokens=["a"] * 1000, pace=0.02))
    heard = driver.stream(options(server.url, Timeout(total=0.3)))
    timed_out(heard.error, "total", 0.3)
    assert heard.text.startswith("aaa")


def test_total_covers_retries(driver: Driver, server: ChatServer) -> None:
    server.plan(*[Answer(status=503, delay=0.1)] * 2)
    server.plan(Answer(cut_after=0, ending="stall"))
    begin = time.monotonic()
    error = driver.stream(options(server.url, Timeout(total=0.4), retries=5)).error
    assert time.monotonic() - begin < 1
    timed_out(error, "total", 0.4)
    assert len(server.requests) == 3


def test_total_does_not_wait_in_vain(driver: Driver, server: ChatServer) -> None:
    """A wait that would end after the deadline is not begun: the error is the one that would have been retried."""
    server.plan(Answer.error(503, retry_after=30))
    begin = time.monotonic()
    error = driver.stream(options(server.url, Timeout(total=2), retries=5)).error
    assert time.monotonic() - begin < 1
    assert getattr(error, "status_code", None) == 503


def test_connect(driver: Driver) -> None:
    with full_listener() as port:
        error = driver.stream(options(f"http://127.0.0.1:{port}/v1", Timeout(connect=0.2))).error
    timed_out(error, "connect", 0.2)


def test_connect_covers_the_handshake(driver: Driver) -> None:
    with Peer() as peer:
        error = driver.stream(options(f"https://127.0.0.1:{peer.port}/v1", Timeout(connect=0.2))).error
        assert peer.gone.wait(1)
    timed_out(error, "connect", 0.2)


def test_total_while_connecting(driver: Driver) -> None:
    with full_listener() as port:
        error = driver.stream(options(f"http://127.0.0.1:{port}/v1", Timeout(connect=5, total=0.2))).error
    timed_out(error, "total", 0.2)


def test_timeouts_are_tried_again_until_there_is_content(driver: Driver, server: ChatServer) -> None:
    server.plan(*[Answer(cut_after=0, ending="stall")] * 2)
    heard = driver.stream(options(server.url, Timeout(first_content=0.1), retries=2))
    assert (heard.text, heard.error) == ("Hello", None)
    server.plan(*[Answer(cut_after=0, ending="stall")] * 2)
    error = timed_out(
        driver.stream(options(server.url, Timeout(first_content=0.1), retries=1)).error, "first_content", 0.1
    )
    assert error.retries_taken == 1


def test_a_number(driver: Driver, server: ChatServer) -> None:
    server.plan(Answer(events=[event("a")], ending="stall"))
    timed_out(driver.stream(options(server.url, 0.2)).error, "idle", 0.2)


def test_a_call_has_its_own(driver: Driver, server: ChatServer) -> None:
    server.plan(Answer(cut_after=0, ending="stall"))
    timed_out(driver.stream(options(server.url, 30), timeout=0.2).error, "first_content", 0.2)


def test_for_ever(driver: Driver, server: ChatServer) -> None:
    server.plan(Answer(delay=0.2))
    never = Timeout(connect=None, first_content=None, idle=None)
    assert driver.stream(options(server.url, never)).text == "Hello"


def test_the_next_call_on_the_connection_has_its_own(driver: Driver, server: ChatServer) -> None:
    """What was left of one call's time is nothing to the next, on the same connection: here after a retry."""
    server.plan(Answer.error(503, retry_after=0.25), Answer(delay=0.2, tokens=["ok"]))
    heard = driver.stream(options(server.url, Timeout(first_content=0.35), retries=1))
    assert (heard.text, heard.error) == ("ok", None)
    assert server.connections == 1


def test_a_head_that_comes_in_drops(driver: Driver) -> None:
    with dribbling(HEAD, 0.05) as port:
        begin = time.monotonic()
        error = driver.stream(options(f"http://127.0.0.1:{port}/v1", Timeout(first_content=0.3))).error
        assert time.monotonic() - begin < 1
    timed_out(error, "first_content", 0.3)


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), "3", True])
def test_what_is_no_time(driver: Driver, bad: float) -> None:
    with pytest.raises(ConfigurationError):
        driver.stream({"timeout": bad})
    with pytest.raises(ConfigurationError):
        Timeout(total=bad)


def test_numbers_and_defaults() -> None:
    assert Timeout.of(None) == Timeout(connect=10, first_content=600, idle=120, total=None)
    assert Timeout.of(60) == Timeout(connect=15, first_content=60, idle=60)
    assert Timeout.of(3) == Timeout(connect=3, first_content=3, idle=3)
