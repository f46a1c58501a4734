"""`Answer`: how one request is to be answered, as a value that a test writes down beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

import h11

Framing = Literal["chunked", "length", "close"]
Ending = Literal["close", "reset", "stall"]

_FRAMINGS = ("chunked", "length", "close")
_ENDINGS = ("close", "reset", "stall")
_FRAMING_FIELDS = ("content-length", "transfer-encoding")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What an error says; it is written in the format of the server that was asked."""

    message: str
    code: str | None = None
    type: str | None = None
    param: str | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How ONE request is answered. A field that is not given means what the server does by itself.

    ``Answer(tokens=["Hi", "!"], pace=0.05)`` streams two tokens; ``Answer.error(429, retry_after=1)``
    fails; ``Answer(cut_after=300, ending="reset")`` breaks off. Raises ``ValueError`` for fields that
    contradict each other.
    """

    status: int = 200
    """The status code, 200 to 599. From 400 on, an answer that has no body of its own is an error in
    the format of what was asked."""
    to: str | None = None
    """The end of the path that is answered so: "/models" or "/start_session", or a path that the server by itself
    does not know. Without it, any request for a chat, for models or for images is."""
    headers: Sequence[tuple[str, str]] = ()
    """Further header fields. One that the server would send itself replaces it."""
    json: Any = None
    """The whole body, written as JSON."""
    body: bytes | None = None
    """The whole body, verbatim."""
    content_type: str | None = None
    """The Content-Type, in place of the one that fits the body."""
    tokens: Sequence[str] | None = None
    """The tokens to stream, or to join if the client asked for no stream. With `tool_calls` by default none."""
    reasoning: Sequence[str] | None = None
    """The tokens of the reasoning, which come before the others."""
    tool_calls: Sequence[Mapping[str, Any]] | None = None
    """The functions to call, which come after the tokens: each with a "name", if it has them "arguments" (an object,
    or JSON text, or a sequence of pieces of that text, which are streamed one by one), and an "id" if it matters."""
    failure: Failure | None = None
    """An error, in the format of what was asked. `error` fills it in."""
    pace: float | None = None
    """Seconds between two tokens, or between two of `events`. The schedule is counted from the first, so
    one late token does not delay those after it."""
    delay: float = 0.0
    """Seconds before the head is sent."""
    events: Sequence[bytes] | None = None
    """Exact pieces of the body, each written by itself: an event stream of your own, or garbage."""
    finish_reason: str | None = "stop"
    """The finish reason; None: a stream never has one. With `tool_calls`, "stop" becomes "tool_calls"."""
    done: bool = True
    """Whether a stream ends with ``data: [DONE]``, or that of a site with its `end` event."""
    new_token: str | None = None
    """A nonce that the reply of a site hands on (a body of your own is left as it is). It is valid from then on."""
    framing: Framing | None = None
    """How the body's end is told: "chunked" (for streams and `events` unless you say otherwise), "length"
    (Content-Length; for whole bodies) or "close" (the end of the connection)."""
    usage: Mapping[str, Any] | None = None
    """The usage to report, in a stream even if the client did not ask for it."""
    raw: bytes | None = None
    """EXACTLY the bytes to write, head and framing and all: a recording. Then the connection is closed."""
    keep_open: bool = False
    """After `raw`: await the next request on the connection in place of closing it."""
    cut_after: int | None = None
    """Stop after that many bytes of the answer as it stands on the wire, head included (inside TLS, if there
    is TLS). `ending` says what happens then, by default "close". An answer that is shorter is sent in full
    and then ended so."""
    ending: Ending | None = None
    """What happens at the cut: "close" sends FIN, "reset" RST, "stall" sends nothing and holds the connection
    until the client goes or the server stops. Without `cut_after` it happens after the last piece of the
    body; a chunked body then lacks its last chunk, so the client sees that it was broken off."""

    def __post_init__(self) -> None:
        for name in ("tokens", "reasoning", "tool_calls", "events"):
            self._freeze(name)
        if self.tool_calls and self.finish_reason == "stop":
            object.__setattr__(self, "finish_reason", "tool_calls")
        object.__setattr__(self, "headers", tuple((str(key), str(value)) for key, value in self.headers))
        self._check_body()
        self._check_numbers()
        self._check_ending()
        self._check_headers()
        self._check_tool_calls()
        if self.to == "":
            raise ValueError("to is the end of a path, and every path ends with ''; leave it out, or give a path")

    @classmethod
    def error(
        cls,
        status: int,
        message: str = "The test asked for this error.",
        *,
        retry_after: float | str | None = None,
        code: str | None = None,
        type: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        to: str | None = None,
    ) -> Answer:
        """An error, in the format of what was asked.

        `retry_after` becomes the header field of that name: seconds, or a date as text. `code` and `type`
        are by default what OpenAI sends with that status. A site with AI Engine answers as the plugin does, and
        given a `code` ("rest_forbidden") as WordPress does; a status below 400 is an `error` event in its streams.
        """
        fields = list(headers)
        if retry_after is not None:
            value = retry_after if isinstance(retry_after, str) else f"{retry_after:g}"
            fields.append(("retry-after", value))
        return cls(status=status, headers=fields, failure=Failure(message=message, code=code, type=type), to=to)

    @classmethod
    def replay(cls, raw: bytes, *, to: str | None = None) -> Answer:
        """Exactly these bytes, status line and framing and all, and then the end of the connection."""
        return cls(raw=raw, to=to)

    def _freeze(self, name: str) -> None:
        """Keep a sequence as a tuple, so that nobody changes the answer after it was planned."""
        value = getattr(self, name)
        if isinstance(value, str | bytes):
            raise ValueError(f"{name} is a sequence of pieces; write {name}=[{value!r}] for a single one")
        if value is not None:
            object.__setattr__(self, name, tuple(value))

    def _check_body(self) -> None:
        bodies = ("json", "body", "events", "raw", "failure", "tokens")
        given = [name for name in bodies if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are two bodies for one answer; keep one of them")
        for name in ("reasoning", "tool_calls"):
            if given not in ([], ["tokens"]) and getattr(self, name) is not None:
                raise ValueError(f"{given[0]} is the whole body and {name} would not be used; keep one of them")
        if self.raw is None:
            if self.keep_open:
                raise ValueError("keep_open goes with raw only; other answers keep the connection by themselves")
            return
        for name in (
            "status",
            "headers",
            "content_type",
            "pace",
            "framing",
            "usage",
            "finish_reason",
            "done",
        ):
            if getattr(self, name) != getattr(Answer, name):
                raise ValueError(f"raw is the whole answer and {name} would not be used; write it into raw")
        if self.keep_open and (self.ending is not None or self.cut_after is not None):
            raise ValueError("keep_open contradicts an ending; drop keep_open, or cut_after and ending")

    def _check_numbers(self) -> None:
        if not 200 <= self.status <= 599:
            raise ValueError(f"status is a final status code, 200 to 599, not {self.status}; use raw for others")
        for name in ("delay", "pace"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"{name} is a number of seconds from 0 on, not {value!r}")
        if self.cut_after is not None and self.cut_after < 0:
            raise ValueError(f"cut_after counts bytes of the answer from 0 on, not {self.cut_after}")

    def _check_ending(self) -> None:
        if self.framing is not None and self.framing not in _FRAMINGS:
            raise ValueError(f"framing is one of {', '.join(_FRAMINGS)}, not {self.framing!r}")
        if self.ending is not None and self.ending not in _ENDINGS:
            raise ValueError(f"ending is one of {', '.join(_ENDINGS)} or None, not {self.ending!r}")

    def _check_headers(self) -> None:
        for name, _ in self.headers:
            if name.lower() in _FRAMING_FIELDS:
                raise ValueError(f"{name} follows from framing; say framing=, or raw= for a field that lies")
        try:
            h11.Response(status_code=self.status, headers=encode_headers(self.all_headers()))
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            raise ValueError(f"headers cannot be sent: {error}; use raw for what HTTP forbids") from error

    def _check_tool_calls(self) -> None:
        for call in self.tool_calls or ():
            if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
                raise ValueError(f'tool_calls are objects with a "name", not {call!r}')
            arguments = call.get("arguments", {})
            pieces = arguments if isinstance(arguments, list | tuple) else ()
            if not isinstance(arguments, str | Mapping | list | tuple) or not all(isinstance(x, str) for x in pieces):
                raise ValueError(f'"arguments" of {call["name"]} are an object, text, or pieces of text')

    def all_headers(self) -> list[tuple[str, str]]:
        """`headers` with the Content-Type, if that is given."""
        extra = [] if self.content_type is None else [("content-type", self.content_type)]
        return [*self.headers, *extra]


def encode_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Header fields as bytes, the way HTTP/1.1 carries them."""
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]


def reason_phrase(status: int) -> str:
    """The reason phrase of a status code, "" for one that has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
