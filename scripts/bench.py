"""Benchmarks, side by side with peers: ``python scripts/bench.py [subject] [--quick]``."""

import sys

from _venv import environment, run

sys.exit(run(environment("bench"), "benchmarks/run.py", *sys.argv[1:]))
