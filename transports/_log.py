"""Loggers that cost nothing where nobody listens: ``deltawire.transports``, and for the rooms above.

No handler is ours. All is said at INFO and DEBUG, and Python shows neither unasked: so a program that has not loaded
`logging` hears nothing anyway, and we don't load it either (it takes as long to load as a tenth of the package). What
is said holds no secrets: hosts and ports, URLs without credentials and queries, names.

Nothing is said by finalisers, nor under a lock: handlers are anybody's code, may wait, and may come back to us.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging

    from deltawire.protocol import Reply

DEBUG, INFO = 10, 20
"""As in `logging`."""


class Log:
    """A logger of this name, once the program has loaded `logging`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._logger: logging.Logger | None = None

    def wants(self, level: int) -> bool:
        """Whether anybody may listen."""
        if self._logger is None:
            if "logging" not in sys.modules:
                return False
            # By a statement: another thread may just be loading it, and that waits.
            import logging

            self._logger = logging.getLogger(self._name)
        return self._logger.isEnabledFor(level)

    def say(self, level: int, message: str, *arguments: object, **fields: Any) -> None:
        """A record, if anybody may listen. ``fields``: the record's attribute ``deltawire``, for programs."""
        if self.wants(level) and self._logger is not None:
            self._logger.log(level, message, *arguments, extra={"deltawire": fields}, stacklevel=2)


LOG = Log("deltawire.transports")


def tell_end(host: str, kept: bool, reply: Reply) -> None:
    """An exchange has been closed by its caller; ``kept``: and its connection is not."""
    if LOG.wants(DEBUG):
        why = "the reply's end" if reply.done else "the reply was left early"
        how = "is kept" if kept else f"is closed ({why})"
        LOG.say(DEBUG, "the connection to %s %s", host, how, event="kept" if kept else "closed", to=host)
