"""How many bytes a kept chunk takes: `tracemalloc`, over chunks of 256-byte events that are all kept.

tracemalloc counts what Python's allocators give out: all of msgspec's and pydantic's objects are among it.
The floor is the typed decode, which keeps no payload, hence no vendor field.
"""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import openai
from _data import DONE, HEADERS, MODEL, cut, event, payload
from _measure import Line

from deltawire.protocol import ChatCompletionChunk, Reply

_OURS, _FLOOR = "deltawire", "msgspec"
_BUDGET = 1024.0

_openai_httpx: Any = sys.modules[openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]]


def _by_reply(reads: list[bytes]) -> list[Any]:
    reply = Reply()
    reply.start(200, HEADERS)
    kept: list[Any] = []
    for data in reads:
        kept += reply.receive(data)
    return kept


def _by_openai(reads: list[bytes]) -> list[Any]:
    def each() -> Iterable[bytes]:
        yield from reads

    def answer(_: Any) -> Any:
        return _openai_httpx.Response(200, headers={"content-type": "text/event-stream"}, content=each())

    http = _openai_httpx.Client(transport=_openai_httpx.MockTransport(answer))
    client = openai.OpenAI(api_key="sk-not-a-key", base_url="http://127.0.0.1/v1", http_client=http)
    return list(client.chat.completions.create(messages=[], model=MODEL, stream=True))


def _by_msgspec(reads: list[bytes]) -> list[Any]:
    decode = msgspec.json.Decoder(ChatCompletionChunk).decode
    return [decode(part[6:]) for part in b"".join(reads).split(b"\n\n")[:-2]]


def _by_json(reads: list[bytes]) -> list[Any]:
    return [json.loads(part[6:]) for part in b"".join(reads).split(b"\n\n")[:-2]]


def _bytes(work: Callable[[list[bytes]], list[Any]], reads: list[bytes], count: int) -> float:
    work([event(payload(0)), DONE])  # what is made once, on first use, is nobody's chunk
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept = work(reads)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    if len(kept) < count:
        raise RuntimeError(f"{work.__name__} kept {len(kept)} chunks of {count}")
    return (after - before) / count


def measure(quick: bool) -> list[Line]:
    """Chunks out of large reads, and out of reads of one event."""
    count = 1_000 if quick else 5_000
    lines = []
    events = [event(payload(number)) for number in range(count)]
    for label, reads in (("64 KiB reads", cut(b"".join([*events, DONE]))), ("an event a read", [*events, DONE])):
        works = {_FLOOR: _by_msgspec, _OURS: _by_reply, "json": _by_json, "OpenAI SDK": _by_openai}
        lines.append(
            Line(
                subject=f"a kept chunk; {label}",
                unit="bytes",
                scale=1.0,
                costs={name: [_bytes(work, reads, count)] for name, work in works.items()},
                ours=_OURS,
                floor=_FLOOR,
                budget=_BUDGET,
                absolute=True,
            )
        )
    return lines
