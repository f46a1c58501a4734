"""The same client on trio: two streams at once."""

import os

import trio

from deltawire import AsyncClient


async def ask(client: AsyncClient, question: str) -> None:
    text = ""
    async with client.chat.completions.create(question, "gpt-4", stream=True) as stream:
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
    print(text)


async def main() -> None:
    async with AsyncClient(proxies=os.environ["PROXY"]) as client, trio.open_nursery() as nursery:
        nursery.start_soon(ask, client, "Say hello.")
        nursery.start_soon(ask, client, "Say it again.")


trio.run(main)
