"""Images: made from words, and sent along with a question."""

import os

from deltawire import Client

client = Client(proxies=os.environ["PROXY"])

response = client.images.generate("a white siamese cat", "dall-e-3", response_format="b64_json")
image = response.data[0].data
print(f"{len(image)} bytes of PNG" if image.startswith(b"\x89PNG") else "no PNG")

response = client.images.generate(prompt="a black cat", model="dall-e-3", response_format="url")
print(response.data[0].url)

completion = client.chat.completions.create("What is in the image?", "gpt-4o", media=[(image, "cat.png")])
print(completion.choices[0].message.content)
