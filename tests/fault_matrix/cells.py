"""The cells of the matrix: which conversation fails how and where, and how the call must end."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Iterator
from typing import NamedTuple

from . import reference
from .peer import CUTS, GARBLES, Machine, Script, Secured, Strike, Turn, garbled, request
from .reference import Outcome, read_connect, read_reply, read_socks
from .scenarios import SCENARIOS, Scenario

# In the direction of the request; "answer" and "hang up" have no meaning inside TLS, whose answers need the questions.
HEARD = {"length": (*CUTS, "answer", "hang up"), "site": CUTS, "socks": (*CUTS, "answer"),
         "connect": (*CUTS, "answer"), "tls": CUTS}  # fmt: skip


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
        self.contexts = contexts

    def machine(self, scenario: Scenario) -> Machine:
        """What plays a conversation."""
        answer = [Turn(request, scenario.replies)]
        if not scenario.tls:
            return Script([*scenario.handshake, *answer])
        inner = Secured(Script(answer), self.contexts.server)
        return Script(scenario.handshake, inner) if scenario.handshake else inner

    @functools.cached_property
    def records(self) -> Records:
        """Those of the scenario "tls", by playing it in memory. (The certificate's key signs in one length.)"""
        scenario = SCENARIOS["tls"]
        server = self.machine(scenario)
        down, up = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.contexts.client.wrap_bio(down, up, server_hostname="127.0.0.1")
        raw, plain, flight = b"", 0, 0
        ends: list[int] = []
        wholes: list[int] = []

        def take(pieces: list[bytes]) -> None:
            nonlocal raw, plain
            for piece in pieces:
                raw += piece
                down.write(piece)
                if flight:
                    try:
                        plain += len(client.read(65536))
                    except ssl.SSLWantReadError:
                        pass
                begin = ends[-1] if ends else 0
                while begin < len(raw):
                    begin += 5 + int.from_bytes(raw[begin + 3 : begin + 5], "big")
                    ends.append(begin)
                    wholes.append(plain)

        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            pass
        take(server.receive(up.read()))
        client.do_handshake()
        flight = len(raw)
        client.write(b"POST / HTTP/1.1\r\n\r\n")
        take(server.receive(up.read()))
        assert plain == len(scenario.reply)
        return Records(flight, tuple(ends), tuple(wholes))

    # -- which cells there are -------------------------------------------------------------------

    def cells(self, scenario: Scenario, measured: Measured) -> Iterator[Cell]:
        """Each fault at each byte."""
        name = scenario.name
        length = self.records.ends[-1] if name == "tls" else sum(map(len, scenario.said))
        for kind in CUTS:
            yield from (Cell(name, Strike(kind, at)) for at in range(length + 1))
        for kind in ("flip",) if name == "tls" else GARBLES:
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
        if scenario.name == "tls":
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
        kind, at, records = strike.kind, strike.at, self.records
        offset, begin = records.offset(at)
        if kind in CUTS:
            if at < records.flight:
                late = Outcome("TimeoutError", None, "connect", waits=True)
                return [late if kind == "stall" else Outcome("ConnectError")]
            found = [read_reply(scenario.reply[: records.whole(at)], kind)]
            if at == records.flight and kind == "reset":
                # The server has said its part, the client not: whether it can is a race that it may lose.
                found.append(Outcome("ConnectError"))
            return found
        # A garbled length may be longer, and its end is waited for then.
        endings = ["reset", "stall"] if offset in (3, 4) else ["reset"]
        if at >= records.flight:
            return [read_reply(scenario.reply[: records.whole(begin)], ending) for ending in endings]
        found = [Outcome("ConnectError")]
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
        if scenario.through == "socks5":
            connecting, error = at < 24, "ProxyError"
        elif scenario.through == "http":
            connecting, error = True, "ProxyError"
        else:
            connecting, error = scenario.tls and at < measured.first, "ConnectError"
        if kind == "stall":
            return [Outcome("TimeoutError", None, "connect" if connecting else "first_content", waits=True)]
        found = [Outcome(error if connecting else "ReadError")]
        if scenario.name == "tls" and at == measured.first:
            # As above.
            found.append(Outcome("ConnectError"))
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
