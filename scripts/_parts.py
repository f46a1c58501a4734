"""What the interop suite's set-up comes to, part by part, and the table of it."""

from __future__ import annotations

from dataclasses import dataclass


class Failure(Exception):
    """Something can't be set up; the message says what and what to do, in its first line what."""


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A part that is there."""

    version: str
    source: str
    """Where it is from."""
    variables: dict[str, str]
    """By which the tests find it."""


# By part: what was set up, or why it was not.
Found = dict[str, Installed | Failure]

# By part, transport and flavour, "-" where tests have none: how many passed, and how many did not.
Counts = dict[str, dict[str, dict[str, list[int]]]]


FLAVOURS = ("sync", "asyncio", "trio", "-")
HEAD = ("", "version", "from", "transport", "sync", "asyncio", "trio", "programs, others")


def table(found: Found, counts: Counts) -> str:
    """What there was and how its tests went, or why it is missing."""
    rows: list[tuple[str, ...]] = [HEAD]
    for part, each in found.items():
        if isinstance(each, Failure):
            rows.append((part, f"MISSING: {str(each).splitlines()[0]}"))
            continue
        named = (part, each.version, each.source)
        # Both transports of ours, then the tests in which none of them takes part.
        for transport, flavours in sorted(counts.get(part, {}).items(), key=lambda item: (item[0] == "-", item[0])):
            cells = ["/".join(str(count) for count in flavours.get(flavour, "-")) for flavour in FLAVOURS]
            rows.append((*named, transport, *cells))
            named = ("", "", "")
        if not counts.get(part):
            rows.append((*named, "no tests were run"))
    whole = [row for row in rows if len(row) == len(HEAD)]
    widths = [max(len(row[column]) for row in whole) for column in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]
    return "\n".join(["", "Tests passed/failed. One counts for each part that it needs.", *lines])
