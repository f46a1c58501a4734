"""squid and tinyproxy: how they are configured and started, and the ways through them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from interop_servers import Server, free_port, variable

PROXIES = ("squid", "tinyproxy")
USER = "alice"
# What must be percent-encoded in a URL; tinyproxy's configuration can't say that.
PASSWORDS = {"squid": "s3cret: @/%#é", "tinyproxy": "s3cret.-_"}
SQUID_HELPERS = ("/usr/lib/squid", "/usr/lib64/squid", "/usr/libexec/squid")


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
    password: str
    logs: list[Path]
    """Where it writes what it was asked."""

    def requests(self) -> list[str]:
        """The lines of its logs that tell of requests."""
        lines = [line for log in self.logs if log.exists() for line in log.read_text(errors="replace").splitlines()]
        if self.name == "tinyproxy":
            return [line for line in lines if " Request (" in line]
        return lines

    def wait_requests(self, count: int) -> list[str]:
        """Wait until so many requests are logged (squid logs a request when it is over)."""
        until = time.monotonic() + 10
        while len(found := self.requests()) < count and time.monotonic() < until:
            time.sleep(0.02)
        assert len(found) >= count, f"{self.name} logged {len(found)} requests, not {count}: {found}"
        return found


@dataclass
class Route:
    """A way to a server."""

    name: str
    proxy: ProxyProgram | None

    @property
    def options(self) -> dict[str, Any]:
        """For the client. (With a password: a proxy's usual case.)"""
        return {"proxies": self.proxy.locked if self.proxy else None}


def proxy_program(name: str, ports: tuple[int, int], logs: list[Path]) -> ProxyProgram:
    password = PASSWORDS[name]
    return ProxyProgram(
        name=name,
        open=f"http://127.0.0.1:{ports[0]}",
        locked=f"http://{USER}:{quote(password, safe='')}@127.0.0.1:{ports[1]}",
        refused=f"http://{USER}:wrong-{quote(password, safe='')}@127.0.0.1:{ports[1]}",
        password=password,
        logs=logs,
    )


def squid(directory: Path) -> tuple[ProxyProgram, list[Server]]:
    ports = free_port(), free_port()
    helper = next((path for path in SQUID_HELPERS if Path(path, "basic_ncsa_auth").exists()), SQUID_HELPERS[0])
    # basic_ncsa_auth takes crypt's formats, and plain MD5 in hexadecimal.
    digest = hashlib.md5(PASSWORDS["squid"].encode()).hexdigest()
    (directory / "passwords").write_text(f"{USER}:{digest}\n")
    access = directory / "access.log"
    (directory / "squid.conf").write_text(
        f"""
http_port 127.0.0.1:{ports[0]}
http_port 127.0.0.1:{ports[1]}
acl locked localport {ports[1]}
auth_param basic program {helper}/basic_ncsa_auth {directory}/passwords
auth_param basic realm deltawire
auth_param basic utf8 on
acl known proxy_auth REQUIRED
http_access deny locked !known
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
    return proxy_program("squid", ports, [access]), [server]


def tinyproxy(directory: Path) -> tuple[ProxyProgram, list[Server]]:
    servers = []
    for number, lock in enumerate(("", f"BasicAuth {USER} {PASSWORDS['tinyproxy']}")):
        server = Server("tinyproxy", free_port(), directory / f"output-{number}.log")
        config = directory / f"tinyproxy-{number}.conf"
        config.write_text(f"Port {server.port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 100\nLogLevel Info\n{lock}\n")
        server.start([variable("_TINYPROXY"), "-d", "-c", config])
        servers.append(server)
    ports = servers[0].port, servers[1].port
    return proxy_program("tinyproxy", ports, [server.log for server in servers]), servers


StartProxy = Callable[[str], "tuple[ProxyProgram, list[Server]]"]
