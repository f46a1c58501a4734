"""The SOCKS5 proxy's end towards a client (RFC 1928, RFC 1929).

Theory
------
The client sends three messages, each after the answer to the one before, or early: bytes wait in a
buffer until the message they belong to is complete and it is its turn.

    greeting --(no password wanted)--> request --(connected)--> tunnelling
             --(password)--> login -->         --(no way)-----> refused
             --(neither)---> refused

*   Refused: the answer says so, then FIN, and what still comes is thrown away.
*   What does not begin like SOCKS5 gets no answer, just FIN, and is not recorded.
*   Each message's step looks at the buffer, and either takes its message or finds it incomplete; a step
    is repeated until that. There is no step while connecting, so early bytes for the target wait, too.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._tunnel import ClientEnd, TunnelTarget, Upstream
from .records import ProxiedRequest

if TYPE_CHECKING:
    from .socks import SocksServer

_VERSION = 5
_NO_PASSWORD, _PASSWORD, _NO_METHOD = 0, 2, 0xFF
_LOGIN_VERSION = 1
_COMMANDS = {1: "CONNECT", 2: "BIND", 3: "UDP ASSOCIATE"}
_IPV4, _NAME, _IPV6 = 1, 3, 4

SUCCEEDED, FAILED, NETWORK_UNREACHABLE, HOST_UNREACHABLE, REFUSED = 0, 1, 3, 4, 5
BAD_COMMAND, BAD_ADDRESS_TYPE = 7, 8


class SocksSide(ClientEnd):
    """The proxy's end towards a client."""

    service: SocksServer

    def __init__(self, service: SocksServer, number: int) -> None:
        super().__init__(service, number)
        self._buffer = b""
        self._step: Callable[[], bool] | None = self._greeting
        self._record: ProxiedRequest | None = None

    def _received(self, data: bytes) -> None:
        self._buffer += data
        while self._step is not None and self._step():
            pass

    def _take(self, count: int) -> bytes:
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    # The messages: each returns whether it was complete

    def _greeting(self) -> bool:
        buffer = self._buffer
        if buffer[0] != _VERSION:
            self._end(b"")
            return False
        if len(buffer) < 2 or len(buffer) < 2 + buffer[1]:
            return False
        method = _PASSWORD if self.service._wants_password else _NO_PASSWORD
        if method not in self._take(2 + buffer[1])[2:]:
            self._not_authorized(bytes([_VERSION, _NO_METHOD]))
            return False
        self._step = self._login if method == _PASSWORD else self._request
        self.write(bytes([_VERSION, method]))
        return bool(self._buffer)

    def _login(self) -> bool:
        buffer = self._buffer
        if buffer[0] != _LOGIN_VERSION:
            self._not_authorized(bytes([_LOGIN_VERSION, FAILED]))
            return False
        if len(buffer) < 2:
            return False
        at = 2 + buffer[1]  # of the password's length
        if len(buffer) < at + 1 or len(buffer) < at + 1 + buffer[at]:
            return False
        message = self._take(at + 1 + buffer[at])
        if not self.service._are_right(message[2:at], message[at + 1 :]):
            self._not_authorized(bytes([_LOGIN_VERSION, FAILED]))
            return False
        self._step = self._request
        self.write(bytes([_LOGIN_VERSION, SUCCEEDED]))
        return bool(self._buffer)

    def _request(self) -> bool:
        buffer = self._buffer
        if buffer[0] != _VERSION:
            self._end(b"")
            return False
        if len(buffer) < 5:  # the fifth is the length of a name, or the first of an address
            return False
        method = _COMMANDS.get(buffer[1], f"command {buffer[1]}")
        length = {_IPV4: 4, _IPV6: 16, _NAME: 1 + buffer[4]}.get(buffer[3])
        if length is None:
            self._record, refusal = self.service._take(method, "", self.number, authorized=True)
            self._reply(refusal or BAD_ADDRESS_TYPE)
            return False
        if len(buffer) < 4 + length + 2:
            return False
        host, port, shown = _read_target(self._take(4 + length + 2))
        self._step = None
        self._record, refusal = self.service._take(method, shown, self.number, authorized=True)
        if refusal:
            self._reply(refusal)
        elif method != "CONNECT":
            self._reply(BAD_COMMAND)
        else:
            self._open_upstream(TunnelTarget(self), host, port)
        return False

    # The answers

    def _opened(self, upstream: Upstream) -> None:
        assert isinstance(upstream, TunnelTarget)
        self._reply(SUCCEEDED, upstream.transport.get_extra_info("sockname"))
        self._start_tunnel(upstream, self._take(len(self._buffer)))

    def _unreachable(self, error: Exception) -> None:
        self._reply(_reply_code(error))

    def _reply(self, code: int, bound: tuple[str, int] = ("0.0.0.0", 0)) -> None:
        """The answer to a request: the code, and where the proxy's end of the tunnel is."""
        assert self._record is not None
        self._record.status = code
        address = ipaddress.ip_address(bound[0].partition("%")[0])
        kind = _IPV4 if address.version == 4 else _IPV6
        answer = bytes([_VERSION, code, 0, kind]) + address.packed + bound[1].to_bytes(2, "big")
        if code == SUCCEEDED:
            self.write(answer)
        else:
            self._end(answer)

    def _not_authorized(self, answer: bytes) -> None:
        self.service._take("CONNECT", "", self.number, authorized=False)
        self._end(answer)

    def _end(self, answer: bytes) -> None:
        self._step = None
        if answer:
            self.write(answer)
        self.linger()


def _read_target(request: bytes) -> tuple[str, int, str]:
    """Host, port, and both as they are shown, of a complete request."""
    kind, address, port = request[3], request[4:-2], int.from_bytes(request[-2:], "big")
    if kind == _NAME:
        host = address[1:].decode("utf-8", "backslashreplace")
        return host, port, f"{host}:{port}"
    host = str(ipaddress.ip_address(address))
    return host, port, f"[{host}]:{port}" if kind == _IPV6 else f"{host}:{port}"


def _reply_code(error: Exception) -> int:
    """What to tell the client of an attempt to connect that failed."""
    if isinstance(error, ConnectionRefusedError):
        return REFUSED
    if isinstance(error, socket.gaierror) or not isinstance(error, OSError):  # not OSError: no possible name
        return HOST_UNREACHABLE
    codes = {errno.ENETUNREACH: NETWORK_UNREACHABLE, errno.EHOSTUNREACH: HOST_UNREACHABLE}
    return codes.get(error.errno or 0, FAILED)
