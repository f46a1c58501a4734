"""The servers and proxies of a soak, in a process of their own, so that what is counted in the other one is the
client's: ``python peers.py SEED FOLDER``.

It prints where they are, as JSON; answers each line of its standard input with what they have seen; and ends with it.
"""

from __future__ import annotations

import collections
import contextlib
import json
import random
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h11
import trustme
from acts import HEADER, Script

from deltawire.testing import Answer, ChatServer, Fault, ProxyServer, SocksServer
from deltawire.testing.faults import FaultEnding


class ScriptedServer(ChatServer):
    """Answers each call as it asks for, and forgets it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen = 0
        self._attempts: collections.Counter[str] = collections.Counter()

    def _take(self, head: h11.Request, body: bytes, connection: int) -> Any:
        told = [value for name, value in head.headers if name == HEADER.encode()]
        with self._changed:
            self.seen += 1
            if told:
                script = Script.read(told[0])
                answer = script.answer(self._attempts[script.number])
                self._attempts[script.number] += 1
                if head.method == b"GET":
                    answer = _listing(script, answer)
                self.plan(answer)
            taken = super()._take(head, body, connection)
            self._requests.clear()
        self.arrived()
        return taken

    def arrived(self) -> None:
        """A request has come."""


_ENDINGS: tuple[FaultEnding, ...] = ("close", "reset", "stall", "garbage")


class RoughServer(ScriptedServer):
    """Half of its connections fail, at any byte: of the TLS handshake, too."""

    def __init__(self, dice: random.Random, **options: Any) -> None:
        super().__init__(**options)
        self._dice = dice
        self.arrived()

    def arrived(self) -> None:
        dice = self._dice
        # One a request, and connections are fewer, since they are kept.
        self.clear_faults()
        for _ in range(3):
            ending = dice.choice(_ENDINGS)
            self.plan_faults(dice.choice((None, Fault(dice.randrange(8000), ending, raw=dice.random() < 0.5))))


def _listing(script: Script, answer: Answer) -> Answer:
    """What is said to who asks for the models: their names are the text."""
    if answer.tokens is None:
        return answer
    if not answer.tokens:
        return Answer(body=b"")
    names = {"object": "list", "data": [{"id": each} for each in script.pieces]}
    return Answer(json=names, headers=answer.headers, cut_after=answer.cut_after, ending=answer.ending)


def serve(seed: str, folder: Path) -> None:
    """Until standard input ends."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(ScriptedServer())
        tls = stack.enter_context(ScriptedServer(ssl_context=context))
        rough = stack.enter_context(RoughServer(random.Random(seed), ssl_context=context))
        proxy = stack.enter_context(ProxyServer(username="me", password="secret"))
        socks = stack.enter_context(SocksServer(username="me", password="secret"))
        servers = (plain, tls, rough)
        ways = {
            "direct": (plain, None), "few": (plain, None), "tls": (tls, None), "rough": (rough, None),
            "forward": (plain, proxy), "tunnel": (tls, proxy), "socks": (tls, socks),
        }  # fmt: skip
        print(json.dumps({name: (to.url, via and via.url) for name, (to, via) in ways.items()}), flush=True)
        for line in sys.stdin:
            open_now = 0
            for each in (*servers, proxy, socks):
                with contextlib.suppress(TimeoutError):
                    each.wait_closed(10 if line.strip() == "end" else 0.0)
                open_now += each.open_connections
            seen = {"requests": sum(each.seen for each in servers), "open": open_now}
            print(json.dumps({**seen, "connections": sum(each.connections for each in servers)}), flush=True)


class Peers:
    """That process, from outside."""

    def __init__(self, process: subprocess.Popen[str], authority: Path) -> None:
        self._process = process
        assert process.stdout is not None
        told = process.stdout.readline()
        if not told:
            raise RuntimeError("the servers did not start: see their words above")
        self.routes: dict[str, tuple[str, str | None]] = json.loads(told)
        """By the names of `acts.ROUTES`: the base URL, and that of the proxy."""
        self.authority = str(authority)
        """The file of the certificate authority."""

    def counts(self, word: str = "now") -> dict[str, int]:
        """How many requests they have seen, how many connections, how many are open; with "end" these have ten seconds
        to end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        counts: dict[str, int] = json.loads(self._process.stdout.readline())
        return counts


@contextlib.contextmanager
def peers(seed: str, folder: Path) -> Iterator[Peers]:
    """Run them."""
    pipe = subprocess.PIPE
    command = [sys.executable, __file__, seed, str(folder)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Peers(process, folder / "ca.pem")
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
