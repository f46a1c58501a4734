"""Several calls at once, on asyncio."""

import asyncio
import os

from deltawire import AsyncClient


async def main() -> None:
    client = AsyncClient(proxies=os.environ["PROXY"])
    create = client.chat.completions.create
    first, second, drawn = await asyncio.gather(
        create(model="gpt-4", messages=[{"role": "user", "content": "Say hello."}]),
        create(model="gpt-4", messages=[{"role": "user", "content": "Say it again."}]),
        client.images.generate(model="dall-e-3", prompt="a white siamese cat", response_format="url"),
    )
    print(first.choices[0].message.content, second.choices[0].message.content)
    print(drawn.data[0].url)


asyncio.run(main())
