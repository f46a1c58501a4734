"""`deltawire.testing.ChatServer`: models, images, keys, reasoning and tool calls, as OpenAI's API has them."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from asking import CHAT, ask, events
from driving import HI

from deltawire import Client
from deltawire.protocol import accumulate
from deltawire.testing import Answer, ChatServer

IMAGES = "/v1/images/generations"
CALLS: list[dict[str, Any]] = [
    {"name": "get_weather", "arguments": ['{"city":', '"Os/lø"}'], "id": "call_mine"},
    {"name": "now", "arguments": {"zone": "CET"}},
    {"name": "stop"},
    {"name": "text", "arguments": "{}"},
]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(tokens=["a", " b"]) as running:
        yield running


def pixel(data: bytes) -> bytes:
    """Read a PNG of one pixel, with every check there is; returns its colour."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, data = {}, data[8:]
    while data:
        size, kind = struct.unpack(">I4s", data[:8])
        chunks[kind] = data[8 : 8 + size]
        assert struct.unpack(">I", data[8 + size : 12 + size])[0] == zlib.crc32(kind + chunks[kind])
        data = data[12 + size :]
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    assert chunks[b"IHDR"] == b"\0\0\0\1\0\0\0\1\x08\2\0\0\0"
    row = zlib.decompress(chunks[b"IDAT"])
    assert (len(row), row[0]) == (4, 0)
    return row[1:]


# Models


def test_models_of_several_kinds() -> None:
    models: list[Any] = ["plain", {"id": "flux", "type": "image"}, {"id": "eye", "supports_vision": True, "created": 1}]
    with ChatServer(models=models) as server:
        models[1]["id"] = "changed"
        data = json.loads(ask(server, path="/v1/models", method="GET")[2])["data"]
        assert [model["id"] for model in data] == ["plain", "flux", "eye"]
        assert all({"id", "object", "created", "owned_by"} <= set(model) for model in data)
        assert (data[1]["type"], data[2]["supports_vision"], data[2]["created"]) == ("image", True, 1)
        assert json.loads(ask(server, {})[2])["model"] == "local-model"  # of a chat that names none
    with ChatServer(models=[]) as server:
        assert json.loads(ask(server, path="/v1/models", method="GET")[2])["data"] == []


def test_one_model() -> None:
    with ChatServer(models=["plain", {"id": "some/flux", "type": "image"}], api_key="k") as server:

        def get(path: str, key: str = "k") -> tuple[int, Any]:
            status, _, body = ask(server, path=path, method="GET", authorization=f"Bearer {key}")
            return status, json.loads(body)

        listed = get("/v1/models")[1]["data"]
        assert get("/v1/models/plain") == (200, listed[0])
        assert get("/v1/models/some/flux") == get("/v1/models/some%2Fflux") == (200, listed[1])
        status, body = get("/v1/models/other")
        assert status == 404
        assert (body["error"]["param"], body["error"]["code"]) == ("model", "model_not_found")
        assert get("/v1/models/plain", "wrong")[0] == 401
        assert ask(server, {}, path="/v1/models/plain", authorization="Bearer k")[0] == 404
        assert get("/v1/models/")[0] == 404
        server.plan(Answer.error(503))
        assert get("/v1/models/plain")[0] == 503
        # As Gemini's API has it.
        server.plan(Answer(json={"candidates": []}, to="/models/plain:generateContent"))
        assert ask(server, {}, path="/v1beta/models/plain:generateContent")[0] == 200


@pytest.mark.parametrize("model", [{}, {"id": 1}, {"name": "x"}])
def test_a_model_has_an_id(model: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r'an "id".*Answer\(json'):
        ChatServer(models=[model])


# Images


def test_images_by_url(server: ChatServer) -> None:
    status, headers, body = ask(server, {"model": "flux", "prompt": "a fox", "n": 3}, path=IMAGES)
    assert (status, headers["content-type"]) == (200, "application/json")
    found = json.loads(body)
    assert isinstance(found["created"], int)
    assert found["data"] == [{"url": f"{server.site_url}/images/1-{index}.png"} for index in range(3)]
    colours = set()
    for each in found["data"]:
        status, headers, body = ask(server, path=each["url"].removeprefix(server.site_url), method="GET")
        assert (status, headers["content-type"]) == (200, "image/png")
        colours.add(pixel(body))
    assert len(colours) == 3
    assert ask(server, path="/images/1-0.png")[0] == 405
    assert ask(server, path="/images/x-0.png", method="GET")[0] == 404


def test_images_in_base64(server: ChatServer) -> None:
    body = {"prompt": "a fox", "response_format": "b64_json", "n": 10}
    data = json.loads(ask(server, body, path="/any/images/generations")[2])["data"]
    assert len({pixel(base64.b64decode(each["b64_json"], validate=True)) for each in data}) == 10
    url = json.loads(ask(server, {"prompt": "x", "response_format": "url"}, path=IMAGES)[2])["data"][0]["url"]
    assert base64.b64decode(data[0]["b64_json"]) == ask(server, path=url[len(server.site_url) :], method="GET")[2]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x", "n": 11}, "n"),
        ({"prompt": "x", "n": True}, "n"),
        ({"prompt": "x", "response_format": "gif"}, "response_format"),
        ([], None),
    ],
)
def test_images_that_are_asked_for_wrongly(server: ChatServer, body: Any, param: str | None) -> None:
    status, _, content = ask(server, body, path=IMAGES)
    assert (status, json.loads(content)["error"]["param"]) == (400, param)


def test_images_are_planned_and_need_the_key() -> None:
    with ChatServer(api_key="k") as server:
        server.plan(Answer.error(429), Answer(json={"data": []}), Answer(status=503, to=".png"), Answer(status=201))
        body = {"prompt": "x"}
        assert ask(server, body, path=IMAGES)[0] == 401
        assert ask(server, method="GET", path=IMAGES)[0] == 405
        assert ask(server, body, path=IMAGES, Authorization="Bearer k")[0] == 429
        assert json.loads(ask(server, body, path=IMAGES, Authorization="Bearer k")[2]) == {"data": []}
        status, _, content = ask(server, body, path=IMAGES, Authorization="Bearer k")
        path = json.loads(content)["data"][0]["url"].removeprefix(server.site_url)
        assert status == 201
        # Whoever has the URL may have the picture.
        assert [ask(server, path=path, method="GET")[0] for _ in range(2)] == [503, 200]


# Keys


def test_a_key_as_on_azure() -> None:
    path = "/openai/deployments/gpt/chat/completions?api-version=2024-10-21"
    with ChatServer(api_key="kéy", tokens=["a"]) as server:
        key = "kéy".encode().decode("latin-1")
        assert ask(server, path=path, api_key="wrong")[0] == 401
        assert ask(server, path=path, api_key="")[0] == 401
        assert ask(server, path=path, api_key=key)[0] == 200
        assert ask(server, path=path, api_key=key, Authorization="Bearer other")[0] == 200
        assert events(ask(server, path=path, api_key="no", Authorization=f"Bearer {key}")[2])[-1] == "[DONE]"
        record = server.requests[-1]
        assert (record.target, record.path) == (path, path.partition("?")[0])


# Reasoning and tool calls


def test_reasoning_and_tool_calls_in_a_stream(server: ChatServer) -> None:
    server.plan(Answer(reasoning=["Hm", "."], tokens=["I look."], tool_calls=CALLS, pace=0.001))
    *chunks, done = events(ask(server)[2])
    assert done == "[DONE]"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[:4] == [
        {"role": "assistant", "content": None},
        {"reasoning_content": "Hm"},
        {"reasoning_content": "."},
        {"content": "I look."},
    ]
    assert deltas[4:7] == [
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_mine",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Os/lø"}'}}]},
    ]
    assert deltas[7]["tool_calls"][0]["id"] == "call_1_1"
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert len(server.requests[0].sent) == len(deltas) - 2  # all but the role and the finish reason


@pytest.mark.parametrize("stream", [True, False])
def test_our_client_reads_them(server: ChatServer, stream: bool) -> None:
    server.plan(Answer(reasoning=["Hm", "."], tool_calls=CALLS))
    with Client(base_url=server.url, api_key="k") as client:
        reply: Any = client.chat.completions.create(model="m", messages=HI, stream=stream)
        whole = accumulate(reply) if stream else reply
    message = whole.choices[0].message
    assert (message.reasoning_content, message.content) == ("Hm.", None)
    assert whole.choices[0].finish_reason == "tool_calls"
    called = [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()]
    assert called == [
        ("call_mine", "get_weather", '{"city":"Os/lø"}'),
        ("call_1_1", "now", '{"zone":"CET"}'),
        ("call_1_2", "stop", "{}"),
        ("call_1_3", "text", "{}"),
    ]


def test_reasoning_goes_before_the_usual_tokens(server: ChatServer) -> None:
    server.plan(Answer(reasoning=["Hm"]), Answer(reasoning=["Hm"], status=500))
    whole = json.loads(ask(server, {"n": 2})[2])
    message = whole["choices"][1]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm", "a b")
    assert "tool_calls" not in message
    assert whole["choices"][1]["finish_reason"] == "stop"
    assert whole["usage"]["completion_tokens"] == 6
    assert whole["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}
    assert ask(server, {})[0] == 500


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"json": {}, "reasoning": []}, "json is the whole body and reasoning"),
        ({"raw": b"", "tool_calls": []}, "raw is the whole body and tool_calls"),
        ({"reasoning": "Hm"}, r"reasoning=\['Hm'\]"),
        ({"tool_calls": ["f"]}, '"name"'),
        ({"tool_calls": [{"name": 1}]}, '"name"'),
        ({"tool_calls": [{"name": "f", "arguments": [1]}]}, "pieces of text"),
        ({"tool_calls": [{"name": "f", "arguments": None}]}, "pieces of text"),
    ],
)
def test_contradictions(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Answer(**fields)


def test_a_finish_reason_of_ones_own(server: ChatServer) -> None:
    server.plan(Answer(tool_calls=CALLS, finish_reason="length"), Answer(tool_calls=CALLS, finish_reason=None))
    assert json.loads(ask(server, {}, path=CHAT)[2])["choices"][0]["finish_reason"] == "length"
    assert json.loads(ask(server, {}, path=CHAT)[2])["choices"][0]["finish_reason"] is None
