"""What a forked process does with its parent's connections: nothing.

Both processes have the same connections then, and what one of them wrote or shut down would be the other's loss. So in
the child every stream is closed, which is the end of its copy of the socket alone (`shutdown` would be the end of the
parent's, too); and every transport begins anew, with locks of its own: another thread, which the child does not have,
may have held the old ones.

Streams of asyncio are left alone: what their loop waits by is the parent's as well, and to close one would change that.
Their child has copies of their sockets, which would hold up the end; so who closes one in the parent shuts it down.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """Something that has to be told."""

    def forked(self) -> None:
        """This is a child process now; nothing else runs in it yet."""


_told: weakref.WeakSet[Forked] = weakref.WeakSet()


def tell(who: Forked) -> None:
    """Call its ``forked`` in each child process that is forked from this one."""
    _told.add(who)


def keep(what: object) -> None:
    """Keep it to the very end of the process, unclosed."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(what))


def _in_child() -> None:
    for each in list(_told):
        # One that fails is no reason to leave the others with what is the parent's.
        with contextlib.suppress(Exception):
            each.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
