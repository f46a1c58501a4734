"""Proxies, and how to speak to them in HTTP: a tunnel (CONNECT), or requests that name the whole URL.

Theory of the tunnel (RFC 9110 section 9.3.6; RFC 9112 for the syntax): the proxy answers with heads. Lines
end in LF, with a CR before it or none (RFC 9112 section 2.2), and an empty line ends a head. ::

    STATUS LINE  a status line           -> FIELDS
                 anything else           -> failed: that is no HTTP
    FIELDS       a field                 -> FIELDS
                 the end, and it was 1xx -> STATUS LINE
                 the end, and it was 2xx -> opened: what follows is the target's, whatever the fields say of
                                            a body
                 the end of any other    -> BODY
    BODY         as long as Content-Length says, or no such field: failed, refused

Without a Content-Length the head alone decides: a proxy that keeps the connection open would otherwise cost
the whole deadline. Each move looks at whole lines or at a length that was told, never at what else happens to
have come, so the verdict is the same however the bytes are split.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from .context import Context
from .errors import ConfigurationError, ProxyError
from .request import encoded, field, secrets_in
from .reserved import Reserved
from .status import one_line, words_of
from .urls import authority, parse_url, split_url

if TYPE_CHECKING:
    from .socks5 import Socks5

# RFC 9110 section 4.2 for http and https; RFC 1928 section 3 for SOCKS.
DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}

_SCHEMES = (
    "proxies are http://, https://, socks5:// (the host's name is resolved here) or socks5h:// (the proxy resolves it)"
)

# These follow from the request itself.
_OWN_FIELDS = frozenset({b"host", b"content-length", b"transfer-encoding"})

_AUTHORIZATION = b"proxy-authorization"


class Proxy(Reserved, frozen=True):
    """A proxy. Its password and the values of its fields stand in no str and no repr of it.

    Raises `ConfigurationError` for what can't be said to such a proxy: illegal bytes in its fields (RFC 9110
    section 5), fields for a SOCKS proxy, a user name or password that RFC 1929 has no room for.
    """

    scheme: str
    """"http", "https" (HTTP inside TLS), "socks5" (names are resolved here) or "socks5h" (by the proxy)."""
    host: str
    port: int
    username: str | None = None
    password: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Further fields for an HTTP proxy; a Proxy-Authorization here takes the place of user and password."""

    def __post_init__(self) -> None:
        _check(self.scheme, self.username, self.password, self.headers, "Proxy")

    @property
    def url(self) -> str:
        """The proxy's URL without its credentials."""
        return f"{self.scheme}://{authority(self.host, self.port)}"

    @property
    def speaks_socks(self) -> bool:
        """Whether it is a SOCKS proxy; else it is an HTTP proxy."""
        return self.scheme.startswith("socks")

    def takes(self, scheme: str) -> bool:
        """Whether requests for URLs of this scheme are sent to the proxy itself (`absolute_form`); others go through a
        tunnel (`tunnel`)."""
        return scheme == "http" and not self.speaks_socks

    @property
    def authorization(self) -> bytes | None:
        """The value of Proxy-Authorization (RFC 9110 section 11.7.2): the one among ``headers``, or user and
        password (RFC 7617, UTF-8); None without either, and for a SOCKS proxy."""
        given = [value for name, value in self.headers if name.lower() == _AUTHORIZATION]
        if given:
            return given[0]
        pair = self._pair
        return None if pair is None else b"Basic " + pair

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown when a peer says it back; for ``Context.secrets``."""
        found = [self.password or "", (self._pair or b"").decode("ascii")]
        for name, raw in self.headers:
            value = raw.decode("latin-1")
            # The token of "Bearer token" by itself, too. What is short is a part of many words.
            parts = [value, value.rpartition(" ")[2], *secrets_in(name.lower(), raw)]
            found += [each for each in parts if len(each) >= 8]
        return tuple(dict.fromkeys(filter(None, found)))

    @property
    def _pair(self) -> bytes | None:
        if self.speaks_socks or (self.username is None and self.password is None):
            return None
        return binascii.b2a_base64(f"{self.username or ''}:{self.password or ''}".encode(), newline=False)

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        credentials = self.authorization or self.username is not None
        more = [what for what, given in (("credentials", credentials), ("headers", self.headers)) if given]
        return f"<Proxy {self.url}{', with ' if more else ''}{' and '.join(more)}>"

    @classmethod
    def parse(cls, url: str, name: str = "proxy", *, headers: Mapping[str, str] | None = None) -> Proxy:
        """A proxy's URL, ``scheme://[user:password@]host[:port]``, user and password percent-encoded; and
        further fields for it, if it is an HTTP proxy.

        Raises `ConfigurationError`, which names the argument ``name`` and repeats no credentials.
        """
        if not isinstance(url, str):
            raise ConfigurationError(f"{name} must be a str such as 'http://host:port', not {type(url).__name__}")
        scheme, colon, _ = url.partition("://")
        if not colon:
            raise ConfigurationError(f"{name} has no scheme: write http://host:port, or http://user:password@host:port")
        scheme = scheme.lower()
        if scheme not in DEFAULT_PORTS:
            shown = f"the scheme {scheme!r}" if scheme.isalnum() else "another scheme"
            raise ConfigurationError(f"{name} is of {shown}: {_SCHEMES}")
        if any(character <= " " or character == "\x7f" for character in url):
            raise ConfigurationError(f"{name} holds a blank or a control: percent-encode it")
        parts = split_url(url)
        if parts is None:
            raise ConfigurationError(f"{name} is no valid URL: check its port, and percent-encode user and password")
        from urllib.parse import unquote

        # The host is checked as any other is, without the credentials before it.
        host = parse_url(f"http://{parts.netloc.rpartition('@')[2]}/", name).host
        credentials = parts.username, parts.password
        username, password = (None if part is None else unquote(part) for part in credentials)
        if not isinstance(headers, Mapping | None):
            raise ConfigurationError(f"the headers of {name} must be a mapping, not {type(headers).__name__}")
        fields = tuple(_field(key, value, name) for key, value in (headers or {}).items())
        _check(scheme, username, password, fields, name)
        return cls(scheme, host, parts.port or DEFAULT_PORTS[scheme], username, password, fields)


def _field(key: str | bytes, value: str | bytes, name: str) -> tuple[bytes, bytes]:
    valid = True
    try:
        field(key, b"")
    except (ConfigurationError, TypeError):
        valid = False
    if not valid:
        # Whoever gives a whole line as a name has a secret in it, which that error repeats.
        raise ConfigurationError(f"{name} has a header whose name is none: letters, digits, hyphens")
    return field(key, value)


def _check(
    scheme: str, username: str | None, password: str | None, headers: tuple[tuple[bytes, bytes], ...], name: str
) -> None:
    if scheme not in DEFAULT_PORTS:
        raise ConfigurationError(f"{name} is of another scheme: {_SCHEMES}")
    user, secret = (None if part is None else encoded(part, "utf-8") for part in (username, password))
    if (user is None, secret is None) != (username is None, password is None):
        raise ConfigurationError(f"{name} has a user or password that UTF-8 can't say (a lone surrogate)")
    if scheme in ("http", "https"):
        if user and b":" in user:
            raise ConfigurationError(f"the user name of {name} has a colon, which Basic can't say (RFC 7617)")
        for key, value in headers:
            if _field(key, value, name)[0] in _OWN_FIELDS:
                raise ConfigurationError(f"the header {key.decode()} of {name} is set by deltawire")
        return
    if headers:
        raise ConfigurationError(f"{name} has headers, which SOCKS has no place for: leave them out")
    if secret and not user:
        raise ConfigurationError(f"{name} has a password and no user, which SOCKS can't say (RFC 1929): name one")
    # One byte each says how long they are; an empty user name is none.
    if (user is not None and not 1 <= len(user) <= 255) or len(secret or b"") > 255:
        limits = "a user of 1 to 255 bytes in UTF-8, and a password of at most 255 bytes"
        raise ConfigurationError(f"{name} must have {limits} (RFC 1929)")


class TunnelOpened(msgspec.Struct, frozen=True):
    """The tunnel stands: what is sent from now on reaches the target."""

    trailing: bytes
    """What the target has sent already, after the proxy's answer."""


class TunnelFailed(msgspec.Struct, frozen=True):
    """There is no tunnel."""

    error: ProxyError


TunnelEvent = TunnelOpened | TunnelFailed


def check_target(host: str, port: int) -> None:
    """Raise `ConfigurationError` for a host that is no printable ASCII, or a port that TCP has not."""
    if not (isinstance(host, str) and host.isascii() and host.isprintable() and host and " " not in host):
        raise ConfigurationError("the host of a tunnel must be a name or an address in ASCII: encode it by IDNA")
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise ConfigurationError(f"the port of a tunnel must be a number from 1 to 65535, not {port!r}")


def tunnel(host: str, port: int, proxy: Proxy) -> HTTPConnect | Socks5:
    """The handshake that this proxy speaks, for a tunnel to this host and port.

    Both machines have ``data_to_send``, ``receive``, ``end`` and ``fail``: ask for what is to be sent at the
    start and after each ``receive``. Raises `ConfigurationError` for a host or port that can't be said.
    """
    if proxy.speaks_socks:
        # That module is built on this one.
        from .socks5 import Socks5

        return Socks5(host, port, proxy)
    return HTTPConnect(host, port, proxy)


class HTTPConnect:
    """The handshake for a tunnel through an HTTP proxy: CONNECT, RFC 9110 section 9.3.6.

    Send `data_to_send`, then feed `receive` what comes, until it gives the one event: `TunnelOpened` or
    `TunnelFailed`. It stays bounded: no proxy needs more than 64 KiB of heads to say yes or no, and of the page
    that says why, 64 KiB are read. Raises `ConfigurationError` for a host, port or user agent that can't be
    sent, and for a SOCKS proxy.
    """

    _LONGEST_HEADS = 64 * 1024
    _LONGEST_BODY = 64 * 1024

    __slots__ = (
        "_buffer", "_context", "_done", "_framing", "_head_left", "_proxy", "_reason", "_request", "_searched",
        "_status", "_target", "_wanted",
    )  # fmt: skip

    def __init__(self, host: str, port: int, proxy: Proxy, *, user_agent: str = "deltawire") -> None:
        check_target(host, port)
        if proxy.speaks_socks:
            raise ConfigurationError(f"the proxy {proxy.url} does not speak HTTP: Socks5 is its handshake")
        self._proxy = proxy
        # The authority form always names the port (RFC 9112 section 3.2.3).
        self._target = authority(host, port)
        target = self._target.encode("ascii")
        fields = [(b"Host", target), (b"User-Agent", field("user-agent", user_agent)[1])]
        head = [b": ".join(each) for each in replaced(fields, proxy_fields(proxy))]
        self._request = b"\r\n".join([b"CONNECT " + target + b" HTTP/1.1", *head, b"", b""])
        self._buffer = bytearray()
        self._searched = 0
        self._head_left = self._LONGEST_HEADS
        self._status: int | None = None
        self._reason = b""
        self._framing: set[bytes] = set()
        self._wanted: int | None = None
        self._done = False
        # A proxy may say the password back.
        self._context = Context(secrets=proxy.secrets)

    def data_to_send(self) -> bytes:
        """The request, once; b"" after that."""
        request, self._request = self._request, b""
        return request

    def receive(self, data: bytes) -> list[TunnelEvent]:
        """Bytes from the proxy have come."""
        if self._done:
            return []
        self._buffer += data
        while self._wanted is None:
            line = self._line()
            if line is None:
                too_long = len(self._buffer) > self._head_left
                return self._broken("sends a head that does not end") if too_long else []
            if events := self._take(line):
                return events
        return self._refuse() if len(self._buffer) >= self._wanted else []

    def end(self) -> list[TunnelEvent]:
        """The proxy has closed the connection. Idempotent."""
        return self._broken(f"closed the connection instead of opening a tunnel to {self._target}")

    def fail(self, error: Exception) -> list[TunnelEvent]:
        """The connection to the proxy broke, or took too long. Idempotent."""
        reason = one_line(str(error), self._context) or type(error).__name__
        return self._broken(f"failed while opening a tunnel to {self._target}: {reason}")

    def _line(self) -> bytes | None:
        """The next whole line, without its end, if it is among the bytes that heads may have."""
        end = self._buffer.find(b"\n", self._searched, self._head_left)
        if end < 0:
            self._searched = len(self._buffer)
            return None
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        self._head_left -= end + 1
        self._searched = 0
        return line

    def _take(self, line: bytes) -> list[TunnelEvent]:
        if self._status is None:
            version, _, after = line.partition(b" ")
            code, _, self._reason = after.partition(b" ")
            minor = version[7:] if version[:7] == b"HTTP/1." else b""
            if (len(minor), len(code)) != (1, 3) or not (minor + code).isdigit():
                return self._no_http(line)
            self._status = int(code)
            self._framing.clear()
        elif line:
            name, _, value = line.partition(b":")
            # A coding is no number, so with one there is no length.
            if name.lower() in (b"content-length", b"transfer-encoding"):
                self._framing.add(value.strip())
        elif 100 <= self._status < 200:
            self._status = None
        elif 200 <= self._status < 300:
            self._done = True
            return [TunnelOpened(bytes(self._buffer))]
        else:
            length = self._framing.pop() if len(self._framing) == 1 else b""
            self._wanted = min(int(length[:9]), self._LONGEST_BODY) if length.isdigit() else 0
        return []

    def _refuse(self) -> list[TunnelEvent]:
        status = self._status or 0
        body = bytes(self._buffer[: self._wanted])
        reason, page = one_line(self._reason, self._context, 200), words_of(body, self._context)
        words = f"{status} {reason}".strip() + (f": {page}" if page not in ("", reason) else "")
        # Kept redacted, as everything that may be printed is.
        kept = self._context.redact(body.decode("utf-8", "replace"), cut=True).encode()
        if status in (401, 407):
            # 401 is for servers (RFC 9110 section 15.5.2), yet tinyproxy answers a wrong password so.
            form = f"{self._proxy.scheme}://user:password@host:port"
            advice = f"put user and password into its URL, percent-encoded, as {form}"
            if any(name.lower() == _AUTHORIZATION for name, _ in self._proxy.headers):
                advice = "check the Proxy-Authorization among its headers"
            what, transient = f"wants other credentials ({words}): {advice}", False
        else:
            transient = status in (408, 429) or status >= 500
            advice = "try again later" if transient else "ask who runs it, or do without it for this host (NO_PROXY)"
            what = f"refused to open a tunnel to {self._target} ({words}): {advice}"
        return self._fail(what, status_code=status, body=kept, transient=transient)

    def _broken(self, what: str) -> list[TunnelEvent]:
        if self._done:
            return []
        if self._wanted is not None:
            return self._refuse()
        start = bytes(self._buffer[:7])
        if self._status is None and not b"HTTP/1.".startswith(start):
            return self._no_http(bytes(self._buffer[: self._head_left]), cut=True)
        return self._fail(what)

    def _no_http(self, answer: bytes, *, cut: bool = False) -> list[TunnelEvent]:
        shown = self._context.excerpt(answer, 100, cut=cut)
        return self._fail(
            f"does not answer in HTTP: {shown!r}: is it an HTTP proxy? (socks5:// and https:// are others)"
        )

    def _fail(
        self, what: str, *, status_code: int | None = None, body: bytes = b"", transient: bool = True
    ) -> list[TunnelEvent]:
        self._done = True
        self._buffer.clear()
        self._request = b""
        proxy = self._proxy.url
        words = f"the proxy {proxy} {what}"
        return [TunnelFailed(ProxyError(words, proxy=proxy, status_code=status_code, body=body, transient=transient))]


def proxy_fields(proxy: Proxy) -> list[tuple[bytes, bytes]]:
    """The fields that are for the proxy."""
    fields = list(proxy.headers)
    if proxy.authorization is not None and all(name.lower() != _AUTHORIZATION for name, _ in fields):
        fields.insert(0, (b"Proxy-Authorization", proxy.authorization))
    return fields


def replaced(fields: list[tuple[bytes, bytes]], more: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The fields, those in ``more`` in place of their namesakes: none of them may stand twice."""
    names = {name.lower() for name, _ in more}
    return [each for each in fields if each[0].lower() not in names] + more
