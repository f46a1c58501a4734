"""Secrets that tests plant, the ways in which a peer may say them back, and whatever of an error can be printed."""

from __future__ import annotations

import base64
import copy
import html
import io
import json
import os
import pickle
import traceback
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from driving import causes

import deltawire

# Each with something of its own, of characters that are escaped here and there.
KEY = "sk-canary-9aVq3XwZ7rTn2LpY5sKd8HfU6iBg4jM"
COOKIE = "cookie-4Jm6Bc1Ug8Ew0QxNs"
CUSTOM = "custom+7Rk/2Dv=9Zt&5Yh3Wp"
CALLS = "calls-own-3Gf8Ls6Vn1Xb"
QUERY = "query-8Pq2Mz5Ct7Kr"
TOKEN = "token-1Hy4Wj9Sd6Fg"
PASSWORD = "pw 6Tb:x@3/N%ä\"8&<Lk>'2"
USER = "mallory"
NONCE = "nonce-5Xc2Vb7Nm9"

SECRETS = (KEY, COOKIE, CUSTOM, CALLS, QUERY, TOKEN, PASSWORD)

# So much of a secret is too much.
_WINDOW = 12

HEADERS = {
    "Cookie": f"theme=dark; session={COOKIE}",
    "X-Api-Key": CUSTOM,
    "X-Vendor-Token": CUSTOM[::-1],
    "OpenAI-Organization": "org-not-secret",
}
CALL_HEADERS = {"X-Session-Id": CALLS}


def forms(secret: str) -> list[str]:
    """The ways in which a peer may write it, and in which Python shows it."""
    ascii_json, plain_json = json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]
    written = [secret, ascii_json, plain_json, ascii_json.replace("/", r"\/"), quote(secret), quote(secret, safe="")]
    pair = base64.b64encode(f"{USER}:{secret}".encode()).decode() if secret is PASSWORD else secret
    return list(dict.fromkeys([*written, html.escape(secret, quote=False), pair]))


def shown_forms(secret: str) -> list[str]:
    """In which it would be found in something printed."""
    found = forms(secret)
    raw = [repr(each.encode())[2:-1] for each in found] + [repr(each)[1:-1] for each in found]
    return list(dict.fromkeys([*found, *raw, secret[::-1]]))


def echo(*secrets: str, lines: bool = True) -> str:
    """All of these, or all there are, in all their forms, whole; with ``lines`` broken into lines and broken off, as
    well."""
    secrets = secrets or SECRETS
    said = [form for secret in secrets for form in forms(secret)]
    if lines and KEY in secrets:
        said += [KEY[:20] + "\n" + KEY[20:], KEY[:22] + "..."]
    return " | ".join(["given was", *said, "thus refused"])


def leaks(text: str) -> list[str]:
    """The pieces of secrets that stand in a text."""
    found = []
    for secret in SECRETS:
        for form in shown_forms(secret):
            windows = [form[at : at + _WINDOW] for at in range(max(len(form) - _WINDOW + 1, 1))]
            if any(window in text for window in windows):
                found.append(form)
    return found


def printed(error: BaseException, *, frames: bool = True) -> Iterator[tuple[str, str]]:
    """Whatever can be printed of an error, each with how: all causes, and the variables of the frames it came by."""
    for each in causes(error):
        name = type(each).__name__
        yield f"str of {name}", str(each)
        yield f"repr of {name}", f"{each!r} {each.args!r}"
        yield f"vars of {name}", repr(getattr(each, "__dict__", "")) + repr(getattr(each, "__notes__", ""))
        if frames:
            yield f"frames of {name}", "\n".join(_locals(each))
    yield "traceback", "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if isinstance(error, deltawire.DeltawireError):
        yield "copies", f"{copy.copy(error)!r} {vars(copy.deepcopy(error))!r}"
        yield "pickle", pickle.dumps(error).decode("latin-1") + repr(vars(pickle.loads(pickle.dumps(error))))


# Whose variables nobody but us, or a library that we have called, has put there.
_OURS = tuple(f"{os.sep}{name}{os.sep}" for name in ("deltawire", "httpcore", "h11", "h2"))


def _locals(error: BaseException) -> Iterator[str]:
    for frame, line in traceback.walk_tb(error.__traceback__):
        where = frame.f_code.co_filename
        if any(part in where for part in _OURS):
            for name, value in frame.f_locals.items():
                yield f"{os.path.basename(where)}:{line} {name} = {_shown(value)}"


def _shown(value: Any) -> str:
    """As tracebacks show variables, and as the library rich does."""
    rich = getattr(value, "__rich_repr__", None)
    if rich is None or isinstance(value, type):
        return repr(value)
    return f"{value!r} {list(rich())!r}"


def assert_none(error: BaseException, *more: str, frames: bool = True) -> None:
    """That none of the secrets stands in anything that is printed of this error, nor in these texts."""
    for how, text in (*printed(error, frames=frames), *(("more", each) for each in more)):
        found = leaks(text)
        if found:
            shown = io.StringIO()
            for form in found:
                for line in text.splitlines():
                    if form[:_WINDOW] in line or form[-_WINDOW:] in line:
                        print(line[:1500], file=shown)
            raise AssertionError(f"{how}: {found}\n{shown.getvalue() or text[:3000]}")
