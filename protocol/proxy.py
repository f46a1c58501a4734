"""Which proxy a URL goes through, and how to speak to it. Pure: the environment comes in as a mapping.

There is no standard for the environment variables; this follows curl ("Environment" in its manual) and
what requests and Go do alike: the scheme's own variable, then ALL_PROXY; lower case before upper case;
an empty variable is none; NO_PROXY lists the exceptions.
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

import msgspec

from .context import Context
from .errors import ConfigurationError, ProxyError
from .request import HTTPRequest
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
            shown = f"the scheme {scheme!r}" if scheme.isalnum() else "another scheme"
            raise ConfigurationError(f"{name} is of {shown}: this release speaks to http:// proxies only")
        if any(character <= " " or character == "\x7f" for character in url):
            raise ConfigurationError(f"{name} holds a blank or a control: percent-encode it")
        from urllib.parse import unquote, urlsplit

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


class TunnelOpened(msgspec.Struct, frozen=True):
    """The tunnel stands: what is sent from now on reaches the target."""

    trailing: bytes
    """What the target has sent already, after the proxy's answer."""


class TunnelFailed(msgspec.Struct, frozen=True):
    """There is no tunnel."""

    error: ProxyError


TunnelEvent = TunnelOpened | TunnelFailed


class HTTPConnect:
    """The handshake for a tunnel through an HTTP proxy: CONNECT, RFC 9110 section 9.3.6.

    Send `data_to_send`, then feed `receive` what comes, until it gives the one event: `TunnelOpened` or
    `TunnelFailed`. It stays bounded: no proxy needs more than 64 KiB to say yes or no.
    """

    _LONGEST_HEAD = 64 * 1024

    __slots__ = ("_buffer", "_context", "_done", "_proxy", "_request", "_searched", "_target")

    def __init__(self, host: str, port: int, proxy: Proxy, *, user_agent: str = "deltawire") -> None:
        self._proxy = proxy
        # The authority form always names the port (RFC 9112 section 3.2.3).
        self._target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        head = [f"CONNECT {self._target} HTTP/1.1", f"Host: {self._target}", f"User-Agent: {user_agent}"]
        if proxy.authorization is not None:
            head.append(f"Proxy-Authorization: {proxy.authorization.decode('ascii')}")
        self._request = "\r\n".join([*head, "", ""]).encode("ascii")
        self._buffer = bytearray()
        self._searched = 0
        self._done = False
        # A proxy may say the password back.
        encoded = (proxy.authorization or b"").decode("ascii").partition(" ")[2]
        self._context = Context(secrets=(proxy.password or "", encoded))

    def data_to_send(self) -> bytes:
        """The request, once; b"" after that."""
        request, self._request = self._request, b""
        return request

    def receive(self, data: bytes) -> list[TunnelEvent]:
        """Bytes from the proxy have come."""
        if self._done:
            return []
        self._buffer += data
        status = 100
        while 100 <= status < 200:
            # The end of the head may straddle the seam by three bytes; nothing before that is searched again.
            end = self._buffer.find(b"\r\n\r\n", max(self._searched - 3, 0))
            self._searched = len(self._buffer)
            if end < 0:
                too_long = len(self._buffer) > self._LONGEST_HEAD
                return self._fail("sends a head that does not end") if too_long else []
            head = bytes(self._buffer[:end])
            del self._buffer[: end + 4]
            self._searched = 0
            version, _, after = head.partition(b"\r\n")[0].partition(b" ")
            code, _, reason = after.partition(b" ")
            if not version.startswith(b"HTTP/1.") or len(code) != 3 or not code.isdigit():
                return self._fail(f"does not answer in HTTP: {self._context.excerpt(head, 100)!r}")
            status = int(code)
        rest = bytes(self._buffer)
        if 200 <= status < 300:
            self._done = True
            return [TunnelOpened(rest)]
        words = " ".join(self._context.excerpt(reason, 200).split())
        if status in (401, 407):
            # 401 is for servers (RFC 9110 section 15.5.2), yet tinyproxy answers a wrong password so.
            return self._fail(
                f"wants other credentials ({status} {words}): put user and password into its URL, percent-encoded, "
                "as http://user:password@host:port",
                status=status,
                transient=False,
            )
        return self._fail(f"refused to open a tunnel to {self._target} ({status} {words})", status=status)

    def end(self) -> list[TunnelEvent]:
        """The proxy has closed the connection. Idempotent."""
        return [] if self._done else self._fail(f"closed the connection instead of opening a tunnel to {self._target}")

    def fail(self, error: Exception) -> list[TunnelEvent]:
        """The connection to the proxy broke, or took too long. Idempotent."""
        return [] if self._done else self._fail(f"failed while opening a tunnel to {self._target}: {error}")

    def _fail(self, what: str, *, status: int | None = None, transient: bool = True) -> list[TunnelEvent]:
        self._done = True
        self._buffer.clear()
        proxy = self._proxy.url
        error = ProxyError(f"the proxy {proxy} {what}", proxy=proxy, status_code=status, transient=transient)
        return [TunnelFailed(error)]


def absolute_form(request: HTTPRequest, proxy: Proxy) -> HTTPRequest:
    """An http request as a proxy takes it, without a tunnel: its target is the whole URL (RFC 9112 section
    3.2.2: send ``request.url`` in the request line), and Proxy-Authorization is among its fields."""
    if proxy.authorization is None:
        return request
    return HTTPRequest(
        request.method, request.url, (*request.headers, (b"proxy-authorization", proxy.authorization)), request.body
    )
