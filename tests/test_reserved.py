"""reserved.py: structs that show nothing but what they say of themselves."""

from __future__ import annotations

from deltawire.protocol.reserved import Reserved


def test_what_is_reserved() -> None:
    class Held(Reserved, frozen=True):
        secret: str

        def __repr__(self) -> str:
            return "<Held>"

    assert Held("x").__rich_repr__() == [("shown", "<Held>")]
