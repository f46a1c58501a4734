"""Lint, format and types: ``python scripts/check.py``."""

import sys

from _venv import environment, run

python = environment("check")
failed = [
    name
    for name, arguments in {
        "ruff check": ("-m", "ruff", "check", "."),
        "ruff format": ("-m", "ruff", "format", "--check", "."),
        "mypy, the package": ("-m", "mypy", "-p", "deltawire"),
        "mypy, the tests": ("-m", "mypy", "tests"),
    }.items()
    if run(python, *arguments) != 0
]
if failed:
    sys.exit(f"failed: {', '.join(failed)}")
