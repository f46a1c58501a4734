"""httpcore's exceptions, in our words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpcore

from deltawire.protocol import ConnectError, DeltawireError, ProxyError, ReadError, TransportError

from ._tls import is_distrust

if TYPE_CHECKING:
    from deltawire.protocol import Deadlines, Proxy

# What may go wrong with an exchange: our own errors from connecting, what httpcore raises on purpose (it
# has no root of its own), and what the operating system says where httpcore does not translate it.
PEER_ERRORS: tuple[type[Exception], ...] = (
    TransportError,
    OSError,
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    httpcore.ProxyError,
    httpcore.ConnectionNotAvailable,
)


def connect_error(error: Exception, host: str, port: int, proxy: Proxy | None) -> ConnectError | ProxyError:
    """No TCP connection, to the server or to the proxy."""
    reason = str(error) or type(error).__name__
    if proxy is not None:
        return ProxyError(
            f"the proxy {proxy.url} can't be reached ({reason}): is it running, and is its address right?",
            proxy=proxy.url,
        )
    return ConnectError(f"no connection to {host}:{port} ({reason}): is the server running, is base_url right?")


def tls_error(error: Exception, hostname: str | None) -> ConnectError:
    """No TLS with the server."""
    if is_distrust(error):
        return ConnectError(
            f"the certificate of {hostname} is not trusted ({error}): pass verify='ca.pem' if you know its authority",
            transient=False,
        )
    return ConnectError(f"no TLS connection to {hostname} ({error}): does the server speak https?")


def exchange_error(error: Exception, deadlines: Deadlines, where: str) -> DeltawireError:
    """Anything that went wrong after there was a connection."""
    if isinstance(error, DeltawireError):
        return error
    if isinstance(error, httpcore.TimeoutException):
        return deadlines.error(where)
    reason = str(error) or type(error).__name__
    return ReadError(f"the connection broke{where}: {reason}")
