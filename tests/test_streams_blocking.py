"""blocking.py: what only threads can do to each other; and connecting, one address after the other."""

from __future__ import annotations

import math
import resource
import socket
import threading
import time
from typing import Any
from unittest import mock

import pytest
from driving import free_port, full_listener
from streaming import TOO_MUCH, expires, is_gone, reset, serving, tcp_pair

from deltawire.transports.streams import blocking
from deltawire.transports.streams.blocking import BlockingStream, connect, connect_unix
from deltawire.transports.streams.layers import Expired, after

pytestmark = pytest.mark.usefixtures("_tidy")

# --- Threads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["read", "write"])
def test_the_number_of_an_aborted_stream_is_not_given_away(what: str) -> None:
    """While a thread is about to wait for the socket, or to read it, no other socket may get its number."""
    near, far = tcp_pair()
    stream = BlockingStream(near, after(5))
    number = near.fileno()
    original = blocking._wait
    errors: list[Exception] = []

    def wait(*arguments: Any) -> None:
        # Another thread's work, in the worst moment.
        stream.abort()
        with socket.socket() as newcomer:
            assert newcomer.fileno() != number
            original(*arguments)

    with far, mock.patch.object(blocking, "_wait", wait):
        begin = time.monotonic()
        try:
            stream.read() if what == "read" else stream.write(TOO_MUCH)
        except OSError as error:
            errors.append(error)
        assert errors
        assert time.monotonic() - begin < 1
    assert near.fileno() == -1


def test_a_reader_and_a_writer_are_aborted_together() -> None:
    near, far = tcp_pair()
    stream = BlockingStream(near, after(5))
    waiting = threading.Barrier(3)
    original = blocking._wait
    errors: list[Exception] = []

    def wait(*arguments: Any) -> None:
        waiting.wait(5)
        original(*arguments)

    def work(what: Any, *arguments: Any) -> None:
        try:
            what(*arguments)
        except Exception as error:
            errors.append(error)

    threads = [
        threading.Thread(target=work, args=(stream.read,)),
        threading.Thread(target=work, args=(stream.write, TOO_MUCH)),
    ]
    with far, mock.patch.object(blocking, "_wait", wait):
        for thread in threads:
            thread.start()
        waiting.wait(5)
        stream.abort()
        for thread in threads:
            thread.join(2)
    assert [isinstance(error, OSError) for error in errors] == [True, True]
    assert near.fileno() == -1


def test_aborted_at_any_moment() -> None:
    """Threads read, another one aborts: an error of the system's kind or ours, at once, and nothing else."""
    for _ in range(200):
        near, far = tcp_pair()
        stream = BlockingStream(near, after(5))
        errors: list[Exception] = []
        begun = threading.Event()

        def work(stream: BlockingStream = stream, begun: threading.Event = begun, errors: Any = errors) -> None:
            begun.set()
            try:
                while True:
                    stream.read()
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        with far:
            thread.start()
            begun.wait(5)
            far.sendall(b"x" * 100)
            stream.abort()
            thread.join(2)
        assert not thread.is_alive()
        assert isinstance(errors[0], OSError)
        assert near.fileno() == -1


def test_more_than_1024_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip("the system allows too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    fillers: list[socket.socket] = []
    try:
        while not fillers or fillers[-1].fileno() < 1024:
            fillers.append(socket.socket())
        near, far = tcp_pair()
        with far:
            stream = BlockingStream(near, after(0.05))
            assert near.fileno() > 1024
            assert not stream.get_extra_info("is_readable")
            with expires(0, until=stream.deadline):
                stream.read()
            stream.deadline = after(0.05)
            with expires(0, until=stream.deadline):
                stream.write(TOO_MUCH)
            stream.abort()
    finally:
        for filler in fillers:
            filler.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- Connecting ---------------------------------------------------------------------------------------


def resolving(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Names have an address for each of these ports."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **named: list(found))


def test_no_address_gets_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with full_listener() as black_hole, serving(is_gone) as good:
        resolving(monkeypatch, black_hole, black_hole, good)
        begin = time.monotonic()
        stream = connect("name", 80, after(1.8))
        # A third of the time, and half of what was left: each got as much.
        assert 1.2 <= time.monotonic() - begin < 1.8
        assert stream.get_extra_info("server_addr")[1] == good
        stream.abort()


def test_the_first_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with full_listener() as black_hole:
        dead = free_port()
        resolving(monkeypatch, dead, black_hole)
        with pytest.raises(ConnectionRefusedError):
            connect("name", 80, after(0.1))
        resolving(monkeypatch, black_hole, dead)
        with pytest.raises(ConnectionRefusedError):
            connect("name", 80, after(0.1))
        resolving(monkeypatch, black_hole, black_hole)
        with expires(0.1):
            connect("name", 80, after(0.1))
        resolving(monkeypatch)
        with pytest.raises(OSError, match="no address"):
            connect("name", 80, after(0.1))


@pytest.mark.parametrize("deadline", [math.inf, 1e300, 1e10])
def test_connecting_with_all_the_time(deadline: float) -> None:
    with serving(is_gone) as port:
        connect("127.0.0.1", port, deadline).abort()


def test_connecting_too_late() -> None:
    with serving() as port, pytest.raises(Expired):
        connect("127.0.0.1", port, after(-1))


def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised meanwhile: no socket is left."""

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(blocking, "_connect", interrupt)
    with pytest.raises(KeyboardInterrupt):
        connect("127.0.0.1", 9, after(5))
    with pytest.raises(KeyboardInterrupt):
        connect_unix("/nowhere", after(5))


def test_a_reset_wakes() -> None:
    near, far = tcp_pair()
    stream = BlockingStream(near, after(5))
    far.sendall(b"x")
    assert stream.read() == b"x"
    reset(far)
    with pytest.raises(ConnectionResetError):
        stream.write(TOO_MUCH)
    stream.abort()
