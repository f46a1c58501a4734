"""Programs as g4f's documentation has them, with nothing done to them but what docs/from-g4f.md says: other imports."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from programs import KEY, run_program

from deltawire.testing import Answer, ChatServer, ProxyServer
from deltawire.testing._images import png

GUIDE = Path(__file__).parent.parent / "docs" / "from-g4f.md"

# Of what is imported from the first, from where it is imported instead.
MODULES = {
    "g4f.client": "deltawire",
    "g4f.Provider": "deltawire.providers",
    "g4f.Provider.template": "deltawire",
    "g4f.providers.base_provider": "deltawire",
    "g4f.providers.response": "deltawire.protocol.pieces",
    "g4f.providers.retry_provider": "deltawire",
    "g4f.typing": "deltawire",
    "g4f.errors": "deltawire",
}


class Program(NamedTuple):
    name: str
    text: str
    printed: str
    asked: list[dict[str, Any]]
    """Fields that the bodies of the requests must have, in their order."""
    plan: tuple[Answer, ...] = ()


HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
SOON = Answer.error(503, retry_after=0.01)

PROGRAMS = [
    Program(
        "quick start",
        """
        from g4f.client import Client

        client = Client()
        response = client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": "Hello"}],
        )
        print(response.choices[0].message.content)
        """,
        "Hello\n",
        [{**HELLO, "model": "gpt-4o-mini"}],
    ),
    Program(
        "streaming",
        """
        from g4f.client import Client

        client = Client()
        stream = client.chat.completions.create(
            model="gpt-4",
            messages=[{"role": "user", "content": "Hello"}],
            stream=True,
        )
        for chunk in stream:
            if chunk.choices[0].delta.content:
                print(chunk.choices[0].delta.content or "", end="")
        """,
        "Hello",
        [{**HELLO, "stream": True}],
    ),
    Program(
        "async streaming",
        """
        import asyncio
        from g4f.client import AsyncClient

        async def main():
            client = AsyncClient()
            stream = client.chat.completions.stream(
                model="gpt-4",
                messages=[{"role": "user", "content": "Hello"}],
            )
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    print(chunk.choices[0].delta.content, end="")

        asyncio.run(main())
        """,
        "Hello",
        [{**HELLO, "stream": True}],
    ),
    Program(
        "both at once",
        """
        import asyncio
        from g4f.client import AsyncClient

        async def main():
            client = AsyncClient()
            task1 = client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "Hello"}])
            task2 = client.images.generate(model="flux", prompt="a white siamese cat", response_format="url")
            try:
                chat_response, image_response = await asyncio.gather(task1, task2)
                print("Chat Response:", chat_response.choices[0].message.content)
                print("Image Response:", bool(image_response.data[0].url))
            except Exception as e:
                print(f"An error occurred: {str(e)}")

        asyncio.run(main())
        """,
        "Chat Response: Hello\nImage Response: True\n",
        [{}, {}],
    ),
    Program(
        "several providers",
        """
        from g4f.client import Client
        from g4f.Provider import OpenaiChat, RetryProvider, Groq

        client = Client(
            provider=RetryProvider([OpenaiChat, OpenaiChat], shuffle=False)
        )
        response = client.chat.completions.create(
            model="",
            messages=[{"role": "user", "content": "Hello"}],
        )
        print(response.choices[0].message.content, response.provider, response.model)
        provider = RetryProvider([OpenaiChat(), Groq(name="Mine")], shuffle=False)
        client.chat.completions.create("Hello", provider=provider)
        print(provider.last_provider.__name__, provider.__name__, [each.__name__ for each in provider.providers])
        """,
        "Hello OpenaiChat gpt-4o-mini\nOpenaiChat RetryProvider ['OpenaiChat', 'Mine']\n",
        [HELLO, HELLO, HELLO],
        (SOON,),
    ),
    Program(
        "image generation",
        """
        from g4f.client import Client
        from g4f.Provider import OpenaiChat
        import base64

        client = Client(image_provider=OpenaiChat)
        response = client.images.generate(
            model="flux",
            prompt="a white siamese cat",
            response_format="b64_json",
        )
        base64_text = response.data[0].b64_json
        print(base64.b64decode(base64_text)[:4])
        """,
        "b'\\x89PNG'\n",
        [{"prompt": "a white siamese cat", "model": "flux", "response_format": "b64_json"}],
    ),
    Program(
        "an image and a question",
        """
        from g4f.client import Client
        from g4f.Provider import OpenaiChat

        image = open("docs/images/cat.png", "rb")
        client = Client(provider=OpenaiChat)
        response = client.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": "What are on this image?"}],
            image=image,
        )
        print(response.choices[0].message.content)
        image.close()
        """,
        "Hello\n",
        [{"model": "gpt-4o"}],
    ),
    Program(
        "several images",
        """
        from g4f.client import Client
        from pathlib import Path

        client = Client()
        media = [[Path("docs/images/cat.png").read_bytes(), "cat.png"], [Path("docs/images/cat.png"), "again.png"]]
        messages = [{"role": "user", "content": "Compare"}]
        for turn in range(2):
            response = client.chat.completions.create(messages, model="gpt-4o", media=media)
            print(response.choices[0].message.content, len(media), messages[0]["content"])
        """,
        "Hello 2 Compare\nHello 2 Compare\n",
        [{"model": "gpt-4o"}, {"model": "gpt-4o"}],
    ),
    Program(
        "JSON",
        """
        from g4f.client import Client

        client = Client()
        response = client.chat.completions.create(
            model="gpt-4",
            messages="Hello",
            response_format={"type": "json_object"},
            max_tokens=100,
            stop=["END"],
        )
        print(response.choices[0].message.content, response.usage.total_tokens > 0)
        """,
        "Hello True\n",
        [{**HELLO, "response_format": {"type": "json_object"}, "max_tokens": 100, "stop": ["END"]}],
    ),
    Program(
        "a provider by itself",
        """
        import asyncio
        from g4f.Provider.template import OpenaiTemplate
        from g4f.providers.response import FinishReason, Reasoning, ToolCalls, Usage
        from g4f.typing import AsyncResult, Messages

        class Local(OpenaiTemplate):
            label = "Local"
            url = "https://example.org"
            needs_auth = False
            default_model = "local-model"
            model_aliases = {"mine": "local-model"}

        def ask(messages: Messages) -> AsyncResult:
            return Local.create_async_generator("mine", messages, stream=True, stream_options={"include_usage": True})

        async def main():
            usage = None
            async for chunk in ask([{"role": "user", "content": "Hello"}]):
                if isinstance(chunk, Usage):
                    usage = chunk
                elif isinstance(chunk, Reasoning):
                    print(f"[{chunk.token}]", end="")
                print(chunk, end="")
            print("", usage.total_tokens)

        asyncio.run(main())
        """,
        "[Hm]Hello 4\n",
        [{**HELLO, "model": "local-model", "stream": True}],
        (Answer(tokens=["Hel", "lo"], reasoning=["Hm"]),),
    ),
    Program(
        "a provider of one's own",
        """
        from g4f.client import Client
        from g4f.providers.base_provider import AsyncGeneratorProvider, ProviderModelMixin
        from g4f.providers.retry_provider import IterListProvider
        from g4f.typing import AsyncResult, Messages
        from g4f.errors import RateLimitError

        class HogeService(AsyncGeneratorProvider, ProviderModelMixin):
            url = "https://chat-gpt.com"
            working = True
            supports_gpt_35_turbo = True
            default_model = "hoge"

            @classmethod
            async def create_async_generator(
                cls, model: str, messages: Messages, proxy: str = None, **kwargs
            ) -> AsyncResult:
                if model == "busy":
                    raise RateLimitError("slow down")
                yield f"{model}: "
                yield messages[-1]["content"]

        client = Client(provider=IterListProvider([HogeService], shuffle=False))
        print(client.chat.completions.create("Hello").choices[0].message.content)
        for chunk in client.chat.completions.create("Hello", "other", stream=True):
            print(chunk.choices[0].delta.content or "", end="|")
        try:
            client.chat.completions.create("Hello", "busy")
        except RateLimitError as error:
            print("", error)
        """,
        "hoge: Hello\nother: |Hello|| slow down\n",
        [],
    ),
    Program(
        "errors",
        """
        from g4f.client import Client
        from g4f.errors import (
            MissingAuthError, ModelNotFoundError, ProviderNotFoundError, ProviderNotWorkingError, RateLimitError,
            ResponseError, ResponseStatusError, RetryNoProviderError, RetryProviderError, TimeoutError,
        )
        from g4f.Provider import OpenaiChat, Opchatgpts, RetryProvider

        messages = [{"role": "user", "content": "Hello"}]

        def told(expected, **options):
            try:
                Client(**options).chat.completions.create(model="gpt-4", messages=messages)
            except expected as error:
                print(type(error).__name__, isinstance(error, ResponseError))

        told(ModelNotFoundError)
        told(RateLimitError)
        told(ResponseStatusError)
        told(ProviderNotWorkingError, provider=Opchatgpts)
        told(RetryNoProviderError, provider=RetryProvider([]))
        told(RetryProviderError, provider=RetryProvider([OpenaiChat], single_provider_retry=True, max_retries=2))
        """,
        "NotFoundError True\nRateLimitError True\nBadRequestError True\nProviderNotWorkingError False\n"
        "RetryNoProviderError False\nRetryProviderError False\n",
        [HELLO] * 5,
        (
            Answer.error(404),
            Answer.error(429, retry_after=1000),
            Answer.error(400),
            SOON,
            SOON,
        ),
    ),
]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(tokens=["Hel", "lo"], api_key=KEY) as running:
        yield running


def with_our_imports(text: str) -> str:
    def ours(found: re.Match[str]) -> str:
        return f"from {MODULES[found[1]]} import"

    return re.sub(r"from (g4f[\w.]*) import", ours, textwrap.dedent(text))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_it_runs(program: Program, server: ChatServer, proxy: ProxyServer, tmp_path: Path) -> None:
    (tmp_path / "docs" / "images").mkdir(parents=True)
    (tmp_path / "docs" / "images" / "cat.png").write_bytes(png(0))
    server.plan(*program.plan)
    source = f"import os; os.chdir({str(tmp_path)!r})\n{with_our_imports(program.text)}"
    environment = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": KEY, "HTTP_PROXY": proxy.url}
    assert run_program(source, **environment) == program.printed
    assert len(server.requests) == len(proxy.requests) == len(program.asked)
    for request, asked in zip(server.requests, program.asked, strict=True):
        body = request.json()
        assert {name: body.get(name) for name in asked} == asked


def test_the_guide_names_these_modules() -> None:
    told = set(re.findall(r"`from (g4f[\w.]*) import", GUIDE.read_text(encoding="utf-8")))
    assert told == set(MODULES)
    used = {module for program in PROGRAMS for module in re.findall(r"from (g4f[\w.]*) import", program.text)}
    assert used == set(MODULES)
