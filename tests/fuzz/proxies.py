"""Targets: what a user writes of proxies: their URLs, and which hosts are excepted."""

from __future__ import annotations

from urllib.parse import unquote

from deltawire.protocol import Proxy, choose_proxy, tunnel
from deltawire.protocol.routing import bypasses
from deltawire.protocol.urls import parse_url

from .common import COMPARED, DOCUMENTED, Dice
from .requests import naive_heads

CANARY = "Kanarienvogel"
SCHEMES = ("http", "https", "socks5", "socks5h", "HTTP", "socks4", "")


def proxy_url(data: bytes) -> None:
    """A proxy's URL: understood as a naive reader understands it, or refused without its password."""
    dice = Dice(data)
    scheme = dice.pick(SCHEMES)
    user, password, rest, port = dice.texts(4)
    parsed(rest)
    parsed(f"{scheme}://{rest}")
    secret = CANARY + password
    url = f"{scheme}://{user}:{secret}@{rest}" + (f":{port}" if port else "")
    proxy = parsed(url, CANARY)
    if proxy is None:
        return
    COMPARED["proxy_url"] += 1
    # RFC 3986 section 3.2: the authority ends at the first of these, the user's part at its last "@".
    authority = url.partition("://")[2]
    for end in "/?#":
        authority = authority.partition(end)[0]
    named, at, place = authority.rpartition("@")
    name, colon, word = named.partition(":")
    assert proxy.username == (unquote(name) if at else None)
    assert proxy.password == (unquote(word) if colon else None)
    host, _, number = place.rpartition(":") if place.rpartition("]")[2].count(":") else (place, "", "")
    assert proxy.host == host.strip("[]").lower() or not host.isascii() or "%" in host
    assert not number or int(number) == proxy.port or int(number) == 0


def parsed(url: str, secret: str = "") -> Proxy | None:
    try:
        proxy = Proxy.parse(url)
    except DOCUMENTED["proxy_url"] as error:
        assert not secret or secret not in f"{error!r} {error} {error.__cause__!r} {error.__context__!r}"
        return None
    assert 0 < proxy.port < 65536
    assert proxy.host.isascii()
    assert proxy.host.isprintable()
    assert not set(proxy.host) & set(" /?#@[]\\")
    assert not secret or secret not in f"{proxy} {proxy!r} {proxy.url}"
    bare = Proxy.parse(proxy.url)
    assert (bare.scheme, bare.host, bare.port) == (proxy.scheme, proxy.host, proxy.port)
    said = tunnel("api.example", 443, proxy).data_to_send()
    if not proxy.speaks_socks:
        (head,) = naive_heads(said)
        names = ["host", "user-agent"] + ["proxy-authorization"] * (proxy.authorization is not None)
        assert head.line == "CONNECT api.example:443 HTTP/1.1"
        assert head.names == sorted(names)
        assert head.body == b""
    return proxy


HOSTS = (
    "api.example",
    "API.example:8443",
    "192.0.2.7",
    "[2001:db8::1]",
    "example",
    "sub.api.example.",
    "xn--e1aybc.example",
)
# What NO_PROXY may hold, and of which of `HOSTS` it is true.
ENTRIES: dict[str, tuple[int, ...]] = {
    "*": (0, 1, 2, 3, 4, 5, 6),
    "api.example": (0, 1, 5),
    ".api.example": (0, 1, 5),
    "*.example": (0, 1, 4, 5, 6),
    "EXAMPLE": (0, 1, 4, 5, 6),
    "api.example:8443": (1,),
    "192.0.2.0/24": (2,),
    "192.0.2.7": (2,),
    "192.0.2.7:443": (2,),
    "2001:db8::/32": (3,),
    "[2001:db8::1]:443": (3,),
    "2001:DB8:0::1": (3,),
    "ple": (),
    "pi.example": (),
    "92.0.2.7": (),
    "api.example:80": (),
    "2.0.2.7": (),
}
VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "g4f_proxy", "http_proxy", "HTTP_PROXY")
# For an https:// URL, the first of them that says something.
ORDER = ("g4f_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


def no_proxy(data: bytes) -> None:
    """Entries of NO_PROXY, known ones and any others between; and which variable wins."""
    dice = Dice(data)
    number = dice.byte() % len(HOSTS)
    url = f"https://{HOSTS[number]}/v1"
    known = [dice.pick(tuple(ENTRIES)) for _ in range(dice.byte() % 4)]
    chosen = {dice.pick(VARIABLES): f"http://p{each}:1" for each in range(dice.byte() % 4)}
    strange, address = dice.texts(2)
    target = parse_url(url)
    alone = [bypasses(target, entry) for entry in known]
    assert alone == [number in ENTRIES[entry] for entry in known]
    other = bypasses(target, strange)
    for comma in (",", " ", ", ", ",,\t"):
        assert bypasses(target, comma.join([*known, strange])) is (any(alone) or other)
    assert other is any(bypasses(target, each) for each in strange.replace(",", " ").split())
    COMPARED["no_proxy"] += 1
    wanted = next((chosen[name] for name in ORDER if name in chosen), None)
    listed = ",".join([*known, strange])
    got = choose_proxy(url, environ={**chosen, "no_proxy": listed})
    excepted = (any(alone) or other) and bool(listed.strip())
    assert (got and got.url) == (None if excepted else wanted)
    # (The same words as an argument; and any other URL, for any other proxy.)
    assert choose_proxy(url, proxies={"all": "http://p:1", "no": listed}) == (
        None if excepted else Proxy.parse("http://p:1")
    )
    try:
        choose_proxy(address, environ={"ALL_PROXY": strange, "no_proxy": address})
    except DOCUMENTED["no_proxy"]:
        pass
