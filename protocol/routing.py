"""Which proxy a URL goes through, and how a request is put to one that takes it.

Pure: the environment comes in as a mapping.

There is no standard for the environment variables; this follows curl ("Environment" in its manual) and
what requests and Go do alike: the scheme's own variable, then ALL_PROXY; lower case before upper case;
an empty variable is none; NO_PROXY lists the exceptions. Before these G4F_PROXY, which is for chat alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .errors import ConfigurationError
from .proxy import Proxy, proxy_fields, replaced
from .urls import URL, parse_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .request import HTTPRequest


def choose_proxy(
    url: str,
    *,
    proxies: str | Proxy | Mapping[str, str | Proxy | None] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Proxy | None:
    """The proxy for a URL, or None for a direct connection.

    ``proxies`` is one proxy (its URL, or a `Proxy`), or a mapping to such: the URL's scheme, else "all",
    else the other scheme; a value of None means a direct connection. It is not subject to NO_PROXY, except
    for its own key "no" (as NO_PROXY's value). Without it the environment decides. Raises `ConfigurationError`.
    """
    target = parse_url(url)
    if isinstance(proxies, Proxy):
        return proxies
    if isinstance(proxies, str):
        return Proxy.parse(proxies, "proxies")
    if proxies is not None:
        return _from_mapping(target, proxies)
    return _from_environment(target, environ or {})


def _from_mapping(target: URL, proxies: Mapping[str, str | Proxy | None]) -> Proxy | None:
    try:
        given = {key.lower().removesuffix("://"): value for key, value in proxies.items()}
    except AttributeError:
        raise ConfigurationError("proxies must be a URL, or a mapping of schemes to URLs") from None
    unknown = given.keys() - {"http", "https", "all", "no"}
    if unknown:
        # Not what stands before the host, where one takes the keys for URLs.
        shown = sorted(unknown)[0].rpartition("@")[2]
        raise ConfigurationError(f"proxies has the unknown key {shown!r}: use 'http', 'https' or 'all'")
    excepted = given.pop("no", None) or ""
    if not isinstance(excepted, str):
        raise ConfigurationError(f"proxies['no'] must be a str as NO_PROXY is, not {type(excepted).__name__}")
    if bypasses(target, excepted):
        return None
    other = "http" if target.scheme == "https" else "https"
    for key in (target.scheme, "all", other):
        if key in given:
            value = given[key]
            return value if value is None or isinstance(value, Proxy) else Proxy.parse(value, f"proxies[{key!r}]")
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

    for each in ("g4f_proxy", f"{target.scheme}_proxy", "all_proxy"):
        name, value = variable(each)
        if value:
            break
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
    # (int() refuses more than 4300 digits.)
    return host, int(port[:4000]) if port.isdecimal() and port.isascii() else None


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


def absolute_form(request: HTTPRequest, proxy: Proxy) -> HTTPRequest:
    """An http request as a proxy takes it, without a tunnel: its target is the whole URL (RFC 9112 section
    3.2.2: send ``request.url`` in the request line), and Proxy-Authorization and the proxy's other fields are
    among its fields. Raises `ConfigurationError` for a SOCKS proxy, which knows tunnels only."""
    if proxy.speaks_socks:
        raise ConfigurationError(f"the proxy {proxy.url} does not speak HTTP: open a tunnel through it")
    more = [(name.lower(), value) for name, value in proxy_fields(proxy)]
    if not more:
        return request
    fields = tuple(replaced(list(request.headers), more))
    hidden = request.hidden | {name for name, _ in more}
    return msgspec.structs.replace(request, headers=fields, hidden=hidden)
