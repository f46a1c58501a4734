"""Making calls and looking at how they end: what the tests of clients and transports share."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import os
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import pytest
import trio

from deltawire import AsyncClient, Client, RetryPolicy, owners
from deltawire.testing import Answer, ChatServer, ProxyServer, SocksServer
from deltawire.transports import AsyncHTTPCoreTransport, AsyncWireTransport, HTTPCoreTransport, WireTransport

# ``run(main, *arguments)``: the result of an async function.
Run = Callable[..., Any]

MODEL = "local-model"
HI = [{"role": "user", "content": "Hi"}]

# Bound, so nobody else gets its port, and not listening, so whoever connects to it is refused.
_HELD = socket.socket()
_HELD.bind(("127.0.0.1", 0))
atexit.register(_HELD.close)

# Retries, without the waits.
SOON = RetryPolicy(max_retries=2, initial=0.01)
SOON_ONCE = RetryPolicy(max_retries=1, initial=0.01)

# Two tokens, and then nothing, on a connection that stays.
STALLED = Answer(tokens=["Hel", "lo"], finish_reason=None, done=False, ending="stall")


class Route(NamedTuple):
    """A way to a server."""

    name: str
    server: ChatServer
    proxy: ProxyServer | None
    trusting: ssl.SSLContext
    socks: SocksServer | None = None

    @property
    def between(self) -> ProxyServer | SocksServer | None:
        """The proxy, of whichever kind."""
        return self.proxy or self.socks

    @property
    def proxies(self) -> str | None:
        """The URL of the proxy, with its password."""
        if self.socks is not None and "socks5h" in self.name:
            return self.socks.remote_url
        return None if self.between is None else self.between.url

    def options(self, **more: Any) -> dict[str, Any]:
        """The arguments of a client that takes it."""
        return {"base_url": self.server.url, "proxies": self.proxies, "verify": self.trusting, **more}


class Transports(NamedTuple):
    """The transports of one kind, in both forms."""

    name: str
    """As ``Client(transport=...)`` takes it."""
    blocking: Callable[..., Any]
    asynchronous: Callable[..., Any]


TRANSPORTS = {
    each.name: each
    for each in (
        Transports("httpcore", HTTPCoreTransport, AsyncHTTPCoreTransport),
        Transports("wire", WireTransport, AsyncWireTransport),
    )
}


def usual() -> Transports:
    """Those of clients that name none: see the fixture ``transports``."""
    return TRANSPORTS[owners._USUAL]


# For what is httpcore's own: its locks, HTTP/2.
httpcore_only = pytest.mark.parametrize("transports", ["httpcore"], indirect=True)


@dataclass
class Heard:
    """What a caller heard of one call."""

    text: str = ""
    chunks: int = 0
    error: BaseException | None = None
    reply: Any = None
    """The stream, or the completion."""


class Driver(NamedTuple):
    """A way to make one call, on a client made for it, and to hear all of it."""

    name: str
    call: Callable[[dict[str, Any], dict[str, Any]], Heard]

    def stream(self, options: dict[str, Any], **parameters: Any) -> Heard:
        return self.call(options, {"stream": True, **parameters})

    def ask(self, options: dict[str, Any], **parameters: Any) -> Heard:
        return self.call(options, parameters)


def _taken(chunk: Any, heard: Heard) -> None:
    heard.chunks += 1
    heard.text += chunk.choices[0].delta.content or "" if chunk.choices else ""


def _sync(options: dict[str, Any], parameters: dict[str, Any]) -> Heard:
    heard = Heard()
    with Client(**options) as client:
        try:
            heard.reply = client.chat.completions.create(HI, parameters.pop("model", MODEL), **parameters)
            if not parameters.get("stream"):
                heard.text = heard.reply.choices[0].message.content
                return heard
            for chunk in heard.reply:
                _taken(chunk, heard)
        except Exception as error:
            heard.error = error
        # It is busy with nothing, however the call went.
        assert client.transport.connections()[0] == 0  # type: ignore[attr-defined]
    return heard


async def _async(options: dict[str, Any], parameters: dict[str, Any]) -> Heard:
    heard = Heard()
    async with AsyncClient(**options) as client:
        try:
            heard.reply = await client.chat.completions.create(HI, parameters.pop("model", MODEL), **parameters)
            if not parameters.get("stream"):
                heard.text = heard.reply.choices[0].message.content
                return heard
            async for chunk in heard.reply:
                _taken(chunk, heard)
        except Exception as error:
            heard.error = error
        assert client.transport.connections()[0] == 0  # type: ignore[attr-defined]
    return heard


DRIVERS = {
    "sync": Driver("sync", _sync),
    "asyncio": Driver("asyncio", lambda *given: asyncio.run(_async(*given))),
    "trio": Driver("trio", lambda *given: trio.run(_async, *given)),
}


def shown(error: BaseException, *, traced: bool = True) -> str:
    """All that anybody may print of an error, its causes included. The traceback, which adds but our own lines, takes
    longer than most tests: who has thousands of errors may leave it out."""
    words = "".join(traceback.format_exception(type(error), error, error.__traceback__)) if traced else ""
    return words + "".join(f"{each}{each!r}{getattr(each, '__dict__', '')}" for each in causes(error))


def causes(error: BaseException) -> list[BaseException]:
    """The error, and all behind it: causes, and what was being handled."""
    found: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is not None and all(each is not other for other in found):
            found.append(each)
            left += [each.__context__, each.__cause__]
    return found


# --- Raw peers --------------------------------------------------------------------------------------


class Peer:
    """A listener that takes one connection, waits for the first bytes, says its words, and then closes or waits for
    the other end to go."""

    def __init__(self, words: bytes = b"", *, close: bool = False) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._words = words
        self._close = close
        self._thread = threading.Thread(target=self._serve, name="raw peer")
        self.heard = threading.Event()
        """Set when the first bytes have come."""
        self.first = b""
        """These bytes."""
        self.clients: list[str] = []
        """From which addresses the connections came."""
        self.gone = threading.Event()
        """Set when the other end has closed."""
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0

    def _serve(self) -> None:
        while True:
            try:
                connection, address = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self.clients.append(address[0])
            with connection, contextlib.suppress(OSError):
                self._speak(connection)
            self.gone.set()

    def _speak(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        self.first = connection.recv(65536)
        if not self.first:
            return
        self.heard.set()
        connection.sendall(self._words)
        if self._close:
            return
        while connection.recv(65536):
            pass

    def __enter__(self) -> Peer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        # Closing alone would not wake the thread that accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@contextlib.contextmanager
def unix_socket(path: str, port: int) -> Iterator[None]:
    """A Unix domain socket that leads to a port of this machine."""
    threads: list[threading.Thread] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for each, way in ((source, socket.SHUT_RD), (sink, socket.SHUT_WR)):
            with contextlib.suppress(OSError):
                each.shutdown(way)

    def connect(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            back = threading.Thread(target=pump, args=(server, client), name="unix socket, back")
            back.start()
            pump(client, server)
            back.join()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threads.append(threading.Thread(target=connect, args=(client,), name="unix socket"))
                threads[-1].start()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        threads.append(threading.Thread(target=serve, name="unix socket, listener"))
        threads[0].start()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(2)


def free_port() -> int:
    """A port where nobody listens, nor will: a free one might be another program's server's in a moment."""
    port: int = _HELD.getsockname()[1]
    return port


@contextlib.contextmanager
def full_listener() -> Iterator[int]:
    """A port that takes no further connection and refuses none: connecting to it takes for ever."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextlib.contextmanager
def dribbling(data: bytes, pace: float) -> Iterator[int]:
    """A port where a connection gets this, a byte at a time."""
    over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            for position in range(len(data)):
                connection.sendall(data[position : position + 1])
                if over.wait(pace):
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        over.set()
        thread.join()


# --- What is left behind -----------------------------------------------------------------------------


def open_sockets() -> int:
    """How many sockets this process has."""
    count = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
    return count


def lasting_threads() -> list[threading.Thread]:
    """Those that the process would wait for; trio keeps others for a while, in case it needs them again."""
    return [each for each in threading.enumerate() if not each.daemon]


@contextlib.contextmanager
def no_leaks() -> Iterator[None]:
    """Fail if there are more sockets after the block than before. (Objects that were not closed are warnings, and
    those are errors.)"""
    gc.collect()
    before = open_sockets()
    yield
    gc.collect()
    for thread in threading.enumerate():
        # That of a generator that was dropped ends by itself, with nobody who waits for it.
        if thread.name == "deltawire generator":
            thread.join(5)
    # What has outlived this is of longer life: not to be looked through again for each test, which would take longer
    # than the tests.
    gc.freeze()
    assert open_sockets() <= before, "sockets are left open"


async def blocking(call: Callable[..., Any], *arguments: Any) -> Any:
    """Wait for a server's word without standing in the loop's way."""
    return await anyio.to_thread.run_sync(call, *arguments)


async def settled(condition: Callable[[], bool]) -> bool:
    """Let the loop go round until this holds; gives up after a thousand times."""
    for _ in range(1000):
        if condition():
            return True
        await anyio.lowlevel.checkpoint()
    return condition()


async def cancelled_when(ready: Callable[[], object], work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Cancel the work, by the loop's own means, as soon as a blocking call returns."""
    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await blocking(ready)
        # Its own turn to hear of what the server has sent.
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
