"""Counting the cells and what is wrong with them."""

from __future__ import annotations

import gc
import logging
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from driving import no_leaks
from small_tls import small_tls

from .cells import Cell, Contexts, Matrix
from .peer import CUTS
from .running import LONGEST, Batch, Way, agrees
from .scenarios import SCENARIOS


class Part(NamedTuple):
    """What is done at a time: one scenario in one way."""

    scenario: str
    way: Way
    every: int
    cells: tuple[Cell, ...] = ()


_matrices: list[Matrix] = []


def matrix() -> Matrix:
    """That of this process."""
    if not _matrices:
        _matrices.append(Matrix(Contexts(*small_tls())))
    return _matrices[0]


class Tally:
    """Counts by scenario, fault, way and outcome."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, str, str]] = Counter()
        self.problems: list[str] = []
        self.again = 0

    def __iadd__(self, other: Tally) -> Tally:
        self.counts += other.counts
        self.problems += other.problems
        self.again += other.again
        return self

    def line(self) -> str:
        cells, successes = self.counts.total(), sum(n for key, n in self.counts.items() if key[3] == "success")
        return (
            f"{cells} cells, {successes} successes, {cells - successes} failures, {len(self.problems)} broken, "
            f"{self.again} made again"
        )

    def check_both_counts(self) -> None:
        """Neither may be zero, whichever way is looked at."""
        for way in sorted({key[2] for key in self.counts}):
            here = {key[3]: count for key, count in self.counts.items() if key[2] == way}
            if "success" not in here or len(here) == 1:
                self.problems.append(f"{way} has no successes, or no failures: {here}")

    def tables(self) -> str:
        """By scenario and fault, over all ways; by way, over all scenarios."""
        items = self.counts.items()
        faults = _table(
            [(name, fault, outcome, count) for (name, fault, _, outcome), count in items], "scenario, fault"
        )
        ways = _table([(way, "", outcome, count) for (_, _, way, outcome), count in items], "way")
        return "\n\n".join([faults, ways, self._unlike()])

    def _unlike(self) -> str:
        """Where the ways differ, which they may only where two outcomes are right."""
        found: dict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
        for (name, fault, way, outcome), count in self.counts.items():
            found[name, fault, outcome][way] = count
        ways = {key[2] for key in self.counts}
        unlike = {key: counts for key, counts in found.items() if len({counts.get(way, 0) for way in ways}) > 1}
        lines = [f"{', '.join(key)}: {counts}" for key, counts in sorted(unlike.items())]
        return "\n".join(["counts that differ between ways:", *(lines or ["none"])])


def _table(rows: list[tuple[str, str, str, int]], name: str) -> str:
    found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for first, second, outcome, count in rows:
        found[first, second][outcome] += count
    lines = [f"{name:37} {'cells':>7} {'success':>7}  failures"]
    for (first, second), counts in sorted(found.items()):
        failures = ", ".join(f"{each} {count}" for each, count in sorted(counts.items()) if each != "success")
        lines.append(f"{first:20} {second:16} {counts.total():7} {counts['success']:7}  {failures}")
    return "\n".join(lines)


def sample(batch: Batch, every: int) -> list[Cell]:
    """Each so manieth cell; and of the cuts those where the outcome changes its name, with the one before."""
    cells = batch.cells()
    if every == 1:
        return cells
    chosen = set(range(0, len(cells), every))
    names = [batch.expected(cell)[0].error if cell.strike.kind in CUTS else "" for cell in cells]
    for number in range(1, len(cells)):
        if names[number] != names[number - 1]:
            chosen |= {number - 1, number}
    return [cells[number] for number in sorted(chosen)]


def run_part(part: Part) -> Tally:
    """These cells, or a sample."""
    scenario, way, tally = part.scenario, part.way, Tally()
    with complaints(tally.problems, f"{scenario}/{way}"), no_leaks():
        batch = Batch(matrix(), SCENARIOS[scenario], way)
        if not batch.is_well:
            tally.problems.append(f"{scenario}/{way}, without a fault: {batch.clean.error!r}")
            return tally
        for ended, expected in batch.run(list(part.cells) or sample(batch, part.every)):
            outcome, name = ended.outcome, f"{ended.cell}/{way}"
            tally.counts[scenario, ended.cell.fault, str(way), outcome.error or "success"] += 1
            if not agrees(outcome, expected):
                wanted = "; or ".join(map(str, expected))
                tally.problems.append(f"{name}: {outcome}, not {wanted}. {ended.error!r}"[:600])
            elif ended.seconds > LONGEST:
                tally.problems.append(f"{name}: took {ended.seconds:.1f} s")
        tally.again = batch.again
    return tally


@contextmanager
def complaints(problems: list[str], where: str) -> Iterator[None]:
    """Take down what Python and the event loops complain of: warnings where nobody can raise them, lost errors."""
    heard: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    handler, before = Handler(logging.WARNING), sys.unraisablehook
    logging.getLogger().addHandler(handler)
    sys.unraisablehook = lambda told: heard.append(f"{told.err_msg}: {told.exc_value!r} in {told.object!r}")
    try:
        yield
        gc.collect()
    finally:
        sys.unraisablehook = before
        logging.getLogger().removeHandler(handler)
        problems += [f"{where}: {each}" for each in heard]
