"""Derives tests/data/expected.json (recording name -> results) with the oracle, `whole_reader`, and
tests/data/expected-ai-engine.json with `site_reader`.

Run `python tests/make_expected.py` after a change of the oracle or of the recordings, and look at the diff.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import site_reader
import whole_reader

DATA = Path(__file__).resolve().parent / "data"
RECORDINGS = DATA / "recordings"
EXPECTED = DATA / "expected.json"
SITE_RECORDINGS = DATA / "ai-engine"
SITE_EXPECTED = DATA / "expected-ai-engine.json"


def is_chat(request: bytes) -> bool:
    """Whether a recorded request is a POST to .../chat/completions (the models lists are not)."""
    method, _, rest = request.partition(b" ")
    return method == b"POST" and rest.split(b" ")[0].partition(b"?")[0].endswith(b"/chat/completions")


def chat_recordings() -> list[str]:
    found = sorted(path.name.removesuffix(".request") for path in RECORDINGS.glob("*.request"))
    return [name for name in found if is_chat((RECORDINGS / f"{name}.request").read_bytes())]


def response(name: str) -> bytes:
    return (RECORDINGS / f"{name}.response").read_bytes()


def derive() -> dict[str, list[dict[str, Any]]]:
    return {name: whole_reader.read_recording(response(name)) for name in chat_recordings()}


def site_recordings() -> list[str]:
    return sorted(path.name.removesuffix(".response") for path in SITE_RECORDINGS.glob("*.response"))


def site_response(name: str) -> bytes:
    return (SITE_RECORDINGS / f"{name}.response").read_bytes()


def derive_sites() -> dict[str, dict[str, Any]]:
    return {name: site_reader.read_recording(site_response(name)) for name in site_recordings()}


def rendered(derived: object) -> str:
    return json.dumps(derived, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, derived in ((EXPECTED, derive()), (SITE_EXPECTED, derive_sites())):
        path.write_text(rendered(derived), encoding="utf-8", newline="\n")
        print(f"{path.name}: {len(derived)} recordings, {path.stat().st_size} bytes")
