"""The models that a server offers."""

import os

from deltawire import Client

client = Client(provider="OpenaiChat", proxies=os.environ["PROXY"])
for name in client.models.get_all():
    print(name)
