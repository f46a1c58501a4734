"""atheris on a target: libFuzzer, led by which lines of the machines an input reaches.

python -m fuzz.with_atheris TARGET [options of libFuzzer, folders of inputs]      (in tests/)
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["deltawire.protocol"]):
    from fuzz.targets import TARGETS


def main() -> None:
    """Does not return: libFuzzer ends the process, with status 77 when it has found something."""
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
