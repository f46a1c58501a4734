"""A chatbot on a WordPress site with the AI Engine plugin."""

import asyncio
import os

from deltawire import Opchatgpts


class Shop(Opchatgpts):
    url = os.environ["SITE"]  # https://shop.example


async def main() -> None:
    messages = [
        {"role": "user", "content": "Good morning."},
        {"role": "assistant", "content": "Good morning! How can I help?"},
        {"role": "user", "content": "Say hello."},
    ]
    async for data in Shop.create_async_generator("", messages, proxy=os.environ["PROXY"]):
        print(data, end="")
    print()


asyncio.run(main())
