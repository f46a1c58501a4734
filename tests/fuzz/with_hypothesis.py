"""hypothesis on a target: inputs of its corpus, mended and marred.

python -m fuzz.with_hypothesis TARGET --seconds 10      (in tests/)
"""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING

from feeding import QUICK
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from . import seeds
from .targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable


@st.composite
def mutated(draw: st.DrawFn, corpus: list[bytes], tokens: list[bytes]) -> bytes:
    """An input that is cut, spliced with another one, has parts doubled, bits flipped, tokens put in."""
    data = draw(st.sampled_from(corpus))
    for _ in range(draw(st.integers(0, 4))):
        start, stop = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        match draw(st.sampled_from(["cut", "end", "double", "splice", "flip", "token", "bytes", "swap"])):
            case "cut":
                data = data[:start] + data[stop:]
            case "end":
                data = data[:start]
            case "double":
                data = data[:stop] + data[start:]
            case "splice":
                other = draw(st.sampled_from(corpus))
                data = data[:start] + other[draw(st.integers(0, len(other))) :]
            case "flip" if start < len(data):
                data = data[:start] + bytes([data[start] ^ (1 << draw(st.integers(0, 7)))]) + data[start + 1 :]
            case "token":
                data = data[:start] + draw(st.sampled_from(tokens)) + data[start:]
            case "bytes":
                data = data[:start] + draw(st.binary(max_size=8)) + data[stop:]
            case "swap":
                data = data[start:stop] + data[:start] + data[stop:]
    return data[: 2 * seeds.LONGEST]


def examples(name: str, count: int, number: int | None = None) -> Callable[[], int]:
    """A test of so many examples, always the same ones, or those of a seed; gives how many there were."""
    ran = 0

    @given(mutated(seeds.corpus(name), seeds.TOKENS[name]) | st.binary(max_size=200))
    def try_one(data: bytes) -> None:
        nonlocal ran
        ran += 1
        TARGETS[name](data)

    test = settings(QUICK, max_examples=count, derandomize=number is None)(try_one)
    if number is not None:
        test = seed(number)(test)

    def run() -> int:
        test()
        return ran

    return run


def main() -> None:
    """Batches of examples until the time is over; the last line says in JSON what was done."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--examples", type=int, help="so many, in place of the time")
    parser.add_argument("--seed", type=int, default=0, help="of the first batch")
    options = parser.parse_args()
    started, ran, number = time.monotonic(), 0, options.seed
    if options.examples:
        ran = examples(options.target, options.examples, number)()
    while (took := time.monotonic() - started) < options.seconds and not options.examples:
        ran += examples(options.target, 200, number)()
        number += 1
    print(json.dumps({"executions": ran, "seconds": took}))


if __name__ == "__main__":
    main()
