"""What libcurl is told: a request, the way to its server, whom to trust.

The browser's own fields (User-Agent, Accept-Language, sec-ch-ua...) go out in its order; a field of the request takes
the place of its namesake, and those that a browser does not have come last. libcurl makes Host and Content-Length.

A request for a page says what a browser says that goes there, any other one what its ``fetch`` would. Left out is what
we say of ourselves where nobody asks for another thing: our User-Agent, and "Accept-Encoding: identity" ("identity;q=1"
goes out).
"""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Any

import certifi
import msgspec
from curl_cffi import CurlHttpVersion, CurlOpt

from deltawire.protocol import ConfigurationError, Proxy
from deltawire.protocol.proxy import proxy_fields
from deltawire.protocol.request import field
from deltawire.protocol.reserved import Reserved
from deltawire.protocol.site import HISTORICAL_USER_AGENT

from ._options import socket_path
from ._tls import tls_context
from .streams.layers import is_ip_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deltawire.protocol import HTTPRequest
    from deltawire.protocol.urls import URL

    from ._tls import Verify

# libcurl makes these, or they follow from how it sends.
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})

# libcurl would add these by itself: the first one to what it takes for a form, the second one to a long body.
_UNWANTED = (b"content-type", b"expect")

# What we would say of ourselves: the browser has its own, which its other fields agree with.
_OUR_AGENTS = (b"deltawire", HISTORICAL_USER_AGENT.encode())
_OUR_CODING = (b"accept-encoding", b"identity")

# Of a script's request (Fetch Metadata, W3C), and what only a visit to a page says.
_FETCH = {b"accept": b"*/*", b"sec-fetch-mode": b"cors", b"sec-fetch-dest": b"empty"}
_VISIT = (b"upgrade-insecure-requests", b"sec-fetch-user")

# Safari knows them since 16.4; all other profiles have them.
_WITHOUT_METADATA = "safari15"

# No limit, where 0 means libcurl's own.
_NEVER = 2**31 - 1

# Seconds from one probe of a silent connection to the next, as all our connections have them.
_PROBES = ((CurlOpt.TCP_KEEPALIVE, 1), (CurlOpt.TCP_KEEPIDLE, 60), (CurlOpt.TCP_KEEPINTVL, 60))


class Setup(msgspec.Struct, frozen=True):
    """What is the same for all requests of a transport."""

    options: Any
    uds: str | None
    local_address: str | None

    @classmethod
    def of(cls, verify: Verify, uds: str | os.PathLike[str] | None, local_address: str | None) -> Setup:
        """Raises `ConfigurationError` for what libcurl can't do."""
        path = socket_path(uds)
        options = [*_PROBES, *_trust(verify)]
        if path is not None:
            options.append((CurlOpt.UNIX_SOCKET_PATH, _text(path, "uds")))
        if local_address is not None:
            # Never the name of an interface, which libcurl would take, too.
            options.append((CurlOpt.INTERFACE, _text(f"host!{local_address}", "local_address")))
        return cls(options, path, local_address)


class Prepared(Reserved, frozen=True):
    """A request, ready to be sent."""

    request: Any
    proxy: Proxy | None
    profile: str
    options: Any
    setup: Setup

    def __repr__(self) -> str:
        # The options hold the fields and the proxy's password, as libcurl takes them.
        return f"Prepared({self.request!r}, {self.proxy!r}, {self.profile!r})"

    @property
    def key(self) -> tuple[Any, ...]:
        """What two requests must share to go out on one connection."""
        return self.profile, self.proxy, self.request.parts.origin

    @property
    def tunnels(self) -> bool:
        """Whether an HTTP proxy is asked for a tunnel."""
        return self.proxy is not None and _tunnels(self.request.parts, self.proxy)

    @property
    def looks_up(self) -> bool:
        """Whether the server's name is looked up here, for a SOCKS proxy (which itself has an IPv4 address, or a
        name)."""
        proxy = self.proxy
        if proxy is None or proxy.scheme != "socks5" or ":" in proxy.host:
            return False
        return not is_ip_address(self.request.parts.host)


def prepared(request: HTTPRequest, proxy: Proxy | None, profile: str, setup: Setup) -> Prepared:
    """Raises `ConfigurationError` for a request that can't be sent as it is."""
    if setup.uds is not None and proxy is not None:
        raise ConfigurationError("uds= names the socket to connect to: it can't be reached through a proxy")
    return Prepared(
        request, proxy, profile, [*setup.options, *_request(request, profile), *_way(request.parts, proxy)], setup
    )


def _request(request: HTTPRequest, profile: str) -> Iterator[tuple[CurlOpt, Any]]:
    url = request.parts
    yield CurlOpt.URL, str(url).encode("ascii")
    # The path is what was given: what ".." means is the server's business.
    yield CurlOpt.PATH_AS_IS, 1
    if url.scheme == "http":
        # Else libcurl asks for h2c, which no browser does.
        yield CurlOpt.HTTP_VERSION, CurlHttpVersion.V1_1
    yield CurlOpt.HTTPHEADER, [_line(name, value) for name, value in _fields(request, profile)]
    # The header field stays the browser's own; what the server makes of it, libcurl undoes.
    yield CurlOpt.ACCEPT_ENCODING, b""
    if request.body or request.method == "POST":
        yield CurlOpt.POSTFIELDSIZE_LARGE, len(request.body)
        yield CurlOpt.POSTFIELDS, bytes(request.body)
    if request.method != ("POST" if request.body else "GET"):
        if not request.method.isalpha() or not request.method.isascii():
            raise ConfigurationError(f"{request.method!r} is no method")
        yield CurlOpt.CUSTOMREQUEST, request.method.encode("ascii")
    # Signals are the program's.
    yield CurlOpt.NOSIGNAL, 1
    # Deadlines are ours.
    yield CurlOpt.CONNECTTIMEOUT_MS, _NEVER
    yield CurlOpt.MAXAGE_CONN, _NEVER


def _fields(request: HTTPRequest, profile: str) -> Iterator[tuple[bytes, bytes | None]]:
    """The fields for libcurl; without a value those that it is not to add."""
    fields = [field(*pair) for pair in request.headers]
    for name, value in fields:
        if name in _FRAMING or (name == b"host" and value == request.parts.authority.encode("ascii")):
            continue
        if (name == b"user-agent" and value.startswith(_OUR_AGENTS)) or (name, value) == _OUR_CODING:
            continue
        yield name, value
    given = dict(fields)
    for name, more in (dict.fromkeys(_UNWANTED) | _metadata(request, given, profile)).items():
        if name not in given:
            yield name, more


def _metadata(request: HTTPRequest, given: dict[bytes, bytes], profile: str) -> dict[bytes, bytes | None]:
    """What a browser says of a request that is no visit to a page."""
    if request.method == "GET" and b"text/html" in given.get(b"accept", b"text/html"):
        return {}
    if profile.startswith(_WITHOUT_METADATA):
        return {}
    url = request.parts
    same = given.get(b"origin") in (None, f"{url.scheme}://{url.authority}".encode("ascii"))
    return {**_FETCH, b"sec-fetch-site": b"same-origin" if same else b"cross-site", **dict.fromkeys(_VISIT)}


def _line(name: bytes, value: bytes | None) -> bytes:
    """A field as libcurl takes it: one that is empty ends in a semicolon, one that is not to be sent in a colon. Names
    are written as browsers write them; in HTTP/2 libcurl makes them lower case."""
    shown = name.title()
    if value is None:
        return shown + b":"
    return shown + b": " + value if value else shown + b";"


def _tunnels(url: URL, proxy: Proxy) -> bool:
    # To ask for a URL with an IPv6 address libcurl is not able (it says that it is out of memory).
    return not proxy.speaks_socks and (url.scheme == "https" or ":" in url.host)


def _way(url: URL, proxy: Proxy | None) -> Iterator[tuple[CurlOpt, Any]]:
    # Both are given in any case: else libcurl would look into the environment.
    yield CurlOpt.NOPROXY, b""
    yield CurlOpt.PROXY, b"" if proxy is None else proxy.url.encode("ascii")
    if proxy is None:
        return
    if proxy.speaks_socks:
        if proxy.username is not None:
            yield CurlOpt.PROXYUSERNAME, _text(proxy.username, "the proxy's user name")
            yield CurlOpt.PROXYPASSWORD, _text(proxy.password or "", "the proxy's password")
        return
    # What is said to the proxy is no business of the server's, and the other way round.
    yield CurlOpt.HEADEROPT, 1
    yield CurlOpt.PROXYHEADER, [_line(*field(*pair)) for pair in proxy_fields(proxy)]
    yield CurlOpt.SUPPRESS_CONNECT_HEADERS, 1
    if _tunnels(url, proxy):
        yield CurlOpt.HTTPPROXYTUNNEL, 1


def _trust(verify: Verify) -> list[tuple[CurlOpt, Any]]:
    if isinstance(verify, ssl.SSLContext):
        raise ConfigurationError(
            "verify= can't be an ssl.SSLContext with impersonate, whose TLS is a browser's: pass the path of a file of "
            "certificate authorities, True or False"
        )
    if verify is False:
        off = (CurlOpt.SSL_VERIFYPEER, CurlOpt.SSL_VERIFYHOST, CurlOpt.PROXY_SSL_VERIFYPEER)
        return [*_both(certifi.where(), None), *((option, 0) for option in (*off, CurlOpt.PROXY_SSL_VERIFYHOST))]
    if verify is True:
        # As for all our connections: the system's (or what SSL_CERT_FILE and SSL_CERT_DIR say), or else certifi's.
        system = ssl.get_default_verify_paths()
        return _both(system.cafile or certifi.where(), system.capath)
    # For its errors: libcurl would tell only when it connects.
    tls_context(verify, purpose="impersonate")
    path = os.fspath(verify)
    return _both(None, path) if os.path.isdir(path) else _both(path, None)


def _both(file: str | None, folder: str | None) -> list[tuple[CurlOpt, Any]]:
    """For servers, and for https:// proxies."""
    found: list[tuple[CurlOpt, Any]] = []
    if file is not None:
        found += [(option, _text(file, "verify")) for option in (CurlOpt.CAINFO, CurlOpt.PROXY_CAINFO)]
    if folder is not None:
        found += [(option, _text(folder, "verify")) for option in (CurlOpt.CAPATH, CurlOpt.PROXY_CAPATH)]
    return found


def _text(value: str, name: str) -> bytes:
    """For C, where a NUL ends a text."""
    if "\0" in value:
        raise ConfigurationError(f"{name} holds a NUL, which can't be said here")
    return os.fsencode(value) if name in ("uds", "verify") else value.encode()
