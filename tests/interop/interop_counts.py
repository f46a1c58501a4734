"""How the tests of each part went, by transport and flavour, for the table of ``scripts/interop.py``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

OUTCOMES = pytest.StashKey[list[str]]()
"""Of a test: those of its set-up, its call and its teardown."""

Counts = dict[str, dict[str, dict[str, list[int]]]]


def parts_of(item: pytest.Item) -> set[str]:
    """The parts that a test needs."""
    return {mark.args[0] for mark in item.iter_markers("interop")}


def place_of(item: pytest.Item) -> tuple[str, str]:
    """The transport and the flavour of a test; "-" where it has none."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return str(parameters.get("transports", "-")), str(parameters.get("flavour", "-"))


def count(items: list[pytest.Item]) -> Counts:
    """How many of these tests passed, and how many failed. (Those that were skipped, or not run, are neither.)"""
    counts: Counts = {}
    for item in items:
        outcomes = item.stash.get(OUTCOMES, [])
        if not outcomes or "skipped" in outcomes:
            continue
        transport, flavour = place_of(item)
        for part in sorted(parts_of(item)):
            cell = counts.setdefault(part, {}).setdefault(transport, {}).setdefault(flavour, [0, 0])
            cell["failed" in outcomes] += 1
    return counts


def write(items: list[pytest.Item]) -> None:
    """Leave the counts where the script that runs the suite looks for them, if it does."""
    if path := os.environ.get("DELTAWIRE_INTEROP_COUNTS"):
        Path(path).write_text(json.dumps(count(items)))
