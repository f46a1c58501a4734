"""Which proxy a URL goes through. Pure: the environment comes in as a mapping.

There is no standard for the environment variables; this follows curl ("Environment" in its manual) and
what requests and Go do alike: the scheme's own variable, then ALL_PROXY; lower case before upper case;
an empty variable is none; NO_PROXY lists the exceptions.
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec

from .errors import ConfigurationError
from .urls import URL, parse_url

if TYPE_CHECKING:
    from collections.abc import Mapping

SUPPORTED = ("http",)


class Proxy(msgspec.Struct, frozen=True):
    """A proxy. Its password stands in no str and no repr of it."""

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: str | None = None

    @property
    def url(self) -> str:
        """The proxy's URL without its credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def authorization(self) -> bytes | None:
        """The value of Proxy-Authorization (RFC 7617, UTF-8), or None without credentials."""
        if self.username is None and self.password is None:
            return None
        pair = f"{self.username or ''}:{self.password or ''}".encode()
        return b"Basic " + binascii.b2a_base64(pair, newline=False)

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        credentials = ", with credentials" if self.authorization else ""
        return f"<Proxy {self.url}{credentials}>"

    @classmethod
    def parse(cls, url: str, name: str = "proxy") -> Proxy:
        """A proxy's URL, ``http://[user:password@]host:port``, user and password percent-encoded.

        Raises `ConfigurationError`, which names the argument ``name`` and repeats no credentials.
        """
        if not isinstance(url, str):
            raise ConfigurationError(f"{name} must be a str such as 'http://host:port', not {type(url).__name__}")
        scheme, colon, _ = url.partition("://")
        if not colon:
            raise ConfigurationError(f"{name} has no scheme: write http://host:port, or http://user:password@host:port")
        scheme = scheme.lower()
        if scheme not in SUPPORTED:
            raise ConfigurationError(f"{name} is of the scheme {scheme!r}: this release speaks to http:// proxies only")
        if any(character <= " " or character == "\x7f" for character in url):
            raise ConfigurationError(f"{name} holds a blank or a control: percent-encode it")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            # The message of urllib may repeat the URL, hence the password.
            raise ConfigurationError(f"{name} is no valid URL: its port must be a number up to 65535") from None
        # The host is checked as any other is, without the credentials before it.
        host = parse_url(f"http://{parts.netloc.rpartition('@')[2]}/", name).host
        credentials = parts.username, parts.password
        username, password = (None if part is None else unquote(part) for part in credentials)
        return cls(scheme, host, port or 80, username, password)


def choose_proxy(
    url: str,
    *,
    proxies: str | Proxy | Mapping[str, str | None] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Proxy | None:
    """The proxy for a URL, or None for a direct connection.

    ``proxies`` is one proxy's URL, or a mapping: the URL's scheme, else "all", else the other scheme; a
    value of None means a direct connection. It is not subject to NO_PROXY, except for its own key "no"
    (as NO_PROXY's value). Without it the environment decides. Raises `ConfigurationError`.
    """
    target = parse_url(url)
    if isinstance(proxies, Proxy):
        return proxies
    if isinstance(proxies, str):
        return Proxy.parse(proxies, "proxies")
    if proxies is not None:
        return _from_mapping(target, proxies)
    return _from_environment(target, environ or {})


def _from_mapping(target: URL, proxies: Mapping[str, str | None]) -> Proxy | None:
    try:
        given = {key.lower().removesuffix("://"): value for key, value in proxies.items()}
    except AttributeError:
        raise ConfigurationError("proxies must be a URL, or a mapping of schemes to URLs") from None
    unknown = given.keys() - {"http", "https", "all", "no"}
    if unknown:
        raise ConfigurationError(f"proxies has the unknown key {sorted(unknown)[0]!r}: use 'http', 'https' or 'all'")
    if bypasses(target, given.get("no") or ""):
        return None
    other = "http" if target.scheme == "https" else "https"
    for key in (target.scheme, "all", other):
        if key in given:
            value = given[key]
            return None if value is None else Proxy.parse(value, f"proxies[{key!r}]")
    return None


def _from_environment(target: URL, environ: Mapping[str, str]) -> Proxy | None:
    def variable(name: str) -> tuple[str, str]:
        for each in (name.lower(), name.upper()):
            # In a CGI program HTTP_PROXY is the request's Proxy field, so anybody's (CVE-2016-5385).
            if each == "HTTP_PROXY" and "REQUEST_METHOD" in environ:
                continue
            if value := environ.get(each, "").strip():
                return each, value
        return "", ""

    name, value = variable(f"{target.scheme}_proxy")
    if not value:
        name, value = variable("all_proxy")
    if not value or bypasses(target, variable("no_proxy")[1]):
        return None
    # Here, unlike in code, host:port without a scheme is usual (curl: "http:// is assumed").
    return Proxy.parse(value if "://" in value else f"http://{value}", f"the environment variable {name}")


def bypasses(target: URL, no_proxy: str) -> bool:
    """Does NO_PROXY's value (entries separated by commas or blanks) except this URL?

    An entry is "*"; a host, which covers its subdomains too (with a leading dot or "*." as well); an IP
    address; a network in CIDR notation; any of the first three with ":port".
    """
    return any(_matches(target, entry.lower()) for entry in no_proxy.replace(",", " ").split())


def _matches(target: URL, entry: str) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        return _in_network(target.host, entry)
    host, port = _split_port(entry)
    if port is not None and port != target.port:
        return False
    if host == "*":
        return True
    host = host.removeprefix("*").strip(".")
    name = target.host.rstrip(".")
    if not host:
        return False
    if name == host:
        return True
    if (own := _address(name)) is not None:
        return own == _address(host)
    return name.endswith("." + host)


def _split_port(entry: str) -> tuple[str, int | None]:
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        port = rest.removeprefix(":")
    elif entry.count(":") == 1:
        host, _, port = entry.partition(":")
    else:
        return entry, None
    return host, int(port) if port.isdecimal() and port.isascii() else None


def _address(host: str) -> object:
    # Loads in a millisecond or two, and only where NO_PROXY lists something.
    import ipaddress

    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _in_network(host: str, network: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network.replace("[", "").replace("]", ""), False)
    except (ValueError, TypeError):
        return False
