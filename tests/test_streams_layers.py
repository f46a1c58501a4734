"""layers.py: TLS over any bytes, against a server in memory; and what all streams share."""

from __future__ import annotations

import ipaddress
import math
import socket
import ssl

import pytest
import trustme
from streaming import FarTLS, reset, tcp_pair

from deltawire.transports.streams.layers import (
    TLS,
    Layers,
    after,
    interleaved,
    is_ip_address,
    is_readable,
    set_options,
)

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def far_context(request: pytest.FixtureRequest, authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    context.minimum_version = context.maximum_version = request.param
    return context


@pytest.fixture
def far(far_context: ssl.SSLContext) -> FarTLS:
    return FarTLS(far_context)


def shake_hands(near: TLS, far: FarTLS, size: int = 1 << 20) -> None:
    """The handshake, in pieces of so many bytes."""
    while not near.handshake():
        answer = far.answer(near.outgoing())
        assert answer
        for position in range(0, len(answer), size):
            near.feed(answer[position : position + size])
            near.handshake()
    # In TLS 1.3 the client has the last word, and gets its tickets for it.
    if tickets := far.answer(near.outgoing()):
        near.feed(tickets)


def shaken(trusting: ssl.SSLContext, far: FarTLS) -> TLS:
    near = TLS(trusting, "localhost")
    shake_hands(near, far)
    return near


# --- TLS: bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 100, 1 << 20])
def test_a_handshake_in_pieces(trusting: ssl.SSLContext, far: FarTLS, size: int) -> None:
    near = TLS(trusting, "localhost")
    shake_hands(near, far, size)
    assert far.hear(near.encrypt(b"question")) == b"question"
    near.feed(far.say(b"answer"))
    assert near.decrypt() == b"answer"


def test_nothing_has_come(trusting: ssl.SSLContext, far: FarTLS) -> None:
    near = shaken(trusting, far)
    assert near.decrypt() is None
    assert near.decrypt() is None
    assert not near.over


def test_records_at_every_split(trusting: ssl.SSLContext, far: FarTLS) -> None:
    near = shaken(trusting, far)
    size = len(far.say(b"one!"))
    near = shaken(trusting, far := FarTLS(far.object.context))
    for at in range(size):
        both = far.say(b"one!") + far.say(b"two!")
        if at:
            near.feed(both[:at])
            assert near.decrypt() is None
        near.feed(both[at : size + at])
        assert near.decrypt() == b"one!"
        near.feed(both[size + at :])
        assert near.decrypt() == b"two!"


def test_many_records_in_one_read(trusting: ssl.SSLContext, far: FarTLS) -> None:
    near = shaken(trusting, far)
    near.feed(b"".join(far.say(b"%d," % number) for number in range(100)))
    assert near.decrypt() == b"".join(b"%d," % number for number in range(100))


def test_much_at_once(trusting: ssl.SSLContext, far: FarTLS) -> None:
    near = shaken(trusting, far)
    much = bytes(range(256)) * 20_000
    assert far.hear(near.encrypt(much)) == much
    near.feed(far.say(much))
    assert near.decrypt() == much


def test_bytes_behind_the_handshake(trusting: ssl.SSLContext, authority: trustme.CA) -> None:
    """With TLS 1.2 the server has the last word, and may go on at once."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    near, far = TLS(trusting, "localhost"), FarTLS(context)
    near.handshake()
    near.feed(far.answer(near.outgoing()))
    near.handshake()
    near.feed(far.answer(near.outgoing()) + far.say(b"early") + far.say(b" bird"))
    assert near.handshake()
    layers = Layers(math.inf)
    layers.secured(near)
    assert (layers.early, layers.shared) == (b"early bird", False)


# --- TLS: the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"last words"])
@pytest.mark.parametrize("ragged", [False, True])
def test_the_end(trusting: ssl.SSLContext, far: FarTLS, data: bytes, ragged: bool) -> None:
    near = shaken(trusting, far)
    if data:
        near.feed(far.say(data))
    near.feed(b"" if ragged else far.bye())
    if data:
        assert near.decrypt() == data
    assert near.decrypt() == b""
    assert near.over
    # For good, and whatever comes behind it.
    near.feed(b"")
    assert near.decrypt() == b""


def test_the_end_in_a_record(trusting: ssl.SSLContext, far: FarTLS) -> None:
    near = shaken(trusting, far)
    near.feed(far.say(b"whole") + far.say(b"cut")[:-1])
    near.feed(b"")
    assert near.decrypt() == b"whole"
    assert near.decrypt() == b""


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x17\x03\x03\x00\x20" + b"x" * 32])
def test_garbage(trusting: ssl.SSLContext, far: FarTLS, garbage: bytes) -> None:
    near = shaken(trusting, far)
    near.feed(garbage)
    for _ in range(3):
        with pytest.raises(ssl.SSLError):
            near.decrypt()


def test_garbage_behind_data(trusting: ssl.SSLContext, far: FarTLS) -> None:
    """What came before it counts; then it is an error, for good."""
    near = shaken(trusting, far)
    near.feed(far.say(b"good") + b"\x17\x03\x03\x00\x20" + b"x" * 32)
    assert near.decrypt() == b"good"
    assert near.over
    for _ in range(3):
        with pytest.raises(ssl.SSLError):
            near.decrypt()


def test_garbage_for_a_handshake(trusting: ssl.SSLContext) -> None:
    near = TLS(trusting, "localhost")
    assert not near.handshake()
    near.feed(b"SSH-2.0-OpenSSH_9.6\r\n")
    with pytest.raises(ssl.SSLError):
        near.handshake()


def test_the_end_of_a_handshake(trusting: ssl.SSLContext, far: FarTLS) -> None:
    near = TLS(trusting, "localhost")
    near.handshake()
    size = len(far.answer(near.outgoing()))
    # A signature may be a byte or two longer another time.
    for at in range(0, size - 9, 97):
        near, other = TLS(trusting, "localhost"), FarTLS(far.object.context)
        near.handshake()
        if flight := other.answer(near.outgoing())[:at]:
            near.feed(flight)
            assert not near.handshake()
        near.feed(b"")
        with pytest.raises(ssl.SSLEOFError):
            near.handshake()


# --- TLS: trust ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("trusted", "name"), [(False, "localhost"), (True, "example.org")])
def test_who_is_not_trusted_is_told(
    trusting: ssl.SSLContext, far_context: ssl.SSLContext, trusted: bool, name: str
) -> None:
    near = TLS(trusting if trusted else ssl.create_default_context(), name)
    far = FarTLS(far_context)
    near.handshake()
    near.feed(far.answer(near.outgoing()))
    with pytest.raises(ssl.SSLCertVerificationError):
        near.handshake()
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        far.answer(near.outgoing())


# --- Layers -------------------------------------------------------------------------------------------


class Twice:
    """TLS in TLS: what a stream does, and both peers of it."""

    def __init__(self, trusting: ssl.SSLContext, context: ssl.SSLContext) -> None:
        self.layers = Layers(math.inf)
        self.outer, self.inner = FarTLS(context), FarTLS(context)
        near = TLS(trusting, "localhost")
        shake_hands(near, self.outer)
        self.layers.secured(near)
        near = TLS(trusting, "localhost")
        while not near.handshake():
            near.feed(self._told(near.outgoing()))
        # Tickets of the inner layer, and of the outer.
        near.feed(self._told(near.outgoing()))
        self.layers.secured(near)

    def _told(self, data: bytes) -> bytes:
        """What comes for this, above the outer layer."""
        answer = self.inner.answer(self.outer.hear(self.layers._encrypted(data)))
        return self.layers._decrypted(self.outer.say(answer)) or b""


@pytest.fixture
def twice(trusting: ssl.SSLContext, server_context: ssl.SSLContext) -> Twice:
    return Twice(trusting, server_context)


def test_tls_in_tls(twice: Twice) -> None:
    sent = twice.layers._encrypted(b"question")
    assert twice.inner.hear(twice.outer.hear(sent)) == b"question"
    assert twice.layers._encrypted(b"") == b""
    said = twice.outer.say(twice.inner.say(b"answer"))
    for at in range(len(said) - 1):
        assert twice.layers._decrypted(said[at : at + 1]) is None
    assert twice.layers._decrypted(said[-1:]) == b"answer"


def test_the_inner_end(twice: Twice) -> None:
    assert twice.layers._decrypted(twice.outer.say(twice.inner.say(b"last") + twice.inner.bye())) == b"last"
    assert twice.layers._ready() == b""
    assert twice.layers._ready() == b""


def test_the_outer_end_comes_with_data(twice: Twice) -> None:
    """A proxy ends its TLS and leaves the socket open: nothing more can come."""
    said = twice.outer.say(twice.inner.say(b"last")) + twice.outer.bye()
    assert twice.layers._decrypted(said) == b"last"
    assert twice.layers._ready() == b""


def test_the_outer_end_in_an_inner_record(twice: Twice) -> None:
    said = twice.outer.say(twice.inner.say(b"cut")[:-1]) + twice.outer.bye()
    assert twice.layers._decrypted(said) == b""
    assert twice.layers._ready() == b""


def test_the_sockets_end(twice: Twice) -> None:
    assert twice.layers._decrypted(b"") == b""
    assert twice.layers._ready() == b""


def test_early_bytes_come_first() -> None:
    layers = Layers(math.inf)
    assert layers._ready() is None
    layers.early = b"early"
    assert layers._ready() == b"early"
    assert layers._ready() is None
    layers.early = b"early"
    layers.closed = True
    with pytest.raises(OSError, match="closed"):
        layers._ready()


def test_after() -> None:
    assert after(None) == math.inf
    assert after(-5) < after(0) < after(5)


# --- Sockets ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_tidy")
@pytest.mark.parametrize("event", ["nothing", "bytes", "end", "reset", "closed here"])
def test_is_readable(event: str) -> None:
    near, far = tcp_pair()
    with near, far:
        if event == "bytes":
            far.sendall(b"x")
            near.recv(1, socket.MSG_PEEK)
        elif event == "end":
            far.close()
            near.recv(1, socket.MSG_PEEK)
        elif event == "reset":
            reset(far)
            with pytest.raises(ConnectionResetError):
                near.recv(1, socket.MSG_PEEK)
        elif event == "closed here":
            near.close()
        assert is_readable(near) == (event != "nothing")


@pytest.mark.usefixtures("_tidy")
def test_options() -> None:
    with socket.socket() as sock:
        set_options(sock)
        assert options_of(sock) == OPTIONS
    near, far = socket.socketpair()
    with near, far:
        set_options(near)


OPTIONS = {"nodelay": 1, "keepalive": 1, "idle": 60, "interval": 60, "count": 5}


def options_of(sock: socket.socket) -> dict[str, int]:
    return {
        "nodelay": int(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0),
        "keepalive": int(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0),
        "idle": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        "interval": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
        "count": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    }


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("fe80::1%eth0", True), ("localhost", False), ("1.2.3", False), ("", False)],
)
def test_is_ip_address(host: str, expected: bool) -> None:
    assert is_ip_address(host) == expected


def test_families_by_turns() -> None:
    def address(text: str) -> tuple[int, int, int, str, tuple[str, int]]:
        family = socket.AF_INET if ipaddress.ip_address(text).version == 4 else socket.AF_INET6
        return (family, socket.SOCK_STREAM, 6, "", (text, 80))

    found = [address(each) for each in ("::1", "::2", "::3", "1.1.1.1", "1.1.1.2")]
    assert [each[4][0] for each in interleaved(found)] == ["::1", "1.1.1.1", "::2", "1.1.1.2", "::3"]
    assert interleaved([]) == []
