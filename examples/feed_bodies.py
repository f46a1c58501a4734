"""Code that has its HTTP client already: deltawire makes the request and reads the reply, the client moves the bytes.
(The deadlines are the client's, for each read, not for content; and so are the errors of the connection.)"""

import asyncio
import os

import aiohttp
import httpx
import requests
import urllib3

from deltawire import APIError, aparse_stream, parse_stream
from deltawire.protocol import ChatCompletionChunk, ChatRequest, Endpoint

ENDPOINT = Endpoint.at(os.environ["OPENAI_BASE_URL"])
TIMEOUT = float(os.environ.get("TIMEOUT", "60"))

REQUEST = ENDPOINT.chat(
    ChatRequest(messages="Say hello.", model="gpt-4", stream=True), api_key=os.environ["OPENAI_API_KEY"]
)
HEADERS = {name.decode(): value.decode() for name, value in REQUEST.headers}


def show(chunk: ChatCompletionChunk) -> None:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="")


def with_httpx() -> None:
    with httpx.stream(REQUEST.method, REQUEST.url, headers=HEADERS, content=REQUEST.body, timeout=TIMEOUT) as response:
        response.raise_for_status()
        for chunk in parse_stream(response.iter_bytes()):
            show(chunk)


def with_requests() -> None:
    with requests.request(
        REQUEST.method, REQUEST.url, headers=HEADERS, data=REQUEST.body, timeout=TIMEOUT, stream=True
    ) as response:
        response.raise_for_status()
        for chunk in parse_stream(response.iter_content(None)):
            show(chunk)


def with_urllib3() -> None:
    with (
        urllib3.PoolManager(timeout=TIMEOUT, retries=False) as pool,
        pool.request(
            REQUEST.method, REQUEST.url, headers=HEADERS, body=REQUEST.body, preload_content=False
        ) as response,
    ):
        if response.status != 200:
            raise urllib3.exceptions.HTTPError(f"status {response.status}")
        for chunk in parse_stream(response.stream(None)):
            show(chunk)


async def with_aiohttp() -> None:
    timeout = aiohttp.ClientTimeout(sock_connect=TIMEOUT, sock_read=TIMEOUT)
    async with (
        aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session,
        session.request(REQUEST.method, REQUEST.url, headers=HEADERS, data=REQUEST.body) as response,
    ):
        async for chunk in aparse_stream(response.content.iter_any()):
            show(chunk)


OF_THE_WAY = (
    httpx.HTTPError,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    aiohttp.ClientError,
    asyncio.TimeoutError,
)

for ask in (with_httpx, with_requests, with_urllib3, lambda: asyncio.run(with_aiohttp())):
    try:
        ask()
        print()
    except APIError as error:
        # What the reply itself says: that it broke off, or an error in the midst of it.
        print(f" [{type(error).__name__}: {error}]")
    except OF_THE_WAY as error:
        print(f" [{type(error).__module__}.{type(error).__name__}]")
