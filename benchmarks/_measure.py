"""How costs are compared: interleaved, pair by pair.

Theory
------
Machines of this kind (virtual, shared) drift by a factor of two within seconds, so a time says little and
two times taken a minute apart say nothing. What is stable is the ratio of two costs taken one right after
the other. So all contestants of a line run in turn, A B C A B C ..., and each round gives one ratio per
contestant: its cost over the floor's in that very round. Of these the median is reported, and judged; the
least one stands beside it, and tells how much of the median may be noise.

Costs are CPU seconds of this process (`time.process_time`) unless a module says otherwise: what a server or
another program does on the machine at the time is not counted, though it does disturb caches.

Before each measurement the garbage is collected, and what was there before the first one is frozen: else
each full collection would walk the modules of all peers and the cost would fall on whoever runs just then.
"""

from __future__ import annotations

import gc
import resource
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field

Costs = dict[str, list[float]]
"""For each contestant its cost in each round."""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    subject: str
    _: KW_ONLY
    unit: str
    costs: Costs
    ours: str
    """The contestant that is ours; the others that are not the floor are peers."""
    floor: str
    budget: float | None = None
    """What is allowed: as a ratio to the floor, or, with ``absolute``, in the line's unit."""
    absolute: bool = False
    scale: float = 1e6
    """From the costs to the unit."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """What is to be known about a contestant's costs."""

    def ratios(self, name: str) -> list[float]:
        """The contestant's cost over the floor's, round by round."""
        return [cost / floor for cost, floor in zip(self.costs[name], self.costs[self.floor], strict=True)]

    def least(self, name: str) -> float:
        """The contestant's least cost, in the line's unit."""
        return min(self.costs[name]) * self.scale

    @property
    def verdict(self) -> str:
        """ "ok", "over", or "" for a line without a budget."""
        if self.budget is None:
            return ""
        value = self.least(self.ours) if self.absolute else statistics.median(self.ratios(self.ours))
        return "ok" if value <= self.budget else "over"

    def cells(self) -> list[str]:
        """The line as it is printed."""
        ratios = self.ratios(self.ours)
        budget = "" if self.budget is None else f"{self.budget:.3g} {self.unit if self.absolute else 'x'}"
        peers = (name for name in self.costs if name not in (self.ours, self.floor))
        return [
            self.subject,
            f"{self.least(self.ours):.4g}",
            f"{self.least(self.floor):.4g}",
            self.unit,
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f}",
            budget,
            self.verdict,
            ", ".join(f"{name} {statistics.median(self.ratios(name)):.3g}" for name in peers)
            + "".join(f"; {name} {note}" for name, note in self.notes.items() if name in self.costs),
        ]


_HEADS = ["subject", "ours", "floor", "unit", "ratio", "least", "budget", "", "others (x floor)"]


def table(title: str, lines: list[Line]) -> str:
    """The lines under a title, in columns."""
    rows = [_HEADS, *(line.cells() for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    text = [title, ""]
    for number, row in enumerate(rows):
        # The first and the last column hold words, those between numbers.
        cells = [
            cell.ljust(width) if column in (0, 3, 7, 8) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
        if number == 0:
            text.append("  ".join("-" * width for width in widths))
    return "\n".join(text) + "\n"


def resident() -> int:
    """Bytes of memory that this process has, by what the system says."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def settle() -> None:
    """Collect the garbage, so that nobody pays for what another left."""
    gc.collect()


def freeze() -> None:
    """What is there now is no longer looked at by the collector."""
    gc.collect()
    gc.freeze()


def cpu(work: Callable[[], object], units: int) -> float:
    """CPU seconds a unit that the work takes."""
    settle()
    begin = time.process_time()
    work()
    return (time.process_time() - begin) / units


def interleaved(contestants: Mapping[str, Callable[[], float]], rounds: int) -> Costs:
    """Let each contestant measure itself once a round; a first round is not counted."""
    for measure in contestants.values():
        measure()
    freeze()
    costs: Costs = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, measure in contestants.items():
            costs[name].append(measure())
    return costs


async def ainterleaved(contestants: Mapping[str, Callable[[], Awaitable[float]]], rounds: int) -> Costs:
    """As `interleaved`, within one event loop."""
    for measure in contestants.values():
        await measure()
    freeze()
    costs: Costs = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, measure in contestants.items():
            costs[name].append(await measure())
    return costs
