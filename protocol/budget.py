"""What stops a storm of retries. Pure: the time is an argument.

When a server fails for everybody, retries multiply the load that broke it. So the calls of one client (and its
copies) share a budget, as do those that a provider is asked without a client: a retry takes 1 from it, each call puts
`per_call` in, and time `per_second`; when it is empty, calls fail with their first error. One call after the other
never gets there with the usual waits, whatever it goes through.

The figures are those of Finagle's ``RetryBudget`` (20 % of the calls, and 10 a second whatever the load).
"""

from __future__ import annotations


class RetryBudget:
    """How many retries the calls that share it may still make. Counting is approximate between threads."""

    __slots__ = ("_at", "_capacity", "_left", "_per_call", "_per_second")

    def __init__(self, *, capacity: float = 100.0, per_call: float = 0.2, per_second: float = 10.0) -> None:
        """``capacity``: retries at most, held at the beginning."""
        self._capacity = self._left = capacity
        self._per_call = per_call
        self._per_second = per_second
        self._at: float | None = None

    @property
    def left(self) -> float:
        """Retries that may still be made, as of the last `spend` or `deposit`."""
        return self._left

    def deposit(self) -> None:
        """A call begins."""
        self._left = min(self._left + self._per_call, self._capacity)

    def spend(self, now: float) -> bool:
        """Whether a retry may be made now (seconds, on any clock); if so it is taken off."""
        # The clock may be set back.
        passed = 0.0 if self._at is None else max(now - self._at, 0.0)
        self._at = now
        self._left = min(self._left + passed * self._per_second, self._capacity)
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def __repr__(self) -> str:
        return f"RetryBudget({self._left:g} of {self._capacity:g} left)"
