"""Programs run as people run them: in a process of their own, with every warning an error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from deltawire import owners
from deltawire.testing import Answer, ChatServer

# Whoever says -X dev is told of slow callbacks by asyncio's debug mode, on this machine also of good ones.
_QUIET = """
import logging
logging.getLogger("asyncio").setLevel(logging.ERROR)
"""

_EXAMPLES = Path(__file__).parent.parent / "examples"

KEY = "sk-of-the-program"


def launch(source: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program, when it has ended. Its clients' usual transport is that of this process's (see ``transports`` of
    ``conftest.py``)."""
    usual = "" if owners._USUAL == "httpcore" else f"from deltawire import owners\nowners._USUAL = {owners._USUAL!r}\n"
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "VIRTUAL_ENV") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", _QUIET + usual + textwrap.dedent(source), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**kept, "PYTHONIOENCODING": "utf-8", **environment},
    )


def run_program(source: str, *arguments: str, **environment: str) -> str:
    """What the program printed. It must say nothing on stderr, and end well."""
    done = launch(source, *arguments, **environment)
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


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
        return f"import runpy; runpy.run_path({str(_EXAMPLES / self.name)!r}, run_name='__main__')"

    @property
    def on_trio(self) -> str:
        """The same program, but for the event loop."""
        text, count = re.subn(
            r"asyncio\.run\(main\((.*)\)\)", r"trio.run(main, \1)", (_EXAMPLES / self.name).read_text()
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
"""All of them; for a server with the tokens "Hel" and "lo"."""
