"""From what a caller wants to the request that goes out.

The floor is msgspec encoding the same body. The OpenAI SDK and httpx have no such step of their own that is
public, so theirs is a whole call on a transport that answers from memory; of a streamed reply nothing is
read, so the answer costs next to nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import openai
from _data import MODEL
from _measure import Line, cpu, interleaved

from deltawire.protocol import ChatRequest, Endpoint

_OURS, _FLOOR = "deltawire", "msgspec"
_URL = "http://127.0.0.1:8000/v1"
_KEY = "sk-not-a-key"

_openai_httpx: Any = sys.modules[openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]]


def messages(count: int) -> list[dict[str, str]]:
    """A conversation of so many messages, of about 200 characters each."""
    text = "It was a bright cold day in April, and the clocks were striking thirteen. " * 3
    return [{"role": "assistant" if number % 2 else "user", "content": text[:200]} for number in range(count)]


def contestants(count: int) -> dict[str, Callable[[], object]]:
    """Each builds the same request once."""
    listed: Any = messages(count)
    encode = msgspec.json.Encoder().encode
    endpoint = Endpoint.at(_URL)
    http = httpx.Client()

    def answer(_: Any) -> Any:
        return _openai_httpx.Response(200, headers={"content-type": "text/event-stream"}, content=b"")

    mock = _openai_httpx.Client(transport=_openai_httpx.MockTransport(answer))
    sdk = openai.OpenAI(api_key=_KEY, base_url=_URL, http_client=mock)
    headers = {"authorization": f"Bearer {_KEY}", "accept": "text/event-stream"}

    def by_msgspec() -> object:
        return encode({"messages": listed, "model": MODEL, "stream": True, "temperature": 0.7})

    def ours() -> object:
        chat = ChatRequest(messages=listed, model=MODEL, stream=True, params={"temperature": 0.7})
        return endpoint.chat(chat, api_key=_KEY)

    def by_httpx() -> object:
        body = {"messages": listed, "model": MODEL, "stream": True, "temperature": 0.7}
        return http.build_request("POST", f"{_URL}/chat/completions", json=body, headers=headers)

    def by_openai() -> object:
        with sdk.chat.completions.create(messages=listed, model=MODEL, stream=True, temperature=0.7) as stream:
            return stream

    return {_FLOOR: by_msgspec, _OURS: ours, "httpx": by_httpx, "OpenAI SDK": by_openai}


def _timed(work: Callable[[], object], times: int) -> Callable[[], float]:
    def repeated() -> None:
        for _ in range(times):
            work()

    return lambda: cpu(repeated, times)


def measure(quick: bool) -> list[Line]:
    """A request of 1,000 messages, and one of one."""
    rounds = 5 if quick else 15
    lines = []
    for count, times, label, budget, absolute in (
        (1_000, 50, "1,000 messages", 1.5, False),
        (1, 10_000, "one message", 10.0, True),
    ):
        times //= 5 if quick else 1
        # The slow ones need fewer repetitions.
        timed = {
            name: _timed(work, times if name in (_FLOOR, _OURS) else max(times // 25, 1))
            for name, work in contestants(count).items()
        }
        lines.append(
            Line(
                subject=label,
                unit="us",
                costs=interleaved(timed, rounds),
                ours=_OURS,
                floor=_FLOOR,
                budget=budget,
                absolute=absolute,
            )
        )
    return lines
