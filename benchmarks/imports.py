"""What an import costs: the CPU time, user and system, of whole processes, less that of ``python -c pass``.

Bytecode caches are warm: the first run of each, which is not counted, writes them (to a folder of their own,
so that nothing in the checkout changes). The budgets are milliseconds on the design's machine, where python
itself took 11 to 15 and msgspec 33 more; so each stands here twice, as time, and as its ratio to what
``import msgspec`` adds here.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable

from _measure import Costs, Line, interleaved

_PYTHON, _FLOOR = "python", "msgspec"
_ROOT, _PROTOCOL = "deltawire", "deltawire.protocol"
_MSGSPEC_THERE = 33.0

CODE = {
    _PYTHON: "pass",
    _FLOOR: "import msgspec",
    _PROTOCOL: "import deltawire.protocol",
    _ROOT: "import deltawire",
    "httpcore": "import httpcore",
    "aiohttp": "import aiohttp",
    "httpx": "import httpx",
    "openai": "import openai",
}


def _spent(code: str, environment: dict[str, str]) -> float:
    """CPU seconds of a process that runs this."""
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", code], environment)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"{code!r} failed")
    return usage.ru_utime + usage.ru_stime


def _over_python(costs: Costs) -> Costs:
    """What each adds to python: its least cost less python's, and the same round by round."""
    base = costs[_PYTHON]
    return {
        name: [cost - python for cost, python in zip(each, base, strict=True)]
        for name, each in costs.items()
        if name != _PYTHON
    }


def measure(quick: bool) -> list[Line]:
    """``import deltawire.protocol``, ``import deltawire``."""
    rounds = 4 if quick else 20
    with tempfile.TemporaryDirectory() as caches:
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONSTARTUP")
        } | {"PYTHONPYCACHEPREFIX": caches}

        def one(code: str) -> Callable[[], float]:
            return lambda: _spent(code, environment)

        costs = interleaved({name: one(code) for name, code in CODE.items()}, rounds)
    added = _over_python(costs)
    lines = [
        Line(
            subject=f"import {ours}" + (", in time" if absolute else ""),
            unit="ms",
            scale=1e3,
            costs={name: each for name, each in added.items() if name not in (_ROOT, _PROTOCOL) or name == ours},
            ours=ours,
            floor=_FLOOR,
            budget=budget if absolute else round(budget / _MSGSPEC_THERE, 2),
            absolute=absolute,
        )
        for ours, budget in ((_PROTOCOL, 50.0), (_ROOT, 65.0))
        for absolute in (True, False)
    ]
    python = {_PYTHON: costs[_PYTHON], _FLOOR: added[_FLOOR]}
    lines.append(
        Line(subject="python itself", unit="ms", scale=1e3, costs=python, ours=_PYTHON, floor=_FLOOR),
    )
    return lines
