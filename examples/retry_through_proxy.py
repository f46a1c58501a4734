"""A chat through a proxy, tried up to five times: the stream is printed as it comes."""

import os

from deltawire import Client, OpenaiChat, RetryProvider

proxy = os.environ["PROXY"]  # http://user:password@host:3128, or socks5h://...

client = Client(
    proxies={"http": proxy, "https": proxy},
    provider=RetryProvider([OpenaiChat], single_provider_retry=True, max_retries=5),
)
messages = [{"role": "user", "content": "Say hello."}]

for chunk in client.chat.completions.create(model="gpt-3.5-turbo", messages=messages, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()

completion = client.chat.completions.create(model="gpt-3.5-turbo", messages=messages)
print(completion.choices[0].message.content)
