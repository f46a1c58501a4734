"""`Client`: what people type, and what arrives at the server."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest
from driving import HI, MODEL, usual
from programs import run_program

from deltawire import Client, ConfigurationError, Message, Stream, UsageError, __version__
from deltawire.testing import Answer, ChatServer, ProxyServer

pytestmark = pytest.mark.usefixtures("_tidy", "transports")


def text_of(stream: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_the_classic_program(server: ChatServer, proxy: ProxyServer) -> None:
    """As it stands in a thousand scripts: nothing is closed, and nothing complains."""
    printed = run_program(
        """
        import sys
        from deltawire import Client

        base_url, proxy = sys.argv[1:]
        client = Client(
            base_url=base_url,
            api_key="sk-1",
            proxies={"http": proxy, "https": proxy},
        )
        messages = [{"role": "user", "content": "Hello"}]

        for message in client.chat.completions.create(model="gpt-3.5-turbo", messages=messages, stream=True):
            print(message.choices[0].delta.content or "")

        completion = client.chat.completions.create(model="gpt-3.5-turbo", messages=messages)
        print(completion.choices[0].message.content)
        """,
        server.url,
        proxy.url,
    )
    assert printed.split() == ["Hel", "lo", "Hello"]
    assert len(proxy.requests) == 2
    assert all(each.authorized and each.target.startswith(server.url) for each in proxy.requests)
    assert all(each.header("via") for each in server.requests)
    assert server.requests[0].json() == {
        "model": "gpt-3.5-turbo",
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": True,
    }


def test_a_stream(server: ChatServer) -> None:
    with Client(base_url=server.url) as client:
        stream = client.chat.completions.create(HI, MODEL, stream=True)
        assert isinstance(stream, Stream)
        assert stream.request_id == "req_1"
        assert stream.retries_taken == 0
        assert dict(stream.headers)[b"x-request-id"] == b"req_1"
        chunks = list(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello"
        assert chunks[0].model == MODEL
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert next(stream, None) is None
        partial = stream.partial()
        assert partial is not None
        assert partial.choices[0].message.content == "Hello"


def test_a_completion(server: ChatServer) -> None:
    with Client(base_url=server.url) as client:
        completion = client.chat.completions.create(messages="Hi", model=MODEL, stream=False)
        assert completion.choices[0].message.content == "Hello"
        assert completion.choices[0].finish_reason == "stop"
        assert completion.usage is not None
        assert completion.usage.completion_tokens == 2


def test_models(server: ChatServer) -> None:
    with Client(base_url=server.url, api_key="sk-1") as client:
        models = client.models.list(extra_headers={"x-mine": "1"})
        assert [model.id for model in models.data] == [MODEL]
    (request,) = server.requests
    assert (request.method, request.target, request.body) == ("GET", "/v1/models", b"")
    assert request.header("authorization") == "Bearer sk-1"
    assert request.header("accept") == "application/json"
    assert request.header("x-mine") == "1"


def test_usage_at_the_end_of_a_stream(server: ChatServer) -> None:
    with Client(base_url=server.url) as client:
        chunks = list(client.chat.completions.create(HI, MODEL, stream=True, stream_options={"include_usage": True}))
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None


def test_going_on_after_a_break(server: ChatServer) -> None:
    with Client(base_url=server.url) as client:
        stream = client.chat.completions.create(HI, MODEL, stream=True)
        text = ""
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            if text:
                break
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
        assert text == "Hello"


def test_closed_is_closed(server: ChatServer) -> None:
    client = Client(base_url=server.url)
    with client:
        assert client.chat.completions.create(HI, MODEL).choices
    client.close()
    with pytest.raises(UsageError, match="closed"):
        client.chat.completions.create(HI, MODEL, stream=True)
    with pytest.raises(UsageError, match="closed"):
        client.models.list()


def test_a_client_that_nobody_holds(server: ChatServer) -> None:
    text = ""
    for chunk in Client(base_url=server.url).chat.completions.create(HI, MODEL, stream=True):
        gc.collect()
        text += chunk.choices[0].delta.content or ""
    assert text == "Hello"
    client = Client(base_url="http://127.0.0.1:9/v1").with_options(base_url=server.url)
    gc.collect()
    assert client.chat.completions.create(HI, MODEL).choices[0].message.content == "Hello"
    assert Client(base_url=server.url).models.list().data
    del client
    server.wait_closed(1)


def test_with_options_shares_connections(server: ChatServer) -> None:
    with Client(base_url=server.url, api_key="sk-1") as client:
        other = client.with_options(api_key="sk-2", max_retries=0)
        client.chat.completions.create(HI, MODEL)
        other.chat.completions.create(HI, MODEL)
        assert client.transport is other.transport
    assert server.connections == 1
    assert [each.header("authorization") for each in server.requests] == ["Bearer sk-1", "Bearer sk-2"]
    with pytest.raises(UsageError):
        other.models.list()


def test_a_transport_of_ones_own_is_not_closed(server: ChatServer) -> None:
    transport = usual().blocking()
    client = Client(base_url=server.url, transport=transport)
    client.chat.completions.create(HI, MODEL)
    del client
    gc.collect()
    assert transport.connections() == (0, 1)
    assert Client(base_url=server.url, transport=transport).models.list().data
    assert server.connections == 1
    transport.close()


# --- What arrives -------------------------------------------------------------------------------------


def test_the_head(server: ChatServer) -> None:
    options: dict[str, Any] = {"api_key": "sk-1", "organization": "org-1", "project": "proj-1"}
    with Client(base_url=server.url, **options) as client:
        list(client.chat.completions.create(HI, MODEL, stream=True))
        client.chat.completions.create(HI, MODEL)
    first, second = server.requests
    assert dict(first.headers) == {
        b"host": f"127.0.0.1:{server.port}".encode(),
        b"accept-encoding": b"identity",
        b"user-agent": f"deltawire/{__version__}".encode(),
        b"openai-organization": b"org-1",
        b"openai-project": b"proj-1",
        b"authorization": b"Bearer sk-1",
        b"accept": b"text/event-stream",
        b"content-type": b"application/json",
        b"content-length": str(len(first.body)).encode(),
    }
    assert len(first.headers) == 9
    assert second.header("accept") == "application/json"
    assert first.target == "/v1/chat/completions"


def test_the_body(server: ChatServer) -> None:
    message = Message(role="assistant", content="Héllo 👋")
    with Client(base_url=server.url) as client:
        client.chat.completions.create(
            [*HI, message],
            MODEL,
            temperature=0,
            stop="",
            n=None,
            store=False,
            tools=[{"type": "function", "function": {"name": "f"}}],
            extra_body={"top_k": 5, "temperature": 1},
        )
    body = server.requests[0].json()
    assert body.pop("messages")[1]["content"] == "Héllo 👋"
    assert body == {
        "model": MODEL,
        "temperature": 1,
        "stop": "",
        "store": False,
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "top_k": 5,
    }


def test_headers_and_query(server: ChatServer) -> None:
    options: dict[str, Any] = {
        "default_headers": {"x-a": "1", "x-b": "1", "user-agent": "mine"},
        "default_query": {"q": "1", "r": "1"},
    }
    with Client(base_url=server.url, api_key="sk-1", **options) as client:
        client.chat.completions.create(
            HI,
            MODEL,
            extra_headers={"X-B": "2", "Authorization": "Basic x", "x-a": None},
            extra_query={"r": "2", "s": [1, 2]},
        )
    (request,) = server.requests
    assert request.header("x-a") is None
    assert request.header("x-b") == "2"
    assert request.header("user-agent") == "mine"
    assert request.header("authorization") == "Basic x"
    assert request.target == "/v1/chat/completions?q=1&r=2&s=1&s=2"


def test_a_key_of_another_kind(server: ChatServer) -> None:
    with Client(base_url=server.url, default_headers={"api-key": "azure"}) as client:
        client.models.list()
    assert server.requests[0].header("api-key") == "azure"
    assert server.requests[0].header("authorization") is None


@pytest.mark.parametrize(
    ("suffix", "target"),
    [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("/chat/completions", "/v1/chat/completions"),
        ("?api-version=1", "/v1/chat/completions?api-version=1"),
        ("/deployments/x/?api-version=1", "/v1/deployments/x/chat/completions?api-version=1"),
    ],
)
def test_base_url(server: ChatServer, suffix: str, target: str) -> None:
    with Client(base_url=server.url + suffix) as client:
        client.chat.completions.create(HI, MODEL)
    assert server.requests[0].target == target


def test_models_under_a_base_url_with_a_query(server: ChatServer) -> None:
    with Client(base_url=server.url + "/?api-version=1") as client:
        client.models.list()
    assert server.requests[0].target == "/v1/models?api-version=1"


def test_a_key_is_asked_for_anew(server: ChatServer) -> None:
    keys = iter(["sk-1", "sk-2", "sk-3"])
    server.plan(Answer.error(503, retry_after=0.01))
    with Client(base_url=server.url, api_key=lambda: next(keys)) as client:
        client.chat.completions.create(HI, MODEL)
        client.models.list()
    assert [each.header("authorization") for each in server.requests] == [f"Bearer sk-{n}" for n in (1, 2, 3)]


def test_a_key_that_would_have_to_be_awaited(server: ChatServer) -> None:
    async def key() -> str:
        return "sk-1"

    with Client(base_url=server.url, api_key=key) as client, pytest.raises(ConfigurationError, match="AsyncClient"):
        client.models.list()


def test_a_key_that_raises(server: ChatServer) -> None:
    def key() -> str:
        raise LookupError("no key today")

    with Client(base_url=server.url, api_key=key) as client, pytest.raises(LookupError):
        client.models.list()
    assert server.connections == 0


# --- Threads ------------------------------------------------------------------------------------------


def test_eight_threads(server: ChatServer) -> None:
    tokens = [f" {number}" for number in range(200)]
    server.plan(*[Answer(tokens=tokens, pace=0.0005)] * 24)
    heard: list[str] = []
    together = threading.Barrier(8)

    def work(client: Client) -> None:
        together.wait(5)
        heard.extend([text_of(client.chat.completions.create(HI, MODEL, stream=True)) for _ in range(3)])

    with Client(base_url=server.url, max_retries=0) as client:
        threads = [threading.Thread(target=work, args=(client,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert heard == ["".join(tokens)] * 24
        assert client.transport.connections() == (0, 8)  # type: ignore[attr-defined]
    assert server.connections == 8
