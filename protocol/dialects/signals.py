"""What an event may say beside chunks, in every dialect."""

from __future__ import annotations

from typing import Literal

import msgspec

from ..status import ErrorObject

DONE: Literal["[DONE]"] = "[DONE]"
EMPTY: Literal["empty"] = "empty"
TOO_MANY: Literal["too many"] = "too many"


class BadEvent(msgspec.Struct, frozen=True):
    """An event that can't be read."""

    data: bytes
    what: str
    """What is wrong with it."""


Signal = ErrorObject | BadEvent | Literal["[DONE]", "empty", "too many"]
"""An error, the end, that the reply has ended in good order and says nothing, or that it holds too many objects."""
