"""The state diagrams of docs/sans-io.md, from the tables of the machines: ``python scripts/diagrams.py [--check]``.

Each stands between two marks, and is written anew there. With ``--check`` nothing is written: the exit status is 1 if
one of them is not as the tables have it.
"""

from __future__ import annotations

import enum
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from _venv import ROOT, environment, run

try:
    from deltawire.protocol import HTTP1_TRANSITIONS, SOCKS_TRANSITIONS, TRANSITIONS
except ModuleNotFoundError:
    # Not by the checkout's interpreter.
    sys.exit(run(environment(""), __file__, *sys.argv[1:]))

DOCUMENT = ROOT / "docs" / "sans-io.md"

Arrow = tuple[enum.Enum, str, enum.Enum]
S = TypeVar("S", bound=enum.Enum)


def told_verbs(table: Mapping[tuple[S, str], Iterable[S]]) -> list[Arrow]:
    """The arrows of a table of verbs."""
    return [(state, verb, following) for (state, verb), found in table.items() for following in found]


def silent(table: Mapping[S, Iterable[S]]) -> list[Arrow]:
    """The arrows of a table that names no verbs."""
    return [(state, "", following) for state, found in table.items() for following in found]


# The name of each table, its arrows, and the states in which a machine may be left for good.
DIAGRAMS: dict[str, tuple[list[Arrow], set[str]]] = {
    "HTTP1_TRANSITIONS": (told_verbs(HTTP1_TRANSITIONS), {"CLOSED"}),
    "TRANSITIONS": (told_verbs(TRANSITIONS), {"DONE"}),
    "SOCKS_TRANSITIONS": (silent(SOCKS_TRANSITIONS), {"DONE"}),
}


def diagram(arrows: list[Arrow], last: set[str]) -> str:
    """A diagram in Mermaid: the states in their order, with what they mean; then the arrows, one for all the verbs that
    lead from one state to another. What leads from the last state to itself is left out."""
    states = list(type(arrows[0][0]))
    # A colon or a semicolon would end the description.
    lines = [f"{each.name} : {re.sub('[:;]', ',', each.value)}" for each in states]
    lines.append(f"[*] --> {states[0].name}")
    for state in states:
        for following in states:
            verbs = [verb for before, verb, after in arrows if (before, after) == (state, following)]
            if verbs and not (state is following and state.name in last):
                label = f" : {', '.join(verbs)}" if verbs != [""] else ""
                lines.append(f"{state.name} --> {following.name}{label}")
    lines += [f"{name} --> [*]" for name in sorted(last)]
    return "```mermaid\nstateDiagram-v2\n" + "".join(f"    {line}\n" for line in lines) + "```\n"


def renewed(text: str) -> str:
    """The document with its diagrams as they should be. Raises ``ValueError`` unless each has one place."""
    for name, (arrows, last) in DIAGRAMS.items():
        marks = re.compile(rf"(<!-- {name}: [^>]*-->\n).*?(<!-- end -->\n)", re.DOTALL)
        text, count = marks.subn(rf"\1\n{diagram(arrows, last)}\n\2", text)
        if count != 1:
            raise ValueError(f"{DOCUMENT.name} has {count} places for {name}")
    return text


def main(document: Path, *, check: bool) -> int:
    """Renew the document, or check it; gives the exit status."""
    text = document.read_text(encoding="utf-8")
    now = renewed(text)
    if now == text:
        return 0
    if check:
        print(f"the diagrams in {document.name} are out of date: run scripts/diagrams.py", file=sys.stderr)
        return 1
    document.write_text(now, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(DOCUMENT, check="--check" in sys.argv[1:]))
