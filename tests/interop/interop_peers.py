"""Other people's clients, in a process of their own: what they are asked, and what they tell."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interop_calls import PROMPT, TIMEOUT
from interop_servers import KEY
from whole_reader import Fold

Fields = dict[str, Any]

PEERS = ("openai", "httpx")
STRANGERS = Path(__file__).with_name("peers.py")


@dataclass(kw_only=True)
class Wish:
    """One call: of ``chat.completions.create``, of images, or of the list of models."""

    do: str = "stream"
    """stream, chat, models or images. Of the SDK alone "model", one of them, and "accumulated", which is its
    ``chat.completions.stream``, read to its end."""
    parameters: Fields = field(default_factory=dict)
    take: int | None = None
    """Leave the stream after that many chunks."""

    def line(self) -> Fields:
        usual = {"images": {"model": "painter", "prompt": "a fox"}, "models": {}, "model": {}}
        parameters = usual.get(self.do, {"model": "local-model", "messages": PROMPT})
        return {"do": self.do, "take": self.take, "parameters": {**parameters, **self.parameters}}


@dataclass(kw_only=True)
class Said:
    """What came of a `Wish`."""

    chunks: list[Fields]
    reply: Any
    """What is no stream."""
    error: Fields | None
    """Its kind, and what it knows."""
    seconds: float

    def good(self) -> list[Fields]:
        """The payloads of a call that must not have failed: the chunks, or the reply."""
        assert self.error is None, self.error
        return self.chunks if self.reply is None else [self.reply]

    def failed(self) -> Fields:
        """The error."""
        assert self.error is not None, "no error"
        return self.error

    @property
    def text(self) -> str:
        return str(folded(self.good())[0]["text"])


class Program:
    """The process of `peers.py`: an environment that has the libraries, and not deltawire."""

    def __init__(self, python: str, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [python, STRANGERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True
            )

    def call(self, line: Fields) -> list[Said]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the peers' process ended with status {self._process.wait()}:\n{self._log.read_text()}"
        return [Said(**each) for each in json.loads(answer)]

    def stop(self) -> None:
        """End the process, and wait until it has ended."""
        self._process.communicate(timeout=TIMEOUT)


@dataclass(frozen=True)
class Peer:
    """A client of somebody else's, in one flavour."""

    name: str
    flavour: str
    program: Program

    def converse(self, wishes: list[Wish], *, together: bool = False, **client: Any) -> list[Said]:
        """Some calls with one client, one after the other or ``together``. It takes ``ca`` (a file) and ``proxy``."""
        settings = {"api_key": KEY, "max_retries": 0, "timeout": TIMEOUT, **client}
        line = {"peer": self.name, "flavour": self.flavour, "client": settings, "together": together}
        return self.program.call({**line, "asks": [wish.line() for wish in wishes]})

    def ask(self, wish: Wish, **client: Any) -> Said:
        """One call with a client of its own."""
        (said,) = self.converse([wish], **client)
        return said


def folded(payloads: list[Fields]) -> list[Fields]:
    """What chunks, or a whole reply, come to, choice by choice, and the usage last: by the tests' own reader."""
    fold = Fold()
    for payload in payloads:
        fold.add(payload)
    return [*fold.finished(), {"usage": fold.usage}]


def nameless(payloads: list[Fields]) -> list[Fields]:
    """The same payloads without what differs from reply to reply: the id, and the time."""
    return [{name: value for name, value in each.items() if name not in ("id", "created")} for each in payloads]
