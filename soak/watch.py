"""What a process has, and what it was told in passing that nobody would have heard."""

from __future__ import annotations

import collections
import contextlib
import gc
import logging
import os
import resource
import statistics
import sys
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

KEPT = 64 * 1024
"""Bytes that the memory of Python's objects may differ by between two thirds of a soak: a few idle connections are
there at one time and not at another."""


class Sample(NamedTuple):
    """What there is at one moment at which nothing is under way."""

    operations: int
    sockets: int
    threads: int
    traced: int
    """Bytes of Python's objects."""
    resident: int
    """Bytes of the process."""


def sample(operations: int) -> Sample:
    """Now, when the garbage is collected."""
    # Twice, since finalisers make garbage of their own.
    gc.collect()
    gc.collect()
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * resource.getpagesize()
    return Sample(operations, sockets(), threads(), tracemalloc.get_traced_memory()[0], resident)


def sockets() -> int:
    """How many sockets this process has."""
    count = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
    return count


def files() -> int:
    """How many files of any kind."""
    return len(os.listdir("/proc/self/fd"))


def threads() -> int:
    """Those that the process would wait for (trio keeps others for a while, in case it needs them again)."""
    return sum(not each.daemon for each in threading.enumerate())


def objects() -> collections.Counter[str]:
    """How many there are of each class of ours."""
    gc.collect()
    found = (type(each) for each in gc.get_objects())
    return collections.Counter(
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in found
        if kind.__module__.startswith("deltawire.") and not kind.__module__.startswith("deltawire.testing")
    )


def growth(samples: list[Sample], field: str) -> int:
    """By how much a figure is larger in the last third than in the second (medians)."""
    third = len(samples) // 3
    if not third:
        return 0
    second, last = (
        statistics.median(getattr(each, field) for each in part)
        for part in (samples[third : 2 * third], samples[2 * third :])
    )
    return int(last - second)


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether it holds soon: threads that end, and what the system tells, have their own time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


class Murmurs(logging.Handler):
    """What is said where nobody listens: by finalisers, threads, event loops, and in warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``: asyncio and trio log what they can't raise."""
        self.heard.append(f"logged by {record.name}: {self.format(record)}")

    def _unraisable(self, told: Any) -> None:
        self.heard.append(f"not raised: {told.exc_value!r} {told.err_msg or 'in'} {told.object!r}")

    def _in_thread(self, told: Any) -> None:
        self.heard.append(f"raised in a thread: {told.exc_value!r}")

    def _warned(self, message: Any, category: type[Warning], filename: str, line: int, *more: Any) -> None:
        self.heard.append(f"warned: {category.__name__}: {message} ({filename}:{line})")

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear all of it."""
        sys.unraisablehook, threading.excepthook = self._unraisable, self._in_thread
        root = logging.getLogger()
        root.addHandler(self)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.showwarning = self._warned  # type: ignore[assignment]
                yield
                gc.collect()
        finally:
            root.removeHandler(self)
            sys.unraisablehook, threading.excepthook = sys.__unraisablehook__, threading.__excepthook__
