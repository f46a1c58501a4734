"""Streams on asyncio, with `await` before them and without."""

import asyncio
import os

from deltawire import AsyncClient


async def main() -> None:
    client = AsyncClient(proxies=os.environ["PROXY"])
    messages = [{"role": "user", "content": "Say hello."}]

    stream = client.chat.completions.create(model="gpt-4", messages=messages, stream=True)
    async for chunk in stream:
        print(chunk.choices[0].delta.content or "", end="")
    print()

    opened = await client.chat.completions.create(model="gpt-4", messages=messages, stream=True)
    async for chunk in opened:
        print(chunk.choices[0].delta.content or "", end="")
    print()

    async for chunk in client.chat.completions.stream(messages, "gpt-4"):
        print(chunk.choices[0].delta.content or "", end="")
    print()


asyncio.run(main())
