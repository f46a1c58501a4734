"""The wire transports on all runtimes, their tests written once; and servers of which the tests hold the reins."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest
from driving import MODEL, blocking
from faults import event
from feeding import text
from streaming import beside

from deltawire import Timeout
from deltawire.protocol import (
    ChatRequest,
    Context,
    Deadlines,
    Endpoint,
    Event,
    HTTPRequest,
    Proxy,
    Reply,
    StreamEnded,
    StreamFailed,
)
from deltawire.transports import AsyncWireTransport, WireTransport
from deltawire.transports._lifetime import running_loop
from deltawire.transports.wire.pool import Pool

# None of these is to pass.
PATIENT = Timeout(connect=1000, first_content=1000, idle=1000)

DONE = b"data: [DONE]\n\n"


class Call:
    """One exchange. What blocks, is done in a thread."""

    def __init__(self, wire: Wire, request: HTTPRequest, timeout: Timeout, total: float | None, proxy: Any) -> None:
        self.reply = Reply(context=Context(url=str(request.parts)))
        now = time.monotonic()
        self.deadlines = Deadlines(timeout, now, None if total is None else now + total)
        self.exchange: Any = wire.transport.open(request, self.reply, self.deadlines, proxy=proxy)
        self._blocks = wire.blocks

    async def events(self) -> list[Event]:
        """The next ones."""
        if self._blocks:
            found: list[Event] = await blocking(self.exchange.next_events)
            return found
        return await self.exchange.next_events()  # type: ignore[no-any-return]

    async def rest(self) -> list[Event]:
        """All that are left, to the verdict; then closes."""
        found: list[Event] = []
        while new := await self.events():
            found += new
        assert sum(isinstance(each, (StreamEnded, StreamFailed)) for each in found) <= 1
        await self.close()
        return found

    async def text(self) -> str:
        """Of a reply that is good."""
        events = await self.rest()
        assert isinstance(events[-1], StreamEnded), events[-1]
        return text(events)

    async def close(self) -> None:
        if self._blocks:
            await blocking(self.exchange.close)
        else:
            await self.exchange.aclose()


class Wire:
    """A transport of one kind."""

    def __init__(self, blocks: bool, **options: Any) -> None:
        self.blocks = blocks
        self.transport: Any = (WireTransport if blocks else AsyncWireTransport)(**options)

    def call(
        self,
        url: str,
        timeout: Timeout = PATIENT,
        *,
        total: float | None = None,
        proxy: str | None = None,
        question: str = "Hi",
    ) -> Call:
        messages = [{"role": "user", "content": question}]
        chat = ChatRequest(messages=messages, model=MODEL, stream=True)
        request = Endpoint.at(url).chat(chat, api_key="sk-secret")
        return Call(self, request, timeout, total, None if proxy is None else Proxy.parse(proxy))

    async def text(self, url: str, **how: Any) -> str:
        """Of one call."""
        return await self.call(url, **how).text()

    @property
    def connections(self) -> tuple[int, int]:
        found: tuple[int, int] = self.transport.connections()
        return found

    @property
    def pool(self) -> Pool | None:
        """None before the first call."""
        lines = self.transport if self.blocks else self.transport._lines.get(running_loop())
        return None if lines is None else lines.pool

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return 0 if self.pool is None else self.pool.waiting

    async def close(self) -> None:
        if self.blocks:
            await blocking(self.transport.close)
        else:
            await self.transport.aclose()


class WireKind:
    """A transport and a runtime."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.blocks = name == "sync"
        self.pushed = name in ("asyncio", "uvloop")

    def run(self, main: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        backend = "trio" if self.name == "trio" else "asyncio"
        options = {"use_uvloop": True} if self.name == "uvloop" else {}
        return anyio.run(main, *arguments, backend=backend, backend_options=options)

    @contextlib.asynccontextmanager
    async def wire(self, **options: Any) -> Any:
        """A transport, which is busy with nothing at the end."""
        wire = Wire(self.blocks, **options)
        try:
            yield wire
            assert wire.connections[0] == 0, "a connection is held"
        finally:
            await wire.close()


KINDS = {name: WireKind(name) for name in ("sync", "asyncio", "trio", "uvloop")}

# uvloop is a loop like asyncio's: where it may differ.
each_kind = pytest.mark.parametrize("kind", [KINDS[name] for name in ("sync", "asyncio", "trio")], ids=lambda k: k.name)
each_loop = pytest.mark.parametrize("kind", KINDS.values(), ids=lambda k: k.name)
each_async = pytest.mark.parametrize("kind", [KINDS["asyncio"], KINDS["trio"]], ids=lambda k: k.name)
each_pushed = pytest.mark.parametrize("kind", [KINDS["asyncio"], KINDS["uvloop"]], ids=lambda k: k.name)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until this holds. (Of what threads do there is no event to wait for.)"""
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.001)


# --- Servers ------------------------------------------------------------------------------------------

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
UNFRAMED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
FINISH = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'


def sized(body: bytes, status: bytes = b"200 OK", fields: bytes = b"") -> bytes:
    """A whole reply, framed by its length."""
    head = b"HTTP/1.1 %s\r\nContent-Type: text/event-stream\r\n%sContent-Length: %d\r\n\r\n"
    return head % (status, fields, len(body)) + body


def said(content: str) -> bytes:
    """A whole and good reply that says this."""
    return sized(event(content) + FINISH + DONE)


class Asked:
    """The reading side of a server's connection: one request after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""

    def head(self) -> bytes:
        """The next one's head; b"" when the client has gone."""
        while b"\r\n\r\n" not in self._received:
            data = self._connection.recv(65536)
            if not data:
                return b""
            self._received += data
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        lengths = (line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        self._left = int(next(lengths, 0))
        return head

    def body(self) -> int:
        """Its body: how many bytes that are."""
        length = self._left
        while len(self._received) < self._left:
            self._left -= len(self._received)
            self._received = b""
            data = self._connection.recv(1 << 20)
            if not data:
                raise ConnectionAbortedError("the client left in the midst of its request")
            self._received = data
        self._received = self._received[self._left :]
        return length

    def request(self) -> bytes:
        """The whole of it."""
        head = self.head()
        if head:
            self.body()
        return head


Script = Callable[[Any], object]


@contextlib.contextmanager
def scripted(*scripts: Script, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server whose connections follow these scripts, one each and all at a time, in TLS if there is a context; gives
    its base URL. What a script raises the block raises, but for errors of its connection."""
    threads: list[threading.Thread] = []
    errors: list[BaseException] = []

    def follow(script: Script, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            try:
                if context is not None:
                    connection = context.wrap_socket(connection, server_side=True)
                connection.settimeout(10)
                with connection:
                    script(connection)
            except OSError:
                raise
            except BaseException as error:
                errors.append(error)
            finally:
                connection.close()

    def serve() -> None:
        for script in scripts:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=follow, args=(script, connection), name="scripted server"))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener, beside(serve):
        try:
            yield f"http{'s' if context else ''}://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(15)
    assert not any(thread.is_alive() for thread in threads), "the server still waits"
    for error in errors:
        raise error
