"""What a WordPress site with the AI Engine plugin says. Pure: from a request and an answer to a reply.

Observed on AI Engine 3.6.2 with WordPress 6.1.9. The order of the checks is theirs: WordPress refuses a nonce that is
wrong before it looks at the request, the plugin one that is missing, and only then the body is read.
"""

from __future__ import annotations

import html
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ._openai import argument_pieces, call_id
from ._replies import Format, Incoming, count_words, is_whole
from ._wire import Piece, Reply
from .answers import Answer, Failure

_JSON_TYPE = "application/json; charset=UTF-8"
_STREAM_TYPE = "text/event-stream;charset=UTF-8"
_EXPOSED = "X-WP-Total, X-WP-TotalPages, Link"
_ALLOWED = "Authorization, X-WP-Nonce, Content-Disposition, Content-MD5, Content-Type"
_STREAM_FIELDS = (("Cache-Control", "no-cache"), ("X-Accel-Buffering", "no"))
_NOT_CACHED = (
    ("Expires", "Wed, 11 Jan 1984 05:00:00 GMT"),
    ("Cache-Control", "no-cache, must-revalidate, max-age=0"),
)
_REJECTED = "Sorry, your query has been rejected."
_CRITICAL = (
    "<p>There has been a critical error on this website.</p>"
    '<p><a href="https://wordpress.org/support/article/faq-troubleshooting/">'
    "Learn more about troubleshooting WordPress.</a></p>"
)

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Chat</title></head>
<body>
<div class='mwai-chatbot-container' data-params='{}' data-system='%s' data-theme='{}'></div>
</body>
</html>
"""

# PHP's trim().
_BLANKS = " \t\n\r\0\x0b"


class _Refused(Exception):
    """The request is answered with this."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


@dataclass(frozen=True, kw_only=True)
class _Submit:
    """What the body of a submit request asks for."""

    stream: bool
    prompt_tokens: int

    @classmethod
    def parse(cls, incoming: Incoming) -> _Submit:
        """Read the body as PHP does. Raises `_Refused`."""
        asked = _parameters(incoming)
        message, history = asked.get("newMessage"), asked.get("messages")
        # The plugin has a message of its own for a shortcut.
        if not isinstance(message, str) or not (message.strip(_BLANKS) or asked.get("shortcutId")):
            raise _Refused(Answer.error(403, _REJECTED))
        if not (asked.get("botId") or asked.get("customId")):
            raise _Refused(Answer.error(403, _REJECTED))
        if history is not None and not isinstance(history, list):
            body = {**_rest_error(500, "internal_server_error", _CRITICAL), "additional_errors": []}
            raise _Refused(Answer(status=500, json=body))
        stream = _is_true(asked.get("stream"))
        if not all(isinstance(each, dict) for each in history or ()):
            raise _Refused(_failed("Unsupported message type.", stream))
        return cls(stream=stream, prompt_tokens=count_words([*(history or ()), {"content": message}]))


class Site:
    """A site, and the nonces that it has given out. Whoever calls it sees that it is one at a time."""

    def __init__(self, nonce: str, *, needs_nonce: bool) -> None:
        self.nonce = nonce
        """The one that it gives out now."""
        self._needs_nonce = needs_nonce
        self._valid = {nonce}

    def add(self, nonce: str) -> None:
        """Give out this one from now on. Earlier ones stay valid."""
        self.nonce = nonce
        self._valid.add(nonce)

    def expire(self, nonce: str) -> None:
        """Give out this one, and take no other any more."""
        self._valid.clear()
        self.add(nonce)

    def refusal(self, incoming: Incoming, *, starts: bool) -> Reply | None:
        """The reply to a submit request without a valid nonce, or one for a session with a wrong nonce; None: it may
        be answered."""
        given = incoming.record.header("x-wp-nonce")
        if not self._needs_nonce or given in self._valid:
            return None
        if given is None:
            if starts:
                return None
            answer = Answer.error(401, "Sorry, you are not allowed to do that.", code="rest_forbidden")
            return self._format(incoming).whole(answer, 0.0)
        answer = Answer.error(403, "Cookie check failed", code="rest_cookie_invalid_nonce")
        return self._format(incoming, *_NOT_CACHED).whole(answer, 0.0)

    def submit_reply(self, answer: Answer, incoming: Incoming, tokens: Sequence[str], pace: float) -> Reply:
        """The chatbot's reply: a stream of events if the client asked for one, else one document."""
        if is_whole(answer):
            if answer.failure is None or answer.status >= 400 or not _wants_stream(incoming):
                return self._format(incoming).whole(answer, pace)
            event = _event({"type": "error", "data": answer.failure.message})
            return self._format(incoming).stream(answer, event, pace)
        try:
            submit = _Submit.parse(incoming)
        except _Refused as refused:
            return self._format(incoming).whole(refused.answer, pace)
        if answer.tokens is not None:
            tokens = answer.tokens
        elif answer.tool_calls:
            tokens = ()
        format = self._format(incoming, *_session_cookie(incoming))
        end = _end(answer, submit, incoming.number, tokens)
        if submit.stream:
            return format.stream(answer, _events(answer, incoming.number, tokens, end), pace)
        return format.document(answer, end)

    def session_reply(self, answer: Answer, incoming: Incoming, pace: float) -> Reply:
        """A new session, with the nonce."""
        php_session = ("Set-Cookie", f"PHPSESSID={incoming.number:026x}; path=/")
        format = self._format(incoming, php_session, *_session_cookie(incoming))
        if is_whole(answer):
            return format.whole(answer, pace)
        session = {"success": True, "sessionId": _session_id(incoming), "restNonce": self.nonce}
        return format.document(answer, session)

    def page_reply(self, answer: Answer, incoming: Incoming, pace: float) -> Reply:
        """A page with a chatbot on it, which carries the nonce."""
        format = self._format(incoming)
        if is_whole(answer):
            return format.whole(answer, pace)
        system = {
            "botId": "default",
            "customId": None,
            "userData": None,
            "sessionId": _session_id(incoming),
            "restNonce": self.nonce,
            "contextId": None,
            "pluginUrl": f"{incoming.site_url}/wp-content/plugins/ai-engine/",
            "restUrl": f"{incoming.site_url}/wp-json",
            "stream": True,
        }
        page = _PAGE % html.escape(_encode(system).decode("ascii"))
        return format.reply(answer, "text/html; charset=UTF-8", [Piece(page.encode("ascii"))])

    def no_route(self, incoming: Incoming) -> Reply:
        """WordPress knows no such path, or not with this method."""
        message = "No route was found matching the URL and request method."
        return self._format(incoming).whole(Answer.error(404, message, code="rest_no_route"), 0.0)

    def _format(self, incoming: Incoming, *more: tuple[str, str]) -> Format:
        fields = [
            ("X-Robots-Tag", "noindex"),
            ("Link", f'<{incoming.site_url}/wp-json/>; rel="https://api.w.org/"'),
            ("X-Content-Type-Options", "nosniff"),
            ("Access-Control-Expose-Headers", _EXPOSED),
            ("Access-Control-Allow-Headers", _ALLOWED),
        ]
        if incoming.record.header("x-wp-nonce") in self._valid:
            fields.append(("X-WP-Nonce", self.nonce))
        return Format(
            json_type=_JSON_TYPE,
            stream_type=_STREAM_TYPE,
            fields=[*fields, *more],
            stream_fields=_STREAM_FIELDS,
            encode=_encode,
            error=_error,
        )


def is_rest(incoming: Incoming) -> bool:
    """Whether WordPress's REST API is asked for, whatever of it."""
    return incoming.rest_route is not None or "/wp-json/" in incoming.record.path


def _parameters(incoming: Incoming) -> dict[str, Any]:
    """The parameters in the body. WordPress reads JSON only if the Content-Type says so. Raises `_Refused`."""
    kind = (incoming.record.header("content-type") or "").partition(";")[0]
    body = incoming.record.body
    if kind.strip().lower() != "application/json" or not body:
        return {}
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        details = {"json_error_code": 4, "json_error_message": "Syntax error"}
        body_of_error = _rest_error(400, "rest_invalid_json", "Invalid JSON body passed.", **details)
        raise _Refused(Answer(status=400, json=body_of_error)) from None
    return asked if isinstance(asked, dict) else {}


def _wants_stream(incoming: Incoming) -> bool:
    try:
        return _is_true(_parameters(incoming).get("stream"))
    except _Refused:
        return False


def _is_true(value: Any) -> bool:
    """PHP's idea of it: "0" is false, "no" is true."""
    return bool(value) and value != "0"


def _failed(message: str, stream: bool) -> Answer:
    """How the plugin fails before it has sent the head of a stream: it is an event, but the type says JSON."""
    if not stream:
        return Answer.error(500, message)
    line = b"".join(piece.data for piece in _event({"type": "error", "data": message}))
    return Answer(body=line)


def _events(answer: Answer, number: int, tokens: Sequence[str], end: Mapping[str, Any]) -> Iterator[Piece]:
    """The events of a stream."""
    step = 0
    for step, live in enumerate(_lives(answer, number, tokens)):
        yield from _event({"type": "live", **live}, step, True)
    if answer.done:
        yield from _event({"type": "end", "data": _encode(end).decode("ascii")}, step)


def _event(value: Mapping[str, Any], step: int = 0, counts: bool = False) -> Iterator[Piece]:
    # Two pieces, as behind Apache: the blank line is a chunk of its own.
    yield Piece(b"data: " + _encode(value), step, counts)
    yield Piece(b"\n\n", step)


def _lives(answer: Answer, number: int, tokens: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What a stream says, event by event. Reasoning and tool calls are told as with event logs switched on."""
    for token in answer.reasoning or ():
        yield {"data": token, "timestamp": time.time(), "subtype": "thinking", "visibility": "collapsed"}
    for token in tokens:
        yield {"data": token}
    for index, call in enumerate(answer.tool_calls or ()):
        metadata = {"tool_name": call["name"], "arguments": _arguments(call), "tool_id": call_id(call, number, index)}
        yield {
            "data": f"Calling {call['name']}...",
            "timestamp": time.time(),
            "subtype": "tool_call",
            "visibility": "visible",
            "metadata": metadata,
        }


def _end(answer: Answer, submit: _Submit, number: int, tokens: Sequence[str]) -> dict[str, Any]:
    """The whole reply: the document, or what the last event of a stream holds."""
    usage = answer.usage
    if usage is None:
        usage = {
            "prompt_tokens": submit.prompt_tokens,
            "completion_tokens": len(tokens),
            "total_tokens": submit.prompt_tokens + len(tokens),
            "price": None,
            "queries": 1,
            "accuracy": "estimated",
        }
    reply = "".join(tokens).strip(_BLANKS)
    end = {
        "success": True,
        "reply": reply,
        "images": None,
        "actions": [
            {"type": "function", "data": {"name": call["name"], "args": _arguments(call)}}
            for call in answer.tool_calls or ()
        ],
        "shortcuts": [],
        "blocks": [],
        "usage": usage,
    }
    if reply:
        end["responseId"] = f"chatcmpl-{number}"
    if answer.new_token is not None:
        end["new_token"] = answer.new_token
    return end


def _arguments(call: Mapping[str, Any]) -> Any:
    arguments = call.get("arguments", {})
    return arguments if isinstance(arguments, Mapping) else "".join(argument_pieces(call))


def _error(status: int, failure: Failure) -> Mapping[str, Any]:
    """The plugin's error, or given a code WordPress's."""
    if failure.code is None:
        return {"success": False, "message": failure.message}
    return _rest_error(status, failure.code, failure.message)


def _rest_error(status: int, code: str, message: str, **details: Any) -> dict[str, Any]:
    return {"code": code, "message": message, "data": {"status": status, **details}}


def _session_id(incoming: Incoming) -> str:
    """The id of the client's session: what its cookie says, or a new one."""
    for cookie in (incoming.record.header("cookie") or "").split(";"):
        name, _, value = cookie.strip().partition("=")
        if name == "mwai_session_id" and value:
            return value
    return f"{incoming.number:013x}"


def _session_cookie(incoming: Incoming) -> list[tuple[str, str]]:
    session = _session_id(incoming)
    if f"mwai_session_id={session}" in (incoming.record.header("cookie") or ""):
        return []
    return [("Set-Cookie", f"mwai_session_id={session}; path=/; HttpOnly")]


def _encode(value: Any) -> bytes:
    """JSON as PHP writes it: in ASCII, slashes escaped."""
    return json.dumps(value, separators=(",", ":")).replace("/", "\\/").encode("ascii")
