"""URLs: taken apart, joined, and refused when they hold what must not go into a request line.

RFC 3986 for the syntax, RFC 9110 section 4.2 for http and https. (urllib.parse alone would silently
drop line breaks and tabs, and let spaces through. It is loaded on first use: who only reads replies needs none
of it, and it takes a tenth of the time that importing the machines takes.)
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from .errors import ConfigurationError
from .reserved import Reserved

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

DEFAULT_PORTS = {"http": 80, "https": 443}

# Blanks and controls anywhere in a URL are a mistake (or an attack); nobody means them. No UTF-8 says lone surrogates.
_ILLEGAL = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029\ud800-\udfff\"<>\\^`{|}]")
_HIDDEN_CREDENTIALS = re.compile(r"\A[^/?#]*://[^/?#@]*:[^/?#@]*[^/?#@0-9][^/?#@]*[/?#].*@")
# urlsplit would drop what stands beside the brackets, and name another host than was written.
_BRACKETED = re.compile(r"\A\[[^]]*\](?::[0-9]*)?\Z")
_HOST = re.compile(r"\A[A-Za-z0-9._~-]+\Z")

# What quote() leaves alone: RFC 3986's reserved characters and "%", which is an escape already.
_SAFE = "%/:?#[]@!$&'()*+,;=~"


def authority(host: str, port: int) -> str:
    """Host and port, an IPv6 address in brackets: the authority form (RFC 9112 section 3.2.3)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class URL(Reserved, frozen=True):
    """The parts of an http(s) URL that a connection and a request line need."""

    scheme: str
    host: str
    """Lower case, ASCII (IDNA); an IPv6 address without its brackets."""
    port: int
    target: str
    """Origin form (RFC 9112 section 3.2.1): path and query, at least "/"."""

    @property
    def authority(self) -> str:
        """Host and port as the Host field has them: without the port that the scheme implies."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS.get(self.scheme) else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """RFC 6454: what two URLs must share to be of one origin."""
        return self.scheme, self.host, self.port

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"

    def __repr__(self) -> str:
        return f"URL({shown_url(str(self))!r})"


@functools.lru_cache(maxsize=256)
def parse_url(url: str, name: str = "base_url") -> URL:
    """Take an http(s) URL apart.

    Raises `ConfigurationError`, which names the argument ``name`` and never repeats credentials, for
    another scheme, a missing host, blanks or controls, credentials in the URL, a bad port.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"{name} must be a str, not {type(url).__name__}")
    if _HIDDEN_CREDENTIALS.search(url):
        # urlsplit would see the beginning of the password as a port, and say so.
        raise ConfigurationError(f"{name} holds credentials: pass api_key=, or default_headers=, instead")
    if _ILLEGAL.search(url):
        raise ConfigurationError(f"{name} holds a character that no URL may hold (a blank, a control, a quote)")
    scheme, colon, _ = url.partition("://")
    if not colon or scheme.lower() not in DEFAULT_PORTS:
        raise ConfigurationError(f"{name} must begin with http:// or https://{_hint(url, colon)}")
    parts = split_url(url)
    if parts is None:
        raise ConfigurationError(f"{name} is no valid URL: check its host, and that its port is a number")
    if "@" in parts.netloc:
        raise ConfigurationError(
            f"{name} holds credentials: pass api_key=, or default_headers={{'Authorization': ...}}, instead"
        )
    if "[" in parts.netloc and not (_BRACKETED.match(parts.netloc) and _is_ipv6(parts.hostname or "")):
        raise ConfigurationError(f"{name} has no valid IPv6 address between its brackets, or something beside them")
    host = _ascii_host(parts.hostname or "", name)
    from urllib.parse import quote

    target = quote(parts.path or "/", safe=_SAFE)
    if parts.query:
        target += "?" + quote(parts.query, safe=_SAFE)
    scheme = parts.scheme.lower()
    return URL(scheme, host, DEFAULT_PORTS[scheme] if parts.port is None else parts.port, target)


def split_url(url: str) -> SplitResult | None:
    """The URL as urllib splits it; None where it does not. (Its errors repeat parts of the URL, which may be a
    password: they should be nobody's ``__context__``.)"""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _hint(url: str, colon: str) -> str:
    return "" if colon or "@" in url or len(url) > 200 else f" (did you mean 'http://{url}'?)"


def _is_ipv6(host: str) -> bool:
    # Loads in a millisecond or two, and few ever need it. (urlsplit does not check before Python 3.11.)
    import ipaddress

    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    # A zone (RFC 6874) may be anything there: brackets, slashes, blanks.
    zone = host.partition("%")[2]
    return not zone or bool(_HOST.match(zone))


def _ascii_host(host: str, name: str) -> str:
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            raise ConfigurationError(f"the host in {name} is no valid international name") from None
    if not _HOST.match(host) and not _is_ipv6(host):
        raise ConfigurationError(f"{name} has no valid host")
    return host.lower()


def join_url(base: str, path: str, query: Mapping[str, object] | None = None, name: str = "base_url") -> str:
    """The URL of ``path`` (such as "/chat/completions") under a base URL.

    Slashes at the seam are made one; a query in the base (Azure's ``?api-version=``) stays, ``query``
    is added to it, its values win. A base that already ends in the path is used as it is. Raises what
    `parse_url` raises.
    """
    url = parse_url(base, name)
    head, _, held = url.target.partition("?")
    if path:
        head = head.rstrip("/")
        if not head.endswith(path):
            head += path
    pairs = [pair for pair in held.split("&") if pair]
    if query:
        given = {key: value for key, value in query.items() if value is not None}
        pairs = [pair for pair in pairs if pair.partition("=")[0] not in given]
        pairs += filter(None, [_encoded_query(given, name)])
    target = head + ("?" + "&".join(pairs) if pairs else "")
    return str(URL(url.scheme, url.host, url.port, target))


def _encoded_query(query: Mapping[str, object], name: str) -> str:
    from urllib.parse import urlencode

    try:
        return urlencode(query, doseq=True)
    except UnicodeEncodeError:
        pass
    # Here, and not there: that error repeats the text, which may be a key.
    raise ConfigurationError(f"the query for {name} holds a lone surrogate, which UTF-8 can't say: replace it")


def shown_url(url: str) -> str:
    """The URL, fit to be shown: without the values in its query, any of which may be a key."""
    base, mark, query = url.partition("?")
    pairs = (pair.partition("=") for pair in query.split("&"))
    return base + mark + "&".join(f"{name}=***" if equals else "***" for name, equals, _ in pairs) if mark else url


def query_values(url: str) -> list[str]:
    """The values in the URL's query, as they stand there and decoded: any may be a key, but for a version (Azure) and
    a path (WordPress)."""
    query = url.partition("?")[2]
    if not query:
        return []
    from urllib.parse import unquote_plus

    pairs = (pair.partition("=") for pair in query.split("&"))
    values = [
        value if equals else name
        for name, equals, value in pairs
        if not name.lower().endswith("version") and name != "rest_route"
    ]
    return list(dict.fromkeys([*values, *map(unquote_plus, values)]))


def same_origin_target(url: str, location: str) -> str | None:
    """Where a ``Location`` leads, if that is the same origin; else None (RFC 9110 section 10.2.2)."""
    from urllib.parse import urljoin

    try:
        target = urljoin(url, location)
        if parse_url(target, "Location").origin == parse_url(url).origin:
            return target.partition("#")[0]
    except (ConfigurationError, ValueError):
        pass
    return None
