"""Recorded bytes of real servers, through h11 into `Reply`, against what the oracle made of them."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import h11
import pytest
from feeding import chunks, each_byte, pieces, said
from make_expected import EXPECTED, RECORDINGS, chat_recordings, response

from deltawire.protocol import (
    APIStatusError,
    ModelList,
    ReadError,
    Reply,
    StreamEnded,
    StreamFailed,
    accumulate,
)
from deltawire.protocol.accumulate import Accumulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from feeding import Headers

    from deltawire.protocol import ChatCompletion, Event

# One exchange: its head, its body in the pieces in which h11 gave them, and whether it ended well.
Exchange = tuple[int, "Headers", list[bytes], bool]

CHAT = chat_recordings()
WANTED: dict[str, list[dict[str, Any]]] = json.loads(EXPECTED.read_text(encoding="utf-8"))


def next_response(connection: h11.Connection, cycle: bool) -> None:
    """Go on to the connection's next exchange."""
    if cycle:
        connection.start_next_cycle()
    request = h11.Request(
        method="POST", target="/v1/chat/completions", headers=[("Host", "x"), ("Content-Length", "0")]
    )
    connection.send(request)
    connection.send(h11.EndOfMessage())


def exchanges(parts: Iterable[bytes]) -> list[Exchange]:
    """What h11, as a client, reads from these bytes; the peer closes after the last."""
    connection = h11.Connection(h11.CLIENT)
    next_response(connection, cycle=False)
    found: list[Exchange] = []
    for part in [*parts, b""]:
        try:
            connection.receive_data(part)
            while True:
                event = connection.next_event()
                if isinstance(event, (h11.Response, h11.InformationalResponse)):
                    headers = [(bytes(name), bytes(value)) for name, value in event.headers]
                    if isinstance(event, h11.Response):
                        found.append((event.status_code, headers, [], False))
                elif isinstance(event, h11.Data):
                    found[-1][2].append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    found[-1] = (*found[-1][:3], True)
                    if connection.our_state is h11.MUST_CLOSE or connection.their_state is not h11.DONE:
                        return found
                    next_response(connection, cycle=True)
                else:
                    break
        except h11.RemoteProtocolError:
            return found
    return found


def fed(
    exchange: Exchange, recut: Callable[[bytes], list[bytes]] | None = None, dialect: str = "openai"
) -> list[Event]:
    """The events of one exchange, its body as h11 gave it or cut anew."""
    status, headers, body, whole = exchange
    reply = Reply(dialect)
    events = reply.start(status, headers)
    for part in body if recut is None else recut(b"".join(body)):
        events += reply.receive(part)
    events += reply.end() if whole else reply.fail(ReadError("the connection broke"))
    return events


def told(completion: ChatCompletion) -> list[dict[str, Any]]:
    """The choices in the words of expected.json, by their indices."""
    return [
        {
            "index": choice.index,
            "text": choice.message.content or "",
            "reasoning": choice.message.reasoning_content or "",
            "refusal": choice.message.refusal or "",
            "finish_reason": choice.finish_reason or None,
            "tool_calls": [
                {"id": call.id, "name": call.function.name, "arguments": call.function.arguments or ""}
                for call in choice.message.tool_calls or ()
            ],
            "function_call": choice.message.function_call
            and {
                "name": choice.message.function_call.name,
                "arguments": choice.message.function_call.arguments or "",
            },
        }
        for choice in sorted(completion.choices, key=lambda choice: choice.index)
    ]


def verdict(events: list[Event], wanted: dict[str, Any]) -> dict[str, Any]:
    """One reply in the words of expected.json."""
    accumulator = Accumulator()
    for chunk in chunks(events):
        accumulator.add(chunk)
    completion = accumulator.completion()
    last = events[-1]
    usage = completion.usage
    seen: dict[str, Any] = {
        "status": wanted["status"],
        "finished": accumulator.finished,
        "choices": told(completion),
        "usage": usage
        and {name: getattr(usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")},
        "error_status": None,
    }
    if isinstance(last, StreamEnded):
        seen["verdict"] = "ended"
        assert last.finished is accumulator.finished
        if last.completion is not None:
            assert told(last.completion) == told(completion)
    else:
        assert isinstance(last, StreamFailed)
        seen["verdict"] = type(last.error).__name__
        if isinstance(last.error, APIStatusError):
            seen["error_status"] = last.error.status_code
    return seen


@pytest.mark.parametrize("name", CHAT)
def test_recording(name: str) -> None:
    found = exchanges([response(name)])
    wanted = WANTED[name]
    if wanted[0]["verdict"] == "ReadError":
        assert not found
        (event,) = Reply().end()
        assert isinstance(event, StreamFailed)
        assert isinstance(event.error, ReadError)
        return
    assert len(found) == len(wanted)
    for exchange, expected in zip(found, wanted, strict=True):
        assert exchange[0] == expected["status"]
        assert verdict(fed(exchange), expected) == expected


@pytest.mark.parametrize("name", CHAT)
def test_recording_cut_at_random(name: str) -> None:
    chance = random.Random(name)

    def recut(data: bytes) -> list[bytes]:
        return pieces(data, (chance.randrange(len(data) + 1) for _ in range(chance.choice((1, 5, 50)))))

    raw = response(name)
    found = exchanges([raw])
    for exchange in found:
        whole = [said(event) for event in fed(exchange, lambda data: [data])]
        for cutter in (None, recut, recut, each_byte):
            assert [said(event) for event in fed(exchange, cutter)] == whole
    # Also when the very response is cut, so that h11 gives other pieces.
    for before, after in zip(found, exchanges(recut(raw)), strict=True):
        assert [said(event) for event in fed(after)] == [said(event) for event in fed(before)]


@pytest.mark.parametrize("name", CHAT)
def test_a_prefix_of_a_recording_is_no_success(name: str) -> None:
    chance = random.Random(name)
    for status, headers, body, _ in exchanges([response(name)]):
        data = b"".join(body)
        ends = {0, 1, len(data) - 1, *(chance.randrange(len(data) + 1) for _ in range(12))}
        for end in sorted(ends & set(range(len(data)))):
            for ended_well in (True, False):
                events = fed((status, headers, [data[:end]], ended_well))
                if isinstance(events[-1], StreamEnded) and b"[DONE]" not in data[:end]:
                    completion = accumulate(chunks(events))
                    assert completion.choices
                    assert all(choice.finish_reason for choice in completion.choices)


def test_all_recordings_are_there() -> None:
    assert sorted(WANTED) == CHAT
    assert len(list(RECORDINGS.glob("*.response"))) >= len(CHAT) > 150


MODELS = sorted({path.name.removesuffix(".request") for path in RECORDINGS.glob("*.request")} - set(CHAT))


@pytest.mark.parametrize("name", MODELS)
def test_lists_of_models(name: str) -> None:
    ((status, headers, body, _),) = exchanges([response(name)])
    assert status == 200
    reply = Reply("models")
    reply.start(status, headers)
    for part in body:
        assert reply.receive(part) == []
    models, last = reply.end()
    assert isinstance(models, ModelList)
    assert isinstance(last, StreamEnded)
    assert models.data
    assert all(model.id for model in models)
