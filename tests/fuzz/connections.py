"""Targets: what comes over a connection: `HTTP1Exchange`, and the handshakes `HTTPConnect` and `Socks5`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feeding import judged, said
from test_recordings import exchanges, fed
from tunnel_reader import read_connect, read_socks5
from whole_reader import split_responses

from deltawire.protocol import (
    HTTP1_TRANSITIONS,
    HTTP1Exchange,
    HTTP1State,
    HTTPConnect,
    HTTPRequest,
    Limits,
    Proxy,
    ReadError,
    Reply,
    Socks5,
    StreamFailed,
    TunnelFailed,
    TunnelOpened,
)

from .common import COMPARED, Dice, cuttings

if TYPE_CHECKING:
    from deltawire.protocol import Event
    from deltawire.protocol.proxy import TunnelEvent

GET = HTTPRequest("GET", "http://h/", ((b"host", b"h"),))
DIALECTS = ("openai", "openai", "openai", "opchatgpts", "models")
LIMITS = (None, None, Limits(head=60), Limits(line=50, reply=80), Limits(error_body=10, document=20))
CLOSED = HTTP1State.CLOSED

USER, PASSWORD = "user", "canary-password"
HTTP_PROXY = Proxy.parse(f"http://{USER}:{PASSWORD}@proxy:3128")
SOCKS_PROXIES = (Proxy.parse(f"socks5h://{USER}:{PASSWORD}@proxy:1080"), Proxy.parse("socks5://proxy:1080"))
TARGETS = ("api.example", "192.0.2.1", "2001:db8::1")


# --- HTTP/1.1 --------------------------------------------------------------------------------------------

Heard = tuple[list["Event"], HTTP1State]


def heard(parts: list[bytes], dialect: str, limits: Limits | None, ending: str) -> Heard:
    """The events of one exchange, and its state before its end; all its moves are legal, and one verdict is given."""
    made = HTTP1Exchange(GET, Reply(dialect, limits=limits))
    assert made.data_to_send()
    assert made.data_to_send() == b""
    events: list[Event] = []
    for part in parts:
        was = made.state
        events += made.receive(part)
        assert made.state is was or made.state in HTTP1_TRANSITIONS[was, "receive"]
        assert made.done is bool(events and type(events[-1]).__name__ in ("StreamEnded", "StreamFailed"))
        # What is not taken off yet: a head, a line before a chunk, or a chunk that h11 has begun.
        assert len(made._held) <= 10
    state = made.state
    if state is HTTP1State.REUSABLE:
        following = made.next(GET, Reply(dialect))
        assert made.state is CLOSED
        assert following.silent
    if ending:
        events += made.end() if ending == "end" else made.fail(OSError("reset"))
        assert made.done
        assert made.state is CLOSED
        assert made.end() == made.fail(OSError("again")) == made.receive(b"HTTP/1.1 200 OK\r\n\r\n") == []
    return events, state


def http1(data: bytes) -> None:
    """Any split gives the same; a plain loop of h11 says the same; the head is what a naive reader sees."""
    dice = Dice(data)
    dialect, limits, ending = dice.pick(DIALECTS), dice.pick(LIMITS), dice.pick(("end", "end", "fail", ""))
    raw = dice.rest
    events, state = heard([raw], dialect, limits, ending)
    shown = [said(event) for event in events]
    for parts in cuttings(raw):
        others, other = heard(parts, dialect, limits, ending)
        assert [said(event) for event in others] == shown
        # (Bytes behind the message's end in one read with it, or in another one: it is closed in both cases.)
        assert other is state
    if limits is not None or ending != "end":
        return
    found = exchanges([raw])
    by_hand = fed(found[0], dialect=dialect) if found else [StreamFailed(ReadError("no head"))]
    COMPARED["http1"] += 1
    assert judged(events) == judged(by_hand)
    if state is HTTP1State.REUSABLE:
        # (Not so for a head with bare LFs, or fields over several lines, of which the naive reader knows nothing.)
        assert found
        assert found[0][3]
        naive = split_responses(raw)
        if naive and b"\r\n\r\n" in raw and b"\n" not in raw.partition(b"\r\n\r\n")[0].replace(b"\r\n", b""):
            assert naive[-1][0] == found[-1][0]


# --- Tunnels ---------------------------------------------------------------------------------------------


def outcome(events: list[TunnelEvent]) -> tuple[object, ...]:
    """One verdict, in the words of the oracle; nothing in it shows the password."""
    (event,) = events
    if isinstance(event, TunnelOpened):
        return "opened", event.trailing
    assert isinstance(event, TunnelFailed)
    error = event.error
    assert PASSWORD not in f"{error} {error!r} {vars(error)}"
    code = error.reply_code if error.reply_code is not None else error.status_code
    return ("failed",) if code is None else ("refused", code)


def conversed(machine: HTTPConnect | Socks5, parts: list[bytes]) -> tuple[tuple[object, ...], bytes, str]:
    """The verdict, all that was sent, and the words of the failure."""
    events: list[TunnelEvent] = []
    sent = machine.data_to_send()
    assert sent
    for position, part in enumerate(parts):
        done = bool(events)
        came = machine.receive(part)
        assert not (done and came), "nothing comes after the verdict"
        # (What comes after it is the target's.)
        rest = b"".join(parts[position + 1 :])
        events += [TunnelOpened(each.trailing + rest) if isinstance(each, TunnelOpened) else each for each in came]
        assert len(machine._buffer) <= 128 * 1024
        sent += machine.data_to_send()
    events += machine.end()
    assert machine.end() == machine.fail(OSError("late")) == machine.receive(b"late") == []
    assert machine.data_to_send() == b""
    verdict, words = outcome(events), ""
    if isinstance(events[0], TunnelFailed):
        # (How much was said to a proxy that fails depends on when its answers came.)
        words, sent = str(events[0].error), b""
    return verdict, sent, words


def http_connect(data: bytes) -> None:
    """Whatever a proxy says to CONNECT."""
    dice = Dice(data)
    host = dice.pick(TARGETS)
    whole = conversed(HTTPConnect(host, 443, HTTP_PROXY), [dice.rest])
    COMPARED["http_connect"] += 1
    assert whole[0] == read_connect(dice.rest)
    for parts in cuttings(dice.rest):
        assert conversed(HTTPConnect(host, 443, HTTP_PROXY), parts) == whole


def socks5(data: bytes) -> None:
    """Whatever a proxy says to a SOCKS5 client."""
    dice = Dice(data)
    host, proxy = dice.pick(TARGETS), dice.pick(SOCKS_PROXIES)
    whole = conversed(Socks5(host, 443, proxy), [dice.rest])
    COMPARED["socks5"] += 1
    assert whole[0] == read_socks5(dice.rest, proxy.username is not None)
    if whole[0][0] == "opened":
        login = b"\x01\x04user\x0f" + PASSWORD.encode() if dice.rest[1] == 2 else b""
        greeting = b"\x05\x01\x00" if proxy.username is None else b"\x05\x02\x00\x02"
        assert whole[1].startswith(greeting + login + b"\x05\x01\x00")
        assert whole[1].endswith((443).to_bytes(2, "big"))
    for parts in cuttings(dice.rest):
        assert conversed(Socks5(host, 443, proxy), parts) == whole
