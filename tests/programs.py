"""Programs run as people run them: in a process of their own, with every warning an error."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from deltawire import owners
from deltawire.testing import Answer, ChatServer

# Whoever says -X dev is told of slow callbacks by asyncio's debug mode, on this machine also of good ones.
_QUIET = """
import logging
logging.getLogger("asyncio").setLevel(logging.ERROR)
"""

EXAMPLES_FOLDER = Path(__file__).parent.parent / "examples"

KEY = "sk-of-the-program"


def _command(source: str, arguments: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-W", "error", "-X", "dev", "-c", _QUIET + textwrap.dedent(source), *arguments]


def _environment(given: dict[str, str]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "VIRTUAL_ENV") if name in os.environ}
    return {**kept, "PYTHONIOENCODING": "utf-8", **given}


def launch(source: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program, when it has ended. Its clients' usual transport is that of this process's (see ``transports`` of
    ``conftest.py``)."""
    usual = "" if owners._USUAL == "httpcore" else f"from deltawire import owners\nowners._USUAL = {owners._USUAL!r}\n"
    return subprocess.run(
        _command(usual + textwrap.dedent(source), arguments),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=_environment(environment),
    )


@contextlib.contextmanager
def running(
    source: str, *arguments: str, environment: dict[str, str], keep: tuple[int, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """The program while it runs, with these files open; killed if it outlives the block."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        _command(source, arguments), stdout=pipe, stderr=pipe, text=True, pass_fds=keep, env=_environment(environment)
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run_program(source: str, *arguments: str, **environment: str) -> str:
    """What the program printed. It must say nothing on stderr, and end well."""
    done = launch(source, *arguments, **environment)
    assert done.stderr == "", done.stderr
    assert done.returncode == 0
    return done.stdout


def source_of(example: str) -> str:
    """A program that is this file of ``examples/``."""
    return f"import runpy; runpy.run_path({str(EXAMPLES_FOLDER / example)!r}, run_name='__main__')"


class Example(NamedTuple):
    """A program in ``examples/``, before a server whose first answers are failures."""

    name: str
    failures: tuple[Answer, ...]
    requests: int
    """How many arrive at the server, the failed ones among them."""
    printed: str
    """A regular expression for all that it prints."""

    @property
    def source(self) -> str:
        """A program that is the file."""
        return source_of(self.name)

    @property
    def on_trio(self) -> str:
        """The same program, but for the event loop."""
        text, count = re.subn(
            r"asyncio\.run\(main\((.*)\)\)", r"trio.run(main, \1)", (EXAMPLES_FOLDER / self.name).read_text()
        )
        assert count == 1
        return f"import trio\n{text}"

    def check(self, printed: str, server: ChatServer) -> None:
        """What it printed is the answer and nothing but it; the server was asked as often as it should be."""
        assert re.fullmatch(self.printed.replace("SERVER", re.escape(server.site_url)), printed), printed
        statuses = [each.status for each in server.requests]
        assert len(statuses) == self.requests, statuses
        failed = Counter(each.status for each in self.failures if each.status != 200)
        assert Counter(status for status in statuses if status != 200) == failed


def environment_of(server: ChatServer, proxy: str) -> dict[str, str]:
    """What an example reads: a server whose key is `KEY`, and a proxy's URL."""
    servers = {"OPENAI_BASE_URL": server.url, "MY_SERVER": server.url, "SITE": server.site_url}
    return {**servers, "OPENAI_API_KEY": KEY, "MY_KEY": KEY, "PROXY": proxy}


def _fails(status: int, to: str | None = None) -> Answer:
    return Answer.error(status, retry_after=0.01, to=to)


# Ends in good order and says nothing.
_EMPTY = Answer(tokens=[], finish_reason=None)
_TWICE = (_fails(503), _fails(429))
_FOUR = (_EMPTY, _fails(503), _fails(429), _fails(500))
_IMAGE = r"SERVER/images/\d-0\.png\n"

EXAMPLES = [
    Example("retry_through_proxy.py", _FOUR, 6, r"Hello\nHello\n"),
    Example("async_stream.py", _TWICE, 5, r"Hello\nHello\nHello\n"),
    Example("trio_stream.py", _TWICE, 4, r"Hello\nHello\n"),
    Example("template.py", _TWICE, 5, r"\['local-model'\]\nHello\nHello\n"),
    Example("own_provider.py", _TWICE, 5, r"Hello\nHello\n\['local-model'\]\n"),
    Example("opchatgpts.py", (_fails(503, "/start_session"), _fails(500)), 4, r"Hello\n"),
    Example("fail_over.py", (_fails(500, "/chats/submit"),), 3, r"Hello \(OpenaiChat\)\n"),
    Example("pictures.py", _TWICE, 5, rf"\d+ bytes of PNG\n{_IMAGE}Hello\n"),
    Example("models.py", _TWICE, 3, r"local-model\n"),
    Example("gather.py", _TWICE, 5, rf"Hello Hello\n{_IMAGE}"),
]
"""Those that ask through a client; for a server with the tokens "Hel" and "lo"."""

EMBEDDINGS = [
    "embed_asyncio_protocol.py",
    "embed_selectors.py",
    "embed_tk.py",
    "embed_tornado.py",
    "embed_trio.py",
    "embed_twisted.py",
]
"""Those that drive the machines in a loop of their own: they ask each argument, and print the answers in that order."""

OTHERS = ["feed_bodies.py", "relay_starlette.py"]
