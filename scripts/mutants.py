"""How much of protocol/ the tests hold: each mutant of it is a small mistake, which a test must find.

    python scripts/mutants.py                          all modules, all mutants (some hours)
    python scripts/mutants.py http1 dialects/openai    of these modules
    python scripts/mutants.py --sample 25 --seed 1     some of each module, by chance
    python scripts/mutants.py --quick                  one round, by the module's own tests alone: fewer are found
    python scripts/mutants.py --only FILE              the mutants named in a file, such as one of --survivors

The tests are those that need no socket: of the module's own file first, then all others that come by the changed
statement. They are collected once, in a process that forks for each mutant, changes the code of the functions there
(``__code__``: whoever has the function, has the mutant) and stops at the first test that fails. What survives this
round, in which Hypothesis tries few examples, goes through a second one, with all of them and with everything imported
anew; and so does at once what is changed outside of functions. A test that takes ten times as long as usual has found
its mutant, too: mostly that is an endless loop.

Some mutants do what the original does. They are listed, with the reason, in tests/data/mutants-equivalent.txt, and
count for nothing. The exit status is 1 when the score is below 90 % of the others, or the list names what isn't there.
Needs Python 3.11 or newer, and fork.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from pathlib import Path

from _mutation import Mutant, mutants
from _venv import environment, run

ROOT = Path(__file__).resolve().parent.parent
PROTOCOL = ROOT / "protocol"
EQUIVALENT = ROOT / "tests" / "data" / "mutants-equivalent.txt"
ENOUGH = 0.9
OUTCOMES = ("killed", "timeout", "survived", "equivalent")


def main() -> int:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", help="as in protocol/, without .py; all by default")
    parser.add_argument("--sample", type=int, metavar="N", help="that many of each module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one round, by the modules' own tests alone")
    parser.add_argument("--only", type=Path, metavar="FILE", help="the mutants that it names, one a line")
    parser.add_argument("--survivors", type=Path, metavar="FILE", help="where to write the names of those")
    parser.add_argument("--here", action="store_true", help="with this interpreter; it has the packages for the tests")
    options = parser.parse_args()
    if tuple(sys.version_info) < (3, 11):
        sys.exit("Python 3.11 or newer, please: mutants are named as its ast.unparse writes them")
    if not options.here:
        return run(environment("test"), __file__, "--here", *sys.argv[1:])
    every = {path: mutants(path, (PROTOCOL / f"{path}.py").read_text()) for path in chosen(options.modules)}
    reasons = equivalents()
    known = {mutant.name for found in every.values() for mutant in found}
    stale = [name for name in reasons if name not in known and name.partition(":")[0] in every]
    picked: list[Mutant] = []
    for found in every.values():
        if options.only:
            names = set(options.only.read_text().splitlines())
            found = [mutant for mutant in found if mutant.name in names]
        if options.sample:
            found = random.Random(f"{options.seed}").sample(found, min(options.sample, len(found)))
        picked += found

    from _killing import try_all  # which needs pytest: it is there only now

    print(f"{len(picked)} mutants", flush=True)
    results: dict[str, Counter[str]] = {path: Counter() for path in every}
    survivors: list[str] = []

    def tell(mutant: Mutant, outcome: str) -> None:
        results[mutant.module][outcome] += 1
        if outcome == "survived":
            survivors.append(mutant.name)
            print(shown(mutant), flush=True)
            if options.survivors:
                options.survivors.write_text("".join(f"{name}\n" for name in survivors))

    try_all([mutant for mutant in picked if mutant.name not in reasons], options.jobs, options.quick, tell)
    for mutant in picked:
        results[mutant.module]["equivalent"] += mutant.name in reasons
    for name in stale:
        print(f"{EQUIVALENT.name} names a mutant that isn't there: {name}")
    enough = table(results)
    return 0 if enough and not stale else 1


def chosen(modules: list[str]) -> list[str]:
    found = sorted(path.relative_to(PROTOCOL).with_suffix("").as_posix() for path in PROTOCOL.rglob("*.py"))
    if unknown := set(modules) - set(found):
        sys.exit(f"not in protocol/: {', '.join(sorted(unknown))}")
    return [path for path in found if path in modules or (not modules and not path.endswith("__init__"))]


def equivalents() -> dict[str, str]:
    """The names of the mutants that do what the original does, with the reason: the comment above them."""
    reasons: dict[str, str] = {}
    reason = ""
    for line in EQUIVALENT.read_text().splitlines():
        if line.startswith("#"):
            reason = line.removeprefix("#").strip()
        elif line:
            reasons[line] = reason
    return reasons


def shown(mutant: Mutant) -> str:
    where = f"protocol/{mutant.module}.py:{mutant.lines[0]}"
    return f"\nsurvived: {where} {mutant.function}\n  - {mutant.before}\n  + {mutant.after}"


def table(results: dict[str, Counter[str]]) -> bool:
    """Print it; gives whether the score is high enough."""
    print(f"\n{'module':<22}{'mutants':>9}" + "".join(f"{outcome:>12}" for outcome in OUTCOMES) + f"{'score':>9}")
    total: Counter[str] = Counter()
    for module, counts in [*results.items(), ("all", total)]:
        if counts.total():
            figures = "".join(f"{counts[outcome]:>12}" for outcome in OUTCOMES)
            print(f"{module:<22}{counts.total():>9}{figures}{score(counts):>9.1%}")
        if counts is not total:
            total += counts
    return score(total) >= ENOUGH


def score(counts: Counter[str]) -> float:
    """The part that is found, of those that can be."""
    found = counts["killed"] + counts["timeout"]
    return found / (found + counts["survived"] or 1)


if __name__ == "__main__":
    sys.exit(main())
