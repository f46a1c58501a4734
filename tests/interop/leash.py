"""Run a command until standard input ends; then stop it, with all that it started.

``python leash.py command argument...``, started by `interop_servers.Server` with a pipe. When the tests end, in
whatever way, the pipe ends, and so does the server: none is left behind, even where pytest is killed. A byte in the
pipe ends it at once and hard.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

PATIENCE = 5.0  # seconds between asking and killing

PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    # Children of the command come to us when it ends; in a container there may be nobody else to take leave of them.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=hold, args=(command.pid,), daemon=True).start()
    status = command.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(command.pid, signal.SIGKILL)  # its helpers
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    return status if status >= 0 else 128 - status


def hold(group: int) -> None:
    hard = os.read(0, 1)
    with contextlib.suppress(ProcessLookupError):
        if not hard:
            os.killpg(group, signal.SIGTERM)
            threading.Event().wait(PATIENCE)
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
