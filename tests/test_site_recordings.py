"""Recorded bytes of WordPress sites with AI Engine, through h11 into `Reply`, against what the oracle made of them."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from feeding import chunks, each_byte, pieces, said, text
from make_expected import SITE_EXPECTED, derive_sites, site_recordings, site_response
from test_recordings import exchanges, fed

from deltawire.protocol import APIStatusError, StatusChunk, StreamEnded, StreamFailed, accumulate, is_stale_nonce

if TYPE_CHECKING:
    from deltawire.protocol import Event

NAMES = site_recordings()
WANTED: dict[str, dict[str, Any]] = json.loads(SITE_EXPECTED.read_text(encoding="utf-8"))


def verdict(events: list[Event], status: int) -> dict[str, Any]:
    """One reply in the words of expected-ai-engine.json."""
    completion = accumulate(chunks(events))
    last = events[-1]
    usage = completion.usage
    seen: dict[str, Any] = {
        "status": status,
        "verdict": "ended",
        "text": text(events),
        "status_lines": [chunk.model_extra["data"] for chunk in chunks(events) if isinstance(chunk, StatusChunk)],
        "usage": usage
        and {name: getattr(usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")},
        "id": completion.id,
        "actions": completion.model_extra.get("actions", []),
        "error_status": None,
        "code": None,
    }
    if isinstance(last, StreamFailed):
        seen["verdict"] = type(last.error).__name__
        if isinstance(last.error, APIStatusError):
            seen |= {"error_status": last.error.status_code, "code": last.error.code}
    else:
        assert isinstance(last, StreamEnded)
        assert last.finished
        assert completion.choices[0].finish_reason == "stop"
    return seen


def test_all_recordings_are_there() -> None:
    assert sorted(WANTED) == NAMES
    assert len(NAMES) == 56


def test_what_is_expected_is_what_the_oracle_says() -> None:
    assert derive_sites() == WANTED


@pytest.mark.parametrize("name", NAMES)
def test_recording(name: str) -> None:
    (exchange,) = exchanges([site_response(name)])
    wanted = dict(WANTED[name])
    events = fed(exchange, dialect="opchatgpts")
    words = wanted.pop("words")
    assert verdict(events, exchange[0]) == wanted
    last = events[-1]
    if isinstance(last, StreamFailed):
        assert words in str(last.error)
        # A stale nonce, and nothing else, is worth a new one.
        assert is_stale_nonce(last.error) is ("nonce" in name)


@pytest.mark.parametrize("name", NAMES)
def test_recording_cut_otherwise(name: str) -> None:
    chance = random.Random(name)
    (exchange,) = exchanges([site_response(name)])
    whole = [said(event) for event in fed(exchange, lambda data: [data], "opchatgpts")]
    size = len(b"".join(exchange[2]))
    # In two parts everywhere, or in a sample of places when there are many.
    for at in range(1, size) if size < 700 else sorted(chance.sample(range(1, size), 60)):
        assert [said(event) for event in fed(exchange, lambda data, at=at: pieces(data, [at]), "opchatgpts")] == whole  # type: ignore[misc]
    for cutter in (None, each_byte):
        assert [said(event) for event in fed(exchange, cutter, "opchatgpts")] == whole


@pytest.mark.parametrize("name", [name for name in NAMES if WANTED[name]["status"] == 200])
def test_a_prefix_of_a_recording_is_no_success(name: str) -> None:
    ((status, headers, body, _),) = exchanges([site_response(name)])
    data = b"".join(body)
    # The last event needs no blank line.
    complete = len(data.rstrip())
    for end in range(0, complete, 1 if complete < 700 else 37):
        events = fed((status, headers, [data[:end]], True), dialect="opchatgpts")
        last = events[-1]
        assert isinstance(last, StreamFailed)
        assert type(last.error).__name__ == "TruncatedStreamError"
