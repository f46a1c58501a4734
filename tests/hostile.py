"""Peers that mean ill, and what they make us do, counted."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import deltawire.protocol

_PROTOCOL = str(Path(deltawire.protocol.__file__).parent)


def steps(call: Callable[[], object]) -> int:
    """How many steps (bytecode instructions of `protocol`) a call takes: the same on each machine, whatever else that
    has to do."""
    count = 0

    def trace(frame: FrameType, what: str, _: Any) -> Any:
        nonlocal count
        if what == "call":
            if not frame.f_code.co_filename.startswith(_PROTOCOL):
                return None
            frame.f_trace_lines, frame.f_trace_opcodes = False, True
        elif what == "opcode":
            count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def assert_linear(call: Callable[[int], Callable[[], object]], number: int) -> None:
    """That ``call(n)`` takes no more than in proportion to ``n``: of four times as much, no more than five times as
    many steps. (Where each looks at all that were before, it is sixteen.)"""
    # From Python 3.12 on, not all is counted of what is run for the first time.
    steps(call(1))
    few, many = steps(call(number)), steps(call(4 * number))
    assert few > number, "nothing was counted"
    assert many < 5 * few, (few, many)


class Flood:
    """A script for a server's connection: after the request it says the beginning, and then, for ever, one unit after
    the other; with a ``pace``, so many seconds apart. ``ahead``: it waits for no request."""

    def __init__(self, start: bytes, unit: bytes, *, pace: float = 0.0, ahead: bool = False) -> None:
        self._start = start
        self._unit = unit if pace else unit * (65536 // len(unit) + 1)
        self._pace = pace
        self._ahead = ahead
        self.sent = 0
        """How many bytes have gone out, which the other end may or may not have read."""
        self.gone = threading.Event()
        """Set when the other end has closed."""

    @property
    def _next(self) -> bytes:
        return self._unit

    def __call__(self, connection: Any) -> None:
        if not self._ahead:
            connection.recv(65536)
        clock = threading.Event()
        try:
            connection.sendall(self._start)
            while True:
                self.sent += connection.send(self._next)
                clock.wait(self._pace)
        except TimeoutError:
            raise
        except OSError:
            self.gone.set()
