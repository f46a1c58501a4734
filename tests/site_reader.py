"""The oracle for sites of the Opchatgpts protocol: one recording's bytes, whole, in; a plain dict out.

As `whole_reader`: stdlib only, every rule the most naive way.
"""

from __future__ import annotations

import html
import json
import re
from typing import Any

from whole_reader import (
    STATUS_CLASSES,
    USAGE_KEYS,
    class_of_status,
    mend,
    parse_object,
    parse_reply,
    split_responses,
    status_of_error,
)

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
    if value.get("success") is not None and not value["success"]:
        return outcome(status, verdict=class_of_status(status_of_error(value)), text=said, status_lines=lines)
    text = said or value["reply"]
    if not isinstance(text, str):
        raise TypeError("the plugin's replies are texts")
    if not text and not value["images"] and not value["actions"] and not value.get("blocks"):
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
    return read_body(status, body)


def read_body(status: int, body: bytes) -> Dict:
    """What a reply says. Raises for what is none as the plugin writes them."""
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
    if body.lstrip().startswith((b"{", b"[")):
        return finished(status, "", [], json.loads(body))
    said = ""
    lines: list[str] = []
    events, pending, _ = parse_reply(body)
    for event in (json.loads(each["data"]) for each in events + pending):
        if event["type"] == "live" and event.get("subtype") in (None, "", "content"):
            said += event["data"]
        elif event["type"] == "error":
            return outcome(status, verdict="APIStatusError", text=said, status_lines=lines, words=event["data"])
        elif event["type"] == "end":
            return finished(status, said, lines, json.loads(event["data"]))
        else:
            # A line of the site's log, of whatever type.
            lines.append(event["data"])
    return outcome(status, verdict="TruncatedStreamError", text=said, status_lines=lines)


# --- Sessions --------------------------------------------------------------------------------------


def read_session(body: bytes) -> list[tuple[str, str]]:
    """The session's name and its nonce in the reply to ``start_session``, or nothing."""
    value = parse_object(body.decode("utf-8", "replace").removeprefix("\ufeff"))
    # Whatever says that it has failed gives no session.
    failed = value is None or (value.get("success") is not None and not value["success"])
    return [] if failed else session_in(value)


def read_page(body: bytes) -> list[tuple[str, str]]:
    """The same in a page: the first attribute ``data-system`` that holds a nonce."""
    for quoted in re.findall(
        r"""[\s"']data-system\s{0,9}=\s{0,9}("[^"]*"|'[^']*')""", body.decode("latin-1"), re.I | re.A
    ):
        told = quoted[1:-1].encode("latin-1").decode("utf-8", "replace")
        found = session_in(parse_object(html.unescape(told)))
        if found:
            return found
    return []


def session_in(value: Dict | None) -> list[tuple[str, str]]:
    nonce = (value or {}).get("restNonce")
    # A nonce goes into a header field: visible ASCII.
    if value is None or not isinstance(nonce, str) or not re.fullmatch("[!-~]{1,256}", nonce):
        return []
    name = value.get("sessionId")
    return [(mend(name) if isinstance(name, str) else "", nonce)]
