"""What calls tell the logger ``deltawire.client``.

At INFO a line for each attempt, how it went, and what follows: a retry, the next provider, the end. At DEBUG what is
sent, and how streams end. Each record has an attribute ``deltawire``, a dict of what its words say. URLs are without
queries, errors in their own words, from which secrets are cut; of errors that are none of ours (a provider's own code
raises them) the class alone is told, since nobody knows what they hold.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from deltawire.protocol import DeltawireError, GiveUp, Prepare, Send, Sleep
from deltawire.protocol.fields import visible
from deltawire.transports._log import DEBUG, INFO, Log

if TYPE_CHECKING:
    from deltawire.protocol import Outcome

    from .calls import Attempt, Call

LOG = Log("deltawire.client")


class Diary:
    """Of one call. Asks once whether anybody listens; where nobody does, that is all it costs."""

    def __init__(self, call: Call) -> None:
        self._listened = LOG.wants(INFO)
        self._model = call.ask.model
        self._kind = call.ask.kind
        self._attempts = 0
        self._since = 0.0

    def sends(self, attempt: Attempt) -> None:
        """An attempt is about to be sent."""
        if not self._listened:
            return
        attempt.diary = self
        self._since = time.monotonic()
        self._attempts += 1
        what = "for a session" if not attempt.answers else f"for {self._kind} of model {self._model!r}"
        LOG.say(DEBUG, "asking %s %s%s", _whom(attempt), what, _via(attempt), event="request", **self._of(attempt))

    def answered(self, attempt: Attempt, outcome: Outcome) -> None:
        """It is decided; told if it has succeeded: with its first content, or whole."""
        if self._listened and outcome.error is None:
            what = "first content" if attempt.streams else "the whole reply"
            seconds = time.monotonic() - self._since
            identity = attempt.context.excerpt(visible(attempt.reply.request_id or ""), 200)
            LOG.say(
                INFO,
                "%s: %s after %.3f s (model %r%s)",
                _whom(attempt),
                what,
                seconds,
                self._model,
                f", request id {identity}" if identity else "",
                event="answer",
                seconds=seconds,
                **self._of(attempt),
            )

    def decided(self, effect: Any, outcome: Outcome, following: Any) -> None:
        """An attempt is over without an answer, and this follows."""
        error = outcome.error
        if not self._listened or error is None:
            return
        fields = {"error": type(error).__name__, "attempt": self._attempts, "model": self._model}
        words = f"attempt {self._attempts} failed: {_words(error)}"
        if isinstance(following, Sleep):
            asked = getattr(error, "retry_after", None) == following.seconds
            why = "as the server asks" if asked else "by the retry policy"
            LOG.say(
                INFO, "%s; the next one in %.3f s, %s", words, following.seconds, why,
                event="retry", seconds=following.seconds, **fields,
            )  # fmt: skip
        elif isinstance(following, GiveUp):
            gave_up = getattr(error, "gave_up", "")
            more = f" ({gave_up})" if gave_up else ""
            LOG.say(INFO, "%s; given up%s", words, more, event="give_up", **fields)
        elif isinstance(following, Prepare):
            LOG.say(INFO, "%s; a fresh session is fetched", words, event="session", **fields)
        elif isinstance(following, Send) and following.provider is effect.provider:
            LOG.say(INFO, "%s; sent on within the origin", words, event="redirect", **fields)
        else:
            LOG.say(INFO, "%s; the next provider is asked", words, event="fail_over", **fields)

    def over(self, attempt: Attempt) -> None:
        """A stream is read no further."""
        reply = attempt.reply
        how = "over" if reply.done else "left before its end"
        seconds = time.monotonic() - self._since
        LOG.say(
            DEBUG,
            "%s: the stream is %s after %.3f s and %d chunks with content",
            _whom(attempt),
            how,
            seconds,
            reply.contents,
            event="end",
            seconds=seconds,
            contents=reply.contents,
            **self._of(attempt),
        )

    def broke(self, attempt: Attempt, error: Exception) -> None:
        """A stream has failed behind its first content, which nothing can mend."""
        LOG.say(
            INFO, "%s: the stream broke: %s", _whom(attempt), _words(error),
            event="broken", error=type(error).__name__, **self._of(attempt),
        )  # fmt: skip

    def _of(self, attempt: Attempt) -> dict[str, Any]:
        context, reply = attempt.context, attempt.reply
        return {
            "provider": attempt.target.name,
            "model": self._model,
            "url": context.url,
            "proxy": context.proxy,
            "status": getattr(reply, "status", None),
            "request_id": reply.request_id,
        }


def _whom(attempt: Attempt) -> str:
    if not attempt.method:
        return attempt.target.name
    status = attempt.reply.status
    return f"{attempt.target.name}: {attempt.method} {attempt.context.url}{'' if status is None else f' {status}'}"


def _via(attempt: Attempt) -> str:
    return f" via proxy {attempt.context.proxy}" if attempt.context.proxy else ""


def _words(error: Exception) -> str:
    """An error on one line."""
    name = type(error).__name__
    if not isinstance(error, DeltawireError):
        return name
    # A peer's words must not look like records of their own, nor speak to a terminal.
    words = "".join(each if each.isprintable() else " " for each in str(error))
    return f"{name}: {' '.join(words.split())}"
