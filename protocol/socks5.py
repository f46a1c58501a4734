"""Tunnels through SOCKS5 proxies: RFC 1928, with user and password as RFC 1929 has it.

Theory: a conversation in three turns. Each begins when the turn before it has ended well, and is over when the
length that it has by the RFC has come; what a peer says early counts when its turn comes. ::

    METHOD    we: VER NMETHODS METHODS           it: VER METHOD           00 -> REPLY, 02 -> PASSWORD
    PASSWORD  we: VER ULEN UNAME PLEN PASSWD     it: VER STATUS           00 -> REPLY
    REPLY     we: VER CMD RSV ATYP ADDR PORT     it: VER REP RSV ATYP     00 -> opened
                                                     ADDR PORT
    STRANGER  nothing more                       it: anything             -> failed, with its words

Anything else, and the end of the connection, is failed. STRANGER is where an answer leads whose first byte is no
VER: its line, or what else tells who speaks there, is waited for, so that the verdict can quote it, the same
however the bytes are split. No turn is longer than 262 bytes, which bounds the machine.
"""

from __future__ import annotations

import enum

from .context import Context
from .errors import ConfigurationError, ProxyError
from .proxy import Proxy, TunnelEvent, TunnelFailed, TunnelOpened, check_target
from .status import one_line
from .urls import authority

_VERSION = 5
_NO_AUTHENTICATION, _PASSWORD, _NONE_ACCEPTABLE = 0x00, 0x02, 0xFF
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4


class SocksState(enum.Enum):
    """Where a SOCKS5 handshake stands: what the proxy is to say next."""

    METHOD = "choosing how to authenticate"
    PASSWORD = "checking user and password"
    REPLY = "connecting"
    STRANGER = "speaking another protocol"
    DONE = "the verdict is given"


# From each state, where it may lead.
SOCKS_TRANSITIONS: dict[SocksState, frozenset[SocksState]] = {
    SocksState.METHOD: frozenset({SocksState.PASSWORD, SocksState.REPLY, SocksState.STRANGER, SocksState.DONE}),
    SocksState.PASSWORD: frozenset({SocksState.REPLY, SocksState.DONE}),
    SocksState.REPLY: frozenset({SocksState.DONE}),
    SocksState.STRANGER: frozenset({SocksState.DONE}),
    SocksState.DONE: frozenset(),
}

# RFC 1928 section 6, REP: what it means, what to do, and whether trying again may help.
_REPLIES: dict[int, tuple[str, bool]] = {
    1: ("reports a general failure: see its log, or try again later", True),
    2: ("does not allow this by its rules: ask who runs it, or do without it for this host (NO_PROXY)", False),
    3: ("can't reach the network: is the address right, and has the proxy a way there (IPv6?)", True),
    4: ("can't reach the host: is its name right, and does it run?", True),
    5: ("says that the host refused the connection: is the server running, and is its port right?", True),
    6: ("says that the connection took too long (TTL expired): try again later", True),
    7: ("does not support CONNECT: use another proxy", False),
    8: ("does not support this type of address: {other}", False),
}
_OTHER_ADDRESS = {
    _NAME: "with socks5:// names are resolved here, not there",
    _IPV4: "give the server's name, with socks5h://",
    _IPV6: "give the server's name, with socks5h://, or its IPv4 address",
}

# As much as is quoted of a stranger's answer, if it has no line; and how long all answers in SOCKS4 are.
_QUOTED = 64
_SOCKS4_REPLY = 8


class Socks5:
    """The handshake for a tunnel through a SOCKS5 proxy: RFC 1928, and RFC 1929 for user and password.

    Send `data_to_send`, then feed `receive` what comes and send `data_to_send` again, until there is the one
    event: `TunnelOpened` or `TunnelFailed`. An IP address goes out as one, anything else as a name, which the
    proxy resolves: who wants it resolved here (socks5://) gives its address. Raises `ConfigurationError` for a
    host that is no ASCII or longer than 255 bytes, a port that TCP has not, and a proxy of another scheme.
    """

    __slots__ = ("_buffer", "_context", "_proxy", "_request", "_sending", "_shown", "_state", "_type")

    def __init__(self, host: str, port: int, proxy: Proxy) -> None:
        check_target(host, port)
        if not proxy.speaks_socks:
            raise ConfigurationError(f"the proxy {proxy.url} does not speak SOCKS: HTTPConnect is its handshake")
        self._proxy = proxy
        self._shown = authority(host, port)
        self._type, address = _address(host)
        self._request = bytes([_VERSION, _CONNECT, 0, self._type]) + address + port.to_bytes(2, "big")
        methods = [_NO_AUTHENTICATION] if proxy.username is None else [_NO_AUTHENTICATION, _PASSWORD]
        self._sending = bytes([_VERSION, len(methods), *methods])
        self._buffer = bytearray()
        self._state = SocksState.METHOD
        # A proxy may say the password back.
        self._context = Context(secrets=proxy.secrets)

    @property
    def state(self) -> SocksState:
        """What the proxy is to say next."""
        return self._state

    def data_to_send(self) -> bytes:
        """What is to be sent now, once; b"" when the proxy is to speak."""
        sending, self._sending = self._sending, b""
        return sending

    def receive(self, data: bytes) -> list[TunnelEvent]:
        """Bytes from the proxy have come."""
        if self._state is SocksState.DONE:
            return []
        self._buffer += data
        if self._state is SocksState.METHOD and self._buffer and self._buffer[0] != _VERSION:
            self._state = SocksState.STRANGER
        while len(self._buffer) >= (length := self._length()):
            turn = bytes(self._buffer[:length])
            del self._buffer[:length]
            if events := self._take(turn):
                return events
        return []

    def end(self) -> list[TunnelEvent]:
        """The proxy has closed the connection. Idempotent."""
        return self._broken("closed the connection")

    def fail(self, error: Exception) -> list[TunnelEvent]:
        """The connection to the proxy broke, or took too long. Idempotent."""
        return self._broken(f"failed ({one_line(str(error), self._context) or type(error).__name__})")

    def _length(self) -> int:
        """How long the proxy's turn is, as far as what has come of it tells; else more than has come."""
        turn = self._buffer
        if self._state is SocksState.STRANGER:
            longest = _SOCKS4_REPLY if turn[0] == 0 else _QUOTED
            return turn.find(b"\n", 0, longest) + 1 or longest
        if self._state is not SocksState.REPLY or len(turn) < 2 or turn[0] != _VERSION or turn[1] != 0:
            # Of a refusal nothing but its code counts; some proxies send no more than that.
            return 2
        if len(turn) < 4:
            return 4
        if turn[3] == _NAME:
            return 7 + turn[4] if len(turn) > 4 else 5
        return {_IPV4: 10, _IPV6: 22}.get(turn[3], 4)

    def _take(self, turn: bytes) -> list[TunnelEvent]:
        """One whole turn of the proxy."""
        if self._state is SocksState.STRANGER:
            return self._estranged(turn)
        if self._state is SocksState.METHOD:
            return self._choose(turn[1])
        version, code = turn[0], turn[1]
        if self._state is SocksState.PASSWORD:
            # Some say 5, the version of SOCKS, for 1, that of RFC 1929; curl looks at the status only.
            if version not in (1, _VERSION):
                return self._fail(f"answers user and password with version {version}, not 1 (RFC 1929)")
            if code != 0:
                return self._fail(
                    f"refused user and password (status {code}): check them, and that they are percent-encoded in "
                    "its URL",
                    transient=False,
                )
            return self._ask(SocksState.REPLY, self._request)
        if version != _VERSION:
            return self._fail(f"answers the request with version {version}, not 5: is it a SOCKS5 proxy?")
        if code != 0:
            what, transient = _REPLIES.get(code, ("gives a reason that RFC 1928 does not know: see its log", True))
            what = what.format(other=_OTHER_ADDRESS[self._type])
            return self._fail(
                f"opened no tunnel to {self._shown}: it {what} (SOCKS reply {code})",
                reply_code=code,
                transient=transient,
            )
        if turn[3] not in (_IPV4, _NAME, _IPV6):
            return self._fail(f"answers with an address of the unknown type {turn[3]}: is it a SOCKS5 proxy?")
        self._state = SocksState.DONE
        return [TunnelOpened(bytes(self._buffer))]

    def _choose(self, method: int) -> list[TunnelEvent]:
        """The proxy has chosen how to authenticate (RFC 1928 section 3)."""
        username = self._proxy.username
        if method == _NO_AUTHENTICATION:
            return self._ask(SocksState.REPLY, self._request)
        if method == _PASSWORD and username is not None:
            user, password = username.encode(), (self._proxy.password or "").encode()
            return self._ask(SocksState.PASSWORD, bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        if username is None:
            advice = f"put user and password into its URL, percent-encoded, as {self._proxy.scheme}://user:password@host:port"
        else:
            advice = "ask who runs it"
        if method == _NONE_ACCEPTABLE:
            wants = (
                "user and password, or another proof" if username is None else "another proof than user and password"
            )
            return self._fail(f"wants {wants} (SOCKS method 255): {advice}", transient=False)
        return self._fail(f"chose an authentication that was not offered (SOCKS method {method}): {advice}")

    def _ask(self, state: SocksState, words: bytes) -> list[TunnelEvent]:
        self._state = state
        self._sending += words
        return []

    def _estranged(self, answer: bytes, *, cut: bool = False) -> list[TunnelEvent]:
        if answer.startswith((b"HTTP/", b"<")):
            advice = "it speaks HTTP: write http:// (or https://)"
        elif answer[0] in (0, 4):
            advice = "it looks like SOCKS4, which is not supported: use a SOCKS5 or HTTP proxy"
        else:
            advice = "is it a SOCKS5 proxy?"
        shown = self._context.excerpt(answer, _QUOTED, cut=cut)
        return self._fail(f"does not answer in SOCKS5, but with {shown!r}: {advice}")

    def _broken(self, what: str) -> list[TunnelEvent]:
        if self._state is SocksState.DONE:
            return []
        if self._state is SocksState.STRANGER:
            return self._estranged(bytes(self._buffer), cut=True)
        advice = {
            SocksState.METHOD: "is it a SOCKS5 proxy?",
            SocksState.PASSWORD: "are user and password right?",
        }.get(self._state, "try again later")
        return self._fail(f"{what} while {self._state.value}, before there was a tunnel to {self._shown}: {advice}")

    def _fail(self, what: str, *, reply_code: int | None = None, transient: bool = True) -> list[TunnelEvent]:
        self._state = SocksState.DONE
        self._buffer.clear()
        # There may be a password in it.
        self._sending = b""
        proxy = self._proxy.url
        return [
            TunnelFailed(
                ProxyError(f"the proxy {proxy} {what}", proxy=proxy, reply_code=reply_code, transient=transient)
            )
        ]


def _address(host: str) -> tuple[int, bytes]:
    """ATYP and DST.ADDR of a host (RFC 1928 section 5)."""
    # Loads in a millisecond or two, and only where there is such a proxy.
    import ipaddress

    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        if len(name) > 255:
            raise ConfigurationError("the host is longer than 255 bytes, more than SOCKS can say") from None
        return _NAME, bytes([len(name)]) + name
    return _IPV4 if address.version == 4 else _IPV6, address.packed
