"""The socket that a server listens on, and for a while may not. It belongs to the loop's thread.

Accepting is done here and not by `loop.create_server`, which leaks the connections that it accepted in the turn in
which it is closed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

# A thousand clients may connect at once; asyncio's own default of 100 would make them retry for seconds.
BACKLOG = 4096

# How many seconds to wait when the system has no descriptor for a connection.
_ACCEPT_AGAIN = 1.0


class Acceptor:
    """Accepts connections, and hands each to `adopt` in a task of its own."""

    def __init__(self, listener: socket.socket, adopt: Callable[[socket.socket], Awaitable[None]], name: str) -> None:
        self._socket = listener
        self._adopt = adopt
        self._name = name
        self._listening = True
        self._adopting: set[asyncio.Future[None]] = set()
        self._watch()

    def close(self) -> None:
        """Stop listening, and give the port back. May be repeated."""
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()

    def refuse(self) -> None:
        """Stop listening, and keep the port. Raises ``OSError`` if that fails; then nobody has it."""
        if not self._listening:
            raise RuntimeError(f"{self._name} refuses connections already; end that first")
        self._accept()  # who came before is not refused
        address, family = self._socket.getsockname(), self._socket.family
        self.close()
        self._listening = False
        # A port that is bound, and on which nobody listens, refuses.
        self._socket = _bind(address, family)

    def resume(self) -> None:
        """Listen again."""
        if not self._listening and self._socket.fileno() >= 0:
            self._listening = True
            self._socket.listen(BACKLOG)
            self._watch()

    def _watch(self) -> None:
        if self._listening and self._socket.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(BACKLOG):
            try:
                sock, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors left, most likely; trying again at once would not help
                loop.call_exception_handler({"message": f"{self._name} cannot accept", "exception": error})
                loop.remove_reader(self._socket)
                loop.call_later(_ACCEPT_AGAIN, self._watch)
                return
            task = asyncio.ensure_future(self._adopt(sock))
            self._adopting.add(task)  # the loop itself would not keep it from being collected
            task.add_done_callback(self._adopting.discard)


def _bind(address: tuple[str, int], family: int) -> socket.socket:
    """A socket that has a port and does not listen."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as `socket.create_server` does
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock
