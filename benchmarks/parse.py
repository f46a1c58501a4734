"""Bytes to typed chunk, with verdict and payload kept; no I/O.

The floor is the least that gives typed chunks at all: split at blank lines, decode each payload with msgspec
into the very struct that deltawire uses. It knows one framing only, so the other framings are measured
against its time for the same payloads in that one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import httpx
import httpx_sse
import msgspec
import openai
from _data import DONE, HEADERS, MODEL, cut, event, payloads
from _measure import Costs, Line, cpu, interleaved

from deltawire.protocol import ChatCompletionChunk, Reply, StreamEnded

_OURS, _FLOOR = "deltawire", "split + msgspec"

# The OpenAI SDK is so much slower that the same number of events would take minutes.
_PEER_EVENTS = 1_000

_decode = msgspec.json.Decoder(ChatCompletionChunk).decode

# httpx2 where the OpenAI SDK has moved to it, else httpx.
_openai_httpx: Any = sys.modules[openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]]


def _data_lines(data: bytes) -> bytes:
    """The JSON in four lines of data."""
    return (
        b"data: "
        + data.replace(b',"model"', b'\ndata: ,"model"')
        .replace(b',"choices"', b'\ndata: ,"choices"')
        .replace(b',"logprobs"', b'\ndata: ,"logprobs"')
        + b"\n\n"
    )


def _all_at_once(data: bytes) -> bytes:
    lines = _data_lines(data).replace(b"data: ", b"data:")
    return (b": keep-alive\n\nevent: message\nid: 17\n" + lines).replace(b"\n", b"\r\n")


FRAMINGS: dict[str, Callable[[bytes], bytes]] = {
    "data: only, LF": event,
    "CRLF": lambda data: b"data: " + data + b"\r\n\r\n",
    "CR": lambda data: b"data: " + data + b"\r\r",
    "event: and id:": lambda data: b"event: message\nid: 17\ndata: " + data + b"\n\n",
    "a comment between": lambda data: b": keep-alive\n\ndata: " + data + b"\n\n",
    "no space": lambda data: b"data:" + data + b"\n\n",
    "four data: lines": _data_lines,
    "all of these": _all_at_once,
}


def floor(reads: list[bytes]) -> int:
    """The least: split, decode."""
    count = 0
    rest = b""
    for data in reads:
        parts = (rest + data).split(b"\n\n") if rest else data.split(b"\n\n")
        rest = parts.pop()
        chunks = [_decode(part[6:]) for part in parts]
        count += len(chunks)
    return count


def ours(reads: list[bytes]) -> int:
    """`Reply`, from head to verdict."""
    reply = Reply()
    count = 0
    events = reply.start(200, HEADERS)
    for data in reads:
        events = reply.receive(data)
        count += len(events)
    if not isinstance(events[-1], StreamEnded):
        raise RuntimeError(f"the reply ended with {events[-1]!r}")
    return count - 1


def by_httpx_sse(reads: list[bytes]) -> int:
    """httpx-sse on a reply of httpx, then ``json.loads``."""
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=_each(reads))
    count = 0
    for sse in httpx_sse.EventSource(response).iter_sse():
        if sse.data != "[DONE]":
            json.loads(sse.data)
            count += 1
    return count


def by_hand(reads: list[bytes]) -> int:
    """Split as the floor does, then ``json.loads``."""
    count = 0
    rest = b""
    for data in reads:
        *parts, rest = (rest + data).split(b"\n\n")
        for part in parts:
            if part != b"data: [DONE]":
                json.loads(part[6:])
                count += 1
    return count


def by_openai(reads: list[bytes]) -> int:
    """The OpenAI SDK, through its public way in: a client on a transport that answers from memory."""

    def answer(_: Any) -> Any:
        headers = {"content-type": "text/event-stream"}
        return _openai_httpx.Response(200, headers=headers, content=_each(reads))

    http = _openai_httpx.Client(transport=_openai_httpx.MockTransport(answer))
    client = openai.OpenAI(api_key="sk-not-a-key", base_url="http://127.0.0.1/v1", http_client=http)
    stream = client.chat.completions.create(messages=[], model=MODEL, stream=True)
    return sum(1 for _ in stream)


def _each(reads: Iterable[bytes]) -> Iterator[bytes]:
    yield from reads


def _measure(reads: Callable[[list[bytes]], list[bytes]], framing: str, count: int, rounds: int) -> Costs:
    data = payloads(count - 2)
    framed = [FRAMINGS[framing](item) for item in data]
    plain = reads([event(item) for item in data])
    framed_reads = reads([*framed, DONE])
    few = reads([*(framed[:_PEER_EVENTS]), DONE])

    def one(work: Callable[[list[bytes]], int], given: list[bytes], expected: int) -> Callable[[], float]:
        found = work(given)
        if found != expected:
            raise RuntimeError(f"{work.__name__} gave {found} chunks of {expected}")
        return lambda: cpu(lambda: work(given), expected)

    contestants = {_FLOOR: one(floor, plain, count), _OURS: one(ours, framed_reads, count)}
    if framing == next(iter(FRAMINGS)):
        peer_events = min(count, _PEER_EVENTS)
        peers: Mapping[str, Callable[[list[bytes]], int]] = {
            "split + json": by_hand,
            "httpx-sse + json": by_httpx_sse,
            "OpenAI SDK": by_openai,
        }
        contestants |= {name: one(peer, few, peer_events) for name, peer in peers.items()}
    return interleaved(contestants, rounds)


def measure(quick: bool) -> list[Line]:
    """All framings, in large reads and one event a read."""
    count, rounds = (2_000, 5) if quick else (20_000, 15)
    reads: dict[str, Callable[[list[bytes]], list[bytes]]] = {
        "64 KiB reads": lambda events: cut(b"".join(events)),
        "an event a read": lambda events: events,
    }
    return [
        Line(
            subject=f"{framing}; {size}",
            unit="us/event",
            costs=_measure(reads[size], framing, count, rounds),
            ours=_OURS,
            floor=_FLOOR,
            budget=2.0 if number == 0 else 3.5,
        )
        for number, framing in enumerate(FRAMINGS)
        for size in reads
    ]
