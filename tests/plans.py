"""Running plans as scripts: outcomes in, effects out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feeding import failure, read, sse

from deltawire.protocol import APIStatusError, GiveUp, Outcome, Prepare, Send

if TYPE_CHECKING:
    from collections.abc import Generator

NOW = 1_700_000_000.0

# There is no session, and nothing was sent.
MISSING = Outcome(None, needs_session=True)


def status(code: int | None, **headers: str) -> APIStatusError:
    """An error status with header fields, as the machines make it; None: an error in the stream without any."""
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if code is None:
        error = failure(read(sse({"error": "boom"}), headers=fields))
    else:
        error = failure(read(b"", status=code, headers=fields))
    assert isinstance(error, APIStatusError)
    return error


def refused(error: Exception) -> Outcome:
    """The session was refused."""
    return Outcome(error, needs_session=True)


def script(plan: Generator[Any, Any, None], *outcomes: Outcome | Exception | None) -> list[Any]:
    """The effects of a plan whose attempts (and fetched sessions) go so, one after the other."""
    left = list(outcomes)
    effects: list[Any] = []
    reply: Outcome | None = None
    while True:
        try:
            effect = plan.send(reply)
        except StopIteration:
            assert not left, "there were to be more attempts"
            return effects
        effects.append(effect)
        reply = None
        if isinstance(effect, (Send, Prepare)):
            outcome = left.pop(0)
            reply = outcome if isinstance(outcome, Outcome) else Outcome(outcome, "https://s/v1/chat", NOW)


def asked(effects: list[Any]) -> list[Any]:
    """Who was sent a request, in order."""
    return [effect.provider for effect in effects if isinstance(effect, Send)]


def given_up(effects: list[Any]) -> Exception:
    """What a plan gave up with, which is the last that it does."""
    assert [isinstance(effect, GiveUp) for effect in effects] == [False] * (len(effects) - 1) + [True]
    error: Exception = effects[-1].error
    return error
