"""A server that relays streams: an endpoint of the OpenAI dialect on Starlette, which asks another server and passes on
what that says, as it comes. When its own client goes, so does the call upstream.

Serve it with any ASGI server; as a program it takes Hypercorn and what that calls a binding ("127.0.0.1:8000")."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from deltawire import APIStatusError, AsyncClient, AsyncStream, ConfigurationError, DeltawireError


def told(error: DeltawireError) -> dict[str, Any]:
    """The error as servers of this dialect tell it."""
    return {"error": {"message": str(error), "type": type(error).__name__, "code": None, "param": None}}


async def chat(request: Request) -> Response:
    client: AsyncClient = request.state.client
    try:
        body = await request.json()
        model, messages = body["model"], body["messages"]
    except (ValueError, KeyError, TypeError):
        return JSONResponse({"error": {"message": "give a model and messages"}}, 400)
    try:
        # Failures before the first content are retried in here, and have a status of their own.
        stream = await client.chat.completions.create(messages, model, stream=True)
    except ConfigurationError as error:
        return JSONResponse(told(error), 400)
    except DeltawireError as error:
        status = error.status_code if isinstance(error, APIStatusError) else None
        return JSONResponse(told(error), status or 502)
    return Relay(stream)


class Relay(StreamingResponse):
    """A stream, as server-sent events; it is closed when the response is over, however that comes."""

    def __init__(self, stream: AsyncStream) -> None:
        super().__init__(self.events(stream), media_type="text/event-stream")
        self.stream = stream

    async def events(self, stream: AsyncStream) -> AsyncIterator[str]:
        try:
            async for chunk in stream:
                yield f"data: {chunk.to_json(indent=None)}\n\n"
        except DeltawireError as error:
            yield f"data: {json.dumps(told(error))}\n\n"
        else:
            yield "data: [DONE]\n\n"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Starlette cancels `events` while it waits for a chunk, but leaves it be while it waits for the client.
            await self.stream.aclose()


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
    # OPENAI_BASE_URL and OPENAI_API_KEY say who is asked.
    async with AsyncClient(transport="wire") as client:
        yield {"client": client}


app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])], lifespan=lifespan)

if __name__ == "__main__":
    config = Config()
    config.bind = sys.argv[1:] or ["127.0.0.1:8000"]
    asyncio.run(serve(app, config))  # type: ignore[arg-type] # Hypercorn describes ASGI in words of its own
