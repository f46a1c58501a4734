"""reserved.py: what holds secrets says of itself what its repr says, to whoever asks."""

from __future__ import annotations

from deltawire.protocol import ChatRequest, Context, HTTPRequest
from deltawire.protocol.reserved import Reserved


def test_what_is_reserved() -> None:
    class Held(Reserved, frozen=True):
        secret: str

        def __repr__(self) -> str:
            return "<Held>"

    assert Held("x").__rich_repr__() == [("shown", "<Held>")]


def test_those_that_hold_secrets_are() -> None:
    for cls in (ChatRequest, Context, HTTPRequest):
        assert issubclass(cls, Reserved)
