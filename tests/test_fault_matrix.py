"""A sample of the fault matrix (``scripts/faults.py`` runs all of it), and what its reference must say by itself."""

from __future__ import annotations

import socket
import threading

import pytest
from fault_matrix.cells import Cell, Measured
from fault_matrix.peer import CUTS, Conversation, Lane, Script, Strike, Turn, count
from fault_matrix.reference import Outcome, read_connect, read_reply, read_socks
from fault_matrix.running import WAYS, Batch, Way, agrees
from fault_matrix.scenarios import CHOICE, OPENED, SCENARIOS, TAKEN, TEXT
from fault_matrix.tally import Part, Tally, matrix, run_part

# Cells between two of the sample, beside those at which the outcome changes.
EVERY = 211

UNMEASURED = Measured(300, 300)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_sample_of_the_cells(way: Way) -> None:
    total = Tally()
    for number, name in enumerate(SCENARIOS):
        # Each in a third of the ways, which takes a third of the time.
        if (number + WAYS.index(way)) % 3 == 0:
            total += run_part(Part(name, way, EVERY))
    total.check_both_counts()
    print(total.tables())
    print(total.line())
    assert total.problems == []
    assert total.counts.total() > 100


# --- What the reference says ----------------------------------------------------------------------------

# Where the verdict is complete: the text before which nothing is success, and behind which all is.
VERDICTS = {
    "chunks": b'"finish_reason":"stop"}]}',
    "length": b"[DONE]",
    "until-close": b"[DONE]",
    "no-done": b'"finish_reason":"stop"}]}',
    "no-done-until-close": b'"finish_reason":"stop"}]}',
    "one-chunk": b"[DONE]",
    "json-length": b"}}",
    "json-chunks": b"}}",
    "json-until-close": b"}}",
    "site": b'"}',
    "socks": b"[DONE]",
}


@pytest.mark.parametrize("ending", CUTS)
@pytest.mark.parametrize("name", VERDICTS)
def test_success_begins_with_the_byte_that_completes_the_verdict(name: str, ending: str) -> None:
    scenario = SCENARIOS[name]
    said = b"".join(scenario.said)
    completes = said.rindex(VERDICTS[name]) + len(VERDICTS[name])
    text = "H\u00e9" if name == "socks" else TEXT
    for at in range(len(said) + 1):
        (outcome,) = matrix().expected(Cell(name, Strike(ending, at)), UNMEASURED)
        if at >= completes:
            assert outcome._replace(waits=False) == Outcome("", ((0, text),)), at
        else:
            assert outcome.error in ("ReadError", "ProxyError", "TruncatedStreamError", "TimeoutError"), at
            assert text.startswith(dict(outcome.texts or ()).get(0, "")), at


def test_a_done_by_an_empty_line_is_not_waited_for() -> None:
    said = SCENARIOS["length"].reply
    assert read_reply(said, "stall") == Outcome("", ((0, TEXT),))
    assert read_reply(said[:-1], "stall") == Outcome("", ((0, TEXT),), waits=True)


@pytest.mark.parametrize(
    ("said", "ending", "outcome"),
    [
        (b"", "stall", Outcome("TimeoutError", None, "connect", waits=True)),
        (b"HTTP/1.1 200 x\r\n", "close", Outcome("ProxyError")),
        (b"HTTP/1.1 200 x\r\n\r\nmore", "close", b"more"),
        (b"HTTP/1.1 403 x\r\n\r\n", "stall", Outcome("ProxyError", code=403)),
        (b"HTTP/1.1 403 x\r\nContent-Length: 2\r\n\r\na", "stall", Outcome("ProxyError", code=403, waits=True)),
        (b"SSH-2.0\r\n", "stall", Outcome("ProxyError")),
    ],
)
def test_connect(said: bytes, ending: str, outcome: Outcome | bytes) -> None:
    assert read_connect(said, ending) == outcome


@pytest.mark.parametrize(
    ("turns", "outcome"),
    [
        ([CHOICE, TAKEN, OPENED], b""),
        ([CHOICE, TAKEN, OPENED + b"x"], b"x"),
        ([CHOICE, TAKEN, OPENED[:-1]], Outcome("ProxyError")),
        ([CHOICE, TAKEN, b"\5\5"], Outcome("ProxyError", code=5)),
        ([CHOICE, b"\1\1", OPENED], Outcome("ProxyError")),
        ([b"\5\xff", TAKEN, OPENED], Outcome("ProxyError")),
        ([b"HTTP/1.1 400\r\n", b"", b""], Outcome("ProxyError")),
    ],
)
def test_socks(turns: list[bytes], outcome: Outcome | bytes) -> None:
    assert read_socks(turns, "close") == outcome


def test_a_garbled_length_of_a_chunk_takes_what_is_behind_it() -> None:
    said = SCENARIOS["one-chunk"].reply
    at = said.index(b"\r\n\r\n") + 4
    assert read_reply(said[:at] + b"1" + said[at:], "stall").deadline == ""
    assert read_reply(said[:at] + b"x" + said[at:], "stall") == Outcome("TruncatedStreamError")


# --- That a wrong outcome is seen -----------------------------------------------------------------------


def test_another_outcome_is_no_agreement() -> None:
    cut = Outcome("TruncatedStreamError", ((0, "ab"),))
    assert agrees(cut, [cut])
    assert agrees(cut, [Outcome("ReadError"), cut._replace(waits=True)])
    for other in (
        cut._replace(error="ReadError"),
        cut._replace(texts=((0, "a"),)),
        cut._replace(texts=None),
        cut._replace(error=""),
        cut._replace(deadline="idle"),
        cut._replace(code=1),
    ):
        assert not agrees(other, [cut])


def test_a_wrong_expectation_is_told_with_the_cell_and_how_to_run_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell("length", Strike("close", 120))
    assert Cell.parse(str(cell)) == cell
    monkeypatch.setattr(Batch, "expected", lambda *_: [Outcome()])
    tally = run_part(Part("length", WAYS[0], 1, (cell,)))
    (problem,) = tally.problems
    assert problem.startswith(f"length/reply/close/120/{WAYS[0]}: TruncatedStreamError, with None, not success")


# --- The peer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(8))
@pytest.mark.parametrize("kind", ["close", "reset"])
def test_the_peer_says_so_many_bytes_and_no_more(kind: str, at: int) -> None:
    def play(sock: socket.socket) -> None:
        turns = [Turn(count(2), (b"abc",)), Turn(count(1), (b"d", b"efg"))]
        Conversation(sock, Script(turns), Strike(kind, at), threading.Event(), ends=False).play()

    lane = Lane(play)
    got = b""
    try:
        with socket.create_connection(("127.0.0.1", lane.port), timeout=5) as sock:
            sock.sendall(b"12")
            if at > 3:
                while len(got) < 3:
                    got += sock.recv(100)
                sock.sendall(b"3")
            while data := sock.recv(100):
                got += data
    except ConnectionResetError:
        got += b"!"
    finally:
        lane.close()
    assert got == b"abcdefg"[:at] + (b"!" if kind == "reset" else b"")
