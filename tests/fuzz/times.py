"""Targets: `Deadlines`, against a model that keeps what happened; and Retry-After, dates included."""

from __future__ import annotations

import datetime
import math
import re

from deltawire.protocol import Deadlines, Reply, RetryPolicy, StreamFailed, Timeout, TimeoutError
from deltawire.protocol.dates import parse_http_date

from .common import COMPARED, Dice

SECONDS = (None, 0.25, 1.0, 3.0, 10, 600.0)
MOMENT = 0.02


class Model:
    """The deadlines as their docstrings say: which one runs, and since when."""

    def __init__(self, timeout: Timeout, now: float, total_at: float | None) -> None:
        self.timeout, self.total_at = timeout, math.inf if total_at is None else total_at
        self.late: tuple[float, float] | None = None
        self.begin("connect", now)

    def begin(self, phase: str, at: float) -> None:
        self.phase, self.at = phase, at

    @property
    def until(self) -> float:
        seconds: float | None = getattr(self.timeout, self.phase)
        return min(self.total_at, math.inf if seconds is None else self.at + seconds)

    def wait_until(self, now: float) -> float:
        until = self.until
        if now < until or now >= self.total_at:
            return until
        if self.late is None or self.late[0] != until:
            self.late = until, now + MOMENT
        return self.late[1]


def deadlines(data: bytes) -> None:
    """Sequences of operations, at times that only go up."""
    dice = Dice(data)
    timeout = Timeout(dice.pick(SECONDS), dice.pick(SECONDS), dice.pick(SECONDS), dice.pick(SECONDS))
    now = dice.byte() / 16
    total_at = None if timeout.total is None else now + timeout.total
    machine, model = Deadlines(timeout, now, total_at), Model(timeout, now, total_at)
    COMPARED["deadlines"] += 1
    while dice.rest:
        what = dice.byte() % 8
        if what < 3:
            now += (dice.byte() / 64, dice.byte() / 4, 0.0)[what]
        elif what == 3:
            machine.connecting(now)
            model.begin("connect", now)
        elif what == 4:
            machine.connected(now)
            model.begin("first_content", now)
        elif what == 5:
            machine.content(now)
            model.begin("idle", now)
            model.wait_until(now)
        elif what == 6:
            assert machine.wait_until(now) == model.wait_until(now)
        else:
            came = now - dice.byte() / 32
            model.begin("idle", came)
            assert machine.wait_until(now, came) == model.wait_until(now)
        agree(machine, model, now)


def agree(machine: Deadlines, model: Model, now: float) -> None:
    until = model.until
    assert machine.remaining(now) == (None if until == math.inf else max(until - now, 0.0))
    try:
        machine.check(now)
    except TimeoutError as error:
        # The one exception here, and what `check` is for.
        assert now >= until
        assert error.deadline == ("total" if until == model.total_at else model.phase)
        assert error.seconds == getattr(model.timeout, error.deadline)
        assert error.deadline in str(error)
    else:
        assert now < until


NOW = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT
POLICY = RetryPolicy(jitter=0.5)
FIXED = re.compile(rb"\A[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT\Z")
MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def retry_after(data: bytes) -> None:
    """Whatever a server says of when to come back, the wait is ours to choose, or within what we allow."""
    dice = Dice(data)
    names = dice.pick(
        ((b"retry-after",), (b"retry-after-ms",), (b"Retry-After", b"Date"), (b"retry-after-ms", b"retry-after"))
    )
    values = [each.encode("utf-8", "surrogateescape") for each in dice.texts(len(names))]
    reply = Reply()
    (event,) = reply.start(429, list(zip(names, values, strict=True))) + reply.end()
    assert isinstance(event, StreamFailed)
    asked = vars(event.error)["retry_after"]
    assert asked is None or math.isfinite(asked)
    for retries in (0, 3, 10**9):
        wait = POLICY.delay(event.error, retries, now=NOW, jitter=0.75)
        assert wait is None or 0 < wait <= max(POLICY.longest_retry_after, POLICY.maximum)
    if names == (b"retry-after",) and re.fullmatch(rb"[0-9]{1,9}", values[0]):
        COMPARED["retry_after"] += 1
        assert asked == int(values[0])
        assert POLICY.delay(event.error, 0, now=NOW, jitter=0.0) == (None if asked > 120 else asked or 0.5)
    for value in values:
        at = parse_http_date(value)
        wanted = naive_date(value.strip())
        if wanted is not None:
            COMPARED["retry_after"] += 1
            assert at == wanted


def naive_date(value: bytes) -> float | None:
    """An IMF-fixdate that names a moment of the calendar."""
    found = FIXED.match(value)
    if found is None or found[2] not in MONTHS:
        return None
    day, year, hour, minute, second = map(int, found.group(1, 3, 4, 5, 6))
    try:
        month = MONTHS.index(found[2]) + 1
        moment = datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.timezone.utc)
    except ValueError:
        return None
    return (moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)).total_seconds()
