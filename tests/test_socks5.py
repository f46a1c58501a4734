"""socks5.py: the handshake whole, byte by byte, at every split, ended at every byte; and against a proxy's side
of it that is written here from RFC 1928 and RFC 1929 alone."""

from __future__ import annotations

import ipaddress
import pickle
from typing import Any

import pytest
from feeding import QUICK, each_byte, splits
from hypothesis import given
from hypothesis import strategies as st

from deltawire.protocol import (
    SOCKS_TRANSITIONS,
    ConfigurationError,
    ConnectError,
    Proxy,
    ProxyError,
    Socks5,
    SocksState,
    TunnelEvent,
    TunnelFailed,
    TunnelOpened,
    is_retryable,
)

OPEN = Proxy.parse("socks5h://proxy.example")
LOCKED = Proxy.parse("socks5://user:pa%20ss@proxy.example:1081")

NONE, PASSWORD, ALLOWED = b"\x05\x00", b"\x05\x02", b"\x01\x00"
BOUND = {
    "ipv4": b"\x05\x00\x00\x01\x7f\x00\x00\x01\x1f\x90",
    "ipv6": b"\x05\x00\x00\x04" + bytes(15) + b"\x01\x1f\x90",
    "name": b"\x05\x00\x00\x03\x05proxy\x1f\x90",
    "no name": b"\x05\x00\x00\x03\x00\x1f\x90",
    "longest name": b"\x05\x00\x00\x03\xff" + b"a" * 255 + b"\x00\x00",
    "reserved": b"\x05\x00\xff\x01\x00\x00\x00\x00\x00\x00",
}
GREETING = b"\x05\x01\x00"
REQUEST = b"\x05\x01\x00\x03\x0bapi.example\x01\xbb"


def machine(proxy: Proxy = LOCKED, host: str = "api.example", port: int = 443) -> Socks5:
    return Socks5(host, port, proxy)


def fed(parts: list[bytes], proxy: Proxy = LOCKED, *, ended: bool = True) -> list[TunnelEvent]:
    """The events; what comes after `TunnelOpened` is counted among what the target has sent."""
    socks = machine(proxy)
    events: list[TunnelEvent] = []
    for part in parts:
        if events and isinstance(events[0], TunnelOpened):
            assert socks.receive(part) == []
            events = [TunnelOpened(events[0].trailing + part)]
        else:
            events += socks.receive(part)
    return events + socks.end() if ended else events


def said(events: list[TunnelEvent]) -> list[object]:
    """Events in a form that compares."""
    return [event if isinstance(event, TunnelOpened) else (repr(event), vars(event.error)) for event in events]


def every_way(data: bytes) -> list[list[bytes]]:
    ways = [[data], each_byte(data)]
    return ways + [[data[:at], b"", data[at:]] for at in range(len(data) + 1)]


def failure(events: list[TunnelEvent]) -> ProxyError:
    (event,) = events
    assert isinstance(event, TunnelFailed)
    error = event.error
    assert type(error) is ProxyError
    assert isinstance(error, ConnectError)
    assert "pa ss" not in f"{event!r} {error} {error!r} {vars(error)}"
    assert error.status_code is None
    assert is_retryable(error) is error.transient
    return error


# --- What is sent ----------------------------------------------------------------------------------


def test_without_credentials() -> None:
    socks = machine(OPEN)
    assert (socks.data_to_send(), socks.data_to_send()) == (GREETING, b"")
    assert socks.receive(NONE) == []
    assert (socks.data_to_send(), socks.data_to_send()) == (REQUEST, b"")
    assert socks.receive(BOUND["ipv4"]) == [TunnelOpened(b"")]
    assert socks.data_to_send() == b""


def test_with_user_and_password() -> None:
    socks = machine()
    assert socks.data_to_send() == b"\x05\x02\x00\x02"
    assert socks.receive(PASSWORD) == []
    assert (socks.data_to_send(), socks.data_to_send()) == (b"\x01\x04user\x05pa ss", b"")
    assert socks.receive(ALLOWED) == []
    assert (socks.data_to_send(), socks.data_to_send()) == (REQUEST, b"")
    assert socks.receive(BOUND["name"]) == [TunnelOpened(b"")]
    assert socks.data_to_send() == b""


def test_credentials_that_the_proxy_does_not_ask_for_are_not_sent() -> None:
    socks = machine()
    socks.data_to_send()
    assert socks.receive(NONE) == []
    assert socks.data_to_send() == REQUEST


def test_a_user_without_a_password() -> None:
    socks = machine(Proxy.parse("socks5://user@p"))
    assert socks.data_to_send() == b"\x05\x02\x00\x02"
    socks.receive(PASSWORD)
    assert socks.data_to_send() == b"\x01\x04user\x00"


def test_a_password_of_none_and_no_user_is_no_credential() -> None:
    assert machine(Proxy("socks5", "p", 1, None, "")).data_to_send() == GREETING


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("127.0.0.1", 80, b"\x01\x7f\x00\x00\x01\x00\x50"),
        ("255.255.255.255", 65535, b"\x01\xff\xff\xff\xff\xff\xff"),
        ("::1", 8443, b"\x04" + bytes(15) + b"\x01\x20\xfb"),
        ("fd00::a:b", 1, b"\x04\xfd\x00" + bytes(10) + b"\x00\x0a\x00\x0b\x00\x01"),
        ("localhost", 256, b"\x03\x09localhost\x01\x00"),
        ("xn--bcher-kva.example", 443, b"\x03\x15xn--bcher-kva.example\x01\xbb"),
        ("127.1", 80, b"\x03\x05127.1\x00\x50"),
        ("a" * 255, 1, b"\x03\xff" + b"a" * 255 + b"\x00\x01"),
    ],
)
def test_addresses(host: str, port: int, words: bytes) -> None:
    for proxy in (OPEN, LOCKED):
        socks = machine(proxy, host, port)
        socks.data_to_send()
        socks.receive(NONE)
        assert socks.data_to_send() == b"\x05\x01\x00" + words


def test_a_name_that_socks_cannot_say() -> None:
    with pytest.raises(ConfigurationError) as caught:
        machine(host="a" * 256)
    assert str(caught.value) == "the host is longer than 255 bytes, more than SOCKS can say"


# --- Opened ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", BOUND)
@pytest.mark.parametrize("before", [NONE, PASSWORD + ALLOWED, PASSWORD + b"\x05\x00"])
def test_opened_however_it_is_split(before: bytes, bound: str) -> None:
    data = before + BOUND[bound]
    for trailing in (b"", b"\x05\x00early\n"):
        for parts in every_way(data + trailing):
            assert fed(parts) == [TunnelOpened(trailing)]
    socks = machine()
    for at in range(len(data) - 1):
        assert socks.receive(data[at : at + 1]) == []
    assert socks.receive(data[-1:] + b"ab") == [TunnelOpened(b"ab")]
    assert socks.receive(b"c") == socks.end() == socks.fail(OSError("x")) == []


def test_what_a_proxy_says_before_its_turn() -> None:
    socks = machine()
    assert socks.data_to_send() == b"\x05\x02\x00\x02"
    assert socks.receive(PASSWORD + ALLOWED + BOUND["ipv4"] + b"x") == [TunnelOpened(b"x")]
    # The words are due all the same.
    assert socks.data_to_send() == b"\x01\x04user\x05pa ss" + REQUEST


# --- Failed ----------------------------------------------------------------------------------------

TRANSIENT = {1: True, 2: False, 3: True, 4: True, 5: True, 6: True, 7: False, 8: False, 9: True, 0x5B: True, 255: True}
UNKNOWN = "gives a reason that RFC 1928 does not know: see its log"
WORDS = {
    1: "reports a general failure: see its log, or try again later",
    2: "does not allow this by its rules: ask who runs it, or do without it for this host (NO_PROXY)",
    3: "can't reach the network: is the address right, and has the proxy a way there (IPv6?)",
    4: "can't reach the host: is its name right, and does it run?",
    5: "says that the host refused the connection: is the server running, and is its port right?",
    6: "says that the connection took too long (TTL expired): try again later",
    7: "does not support CONNECT: use another proxy",
    8: "does not support this type of address: with socks5:// names are resolved here, not there",
    9: UNKNOWN, 0x5B: UNKNOWN, 255: UNKNOWN,
}  # fmt: skip


@pytest.mark.parametrize("code", TRANSIENT)
@pytest.mark.parametrize("rest", [b"", b"\x00\x01", b"\x00\x01\x00\x00\x00\x00\x00\x00", b"\x00\x09"])
def test_refused_with_a_code(code: int, rest: bytes) -> None:
    data = NONE + bytes([5, code]) + rest
    whole = failure(fed([data], ended=False))
    assert (whole.reply_code, whole.transient) == (code, TRANSIENT[code])
    assert whole.proxy == "socks5://proxy.example:1081"
    assert str(whole) == (
        "the proxy socks5://proxy.example:1081 opened no tunnel to api.example:443: "
        f"it {WORDS[code]} (SOCKS reply {code})"
    )
    for parts in every_way(data):
        assert said(fed(parts)) == said([TunnelFailed(whole)])
    again = pickle.loads(pickle.dumps(whole))
    assert (again.reply_code, again.transient, str(again)) == (code, TRANSIENT[code], str(whole))


def test_each_code_has_its_own_words() -> None:
    assert len({str(failure(fed([NONE + bytes([5, code])]))).partition("(SOCKS")[0] for code in TRANSIENT}) == 9


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("a.example", "with socks5:// names are resolved here, not there"),
        ("10.0.0.1", "give the server's name, with socks5h://"),
        ("::1", "give the server's name, with socks5h://, or its IPv4 address"),
    ],
)
def test_a_type_of_address_that_it_does_not_take(host: str, words: str) -> None:
    socks = machine(host=host)
    said = f"it does not support this type of address: {words} (SOCKS reply 8)"
    assert str(failure(socks.receive(NONE + b"\x05\x08"))).endswith(said)


PUT = "put user and password into its URL, percent-encoded, as socks5h://user:password@host:port"
CHECK = "check them, and that they are percent-encoded in its URL"
IS_IT = "is it a SOCKS5 proxy?"
NOT = "does not answer in SOCKS5, but with"
HTTP = "it speaks HTTP: write http:// (or https://)"
SOCKS4 = "it looks like SOCKS4, which is not supported: use a SOCKS5 or HTTP proxy"
SOCKS4_SAID = f"{NOT} '\\x00[\\x01\ufffd\\x00\\x00\\x00\\x00': {SOCKS4}"


@pytest.mark.parametrize(
    ("proxy", "data", "transient", "words"),
    [
        (OPEN, b"\x05\xff", False, f"wants user and password, or another proof (SOCKS method 255): {PUT}"),
        (LOCKED, b"\x05\xff", False, "wants another proof than user and password (SOCKS method 255): ask who runs it"),
        (OPEN, b"\x05\x02", True, f"chose an authentication that was not offered (SOCKS method 2): {PUT}"),
        (LOCKED, b"\x05\x01", True, "chose an authentication that was not offered (SOCKS method 1): ask who runs it"),
        (LOCKED, PASSWORD + b"\x01\x01", False, f"refused user and password (status 1): {CHECK}"),
        (LOCKED, PASSWORD + b"\x01\xff", False, f"refused user and password (status 255): {CHECK}"),
        (LOCKED, PASSWORD + b"\x05\x01", False, f"refused user and password (status 1): {CHECK}"),
        (LOCKED, PASSWORD + b"\x02\x00", True, "answers user and password with version 2, not 1 (RFC 1929)"),
        (LOCKED, PASSWORD + b"HT", True, "answers user and password with version 72, not 1 (RFC 1929)"),
        (LOCKED, PASSWORD + ALLOWED + b"\x04\x00", True, f"answers the request with version 4, not 5: {IS_IT}"),
        (OPEN, NONE + b"HTTP/1.1", True, f"answers the request with version 72, not 5: {IS_IT}"),
        (OPEN, NONE + b"\x00\x01", True, f"answers the request with version 0, not 5: {IS_IT}"),
        (OPEN, NONE + b"\x05\x00\x00\x00", True, f"answers with an address of the unknown type 0: {IS_IT}"),
        (OPEN, NONE + b"\x05\x00\x00\x02abcdef", True, f"answers with an address of the unknown type 2: {IS_IT}"),
        (OPEN, b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n", True, f"{NOT} 'HTTP/1.1 400 Bad Request': {HTTP}"),
        (OPEN, b"<html>\nx", True, f"{NOT} '<html>': {HTTP}"),
        (OPEN, b"\x00\x5b\x01\xbb\x00\x00\x00\x00more", True, SOCKS4_SAID),
        (OPEN, b"\x00\x5b\n", True, rf"{NOT} '\x00[': {SOCKS4}"),
        (OPEN, b"\x04" + b"y" * 100, True, rf"{NOT} '\x04{'y' * 63}': {SOCKS4}"),
        (OPEN, b"SSH-2.0-OpenSSH_9\r\nx", True, f"{NOT} 'SSH-2.0-OpenSSH_9': {IS_IT}"),
        (OPEN, b"x" * 64 + b"yz", True, f"{NOT} '{'x' * 64}': {IS_IT}"),
        (OPEN, b"\n", True, f"{NOT} '': {IS_IT}"),
        (LOCKED, b"no pa ss\n", True, f"{NOT} 'no ***': {IS_IT}"),
    ],
)  # fmt: skip
def test_failed_however_it_is_split(proxy: Proxy, data: bytes, transient: bool, words: str) -> None:
    # All of these are told at once: nothing else is waited for.
    whole = failure(fed([data], proxy, ended=False))
    assert str(whole) == f"the proxy {proxy.url} {words}"
    assert (whole.transient, whole.reply_code, whole.proxy) == (transient, None, proxy.url)
    for parts in every_way(data):
        assert said(fed(parts, proxy)) == said([TunnelFailed(whole)])


@pytest.mark.parametrize("proxy", [OPEN, LOCKED])
def test_advice_fits_the_scheme(proxy: Proxy) -> None:
    advice = f"{proxy.scheme}://user:password@host:port"
    assert (advice in str(failure(fed([b"\x05\xff"], proxy)))) == (proxy is OPEN)


def test_a_stranger_is_heard_out() -> None:
    # So that the verdict quotes the same, whatever is known when the first byte tells.
    assert fed([b"HTTP/1.1 400 Bad"], OPEN, ended=False) == []
    assert "with 'HTTP/1.1 400 Bad...': it speaks HTTP" in str(failure(fed([b"HTTP/1.1 400 Bad"], OPEN)))
    assert fed([b"x" * 63], OPEN, ended=False) == []
    assert fed([b"\x00" * 7], OPEN, ended=False) == []
    (event,) = fed([b"\x00" * 8], OPEN, ended=False)
    assert isinstance(event, TunnelFailed)
    socks = machine()
    assert socks.receive(b"\x15\x03\x01") == []
    assert r"with '\x15\x03\x01...'" in str(failure(socks.fail(OSError("timed out"))))
    socks = machine(Proxy.parse("socks5://u:correct-horse@p"))
    assert socks.receive(b"it is correct-ho") == []
    assert "corr" not in repr(socks.end())


# --- Broken off ------------------------------------------------------------------------------------

STAGES = [
    (0, "while choosing how to authenticate", "is it a SOCKS5 proxy?"),
    (2, "while checking user and password", "are user and password right?"),
    (4, "while connecting", "try again later"),
]


@pytest.mark.parametrize("how", ["end", "fail"])
@pytest.mark.parametrize("bound", BOUND)
def test_what_breaks_off_at_every_byte(bound: str, how: str) -> None:
    data = PASSWORD + ALLOWED + BOUND[bound]
    for at in range(len(data)):
        for parts in ([data[:at]], each_byte(data[:at])):
            socks = machine()
            assert [event for part in parts for event in socks.receive(part)] == []
            error = failure(socks.end() if how == "end" else socks.fail(OSError("reset by pa ss")))
            assert error.transient
            assert error.reply_code is None
            _, stage, advice = next(each for each in reversed(STAGES) if each[0] <= at)
            what = "closed the connection" if how == "end" else "failed (reset by ***)"
            words = f"{what} {stage}, before there was a tunnel to api.example:443: {advice}"
            assert str(error) == f"the proxy {LOCKED.url} {words}"
            assert socks.end() == socks.fail(OSError("x")) == socks.receive(data) == []
            assert socks.data_to_send() == b"", "no password for one who has gone"


def test_a_connection_that_fails_without_words() -> None:
    assert "failed (TimeoutError) while" in str(failure(machine().fail(TimeoutError())))


# --- States ----------------------------------------------------------------------------------------


def test_all_moves_are_in_the_table_and_all_in_the_table_are_made() -> None:
    made: set[tuple[SocksState, SocksState]] = set()
    answers = [
        NONE + BOUND["ipv4"], PASSWORD + ALLOWED + BOUND["ipv4"], PASSWORD + b"\x01\x01", b"\x05\xff", b"SSH\n",
        NONE + b"\x05\x01",
    ]  # fmt: skip
    for answer in answers:
        socks = machine()
        for part in each_byte(answer):
            before = socks.state
            socks.receive(part)
            if socks.state is not before:
                made.add((before, socks.state))
        assert socks.state is SocksState.DONE
    assert made == {(state, to) for state, many in SOCKS_TRANSITIONS.items() for to in many}
    assert SOCKS_TRANSITIONS.keys() == set(SocksState)


# --- Against the RFCs ------------------------------------------------------------------------------


class Server:
    """The proxy's side, strict: it takes what RFC 1928 and RFC 1929 allow and nothing else."""

    def __init__(self, user: bytes | None, password: bytes) -> None:
        self.user, self.password = user, password
        self.asked: tuple[str, int] | None = None
        self.state = "greeting"

    def answer(self, data: bytes) -> bytes:
        """What it answers to one message of the client."""
        state, self.state = self.state, "over"
        if state == "greeting":
            version, count, *methods = data
            assert (version, count) == (5, len(methods))
            assert count >= 1
            if self.user is None:
                assert 0 in methods
                self.state = "request"
                return b"\x05\x00"
            assert 2 in methods
            self.state = "password"
            return b"\x05\x02"
        if state == "password":
            version, length = data[:2]
            user, rest = data[2 : 2 + length], data[2 + length :]
            assert version == 1
            assert 1 <= length <= 255
            assert rest[0] == len(rest) - 1
            good = (user, rest[1:]) == (self.user, self.password)
            self.state = "request" if good else "over"
            return b"\x01\x00" if good else b"\x01\x01"
        assert state == "request"
        assert data[:3] == b"\x05\x01\x00"
        address, port = data[4:-2], int.from_bytes(data[-2:], "big")
        if data[3] == 1:
            assert len(address) == 4
            host = ".".join(str(each) for each in address)
        elif data[3] == 4:
            assert len(address) == 16
            host = str(ipaddress.IPv6Address(address))
        else:
            assert data[3] == 3
            assert address[0] == len(address) - 1 >= 1
            host = address[1:].decode("ascii")
        self.asked = host, port
        return b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


USERS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=255).filter(
    lambda text: len(text.encode()) <= 255
)
NAMES = st.from_regex(r"\A[a-z]([a-z0-9-]{0,60}[a-z])?(\.[a-z][a-z0-9-]{0,60}){0,3}\Z")
HOSTS = NAMES | st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str)


def converse(socks: Socks5, server: Server, draw: Any) -> list[TunnelEvent]:
    events: list[TunnelEvent] = []
    while sending := socks.data_to_send():
        for part in draw(splits(server.answer(sending))):
            events += socks.receive(part)
    return events


@QUICK
@given(st.data(), HOSTS, st.integers(1, 65535), USERS | st.none(), USERS | st.just(""))
def test_any_host_user_and_password(data: st.DataObject, host: str, port: int, user: str | None, password: str) -> None:
    proxy = Proxy("socks5", "p", 1, user, password if user is not None else None)
    server = Server(None if user is None else user.encode(), password.encode())
    assert converse(Socks5(host, port, proxy), server, data.draw) == [TunnelOpened(b"")]
    assert server.asked == (host, port)
    if user is not None:
        other = Server(user.encode(), password.encode() + b"x")
        (event,) = converse(Socks5(host, port, proxy), other, data.draw)
        assert isinstance(event, TunnelFailed)
        assert not event.error.transient
        assert other.asked is None


TURNS = st.sampled_from([
    NONE, PASSWORD, ALLOWED, b"\x05\xff", b"\x05", b"\x00", b"\x01\x01", b"HTTP/1.1 400 Bad\r\n", b"pa ss", b"\n",
    b"\x05\x00\x00\x03", *BOUND.values(),
])  # fmt: skip


@QUICK
@given(st.data(), st.lists(TURNS, max_size=5).map(b"".join) | st.binary(max_size=80), st.sampled_from([OPEN, LOCKED]))
def test_any_bytes_give_one_verdict(data: st.DataObject, answer: bytes, proxy: Proxy) -> None:
    whole = fed([answer], proxy)
    assert len(whole) == 1
    if isinstance(whole[0], TunnelFailed) and proxy is LOCKED:
        failure(whole)
    assert said(fed(data.draw(splits(answer)), proxy)) == said(whole)
    assert said(fed(each_byte(answer), proxy)) == said(whole)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_of_another_kind_is_refused(scheme: str) -> None:
    with pytest.raises(ConfigurationError, match="does not speak SOCKS: HTTPConnect is its handshake"):
        Socks5("s", 80, Proxy(scheme, "p", 1))
