"""Lint, format and types: ``python scripts/check.py``."""

import sys

from _venv import environment, run

python = environment("check")
CHECKS = {
    "ruff check": ("-m", "ruff", "check", "."),
    "ruff format": ("-m", "ruff", "format", "--check", "."),
    "mypy, the package": ("-m", "mypy", "-p", "deltawire"),
    "mypy, the tests": ("-m", "mypy", "tests", "--exclude", "tests/interop"),
    # A run of its own, since it has a conftest.py too.
    "mypy, the interop tests": ("-m", "mypy", "tests/interop"),
    "mypy, the examples": ("-m", "mypy", "examples"),
    "mypy, the benchmarks": ("-m", "mypy", "benchmarks"),
    "mypy, the soak": ("-m", "mypy", "soak"),
    "mypy, the scripts": ("-m", "mypy", "scripts"),
}
failed = [name for name, arguments in CHECKS.items() if run(python, *arguments) != 0]
if failed:
    sys.exit(f"failed: {', '.join(failed)}")
