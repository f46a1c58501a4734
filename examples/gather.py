"""Several calls at once, on asyncio."""

import asyncio
import os

from deltawire import AsyncClient


async def main() -> None:
    client = AsyncClient(proxies=os.environ["PROXY"])
    chats = [
        client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": question}])
        for question in ("Say hello.", "Say it again.")
    ]
    image = client.images.generate(model="dall-e-3", prompt="a white siamese cat", response_format="url")
    first, second, drawn = await asyncio.gather(*chats, image)
    print(first.choices[0].message.content, second.choices[0].message.content)
    print(drawn.data[0].url)


asyncio.run(main())
