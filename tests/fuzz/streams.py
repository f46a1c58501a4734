"""Targets: event streams, `SSEDecoder`, against WHATWG HTML 9.2.6 read naively."""

from __future__ import annotations

from event_reader import Reference

from deltawire.protocol import Limits, SSEDecoder
from deltawire.protocol.sse import BlockSplitter

from .common import COMPARED, Dice, cuttings

LIMITS = (
    None,
    Limits(line=1, event=1),
    Limits(line=7, event=7),
    Limits(line=12, event=40),
    Limits(line=40, event=12),
    Limits(line=100, event=200),
)


def sse(data: bytes) -> None:
    """Any split gives what the reference gives; no more is held than the limits say; after an error, and the end,
    nothing comes."""
    dice = Dice(data)
    limits = dice.pick(LIMITS)
    stream = dice.rest
    reference = Reference(limits)
    reference.read(stream)
    COMPARED["sse"] += 1
    for parts in ([stream], *cuttings(stream)):
        decoder = SSEDecoder(limits)
        events = [event for part in parts for event in decoder.receive(part)]
        assert events == reference.events
        assert decoder.last_event_id == reference.last_event_id
        assert (decoder.error and decoder.error.limit_name) == reference.error
        if reference.error is None:
            assert decoder.retry == reference.retry
        elif decoder.error is not None:
            assert decoder.receive(b"\n\ndata: late\n\n") == []
        assert decoder.end() == decoder.end() == decoder.receive(b"\n\ndata: late\n\n") == []
        held(limits or Limits(), parts)


def held(limits: Limits, parts: list[bytes]) -> None:
    """The one buffer stays within the limit of an event (and the line end that is not counted)."""
    splitter = BlockSplitter(limits)
    for part in parts:
        splitter.receive(part)
        assert len(splitter.rest) <= limits.event + 1
    splitter.end()
    assert not splitter.rest
