"""Keeping connections: when they go back, when not, and what becomes of one that died while it was kept."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

import anyio
import pytest
from driving import HI, MODEL, Driver, shown, usual
from faults import HEAD, chunk, event

from deltawire import AsyncClient, Client, MalformedEventError, ReadError, Timeout, TruncatedStreamError
from deltawire.testing import Answer, ChatServer, ProxyServer
from deltawire.transports._options import Options

pytestmark = pytest.mark.usefixtures("_tidy", "transports")

GOOD = event("Hel") + event("lo") + b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
LAST_CHUNK = b"0\r\n\r\n"

# What a server does with one request: a function of its connection, which closes when that gives False.
Deed = Callable[[socket.socket], bool]


class ScriptedServer:
    """Does one deed a request, in order, on as many connections as come; then the last one for ever."""

    def __init__(self, *deeds: Deed) -> None:
        self._deeds = list(deeds)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._open: set[socket.socket] = set()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self.connections = 0
        self.requests: list[int] = []
        """For each request, on which connection it came."""
        self.ended = threading.Semaphore(0)
        """Released when a connection has ended."""

    def __enter__(self) -> ScriptedServer:
        self._threads[0].start()
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.connections += 1
                self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection, self.connections))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection, contextlib.suppress(OSError):
            while _read_request(connection):
                with self._lock:
                    self.requests.append(number)
                    deed = self._deeds.pop(0) if len(self._deeds) > 1 else self._deeds[0]
                if not deed(connection):
                    break
        with self._lock:
            self._open.discard(connection)
        self.ended.release()


def _read_request(connection: socket.socket) -> bool:
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(65536)
        if not data:
            return False
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    (length,) = (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(65536)
    return True


def says(*pieces: bytes, pause: float = 0.0, keep: bool = True) -> Deed:
    """Send these, with a pause before the last of several."""

    def deed(connection: socket.socket) -> bool:
        for number, piece in enumerate(pieces):
            if number and number == len(pieces) - 1:
                time.sleep(pause)
            connection.sendall(piece)
        return keep

    return deed


def resets(connection: socket.socket) -> bool:
    """Close by RST: with bytes that nobody read, or as told."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    return False


def closes(connection: socket.socket) -> bool:
    return False


WHOLE = HEAD + chunk(GOOD) + chunk(DONE)
answers = says(WHOLE + LAST_CHUNK)


def five_streams(driver: str, url: str, texts: list[str], pauses: list[float], **options: object) -> tuple[int, int]:
    """Five streams one after the other; gives the connections at the end: busy, idle. ``pauses`` gets how long each
    took after its last token."""

    def client_options() -> dict[str, object]:
        return {"base_url": url, "max_retries": 0, "timeout": 5, **options}

    def sync() -> tuple[int, int]:
        with Client(**client_options()) as client:  # type: ignore[arg-type]
            for _ in range(5):
                text, last = "", 0.0
                for piece in client.chat.completions.create(HI, MODEL, stream=True):
                    text += piece.choices[0].delta.content or ""
                    last = time.monotonic()
                texts.append(text)
                pauses.append(time.monotonic() - last)
            return client.transport.connections()  # type: ignore[attr-defined, no-any-return]

    async def main() -> tuple[int, int]:
        async with AsyncClient(**client_options()) as client:  # type: ignore[arg-type]
            for _ in range(5):
                text, last = "", 0.0
                async for piece in client.chat.completions.create(HI, MODEL, stream=True):
                    text += piece.choices[0].delta.content or ""
                    last = time.monotonic()
                texts.append(text)
                pauses.append(time.monotonic() - last)
            return client.transport.connections()  # type: ignore[attr-defined, no-any-return]

    return sync() if driver == "sync" else anyio.run(main, backend=driver)


each_runtime = pytest.mark.parametrize("runtime", ["sync", "asyncio", "trio"])


# --- What comes after [DONE] --------------------------------------------------------------------------


@each_runtime
@pytest.mark.parametrize(
    "deed",
    [
        pytest.param(answers, id="with it"),
        pytest.param(says(WHOLE, LAST_CHUNK, pause=0.02), id="20 ms later"),
        pytest.param(says(WHOLE + LAST_CHUNK[:3], LAST_CHUNK[3:], pause=0.02), id="in two halves"),
        pytest.param(says(WHOLE + chunk(b": bye\n\n"), LAST_CHUNK, pause=0.02), id="after a comment"),
        pytest.param(says(WHOLE + b"0\r\nx-trailer: 1\r\n", b"\r\n", pause=0.02), id="with trailers"),
    ],
)
def test_five_streams_use_one_connection(runtime: str, deed: Deed) -> None:
    texts: list[str] = []
    with ScriptedServer(deed) as server:
        assert five_streams(runtime, server.url, texts, []) == (0, 1)
        assert server.connections == 1
        assert server.requests == [1] * 5
    assert texts == ["Hello"] * 5


@each_runtime
def test_a_last_chunk_that_never_comes(runtime: str) -> None:
    """It costs 100 ms, and a new connection."""
    texts: list[str] = []
    pauses: list[float] = []
    with ScriptedServer(says(WHOLE)) as server:
        assert five_streams(runtime, server.url, texts, pauses) == (0, 0)
        assert server.requests == [1, 2, 3, 4, 5]
        for _ in range(5):
            assert server.ended.acquire(timeout=1)
    assert texts == ["Hello"] * 5
    assert all(0.09 < each < 1 for each in pauses), pauses


@each_runtime
def test_an_endless_rest_is_not_read(runtime: str) -> None:
    def floods(connection: socket.socket) -> bool:
        connection.sendall(WHOLE)
        while True:
            connection.sendall(chunk(b": more and more\n\n" * 1000))

    texts: list[str] = []
    pauses: list[float] = []
    with ScriptedServer(floods) as server:
        assert five_streams(runtime, server.url, texts, pauses) == (0, 0)
        assert server.connections == 5
    assert texts == ["Hello"] * 5
    assert max(pauses) < 1


# --- Connections that died while they were kept --------------------------------------------------------


GIVEN_UP = {"closes": closes, "resets": resets}


@each_runtime
@pytest.mark.parametrize("how", GIVEN_UP)
def test_a_request_on_a_dead_connection_is_sent_again(runtime: str, how: str) -> None:
    """The server reads it, and ends the connection without a word, as if it had been about to: no retry is used up."""
    texts: list[str] = []
    with ScriptedServer(answers, GIVEN_UP[how], answers, GIVEN_UP[how], answers) as server:
        assert five_streams(runtime, server.url, texts, []) == (0, 1)
        assert server.requests == [1, 1, 2, 2, 3, 3, 3]
    assert texts == ["Hello"] * 5


@each_runtime
def test_it_is_sent_again_once(runtime: str) -> None:
    """A new connection that ends the same way is a failure, hence a retry."""
    with ScriptedServer(answers, closes, closes, answers) as server:
        outcome = _two(runtime, server.url)
        assert isinstance(outcome, ReadError)
        assert outcome.retries_taken == 0
        assert server.requests == [1, 1, 2]


@each_runtime
@pytest.mark.parametrize("words", [b"H", b"HTTP/1.1 200 OK\r\n", HEAD[:-1]])
def test_an_answer_that_has_begun_is_not_asked_for_again(runtime: str, words: bytes) -> None:
    with ScriptedServer(answers, says(words, keep=False), answers) as server:
        assert isinstance(_two(runtime, server.url), ReadError)
        assert server.requests == [1, 1]


@each_runtime
def test_a_new_connection_is_not_a_kept_one(runtime: str) -> None:
    with ScriptedServer(closes, answers) as server:
        assert isinstance(_two(runtime, server.url), ReadError)
        assert server.requests == [1]


def _two(runtime: str, url: str, **options: object) -> BaseException | None:
    """Two calls on one client, of which the first should do; gives the first error."""
    texts: list[str] = []
    try:
        five_streams(runtime, url, texts, [], **options)
    except Exception as error:
        return error
    return None


@each_runtime
def test_silence_on_a_kept_connection_is_a_timeout(runtime: str) -> None:
    """Who doesn't answer may be thinking."""

    def thinks(connection: socket.socket) -> bool:
        connection.recv(1)
        return False

    with ScriptedServer(answers, thinks, answers) as server:
        outcome = _two(runtime, server.url, timeout=Timeout(first_content=0.2))
        assert type(outcome).__name__ == "TimeoutError"
        assert server.requests == [1, 1]


def test_all_that_were_kept_as_long_are_forgotten() -> None:
    """Five connections die with their server; one request finds out, and the next one is sent on a new one."""
    gate = threading.Barrier(5)

    def together(connection: socket.socket) -> bool:
        gate.wait(5)
        return answers(connection)

    with (
        ScriptedServer(*[together] * 5, closes, answers) as server,
        Client(base_url=server.url, max_retries=0) as client,
    ):

        def ask() -> None:
            client.chat.completions.create(HI, MODEL)

        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.transport.connections() == (0, 5)  # type: ignore[attr-defined]
        ask()
        assert server.connections == 6
        assert client.transport.connections() == (0, 1)  # type: ignore[attr-defined]


@each_runtime
def test_a_connection_that_ended_while_idle_is_not_used(runtime: str) -> None:
    """What the system knows already costs no request."""
    texts: list[str] = []
    with ScriptedServer(says(WHOLE + LAST_CHUNK, keep=False)) as server:
        assert five_streams(runtime, server.url, texts, [])[0] == 0
        assert len(server.requests) in range(5, 10)
    assert texts == ["Hello"] * 5


def test_after_a_pause_it_is_known_to_be_dead(driver: Driver) -> None:
    def sync(url: str) -> None:
        with Client(base_url=url, max_retries=0) as client:
            client.chat.completions.create(HI, MODEL)
            assert server.ended.acquire(timeout=5)
            client.chat.completions.create(HI, MODEL)

    async def main(url: str) -> None:
        async with AsyncClient(base_url=url, max_retries=0) as client:
            await client.chat.completions.create(HI, MODEL)
            await anyio.to_thread.run_sync(server.ended.acquire)
            await client.chat.completions.create(HI, MODEL)

    with ScriptedServer(says(WHOLE + LAST_CHUNK, keep=False)) as server:
        if driver.name == "sync":
            sync(server.url)
        else:
            anyio.run(main, server.url, backend=driver.name)
        assert server.requests == [1, 2], "no request was lost on the dead one"


# --- Replies that speak against their connection --------------------------------------------------------

BROKEN = {
    "malformed": (chunk(event("a")) + chunk(b"data: {oops}\n\n") + LAST_CHUNK, MalformedEventError),
    "truncated": (chunk(event("a")) + LAST_CHUNK, TruncatedStreamError),
    "empty": (LAST_CHUNK, TruncatedStreamError),
}


@each_runtime
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_reply_ends_its_connection(runtime: str, how: str) -> None:
    """However well its HTTP ends: who writes such replies may write anything after them."""
    body, kind = BROKEN[how]

    def sync(url: str) -> None:
        with Client(base_url=url, max_retries=0) as client:
            with pytest.raises(kind):
                list(client.chat.completions.create(HI, MODEL, stream=True))
            assert server.ended.acquire(timeout=1)
            assert client.transport.connections() == (0, 0)  # type: ignore[attr-defined]
            client.chat.completions.create(HI, MODEL)

    async def main(url: str) -> None:
        async with AsyncClient(base_url=url, max_retries=0) as client:
            with pytest.raises(kind):
                [each async for each in client.chat.completions.create(HI, MODEL, stream=True)]
            assert await anyio.to_thread.run_sync(server.ended.acquire, True, 1)
            assert client.transport.connections() == (0, 0)  # type: ignore[attr-defined]
            await client.chat.completions.create(HI, MODEL)

    with ScriptedServer(says(HEAD + body), answers) as server:
        if runtime == "sync":
            sync(server.url)
        else:
            anyio.run(main, server.url, backend=runtime)
        assert server.requests == [1, 2]


def test_an_error_of_the_server_keeps_it(driver: Driver, server: ChatServer) -> None:
    server.plan(Answer.error(503, retry_after=0))
    assert driver.stream({"base_url": server.url, "max_retries": 1}).text == "Hello"
    assert server.connections == 1


# --- How long they are kept ---------------------------------------------------------------------------


def test_they_are_kept_for_a_minute() -> None:
    assert Options().keepalive_expiry == 60


def test_expiry(server: ChatServer) -> None:
    transport = usual().blocking(keepalive_expiry=0.05)
    with Client(base_url=server.url, transport=transport) as client:
        client.chat.completions.create(HI, MODEL)
        client.chat.completions.create(HI, MODEL)
        assert server.connections == 1
        time.sleep(0.06)  # what is tested is that time passes
        client.chat.completions.create(HI, MODEL)
        assert server.connections == 2
    transport.close()


def test_a_tunnel_is_kept(driver: Driver, tls_server: ChatServer, proxy: ProxyServer, trusting: object) -> None:
    texts: list[str] = []
    options = {"proxies": proxy.url, "verify": trusting}
    assert five_streams(driver.name, tls_server.url, texts, [], **options) == (0, 1)
    assert len(proxy.requests) == 1
    assert texts == ["Hello"] * 5


def test_no_secret_in_what_is_said_of_a_dead_one(driver: Driver) -> None:
    with ScriptedServer(answers, closes, closes, answers) as server:
        outcome = _two(driver.name, server.url, api_key="sk-very-secret")
        assert outcome is not None
        assert "sk-very-secret" not in shown(outcome)
