"""Programs run as people run them: in a process of their own, with every warning an error."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

# Whoever says -X dev is told of slow callbacks by asyncio's debug mode, on this machine also of good ones.
_QUIET = """
import logging
logging.getLogger("asyncio").setLevel(logging.ERROR)
"""


def run_program(source: str, *arguments: str, timeout: float = 60, **environment: str) -> str:
    """What the program printed. It must say nothing on stderr, and end well."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "VIRTUAL_ENV") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", _QUIET + textwrap.dedent(source), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**kept, "PYTHONIOENCODING": "utf-8", **environment},
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout
