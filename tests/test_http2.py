"""HTTP/2, against hypercorn."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from driving import HI, MODEL, Driver, Run, blocking, settled
from faults import event
from hypercorn.asyncio import serve
from hypercorn.config import Config

from deltawire import AsyncClient, Client, ConfigurationError, Timeout, TimeoutError
from deltawire.testing import ProxyServer

pytestmark = pytest.mark.usefixtures("_tidy")


class HTTP2Server:
    """Streams "ab" and [DONE]; for the model "stall" waits after that until the client goes."""

    def __init__(self, certificate: Path) -> None:
        # It listens from here on, whenever hypercorn is ready.
        listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        self._listener = listener.detach()
        self._certificate = str(certificate)
        self._stop: Callable[[], object] = lambda: None
        self.started = threading.Event()
        self.versions: list[str] = []
        self.gone = threading.Semaphore(0)
        """Released for each stream whose client went."""

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            self.started.set()
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.versions.append(scope["http_version"])
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        stalls = b'"stall"' in body
        kind = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        for data in (event("a"), event("b")):
            await send({"type": "http.response.body", "body": data, "more_body": True})
        if stalls:
            assert (await receive())["type"] == "http.disconnect"
            self.gone.release()
            return
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def main(self) -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(over.set)
        config = Config()
        config.bind = [f"fd://{self._listener}"]
        config.certfile = config.keyfile = self._certificate
        config.alpn_protocols = ["h2", "http/1.1"]
        config.graceful_timeout = 0.1
        config.accesslog = config.errorlog = None
        await serve(self._app, config, shutdown_trigger=over.wait)

    def stop(self) -> None:
        self._stop()


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("http2") / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


@pytest.fixture
def http2(certificate: Path) -> Iterator[HTTP2Server]:
    server = HTTP2Server(certificate)
    thread = threading.Thread(target=lambda: asyncio.run(server.main()))
    thread.start()
    assert server.started.wait(5)
    yield server
    server.stop()
    thread.join()


@pytest.fixture
def options(http2: HTTP2Server, trusting: Any) -> dict[str, Any]:
    return {"base_url": f"https://127.0.0.1:{http2.port}/v1", "verify": trusting, "http2": True, "max_retries": 0}


def test_a_stream(driver: Driver, http2: HTTP2Server, options: dict[str, Any]) -> None:
    heard = driver.stream(options)
    assert (heard.text, heard.error) == ("ab", None)
    assert http2.versions == ["2"]


def test_a_stream_through_a_tunnel(
    driver: Driver, http2: HTTP2Server, options: dict[str, Any], proxy: ProxyServer
) -> None:
    heard = driver.stream({**options, "proxies": proxy.url})
    assert (heard.text, heard.error) == ("ab", None)
    assert http2.versions == ["2"]


def test_no_field_in_a_log(driver: Driver, options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """The library that writes HTTP/2's fields tells them to its log; but not to who looks at everything."""
    caplog.set_level(logging.DEBUG)
    hpack = logging.getLogger("hpack")
    before = hpack.level
    hpack.setLevel(logging.NOTSET)
    fields = {"X-Api-Key": "key-5Nd8Gf3Kq1", "Cookie": "session=a-cookie-2Wm7Zr9Lt4Bs6"}
    given = {**options, "base_url": f"{options['base_url']}?key=query-6Vy1Xc8Jp"}
    try:
        assert driver.stream({**given, "api_key": "sk-4Ht7Sg2Mf9", "default_headers": fields}).text == "ab"
    finally:
        hpack.setLevel(before)
    assert "httpcore.http2" in {record.name for record in caplog.records}
    assert [part for part in ("4Ht7Sg", "5Nd8Gf", "2Wm7Zr", "6Vy1Xc") if part in caplog.text] == []


def test_http1_unless_asked(driver: Driver, http2: HTTP2Server, options: dict[str, Any]) -> None:
    assert driver.stream({**options, "http2": False}).text == "ab"
    assert http2.versions == ["1.1"]


def test_two_at_once_on_one_connection(http2: HTTP2Server, options: dict[str, Any], run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(**options) as client:
            first = await client.chat.completions.create(HI, MODEL, stream=True)
            texts: list[str] = []

            async def work() -> None:
                stream = client.chat.completions.create(HI, MODEL, stream=True)
                texts.append("".join([chunk.choices[0].delta.content or "" async for chunk in stream]))

            async with anyio.create_task_group() as group:
                group.start_soon(work)
                group.start_soon(work)
            texts.append("".join([chunk.choices[0].delta.content or "" async for chunk in first]))
            assert texts == ["ab"] * 3
            assert client.transport.connections() == (0, 1)  # type: ignore[attr-defined]

    run(main)
    assert http2.versions == ["2"] * 3


def test_two_at_once_in_one_thread(http2: HTTP2Server, options: dict[str, Any]) -> None:
    """On two connections: what blocks would wait for each other's deadlines."""
    with Client(**options) as client:
        streams = [client.chat.completions.create(HI, MODEL, stream=True) for _ in range(2)]
        pairs = zip(*streams, strict=True)
        assert [[chunk.choices[0].delta.content for chunk in pair] for pair in pairs] == [["a", "a"], ["b", "b"]]
        assert client.transport.connections() == (0, 2)  # type: ignore[attr-defined]
        for _ in range(3):
            assert text_of(client.chat.completions.create(HI, MODEL, stream=True)) == "ab"
        assert client.transport.connections() == (0, 2)  # type: ignore[attr-defined]


def text_of(chunks: Iterable[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def busy(client: Any) -> int:
    found: int = client.transport.connections()[0]
    return found


def test_an_early_end_closes_the_connection(http2: HTTP2Server, options: dict[str, Any]) -> None:
    """httpcore can't reset a single stream: if there is no other, the connection goes."""
    with Client(**options) as client:
        stream = client.chat.completions.create(HI, "stall", stream=True)
        next(stream)
        stream.close()
        assert client.transport.connections() == (0, 0)  # type: ignore[attr-defined]
        assert http2.gone.acquire(timeout=2)
        assert text_of(client.chat.completions.create(HI, MODEL, stream=True)) == "ab"


def test_an_early_end_leaves_the_others_alone(http2: HTTP2Server, options: dict[str, Any]) -> None:
    with Client(**options) as client:
        other = client.chat.completions.create(HI, MODEL, stream=True)
        early = client.chat.completions.create(HI, "stall", stream=True)
        next(other), next(early)
        early.close()
        assert http2.gone.acquire(timeout=2)
        assert client.transport.connections() == (1, 0)  # type: ignore[attr-defined]
        assert text_of(other) == "b"
        assert client.transport.connections() == (0, 1)  # type: ignore[attr-defined]
    assert http2.versions == ["2"] * 2


def test_async_an_early_end_closes_the_connection(run: Run, http2: HTTP2Server, options: dict[str, Any]) -> None:
    async def main() -> None:
        async with AsyncClient(**options) as client:
            async for _ in client.chat.completions.create(HI, "stall", stream=True):
                break
            # Dropped, not closed: the next request comes before its end, and is not taken along.
            stream = client.chat.completions.create(HI, MODEL, stream=True)
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "ab"
            assert await blocking(http2.gone.acquire, True, 2)
            assert await settled(lambda: busy(client) == 0)

    run(main)
    assert http2.versions == ["2"] * 2


def test_async_an_early_end_leaves_the_others_alone(run: Run, http2: HTTP2Server, options: dict[str, Any]) -> None:
    async def main() -> None:
        async with AsyncClient(**options) as client:
            other = await client.chat.completions.create(HI, MODEL, stream=True)
            early = await client.chat.completions.create(HI, "stall", stream=True)
            await early.__anext__()
            await early.aclose()
            assert client.transport.connections() == (1, 0)  # type: ignore[attr-defined]
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in other]) == "ab"
            assert client.transport.connections() == (0, 0)  # type: ignore[attr-defined]
            assert await blocking(http2.gone.acquire, True, 2)

    run(main)


def test_a_cancelled_reply_leaves_the_others_alone(run: Run, http2: HTTP2Server, options: dict[str, Any]) -> None:
    async def main() -> None:
        async with AsyncClient(**options) as client:
            other = await client.chat.completions.create(HI, "stall", stream=True)
            with anyio.move_on_after(0.1) as scope:
                async for _ in client.chat.completions.create(HI, "stall", stream=True):
                    pass
            assert scope.cancelled_caught
            assert (await other.__anext__()).choices[0].delta.content == "a"
            assert (await other.__anext__()).choices[0].delta.content == "b"
            await other.aclose()
            assert await settled(lambda: busy(client) == 0)

    run(main)


def test_one_that_idles_out_leaves_the_others_alone(run: Run, http2: HTTP2Server, options: dict[str, Any]) -> None:
    """In httpcore a read that times out ends all of a connection; ours is cancelled instead."""

    async def main() -> None:
        async with AsyncClient(**options) as client:
            other = await client.chat.completions.create(HI, "stall", stream=True)
            with pytest.raises(TimeoutError) as caught:
                async for _ in client.chat.completions.create(HI, "stall", stream=True, timeout=Timeout(idle=0.1)):
                    pass
            assert caught.value.deadline == "idle"
            assert (await other.__anext__()).choices[0].delta.content == "a"
            assert (await other.__anext__()).choices[0].delta.content == "b"
            await other.aclose()
            assert await settled(lambda: busy(client) == 0)

    run(main)


def test_deadlines_of_threads_are_their_own(http2: HTTP2Server, options: dict[str, Any]) -> None:
    late: list[float] = []

    def stalls(idle: float) -> None:
        limits = Timeout(idle=idle)
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            list(client.chat.completions.create(HI, "stall", stream=True, timeout=limits))
        late.append(time.monotonic() - begin - idle)

    with Client(**options) as client:
        threads = [threading.Thread(target=stalls, args=(idle,)) for idle in (0.1, 1.5, 0.2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(late) == 3
    assert max(late) < 1


def test_idle(driver: Driver, http2: HTTP2Server, options: dict[str, Any]) -> None:
    heard = driver.stream({**options, "timeout": Timeout(first_content=0.3, idle=0.3)}, model="stall")
    assert isinstance(heard.error, TimeoutError)
    assert heard.text == "ab"
    assert http2.gone.acquire(timeout=2)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"deltawire\[http2\]"):
        Client(http2=True)
