"""A chat server for hypercorn, which tells in its replies how it was reached.

Each reply's first word is the HTTP version and its second the client's port, by which connections are told apart.
The request's ``user`` says how many further words there are, and after how many milliseconds each.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """The ASGI application."""
    if scope["type"] == "http":
        await respond(scope, await read(receive), send)
        return
    while scope["type"] == "lifespan":
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def read(receive: Receive) -> Message:
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return json.loads(body or b"{}")  # type: ignore[no-any-return]


async def respond(scope: Message, asked: Message, send: Send) -> None:
    if scope["path"].endswith("/models"):
        await whole(send, 200, {"object": "list", "data": [{"id": f"http-{scope['http_version']}"}]})
    elif asked.get("model") == "no-such-model":
        await whole(send, 404, {"error": {"message": "There is no such model.", "type": "invalid_request_error"}})
    else:
        count, _, pause = str(asked.get("user") or "3 0").partition(" ")
        words = [scope["http_version"], f" {scope['client'][1]}", *(f" word{number}" for number in range(int(count)))]
        if asked.get("stream"):
            await stream(send, words, float(pause) / 1000)
        else:
            message = {"role": "assistant", "content": "".join(words)}
            await whole(send, 200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


async def whole(send: Send, status: int, document: Message) -> None:
    body = json.dumps(document).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def stream(send: Send, words: list[str], pause: float) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    deltas: list[Message] = [{"role": "assistant", "content": ""}, *({"content": word} for word in words), {}]
    for number, delta in enumerate(deltas):
        finish_reason = "stop" if number == len(deltas) - 1 else None
        event = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}
        await send(
            {"type": "http.response.body", "body": b"data: %b\n\n" % json.dumps(event).encode(), "more_body": True}
        )
        await asyncio.sleep(pause)
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
