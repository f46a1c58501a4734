"""``python benchmarks/run.py [SUBJECT ...] [--quick]``: see README.md."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

from _measure import Line, table

SUBJECTS = {
    "parse": ("parse", "Bytes to typed chunks, no I/O"),
    "requests": ("request_building", "Building a request"),
    "stream": ("stream", "One stream at full speed"),
    "paced": ("paced", "Many streams at once, paced"),
    "scale": ("scale", "Thousands of streams at once, asyncio"),
    "slow": ("slow", "A slow reader of a fast stream"),
    "import": ("imports", "Imports, CPU over python's own"),
    "memory": ("memory", "Bytes a kept chunk"),
}

_PEERS = ("msgspec", "h11", "httpcore", "anyio", "trio", "openai", "httpx", "httpx-sse", "aiohttp")


def main(arguments: list[str]) -> int:
    """Run the subjects that are named, and print a table for each. Never fails for a budget."""
    parser = argparse.ArgumentParser(description="Compares deltawire with its floors and its peers, in one run.")
    parser.add_argument("subjects", nargs="*", choices=[*SUBJECTS, "all"], default="all", metavar="SUBJECT")
    parser.add_argument("--quick", action="store_true", help="fewer events and rounds: does it run at all?")
    options = parser.parse_args(arguments)
    # Nothing here leaves the machine, whatever the environment says of proxies.
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    chosen = SUBJECTS if "all" in options.subjects else options.subjects
    print(f"CPython {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in _PEERS)}\n")
    # Lets one name a subject twice, to see how much a run differs from the next.
    for name in chosen:
        module, title = SUBJECTS[name]
        # Each is loaded when its turn comes: no subject runs among the modules of those that follow.
        measure: Callable[[bool], list[Line]] = importlib.import_module(module).measure
        begin = time.monotonic()
        lines = measure(options.quick)
        print(table(f"{title} ({time.monotonic() - begin:.0f} s)", lines), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
