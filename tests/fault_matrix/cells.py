"""The cells of the matrix: which conversation fails how and where, and how the call must end."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from typing import NamedTuple

from . import reference
from .peer import CUTS, GARBLES, Machine, Script, Secured, Strike, Turn, garbled, request
from .reference import Outcome, read_connect, read_reply, read_socks
from .scenarios import SCENARIOS, Scenario

# In the direction of the request; "answer" and "hang up" have no meaning inside TLS, whose answers need the questions.
HEARD = {
    "length": (*CUTS, "answer", "hang up"),
    "site": CUTS,
    "socks": (*CUTS, "answer"),
    "connect": (*CUTS, "answer"),
    "https-proxy": CUTS,
    "tls": CUTS,
    "long-request": (*CUTS, "answer", "hang up"),
}


class Measured(NamedTuple):
    """What a call says that meets no fault, in bytes; a head's length hangs on the transport."""

    first: int
    """The message that is answered first: the request, a ClientHello, a proxy's greeting or CONNECT."""
    whole: int


class Cell(NamedTuple):
    """One call."""

    scenario: str
    strike: Strike

    @property
    def fault(self) -> str:
        """ "reset", or "request reset" in the client's direction."""
        return f"request {self.strike.kind}" if self.strike.heard else self.strike.kind

    def __str__(self) -> str:
        return f"{self.scenario}/{'request' if self.strike.heard else 'reply'}/{self.strike.kind}/{self.strike.at}"

    @classmethod
    def parse(cls, words: str) -> Cell:
        """What `str` gives."""
        scenario, direction, kind, at = words.split("/")
        return cls(scenario, Strike(kind, int(at), direction == "request"))


class Contexts(NamedTuple):
    """A server's side of TLS, and a client's that trusts it."""

    server: ssl.SSLContext
    client: ssl.SSLContext


class Records(NamedTuple):
    """What a server says in TLS, on the wire."""

    flight: int
    """So many bytes are its part of the handshake."""
    ends: tuple[int, ...]
    """Where each record ends."""
    plain: tuple[int, ...]
    """So much of the reply is whole with each of them."""

    def whole(self, position: int) -> int:
        """How much of the reply is in the records before this byte."""
        return max((plain for end, plain in zip(self.ends, self.plain, strict=True) if end <= position), default=0)

    def offset(self, position: int) -> tuple[int, int]:
        """Where in its record a byte stands, and where that begins."""
        begin = max((end for end in self.ends if end <= position), default=0)
        return position - begin, begin


class Matrix:
    """All that can be said of the cells before any call is made."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts
        self._records: dict[str, Records] = {}

    def contexts(self, scenario: Scenario) -> Contexts:
        """Those of a conversation, of its version of TLS."""
        version = ssl.TLSVersion.TLSv1_2 if scenario.old_tls else ssl.TLSVersion.TLSv1_3
        for context in self._contexts:
            context.minimum_version = context.maximum_version = version
        return self._contexts

    def machine(self, scenario: Scenario) -> Machine:
        """What plays a conversation."""
        answer = [Turn(request, scenario.replies)]
        if not scenario.tls:
            return Script([*scenario.handshake, *answer])
        inner = Secured(Script(answer), self.contexts(scenario).server)
        return Script(scenario.handshake, inner) if scenario.handshake else inner

    def records(self, scenario: Scenario) -> Records:
        """What is said in TLS, by playing it in memory. (The certificate's key signs in one length.)"""
        if scenario.name not in self._records:
            self._records[scenario.name] = self._play(scenario)
        return self._records[scenario.name]

    def _play(self, scenario: Scenario) -> Records:
        server, down, up = self.machine(scenario), ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.contexts(scenario).client.wrap_bio(down, up, server_hostname="127.0.0.1")
        length, flight, plain = 0, 0, 0
        ends: list[int] = []
        wholes: list[int] = []

        def take(pieces: list[bytes]) -> None:
            nonlocal length, plain
            for piece in pieces:
                down.write(piece)
                if flight:
                    with contextlib.suppress(ssl.SSLWantReadError):
                        plain += len(client.read(65536))
                begin = 0
                while begin < len(piece):
                    begin += 5 + int.from_bytes(piece[begin + 3 : begin + 5], "big")
                    ends.append(length + begin)
                    wholes.append(plain)
                length += len(piece)

        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
                break
            take(server.receive(up.read()))
        flight = length
        client.write(b"POST / HTTP/1.1\r\n\r\n")
        take(server.receive(up.read()))
        assert plain == len(scenario.reply)
        return Records(flight, tuple(ends), tuple(wholes))

    # -- which cells there are -------------------------------------------------------------------

    def cells(self, scenario: Scenario, measured: Measured) -> Iterator[Cell]:
        """Each fault at each byte."""
        name = scenario.name
        if scenario.question:
            # Of what does not fit in a system's buffers, the first bytes and some.
            for kind in HEARD[name]:
                places = (0, 1, 100, *range(1000, measured.whole, measured.whole // 6), measured.whole - 1)
                yield from (Cell(name, Strike(kind, at, heard=True)) for at in (*places, measured.whole))
            return
        length = self.records(scenario).ends[-1] if scenario.all_tls else sum(map(len, scenario.said))
        for kind in CUTS:
            yield from (Cell(name, Strike(kind, at)) for at in range(length + 1))
        for kind in ("flip",) if scenario.all_tls else GARBLES:
            yield from (Cell(name, Strike(kind, at)) for at in range(length))
        last = measured.first if name == "connect" else measured.whole
        for kind in HEARD.get(name, ()):
            yield from (Cell(name, Strike(kind, at, heard=True)) for at in range(last + 1))

    # -- how they must end -----------------------------------------------------------------------

    def expected(self, cell: Cell, measured: Measured) -> list[Outcome]:
        """How the call must end. More than one where two names are right, which says why."""
        scenario = SCENARIOS[cell.scenario]
        if cell.strike.heard:
            return self._unheard(scenario, cell.strike, measured)
        if scenario.all_tls:
            return self._in_tls(scenario, cell.strike)
        ending = cell.strike.kind if cell.strike.kind in CUTS else "close" if scenario.ends else "stall"
        turns = struck(scenario.said, cell.strike)
        if not scenario.handshake:
            return [read_reply(turns[0], ending, scenario.dialect)]
        read = read_socks(turns[:-1], ending) if scenario.through == "socks5" else read_connect(turns[0], ending)
        if isinstance(read, Outcome):
            return [read]
        if scenario.through == "socks5":
            return [read_reply(read + turns[-1], ending)]
        # Then there is TLS, in which nothing fails: but for what is no TLS, or when nothing comes.
        if cell.strike.kind in CUTS:
            return [reference.untunnelled(ending)]
        return [Outcome("ProxyError") if read else read_reply(scenario.reply, ending)]

    def _in_tls(self, scenario: Scenario, strike: Strike) -> list[Outcome]:
        kind, at, records = strike.kind, strike.at, self.records(scenario)
        error = scenario.unconnected
        offset, begin = records.offset(at)
        if kind in CUTS:
            if at < records.flight:
                late = Outcome("TimeoutError", None, "connect", waits=True)
                return [late if kind == "stall" else Outcome(error)]
            found = [read_reply(scenario.reply[: records.whole(at)], kind)]
            if at == records.flight and kind == "reset" and not scenario.old_tls:
                # The server has said its part, the client not: whether it can is a race that it may lose.
                found.append(Outcome(error))
            return found
        # A garbled length may be longer, and its end is waited for then: a record's, or that of the message of the
        # handshake in it.
        lengths = (3, 4, 6, 7, 8) if at < records.flight else (3, 4)
        endings = ["reset", "stall"] if offset in lengths else ["reset"]
        if at >= records.flight:
            return [read_reply(scenario.reply[: records.whole(begin)], ending) for ending in endings]
        found = [Outcome(error)]
        if "stall" in endings:
            found.append(Outcome("TimeoutError", None, "connect", waits=True))
        if offset in (1, 2):
            # The version of a record means nothing, "for all purposes" (RFC 8446 section 5.1); many look at it.
            found.append(read_reply(scenario.reply, "stall"))
        return found

    def _unheard(self, scenario: Scenario, strike: Strike, measured: Measured) -> list[Outcome]:
        """The peer listens no further than this."""
        kind, at = strike.kind, strike.at
        success = read_reply(scenario.reply, "stall", scenario.dialect)
        if kind in ("answer", "hang up") or at >= measured.whole:
            return [success]
        first = {"socks": 24, "connect": measured.whole}.get(scenario.name, measured.first if scenario.tls else 0)
        connecting = at < first
        if kind == "stall":
            return [Outcome("TimeoutError", None, "connect" if connecting else "first_content", waits=True)]
        found = [Outcome(scenario.unconnected if connecting else "ReadError")]
        if scenario.all_tls and at == first:
            # As above.
            found.append(Outcome(scenario.unconnected))
        return found


def struck(turns: tuple[bytes, ...], strike: Strike) -> list[bytes]:
    """What the client gets of these."""
    found, begin = [], 0
    for turn in turns:
        inside = 0 <= strike.at - begin < len(turn)
        if strike.kind in CUTS:
            found.append(turn[: max(strike.at - begin, 0)])
        else:
            found.append(garbled(turn, strike._replace(at=strike.at - begin)) if inside else turn)
        begin += len(turn)
    return found
