"""How a call must end, told from the bytes that its client gets, and from how they end: nothing else.

Independent of deltawire: whole buffers, no states, each rule in its most naive form (as `whole_reader`, whose pieces
are used). A call's bytes are read from their beginning, as far as they came; where more would be needed, what becomes
of it hangs on how they end:

    close, reset   the connection's end is the reply's, or breaks it off
    stall          a deadline passes

The rules are the design's ("How a reply ends"): ``[DONE]`` or ``end`` is success at once; the end of the bytes is
success if every choice that was opened has had its finish reason, and an error else; what is pending counts as if an
empty line followed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from whole_reader import Fold, class_of_status, find_error, parse_reply, records, status_of_error

from .scenarios import AUTHENTICATION, GREETING, REQUEST

Dict = dict[str, Any]


class Outcome(NamedTuple):
    """How a call ends."""

    error: str = ""
    """The name of the class; "" for success."""
    texts: tuple[tuple[int, str], ...] | None = None
    """Of each choice, what has come. None: nothing has."""
    deadline: str = ""
    """Which one has passed, of a TimeoutError."""
    code: int | None = None
    """Of an error of the server's or proxy's own making: its status, or its SOCKS reply."""
    waits: bool = False
    """It comes only when a deadline passes."""

    def __str__(self) -> str:
        what = self.error or "success"
        more = [f"{name} {value}" for name, value in (("deadline", self.deadline), ("code", self.code)) if value]
        return f"{what}{''.join(f', {each}' for each in more)}, with {None if self.texts is None else dict(self.texts)}"


def unanswered(ending: str) -> Outcome:
    """The connection ends where there is no head yet."""
    return expired("first_content") if ending == "stall" else Outcome("ReadError")


def expired(deadline: str, fold: Said | None = None) -> Outcome:
    return Outcome("TimeoutError", None if fold is None else fold.texts(), deadline, waits=True)


# --- HTTP -----------------------------------------------------------------------------------------------

_STATUS_LINE = re.compile(rb"HTTP/[0-9]\.[0-9] ([0-9]{3})(?: [^\0\r\n\v\f]*)?")
_FIELD = re.compile(rb"([-!#$%&'*+.^_`|~0-9a-zA-Z]+):[ \t]*([^\0\r\n\v\f]*?)[ \t]*")


def read_reply(raw: bytes, ending: str, dialect: str = "openai") -> Outcome:
    """The outcome of an exchange on which these bytes come."""
    blank = re.search(rb"\n\r?\n", raw)
    if blank is None:
        return unanswered(ending)
    found = read_head(raw[: blank.start()])
    if found is None:
        return Outcome("ReadError")
    status, fields = found
    rest = raw[blank.end() :]
    if b"transfer-encoding" in fields:
        body, how = unchunk(rest)
    elif b"content-length" in fields:
        length = int(fields[b"content-length"])
        body, how = rest[:length], "over" if len(rest) >= length else "open"
    else:
        body, how = rest, "over" if ending == "close" else "open"
    # What ends in no good order: it is broken off, or ("late") a deadline passes.
    if how == "open":
        how = "late" if ending == "stall" else "broken"
    if status >= 300:
        return Outcome(class_of_status(status), code=status, waits=how == "late")
    return read_body(body, fields.get(b"content-type", b""), how, dialect)


def read_head(head: bytes) -> tuple[int, dict[bytes, bytes]] | None:
    """Status and fields; None for what is no head (RFC 9112 sections 4 and 5), or frames a body in no known way."""
    first, *lines = (line.removesuffix(b"\r") for line in head.split(b"\n"))
    line = _STATUS_LINE.fullmatch(first)
    matches = [_FIELD.fullmatch(each) for each in lines]
    if line is None or None in matches:
        return None
    fields = {match[1].lower(): match[2] for match in matches if match is not None}
    if fields.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
        return None
    if not fields.get(b"content-length", b"0").isdigit():
        return None
    return int(line[1]), fields


def unchunk(rest: bytes) -> tuple[bytes, str]:
    """The body as far as it came; and whether it is over, broken, or open."""
    body = b""
    while True:
        line, end, after = rest.partition(b"\r\n")
        if not end:
            return body, "open"
        size = re.fullmatch(rb"([0-9A-Fa-f]{1,20})(?:;[^\n]*)?[ \t]*", line)
        if size is None:
            return body, "broken"
        length = int(size[1], 16)
        if length == 0:
            return body, "over" if re.match(rb"\r?\n", after) else "open"
        body += after[:length]
        footer = after[length : length + 2]
        if not b"\r\n".startswith(footer):
            return body, "broken"
        if len(footer) < 2:
            return body, "open"
        rest = after[length + 2 :]


# --- Bodies ---------------------------------------------------------------------------------------------


class Said:
    """What the events, or a document, have said so far."""

    def __init__(self) -> None:
        self.fold = Fold()
        self.any = False

    def add(self, payload: Dict, *, document: bool = False) -> None:
        self.any = True
        self.fold.add(payload, document=document)

    def piece(self, text: str, finish: str | None = None) -> None:
        self.add({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})

    def texts(self) -> tuple[tuple[int, str], ...] | None:
        """None when no chunk has come."""
        choices = self.fold.choices
        return tuple((index, choices[index]["text"]) for index in sorted(choices)) if self.any else None

    def has_content(self) -> bool:
        return any(choice["text"] for choice in self.fold.choices.values())

    def is_complete(self) -> bool:
        reasons = self.fold.finish_reasons()
        return bool(reasons) and all(reasons)

    def ended(self, *, waits: bool = False) -> Outcome:
        """It ends in good order: if anything has been said."""
        if self.has_content() or any(self.fold.finish_reasons()):
            return Outcome("", self.texts(), waits=waits)
        return Outcome("EmptyReplyError", waits=waits)


def read_json(data: str) -> Any:
    """The JSON in a text, control characters in its strings included (servers send them); ValueError."""
    return json.loads(data, strict=False)


_FIELDS = ("data:", "event:", "id:", "retry:", ":")


def read_body(body: bytes, content_type: bytes, how: str, dialect: str) -> Outcome:
    """The outcome of a 200 with this body, which is over, broken off, or comes no further ("late")."""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff").lstrip(" \t\r\n\v\f")
    if text.startswith(("{", "[")):
        return read_document(text, how)
    if content_type.partition(b";")[0].strip().lower() == b"text/event-stream" or text.startswith(_FIELDS):
        return read_events(body, how, READERS[dialect]())
    if text and not any(field.startswith(text) for field in _FIELDS):
        return Outcome("UnexpectedReplyError", waits=how == "late")
    return expired("first_content") if how == "late" else Outcome("TruncatedStreamError")


def read_document(text: str, how: str) -> Outcome:
    try:
        value = read_json(text)
    except ValueError:
        return expired("first_content") if how == "late" else Outcome("TruncatedStreamError")
    error = find_error(value, "") if isinstance(value, dict) else None
    said = Said()
    if error is not None:
        code = status_of_error(error)
        return Outcome(class_of_status(code), code=code, waits=how == "late")
    if not isinstance(value, dict) or not records(value.get("choices")):
        return Outcome("UnexpectedReplyError", waits=how == "late")
    said.add(value, document=True)
    return said.ended(waits=how == "late")


def read_events(body: bytes, how: str, reader: OpenAI | Site) -> Outcome:
    said, (whole, pending, _) = reader.said, parse_reply(body)
    for each in whole:
        if (outcome := reader.take(each["event"], each["data"])) is not None:
            return outcome
    deadline = "idle" if said.has_content() else "first_content"
    late = how == "late"
    for each in pending:
        outcome = reader.take(each["event"], each["data"])
        # What can't be read at the end was cut off.
        if outcome is not None and outcome.error != "MalformedEventError":
            return outcome._replace(waits=late)
    if said.is_complete():
        return said.ended(waits=late)
    return expired(deadline, said) if late else Outcome("TruncatedStreamError", said.texts())


class OpenAI:
    """Reads the events of OpenAI's dialect."""

    def __init__(self) -> None:
        self.said = Said()

    def take(self, name: str, data: str) -> Outcome | None:
        """An event; its outcome, if that is one."""
        said = self.said
        if data.strip() == "[DONE]":
            return said.ended()
        if not data.strip():
            return None
        try:
            payload = read_json(data)
        except ValueError:
            payload = None
        if not isinstance(payload, dict):
            return Outcome("MalformedEventError", said.texts())
        error = find_error(payload, name)
        if error is None or records(payload.get("choices")):
            said.add(payload)
        if error is None:
            return None
        code = status_of_error(error)
        return Outcome(class_of_status(code), said.texts(), code=code)


class Site:
    """Reads the events of a site."""

    def __init__(self) -> None:
        self.said = Said()

    def take(self, name: str, data: str) -> Outcome | None:
        said = self.said
        if not data.strip():
            return None
        try:
            told = read_json(data)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            return Outcome("MalformedEventError", said.texts())
        kind, held = told.get("type"), told.get("data")
        if not isinstance(kind, str):
            return Outcome("MalformedEventError", said.texts())
        if kind == "error":
            return Outcome("APIStatusError", said.texts())
        if kind == "live" and isinstance(held, str) and told.get("subtype") in (None, "", "content"):
            said.piece(held)
        return self._end(held) if kind == "end" else None

    def _end(self, held: Any) -> Outcome | None:
        said = self.said
        if isinstance(held, str):
            try:
                held = read_json(held)
            except ValueError:
                if held.lstrip().startswith(("{", "[")):
                    return Outcome("MalformedEventError", said.texts())
                held = {}
        if held is None:
            held = {}
        if not isinstance(held, dict):
            return Outcome("MalformedEventError", said.texts())
        if held.get("success", True) is not None and not held.get("success", True):
            return Outcome("APIStatusError", said.texts())
        if not said.has_content():
            if not held.get("reply"):
                return Outcome("EmptyReplyError", said.texts())
            said.piece(held["reply"])
        said.piece("", "stop")
        return said.ended()


READERS: dict[str, type[OpenAI] | type[Site]] = {"openai": OpenAI, "opchatgpts": Site}


# --- Handshakes with proxies ----------------------------------------------------------------------------


def untunnelled(ending: str) -> Outcome:
    """The connection ends where there is no tunnel yet."""
    return Outcome("TimeoutError", None, "connect", waits=True) if ending == "stall" else Outcome("ProxyError")


def read_connect(raw: bytes, ending: str) -> Outcome | bytes:
    """What becomes of a CONNECT to which this is said: an outcome, or a tunnel, and what came behind the answer."""
    lines: list[bytes] = []
    position = 0
    while True:
        end = raw.find(b"\n", position)
        if end < 0:
            begun = not lines or re.match(rb"HTTP/1\.[0-9] [0-9]{3}(?: |\Z)", lines[0])
            return untunnelled(ending) if begun else Outcome("ProxyError")
        line, position = raw[position:end].removesuffix(b"\r"), end + 1
        if not lines and not re.match(rb"HTTP/1\.[0-9] [0-9]{3}(?: |\Z)", line):
            return Outcome("ProxyError")
        if not line:
            break
        lines.append(line)
    status = int(lines[0][9:12])
    if 200 <= status < 300:
        return raw[position:]
    pairs = (line.partition(b":") for line in lines[1:])
    lengths = [value.strip() for name, _, value in pairs if name.lower() == b"content-length"]
    length = int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() else 0
    # It has refused, be it without the page that it owes.
    late = ending == "stall" and len(raw) - position < length
    return Outcome("ProxyError", code=status, waits=late)


def read_socks(turns: Iterable[bytes], ending: str) -> Outcome | bytes:
    """The same for SOCKS5 (RFC 1928 and 1929): turns, each of which is said when the client has sent enough."""
    left = list(turns)
    needs = [GREETING, GREETING + AUTHENTICATION, GREETING + AUTHENTICATION + REQUEST]
    sent, heard = GREETING, b""

    def has(length: int) -> bool:
        nonlocal heard
        while len(heard) < length and left and sent >= needs[-len(left)]:
            heard += left.pop(0)
        return len(heard) >= length

    if has(1) and heard[0] != 5:
        # Another protocol: its line is waited for, or as much as is quoted.
        longest = 8 if heard[0] == 0 else 64
        return Outcome("ProxyError") if has(longest) or b"\n" in heard[:longest] else untunnelled(ending)
    if not has(2):
        return untunnelled(ending)
    method, heard = heard[1], heard[2:]
    if method not in (0, 2):
        return Outcome("ProxyError")
    if method == 2:
        sent += AUTHENTICATION
        if not has(2):
            return untunnelled(ending)
        if heard[0] not in (1, 5) or heard[1] != 0:
            return Outcome("ProxyError")
        heard = heard[2:]
    sent += REQUEST
    if not has(2):
        return untunnelled(ending)
    if heard[0] != 5 or heard[1] != 0:
        return Outcome("ProxyError", code=heard[1] if heard[0] == 5 else None)
    if not has(4):
        return untunnelled(ending)
    if heard[3] not in (1, 3, 4):
        return Outcome("ProxyError")
    if heard[3] == 3 and not has(5):
        return untunnelled(ending)
    length = {1: 10, 3: 7 + heard[4] if len(heard) > 4 else 0, 4: 22}[heard[3]]
    return heard[length:] if has(length) else untunnelled(ending)
