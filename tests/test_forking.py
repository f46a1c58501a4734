"""Processes that are forked while there are connections: the child leaves its parent's alone, and has its own.

The server runs in the tests' process, the programs that fork in others.
"""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import trustme
from driving import HI, MODEL, Route
from programs import run_program

from deltawire import AsyncClient, Client
from deltawire.testing import Answer, ChatServer

pytestmark = pytest.mark.usefixtures("transports")

# What all programs begin with. Python 3.12 warns of any fork in a process with threads.
PRELUDE = """
import os, sys, threading, traceback, warnings
from deltawire import AsyncClient, Client, DeltawireError

warnings.filterwarnings("ignore", "This process", DeprecationWarning)
base_url, proxy, ca = sys.argv[1:]
options = {"base_url": base_url, "proxies": proxy or None, "verify": ca, "timeout": 10, "max_retries": 0}

def start(client):
    return client.chat.completions.create("Hi", "m", stream=True)

def text(stream):
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

def forked(work):
    "Run this in a child process, which then ends as programs do."
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        sys.exit()
    assert os.waitpid(pid, 0)[1] == 0
"""

SYNC = """
client = Client(**options)
other = start(client)
next(other)                         # one that is under way
assert text(start(client)) == "Hello"   # and one that is kept

def child():
    global other
    assert client.transport.connections() == (0, 0)
    assert text(start(client)) == "Hello"
    try:
        text(other)
    except DeltawireError as error:
        assert "closed" in str(error), error
    else:
        raise AssertionError("the parent's stream was read by its child")
    other.close()
    other = None
    assert client.transport.connections() == (0, 1)

forked(child)
forked(child)
assert client.transport.connections() == (1, 1)
assert text(start(client)) == "Hello"
assert text(other) == "Hello"
assert text(start(client)) == "Hello"
client.close()
print("done")
"""

PACED = Answer(tokens=["Hel", "lo"], pace=0.4)


def arguments(route: Route, authority: trustme.CA, folder: Path) -> tuple[str, str, str]:
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return route.server.url, route.proxies or "", str(path)


def test_a_client_that_blocks(short_route: Route, authority: trustme.CA, tmp_path: Path) -> None:
    short_route.server.plan(PACED)
    assert run_program(PRELUDE + SYNC, *arguments(short_route, authority, tmp_path)) == "done\n"
    short_route.server.wait_closed()
    assert [each.outcome for each in short_route.server.requests] == ["complete"] * 6
    # Two of the parent's, one of each child.
    assert short_route.server.connections == 4


LOCKED = """
client = Client(**options)
assert text(start(client)) == "Hello"
held, over = threading.Event(), threading.Event()

def hold():
    # As a thread does that is about to change something.
    with client._owner._lock, client.transport._lock:
        held.set()
        over.wait(30)

thread = threading.Thread(target=hold)
thread.start()
held.wait(10)

def child():
    assert text(start(client)) == "Hello"
    copy = client.with_options(max_retries=0)
    assert text(start(copy)) == "Hello"
    client.close()

try:
    forked(child)
finally:
    over.set()
    thread.join()
assert text(start(client)) == "Hello"
print("done")
"""


def test_locks_that_another_thread_holds(short_route: Route, authority: trustme.CA, tmp_path: Path) -> None:
    assert run_program(PRELUDE + LOCKED, *arguments(short_route, authority, tmp_path)) == "done\n"
    assert len(short_route.server.requests) == 4


FAILING = """
from deltawire.transports._forking import tell

class Failing:
    def forked(self):
        told.append(self)
        raise ValueError

told = []
failing = [Failing() for _ in range(10)]
for each in failing:
    tell(each)
client = Client(**options)
assert text(start(client)) == "Hello"

def child():
    assert len(told) == 10
    assert client.transport.connections() == (0, 0)
    assert text(start(client)) == "Hello"

forked(child)
print("done")
"""


def test_one_that_fails_to_begin_anew(server: ChatServer) -> None:
    """The others are told all the same."""
    assert run_program(PRELUDE + FAILING, server.url, "", "") == "done\n"
    assert [each.connection for each in server.requests] == [1, 2]


POOLED = """
import multiprocessing

client = Client(**options)

def ask(number):
    return text(start(client))

assert ask(0) == "Hello"
with multiprocessing.get_context("fork").Pool(3) as pool:
    assert pool.map(ask, range(12)) == ["Hello"] * 12
assert ask(0) == "Hello"
print("done")
"""


def test_workers_of_multiprocessing(short_route: Route, authority: trustme.CA, tmp_path: Path) -> None:
    given = arguments(short_route, authority, tmp_path)
    assert run_program(PRELUDE + POOLED, *given) == "done\n"
    server = short_route.server
    assert len(server.requests) == 14
    # The parent's first and last request came on one connection, on which none of its children's came.
    mine = server.requests[0].connection
    assert [each.connection == mine for each in server.requests] == [True, *[False] * 12, True]


BROWSER = """
client = Client(**options, impersonate="chrome")
assert text(start(client)) == "Hello"

def child():
    assert text(start(client)) == "Hello"

forked(child)
assert text(start(client)) == "Hello"
print("done")
"""


def test_passing_for_a_browser(tls_server: ChatServer, authority: trustme.CA, tmp_path: Path) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert run_program(PRELUDE + BROWSER, tls_server.url, "", str(tmp_path / "ca.pem")) == "done\n"
    assert [each.connection for each in tls_server.requests] == [1, 2, 1]


LEFT = """
def child():
    global stream
    try:
        text(stream)
    except DeltawireError as error:
        assert "closed" in str(error), error
    else:
        raise AssertionError("the parent's stream was read by its child")
    stream.close()
    stream = None

forked(child)

def child():
    # As it is dropped, or closed, unread.
    global stream
    stream.close()
    stream = None
    client.close()

forked(child)
assert text(stream) == "Hello"
stream.close()
client.close()
print("done")
"""

BROWSING = """
client = Client(**options, impersonate="chrome")
stream = start(client)
next(stream)
"""


def test_a_browsers_stream_under_way(tls_server: ChatServer, authority: trustme.CA, tmp_path: Path) -> None:
    tls_server.plan(PACED)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert run_program(PRELUDE + BROWSING + LEFT, tls_server.url, "", str(tmp_path / "ca.pem")) == "done\n"
    assert [each.outcome for each in tls_server.requests] == ["complete"]


GENERATING = """
import asyncio
from deltawire.providers import AsyncGeneratorProvider

class Own(AsyncGeneratorProvider):
    @classmethod
    async def create_async_generator(cls, model, messages, **kwargs):
        for piece in "", "Hel", "lo":
            await asyncio.sleep(0.1)
            yield piece

client = Client(provider=Own)
stream = start(client)
"""


def test_a_generator_under_way(tmp_path: Path) -> None:
    """Its thread is the parent's."""
    assert run_program(PRELUDE + GENERATING + LEFT, "", "", "") == "done\n"


BETWEEN = """
import asyncio, trio

async def ask(client):
    return "".join([chunk.choices[0].delta.content or "" async for chunk in start(client)])

client = AsyncClient(**options)
assert asyncio.run(ask(client)) == "Hello"
assert trio.run(ask, client) == "Hello"

def child():
    assert asyncio.run(ask(client)) == "Hello"
    assert trio.run(ask, client) == "Hello"

forked(child)
assert asyncio.run(ask(client)) == "Hello"
assert trio.run(ask, client) == "Hello"
print("done")
"""


def test_an_async_client_before_and_after(server: ChatServer, tmp_path: Path, authority: trustme.CA) -> None:
    """Between two runs of the parent's, when no loop is there to be inherited."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert run_program(PRELUDE + BETWEEN, server.url, "", str(tmp_path / "ca.pem")) == "done\n"
    assert len(server.requests) == 6


INSIDE = """
import asyncio

async def ask(client):
    return "".join([chunk.choices[0].delta.content or "" async for chunk in start(client)])

async def main():
    client = AsyncClient(**options)
    other = await start(client)
    await other.__anext__()
    assert await ask(client) == "Hello"
    pid = os.fork()
    if pid == 0:
        # asyncio's loop is the parent's: here there is none, until another one is run.
        try:
            try:
                await ask(client)
            except RuntimeError as error:
                assert "loop" in str(error), error
            else:
                raise AssertionError("the parent's loop was used by its child")
            assert asyncio.run(ask(client)) == "Hello"
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        await asyncio.sleep(0.01)
    assert ended == (pid, 0)
    assert client.transport.connections() == (1, 1)
    assert await ask(client) == "Hello"
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in other]) == "Hello"
    await client.aclose()

asyncio.run(main())
print("done")
"""


def test_forking_inside_an_event_loop(short_route: Route, authority: trustme.CA, tmp_path: Path) -> None:
    short_route.server.plan(PACED)
    assert run_program(PRELUDE + INSIDE, *arguments(short_route, authority, tmp_path)) == "done\n"
    short_route.server.wait_closed()
    assert [each.outcome for each in short_route.server.requests] == ["complete"] * 4
    assert short_route.server.connections == 3 + (short_route.name == "proxy")


# --- Copies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_pickling(kind: Any) -> None:
    client = kind(api_key="sk-very-secret", base_url="http://localhost/v1")
    with pytest.raises(TypeError, match="make one in each process") as caught:
        pickle.dumps(client)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies_share_connections(server: ChatServer, copied: Any) -> None:
    class Named(Client):
        name = ""

    with Named(base_url=server.url) as client:
        client.name = "mine"
        other = copied(client)
        assert (type(other), other.name, other.base_url) == (Named, "mine", server.url)
        for each in (client, other, client):
            assert each.chat.completions.create(HI, MODEL).choices[0].message.content == "Hello"
        assert server.connections == 1
