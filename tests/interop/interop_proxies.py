"""Real proxies, of HTTP and of SOCKS: how they are configured and started, and the ways through them."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from interop_servers import HAS_IPV6, Authority, Server, free_port, variable

HTTP_PROXIES = ("squid", "tinyproxy", "squid-tls")
SOCKS_PROXIES = ("microsocks", "dante")
PROXIES = HTTP_PROXIES + SOCKS_PROXIES
USER = "alice"
# What must be percent-encoded in a URL; tinyproxy's configuration can't say that.
PASSWORD = "s3cret: @/%#é"
TINY_PASSWORD = "s3cret.-_"
# The same as crypt(3) has it, for dante: openssl passwd -6 -salt deltawire 's3cret: @/%#é'
CRYPTED = "$6$deltawire$q2iuu1cdRaUOucx3yixSamRrYoYhuYmFLjsaXjiZm5EGKmz57X8hKazlVRLC9hiDsEy8K9x7nZOyJLVd/imwd1"
# A name that dante can look up, and nobody else.
PROXYS_NAME = "known-to-the-proxy.example"
SQUID_HELPERS = ("/usr/lib/squid", "/usr/lib64/squid", "/usr/libexec/squid")


def part_of(proxy: str) -> str:
    """The part of the suite that a proxy belongs to."""
    return proxy.partition("-")[0]


@dataclass
class ProxyProgram:
    """A running proxy: open at one port, locked with user and password at another."""

    name: str
    open: str
    """Its URL."""
    locked: str
    """The other's, with user and password."""
    refused: str
    """The other's, with a wrong password."""
    logs: list[Path]
    """Where it writes what it was asked."""
    forbidden: int = 0
    """A port to which its rules let nobody. (microsocks has no rules.)"""

    @property
    def missing(self) -> str:
        """The URL of the locked one without a password."""
        return without_password(self.locked)

    @property
    def socks(self) -> bool:
        """Whether it speaks SOCKS: it makes tunnels for all."""
        return self.name in SOCKS_PROXIES

    def requests(self, port: int | None = None) -> list[str]:
        """The lines of its logs that tell of requests (of a SOCKS proxy, of tunnels that were opened), all or those to
        a server at that port."""
        lines = [line for log in self.logs if log.exists() for line in log.read_text(errors="replace").splitlines()]
        mark = {"tinyproxy": " Request (", "microsocks": ": connected to ", "dante": "): tcp/connect [: "}
        # dante writes a dot before a port, and the client's ports before the server's.
        target = "" if port is None else rf"\.{port}$" if self.name == "dante" else rf":{port}\b"
        return [line for line in lines if mark.get(self.name, "") in line and re.search(target, line)]

    def wait_requests(self, count: int, port: int | None = None) -> list[str]:
        """Wait until so many requests are logged. (squid logs a request when it is over: those of one test may come in
        the next one, so say which server's.)"""
        until = time.monotonic() + 10
        while len(found := self.requests(port)) < count and time.monotonic() < until:
            time.sleep(0.02)
        assert len(found) >= count, f"{self.name} logged {len(found)} requests, not {count}: {found}"
        return found


def without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


@dataclass
class Route:
    """A way to a server."""

    name: str
    proxy: ProxyProgram | None

    @property
    def options(self) -> dict[str, Any]:
        """For the client. (With a password: a proxy's usual case.)"""
        return {"proxies": self.proxy.locked if self.proxy else None}


def proxy_program(
    name: str, scheme: str, ports: tuple[int, int], logs: list[Path], password: str = PASSWORD, forbidden: int = 0
) -> ProxyProgram:
    secret = quote(password, safe="")
    return ProxyProgram(
        name=name,
        open=f"{scheme}://127.0.0.1:{ports[0]}",
        locked=f"{scheme}://{USER}:{secret}@127.0.0.1:{ports[1]}",
        refused=f"{scheme}://{USER}:wrong-{secret}@127.0.0.1:{ports[1]}",
        logs=logs,
        forbidden=forbidden,
    )


def squid(directory: Path, authority: Authority | None = None) -> tuple[ProxyProgram, list[Server]]:
    """squid; with an authority, TLS is spoken to it."""
    ports, forbidden = (free_port(), free_port()), free_port()
    listen, tls = "http_port", ""
    if authority is not None:
        for path in (authority.certificate, authority.key):
            # For squid's own user, too.
            shutil.copy(path, directory)
            (directory / Path(path).name).chmod(0o644)
        names = (directory / Path(path).name for path in (authority.certificate, authority.key))
        listen, tls = "https_port", " tls-cert={} tls-key={}".format(*names)
    helper = next((path for path in SQUID_HELPERS if Path(path, "basic_ncsa_auth").exists()), SQUID_HELPERS[0])
    # basic_ncsa_auth takes crypt's formats, and plain MD5 in hexadecimal.
    digest = hashlib.md5(PASSWORD.encode()).hexdigest()
    (directory / "passwords").write_text(f"{USER}:{digest}\n")
    access = directory / "access.log"
    (directory / "squid.conf").write_text(
        f"""
{listen} 127.0.0.1:{ports[0]}{tls}
{listen} 127.0.0.1:{ports[1]}{tls}
acl locked localport {ports[1]}
auth_param basic program {helper}/basic_ncsa_auth {directory}/passwords
auth_param basic realm deltawire
auth_param basic utf8 on
acl known proxy_auth REQUIRED
acl forbidden port {forbidden}
http_access deny locked !known
http_access deny forbidden
http_access allow all
cache deny all
access_log stdio:{access} logformat=squid
cache_log stdio:/dev/stderr
pid_filename none
coredump_dir none
pinger_enable off
shutdown_lifetime 0 seconds
visible_hostname interop
"""
    )
    server = Server("squid", ports[1], directory / "output.log")
    server.start([variable("_SQUID"), "-N", "-d", "1", "-f", directory / "squid.conf"])
    name, scheme = ("squid", "http") if authority is None else ("squid-tls", "https")
    return proxy_program(name, scheme, ports, [access], forbidden=forbidden), [server]


def tinyproxy(directory: Path) -> tuple[ProxyProgram, list[Server]]:
    forbidden, servers = free_port(), []
    (directory / "forbidden").write_text(f":{forbidden}\n")
    rules = f'Filter "{directory}/forbidden"\nFilterURLs Yes\n'
    for number, lock in enumerate(("", f"BasicAuth {USER} {TINY_PASSWORD}")):
        server = Server("tinyproxy", free_port(), directory / f"output-{number}.log")
        config = directory / f"tinyproxy-{number}.conf"
        listen = f"Port {server.port}\nListen 127.0.0.1\n"
        config.write_text(f"{listen}Timeout 60\nMaxClients 100\nLogLevel Info\n{rules}{lock}\n")
        server.start([variable("_TINYPROXY"), "-d", "-c", config])
        servers.append(server)
    return in_two("tinyproxy", "http", servers, TINY_PASSWORD, forbidden), servers


def microsocks(directory: Path) -> tuple[ProxyProgram, list[Server]]:
    servers = []
    for number, lock in enumerate(([], ["-u", USER, "-P", PASSWORD])):
        server = Server("microsocks", free_port(), directory / f"output-{number}.log")
        server.start([variable("_MICROSOCKS"), "-i", "127.0.0.1", "-p", str(server.port), *lock])
        servers.append(server)
    return in_two("microsocks", "socks5h", servers), servers


def dante(directory: Path) -> tuple[ProxyProgram, list[Server]]:
    """dante asks the system for its users. nss_wrapper shows it others than the machine's, and a name of ours."""
    forbidden = free_port()
    shown = {
        "hosts": f"127.0.0.1 {PROXYS_NAME} localhost\n",
        "passwd": f"{USER}:x:65533:65533::/:/bin/false\nroot:x:0:0::/:/bin/false\n",
        "group": f"{USER}:x:65533:\nroot:x:0:\n",
        "shadow": f"{USER}:{CRYPTED}:19000::::::\n",
    }
    environment = {"LD_PRELOAD": variable("_NSS_WRAPPER")}
    for kind, lines in shown.items():
        (directory / kind).write_text(lines)
        environment[f"NSS_WRAPPER_{kind.upper()}"] = str(directory / kind)
    servers = []
    for number, method in enumerate(("none", "username")):
        server = Server("danted", free_port(), directory / f"output-{number}.log")
        config = directory / f"danted-{number}.conf"
        external = "external: 127.0.0.1\n" + ("external: ::1\n" if HAS_IPV6 else "")
        config.write_text(
            f"""
logoutput: stderr
internal: 127.0.0.1 port = {server.port}
{external}
clientmethod: none
socksmethod: {method}
client pass {{ from: 0/0 to: 0/0 log: error connect disconnect }}
socks block {{ from: 0/0 to: 0/0 port = {forbidden} log: error connect }}
socks pass {{ from: 0/0 to: 0/0 log: error connect disconnect }}
"""
        )
        server.start([variable("_DANTE"), "-f", config, "-p", directory / f"danted-{number}.pid"], environment)
        servers.append(server)
    return in_two("dante", "socks5h", servers, forbidden=forbidden), servers


def in_two(name: str, scheme: str, servers: list[Server], password: str = PASSWORD, forbidden: int = 0) -> ProxyProgram:
    """A proxy that runs twice, open and locked."""
    ports = servers[0].port, servers[1].port
    return proxy_program(name, scheme, ports, [server.log for server in servers], password, forbidden)


def start(name: str, directory: Path, authority: Authority) -> tuple[ProxyProgram, list[Server]]:
    """Start the proxy of that name."""
    if name == "squid-tls":
        return squid(directory, authority)
    programs = {"squid": squid, "tinyproxy": tinyproxy, "microsocks": microsocks, "dante": dante}
    return programs[name](directory)


def owner(name: str) -> str | None:
    """The user whose rights a proxy takes when root starts it."""
    return "proxy" if part_of(name) == "squid" else None


StartProxy = Callable[[str], "tuple[ProxyProgram, list[Server]]"]
