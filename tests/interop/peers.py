"""The OpenAI SDK and httpx as clients, in an environment of their own: other people's eyes on our server.

Run by `interop_peers.Program`. Reads calls as lines of JSON, and answers each with a line that says what came of it:
what the library gave, as plain values, or which error it raised. Knows nothing of deltawire.
"""

from __future__ import annotations

import json
import ssl
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx
import httpx_sse
import openai

Fields = dict[str, Any]

CHAT = "/chat/completions"
# The SDK's HTTP client: httpx, or its successor.
openai_httpx: Any = sys.modules[openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]]

PATHS = {"models": "/models", "images": "/images/generations", "chat": CHAT, "stream": CHAT}


def main() -> None:
    for line in sys.stdin:
        call = json.loads(line)
        blocking, asynchronous = {"openai": (sdk, asdk), "httpx": (plain, aplain)}[call["peer"]]
        if call["flavour"] == "sync":
            told = blocking(call["client"], call["asks"], call["together"])
        else:
            told = anyio.run(asynchronous, call["client"], call["asks"], call["together"], backend=call["flavour"])
        print(json.dumps(told), flush=True)


def way(settings: Fields, make_proxy: Any) -> Fields:
    """How to reach the server: whom to trust, and the proxy. Takes them out of the settings."""
    ca, proxy = settings.pop("ca", None), settings.pop("proxy", None)
    context = ssl.create_default_context(cafile=ca)
    if proxy is not None:
        proxy = make_proxy(proxy, ssl_context=context if proxy.startswith("https:") else None)
    return {"verify": context, "proxy": proxy, "trust_env": False}


class Telling:
    """Notes what comes of one call."""

    def __init__(self, one: Fields) -> None:
        self.told: Fields = {"chunks": [], "reply": None, "error": None}
        self._take = one.get("take")
        self._started = time.monotonic()

    def add(self, chunk: Fields) -> bool:
        """Note a chunk; whether that is enough."""
        self.told["chunks"].append(chunk)
        return len(self.told["chunks"]) == self._take

    def __enter__(self) -> Telling:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        self.told["seconds"] = time.monotonic() - self._started
        if isinstance(error, openai.OpenAIError | httpx.HTTPError):
            self.told["error"] = described(error)
        return self.told["error"] is not None


def described(error: Exception) -> Fields:
    """An error as plain values; those of the SDK have the most."""
    names = ("status_code", "code", "type", "param", "request_id", "message", "body")
    found = {name: getattr(error, name, None) for name in names}
    if isinstance(error, httpx.HTTPStatusError):
        response = error.response
        json_type = response.headers["content-type"].startswith("application/json")
        said = response.json()["error"] if json_type else {"message": response.text}
        request_id = response.headers.get("x-request-id")
        found |= {**said, "status_code": response.status_code, "request_id": request_id, "body": said}
    return {**found, "kind": type(error).__name__, "cause": type(error.__cause__).__name__, "text": str(error)}


def all_of(asks: list[Fields], together: bool, ask: Callable[[Fields], Fields]) -> list[Fields]:
    if not together:
        return [ask(one) for one in asks]
    with ThreadPoolExecutor(len(asks)) as pool:
        return list(pool.map(ask, asks))


async def aall_of(asks: list[Fields], together: bool, ask: Callable[[Fields], Any]) -> list[Fields]:
    if not together:
        return [await ask(one) for one in asks]
    told: dict[int, Fields] = {}

    async def run(number: int) -> None:
        told[number] = await ask(asks[number])

    async with anyio.create_task_group() as tasks:
        for number in range(len(asks)):
            tasks.start_soon(run, number)
    return [told[number] for number in range(len(asks))]


# The OpenAI SDK. It is strict: what is not as its types say is an error.


def sdk(settings: Fields, asks: list[Fields], together: bool) -> list[Fields]:
    http_client = openai.DefaultHttpxClient(**way(settings, openai_httpx.Proxy))
    with openai.OpenAI(http_client=http_client, _strict_response_validation=True, **settings) as client:

        def ask(one: Fields) -> Fields:
            given, completions = one["parameters"], client.chat.completions
            with Telling(one) as telling:
                told = telling.told
                if one["do"] == "models":
                    told["reply"] = [model.to_dict() for model in client.models.list()]
                elif one["do"] == "model":
                    told["reply"] = client.models.retrieve(**given).to_dict()
                elif one["do"] == "images":
                    told["reply"] = client.images.generate(**given).to_dict()
                elif one["do"] == "chat":
                    told["reply"] = completions.create(**given).to_dict()
                elif one["do"] == "accumulated":
                    with completions.stream(**given) as events:
                        told["reply"] = events.get_final_completion().to_dict()
                else:
                    with completions.create(**given, stream=True) as stream:
                        for chunk in stream:
                            if telling.add(chunk.to_dict()):
                                break
            return telling.told

        return all_of(asks, together, ask)


async def asdk(settings: Fields, asks: list[Fields], together: bool) -> list[Fields]:
    http_client = openai.DefaultAsyncHttpxClient(**way(settings, openai_httpx.Proxy))
    async with openai.AsyncOpenAI(http_client=http_client, _strict_response_validation=True, **settings) as client:

        async def ask(one: Fields) -> Fields:
            given, completions = one["parameters"], client.chat.completions
            with Telling(one) as telling:
                told = telling.told
                if one["do"] == "models":
                    told["reply"] = [model.to_dict() async for model in client.models.list()]
                elif one["do"] == "model":
                    told["reply"] = (await client.models.retrieve(**given)).to_dict()
                elif one["do"] == "images":
                    told["reply"] = (await client.images.generate(**given)).to_dict()
                elif one["do"] == "chat":
                    told["reply"] = (await completions.create(**given)).to_dict()
                elif one["do"] == "accumulated":
                    async with completions.stream(**given) as events:
                        told["reply"] = (await events.get_final_completion()).to_dict()
                else:
                    async with await completions.create(**given, stream=True) as stream:
                        async for chunk in stream:
                            if telling.add(chunk.to_dict()):
                                break
            return telling.told

        return await aall_of(asks, together, ask)


# httpx, and httpx-sse for streams


def prepared(settings: Fields) -> Fields:
    headers = {"authorization": f"Bearer {settings.pop('api_key')}"}
    settings.pop("max_retries")
    return {**way(settings, httpx.Proxy), "headers": headers, **settings}


def sent(one: Fields) -> tuple[str, str, Fields]:
    """Method, path and options of a request."""
    if one["do"] == "models":
        return "GET", PATHS["models"], {}
    stream = {"stream": True} if one["do"] == "stream" else {}
    return "POST", PATHS[one["do"]], {"json": {**one["parameters"], **stream}}


def replied(one: Fields, response: httpx.Response) -> Any:
    found = response.raise_for_status().json()
    return found["data"] if one["do"] == "models" else found


def plain(settings: Fields, asks: list[Fields], together: bool) -> list[Fields]:
    with httpx.Client(**prepared(settings)) as client:

        def ask(one: Fields) -> Fields:
            method, path, options = sent(one)
            with Telling(one) as telling:
                if one["do"] != "stream":
                    telling.told["reply"] = replied(one, client.request(method, path, **options))
                    return telling.told
                with httpx_sse.connect_sse(client, method, path, **options) as source:
                    if source.response.is_error:
                        source.response.read()
                    source.response.raise_for_status()
                    for event in source.iter_sse():
                        if event.data != "[DONE]" and telling.add(event.json()):
                            break
            return telling.told

        return all_of(asks, together, ask)


async def aplain(settings: Fields, asks: list[Fields], together: bool) -> list[Fields]:
    async with httpx.AsyncClient(**prepared(settings)) as client:

        async def ask(one: Fields) -> Fields:
            method, path, options = sent(one)
            with Telling(one) as telling:
                if one["do"] != "stream":
                    telling.told["reply"] = replied(one, await client.request(method, path, **options))
                    return telling.told
                async with httpx_sse.aconnect_sse(client, method, path, **options) as source:
                    if source.response.is_error:
                        await source.response.aread()
                    source.response.raise_for_status()
                    async for event in source.aiter_sse():
                        if event.data != "[DONE]" and telling.add(event.json()):
                            break
            return telling.told

        return await aall_of(asks, together, ask)


if __name__ == "__main__":
    main()
