"""Each module of ``protocol/`` is covered, lines and branches, by its own test file alone: ``python scripts/cover.py``.

    python scripts/cover.py                 all modules, in a minute or two
    python scripts/cover.py sse dates       some of them
    python scripts/cover.py --jobs 8        so many at a time (by default, as many as there are processors)

A module's test file has its name: ``protocol/sse.py`` is covered by ``tests/test_sse.py``. That others run through it,
too, counts for nothing: who changes a module finds what it must do in one place. Prints a row a module, with the lines
and the branches that were not taken; the exit status is 1 when there are any, when tests fail, or when a module has no
test file. What need not be covered stands in pyproject.toml, under ``tool.coverage``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from _venv import ROOT, environment

# Where the file is another one, or more than one: each of these says so in its first words.
OTHERS = {
    "__init__.py": ("test_exports.py",),  # the package is what it exports
    "proxy.py": ("test_proxy.py", "test_tunnel.py"),
    "retry.py": ("test_retry.py", "test_fail_over.py", "test_failure.py"),
}

# Seconds. No test file of the protocol takes a quarter of that.
LONGEST = 300


class Row(NamedTuple):
    """What was found of one module."""

    module: str
    tests: str
    lines: int = 0
    branches: int = 0
    missing: tuple[str, ...] = ()
    """Lines, and branches as "from->to"; a negative "to" is the end of what begins in that line."""
    failed: str = ""
    """Why there are no figures; "" when there are."""

    def __str__(self) -> str:
        said = self.failed or ", ".join(self.missing) or "100 %"
        return f"{self.module:<24} {self.lines:>5} {self.branches:>8}  {said}  ({self.tests})"


def modules() -> list[Path]:
    """The modules in which there is something to cover, relative to ``protocol/``."""
    found = sorted((ROOT / "protocol").rglob("*.py"))
    return [path.relative_to(ROOT / "protocol") for path in found if path.read_text(encoding="utf-8").strip()]


def tests_of(module: Path) -> tuple[str, ...]:
    return OTHERS.get(module.as_posix(), (f"test_{module.stem.removeprefix('_')}.py",))


def measure(python: Path, module: Path, folder: Path) -> Row:
    """Run a module's tests by themselves, and see what they reach of it."""
    tests = tests_of(module)
    row = Row(module.as_posix(), ", ".join(tests))
    if not all((ROOT / "tests" / name).exists() for name in tests):
        return row._replace(failed="there is no such test file")
    name = folder / "-".join(module.parts)
    coverage = [str(python), "-m", "coverage"]
    data = f"--data-file={name}.coverage"
    pytest = ["-m", "pytest", "-q", "-x", *(f"tests/{name}" for name in tests)]
    try:
        done = run([*coverage, "run", data, f"--include=*/protocol/{module}", *pytest])
    except subprocess.TimeoutExpired:
        return row._replace(failed=f"its tests did not end within {LONGEST} s")
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-25:])
        return row._replace(failed=f"its tests fail (exit status {done.returncode})\n{tail}")
    report = Path(f"{name}.json")
    done = run([*coverage, "json", data, "-q", "-o", str(report)])
    if done.returncode:
        return row._replace(failed=done.stdout.strip())
    (found,) = json.loads(report.read_bytes())["files"].values()
    lines = [str(line) for line in found["missing_lines"]]
    branches = [f"{start}->{end}" for start, end in found["missing_branches"]]
    summary = found["summary"]
    return row._replace(lines=summary["num_statements"], branches=summary["num_branches"], missing=(*lines, *branches))


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    # Without COVERAGE_*, PYTEST_* and the like, which would change what is measured.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "PYTEST_"))}
    return subprocess.run(
        command,
        cwd=ROOT,
        env=inherited,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST,
        check=False,
    )


def main() -> int:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="MODULE", help="such as sse, or dialects/openai; by default all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="so many at a time")
    arguments = parser.parse_args()
    by_name = {module.with_suffix("").as_posix(): module for module in modules()}
    if unknown := [name for name in arguments.names if name not in by_name]:
        parser.error(f"{', '.join(unknown)}: there are {', '.join(by_name)}")
    chosen = [by_name[name] for name in arguments.names or by_name]
    python = environment("check")
    print(f"{'module':<24} {'lines':>5} {'branches':>8}  missing  (covered by)", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        for row in pool.map(lambda module: measure(python, module, Path(folder)), chosen):
            print(row, flush=True)
            rows.append(row)
    bad = [row.module for row in rows if row.missing or row.failed]
    lines, branches = sum(row.lines for row in rows), sum(row.branches for row in rows)
    print(f"{len(rows)} modules, {lines} lines, {branches} branches: {len(rows) - len(bad)} modules wholly covered")
    if bad:
        print(f"not wholly covered by their own tests: {', '.join(bad)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
