"""The oracle for sites of the Opchatgpts protocol: one recording's bytes, whole, in; a plain dict out.

As `whole_reader`: stdlib only, every rule the most naive way.
"""

from __future__ import annotations

import html
import json
import re
from typing import Any

from whole_reader import STATUS_CLASSES, USAGE_KEYS, split_responses

Dict = dict[str, Any]


def outcome(status: int, **told: Any) -> Dict:
    return {
        "status": status, "verdict": "ended", "text": "", "status_lines": [], "usage": None, "id": "",
        "actions": [], "error_status": None, "code": None, "words": "",
    } | told  # fmt: skip


def plain(words: str) -> str:
    """Without markup."""
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", words)).split())


def finished(status: int, said: str, lines: list[str], value: Dict) -> Dict:
    """A reply whose `end`, or whole document, is this."""
    text = said or value["reply"]
    if not text and not value["images"] and not value["actions"]:
        return outcome(status, verdict="EmptyReplyError", status_lines=lines)
    return outcome(
        status,
        text=text,
        status_lines=lines,
        usage={key: value["usage"][key] for key in USAGE_KEYS},
        id=value["responseId"],
        actions=value["actions"],
    )


def read_recording(raw: bytes) -> Dict:
    ((status, _, body),) = split_responses(raw)
    if status != 200:
        value = json.loads(body)
        fallback = "InternalServerError" if status >= 500 else "APIStatusError"
        return outcome(
            status,
            verdict=STATUS_CLASSES.get(status, fallback),
            error_status=status,
            code=value.get("code"),
            words=plain(value["message"]),
        )
    if body.startswith(b"{"):
        return finished(status, "", [], json.loads(body))
    said, lines = "", []
    for block in body.split(b"\n\n"):
        if not block.strip():
            continue
        event = json.loads(block.removeprefix(b"data: "))
        if event["type"] == "live" and "subtype" not in event:
            said += event["data"]
        elif event["type"] == "live":
            lines.append(event["data"])
        elif event["type"] == "error":
            return outcome(status, verdict="APIStatusError", text=said, status_lines=lines, words=event["data"])
        else:
            return finished(status, said, lines, json.loads(event["data"]))
    return outcome(status, verdict="TruncatedStreamError", text=said, status_lines=lines)
