"""What a proxy reads in a head, and the answers it gives of its own. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import h11

# RFC 9110 section 7.6.1; the Proxy-* fields are meant for this proxy, and go by their prefix.
_HOP_BY_HOP = {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}

_USERINFO = re.compile(rb"^([^/?#]*//)?[^/?#]*@")


class Target(NamedTuple):
    """What a request's target says."""

    host: str
    port: int
    authority: bytes
    """For the Host field."""
    origin: bytes
    """The target for the origin server; empty for CONNECT."""

    @classmethod
    def parse(cls, method: bytes, target: bytes) -> Target:
        """Read "host:port" for CONNECT, else "http://...". Raises ``ValueError`` that tells the client."""
        if method == b"CONNECT":
            host, port = _split(target, None)
            return cls(host, port, target, b"")
        scheme, separator, rest = target.partition(b"://")
        if not separator:
            raise ValueError("This is a proxy: the request target must be an absolute URL.")
        if scheme.lower() != b"http":
            raise ValueError("This proxy forwards http URLs only; use CONNECT for others.")
        end = re.search(rb"[/?#]", rest)
        cut = end.start() if end else len(rest)
        authority = rest[:cut].rpartition(b"@")[2]
        path = rest[cut:].partition(b"#")[0]
        if not path:  # RFC 9112 section 3.2.4: OPTIONS about the server as a whole
            path = b"*" if method == b"OPTIONS" else b"/"
        elif path.startswith(b"?"):
            path = b"/" + path
        host, port = _split(authority, 80)
        return cls(host, port, authority, path)


class LocalReply(NamedTuple):
    """An answer of the proxy's own."""

    status: int
    reason: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes

    @classmethod
    def text(
        cls, status: int, reason: str, headers: Iterable[tuple[bytes, bytes]] = (), body: str | None = None
    ) -> LocalReply:
        """With a text as its body, by default the reason. Raises ``ValueError`` for what HTTP forbids."""
        content = (reason if body is None else body).encode() + b"\n"
        fields = [(b"content-type", b"text/plain; charset=utf-8"), *headers]
        if status not in (204, 304):
            fields.append((b"content-length", b"%d" % len(content)))
        try:
            h11.Response(status_code=status, headers=fields)
        except h11.LocalProtocolError as error:
            raise ValueError(f"this cannot be sent: {error}; give a status from 200 to 599 and legal fields") from error
        if not reason.isprintable():
            raise ValueError("reason becomes part of the status line; leave out line ends and control characters")
        return cls(status, reason.encode("latin-1", "replace"), fields, content)


def shown(target: bytes) -> str:
    """The target for the log, without a password."""
    return _USERINFO.sub(rb"\1***@", target).decode("latin-1")


def strip_hop_by_hop(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The fields that are meant for the other end."""
    fields = list(headers)
    named = {option.strip().lower() for name, value in fields if name == b"connection" for option in value.split(b",")}
    dropped = _HOP_BY_HOP | named
    return [field for field in fields if field[0] not in dropped and not field[0].startswith(b"proxy-")]


def _split(authority: bytes, default_port: int | None) -> tuple[str, int]:
    match = re.fullmatch(rb"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]@]+))(?::([0-9]{1,5}))?", authority)
    port = default_port
    if match is not None and match[3]:
        port = int(match[3])
    if match is None or port is None or not 0 < port < 65536:
        raise ValueError("The request target names no host and port.")
    try:
        return (match[1] or match[2]).decode("ascii"), port
    except UnicodeDecodeError:
        raise ValueError("The request target's host is not ASCII.") from None
