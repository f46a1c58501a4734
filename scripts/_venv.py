"""A virtual environment for this checkout, made and kept up to date by the scripts beside this file.

Needs Python with venv and pip, nothing else. One environment an interpreter version: ``.venv-3.12``.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def environment(extra: str) -> Path:
    """The environment's interpreter, with deltawire (editable) and the packages of an extra installed."""
    if sys.version_info < (3, 10):  # noqa: UP036 - whoever runs it with an older one should be told
        sys.exit(f"deltawire needs Python 3.10 or newer; this is {sys.version.split()[0]}")
    home = ROOT / f".venv-{sys.version_info[0]}.{sys.version_info[1]}"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        print(f"making {home.name}", file=sys.stderr, flush=True)
        venv.create(home, with_pip=True, clear=True)
    stamp = home / f"installed-{extra or 'plain'}"
    wanted = _fingerprint()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing into {home.name}", file=sys.stderr, flush=True)
        # "strict" links each module by itself, which type checkers can follow; new modules need a new run.
        target = f"{ROOT}[{extra}]" if extra else str(ROOT)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "-e", target, "--config-settings", "editable_mode=strict"],
            check=True,
        )
        stamp.write_text(wanted)
    return python


def run(python: Path, *arguments: str) -> int:
    """Run that interpreter in the checkout; gives its exit status."""
    return subprocess.run([str(python), *arguments], cwd=ROOT, check=False).returncode


def _fingerprint() -> str:
    """Changes when the installation must be done again: the settings, or which modules there are."""
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes())
    for folder in ("protocol", "transports", "client"):
        for module in sorted((ROOT / folder).rglob("*.py")):
            digest.update(str(module.relative_to(ROOT)).encode())
    return digest.hexdigest()
