"""limits.py: which bounds there are, and that they are some. (What they do: test_reply.py, test_sse.py.)"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from deltawire.protocol import Limits
from deltawire.protocol.limits import DEFAULT_LIMITS

KIB, MIB = 1 << 10, 1 << 20

DEFAULTS = {
    "line": 8 * MIB,
    "event": 16 * MIB,
    "error_body": 64 * KIB,
    "head": 64 * KIB,
    "reply": 256 * MIB,
    "document": 64 * MIB,
    "objects": 1_000_000,
}


def test_the_defaults() -> None:
    """What is promised to those who leave them: in bytes, but for objects."""
    assert msgspec.structs.asdict(Limits()) == DEFAULTS
    assert Limits() == DEFAULT_LIMITS
    # A line fits into an event, and both, as a document, into a reply.
    assert Limits().line < Limits().event < Limits().document < Limits().reply


@pytest.mark.parametrize("name", DEFAULTS)
def test_one_is_the_least(name: str) -> None:
    given: dict[str, Any] = {name: 1}
    assert msgspec.structs.asdict(Limits(**given)) == DEFAULTS | given
    for value in (0, -1):
        unit = "" if name == "objects" else " byte"
        with pytest.raises(ValueError, match=rf"^Limits\.{name} must be at least 1{unit}, not {value}$"):
            Limits(**{name: value})


def test_nobody_changes_them_for_others() -> None:
    with pytest.raises(AttributeError):
        Limits().line = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        Limits(1)  # type: ignore[call-arg]
