"""Run a command until standard input ends; then stop it, with all that it started.

``python leash.py command argument...``, started by `interop_servers.Server` with a pipe. When the tests end, in
whatever way, the pipe ends, and so does the server: none is left behind, even where pytest is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

PATIENCE = 5.0  # seconds between asking and killing


def main() -> int:
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=hold, args=(command.pid,), daemon=True).start()
    status = command.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(command.pid, signal.SIGKILL)  # its helpers
    return status if status >= 0 else 128 - status


def hold(group: int) -> None:
    while os.read(0, 4096):
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        threading.Event().wait(PATIENCE)
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
