"""What is said when there is no stream: who is at fault, and what to do."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from deltawire.protocol import ConnectError, ProxyError

if TYPE_CHECKING:
    from deltawire.protocol import Proxy


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def no_connection(error: Exception, where: str, proxy: Proxy | None, local_address: str | None) -> ConnectError:
    """No connection, to the server or to the proxy."""
    reason = _reason(error) + (f", from the local address {local_address}" if local_address is not None else "")
    if proxy is not None:
        return ProxyError(
            f"the proxy {proxy.url} can't be reached ({reason}): is it running, and is its address right?",
            proxy=proxy.url,
        )
    return ConnectError(f"no connection to {where} ({reason}): is the server running, is base_url right?")


def look_up_error(error: Exception, host: str) -> ConnectError:
    """A name that is looked up here on behalf of a proxy."""
    return ConnectError(
        f"the name {host} can't be looked up here ({_reason(error)}): is base_url right? With socks5h:// the proxy "
        "looks it up"
    )


def no_tls_with_proxy(error: Exception, proxy: Proxy) -> ProxyError:
    """No TLS with an https:// proxy."""
    if _is_distrust(error):
        return ProxyError(
            f"the certificate of the proxy {proxy.url} is not trusted ({_reason(error)}): pass verify='ca.pem' if you "
            "know its authority",
            proxy=proxy.url,
            transient=False,
        )
    return ProxyError(
        f"no TLS connection to the proxy {proxy.url} ({_reason(error)}): is it an https:// proxy, or an http:// one?",
        proxy=proxy.url,
    )


def no_tls(error: Exception, hostname: str | None, proxy: Proxy | None) -> ConnectError:
    """No TLS with the server, perhaps through a proxy's tunnel."""
    if _is_distrust(error):
        return ConnectError(
            f"the certificate of {hostname} is not trusted ({_reason(error)}): pass verify='ca.pem' if you know its "
            "authority",
            transient=False,
        )
    if proxy is not None:
        # Whether it broke in the proxy or behind it nobody can tell; it is the proxy's connection that did.
        return ProxyError(
            f"no TLS connection to {hostname} through the proxy {proxy.url} ({_reason(error)}): does the server speak "
            "https? Does the proxy let it through?",
            proxy=proxy.url,
        )
    return ConnectError(f"no TLS connection to {hostname} ({_reason(error)}): does the server speak https?")


def _is_distrust(error: Exception) -> bool:
    return isinstance(error, ssl.SSLCertVerificationError)
