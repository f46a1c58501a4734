"""Programs that run while tests do: started on a free port of this machine, stopped for certain."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

LEASH = Path(__file__).with_name("leash.py")
START_TIME = 60.0
STOP_TIME = 15.0
_TAIL = 12_000

KEY = "sk-interop"


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


HAS_IPV6 = _has_ipv6()
"""Whether this machine has ::1."""

running: list[Server] = []
"""The servers that run now, for the report of a failure."""


def variable(name: str) -> str:
    value = os.environ.get(f"DELTAWIRE_INTEROP{name}")
    if not value:
        raise pytest.UsageError(
            f"tests/interop needs real servers: run `python scripts/interop.py`, which installs them and sets "
            f"DELTAWIRE_INTEROP{name} (the quick suite: pytest tests --ignore=tests/interop)"
        )
    return value


def parts() -> list[str]:
    """What scripts/interop.py was asked to run."""
    return variable("").split(",")


class Server:
    """A program that listens on ``port``, once it is started. Its output goes to the file ``log``."""

    def __init__(self, name: str, port: int, log: Path) -> None:
        self.name = name
        self.port = port
        self.log = log
        self._leash: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Start the program, and wait until it accepts connections."""
        with self.log.open("ab") as output:
            self._leash = subprocess.Popen(
                [sys.executable, "-S", LEASH, *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        try:
            self._wait(self._leash)
        except BaseException:
            self.stop()
            raise
        running.append(self)

    def _wait(self, leash: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + START_TIME
        while time.monotonic() < until:
            if (status := leash.poll()) is not None:
                raise RuntimeError(f"{self.name} ended at once (status {status}):\n{self.tail()}")
            if accepts(self.port):
                return
            time.sleep(0.02)
        raise RuntimeError(f"{self.name} does not accept connections after {START_TIME:.0f} s:\n{self.tail()}")

    def stop(self, *, hard: bool = False) -> None:
        """Stop the program (``hard``: kill it) and wait until it has ended. Idempotent."""
        leash, self._leash = self._leash, None
        if leash is None:
            return
        if self in running:
            running.remove(self)
        assert leash.stdin is not None
        if hard:
            leash.stdin.write(b"!")
        leash.stdin.close()
        try:
            leash.wait(STOP_TIME)
        except subprocess.TimeoutExpired:
            leash.kill()
            leash.wait()
            raise RuntimeError(f"{self.name} did not end within {STOP_TIME:.0f} s") from None

    def tail(self, start: int = 0) -> str:
        """The end of its output since that position."""
        data = self.log.read_bytes()[start:] if self.log.exists() else b""
        return data[-_TAIL:].decode(errors="replace")

    def size(self) -> int:
        """How much output there is."""
        return self.log.stat().st_size if self.log.exists() else 0


def accepts(port: int) -> bool:
    """Whether something on this machine accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def free_port() -> int:
    """A free port below those that the system gives to clients, so that no connection takes it meanwhile."""
    for _ in range(100):
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise RuntimeError("no free port on 127.0.0.1 from 20000 to 32000")


@contextlib.contextmanager
def full_listener() -> Iterator[int]:
    """A port that takes no further connection and refuses none: connecting to it takes for ever."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextlib.contextmanager
def open_directory(owner: str | None = None) -> Iterator[Path]:
    """A new directory for a program that gives up root's rights: pytest's own are closed to all but their user."""
    with tempfile.TemporaryDirectory(prefix="deltawire-interop-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        if owner is not None and os.geteuid() == 0:
            shutil.chown(directory, owner, owner)
        yield directory


@dataclass
class Authority:
    """A certificate authority of our own, and a certificate for 127.0.0.1, ::1 and localhost."""

    context: ssl.SSLContext
    """For a server."""
    ca: str
    """The authority's certificate, a PEM file, for ``verify=``."""
    certificate: str
    key: str
    issue: Callable[[str], ssl.SSLContext]
    """For a server: a certificate for another name."""


StartServer = Callable[..., Server]
StartLlama = Callable[..., Server]
Llama = tuple[Server, "dict[str, Any]"]
