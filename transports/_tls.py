"""TLS settings. Verification is on unless somebody says otherwise in so many words."""

from __future__ import annotations

import functools
import os
import ssl
from typing import TYPE_CHECKING

import httpcore

from deltawire.protocol import ConfigurationError

if TYPE_CHECKING:
    Verify = bool | str | os.PathLike[str] | ssl.SSLContext


def tls_context(verify: Verify, *, http2: bool = False) -> ssl.SSLContext:
    """The context for a ``verify=`` option.

    True: the system's and certifi's authorities. A path: the authorities in that PEM file (or directory)
    and no others. An ``ssl.SSLContext``: that one. False: no verification at all; the connection is then
    safe from nobody who stands between.
    """
    if isinstance(verify, ssl.SSLContext):
        return verify
    if verify is True:
        return _default(http2, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    if verify is False:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    path = os.fspath(verify)
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
    # It takes 80 ms to load, while an event loop stands still: once for all clients. By ``http2``, since
    # httpcore notes in the context what it offers; by the variables that OpenSSL reads.
    return httpcore.default_ssl_context()


def is_distrust(error: BaseException | None) -> bool:
    """Whether a connection failed because the server's certificate is not trusted."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
