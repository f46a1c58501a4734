"""The main job, with no key and no network: ``python scripts/demo.py [--json] [--stop-proxy]``."""

import sys

from _venv import environment, run

sys.exit(run(environment(""), "-m", "deltawire", "demo", *sys.argv[1:]))
