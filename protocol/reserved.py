"""`Reserved`: the base of structs that hold secrets."""

from __future__ import annotations

from typing import Any

import msgspec


class Reserved(msgspec.Struct, frozen=True):
    """A struct that says of itself what its ``repr`` says. (Those of msgspec show all their fields to the library rich,
    which prints tracebacks with the values of variables.)"""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("shown", repr(self))]
