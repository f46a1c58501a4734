"""The interop suite: sets up real proxies, servers and clients, then runs ``pytest tests/interop`` against them.

    python scripts/interop.py                          everything
    python scripts/interop.py --only squid,tinyproxy   some parts
    python scripts/interop.py --setup-only             only the set-up
    python scripts/interop.py -- -x -k break           the rest goes to pytest

Needs nothing but Python, Debian (or Ubuntu) and the network. The proxies come from apt (by root; others are told what
to install): squid and tinyproxy, of HTTP; microsocks and dante, of SOCKS, with nss_wrapper, by which dante knows users
that the machine does not. The tests run them by themselves, as children; no service of the machine is needed, nor
touched. The rest goes into virtual environments under ``.interop/`` in the checkout, one each, so that their pins
don't collide. llama-cpp-python is built from source, in about six minutes on two cores, and the wheel is
kept in ``$DELTAWIRE_INTEROP_CACHE``, by default ``~/.cache/deltawire-interop``. What is there is not done again.

What can't be set up stops nothing: the tests of the other parts are run. At the end a table says of each part its
version, where it is from and how its tests went, or that it is MISSING, and why. The exit status is pytest's, but never
0 when a part is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import glob
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from _parts import Counts, Failure, Found, Installed, table

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".interop"

# Of each proxy: its Debian package, and its command.
PROXIES = {
    "squid": ("squid", "squid"),
    "tinyproxy": ("tinyproxy", "tinyproxy"),
    "microsocks": ("microsocks", "microsocks"),
    "dante": ("dante-server", "danted"),
}

# What is tested against. Raise the versions on purpose, and look at what the tests say.
LLAMA = "llama-cpp-python"
LLAMA_VERSION = "0.3.36"
LLAMA_REQUIREMENTS = [f"{LLAMA}[server]=={LLAMA_VERSION}", "gguf==0.19.0"]
LITELLM_REQUIREMENTS = ["litellm[proxy]==1.106.2"]
# The OpenAI SDK's own HTTP client is httpx2; httpx is a peer of its own.
PEERS_REQUIREMENTS = [
    "openai==3.54.0",
    "httpx2[socks]==2.16.2",
    "httpx[socks]==0.28.1",
    "httpx-sse==0.4.3",
    "trio==0.35.0",
]

# Seconds. None of them is near what the step takes, even on a slow machine.
APT_TIME, PIP_TIME, BUILD_TIME, PYTEST_TIME, STOP_TIME = 600, 1200, 3600, 2400, 60

QUIET = {"DEBIAN_FRONTEND": "noninteractive"}
SBIN = ("/usr/sbin", "/usr/local/sbin")  # where Debian keeps some of them, and not on everybody's PATH

# Shows a program users of our own. Debian has one such library an architecture, others have one folder.
NSS_WRAPPER = ("/usr/lib/*/libnss_wrapper.so", "/usr/lib*/libnss_wrapper.so", "/usr/local/lib/libnss_wrapper.so")


def main() -> int:
    arguments = parse_arguments()
    started = time.monotonic()
    found = set_up(arguments.only)
    present = {part: each for part, each in found.items() if isinstance(each, Installed)}
    say(f"set up in {time.monotonic() - started:.1f} s: {', '.join(present) or 'nothing'}")
    status, counts = 0, Counts()
    if present and not arguments.setup_only:
        status, counts = run_pytest(present, arguments.pytest)
    print(table(found, counts), flush=True)
    return status or int(len(present) < len(found))


def parse_arguments() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only", type=parts, default=list(PARTS), metavar="PART,...", help=f"some of: {', '.join(PARTS)}"
    )
    parser.add_argument("--setup-only", action="store_true", help="don't run the tests")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    return parser.parse_args()


def parts(text: str) -> list[str]:
    chosen = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in chosen if part not in PARTS]
    if unknown or not chosen:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown) or 'nothing'}: choose from {', '.join(PARTS)}")
    return [part for part in PARTS if part in chosen]


def say(text: str) -> None:
    print(f"interop: {text}", flush=True)


def set_up(chosen: list[str]) -> Found:
    """Try to set up each of these parts."""
    found: Found = {}
    try:
        main_python()
    except Failure as failure:
        say(f"FAILED: {failure}")
        return {part: Failure(f"no environment for the tests: {failure}") for part in chosen}
    for part in chosen:
        try:
            found[part] = PARTS[part]()
        except Failure as failure:
            say(f"FAILED: {part}: {failure}")
            found[part] = failure
    return found


# Debian packages


def which(command: str) -> str | None:
    return shutil.which(command) or shutil.which(command, path=os.pathsep.join(SBIN))


def nss_wrapper() -> str | None:
    found = [path for pattern in NSS_WRAPPER for path in sorted(glob.glob(pattern))]
    return found[0] if found else None


def proxy(name: str) -> Installed:
    package, command = PROXIES[name]
    wanted: dict[str, Callable[[], object]] = {package: functools.partial(which, command)}
    if name == "dante":
        wanted["libnss-wrapper"] = nss_wrapper
    debian(wanted)
    variables = {f"DELTAWIRE_INTEROP_{name.upper()}": str(which(command))}
    if name == "dante":
        variables["DELTAWIRE_INTEROP_NSS_WRAPPER"] = str(nss_wrapper())
    version = output_of(["dpkg-query", "--show", "--showformat", "${Version}", package])
    return Installed(version=version or "?", source="Debian" if version else str(which(command)), variables=variables)


def debian(wanted: dict[str, Callable[[], object]]) -> None:
    """Install those Debian packages of which nothing is found by the function beside them."""
    missing = [package for package, find in wanted.items() if not find()]
    if not missing:
        return
    names = ", ".join(missing)
    install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if not which("apt-get"):
        raise Failure(f"{names}: not found, and there is no apt-get here; install what gives these")
    if os.geteuid() != 0:
        raise Failure(f"{names}: not found; install with: sudo {' '.join(install)}")
    if (failure := package_lists()) is not None:
        raise Failure(f"{names}: not found, and {failure}")
    step(f"apt-{missing[0]}", f"installing {names} from Debian", install, APT_TIME, QUIET)
    for package in missing:
        if not wanted[package]():
            raise Failure(
                f"{package}: apt-get installed it, but its files are not where they should be: see {__file__}"
            )


@functools.cache
def package_lists() -> Failure | None:
    """Read Debian's package lists, once; gives what went wrong."""
    try:
        step("apt-update", "reading Debian's package lists", ["apt-get", "update"], APT_TIME, QUIET)
    except Failure as failure:
        return failure
    return None


# Virtual environments


def environment(name: str, requirements: list[str], *, options: list[str] | None = None, digest: bytes = b"") -> Path:
    """The Python of a virtual environment with these packages; made anew when they have changed."""
    place = HOME / name
    python = place / "bin" / "python"
    wanted = hashlib.sha256(repr((requirements, sys.version, sys.base_prefix)).encode() + digest).hexdigest()
    mark = place / "interop-complete"
    if mark.exists() and mark.read_text() == wanted and works(python):
        return python
    debian({"python3-venv": lambda: importlib.util.find_spec("ensurepip")})
    shutil.rmtree(place, ignore_errors=True)
    step(f"{name}-venv", f"making {place.relative_to(ROOT)}", [sys.executable, "-m", "venv", str(place)], PIP_TIME)
    if requirements:
        install = [*pip(python), "install", *(options or []), *requirements]
        step(f"{name}-pip", f"installing {' '.join(requirements)}", install, PIP_TIME)
    mark.write_text(wanted)
    return python


def works(python: Path) -> bool:
    """Whether an environment's Python still runs: the one it was made from may be gone."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run([python, "-c", ""], check=False, timeout=60).returncode == 0
    return False


def pip(python: Path) -> list[str]:
    return [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]


def main_python() -> Path:
    """The Python with deltawire, in which the tests run."""
    return environment("main", ["-e", f"{ROOT}[test]"], digest=(ROOT / "pyproject.toml").read_bytes())


def from_pip(part: str, python: Path, packages: list[str], source: str = "pip") -> Installed:
    """A part that is this Python, and these packages in it."""
    versions = [version_of(python, package) for package in packages]
    return Installed(
        version=", ".join(versions), source=source, variables={f"DELTAWIRE_INTEROP_{part.upper()}": str(python)}
    )


def version_of(python: Path, package: str) -> str:
    code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    return output_of([str(python), "-c", code, package]) or "?"


def litellm() -> Installed:
    return from_pip("litellm", environment("litellm", LITELLM_REQUIREMENTS), ["litellm"])


def http2() -> Installed:
    # In the tests' own environment, by the extra "test".
    return from_pip("http2", main_python(), ["hypercorn"])


def peers() -> Installed:
    return from_pip("peers", environment("peers", PEERS_REQUIREMENTS), ["openai", "httpx"])


# llama-cpp-python


def cache() -> Path:
    """Where built wheels are kept."""
    if given := os.environ.get("DELTAWIRE_INTEROP_CACHE"):
        return Path(given).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "deltawire-interop"


def cached_wheel() -> Path | None:
    found = sorted(cache().glob(f"{LLAMA.replace('-', '_')}-{LLAMA_VERSION}-*.whl"))
    return found[-1] if found else None


def llama() -> Installed:
    """The Python with llama-cpp-python, whose wheel is built first if it is not in the cache."""
    wheel = cached_wheel()
    if wheel is None:
        debian({"build-essential": lambda: which("c++")})
        builder = environment("builder", [])
        unfinished = HOME / "wheels"
        shutil.rmtree(unfinished, ignore_errors=True)
        settings = {
            "CMAKE_BUILD_PARALLEL_LEVEL": os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count() or 1),
            # Not for this machine's processor alone: the cache may be another machine's tomorrow.
            "CMAKE_ARGS": os.environ.get("CMAKE_ARGS") or "-DGGML_NATIVE=OFF",
        }
        # pip's own cache of built wheels doesn't know with which CMAKE_ARGS they were built.
        options = ["--no-deps", "--no-binary", LLAMA, "--no-cache-dir", "--wheel-dir", str(unfinished)]
        what = f"building {LLAMA} {LLAMA_VERSION} from source (some minutes, once)"
        command = [*pip(builder), "wheel", *options, f"{LLAMA}=={LLAMA_VERSION}"]
        step("llama-build", what, command, BUILD_TIME, settings)
        cache().mkdir(parents=True, exist_ok=True)
        for built in unfinished.glob("*.whl"):
            # In one step, so that a wheel in the cache is always a whole one.
            shutil.copy(built, cache() / f"{built.name}.part")
            os.replace(cache() / f"{built.name}.part", cache() / built.name)
        if (wheel := cached_wheel()) is None:
            raise Failure(f"pip built no wheel of {LLAMA} {LLAMA_VERSION}: see {log_of('llama-build')}")
    options = ["--find-links", str(wheel.parent), "--prefer-binary"]
    python = environment("llama", LLAMA_REQUIREMENTS, options=options)
    return from_pip("llama", python, [LLAMA], "source, pip")


PARTS: dict[str, Callable[[], Installed]] = {
    **{name: functools.partial(proxy, name) for name in PROXIES},
    "llama": llama,
    "litellm": litellm,
    "http2": http2,
    "peers": peers,
}
"""What sets each part up. Raises `Failure`."""


# Running commands


def log_of(name: str) -> Path:
    return HOME / "logs" / f"{name}.log"


def step(name: str, what: str, command: list[str], timeout: float, settings: dict[str, str] | None = None) -> None:
    """Run a command with its output in a log, and with these variables; raise `Failure`, with the log's end, if it
    fails."""
    say(f"{what} ...")
    log = log_of(name)
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("wb") as output:
        try:
            status = run(command, timeout, {**os.environ, **(settings or {})}, output.fileno())
        except OSError as error:
            raise Failure(f"{what}: {error}") from None
    if status != 0:
        reason = f"no end after {timeout:.0f} s" if status is None else f"exit status {status}"
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
        raise Failure(f"{what}: {reason}\n{' '.join(command)}\n{tail}\n(all of it: {log})")
    say(f"    done in {time.monotonic() - started:.1f} s")


def run(command: list[str], timeout: float, settings: dict[str, str], output: int | None) -> int | None:
    """The exit status of a command; None when it took too long. All its processes are ended by then."""
    stdin = subprocess.DEVNULL
    with subprocess.Popen(
        command, stdin=stdin, stdout=output, stderr=output, env=settings, cwd=ROOT, start_new_session=True
    ) as process:
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a command that still runs, so that it cleans up; after a while, kill it and its children."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)  # which is its group too: it has a session of its own
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIME)


def output_of(command: list[str]) -> str:
    """What a command prints, in a moment; nothing if it fails."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    return ""


def run_pytest(present: dict[str, Installed], arguments: list[str]) -> tuple[int, Counts]:
    """Run the tests of these parts; gives pytest's exit status, and the counts."""
    counts = HOME / "counts.json"
    counts.unlink(missing_ok=True)
    settings = {"DELTAWIRE_INTEROP": ",".join(present), "DELTAWIRE_INTEROP_COUNTS": str(counts)}
    for each in present.values():
        settings.update(each.variables)
    # Somebody's own proxy or key must not get into the tests.
    inherited = {name: value for name, value in os.environ.items() if not is_foreign(name.upper())}
    command = [str(main_python()), "-m", "pytest", "tests/interop", *arguments]
    status = run(command, PYTEST_TIME, {**inherited, **settings}, None)
    if status is None:
        say(f"FAILED: pytest did not end within {PYTEST_TIME} s")
    found: Counts = json.loads(counts.read_text()) if counts.exists() else {}
    return 1 if status is None else status, found


def is_foreign(variable: str) -> bool:
    return variable.endswith("_PROXY") or variable.startswith(("OPENAI_", "PYTEST_", "PYTHON", "DELTAWIRE_INTEROP"))


def terminate(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # So that a `kill` takes pytest and its servers along.
    signal.signal(signal.SIGTERM, terminate)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
