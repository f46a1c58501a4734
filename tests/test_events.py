"""events.py: what a reply says beside its chunks, as values that nobody changes."""

from __future__ import annotations

import msgspec
import pytest

from deltawire.protocol import (
    ChatCompletion,
    DeltawireError,
    ReadError,
    SessionStarted,
    StreamEnded,
    StreamFailed,
)

NONCE = "0123456789abcdef"


def test_a_good_end() -> None:
    assert msgspec.structs.asdict(StreamEnded(False)) == {"finished": False, "completion": None}
    whole = ChatCompletion(id="x")
    assert StreamEnded(True, whole).completion is whole
    assert StreamEnded(True) == StreamEnded(finished=True, completion=None) != StreamEnded(False)


def test_a_bad_end() -> None:
    error: DeltawireError = ReadError("it broke")
    assert StreamFailed(error).error is error


def test_a_session_does_not_show_its_nonce() -> None:
    """It is what each request must carry: a key, for a day."""
    session = SessionStarted("name", NONCE)
    assert (session.session_id, session.nonce) == ("name", NONCE)
    assert repr(session) == str(session) == f"{session}" == "SessionStarted(session_id='name', nonce='***')"
    assert NONCE not in f"{[session]} {session!r}"


@pytest.mark.parametrize("event", [StreamEnded(True), StreamFailed(ReadError("x")), SessionStarted("s", "n")])
def test_events_do_not_change(event: msgspec.Struct) -> None:
    for name in event.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(event, name, None)
