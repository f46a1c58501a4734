"""The oracle: one recording's bytes, whole, in; plain dicts out.

Independent of deltawire on purpose: stdlib only, no streaming, no state machine, every rule written the
most naive way that still follows the design. The tests hold deltawire's machines against what it says.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

Dict = dict[str, Any]

STATUS_CLASSES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
}
# Compared in lower case; an error's `code` is looked up before its `type`, because it says more.
STATUS_OF_NAME = {
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "authenticationerror": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "permissiondeniederror": 403,
    "not_found_error": 404,
    "notfounderror": 404,
    "model_not_found": 404,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "ratelimiterror": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "internal_server_error": 500,
    "internalservererror": 500,
    "api_error": 500,
    "internal_error": 500,
    "overloaded_error": 503,
    "bad_request": 400,
    "content_filter": 400,
    "content_policy_violation": 400,
    "string_above_max_length": 400,
    "permission_denied": 403,
    "conflict": 409,
    "request_too_large": 413,
    "unprocessable_entity": 422,
    "unprocessableentityerror": 422,
    "requests": 429,
    "tokens": 429,
    "engine_overloaded": 503,
    "service_unavailable": 503,
    "timeout": 504,
    "timeout_error": 504,
}
# Any of these begins an event stream, whatever it is called.
FIELDS = ("data:", "event:", "id:", "retry:", ":")
USAGE_KEYS = ("prompt_tokens", "completion_tokens", "total_tokens")


# --- HTTP ------------------------------------------------------------------------------------------


def split_responses(raw: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Every response on one connection: status, headers (lower-case names), decoded body."""
    found = []
    while raw:
        head, blank, rest = raw.partition(b"\r\n\r\n")
        if not blank:
            break  # a head that never ended is no response
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        fields = (line.partition(":") for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        if 100 <= status < 200:
            raw = rest  # 100 Continue: the head that counts is yet to come
            continue
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body, raw = unchunk(rest)
        elif "content-length" in headers:
            length = int(headers["content-length"])
            body, raw = rest[:length], rest[length:]
        else:
            body, raw = rest, b""
        if headers.get("content-encoding", "").lower() == "gzip":
            body = gunzip(body)
        found.append((status, headers, body))
    return found


def unchunk(rest: bytes) -> tuple[bytes, bytes]:
    """The body, as far as it came, and what follows it (nothing when the last chunk is missing)."""
    body = b""
    while True:
        line, end, after = rest.partition(b"\r\n")
        try:
            size = int(line.split(b";")[0].strip(), 16)
        except ValueError:
            return body, b""
        if not end:
            return body, b""
        if size == 0:
            while after and not after.startswith(b"\r\n"):
                after = after.partition(b"\r\n")[2]  # trailers
            return body, after[2:]
        body += after[:size]
        rest = after[size + 2 :]


def gunzip(body: bytes) -> bytes:
    """As much as can be had of a gzip body that may be cut short."""
    try:
        return zlib.decompressobj(wbits=31).decompress(body)
    except zlib.error:
        return b""


# --- Server-sent events ----------------------------------------------------------------------------


def parse_sse(body: bytes) -> tuple[list[Dict], list[Dict], Dict]:
    """WHATWG HTML 9.2.6: the events, those pending at the end (none or one), the final state."""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    unended = lines.pop()
    events: list[Dict] = []
    final: Dict = {"last_event_id": None, "retry": None}
    block: Dict = {"id": None}
    for line in lines:
        if line:
            read_field(block, line)
            final["retry"] = block.get("retry", final["retry"])
        else:
            events += dispatch(block)
            final["last_event_id"] = block["id"]
            block = {"id": block["id"]}
    if unended:
        read_field(block, unended)
    return events, dispatch(block), final


def parse_reply(body: bytes) -> tuple[list[Dict], list[Dict], Dict]:
    """The same of a reply, where blanks before the first line are not of it: what a site's PHP prints by mistake."""
    return parse_sse(b"\n" + body.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n\v\f"))


def read_field(block: Dict, line: str) -> None:
    name, _, value = line.partition(":")
    value = value.removeprefix(" ")
    if name == "data":
        block["data"] = block.get("data", "") + value + "\n"
    elif name == "event":
        block["event"] = value
    elif name == "id" and "\0" not in value:
        block["id"] = value
    elif name == "retry" and value.isascii() and value.isdigit() and len(value) < 4000:
        block["retry"] = int(value)  # int() refuses more than 4,300 digits


def dispatch(block: Dict) -> list[Dict]:
    if "data" not in block:
        return []
    event = block.get("event") or "message"
    return [{"event": event, "data": block["data"][:-1], "id": block["id"], "retry": block.get("retry")}]


# --- JSON ------------------------------------------------------------------------------------------


def parse_object(text: str) -> Dict | None:
    """The JSON object in a text, or None when it holds none. (Servers send control characters in strings.)"""
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def string(value: object) -> str:
    return value if isinstance(value, str) else ""


def records(value: object) -> list[Dict]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def arguments_text(value: object) -> str:
    if isinstance(value, dict):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return string(value)


def mend(value: Any) -> Any:
    """Surrogate halves joined, lone ones replaced, in every string inside."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [mend(item) for item in value]
    if isinstance(value, dict):
        return {key: mend(item) for key, item in value.items()}
    return value


# --- Errors in the reply ---------------------------------------------------------------------------


def class_of_status(status: int | None) -> str:
    if status is None:
        return "APIStatusError"
    if status >= 500:
        return "InternalServerError"
    return STATUS_CLASSES.get(status, "RedirectError" if 300 <= status < 400 else "APIStatusError")


def find_error(payload: Dict, event: str) -> Dict | None:
    """The error object of a payload, with message, type and code as they were given; None: no error."""
    error = payload.get("error")
    if isinstance(error, dict) and error:
        return error
    if isinstance(error, str) and error:
        return {**payload, "message": error}
    if error is True or payload.get("object") == "error" or event == "error":
        return payload
    return None


def status_of_error(error: Dict) -> int | None:
    """By its code, else by its type: a number of an error status, or a name."""
    for said in (error.get("code"), error.get("type")):
        if isinstance(said, str) and re.fullmatch("[0-9]{3}", said):
            said = int(said)
        if (given := number(said)) is not None and 400 <= given <= 599:
            return given
        if string(said).lower() in STATUS_OF_NAME:
            return STATUS_OF_NAME[string(said).lower()]
    return None


# --- Chat completions ------------------------------------------------------------------------------


class Fold:
    """Chunks, or one whole reply, folded into choices and usage."""

    def __init__(self) -> None:
        self.choices: dict[int, Dict] = {}
        self.usage: Dict | None = None

    def add(self, payload: Dict, *, document: bool = False) -> None:
        choices = records(payload.get("choices"))
        deltas, messages = (any(each.get(name) is not None for each in choices) for name in ("delta", "message"))
        # The whole reply may be one event, or the only chunk a document. Beside a delta, an event's message is what
        # some servers call all that the deltas make so far.
        whole = document or (messages and not deltas)
        for position, part in enumerate(choices):
            index = number(part.get("index"))
            given = (part.get("message") or (document and part.get("delta"))) if whole else part.get("delta")
            says = given if isinstance(given, dict) else {}
            if whole:
                # Its calls are whole, too, and in order, whatever their indices say.
                calls = [{**call, "index": at} for at, call in enumerate(records(says.get("tool_calls")))]
                says = {**says, "tool_calls": calls}
            self.add_choice(position if index is None else index, part, says)
        usage = payload.get("usage")
        if isinstance(usage, dict):
            self.usage = {key: number(usage.get(key)) for key in USAGE_KEYS}

    def add_choice(self, index: int, part: Dict, delta: Dict) -> None:
        fresh: Dict = {"index": index, "text": "", "reasoning": "", "refusal": "", "finish_reason": None}
        fresh |= {"tool_calls": [], "function_call": None, "role": None, "logprobs": []}
        choice = self.choices.setdefault(index, fresh)
        choice["finish_reason"] = string(part.get("finish_reason")) or choice["finish_reason"]
        logprobs = part.get("logprobs")
        if isinstance(logprobs, dict):
            choice["logprobs"] += records(logprobs.get("content"))
        choice["role"] = choice["role"] or string(delta.get("role")) or None
        content = delta.get("content")
        choice["text"] += string(content)
        reasoning = string(delta.get("reasoning_content")) or string(delta.get("reasoning"))
        for piece in records(content):
            if piece.get("type") == "thinking":
                inner = piece.get("thinking")
                thought = string(inner) + "".join(string(item.get("text")) for item in records(inner))
                choice["reasoning"] += "" if reasoning else thought
            else:
                choice["text"] += string(piece.get("text"))
        choice["reasoning"] += reasoning
        choice["refusal"] += string(delta.get("refusal"))
        for fragment in records(delta.get("tool_calls")):
            add_function(find_call(choice["tool_calls"], fragment), fragment.get("function"))
        legacy = delta.get("function_call")
        if isinstance(legacy, dict):
            if choice["function_call"] is None:
                choice["function_call"] = {"name": None, "arguments": ""}
            add_function(choice["function_call"], legacy)

    def finish_reasons(self) -> list[str | None]:
        return [choice["finish_reason"] for choice in self.choices.values()]

    def finished(self) -> list[Dict]:
        """The choices by their indices, without what only the folding needs. The last word: it takes no more."""
        choices = [self.choices[index] for index in sorted(self.choices)]
        for choice in choices:
            # By their indices, as places in the list that they make; not as they came.
            choice["tool_calls"].sort(key=lambda call: call["place"])
            for call in choice["tool_calls"]:
                del call["key"], call["place"]
        return choices


def find_call(calls: list[Dict], fragment: Dict) -> Dict:
    """The tool call that a fragment belongs to, opened if need be; its id set once."""
    index, id_ = number(fragment.get("index")), string(fragment.get("id")) or None
    function = fragment.get("function")
    named = isinstance(function, dict) and bool(string(function.get("name")))
    found = None
    if index is not None:
        same = [call for call in calls if call["key"] == index]
        if same and not (id_ and same[-1]["id"] and same[-1]["id"] != id_):
            found = same[-1]
    elif id_:
        found = next((call for call in calls if call["id"] == id_), None)
    elif calls and not named:
        found = calls[-1]
    if found is None:
        place = len(calls) if index is None else index
        found = {"key": index, "place": place, "id": None, "name": None, "arguments": ""}
        calls.append(found)
    found["id"] = found["id"] or id_
    return found


def add_function(call: Dict, function: object) -> None:
    if isinstance(function, dict):
        call["name"] = call["name"] or string(function.get("name")) or None
        call["arguments"] += arguments_text(function.get("arguments"))


def read_body(body: bytes, content_type: str) -> Dict:
    """The result for a 200 with this body; beside the contract's keys: `error`, `terminated`, and each
    choice's `role` and `logprobs`."""
    fold = Fold()
    verdict, error, terminated = "", None, False
    events: list[Dict] = []
    pending: list[Dict] = []
    text = body.decode("utf-8", "replace").removeprefix("\ufeff").lstrip(" \t\r\n\v\f")
    first_line = text.replace("\r", "\n").partition("\n")[0]
    is_sse = content_type.partition(";")[0].strip().lower() == "text/event-stream"
    whole = text.startswith(("{", "["))
    if whole:
        # What is not JSON at the end of the bytes is a truncation; a JSON array is no reply at all.
        pending = [{"event": "message", "data": text}]
        if text.startswith("[") and is_json(text):
            verdict = "UnexpectedReplyError"
    elif is_sse or first_line.startswith(FIELDS):
        events, pending, _ = parse_reply(body)
    elif text and body not in (b"\xef", b"\xef\xbb") and not any(field.startswith(text) for field in FIELDS):
        verdict = "UnexpectedReplyError"
    for position, event in enumerate(events + pending):
        data = event["data"].strip(" \t\r\n\v\f")
        if data == "[DONE]" and not whole:
            terminated = True
            break
        if not data or verdict:
            continue  # a keep-alive, or past the terminal event
        # (What is trimmed of a marker is not all blank in JSON: RFC 8259 section 2.)
        payload = parse_object(event["data"])
        if payload is None:
            is_words = event["event"] == "error" and not data.startswith(("{", "[", '"'))
            if position >= len(events) and not is_words:
                break  # cut: the verdict is what the bytes before it deserve
            if event["event"] != "error":
                verdict = "MalformedEventError"
                continue
            payload = {"message": data}
        error = find_error(payload, event["event"])
        if not whole or records(payload.get("choices")):
            fold.add(payload, document=whole)
        if error is not None:
            verdict = class_of_status(status_of_error(error))
        elif whole:
            # A document that is complete is a complete reply, or none.
            verdict = "ended" if fold.choices else "UnexpectedReplyError"
    reasons = fold.finish_reasons()
    if not verdict:
        verdict = "ended" if terminated or (reasons and all(reasons)) else "TruncatedStreamError"
    choices = fold.finished()
    result = {
        "status": 200,
        "verdict": verdict,
        "finished": any(reasons),
        "choices": choices,
        "usage": fold.usage,
        "error_status": None if error is None else status_of_error(error),
        "error": error,
        "terminated": None if whole else terminated,
    }
    return {key: mend(value) for key, value in result.items()}


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def failure(status: int | None, verdict: str) -> Dict:
    nothing: Dict = {"finished": False, "choices": [], "usage": None, "error_status": status}
    return {"status": status, "verdict": verdict, **nothing}


def read_recording(raw: bytes) -> list[Dict]:
    """One result for each response on the connection; a ReadError when there is none."""
    results = []
    for status, headers, body in split_responses(raw):
        if status >= 300:
            results.append(failure(status, class_of_status(status)))
            continue
        result = read_body(body, headers.get("content-type", "")) | {"status": status}
        del result["error"], result["terminated"]
        for choice in result["choices"]:
            del choice["role"], choice["logprobs"]
        results.append(result)
    return results or [failure(None, "ReadError")]
