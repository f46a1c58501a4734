"""Mutants meet the tests: for `mutants`, which says how. Needs fork, and so POSIX."""

from __future__ import annotations

import collections
import functools
import gc
import importlib
import importlib.machinery
import importlib.util
import itertools
import os
import pickle
import resource
import signal
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from _mutation import Mutant
from cover import modules, tests_of

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
OPTIONS = ["-x", "-s", "-p", "no:terminal", "--rootdir", str(ROOT), "-W", "ignore:Module already imported"]

# Tests of protocol/ besides those that are a module's own.
OTHERS = ("test_http1_recordings.py", "test_recordings.py", "test_site_recordings.py")

CALLS = 300  # of a function by a test, after which nothing new is expected of it: to look at lines is slow
FEW = 25  # examples of Hypothesis, in the first round
QUICK = 2.0  # seconds of tests, and no more, where it is to be quick
SLOWER = 10  # times, than usual: so the mutant is found
SPARE = 1.0  # seconds of processor time on top of that
LOADING = 60.0  # seconds of processor time, to import and collect
LONGEST = 600  # seconds by the clock: something that never comes is awaited
MEMORY = 4 << 30  # bytes

SURVIVED, KILLED, UNCHANGED = 0, 1, 99  # exit statuses; UNCHANGED: the functions that are loaded don't show the mutant

Tell = Callable[[Mutant, str], None]


class Usual:
    """What a test does without mutants: how long it takes (seconds), and by which lines it comes, by file."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.lines: dict[str, set[int]] = {}


def try_all(mutants: Sequence[Mutant], jobs: int, quick: bool, tell: Tell) -> None:
    """Tell of each what becomes of it: "killed", "timeout" or "survived"; as it gets known."""
    every = [path.with_suffix("").as_posix() for path in modules()]
    tested = {mutant.module for mutant in mutants} if quick else [name for name in every if name != "__init__"]
    files = sorted({path for module in tested for path in own(module)})
    if not quick:
        files += [TESTS / name for name in OTHERS]
    if pytest.main([*OPTIONS, *map(str, files)], plugins=[Rounds(mutants, jobs, quick, tell)]) != 0:
        sys.exit("the tests fail without any mutant: see scripts/test.py")


class Rounds:
    """A plugin for pytest: once the tests are collected, they are run as often as there are mutants."""

    def __init__(self, mutants: Sequence[Mutant], jobs: int, quick: bool, tell: Tell) -> None:
        self.mutants, self.jobs, self.quick, self.tell = mutants, jobs, quick, tell
        self.usual: dict[str, Usual] = {}
        self.items: dict[str, pytest.Item] = {}
        self.files = {one.module: file_of(one.module) for one in mutants}
        self.functions: list[types.FunctionType] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = {item.nodeid: item for item in session.items}
        unhurried(session.items, FEW if self.quick else None)
        self.usual = usual(session, set(self.files.values()))
        unhurried(session.items, FEW)
        # Found now: what is frozen is not seen any more.
        files = set(self.files.values())
        gc.collect()
        self.functions = [one for one in gc.get_objects() if type(one) is types.FunctionType and file(one) in files]
        gc.freeze()
        self.try_all(session)
        return True

    def try_all(self, session: pytest.Session) -> None:
        waiting = collections.deque((mutant, self.first) for mutant in self.mutants)
        running: dict[int, tuple[Mutant, Callable[..., int]]] = {}
        while waiting or running:
            while waiting and len(running) < self.jobs:
                mutant, step = waiting.popleft()
                running[forked(step, session, mutant)] = mutant, step
            process, status = os.wait()
            mutant, step = running.pop(process)
            following = self.following(mutant, step, os.waitstatus_to_exitcode(status))
            if isinstance(following, str):
                self.tell(mutant, following)
            else:
                waiting.appendleft((mutant, following))

    def following(self, mutant: Mutant, step: Callable[..., int], status: int) -> str | Callable[..., int]:
        """The outcome, or what to do next."""
        if status not in (SURVIVED, UNCHANGED):
            return "timeout" if status < 0 else "killed"
        if status == UNCHANGED:
            return self.second_own
        if step == self.second_all or self.quick:
            return "survived"
        return self.second_all

    # In a process of its own each; they return the exit status.

    def first(self, session: pytest.Session, mutant: Mutant) -> int:
        if not swapped(mutant, self.files[mutant.module], self.functions):
            return UNCHANGED
        items = [self.items[nodeid] for nodeid in self.selected(mutant)]
        for item, following in zip(items, [*items[1:], None], strict=True):
            signal.setitimer(signal.ITIMER_PROF, self.usual[item.nodeid].seconds * SLOWER + SPARE)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail:
                return KILLED
        return SURVIVED

    def second_own(self, session: pytest.Session, mutant: Mutant) -> int:
        return self.second(mutant, [name for name in self.selected(mutant) if path_of(name) in own(mutant.module)])

    def second_all(self, session: pytest.Session, mutant: Mutant) -> int:
        return self.second(mutant, self.selected(mutant))

    def second(self, mutant: Mutant, chosen: list[str]) -> int:
        """Import and collect anew. Nothing that was loaded before is used."""
        for name, module in [*sys.modules.items()]:
            if name.partition(".")[0] == "deltawire" or TESTS in Path(getattr(module, "__file__", None) or "/").parents:
                del sys.modules[name]
        sys.meta_path.insert(0, Mutated(mutant, self.files[mutant.module]))
        files = dict.fromkeys(str(path_of(name)) for name in chosen)
        return int(pytest.main([*OPTIONS, *files], plugins=[Second(chosen, self.usual)])) if files else SURVIVED

    def selected(self, mutant: Mutant) -> list[str]:
        """The tests that come by the mutant: of its own file first, and the quick ones first."""
        path, (begin, end) = self.files[mutant.module], mutant.lines
        lines = set(range(begin, end + 1)) if mutant.function else set()
        found = [
            name for name, test in self.usual.items() if not lines or not lines.isdisjoint(test.lines.get(path, ()))
        ]
        nearest = own(mutant.module)
        found.sort(key=lambda name: (path_of(name) not in nearest, self.usual[name].seconds))
        if self.quick:
            spent = itertools.accumulate(self.usual[name].seconds for name in found)
            found = [name for name, seconds in zip(found, spent, strict=True) if seconds < QUICK]
        return found


class Second:
    """A plugin for pytest: the tests that are chosen, in this order."""

    def __init__(self, chosen: list[str], usual: dict[str, Usual]) -> None:
        self.chosen, self.usual = chosen, usual

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        found = {item.nodeid: item for item in items}
        items[:] = [found[name] for name in self.chosen if name in found]
        unhurried(items)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        signal.setitimer(signal.ITIMER_PROF, self.usual[nodeid].seconds * SLOWER + SPARE)


class Mutated(importlib.machinery.SourceFileLoader):
    """The finder and the loader of a mutant's module."""

    def __init__(self, mutant: Mutant, path: str) -> None:
        super().__init__(name_of(mutant.module), path)
        self.mutant = mutant

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def get_code(self, fullname: str) -> types.CodeType:
        code: types.CodeType = compile(self.mutant.tree(), self.path, "exec")
        return code


def forked(step: Callable[..., int], session: pytest.Session, mutant: Mutant) -> int:
    """Do it in a process of its own; gives its id."""
    sys.stdout.flush()
    if process := os.fork():
        return process
    status = KILLED
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nowhere, stream)
        # Whoever loops for ever, or takes all memory, is ended by the system. What these signals do is: end.
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.alarm(LONGEST)
        signal.setitimer(signal.ITIMER_PROF, LOADING)
        status = step(session, mutant)
    finally:
        os._exit(status)


def swapped(mutant: Mutant, path: str, functions: Sequence[types.FunctionType]) -> bool:
    """Give the functions that there are the mutant's code. Whether that is all that the mutant changes."""
    codes: dict[tuple[str, int], list[types.CodeType]] = {}
    for code in codes_in(compile(mutant.tree(), path, "exec")):
        codes.setdefault((code.co_name, code.co_firstlineno), []).append(code)
    changed = False
    for function in functions:
        old = function.__code__
        if mutant.function and file(function) == path and (old.co_name, old.co_firstlineno) in codes:
            new, *more = codes[old.co_name, old.co_firstlineno]
            if more or len(new.co_freevars) != len(old.co_freevars):
                return False
            changed = changed or old != new
            function.__code__ = new
    return changed


def codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes_in(constant)


def usual(session: pytest.Session, files: set[str]) -> dict[str, Usual]:
    """Run all tests once, without a mutant, and see what they do."""
    read, write = os.pipe()
    if not os.fork():
        found: dict[str, Usual] = {}
        caches = [one for one in gc.get_objects() if isinstance(one, functools._lru_cache_wrapper)]
        caches = [one for one in caches if one.__module__.startswith("deltawire.")]
        for item, following in zip(session.items, [*session.items[1:], None], strict=True):
            found[item.nodeid] = test = Usual()
            for cache in caches:
                cache.cache_clear()  # or a test would come by less, after others
            before = os.times()
            sys.settrace(tracer(test.lines, files))
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            sys.settrace(None)
            after = os.times()
            test.seconds = after.user + after.system - before.user - before.system
            if session.shouldfail:
                print(f"{item.nodeid} fails", flush=True)
                os._exit(1)
        with os.fdopen(write, "wb") as stream:
            pickle.dump(found, stream)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        data = stream.read()
    if os.wait()[1]:
        pytest.exit("without any mutant", 1)
    done: dict[str, Usual] = pickle.loads(data)
    return done


def tracer(lines: dict[str, set[int]], files: set[str]) -> Callable[..., Any]:
    calls: collections.Counter[types.CodeType] = collections.Counter()

    def local(frame: types.FrameType, event: str, argument: object) -> Any:
        lines.setdefault(frame.f_code.co_filename, set()).add(frame.f_lineno)
        return local

    def called(frame: types.FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if code.co_filename not in files:
            return None
        calls[code] += 1
        return local if calls[code] <= CALLS else None

    return called


def unhurried(items: Sequence[pytest.Item], examples: int | None = None) -> None:
    """Hypothesis is not to look for the smallest example, nor (if ``examples``) to try more than so many."""
    for item in items:
        test: Any = getattr(item, "obj", None)
        if usual := getattr(test, "_hypothesis_internal_use_settings", None):
            most = min(usual.max_examples, examples or usual.max_examples)
            phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
            settings = hypothesis.settings(usual, max_examples=most, phases=phases, database=None, derandomize=True)
            test._hypothesis_internal_use_settings = settings


def name_of(module: str) -> str:
    return f"deltawire.protocol.{module.replace('/', '.')}"


def file_of(module: str) -> str:
    """As the code that is loaded says it."""
    path = importlib.import_module(name_of(module)).__file__
    assert path
    if Path(path).resolve() != ROOT / "protocol" / f"{module}.py":
        sys.exit(f"{path} is not this checkout's: install it, or leave out --here")
    return path


def file(function: types.FunctionType) -> str:
    return function.__code__.co_filename


def own(module: str) -> list[Path]:
    """The test files of a module."""
    return [path for name in tests_of(Path(f"{module}.py")) if (path := TESTS / name).exists()]


def path_of(nodeid: str) -> Path:
    return ROOT / nodeid.partition("::")[0]
