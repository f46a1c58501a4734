"""Recorded bytes of real servers, through `HTTP1Exchange`: whole, cut, one reply after the other; against a plain h11
loop, which test_recordings.py compares with the oracle."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from feeding import each_byte, judged, pieces
from make_expected import chat_recordings, response, site_recordings, site_response
from test_http1 import CLOSED, exchange
from test_recordings import MODELS, exchanges, fed

from deltawire.protocol import HTTPRequest, ReadError, Reply, StreamEnded, StreamFailed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deltawire.protocol import Event, HTTP1Exchange

CHAT = chat_recordings()
# With several replies on one connection.
SEVERAL = [name for name in CHAT if len(exchanges([response(name)])) > 1]


def heard(parts: Iterable[bytes], dialect: str = "openai") -> list[tuple[list[Event], HTTP1Exchange]]:
    """The replies on one connection: their events, and what became of the exchanges. The peer closes after the last."""
    made = exchange(dialect=dialect)
    found: list[tuple[list[Event], HTTP1Exchange]] = [([], made)]
    for part in parts:
        if made.reusable:
            made = made.next(HTTPRequest("GET", "http://h/", ((b"host", b"h"),)), Reply(dialect))
            made.data_to_send()
            found.append(([], made))
        found[-1][0].extend(made.receive(part))
    found[-1][0].extend(made.end())
    assert made.state is CLOSED
    return found


def by_hand(raw: bytes, dialect: str = "openai") -> list[list[Event]]:
    found = [fed(each, dialect=dialect) for each in exchanges([raw])]
    return found or [[StreamFailed(ReadError("no head"))]]


def check(raw: bytes, parts: Iterable[bytes], dialect: str = "openai") -> None:
    got = [judged(events) for events, _ in heard(parts, dialect)]
    assert got == [judged(events) for events in by_hand(raw, dialect)]


@pytest.mark.parametrize("name", [name for name in CHAT if name not in SEVERAL])
def test_chats(name: str) -> None:
    raw, chance = response(name), random.Random(name)
    check(raw, [raw])
    for times in (1, 5, 50):
        check(raw, pieces(raw, (chance.randrange(len(raw) + 1) for _ in range(times))))


@pytest.mark.parametrize("name", SEVERAL)
def test_several_replies_on_one_connection(name: str) -> None:
    raw = response(name)
    check(raw, each_byte(raw))
    # Nobody has asked for the second one yet, when both come at once.
    ((events, made),) = heard([raw])
    assert judged(events) == judged(by_hand(raw)[0])
    assert made.state is CLOSED


@pytest.mark.parametrize("name", MODELS)
def test_lists_of_models(name: str) -> None:
    raw = response(name)
    check(raw, [raw], "models")
    check(raw, each_byte(raw), "models")


@pytest.mark.parametrize("name", site_recordings())
def test_sites(name: str) -> None:
    raw, chance = site_response(name), random.Random(name)
    for times in (0, 1, 50):
        check(raw, pieces(raw, (chance.randrange(len(raw) + 1) for _ in range(times))), "opchatgpts")


def test_what_the_servers_allow() -> None:
    """Of those that end well, most connections could be kept; some servers close, or say nothing of a length."""
    kept: list[bool] = []
    for name in CHAT:
        made = exchange()
        events = made.receive(response(name))
        if events and isinstance(events[-1], StreamEnded):
            kept.append(made.reusable)
    assert len(kept) > 100
    assert sum(kept) > len(kept) / 2
    assert not all(kept)
    assert len(SEVERAL) >= 3
