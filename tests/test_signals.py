"""dialects/signals.py: what an event may say beside chunks; no two of them are mistaken for each other."""

from __future__ import annotations

import typing

import msgspec
import pytest

from deltawire.protocol.dialects.signals import DONE, EMPTY, TOO_MANY, BadEvent, Signal
from deltawire.protocol.status import ErrorObject


def test_the_signals_are_these() -> None:
    assert set(typing.get_args(Signal)) == {ErrorObject, BadEvent, typing.Literal["[DONE]", "empty", "too many"]}
    # OpenAI's API reference, "Chat streaming": the stream is "terminated by a data: [DONE] message".
    assert (DONE, EMPTY, TOO_MANY) == ("[DONE]", "empty", "too many")


def test_an_event_that_cannot_be_read_says_what_is_wrong_and_where() -> None:
    bad = BadEvent(b"{", "is no JSON")
    assert (bad.data, bad.what) == (b"{", "is no JSON")
    assert bad == BadEvent(data=b"{", what="is no JSON") != BadEvent(b"}", "is no JSON")
    with pytest.raises(AttributeError):
        bad.what = "fine"  # type: ignore[misc]
    assert not isinstance(bad, (str, ErrorObject))
    assert msgspec.structs.asdict(bad).keys() == {"data", "what"}
