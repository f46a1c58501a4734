"""The scripted peer: a listener and a thread, which plays one conversation a connection, and breaks off at one byte.

What it says and when stands in a `Script`, a machine without I/O. It knows nothing of deltawire, nor of HTTP but where
a request ends. Linux: that a client gets what its system has received before it hears of a reset is Linux's way.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

# Seconds after which nobody waits any more for a client that hangs.
PATIENCE = 30.0

RESET_ON_CLOSE = struct.pack("ii", 1, 0)

# Linux: how many bytes of ours the peer's system has not got yet (SIOCOUTQNSD).
_HOW_MUCH_IS_UNSENT = 0x894B


# --- What is said ---------------------------------------------------------------------------------------


def count(length: int) -> Callable[[bytearray], int | None]:
    """A message of so many bytes."""
    return lambda heard: length if len(heard) >= length else None


def head(heard: bytearray) -> int | None:
    """A message that is a head: up to its empty line."""
    return heard.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in heard else None


def request(heard: bytearray) -> int | None:
    """A whole request, with the length that its head tells."""
    end = head(heard)
    if end is None:
        return None
    for line in heard[:end].lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            end += int(value)
    return end if len(heard) >= end else None


class Turn(NamedTuple):
    """What is heard, and then said."""

    hears: Callable[[bytearray], int | None]
    """How many of these bytes are the message that is waited for; None: it is not there as a whole."""
    says: tuple[bytes, ...]
    """In TLS, each is a record of its own."""


class Script:
    """Turns, one after the other; then whatever comes is for ``inner``, if there is one."""

    def __init__(self, turns: Iterable[Turn], inner: Script | Secured | None = None) -> None:
        self._turns = list(turns)
        self._inner = inner
        self._heard = bytearray()

    def receive(self, data: bytes) -> list[bytes]:
        """Bytes of the client; gives what is said to them."""
        self._heard += data
        said: list[bytes] = []
        while self._turns and (length := self._turns[0].hears(self._heard)) is not None:
            del self._heard[:length]
            said += self._turns.pop(0).says
        if not self._turns and self._inner is not None and self._heard:
            said += self._inner.receive(bytes(self._heard))
            self._heard.clear()
        return said

    def ahead(self) -> list[bytes]:
        """All that is left to be said, before it is its turn."""
        said = [piece for turn in self._turns for piece in turn.says]
        self._turns = [Turn(turn.hears, ()) for turn in self._turns]
        return said


class Secured:
    """A script inside TLS."""

    def __init__(self, script: Script, context: ssl.SSLContext) -> None:
        self._script = script
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._shaken = False

    def receive(self, data: bytes) -> list[bytes]:
        """As `Script.receive`. A client that breaks TLS off hears nothing more."""
        self._incoming.write(data)
        said: list[bytes] = []
        with contextlib.suppress(ssl.SSLError):
            if not self._shaken:
                self._object.do_handshake()
                self._shaken = True
                said.append(self._outgoing.read())
            while True:
                for piece in self._script.receive(self._object.read(65536)):
                    self._object.write(piece)
                    said.append(self._outgoing.read())
        # The flight of a handshake that goes on, or an alert.
        return [each for each in (*said, self._outgoing.read()) if each]


Machine = Script | Secured


# --- Where it breaks off --------------------------------------------------------------------------------


class Strike(NamedTuple):
    """What goes wrong: after so many bytes, in this direction."""

    kind: str
    """close, reset, stall: after `at` bytes. flip, nibble, zero, insert: `at` this byte, what is said is garbled. And
    answer, hang up: after `at` bytes of the client all is said at once, and then all goes on, or is closed."""
    at: int
    heard: bool = False
    """What counts are the bytes of the client; else, what is said."""


GARBLES: dict[str, Callable[[bytes], bytes]] = {
    "flip": lambda byte: bytes([byte[0] ^ 0x80]),
    "nibble": lambda byte: bytes([byte[0] ^ 0x01]),
    "zero": lambda byte: b"\0",
    "insert": lambda byte: b"\xff" + byte,
}
CUTS = ("close", "reset", "stall")


def garbled(words: bytes, strike: Strike) -> bytes:
    """What is said, with that byte of it garbled."""
    here, after = words[strike.at : strike.at + 1], words[strike.at + 1 :]
    return words[: strike.at] + (GARBLES[strike.kind](here) if here else b"") + after


class Over(Exception):
    """The conversation is broken off, as it was to be, or by the client."""


class Conversation:
    """One connection."""

    def __init__(
        self, sock: socket.socket, machine: Machine, strike: Strike, over: threading.Event, *, ends: bool
    ) -> None:
        self._socket = sock
        self._machine = machine
        self._strike = strike
        # Set when the call has ended. (The end of a client that has more to say than the systems hold is not heard by
        # who does not listen.)
        self._over = over
        self._ends = ends
        self._said = 0
        self.heard = 0
        """How many bytes of the client were read."""
        self.first = 0
        """And how many before the first answer."""

    def play(self) -> None:
        """From the first byte to the client's end."""
        self._socket.settimeout(PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(Over, OSError):
            while True:
                self._say(self._machine.receive(self._hear()))

    def _hear(self) -> bytes:
        strike = self._strike
        if strike.heard and self.heard == strike.at:
            # Something comes that is not listened to, or nothing more does.
            self._struck()
        data = self._socket.recv(strike.at - self.heard if strike.heard and self.heard < strike.at else 65536)
        if not data:
            raise Over
        self.heard += len(data)
        return data

    def _say(self, pieces: list[bytes]) -> None:
        words, strike = b"".join(pieces), self._strike
        before, self._said = self._said, self._said + len(words)
        if pieces and not before:
            self.first = self.heard
        if not strike.heard and strike.kind in GARBLES:
            if before <= strike.at < self._said:
                words = garbled(words, strike._replace(at=strike.at - before))
        elif not strike.heard and pieces and self._said >= strike.at:
            self._socket.sendall(words[: strike.at - before])
            self._struck()
        self._socket.sendall(words)
        if self._ends and pieces:
            self._close()

    def _struck(self) -> None:
        kind = self._strike.kind
        if kind in ("answer", "hang up"):
            self._wait_readable()
            assert isinstance(self._machine, Script)
            self._socket.sendall(b"".join(self._machine.ahead()))
            self._strike = Strike("stall", sys.maxsize)
            if kind == "answer":
                return
        elif self._strike.heard and self.heard == 0:
            self._wait_readable()
        if kind == "reset":
            self._wait_sent()
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        elif kind == "close" and not self._strike.heard:
            self._close()
        elif kind == "stall":
            self._over.wait(PATIENCE)
        # Else it closes at once, and what was not listened to makes a reset of that.
        self._wait_sent()
        raise Over

    def _close(self) -> None:
        """End our direction; what still comes is thrown away."""
        self._socket.shutdown(socket.SHUT_WR)
        while self._socket.recv(65536):
            pass
        raise Over

    def _wait_readable(self) -> None:
        select.select([self._socket], [], [], PATIENCE)

    def _wait_sent(self) -> None:
        """Until the client's system has all of it: what it has received is read before the reset is heard of."""
        while int.from_bytes(fcntl.ioctl(self._socket, _HOW_MUCH_IS_UNSENT, bytes(4)), sys.byteorder):
            select.select([], [], [], 0.001)


class Lane:
    """A port on which one call after the other is made. ``play`` is told what the next connection is to meet."""

    def __init__(self, play: Callable[[socket.socket], None]) -> None:
        self._play = play
        self._listener = socket.create_server(("127.0.0.1", 0))
        # Of what is not listened to, the system is not to take megabytes.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 512 * 1024)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._thread = threading.Thread(target=self._run, name="scripted peer")
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                self.connections += 1
                self._play(sock)

    def close(self) -> None:
        """Returns when all its connections are over."""
        # Closing alone would not wake the thread that accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
