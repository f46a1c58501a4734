"""A server of the OpenAI dialect (OPENAI_BASE_URL), and the answer as it is generated: texts, and pieces that print as
nothing."""

import asyncio
import os

from deltawire import OpenaiTemplate

proxy = os.environ["PROXY"]
messages = [{"role": "user", "content": "Say hello."}]


async def main(provider: OpenaiTemplate) -> None:
    async for data in provider.create_async_generator("gpt-4", messages, proxy=proxy, stream=True):
        print(data, end="")
    print()

    response = await provider.create_async_generator("gpt-4", messages, proxy=proxy, temperature=0)
    async for data in response:
        print(data, end="")
    print()


template = OpenaiTemplate()
print(template.get_models(proxy=proxy))
asyncio.run(main(template))
