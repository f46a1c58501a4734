"""Runs the matrix and prints its table: see ``scripts/faults.py``."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from .cells import Cell
from .running import WAYS, Way
from .scenarios import SCENARIOS
from .tally import Part, Tally, run_part

# Cells of the short run: so many there are for each of them.
SHORT = 5


def main() -> int:
    arguments = parse_arguments()
    every = arguments.every or (SHORT if arguments.short else 1)
    if arguments.cell:
        parts = [part_of(each) for each in arguments.cell]
    else:
        parts = [
            Part(name, way, every)
            for name in arguments.scenario or SCENARIOS
            for way in WAYS
            if all(word in str(way) for word in arguments.way)
        ]
    begin, total = time.monotonic(), Tally()
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(run_part, part): part for part in parts}
        for done in as_completed(running):
            part = running[done]
            try:
                tally = done.result()
            except BrokenProcessPool:
                # The watchdog has said why.
                return 3
            total += tally
            print(f"{part.scenario}, {part.way}: {tally.line()}", flush=True)
            for problem in tally.problems:
                print(f"  {problem}", flush=True)
    print(total.tables())
    print(f"{total.line()}; {time.monotonic() - begin:.0f} s, on {arguments.jobs} processes")
    if not arguments.cell:
        total.check_both_counts()
    for problem in total.problems:
        print(f"BROKEN: {problem}")
    return 1 if total.problems else 0


def part_of(words: str) -> Part:
    """Of a cell as it is printed."""
    cell, flavour, transport = words.rsplit("/", 2)
    found = Cell.parse(cell)
    return Part(found.scenario, Way(flavour, transport), 1, (found,))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/faults.py", description="The fault matrix, byte by byte.")
    parser.add_argument("--short", action="store_true", help=f"as --every {SHORT}, for CI")
    parser.add_argument("--every", type=int, metavar="N", help="each Nth cell, and those where the outcome changes")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="this one only; may be repeated")
    parser.add_argument("--way", action="append", default=[], metavar="WORD", help="ways with it: sync, trio/wire")
    parser.add_argument("--cell", action="append", metavar="CELL", help="run this cell, as it was printed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
