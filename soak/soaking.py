"""One combination, in a process of its own: ``python soaking.py FLAVOUR TRANSPORT SECONDS SEED``.

It prints what it found as JSON, last. The time is divided into rounds; after each of them nothing is under way, and
what there is can be counted.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deltawire import owners
from deltawire.protocol import ChatCompletionChunk

ROUTE_OPTIONS: dict[str, Any] = {"api_key": "sk-soak", "trust_env": False}

ROUNDS = 12
"""At least so many, whose thirds are compared; the first one is for warming up."""
LONGEST_ROUND = 6.0


def delta(chunk: ChatCompletionChunk) -> str:
    """Its text."""
    return chunk.choices[0].delta.content or ""


class Soak:
    """What all workers of a process know, and what they found."""

    def __init__(self, flavour: str, transport: str, seed: str, peers: Any) -> None:
        self.flavour = flavour
        self.transport = transport
        self.seed = seed
        self.peers = peers
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self._lock = threading.Lock()

    @property
    def failed(self) -> bool:
        """Whether there is anything to stop for."""
        return bool(self.failures)

    def connection_options(self) -> dict[str, Any]:
        """Of a client with connections of its own."""
        return {"verify": self.peers.authority, "transport": self.transport}

    def done(self, outcome: str) -> None:
        """Something has come to its end."""
        with self._lock:
            self.outcomes[outcome] += 1

    def check(self, holds: bool, what: str) -> None:
        """Note that a promise is broken, unless this holds."""
        if not holds:
            self._note(what)

    def _note(self, what: str) -> None:
        # At once, since what else is under way may take its time.
        print(f"{self.flavour}, {self.transport}, seed {self.seed}: {what}", file=sys.stderr, flush=True)
        self.failures.append(what)

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Note what is raised."""
        try:
            yield
        except Exception:
            self._note(traceback.format_exc())

    @property
    def operations(self) -> int:
        """How many so far."""
        return self.outcomes.total() if hasattr(self.outcomes, "total") else sum(self.outcomes.values())


def soak(flavour: str, transport: str, seconds: float, seed: str, peers: Any) -> dict[str, Any]:
    """Do it; gives what stands in the table, and ``failures``."""
    # Loaded here, since `import` is not what is measured.
    import tasks
    import threads
    import watch

    made = Soak(flavour, transport, seed, peers)
    kind: Any = threads.Threads if flavour == "threads" else tasks.Tasks
    murmurs = watch.Murmurs()
    with murmurs.listening():
        # Modules, threads and descriptors (trio's, asyncio's) that stay are there when this one is gone.
        warm = kind(made)
        warm.round(time.monotonic() + min(seconds / 10, LONGEST_ROUND))
        warm.close()
        del warm
        settled = watch.eventually(lambda: watch.threads() == threading_before)
        made.check(settled, f"{watch.threads()} threads after the first round")
        objects = watch.objects()
        tracemalloc.start()
        before = watch.sample(0)
        files = watch.files()
        working = kind(made)
        samples = _rounds(made, working, seconds)
        working.close()
        del working
        watch.eventually(lambda: watch.sockets() <= before.sockets and watch.threads() <= before.threads)
        after = watch.sample(made.operations)
        kept = watch.objects() - objects
        counts = peers.counts("end")
    third = "the last third of the soak against the second"
    made.check(not murmurs.heard, "heard in passing:\n" + "\n".join(murmurs.heard[:10]))
    made.check(after.sockets == before.sockets, f"{after.sockets} sockets, before {before.sockets}")
    made.check(watch.files() == files, f"{watch.files()} open files, before {files}")
    made.check(after.threads == before.threads, f"{after.threads} threads, before {before.threads}")
    made.check(counts["open"] == 0, f"the servers have {counts['open']} connections")
    made.check(not kept, f"objects are kept: {dict(kept)}")
    grown = watch.growth(samples, "traced")
    made.check(grown <= watch.KEPT, f"{third}: {grown} bytes more of Python's objects")
    return {
        "operations": made.operations,
        "outcomes": made.outcomes,
        "requests": counts["requests"],
        "connections": counts["connections"],
        "sockets": [before.sockets, max((each.sockets for each in samples), default=0), after.sockets],
        "threads": [before.threads, after.threads],
        "traced": [before.traced, after.traced],
        "grown": grown,
        "resident": [before.resident, after.resident],
        "resident grown": watch.growth(samples, "resident"),
        "rounds": len(samples),
        "failures": made.failures,
    }


threading_before = sum(not each.daemon for each in threading.enumerate())


def _rounds(made: Soak, working: Any, seconds: float) -> list[Any]:
    import watch

    count = max(ROUNDS, int(seconds / LONGEST_ROUND))
    samples = []
    for _ in range(count):
        if made.failed:
            break
        working.round(time.monotonic() + seconds / count)
        samples.append(watch.sample(made.operations))
    return samples


def main(flavour: str, transport: str, seconds: str, seed: str) -> None:
    """Print what was found."""
    from peers import peers

    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    owners._USUAL = transport
    with tempfile.TemporaryDirectory() as folder, peers(seed, Path(folder)) as running:
        print(json.dumps(soak(flavour, transport, float(seconds), seed, running)))


if __name__ == "__main__":
    # (The other modules know this one by its name.)
    sys.modules["soaking"] = sys.modules["__main__"]
    main(*sys.argv[1:])
