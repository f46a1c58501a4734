"""What libcurl says of a failure, in our words: whose fault it is, and what to do.

libcurl tells by a code what went wrong, and by its timers how far it had come. What a proxy has answered is retold to
the machine for such proxies, so that it is judged, and put into words, in one place.
"""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

from curl_cffi import CurlECode, CurlInfo

from deltawire.protocol import ConnectError, Context, DeltawireError, ProxyError, ReadError, TunnelFailed, tunnel

from ._curl import HEADER_OUT, TLS_OUT
from .streams.opening import ELSEWHERE
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
_SOCKS_REPLIES = {20: 1, 23: 2, 22: 3, 21: 4, 19: 5, 24: 6, 18: 7, 17: 8}
_NO_METHOD, _USER_REJECTED = 12, 33

# What a proxy says when it has chosen how to authenticate (RFC 1928 section 3).
_NO_AUTHENTICATION, _PASSWORD = b"\5\0", b"\5\2"


def failure(
    code: int, line: Line, prepared: Prepared, connected: bool, context: Context, answer: bytes
) -> DeltawireError:
    """The error for a request that ended with this code; ``connected``: after it was seen to be sent. ``answer``: what
    an HTTP proxy has said to CONNECT."""
    secrets = () if prepared.proxy is None else prepared.proxy.secrets
    said = Context(secrets=secrets).redact(context.redact(line.words())) or f"libcurl's error {code}"
    proxy, url = prepared.proxy, prepared.request.parts
    if code == CurlECode.COULDNT_RESOLVE_HOST and proxy is not None and proxy.scheme == "socks5":
        return look_up_error(_system_error(line, said), url.host)
    if code in _NO_TLS:
        return _no_tls(code, line, prepared, said)
    if proxy is not None and prepared.tunnels and not connected and _reached(line) and not _in_tunnel(line, proxy):
        return _told(prepared, proxy, answer, said)
    if connected or code not in _CONNECTING:
        return ReadError(f"the connection broke{context.where()}: {said}")
    if code == CurlECode.PROXY and proxy is not None:
        return _no_socks(prepared, proxy, line, said)
    where = prepared.setup.uds or f"{url.host}:{url.port}"
    return no_connection(_system_error(line, said), where, proxy, prepared.setup.local_address)


_CONNECTING = frozenset({
    CurlECode.COULDNT_RESOLVE_PROXY,
    CurlECode.COULDNT_RESOLVE_HOST,
    CurlECode.COULDNT_CONNECT,
    CurlECode.INTERFACE_FAILED,
    CurlECode.PROXY,
})  # fmt: skip


def is_elsewhere(code: int, error: DeltawireError) -> bool:
    """Whether another address of the server's name may do better."""
    if code == CurlECode.COULDNT_RESOLVE_HOST:
        return True
    return isinstance(error, ProxyError) and error.reply_code in ELSEWHERE


def waiting_for(line: Line | None, prepared: Prepared, steps: set[int]) -> str:
    """What a request that is not on its way yet is waiting for: a clause. ``steps``: the kinds of what was heard."""
    proxy, url = prepared.proxy, prepared.request.parts
    if proxy is not None and HEADER_OUT in steps and line is not None and line.info(CurlInfo.HTTP_CONNECTCODE) != 200:
        return str(_told(prepared, proxy, b"", "no answer in time"))
    if TLS_OUT in steps:
        if proxy is not None and proxy.scheme == "https" and HEADER_OUT not in steps:
            return f"the TLS handshake with the proxy {proxy.url} does not end"
        return f"the TLS handshake with {url.host} does not end"
    if line is None or not line.info(CurlInfo.NAMELOOKUP_TIME_T):
        return f"the name {url.host if proxy is None else proxy.host} is not found"
    if proxy is None:
        return "the server takes no connection"
    # libcurl tells nothing of how far it has come in SOCKS.
    return f"the proxy {proxy.url} takes no connection" + (" or opens no tunnel" if proxy.speaks_socks else "")


def _reached(line: Line) -> bool:
    """Whether there was a connection, to whomever."""
    return line.info(CurlInfo.CONNECT_TIME_T) > 0


def _in_tunnel(line: Line, proxy: Proxy) -> bool:
    """Whether the proxy has opened one: that its answer was heard out does not follow from the status, but TLS with the
    server does."""
    return line.info(CurlInfo.HTTP_CONNECTCODE) == 200 and (
        proxy.scheme == "https" or line.info(CurlInfo.APPCONNECT_TIME_T) > 0
    )


def _system_error(line: Line, said: str) -> OSError:
    number = line.info(CurlInfo.OS_ERRNO)
    return OSError(number, os.strerror(number)) if number else OSError(said)


def _no_tls(code: int, line: Line, prepared: Prepared, said: str) -> ConnectError:
    error = ssl.SSLCertVerificationError(1, said) if code in _DISTRUST else OSError(said)
    proxy, url = prepared.proxy, prepared.request.parts
    with_proxy = proxy is not None and proxy.scheme == "https"
    if proxy is not None and with_proxy and line.info(CurlInfo.HTTP_CONNECTCODE) != 200:
        return no_tls_with_proxy(error, proxy)
    return no_tls(error, url.host, proxy)


def _no_socks(prepared: Prepared, proxy: Proxy, line: Line, said: str) -> DeltawireError:
    code = line.info(CurlInfo.PROXY_ERROR)
    answer = b""
    if code == _NO_METHOD:
        answer = b"\5\xff"
    elif code == _USER_REJECTED and proxy.username is not None:
        answer = _PASSWORD + b"\1\1"
    elif code in _SOCKS_REPLIES:
        answer = _NO_AUTHENTICATION + bytes([5, _SOCKS_REPLIES[code], 0, 1]) + bytes(6)
    return _told(prepared, proxy, answer, said)


def _told(prepared: Prepared, proxy: Proxy, answer: bytes, said: str) -> DeltawireError:
    """What the proxy's handshake makes of this answer, and of the end of it; ``said``: of none."""
    machine = tunnel(prepared.request.parts.host, prepared.request.parts.port, proxy)
    events: list[TunnelEvent] = machine.receive(answer) or machine.fail(OSError(said))
    event = events[0]
    if isinstance(event, TunnelFailed):
        return event.error
    # It was good, and yet libcurl did not go on.
    return ProxyError(f"the proxy {proxy.url} opened no tunnel: {said}", proxy=proxy.url)
