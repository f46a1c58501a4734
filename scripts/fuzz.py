"""Fuzzing: the targets in ``tests/fuzz/``, by atheris (libFuzzer) and by hypothesis: ``python scripts/fuzz.py``.

    python scripts/fuzz.py --short                     about two minutes on two cores: what CI runs, each time as many
                                                       executions from one seed, so that it tells of the change
    python scripts/fuzz.py                             a minute a target
    python scripts/fuzz.py --long                      ten minutes a target
    python scripts/fuzz.py --seconds 30 --target sse --target http1
    python scripts/fuzz.py --reseed                    only write the corpus's seeds anew, from the recordings

Each target runs in a process of its own, as many at a time as there are cores. What atheris learns is kept in
``.fuzz/corpus/`` in the checkout; an input that breaks a promise goes to ``.fuzz/crashes/<target>/``, and belongs in
``tests/fuzz/corpus/<target>/`` once it is mended. The exit status is 1 when one was found, when a target did not run,
or when there is no atheris: it has wheels for Linux on x86-64 and CPython 3.11 to 3.13, and the script looks for such
an interpreter, on PATH and among pyenv's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from _venv import ROOT, environment, run

HOME = ROOT / ".fuzz"
TESTS = ROOT / "tests"
VERSIONS = ("3.12", "3.13", "3.11")

# Executions, in short; of what takes no time there are more.
SHORT = {"atheris": 4000, "hypothesis": 400}
QUICK = {"base64", "media", "json", "proxy_url", "deadlines", "retry_after"}
# Seconds for each engine and target.
USUAL = {"atheris": 60.0, "hypothesis": 15.0}
LONG = {"atheris": 600.0, "hypothesis": 60.0}

# For one input; and beside the time that is given, for starting and ending.
INPUT_TIME, SPARE_TIME = 10, 120


class Result(NamedTuple):
    """What one engine did with one target."""

    target: str
    engine: str
    executions: int
    seconds: float
    corpus: int | None
    edges: int | None
    failure: str
    """What was found, or why it did not run; "" for nothing."""

    def row(self) -> list[str]:
        speed = self.executions / self.seconds if self.seconds else 0
        more = ["-" if number is None else str(number) for number in (self.corpus, self.edges)]
        return [self.target, self.engine, f"{self.executions:,}", f"{speed:,.0f}", *more, str(int(bool(self.failure)))]


COLUMNS = ["target", "engine", "executions", "exec/s", "corpus", "edges", "crashes"]


def main() -> int:
    options = parse_arguments()
    if options.inside is None:
        return outside(sys.argv[1:], options.reseed)
    python = Path(sys.executable)
    if options.reseed:
        return run(
            python,
            "-c",
            "import sys; sys.path.insert(0, 'tests'); from fuzz import seeds; print(seeds.write(), 'seeds')",
        )
    return fuzz(python, options)


def parse_arguments() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--target", action="append", metavar="NAME", help="only this one; may be given several times")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help="about two minutes on two cores, for CI")
    length.add_argument("--long", action="store_true", help="ten minutes a target")
    length.add_argument("--seconds", type=float, help="so long a target, atheris; a quarter of it hypothesis")
    parser.add_argument("--seed", type=int, help="of both engines; else 1 with --short, and by the clock without")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--reseed", action="store_true", help="write the seeds anew, and nothing else")
    # Which engines there are, for the run inside the environment.
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- The environment -------------------------------------------------------------------------------------


def outside(arguments: list[str], reseed: bool) -> int:
    """Set up an environment with atheris, be it of another interpreter, and go on there; without, in one that has
    hypothesis alone."""
    if reseed:
        return run(environment("test"), "scripts/fuzz.py", *arguments, "--inside", "hypothesis")
    python, missing = with_atheris()
    if python is not None:
        return run(python, "scripts/fuzz.py", *arguments, "--inside", "atheris,hypothesis")
    print(f"MISSING: atheris: {missing}", flush=True)
    run(environment("test"), "scripts/fuzz.py", *arguments, "--inside", "hypothesis")
    print(f"MISSING: atheris: {missing}", flush=True)
    return 1


def with_atheris() -> tuple[Path | None, str]:
    """The interpreter of an environment that has atheris, or why there is none."""
    why = f"no CPython {', '.join(sorted(VERSIONS))} here: atheris has wheels for these"
    for interpreter in interpreters():
        made = subprocess.run(
            [interpreter, "-c", "from _venv import environment; print(environment('fuzz'))"],
            cwd=ROOT / "scripts", capture_output=True, text=True, check=False,
        )  # fmt: skip
        lines = made.stderr.strip().splitlines()
        if made.returncode == 0:
            return Path(made.stdout.strip()), ""
        found = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["it can't be installed"]
        why = f"{found[0]} (by {interpreter})"
    return None, why


def interpreters() -> list[str]:
    """Interpreters that atheris has wheels for: this one first, those on PATH, pyenv's."""
    found = [sys.executable] if "{}.{}".format(*sys.version_info[:2]) in VERSIONS else []
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for version in VERSIONS:
        on_path = shutil.which(f"python{version}")
        candidates = [*([on_path] if on_path else []), *map(str, sorted(pyenv.glob(f"{version}.*/bin/python")))]
        found += [each for each in candidates if each not in found and works(each, version)]
    return found


def works(interpreter: str, version: str) -> bool:
    """Whether it runs (pyenv's shims may not), is of this version, and can make environments."""
    code = f"import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != {tuple(map(int, version.split('.')))})"
    try:
        return subprocess.run([interpreter, "-c", code], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


# --- The engines -------------------------------------------------------------------------------------------


def fuzz(python: Path, options: argparse.Namespace) -> int:
    """All targets by all engines; the table; the exit status."""
    sys.path.insert(0, str(TESTS))
    from fuzz.seeds import TOKENS

    unknown = set(options.target or ()) - set(TOKENS)
    if unknown:
        print(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TOKENS)}")
        return 2
    chosen = [name for name in TOKENS if not options.target or name in options.target]
    lengths: Mapping[str, float] = LONG if options.long else USUAL
    if options.short:
        lengths = SHORT
    elif options.seconds:
        lengths = {"atheris": options.seconds, "hypothesis": options.seconds / 4}
    number = options.seed or (1 if options.short else int(time.time()))
    engines = {"atheris": by_atheris, "hypothesis": by_hypothesis}
    tasks = [(name, engine) for engine in options.inside.split(",") for name in chosen]
    print(f"{len(chosen)} targets, {options.jobs} at a time, seed {number}", flush=True)
    started = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(
            pool.map(lambda task: engines[task[1]](python, task[0], lengths[task[1]], number, TOKENS[task[0]]), tasks)
        )
    return report(sorted(results, key=lambda result: chosen.index(result.target)), time.monotonic() - started)


def by_atheris(python: Path, name: str, length: float, number: int, tokens: list[bytes]) -> Result:
    """libFuzzer, from the corpus in the checkout and what it has learnt before (in short, from the former alone).
    ``length``: so many seconds, or as a whole number so many executions."""
    short = isinstance(length, int)
    learnt, crashes = HOME / ("short" if short else "corpus") / name, HOME / "crashes" / name
    if short:
        shutil.rmtree(learnt, ignore_errors=True)
    limit = f"-runs={length * (10 if name in QUICK else 1)}" if short else f"-max_total_time={length:.0f}"
    for folder in (learnt, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".dict") as dictionary:
        for token in tokens:
            dictionary.write('"' + "".join(map("\\x{:02x}".format, token)) + '"\n')
        dictionary.flush()
        status, said, took = launched(
            python, length, "-m", "fuzz.with_atheris", name, limit, f"-seed={number}",
            f"-dict={dictionary.name}", f"-artifact_prefix={crashes}/", f"-timeout={INPUT_TIME}", "-max_len=1200",
            "-rss_limit_mb=2048", "-print_final_stats=1", str(learnt), str(TESTS / "fuzz" / "corpus" / name),
        )  # fmt: skip
    last = re.findall(r"cov: (\d+).*?corp: (\d+)/", said)
    edges, corpus = map(int, last[-1]) if last else (None, None)
    executions = re.search(r"stat::number_of_executed_units: (\d+)", said) or re.search(r"(?s:.*)^#(\d+)", said, re.M)
    return Result(
        name, "atheris", int(executions[1]) if executions else 0, took if short else min(took, length), corpus, edges,
        found(status, said),
    )  # fmt: skip


def by_hypothesis(python: Path, name: str, length: float, number: int, _: list[bytes]) -> Result:
    """Batches of examples; ``length`` as above."""
    limit = "--examples" if isinstance(length, int) else "--seconds"
    arguments = ("-m", "fuzz.with_hypothesis", name, limit, str(length), "--seed", str(number * 1_000_000))
    status, said, took = launched(python, length, *arguments)
    told = {"executions": 0, "seconds": took}
    if status == 0:
        told = json.loads(said.strip().splitlines()[-1])
    corpus = len(list((TESTS / "fuzz" / "corpus" / name).iterdir()))
    return Result(name, "hypothesis", int(told["executions"]), told["seconds"], corpus, None, found(status, said))


def launched(python: Path, length: float, *arguments: str) -> tuple[int, str, float]:
    """The exit status of a process, all that it said, and how long it took; its output is kept when it failed."""
    started = time.monotonic()
    seconds = 0 if isinstance(length, int) else length
    variables = {**os.environ, "PYTHONHASHSEED": "0"}
    if isinstance(length, int) and "fuzz.with_atheris" in arguments:
        # See there: in a short run Hypothesis compares, whose examples are the same on each machine.
        variables["DELTAWIRE_FUZZ_READERS"] = "0"
    try:
        ended = subprocess.run(
            [python, *arguments], cwd=TESTS, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=seconds + SPARE_TIME, check=False, env=variables,
        )  # fmt: skip
        status, said = ended.returncode, ended.stdout.decode("utf-8", "replace")
    except subprocess.TimeoutExpired as late:
        status, said = 1, f"{(late.stdout or b'').decode('utf-8', 'replace')}\nno end after {late.timeout:.0f} s"
    if status != 0:
        log = HOME / "logs" / f"{arguments[2]}-{arguments[1].rpartition('_')[2]}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(said, encoding="utf-8")
        said += f"\n(all of it: {log})"
    return status, said, time.monotonic() - started


def found(status: int, said: str) -> str:
    """The lines that say what is wrong, or "" when nothing is."""
    return "" if status == 0 else "\n".join(said.strip().splitlines()[-30:])


def report(results: list[Result], took: float) -> int:
    rows = [COLUMNS, *(result.row() for result in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for result in results:
        if result.failure:
            print(f"\n=== {result.target}, {result.engine}\n{result.failure}")
    print()
    for row in rows:
        print(
            "  ".join(
                each.ljust(width) if place < 2 else each.rjust(width)
                for place, (each, width) in enumerate(zip(row, widths, strict=True))
            )
        )
    total: dict[str, int] = {}
    for result in results:
        total[result.engine] = total.get(result.engine, 0) + result.executions
    failed = [result for result in results if result.failure]
    idle = [f"{result.target} ({result.engine})" for result in results if not result.executions and not result.failure]
    print(
        ", ".join(f"{engine}: {number:,} executions" for engine, number in total.items())
        + f"; {took:.0f} s; {len(failed)} failed"
    )
    if idle:
        print(f"not run: {', '.join(idle)}")
    return 1 if failed or idle or not all(total.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
