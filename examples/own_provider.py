"""A provider of one's own: a server of the OpenAI dialect is three attributes."""

import asyncio
import os

from deltawire import Client, OpenaiTemplate

proxy = os.environ["PROXY"]


class Mine(OpenaiTemplate):
    api_base = os.environ["MY_SERVER"]  # http://localhost:8000/v1
    api_key = os.environ["MY_KEY"]
    default_model = "local-model"


async def main() -> None:
    messages = [{"role": "user", "content": "Say hello."}]
    async for data in Mine.create_async_generator("", messages, proxy=proxy, stream=True):
        print(data, end="")
    print()


asyncio.run(main())

client = Client(provider=Mine, proxies=proxy)
print(client.chat.completions.create("Say hello.").choices[0].message.content)
print(Mine.get_models(proxy=proxy))
