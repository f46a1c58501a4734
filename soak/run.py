"""``python soak/run.py [--minutes M | --short] [--seed S] [--only FLAVOUR,TRANSPORT]``: see ``scripts/soak.py``."""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FLAVOURS = ("threads", "asyncio", "trio")
TRANSPORTS = ("httpcore", "wire")

SHORT = 0.2
"""Minutes."""
SLACK = 180.0
"""Seconds that a process may take beyond its time, before it counts as hanging."""

_HEADS = (
    "flavour", "transport", "minutes", "operations", "completed", "broken off", "cancelled", "errors", "requests",
    "sockets", "threads", "MiB traced", "growth, KiB", "MiB resident", "growth, MiB",
)  # fmt: skip


def main() -> int:
    """Run what is asked for, print the table; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description="Random calls for some minutes, and a look at what is left of them.")
    parser.add_argument("--minutes", type=float, default=3.0, help="of each flavour and transport (3)")
    parser.add_argument("--short", action="store_true", help=f"{SHORT:g} minutes")
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10**6)))
    parser.add_argument("--only", help="such as 'asyncio,wire'")
    options = parser.parse_args()
    seconds = 60 * (SHORT if options.short else options.minutes)
    pairs = list(itertools.product(FLAVOURS, TRANSPORTS))
    if options.only:
        pairs = [pair for pair in pairs if ",".join(pair) == options.only]
        if not pairs:
            parser.error(f"--only: a flavour and a transport, of {', '.join(FLAVOURS)} and {', '.join(TRANSPORTS)}")
    print(f"soak: seed {options.seed}, {seconds:g} s for each of {len(pairs)}, two at a time", flush=True)
    begin = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda pair: one(pair[0], pair[1], seconds, options.seed), pairs))
    print(table(found, seconds))
    failed = [each for each in found if each["failures"]]
    for each in failed:
        print(f"\nBROKEN: {each['flavour']}, {each['transport']}, --seed {options.seed}", *each["failures"], sep="\n")
    operations = sum(each.get("operations", 0) for each in found)
    print(
        f"\nsoak: {operations} operations in {len(found) * seconds / 60:.1f} minutes of soak "
        f"({time.monotonic() - begin:.0f} s), {len(failed)} of {len(found)} broken, seed {options.seed}"
    )
    return 1 if failed else 0


def one(flavour: str, transport: str, seconds: float, seed: str) -> dict[str, Any]:
    """What one combination found."""
    command = [sys.executable, str(Path(__file__).parent / "soaking.py"), flavour, transport, str(seconds), seed]
    named = {"flavour": flavour, "transport": transport, "outcomes": {}}
    try:
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, timeout=seconds + SLACK)
    except subprocess.TimeoutExpired:
        return {**named, "failures": [f"hangs: not over {SLACK:g} s after its time"]}
    if done.returncode:
        return {**named, "failures": [f"ended by itself, with status {done.returncode}: see above"]}
    return {**named, **json.loads(done.stdout.splitlines()[-1])}


def table(found: list[dict[str, Any]], seconds: float) -> str:
    """What was found, in columns, and the errors by class."""
    rows = [list(_HEADS), *(cells(each, seconds) for each in found if "operations" in each)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    errors: Counter[str] = Counter()
    for each in found:
        errors.update({name: count for name, count in each["outcomes"].items() if name.endswith("Error")})
    return "\n".join(
        ["", *lines, "", "errors: " + ", ".join(f"{name} {count}" for name, count in errors.most_common())]
    )


def cells(each: dict[str, Any], seconds: float) -> list[str]:
    """The line of one combination; before and after, and between them the most."""
    outcomes = each["outcomes"]
    plain = ("completed", "broken off", "cancelled")
    failed = sum(count for name, count in outcomes.items() if name not in plain)
    return [
        each["flavour"],
        each["transport"],
        f"{seconds / 60:.1f}",
        str(each["operations"]),
        *(str(outcomes.get(name, 0)) for name in plain),
        str(failed),
        str(each["requests"]),
        "-".join(map(str, each["sockets"])),
        "-".join(map(str, each["threads"])),
        "-".join(f"{size / 2**20:.2f}" for size in each["traced"]),
        f"{each['grown'] / 1024:.1f}",
        "-".join(f"{size / 2**20:.0f}" for size in each["resident"]),
        f"{each['resident grown'] / 2**20:.1f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
