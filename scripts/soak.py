"""A soak: random calls, breaks, cancellations and faults for some minutes, and then a look at what is left of them.

    python scripts/soak.py                    three minutes for each flavour and transport
    python scripts/soak.py --minutes 30
    python scripts/soak.py --short            twelve seconds for each; what CI runs
    python scripts/soak.py --seed 7           the same dice (what threads and the network make of them differs)

Sync threads, asyncio and trio, each on httpcore and on the wire: each in a process of its own, two at a time, and its
servers in another. See `soak/` for what is done and what is checked. The exit status is 1 if a promise was broken.
"""

import sys

from _venv import environment, run

sys.exit(run(environment("test"), "soak/run.py", *sys.argv[1:]))
