"""``scripts/interop.py``: what can't be set up is named, stops nothing else, and is never a success."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
COUNTED = {"httpcore": {"sync": [4, 0], "trio": [3, 1]}, "wire": {"-": [2, 0]}}


def load(path: Path) -> Any:
    """A file as a module of its own."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Machine:
    """In the place of one on which the script runs its commands: some of them fail, and none is run."""

    def __init__(self, script: ModuleType) -> None:
        self.script = script
        self.fails = ""
        """A regular expression for the commands that fail."""
        self.says: int | None = 0
        """pytest's exit status; None: it takes too long."""
        self.commands: list[str] = []
        self.chosen: list[str] = []
        """The parts that pytest was told are there."""

    def run(self, command: list[str], timeout: float, settings: dict[str, str], output: int | None) -> int | None:
        self.commands.append(" ".join(command))
        if "pytest" in command:
            self.chosen = settings["DELTAWIRE_INTEROP"].split(",")
            counts = dict.fromkeys(self.chosen, COUNTED)
            Path(settings["DELTAWIRE_INTEROP_COUNTS"]).write_text(json.dumps(counts))
            return self.says
        if self.fails and re.search(self.fails, self.commands[-1]):
            assert output is not None
            os.write(output, b"no such thing in the registry\n")
            return 1
        if command[1:3] == ["-m", "venv"]:
            (Path(command[3]) / "bin").mkdir(parents=True)
        return 0

    def main(self, *arguments: str) -> int:
        sys.argv[1:] = arguments
        status: int = self.script.main()
        return status


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """One that has all the proxies, and an apt-get that brings nothing."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.setattr(sys, "argv", ["interop.py"])
    monkeypatch.setenv("DELTAWIRE_INTEROP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    script = load(ROOT / "scripts" / "interop.py")
    (tmp_path / "cache" / f"llama_cpp_python-{script.LLAMA_VERSION}-any.whl").touch()
    found = Machine(script)
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "HOME", tmp_path / "home")
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(script, "run", found.run)
    monkeypatch.setattr(script, "which", lambda command: f"/bin/{command}")
    monkeypatch.setattr(script, "nss_wrapper", lambda: "/lib/libnss_wrapper.so")
    monkeypatch.setattr(script, "output_of", lambda command: "1.2")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return found


def row(printed: str, part: str) -> str:
    """The line of the table that begins with a part's name, after what else was printed."""
    (line,) = (line for line in printed.rpartition("Tests passed/failed")[2].splitlines() if line.startswith(part))
    return re.sub(r" +", " ", line)


Printed = Callable[[], str]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    return lambda: capsys.readouterr().out


def test_all_is_there(machine: Machine, printed: Printed) -> None:
    assert machine.main() == 0
    assert machine.chosen == list(machine.script.PARTS)
    shown = printed()
    assert "MISSING" not in shown
    for part in machine.script.PARTS:
        assert re.fullmatch(rf"{part} 1\.2(, 1\.2)? (Debian|pip|source, pip) httpcore 4/0 - 3/1 -", row(shown, part))
    assert shown.count("wire") == len(machine.script.PARTS)


def test_a_part_that_cannot_be_installed(machine: Machine, printed: Printed) -> None:
    machine.fails = "install litellm"
    assert machine.main() == 1
    # The others' tests are run, also those of parts that come after it.
    assert machine.chosen == [part for part in machine.script.PARTS if part != "litellm"]
    shown = printed()
    assert row(shown, "litellm") == "litellm MISSING: installing litellm[proxy]==1.106.2: exit status 1"
    assert "no such thing in the registry" in shown
    assert "4/0" in row(shown, "peers")


def test_several(machine: Machine, printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.fails = "-m pip|apt-get"
    machine.script.cached_wheel().unlink()
    monkeypatch.setattr(machine.script, "main_python", lambda: Path("python"))
    monkeypatch.setattr(machine.script, "which", lambda command: None if "danted" in command else f"/bin/{command}")
    assert machine.main() == 1
    assert machine.chosen == ["squid", "tinyproxy", "microsocks", "http2"]
    shown = printed()
    assert "dante MISSING: dante-server: not found, and reading Debian's package lists: exit status 1" in row(
        shown, "dante"
    )
    assert "llama MISSING: building llama-cpp-python" in row(shown, "llama")
    assert "litellm MISSING: installing" in row(shown, "litellm")
    assert "peers MISSING: installing openai==" in row(shown, "peers")


@pytest.mark.parametrize(
    ("lacks", "user", "says"),
    [
        ("squid", 1000, "squid: not found; install with: sudo apt-get install -y --no-install-recommends squid"),
        ("squid|apt-get", 0, "squid: not found, and there is no apt-get here; install what gives these"),
        ("squid", 0, "squid: apt-get installed it, but its files are not where they should be"),
    ],
    ids=["no root", "no apt-get", "not where it should be"],
)
def test_a_proxy_that_is_not_there(
    machine: Machine, printed: Printed, monkeypatch: pytest.MonkeyPatch, lacks: str, user: int, says: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(machine.script, "which", lambda command: None if re.fullmatch(lacks, command) else command)
    assert machine.main("--only", "squid,tinyproxy") == 1
    assert machine.chosen == ["tinyproxy"]
    assert f"squid MISSING: {says}" in row(printed(), "squid")


def test_package_lists_are_read_once(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.fails = "apt-get update"
    monkeypatch.setattr(machine.script, "which", lambda command: "/bin/apt-get" if command == "apt-get" else None)
    assert machine.main("--only", "squid,tinyproxy,microsocks") == 1
    assert machine.commands.count("apt-get update") == 1
    assert machine.chosen == []


@pytest.mark.parametrize("options", [(), ("--setup-only",)], ids=["", "setup"])
def test_no_environment_for_the_tests(machine: Machine, printed: Printed, options: tuple[str, ...]) -> None:
    machine.fails = r"install -e"
    assert machine.main(*options) == 1
    assert machine.chosen == []
    shown = printed()
    for part in machine.script.PARTS:
        assert f"{part} MISSING: no environment for the tests: installing -e " in row(shown, part)


@pytest.mark.parametrize(("says", "status"), [(1, 1), (3, 3), (None, 1)])
def test_the_status_is_that_of_pytest(machine: Machine, printed: Printed, says: int | None, status: int) -> None:
    machine.says = says
    assert machine.main("--only", "peers") == status
    shown = printed()
    assert ("did not end within" in shown) == (says is None)
    assert "4/0" in row(shown, "peers")


def test_only_the_set_up(machine: Machine, printed: Printed) -> None:
    assert machine.main("--setup-only", "--only", "http2,peers") == 0
    assert machine.chosen == []
    shown = printed()
    assert row(shown, "http2") == "http2 1.2 pip no tests were run"
    assert row(shown, "peers") == "peers 1.2, 1.2 pip no tests were run"


def test_what_is_counted() -> None:
    counts = load(ROOT / "tests" / "interop" / "interop_counts.py")

    def item(outcomes: list[str], *needs: str, **parameters: str) -> Any:
        marks = [SimpleNamespace(args=(part,)) for part in needs]
        stash = {counts.OUTCOMES: outcomes} if outcomes else {}
        callspec = {"callspec": SimpleNamespace(params=parameters)} if parameters else {}
        return SimpleNamespace(iter_markers=lambda name: marks, stash=stash, **callspec)

    well = ["passed", "passed", "passed"]
    items = [
        item(well, "squid", "llama", flavour="sync", transports="wire"),
        item(["passed", "failed", "passed"], "squid", flavour="sync", transports="wire"),
        item(["failed", "passed"], "squid", flavour="trio", transports="wire"),
        item(["passed", "passed", "failed"], "squid", flavour="trio", transports="wire"),
        item(["skipped", "passed"], "squid", flavour="sync", transports="wire"),
        item([], "squid", flavour="sync", transports="wire"),
        item(well, "squid"),
        item(well),
    ]
    assert counts.count(items) == {
        "squid": {"wire": {"sync": [1, 1], "trio": [0, 2]}, "-": {"-": [1, 0]}},
        "llama": {"wire": {"sync": [1, 0]}},
    }
