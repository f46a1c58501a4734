"""What is done in a soak, and what may come of it.

Each request has a text of its own, which its server is told in a header field and sends back: so whatever a stream
gives that is not a prefix of its own text came from somebody else's reply.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, fields
from typing import Any

from deltawire import APIError, DeltawireError, RetryPolicy, Timeout, TransportError
from deltawire.testing import Answer

HEADER = "x-soak"

ROUTES = ("direct", "few", "tls", "forward", "tunnel", "socks", "rough")
"""Ways to a server: direct; direct, with fewer connections than there are workers; with TLS; through an HTTP proxy, as
a forwarded request and as a tunnel for TLS; through a SOCKS proxy; with TLS, on connections that fail as they like."""

GOOD = ("good", "good", "good", "paced", "last", "late")
"""Answers that are whole: as fast as it goes; a token each few milliseconds; the last one on its connection; on one
that says nothing more after the verdict, not even that the body is over."""
BAD = ("close", "reset", "stall", "garbage", "error", "status", "empty", "no http")
"""Answers that are not: that stop at some byte, with FIN, RST or in silence; with an event that is none, an error
object, or nothing in it; an error status; no HTTP."""
AT_SOME_BYTE = ("close", "reset", "stall")

WHOLE = ("ask", "models")
"""What asks for no stream."""

# A machine that runs two of these beside other things may well be away for a second or two.
PATIENT = Timeout(connect=20, first_content=20, idle=20)
IMPATIENT = Timeout(connect=0.5, first_content=0.15, idle=0.15)
RETRIES = RetryPolicy(max_retries=3, initial=0.005, maximum=0.02)


@dataclass(frozen=True)
class Script:
    """What the server is to say to one call, as the call itself tells it."""

    number: str
    """The call's, which no other has."""
    kind: str
    """One of `GOOD` or `BAD`."""
    tokens: int
    at: int
    """The byte of the answer, or the token, where it goes wrong."""
    fails: int
    """How many requests of the call fail before that, with 503."""

    @property
    def pieces(self) -> list[str]:
        """The text, in tokens."""
        return [f"{self.number}:{each} " for each in range(self.tokens)]

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)

    def header(self) -> str:
        """What tells the server."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, header: bytes) -> Script:
        """What a client told."""
        told = json.loads(header)
        return cls(**{each.name: told[each.name] for each in fields(cls)})

    def answer(self, attempt: int) -> Answer:
        """To the request of that number, from 0, of the call."""
        if attempt < self.fails:
            return Answer.error(503, retry_after=0.005)
        tokens: Any = self.pieces
        if self.kind in AT_SOME_BYTE:
            return Answer(tokens=tokens, cut_after=self.at, ending=self.kind)  # type: ignore[arg-type]
        if self.kind in ("garbage", "error"):
            broken = b"data: {oops}\n\n" if self.kind == "garbage" else b'data: {"error": {"message": "no more"}}\n\n'
            return Answer(events=[*(_event(each) for each in tokens[: self.at]), broken])
        others = {
            "good": lambda: Answer(tokens=tokens),
            "paced": lambda: Answer(tokens=tokens, pace=0.003),
            "last": lambda: Answer(tokens=tokens, headers=[("connection", "close")]),
            "late": lambda: Answer(tokens=tokens, ending="stall"),
            "status": lambda: Answer.error((400, 429, 500)[self.at % 3], retry_after=0.005),
            "empty": lambda: Answer(tokens=[], finish_reason=None),
            "no http": lambda: Answer(raw=b"\x00\x01\xff no HTTP\r\n\r\n"),
        }
        return others[self.kind]()


def _event(text: str) -> bytes:
    return b"data: %s\n\n" % json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode()


@dataclass(frozen=True)
class Act:
    """One thing that a worker does."""

    script: Script
    route: str
    manner: str
    after: int
    """Tokens that are read before it is left."""
    seconds: float
    """For what happens in its own time, such as being cancelled."""

    @property
    def must_be_whole(self) -> bool:
        """Whether nothing but the whole answer is right, if it is read to its end."""
        return self.script.kind in GOOD and self.route != "rough"

    @property
    def cannot_be_whole(self) -> bool:
        """Whether there is no such answer."""
        return self.script.kind in BAD and self.script.kind not in AT_SOME_BYTE

    def options(self) -> dict[str, Any]:
        """The arguments of the call."""
        waits = self.script.kind == "stall" or self.route == "rough"
        return {
            "model": "m",
            "extra_headers": {HEADER: self.script.header()},
            "timeout": IMPATIENT if waits else PATIENT,
            "max_retries": RETRIES if self.script.fails else 0,
        }


def acts(worker: str, dice: random.Random, manners: dict[str, int], number: int) -> Act:
    """The next thing that a worker does; ``manners``: how it may be done, and how often in comparison."""
    (manner,) = dice.choices(list(manners), list(manners.values()))
    kind = dice.choice(GOOD if dice.random() < 0.6 else BAD)
    tokens = dice.choice((1, 3, 10, 40))
    if manner in WHOLE:
        # Who stalls when all has been said would be asked again, on the same connection.
        size = 100
        kind = "good" if kind == "late" else kind
    else:
        size = 200 + 230 * tokens
    at = dice.randrange(size) if kind in AT_SOME_BYTE else dice.randrange(tokens)
    fails = dice.choice((0, 0, 0, 0, 1, 2)) if kind in GOOD else 0
    script = Script(f"{worker}.{number}", kind, tokens, at, fails)
    return Act(script, dice.choice(ROUTES), manner, dice.randrange(tokens + 1), dice.random() ** 3 * 0.15)


class Broken(AssertionError):
    """A promise was broken; the message says which, and by which act."""


def judge(act: Act, heard: str, error: BaseException | None, *, ended: bool) -> str:
    """Compare what a caller heard with what it was to hear; gives the outcome, by its name in the table.

    ``ended``: whether the reply was read to its end and said that it was whole. Raises `Broken`.
    """

    def broken(what: str) -> Broken:
        return Broken(f"{what}\n  {act}\n  heard {heard[-200:]!r}\n  error {error!r}")

    expected = act.script.text
    if not expected.startswith(heard):
        raise broken("text of another reply, or lost in the midst of one")
    if error is not None:
        if not isinstance(error, DeltawireError):
            raise broken("an error that is not ours") from error
        partial = error.partial if isinstance(error, (APIError, TransportError)) else None
        told = "" if partial is None or not partial.choices else partial.choices[0].message.content or ""
        if not expected.startswith(told) or (heard and told != heard):
            raise broken(f"a partial reply that is not what was heard: {told[-200:]!r}")
        return type(error).__name__
    if not ended:
        return "broken off"
    if heard != expected:
        raise broken("an end before the end")
    if act.cannot_be_whole:
        raise broken("a whole answer, where there was none")
    return "completed"


def judge_failure(act: Act, heard: str, error: BaseException | None) -> None:
    """Raise `Broken` if a reply that nobody left or closed may not have failed so. (Who fails before may have used the
    client's retries up.)"""
    if act.must_be_whole and error is not None and not act.script.fails:
        raise Broken(f"an error, where nothing was to go wrong\n  {act}\n  heard {heard[-200:]!r}") from error
