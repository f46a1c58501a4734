"""Two providers as one: the second is asked when the first fails, and neither after the answer has begun."""

import os

from deltawire import Client, Opchatgpts, OpenaiChat, RetryProvider

providers = RetryProvider([Opchatgpts(url=os.environ["SITE"]), OpenaiChat], shuffle=False)
client = Client(provider=providers, proxies=os.environ["PROXY"])

for chunk in client.chat.completions.create("Say hello.", "gpt-4", stream=True):
    print(chunk.choices[0].delta.content or "", end="")
print(f" ({chunk.provider})")
