"""All tests that need nothing but this machine's loopback: ``python scripts/test.py [pytest's options]``."""

import sys

from _venv import environment, run

sys.exit(run(environment("test"), "-m", "pytest", "--ignore=tests/interop", *(sys.argv[1:] or ["-q", "tests"])))
