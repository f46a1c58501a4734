"""Faults and providers, as data: what goes wrong, who is asked, and by which rules a call then has to end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from faults import JSON_HEAD, event

from deltawire import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    ConnectError,
    EmptyReplyError,
    InternalServerError,
    IterListProvider,
    MalformedEventError,
    NotFoundError,
    Opchatgpts,
    OpenaiChat,
    OpenaiTemplate,
    PermissionDeniedError,
    ProxyError,
    RateLimitError,
    ReadError,
    RetryNoProviderError,
    RetryProvider,
    RetryProviderError,
    RotatedProvider,
    TimeoutError,
    TruncatedStreamError,
    UnexpectedReplyError,
)
from deltawire.testing import Answer

KEY = "sk-of-the-matrix"
TOKENS = {"A": ("Al", "pha"), "B": ("Be", "ta")}
"""What each server says when nothing is wrong: no two of them the same, so that the text tells who has answered."""
SAID = "ab"
"""What the caller has seen when a fault comes after content."""
DEADLINE = 0.2
WAIT = 0.02
"""What a server asks for in ``Retry-After``, in seconds."""

# --- What goes wrong ------------------------------------------------------------------------------------


class Fault(NamedTuple):
    """How an attempt fails."""

    error: type[Exception]
    chat: Answer | None = None
    """What a server of the OpenAI dialect answers."""
    site: Answer | None = None
    """What a site answers to a message; None: only the other dialect knows this fault."""
    retried: bool = True
    """Whether the same provider may be asked again."""
    said: str = ""
    """The text that comes before the fault."""
    content: bool = False
    """Whether content comes before it, be it no text."""
    at: Literal["answer", "port", "proxy", "port of the proxy"] = "answer"
    """Where it happens: but for answers, no request arrives."""
    stalls: bool = False
    waits: float = 0.0
    """How long the same server is left alone after it, at the least."""


def told(**value: Any) -> bytes:
    """An event of a site."""
    return f"data: {json.dumps(value)}\n\n".encode()


def _delta(**delta: Any) -> bytes:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta}]})}\n\n".encode()


def _error(code: int | None = None) -> bytes:
    # A server may repeat what it was given.
    return f"data: {json.dumps({'error': {'message': f'No luck with {KEY}', 'code': code}})}\n\n".encode()


_ROLE = [event()]
_STATUS = [told(type="live", data="Thinking...", subtype="status")]
_CHAT_SAID = [event("a"), event("b")]
_SITE_SAID = [told(type="live", data="a"), told(type="live", data="b")]
_SITE_ERROR = told(type="error", data="No luck")
_HTML = b"<html>Welcome</html>"


def _both(error: type[Exception], retried: bool = True, stalls: bool = False, **answer: Any) -> Fault:
    return Fault(error, Answer(**answer), Answer(**answer), retried, stalls=stalls)


def _events(error: type[Exception], chat: list[bytes], site: list[bytes], said: str = "", **answer: Any) -> Fault:
    stalls = answer.get("ending") == "stall"
    return Fault(
        error,
        Answer(events=chat, **answer),
        Answer(events=site, **answer),
        said=said,
        content=said != "",
        stalls=stalls,
    )


def _status(status: int, error: type[Exception], retried: bool = True, waits: float = 0.0) -> Fault:
    said = f"No luck with {KEY}"
    after = waits or None
    return Fault(
        error,
        Answer.error(status, said, retry_after=after),
        Answer.error(status, "No luck", retry_after=after),
        retried,
        waits=waits,
    )


FAULTS = {
    "connect refused": Fault(ConnectError, at="port"),
    "reset before the head": _both(ReadError, cut_after=0, ending="reset"),
    "stall before the head": _both(TimeoutError, stalls=True, cut_after=0, ending="stall"),
    "408": _status(408, APIStatusError),
    "409": _status(409, ConflictError),
    "429 with Retry-After": _status(429, RateLimitError, waits=WAIT),
    "500": _status(500, InternalServerError),
    "503": _status(503, InternalServerError),
    "stall before content": _events(TimeoutError, _ROLE, _STATUS, ending="stall"),
    "stall after content": _events(TimeoutError, _CHAT_SAID, _SITE_SAID, SAID, ending="stall"),
    "empty reply": Fault(EmptyReplyError, Answer(events=[*_ROLE, b"data: [DONE]\n\n"]), Answer(tokens=())),
    "empty document": Fault(
        EmptyReplyError,
        Answer(json={"choices": [{"index": 0, "message": {"role": "assistant", "content": ""}}]}),
        Answer(json={"success": True, "reply": ""}),
    ),
    "nothing at all": _both(TruncatedStreamError, body=b""),
    "truncation before content": _events(TruncatedStreamError, _ROLE, _STATUS, ending="close"),
    "truncation after content": _events(TruncatedStreamError, _CHAT_SAID, _SITE_SAID, SAID, ending="close"),
    "document cut off": _both(TruncatedStreamError, raw=JSON_HEAD + b'{"id": "x", "choices": [{"ind'),
    "error before content": _events(APIStatusError, [*_ROLE, _error()], [*_STATUS, _SITE_ERROR]),
    "error after content": _events(APIStatusError, [*_CHAT_SAID, _error()], [*_SITE_SAID, _SITE_ERROR], SAID),
    "error document": Fault(
        APIStatusError,
        Answer(json={"error": {"message": f"No luck with {KEY}"}}),
        Answer(json={"success": False, "message": "No luck"}),
    ),
    "truncation after reasoning": Fault(
        TruncatedStreamError, Answer(events=[_delta(reasoning_content="Hm")], ending="close"), content=True
    ),
    "truncation after a tool call": Fault(
        TruncatedStreamError,
        Answer(events=[_delta(tool_calls=[{"index": 0, "id": "1", "function": {"name": "f"}}])], ending="close"),
        content=True,
    ),
    "429 in the stream": Fault(RateLimitError, Answer(events=[*_ROLE, _error(429)])),
    "dead proxy": Fault(ProxyError, at="port of the proxy"),
    # Never again by the same way.
    "400 in the stream": Fault(BadRequestError, Answer(events=[*_ROLE, _error(400)]), retried=False),
    "400": _status(400, BadRequestError, retried=False),
    "401": _status(401, AuthenticationError, retried=False),
    "403": _status(403, PermissionDeniedError, retried=False),
    "404": _status(404, NotFoundError, retried=False),
    "407 from a proxy": Fault(ProxyError, retried=False, at="proxy"),
    "a web page": _both(UnexpectedReplyError, retried=False, body=_HTML, content_type="text/html"),
    "a malformed event": _both(MalformedEventError, retried=False, events=[b"data: {oops}\n\n"]),
}

# Those that may happen to the request for a session, too.
OF_SESSIONS = (
    "connect refused", "reset before the head", "stall before the head", "408", "409",
    "429 with Retry-After", "500", "503", "nothing at all", "document cut off", "400", "401", "403", "404",
    "407 from a proxy", "a web page",
)  # fmt: skip

# --- Who is asked ---------------------------------------------------------------------------------------

# Where the servers A and B are: the URL of each one's API, or of its site.
Places = Mapping[str, str]


class Shape(NamedTuple):
    """A provider, or several as one."""

    turns: str
    """The servers that it would ask in one call, in turn, if all attempts failed in a way that may pass."""
    make: Callable[[Places], Any]
    sites: str = ""
    """Those of them that are sites."""
    several: bool = False
    """Whether it tells of all attempts that failed, and not of the last."""
    names: Mapping[str, str] = {"A": "Alpha", "B": "Beta"}


def chat_class(name: str, url: str) -> Any:
    """A provider as users declare it."""
    return type(name, (OpenaiTemplate,), {"api_base": url, "api_key": KEY})


def site_class(name: str, url: str) -> Any:
    """A site as users declare it."""
    return type(name, (Opchatgpts,), {"url": url})


def _pair(at: Places) -> list[Any]:
    return [chat_class("Alpha", at["A"]), chat_class("Beta", at["B"])]


SHAPES = {
    "class": Shape("AAA", lambda at: chat_class("Alpha", at["A"])),
    "instance": Shape("AAA", lambda at: chat_class("Alpha", "http://nowhere")(api_base=at["A"])),
    "OpenaiChat": Shape("AAA", lambda at: OpenaiChat(api_base=at["A"], api_key=KEY), names={"A": "OpenaiChat"}),
    "Opchatgpts": Shape("AAA", lambda at: Opchatgpts(url=at["A"]), sites="A", names={"A": "Opchatgpts"}),
    "RetryProvider of one": Shape(
        # One more than the client's own.
        "AAAA",
        lambda at: RetryProvider(_pair(at), single_provider_retry=True, max_retries=4),
        several=True,
    ),
    "RetryProvider": Shape("AB", lambda at: RetryProvider(_pair(at), shuffle=False), several=True),
    "IterListProvider": Shape("AB", lambda at: IterListProvider(_pair(at), shuffle=False), several=True),
    "RotatedProvider": Shape("AB", lambda at: RotatedProvider(_pair(at)), several=True),
    "a provider twice": Shape("ABA", lambda at: _twice(*_pair(at)), several=True),
    "a site, then a chat": Shape(
        "AB",
        lambda at: IterListProvider([site_class("Alpha", at["A"]), chat_class("Beta", at["B"])], shuffle=False),
        sites="A",
        several=True,
    ),
}


def _twice(first: Any, second: Any) -> RetryProvider:
    return RetryProvider([first, second, first], shuffle=False)


def applies(fault: Fault, shape: Shape) -> bool:
    """Whether this may happen to that."""
    return fault.at != "answer" or fault.site is not None or not shape.sites


# --- How it has to end ----------------------------------------------------------------------------------


class Case(NamedTuple):
    """How one call is made."""

    surface: Literal["create", "generator"]
    stream: bool
    lasts: bool
    """Whether the fault stays; else only the first attempt fails."""


CASES = [
    Case(surface, stream, lasts)
    for surface in ("create", "generator")
    for stream in (True, False)
    for lasts in (True, False)
]


@dataclass(frozen=True)
class Expected:
    """How a call has to end."""

    asked: str
    """The servers of its attempts, in turn."""
    failed: int
    """How many of them failed: the first ones."""
    raised: type[Exception] | None
    text: str
    """What the caller sees."""


def expected(fault: Fault, shape: Shape, case: Case) -> Expected:
    """The rules."""
    if fault.content and case.stream:
        # What the caller has seen is not said again.
        return Expected("A", 1, fault.error, fault.said)
    asked = ""
    for server in shape.turns:
        if server in asked and not fault.retried:
            continue
        asked += server
        if len(asked) == 2 and not case.lasts:
            return Expected(asked, 1, None, "".join(TOKENS[server]))
    return Expected(asked, len(asked), _raised(fault, shape, len(asked)), "")


def _raised(fault: Fault, shape: Shape, attempts: int) -> type[Exception]:
    if not shape.several:
        return fault.error
    if fault.error is EmptyReplyError:
        return RetryNoProviderError
    return RetryProviderError if attempts > 1 else fault.error


def arrivals(fault: Fault, shape: Shape, ends: Expected, *, session: bool = False) -> list[str]:
    """The requests that must arrive, in order: "A chat" (or a message to a site), "A session". ``session``: it is
    the request for a session that fails."""
    log: list[str] = []
    known: set[str] = set()
    for number, server in enumerate(ends.asked):
        fails = number < ends.failed
        if fails and fault.at != "answer":
            continue
        if server in shape.sites and server not in known:
            log.append(f"{server} session")
            if fails and session:
                continue
            # A nonce is kept.
            known.add(server)
        log.append(f"{server} chat")
    return log
