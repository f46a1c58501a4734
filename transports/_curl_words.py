"""What libcurl says of a failure, in our words: whose fault it is, and what to do.

libcurl tells by a code what went wrong, and by its timers how far it had come. What a proxy has answered is retold to
the machine for such proxies, so that it is judged, and put into words, in one place.
"""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Any

from curl_cffi import CurlECode, CurlInfo

from deltawire.protocol import ConnectError, Context, DeltawireError, ReadError, TunnelFailed, tunnel

from .streams.words import look_up_error, no_connection, no_tls, no_tls_with_proxy

if TYPE_CHECKING:
    from deltawire.protocol import Proxy, TunnelEvent

    from ._curl import Line
    from ._curl_request import Prepared

_DISTRUST = (CurlECode.PEER_FAILED_VERIFICATION, CurlECode.SSL_PINNEDPUBKEYNOTMATCH, CurlECode.SSL_INVALIDCERTSTATUS)
_NO_TLS = (
    CurlECode.SSL_CONNECT_ERROR,
    CurlECode.SSL_CERTPROBLEM,
    CurlECode.SSL_CIPHER,
    CurlECode.SSL_CACERT_BADFILE,
    CurlECode.SSL_ISSUER_ERROR,
    *_DISTRUST,
)

# CURLproxycode (curl/curl.h): what it says of the reply code of RFC 1928 section 6.
_SOCKS_REPLIES = {20: 1, 18: 2, 22: 3, 21: 4, 19: 5, 24: 6, 23: 7, 17: 8}
_NO_METHOD, _USER_REJECTED = 12, 33

# What a proxy says when it has chosen how to authenticate (RFC 1928 section 3).
_NO_AUTHENTICATION, _PASSWORD = b"\5\0", b"\5\2"


def failure(code: int, line: Line, prepared: Prepared, connected: bool, context: Context) -> DeltawireError:
    """The error for a request that ended with this code; ``connected``: after it was seen to be sent."""
    secrets = () if prepared.proxy is None else prepared.proxy.secrets
    said = Context(secrets=secrets).redact(context.redact(line.words())) or f"libcurl's error {code}"
    proxy, url = prepared.proxy, prepared.request.parts
    if code == CurlECode.COULDNT_RESOLVE_HOST and proxy is not None and proxy.scheme == "socks5":
        return look_up_error(_system_error(line, said), url.host)
    if code in _NO_TLS:
        return _no_tls(code, line, prepared, said)
    if connected or code not in _CONNECTING:
        if proxy is not None and not connected and _tunnels(prepared) and not line.info(CurlInfo.HTTP_CONNECTCODE):
            return _no_tunnel(prepared, proxy, line, said)
        return ReadError(f"the connection broke{context.where()}: {said}")
    if code == CurlECode.PROXY and proxy is not None:
        return _no_socks(prepared, proxy, line, said)
    if line.info(CurlInfo.CONNECT_TIME_T) and proxy is not None:
        return _no_tunnel(prepared, proxy, line, said)
    where = prepared.setup.uds or f"{url.host}:{url.port}"
    return no_connection(_system_error(line, said), where, proxy, prepared.setup.local_address)


_CONNECTING = frozenset({
    CurlECode.COULDNT_RESOLVE_PROXY,
    CurlECode.COULDNT_RESOLVE_HOST,
    CurlECode.COULDNT_CONNECT,
    CurlECode.INTERFACE_FAILED,
    CurlECode.PROXY,
})  # fmt: skip


def waiting_for(line: Line | None, prepared: Prepared) -> str:
    """What a request that is not on its way yet is waiting for: a clause."""
    proxy, url = prepared.proxy, prepared.request.parts
    who = "the server" if proxy is None else f"the proxy {proxy.url}"
    if line is None or not line.info(CurlInfo.CONNECT_TIME_T):
        looked_up = line is not None and line.info(CurlInfo.NAMELOOKUP_TIME_T)
        host = url.host if proxy is None else proxy.host
        return f"{who} takes no connection" if looked_up else f"the name {host} is not found"
    if proxy is None or line.info(CurlInfo.HTTP_CONNECTCODE) == 200:
        return f"the TLS handshake with {url.host} does not end"
    return f"the handshake through the proxy {proxy.url} does not end"


def _tunnels(prepared: Prepared) -> bool:
    proxy = prepared.proxy
    return proxy is not None and not proxy.speaks_socks and prepared.request.parts.scheme == "https"


def _system_error(line: Line, said: str) -> OSError:
    number = line.info(CurlInfo.OS_ERRNO)
    return OSError(number, os.strerror(number)) if number else OSError(said)


def _no_tls(code: int, line: Line, prepared: Prepared, said: str) -> ConnectError:
    error = ssl.SSLCertVerificationError(said) if code in _DISTRUST else ssl.SSLError(said)
    proxy, url = prepared.proxy, prepared.request.parts
    with_proxy = proxy is not None and proxy.scheme == "https"
    if proxy is not None and with_proxy and line.info(CurlInfo.HTTP_CONNECTCODE) != 200:
        return no_tls_with_proxy(error, proxy)
    return no_tls(error, url.host, proxy)


def _no_tunnel(prepared: Prepared, proxy: Proxy, line: Line, said: str) -> DeltawireError:
    """An HTTP proxy has refused, or not answered as it should."""
    machine = tunnel(prepared.request.parts.host, prepared.request.parts.port, proxy)
    status = line.info(CurlInfo.HTTP_CONNECTCODE)
    return _told(machine, b"HTTP/1.1 %d \r\n\r\n" % status if status >= 300 else b"", said)


def _no_socks(prepared: Prepared, proxy: Proxy, line: Line, said: str) -> DeltawireError:
    machine = tunnel(prepared.request.parts.host, prepared.request.parts.port, proxy)
    code = line.info(CurlInfo.PROXY_ERROR)
    if code == _NO_METHOD:
        return _told(machine, b"\5\xff", said)
    if code == _USER_REJECTED and proxy.username is not None:
        return _told(machine, _PASSWORD + b"\1\1", said)
    if code in _SOCKS_REPLIES:
        return _told(machine, _NO_AUTHENTICATION + bytes([5, _SOCKS_REPLIES[code], 0, 1]) + bytes(6), said)
    return _told(machine, b"", said)


def _told(machine: Any, answer: bytes, said: str) -> DeltawireError:
    events: list[TunnelEvent] = machine.receive(answer) or machine.fail(OSError(said))
    (event,) = events
    assert isinstance(event, TunnelFailed)
    return event.error
