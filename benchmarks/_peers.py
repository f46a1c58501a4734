"""Everybody who can read a streamed reply, in one shape.

A peer is a context manager: entered with a base URL it sets up what a program keeps (a client, a pool), and
gives a function that asks once and reads the whole reply, counting in `Seen`. Each does what a program would
at the least do with a token: look at its text. The bare ones look at nothing and count pieces of the body.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import h11
import httpcore
import httpx
import httpx_sse
import openai
import trio
from _data import MODEL, READ

from deltawire import AsyncClient, AsyncStreamCall, Client, Stream, Timeout

_MESSAGES: Any = [{"role": "user", "content": "Tell me a story."}]
_WANTED: dict[str, Any] = {"messages": _MESSAGES, "model": MODEL, "stream": True}
_BODY = json.dumps(_WANTED).encode()
_HEADERS: Any = {"content-type": "application/json", "accept": "text/event-stream"}
_CHAT = "/chat/completions"
# What deltawire waits for at most; a program without time-outs is not the one to compare with.
# Each of them is set, so that each of them costs what it costs.
_ALL_DEADLINES = Timeout(connect=10, first_content=600, idle=120, total=3600)
_TIMEOUTS = {"timeout": {"connect": 10.0, "read": 120.0, "write": 120.0, "pool": 10.0}}
_KEY = "sk-not-a-key"


class Seen:
    """How many tokens one reader, or all readers of a run, have seen so far."""

    __slots__ = ("tokens",)

    def __init__(self) -> None:
        self.tokens = 0


Read = Callable[[Seen], None]
AsyncRead = Callable[[Seen], Awaitable[None]]
Peer = Callable[[str], AbstractContextManager[Read]]
AsyncPeer = Callable[[str], AbstractAsyncContextManager[AsyncRead]]


def _see(data: str | bytes, seen: Seen) -> bool:
    """What a hand-written client does with the data of an event; False for the end."""
    if data in ("[DONE]", b"[DONE]"):
        return False
    if json.loads(data)["choices"][0]["delta"].get("content"):
        seen.tokens += 1
    return True


def _raw_request(url: str) -> tuple[str, int, bytes]:
    """Host, port, and the request as bytes."""
    parts = urlsplit(url)
    head = (
        f"POST {parts.path}{_CHAT} HTTP/1.1\r\nhost: {parts.netloc}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(_BODY)}\r\n\r\n"
    )
    return parts.hostname or "", parts.port or 80, head.encode() + _BODY


class _H11:
    """What is between the bytes of a socket and the pieces of a body, at the least."""

    def __init__(self) -> None:
        self._parser = h11.Connection(h11.CLIENT)
        # The request is ready as bytes; that there was one is all that has to be known.
        self._parser.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
        self._parser.send(h11.EndOfMessage())

    def receive(self, data: bytes, seen: Seen) -> bool:
        """Whether the reply is over."""
        parser = self._parser
        parser.receive_data(data)
        while (event := parser.next_event()) is not h11.NEED_DATA:
            if type(event) is h11.Data:
                seen.tokens += 1
            elif type(event) is h11.EndOfMessage:
                return True
        return False


@contextlib.contextmanager
def bare_httpcore(url: str) -> Iterator[Read]:
    with httpcore.ConnectionPool() as pool:

        def read(seen: Seen) -> None:
            with pool.stream("POST", url + _CHAT, headers=_HEADERS, content=_BODY, extensions=_TIMEOUTS) as reply:
                for _ in reply.iter_stream():
                    seen.tokens += 1

        yield read


@contextlib.contextmanager
def bare_h11(url: str) -> Iterator[Read]:
    host, port, request = _raw_request(url)

    def read(seen: Seen) -> None:
        parser = _H11()
        with socket.create_connection((host, port)) as sock:
            sock.sendall(request)
            while not parser.receive(sock.recv(READ), seen):
                pass

    yield read


@contextlib.contextmanager
def asking(url: str, transport: str) -> Iterator[Callable[[], Stream]]:
    """A client of deltawire's: what asks, and gives the stream."""
    with Client(base_url=url, api_key=_KEY, timeout=_ALL_DEADLINES, transport=transport) as client:
        yield lambda: client.chat.completions.create(messages=_MESSAGES, model=MODEL, stream=True)


@contextlib.contextmanager
def deltawire(url: str, transport: str = "httpcore") -> Iterator[Read]:
    with asking(url, transport) as ask:

        def read(seen: Seen) -> None:
            for chunk in ask():
                if chunk.choices[0].delta.content:
                    seen.tokens += 1

        yield read


def wire(url: str) -> AbstractContextManager[Read]:
    return deltawire(url, "wire")


@contextlib.contextmanager
def httpx_with_sse(url: str) -> Iterator[Read]:
    with httpx.Client(timeout=120.0) as client:

        def read(seen: Seen) -> None:
            with httpx_sse.connect_sse(client, "POST", url + _CHAT, json=_WANTED) as source:
                for event in source.iter_sse():
                    if not _see(event.data, seen):
                        break

        yield read


@contextlib.contextmanager
def openai_sdk(url: str) -> Iterator[Read]:
    with openai.OpenAI(base_url=url, api_key=_KEY, max_retries=0) as client:

        def read(seen: Seen) -> None:
            for chunk in client.chat.completions.create(messages=_MESSAGES, model=MODEL, stream=True):
                if chunk.choices[0].delta.content:
                    seen.tokens += 1

        yield read


@contextlib.asynccontextmanager
async def abare_httpcore(url: str, extensions: dict[str, Any] = _TIMEOUTS) -> AsyncIterator[AsyncRead]:
    async with httpcore.AsyncConnectionPool(max_connections=None) as pool:

        async def read(seen: Seen) -> None:
            reply = pool.stream("POST", url + _CHAT, headers=_HEADERS, content=_BODY, extensions=extensions)
            async with reply as response:
                async for _ in response.aiter_stream():
                    seen.tokens += 1

        yield read


def abare_httpcore_without_timeouts(url: str) -> AbstractAsyncContextManager[AsyncRead]:
    return abare_httpcore(url, {})


@contextlib.asynccontextmanager
async def aasking(url: str, transport: str) -> AsyncIterator[Callable[[], AsyncStreamCall]]:
    """As `asking`."""
    async with AsyncClient(base_url=url, api_key=_KEY, timeout=_ALL_DEADLINES, transport=transport) as client:
        yield lambda: client.chat.completions.create(messages=_MESSAGES, model=MODEL, stream=True)


@contextlib.asynccontextmanager
async def adeltawire(url: str, transport: str = "httpcore") -> AsyncIterator[AsyncRead]:
    async with aasking(url, transport) as ask:

        async def read(seen: Seen) -> None:
            async for chunk in ask():
                if chunk.choices[0].delta.content:
                    seen.tokens += 1

        yield read


def awire(url: str) -> AbstractAsyncContextManager[AsyncRead]:
    return adeltawire(url, "wire")


@contextlib.asynccontextmanager
async def ahttpx_with_sse(url: str) -> AsyncIterator[AsyncRead]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=120.0, limits=limits) as client:

        async def read(seen: Seen) -> None:
            async with httpx_sse.aconnect_sse(client, "POST", url + _CHAT, json=_WANTED) as source:
                async for event in source.aiter_sse():
                    # Read to the end: httpx leaves its generators open when trio readers stop before.
                    _see(event.data, seen)

        yield read


@contextlib.asynccontextmanager
async def aopenai_sdk(url: str) -> AsyncIterator[AsyncRead]:
    async with openai.AsyncOpenAI(base_url=url, api_key=_KEY, max_retries=0) as client:

        async def read(seen: Seen) -> None:
            stream = await client.chat.completions.create(messages=_MESSAGES, model=MODEL, stream=True)
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    seen.tokens += 1

        yield read


@contextlib.asynccontextmanager
async def aaiohttp(url: str) -> AsyncIterator[AsyncRead]:
    """aiohttp, and by hand what many programs do: split at blank lines, ``json.loads``."""
    timeout = aiohttp.ClientTimeout(total=None, sock_read=120.0)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:

        async def read(seen: Seen) -> None:
            async with session.post(url + _CHAT, data=_BODY, headers=_HEADERS) as reply:
                rest = b""
                async for data in reply.content.iter_any():
                    *events, rest = (rest + data).split(b"\n\n")
                    for event in events:
                        if event.startswith(b"data: "):
                            _see(event[6:], seen)

        yield read


class Reader(asyncio.Protocol):
    """Sends the request, and waits until the reply is over."""

    def __init__(self, request: bytes, seen: Seen) -> None:
        self._request = request
        self.seen = seen
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.finish()

    def finish(self) -> None:
        """It is."""
        if not self.over.done():
            self.over.set_result(None)


class _RawReader(Reader):
    """Bytes that come in, and nothing else."""

    def data_received(self, data: bytes) -> None:
        self.seen.tokens += data.count(b"data: {")
        if data.endswith(b"0\r\n\r\n"):
            self.finish()


class _H11Reader(Reader):
    """Bytes that come in, and what h11 makes of them."""

    def __init__(self, request: bytes, seen: Seen) -> None:
        super().__init__(request, seen)
        self._parser = _H11()

    def data_received(self, data: bytes) -> None:
        if self._parser.receive(data, self.seen):
            self.finish()


@contextlib.asynccontextmanager
async def by_protocol(url: str, kind: Callable[[bytes, Seen], Reader]) -> AsyncIterator[AsyncRead]:
    """What the raw protocols have in common; ``kind``: makes one, of the request and of who counts."""
    host, port, request = _raw_request(url)

    async def read(seen: Seen) -> None:
        loop = asyncio.get_running_loop()
        transport, reader = await loop.create_connection(lambda: kind(request, seen), host, port)
        try:
            await reader.over
        finally:
            transport.abort()

    yield read


def raw_protocol(url: str) -> AbstractAsyncContextManager[AsyncRead]:
    return by_protocol(url, _RawReader)


def h11_protocol(url: str) -> AbstractAsyncContextManager[AsyncRead]:
    return by_protocol(url, _H11Reader)


@contextlib.asynccontextmanager
async def raw_trio(url: str) -> AsyncIterator[AsyncRead]:
    """A trio stream: bytes that come in, and nothing else."""
    host, port, request = _raw_request(url)

    async def read(seen: Seen) -> None:
        async with await trio.open_tcp_stream(host, port) as stream:
            await stream.send_all(request)
            while data := await stream.receive_some():
                seen.tokens += data.count(b"data: {")
                if data.endswith(b"0\r\n\r\n"):
                    break

    yield read


@contextlib.asynccontextmanager
async def h11_trio(url: str) -> AsyncIterator[AsyncRead]:
    """A trio stream, and what h11 makes of its bytes."""
    host, port, request = _raw_request(url)

    async def read(seen: Seen) -> None:
        parser = _H11()
        async with await trio.open_tcp_stream(host, port) as stream:
            await stream.send_all(request)
            while not parser.receive(await stream.receive_some(), seen):
                pass

    yield read
