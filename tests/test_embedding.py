"""The programs in ``examples/`` that have a loop of their own, or another HTTP client: run as they are, before a server
that answers, fails, breaks off, and says nothing."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from driving import full_listener
from programs import EMBEDDINGS, EXAMPLES_FOLDER, KEY, launch, run_program, running, source_of

from deltawire import APIStatusError, AuthenticationError, Client, RateLimitError
from deltawire.testing import Answer, ChatServer

QUICK = "0.3"

# As a broken-off one, but the server says nothing more and stays.
STALLED = Answer(tokens=["Hel"], finish_reason=None, done=False, ending="stall")

without_tk = pytest.mark.skipif(
    importlib.util.find_spec("_tkinter") is None, reason="this Python was built without Tk, or comes without it"
)
every = pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=without_tk) if each == "embed_tk.py" else each for each in EMBEDDINGS],
    ids=lambda name: name.removesuffix(".py"),
)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(tokens=["Hel", "lo"], api_key=KEY) as running:
        yield running


def environment(server: ChatServer, timeout: str = "20") -> dict[str, str]:
    return {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": KEY, "TIMEOUT": timeout}


def asked(server: ChatServer) -> list[str]:
    return [each.json()["messages"][-1]["content"] for each in server.requests]


# --- Answers ----------------------------------------------------------------------------------------


@every
def test_several_answers_at_once(name: str, server: ChatServer) -> None:
    answers = {f"question {number}": Answer(tokens=["Hel", f"lo {number}"]) for number in range(5)}
    server.plan(*answers.values())
    printed = run_program(source_of(name), *answers, **environment(server)).splitlines()
    # The plan is taken in the order of arrival.
    expected = {question: f"Hello {number}" for number, question in enumerate(asked(server))}
    assert printed == [expected[question] for question in answers]
    assert {server.wait_outcome(index) for index in range(5)} == {"complete"}


@every
def test_a_request_that_no_socket_takes_at_once(name: str, server: ChatServer) -> None:
    size = 8_000_000
    source = f"import sys; sys.argv[1:] = ['x' * {size}] * 2; {source_of(name)}"
    assert run_program(source, **environment(server)) == "Hello\nHello\n"
    assert [len(text) for text in asked(server)] == [size, size]


@every
def test_content_comes_later_than_one_deadline_and_sooner_than_the_next(name: str, server: ChatServer) -> None:
    server.plan(Answer(tokens=list("Hello there"), pace=0.1))
    assert run_program(source_of(name), "Hi", **environment(server, "0.6")) == "Hello there\n"
    (request,) = server.requests
    assert request.sent[-1] - request.sent[0] > 0.6


def test_many_streams_in_one_thread(server: ChatServer) -> None:
    # All have begun before the first one ends.
    server.plan(*[Answer(tokens=["Hel", "lo"], pace=2)] * 100)
    printed = run_program(source_of("embed_selectors.py"), *map(str, range(100)), **environment(server))
    assert printed == "Hello\n" * 100
    requests = server.requests
    assert len({each.connection for each in requests}) == 100
    assert max(each.sent[0] for each in requests) < min(each.sent[-1] for each in requests)


@every
def test_tls_or_a_word_about_it(
    name: str, server_context: ssl.SSLContext, authority: trustme.CA, tmp_path: Path
) -> None:
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    with ChatServer(tokens=["Hel", "lo"], api_key=KEY, ssl_context=server_context) as server:
        done = launch(source_of(name), "Hi", "Hi", **environment(server), SSL_CERT_FILE=str(trusted))
        if name in ("embed_selectors.py", "embed_tk.py", "embed_twisted.py"):
            assert re.search(r"ConfigurationError.*: this program speaks no TLS", done.stderr)
            assert server.requests == []
            return
        assert (done.stdout, done.stderr, done.returncode) == ("Hello\nHello\n", "", 0)
        # An authority that nobody trusts. (Tornado logs that.)
        done = launch(source_of(name), "Hi", **environment(server))
        assert re.fullmatch(r" \[ConnectError: no connection to .*certificate verify failed.*\]\n", done.stdout, re.I)
        assert re.fullmatch(r"(SSL Error on .*\n)?", done.stderr)


# --- Failures ---------------------------------------------------------------------------------------


FAILURES = [
    (Answer.error(429), r" \[RateLimitError: status 429 .*\]"),
    (Answer.error(401, "Who are you?"), r" \[AuthenticationError: .*Who are you\?.*\]"),
    (Answer(tokens=["Hel"], finish_reason=None, done=False), r"Hel \[TruncatedStreamError: .*\]"),
    (Answer(tokens=["Hel"], finish_reason=None, done=False, ending="reset"), r"Hel \[TruncatedStreamError: .*\]"),
    (Answer(tokens=["Hel"], finish_reason=None, done=False, framing="close"), r"Hel \[TruncatedStreamError: .*\]"),
    (Answer(cut_after=20), r" \[ReadError: .*\]"),
    (Answer.replay(b"SSH-2.0-OpenSSH_9.2\r\n"), r" \[ReadError: .*\]"),
    (Answer(body=b"<html>", content_type="text/html"), r" \[UnexpectedReplyError: .*\]"),
    (Answer(events=[b'data: {"error": {"message": "No."}}\n\n']), r" \[APIStatusError: .*No\..*\]"),
    # All but the marker of the end has come: good all the same, however that went.
    (Answer(tokens=["Hel", "lo"], done=False, ending="reset"), "Hello"),
]

LATE = [
    (Answer(cut_after=0, ending="stall"), r" \[TimeoutError: no content .*Timeout\.first_content.*\]"),
    # What is no content keeps nobody waiting.
    (Answer(events=[b": here\n\n"] * 200, pace=0.05), r" \[TimeoutError: no content .*Timeout\.first_content.*\]"),
    (STALLED, r"Hel \[TimeoutError: no further content .*Timeout\.idle.*\]"),
    (Answer(tokens=["Hel", "lo"], done=False, ending="stall"), "Hello"),
]


def check_all(name: str, cases: list[tuple[Answer, str]], server: ChatServer, timeout: str) -> None:
    """Let the program ask for all of them in one run."""
    server.plan(*[answer for answer, _ in cases])
    printed = run_program(source_of(name), *map(str, range(len(cases))), **environment(server, timeout))
    assert KEY not in printed
    lines = printed.splitlines()
    # The plan is taken in the order of arrival.
    for question, (_, expected) in zip(asked(server), cases, strict=True):
        assert re.fullmatch(expected, lines[int(question)]), lines[int(question)]


@every
def test_failures(name: str, server: ChatServer) -> None:
    check_all(name, FAILURES, server, "20")


@every
def test_deadlines(name: str, server: ChatServer) -> None:
    check_all(name, LATE, server, QUICK)
    assert {server.wait_outcome(index) for index in range(len(LATE))} == {"client-closed"}


# The program says it by one number: so the idle deadline is that, and the first content may take far longer.
PATIENT_AT_FIRST = """
from deltawire.protocol import Timeout
Timeout.of = classmethod(lambda cls, seconds: cls(first_content=600, idle=seconds))
"""


@every
def test_a_deadline_that_comes_sooner_from_the_first_content_on(name: str, server: ChatServer) -> None:
    server.plan(STALLED)
    source = PATIENT_AT_FIRST + source_of(name)
    with running(source, "Hi", environment=environment(server, QUICK)) as process:
        assert server.wait_outcome(0, 20) == "client-closed"
        (request,) = server.requests
        assert time.monotonic() - request.sent[0] < 2
        printed, complaints = process.communicate(timeout=20)
    assert re.fullmatch(r"Hel \[TimeoutError: no further content within 0\.3 s .*\]\n", printed), printed
    assert complaints == ""


# The program has other things to do when the first content comes, for longer than it waits for the next one.
BUSY = """
import time
from deltawire.protocol import Deadlines
arm = Deadlines.content

def content(self, now):
    arm(self, now)
    Deadlines.content = arm
    time.sleep(0.6)

Deadlines.content = content
"""


@every
def test_what_has_come_is_read_though_the_deadline_has_passed(name: str, server: ChatServer) -> None:
    """Some loops look at their timers before they look at their sockets."""
    server.plan(Answer(tokens=["Hel", "lo"], pace=0.05))
    assert run_program(BUSY + source_of(name), "Hi", **environment(server, QUICK)) == "Hello\n"


@every
def test_nobody_listens(name: str, server: ChatServer) -> None:
    with server.refuse_connections():
        printed = run_program(source_of(name), "Hi", "Hi", **environment(server))
    assert re.fullmatch(r"( \[ConnectError: no connection.*\]\n){2}", printed), printed


@every
def test_nobody_accepts(name: str) -> None:
    with full_listener() as port:
        url = f"http://127.0.0.1:{port}/v1"
        printed = run_program(source_of(name), "Hi", OPENAI_BASE_URL=url, OPENAI_API_KEY=KEY, TIMEOUT=QUICK)
    # (Twisted has a deadline of its own for that, which is told ours.)
    assert re.fullmatch(r" \[(TimeoutError: no connection|ConnectError: no connection).*\]\n", printed), printed


# (Tk hears of it with the next event only.)
@pytest.mark.parametrize("name", [each for each in EMBEDDINGS if each != "embed_tk.py"])
def test_interrupted(name: str, server: ChatServer) -> None:
    """Ctrl-C in the midst of two streams: nothing is left open."""
    server.plan(STALLED, STALLED)
    with running(source_of(name), "Hi", "Hi", environment=environment(server)) as process:
        server.wait_requests(2)
        server.wait_until(lambda: all(each.outcome == "stalled" for each in server.requests), "the tokens", 5)
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=20)
    if process.returncode != 0:
        assert "KeyboardInterrupt" in complaints
    assert "ResourceWarning" not in complaints
    assert "Exception ignored" not in complaints
    # (Python 3.10's asyncio complains of an interrupt that comes within a task: "never retrieved".)
    assert "never awaited" not in complaints
    assert "was destroyed" not in complaints
    assert [server.wait_outcome(index) for index in range(2)] == ["client-closed"] * 2


# --- Kept connections -------------------------------------------------------------------------------

ONE_WORKER = f"""
import runpy, sys, trio
names = runpy.run_path({str(EXAMPLES_FOLDER / "embed_trio.py")!r}, run_name="embedded")
trio.run(names["main"], sys.argv[1:], 1)
"""


def test_one_connection_for_all_questions(server: ChatServer) -> None:
    server.plan(Answer(), Answer.error(503), Answer())
    printed = run_program(ONE_WORKER, *"abcd", **environment(server)).splitlines()
    assert [line.partition(":")[0] for line in printed] == ["Hello", " [InternalServerError", "Hello", "Hello"]
    assert {each.connection for each in server.requests} == {1}
    assert asked(server) == list("abcd")


@pytest.mark.parametrize(
    "spoilt",
    [
        # Said beforehand; done without a word; broken off; and something is left that nobody waits for so long.
        Answer(headers=[("connection", "close")]),
        Answer(ending="close"),
        Answer(tokens=["Hel"], finish_reason=None, done=False, ending="reset"),
        Answer(ending="stall"),
    ],
    ids=["told", "silently", "broken", "unfinished"],
)
def test_a_connection_that_is_of_no_further_use(spoilt: Answer, server: ChatServer) -> None:
    server.plan(spoilt)
    printed = run_program(ONE_WORKER, *"abc", **environment(server)).splitlines()
    assert printed[0].startswith("Hel")
    assert printed[1:] == ["Hello", "Hello"]
    assert [each.connection for each in server.requests] == [1, 2, 2]
    assert asked(server) == list("abc")


# --- A reader who stays away ------------------------------------------------------------------------

SLOW_READER = f"""
import asyncio, runpy
names = runpy.run_path({str(EXAMPLES_FOLDER / "embed_asyncio_protocol.py")!r}, run_name="embedded")

async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)

async def main():
    stream = await names["open_stream"]("Hi")
    first = await stream.__anext__()
    await until(lambda: not stream.transport.is_reading())
    held = stream.unread
    # The deadline passes, and is not the server's fault.
    await until(lambda: stream.timer is None)
    assert not stream.exchange.done
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    print(held < 1_000_000, len(text))
    await stream.aclose()

asyncio.run(main())
"""


def test_a_reader_who_stays_away_holds_up_the_socket(server: ChatServer) -> None:
    server.plan(Answer(tokens=["x" * 1000] * 20_000))
    assert run_program(SLOW_READER, **environment(server, QUICK)) == "True 20000000\n"
    assert server.wait_outcome(0) == "complete"


# --- Other people's clients -------------------------------------------------------------------------

CLIENTS = ["httpx", "requests", "urllib3", "aiohttp"]
FEEDING = source_of("feed_bodies.py")


def test_feeding(server: ChatServer) -> None:
    assert run_program(FEEDING, **environment(server)) == "Hello\n" * 4
    agents = [each.header("user-agent") for each in server.requests]
    assert agents == ["deltawire"] * 4
    assert all(each.json()["stream"] for each in server.requests)


@pytest.mark.parametrize(
    ("answer", "printed"),
    [
        (Answer(tokens=["Hel"], finish_reason=None, done=False, framing="close"), r"Hel \[TruncatedStreamError: .*\]"),
        (Answer(events=[b'data: {"error": {"message": "No."}}\n\n']), r" \[APIStatusError: .*No\..*\]"),
        (Answer(tokens=["Hel"], finish_reason=None, done=False, ending="reset"), r"Hel \[{client}\..*\]"),
        (Answer.error(503), r" \[{client}\..*\]"),
        (STALLED, r"Hel \[{client}\..*\]"),
    ],
    ids=["cut", "error", "reset", "503", "stalled"],
)
def test_feeding_what_fails(answer: Answer, printed: str, server: ChatServer) -> None:
    server.plan(*[answer] * 4)
    found = run_program(FEEDING, **environment(server, QUICK)).splitlines()
    for client, line in zip(CLIENTS, found, strict=True):
        assert re.fullmatch(printed.replace("{client}", f"({client}|TimeoutError|asyncio)"), line), line
    assert len(server.requests) == 4


# --- A relay ----------------------------------------------------------------------------------------


@pytest.fixture
def relay(server: ChatServer) -> Iterator[str]:
    """The URL of the relay before the server; when it is over, it must have ended well and complained of nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        number = listener.fileno()
        source = source_of("relay_starlette.py")
        with running(source, f"fd://{number}", environment=environment(server), keep=(number,)) as process:
            # What stands in the queue of the port until it serves is served then.
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            process.terminate()
            printed, complaints = process.communicate(timeout=20)
    assert printed == ""
    assert re.fullmatch(r".*\[INFO\] Running on http://127.*\n", complaints), complaints
    assert process.returncode == 0


@contextlib.contextmanager
def customer(url: str, **options: Any) -> Iterator[Client]:
    with Client(base_url=url, api_key="sk-of-the-customer", max_retries=0, **options) as client:
        yield client


def test_a_relayed_stream(relay: str, server: ChatServer) -> None:
    server.plan(Answer(tokens=["Hel", "lo"], usage={"total_tokens": 7}))
    with customer(relay) as client:
        chunks = list(client.chat.completions.create("Hi", "gpt-4", stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 7
    (request,) = server.requests
    assert request.header("authorization") == f"Bearer {KEY}"
    assert request.json()["messages"] == [{"role": "user", "content": "Hi"}]


def test_what_fails_beyond_the_relay(relay: str, server: ChatServer) -> None:
    server.plan(Answer.error(401), *[Answer.error(429, retry_after=0.01)] * 3, Answer(tokens=["Hel"], cut_after=700))
    with customer(relay) as client:
        with pytest.raises(AuthenticationError):
            client.chat.completions.create("Hi", "gpt-4", stream=True)
        with pytest.raises(RateLimitError):
            client.chat.completions.create("Hi", "gpt-4", stream=True)
        assert len(server.requests) == 4
        stream = client.chat.completions.create("Hi", "gpt-4", stream=True)
        with pytest.raises(APIStatusError, match="ends before it is complete"):
            list(stream)
        with server.refuse_connections(), pytest.raises(APIStatusError) as raised:
            client.chat.completions.create("Hi", "gpt-4", stream=True)
        assert raised.value.status_code == 502


def test_who_goes_is_not_relayed_any_further(relay: str, server: ChatServer) -> None:
    """The server has more to say some day; its connection is closed when the customer's is."""
    server.plan(STALLED)
    with customer(relay) as client:
        stream = client.chat.completions.create("Hi", "gpt-4", stream=True)
        while not (chunk := next(stream)).choices[0].delta.content:
            pass
        assert chunk.choices[0].delta.content == "Hel"
        (request,) = server.requests
        assert request.outcome in ("pending", "stalled")
        stream.close()
    assert server.wait_outcome(0) == "client-closed"


def test_who_goes_without_having_read(relay: str, server: ChatServer) -> None:
    """Here the relay does not wait for the server, but for a customer who takes no more."""
    server.plan(Answer(tokens=["x" * 10_000] * 20_000))
    with customer(relay) as client:
        stream = client.chat.completions.create("Hi", "gpt-4", stream=True)
        next(stream)
        sent = -1
        while sent != (sent := len(server.requests[0].sent)):
            with contextlib.suppress(TimeoutError):
                # Until nothing moves any more.
                server.wait_until(lambda: len(server.requests[0].sent) > sent, "more", 0.5)
        assert 0 < sent < 20_000
        stream.close()
    assert server.wait_outcome(0) == "client-closed"
