"""TLS settings. Verification is on unless somebody says otherwise in so many words."""

from __future__ import annotations

import functools
import os
import ssl
from typing import TYPE_CHECKING

import certifi

from deltawire.protocol import ConfigurationError

if TYPE_CHECKING:
    Verify = bool | str | os.PathLike[str] | ssl.SSLContext


def tls_context(verify: Verify, *, purpose: str = "") -> ssl.SSLContext:
    """The context for a ``verify=`` option. Each ``purpose`` has its own, but for one that was given as such:
    httpcore notes in a context which protocols it offers, and HTTP/2 is for servers, not for proxies.

    True: the system's and certifi's authorities. A path: the authorities in that PEM file (or directory)
    and no others. An ``ssl.SSLContext``: that one. False: no verification at all; the connection is then
    safe from nobody who stands between.
    """
    if isinstance(verify, ssl.SSLContext):
        return verify
    if verify is True:
        return _default(purpose, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    if verify is False:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    path = os.fspath(verify) if isinstance(verify, (str, os.PathLike)) else ""
    if not path:
        raise ConfigurationError(
            "verify= (of a provider: ssl) must be True, False, the path of a file of certificate authorities, or an "
            f"ssl.SSLContext, not {verify!r}"
        )
    try:
        if os.path.isdir(path):
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"verify={path!r} can't be loaded as a file of certificate authorities: {error}"
        ) from None


@functools.lru_cache(maxsize=8)
def _default(*key: object) -> ssl.SSLContext:
    # It takes 80 ms to load, while an event loop stands still: once for all clients with the same purpose, and the same
    # variables, which OpenSSL reads.
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
