"""The fault matrix: a peer that closes, resets, stalls or garbles at each byte of a conversation.

    python scripts/faults.py                  every cell: some 380,000, in half an hour or less on two cores
    python scripts/faults.py --short          each fifth, for CI: in some four minutes
    python scripts/faults.py --every 100      each hundredth
    python scripts/faults.py --scenario tls --way trio/wire
    python scripts/faults.py --cell tls/reply/reset/700/trio/wire

Each cell is one call of `Client` or `AsyncClient`, on threads, asyncio or trio, over httpcore or the wire. How it must
end is told from the bytes alone that come (``tests/fault_matrix/reference.py``); what ends otherwise is printed with
its name, by which ``--cell`` runs it again. Linux only. The exit status is 1 when a cell ends otherwise, when a socket,
a thread or a warning is left behind, or when there are no successes, or no failures; 3 when a call hangs.
"""

import os
import sys

from _venv import ROOT, environment, run

python = environment("test")
# `fault_matrix`, and what it shares with the tests.
os.environ["PYTHONPATH"] = str(ROOT / "tests")
sys.exit(run(python, "-W", "error", "-m", "fault_matrix", *sys.argv[1:]))
