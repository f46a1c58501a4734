"""Recorded bytes of WordPress sites with AI Engine, through sockets to callers: by `Client`, by `AsyncClient`, and by
``create_async_generator``, all of them with `Opchatgpts`.

(test_site_recordings.py reads the same bytes with the machines alone.)
"""

from __future__ import annotations

import json
import random
import socket
import threading
from typing import Any

import pytest
from by_hand import read_until
from driving import HI, Driver, Heard, Run
from make_expected import SITE_EXPECTED, site_recordings, site_response
from streaming import serving
from test_recordings import exchanges

from deltawire import (
    APIStatusError,
    AsyncClient,
    Client,
    DeltawireError,
    EmptyReplyError,
    MalformedEventError,
    Opchatgpts,
    TruncatedStreamError,
)
from deltawire.protocol import Reply, StatusChunk
from deltawire.protocol.pieces import FinishReason, UsageReport
from deltawire.testing import Answer, ChatServer

NAMES = site_recordings()
WANTED: dict[str, dict[str, Any]] = json.loads(SITE_EXPECTED.read_text(encoding="utf-8"))
TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens")

pytestmark = pytest.mark.usefixtures("_tidy", "transports")

each_recording = pytest.mark.parametrize("name", NAMES)


def refuses_the_nonce(name: str) -> bool:
    return WANTED[name]["code"] in ("rest_cookie_invalid_nonce", "rest_forbidden")


def planned(server: ChatServer, name: str) -> str:
    """Plan a recording, as often as it will be asked for; gives the site's URL."""
    server.plan(*[Answer.replay(site_response(name))] * (2 if refuses_the_nonce(name) else 1))
    return server.site_url


def check_requests(name: str, server: ChatServer) -> None:
    """A refused nonce is renewed once; no other reply is worth a second request."""
    paths = [request.path.rpartition("/")[2] for request in server.requests]
    assert paths == ["start_session", "submit"] * (2 if refuses_the_nonce(name) else 1)


def usage_of(usage: Any) -> dict[str, Any] | None:
    return usage and {name: getattr(usage, name) for name in TOKENS}


def check_error(name: str, error: BaseException | None) -> None:
    """The error is the one that the recording's verdict names, and says what the site said."""
    wanted = WANTED[name]
    if wanted["verdict"] == "ended":
        assert error is None
        return
    assert isinstance(error, DeltawireError)
    assert (type(error).__name__, error.__cause__) == (wanted["verdict"], None)
    assert wanted["words"] in str(error)
    if isinstance(error, APIStatusError):
        assert (error.status_code, error.code) == (wanted["error_status"], wanted["code"])
        partial = error.partial and error.partial.choices[0].message.content
        assert (partial or "") == wanted["text"]


# --- Whole, by every way ------------------------------------------------------------------------------


@each_recording
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_s_call(driver: Driver, server: ChatServer, name: str, stream: bool) -> None:
    wanted, url = WANTED[name], planned(server, name)
    heard = driver.ask({"provider": Opchatgpts(url=url), "max_retries": 0}, stream=stream)
    check_error(name, heard.error)
    check_requests(name, server)
    if heard.error is not None:
        # Who does not stream gets an answer or an error, never both.
        assert heard.text == (wanted["text"] if stream else "")
        return
    assert heard.text == wanted["text"]
    whole = heard.reply.partial() if stream else heard.reply
    assert whole.choices[0].message.content == wanted["text"]
    assert whole.choices[0].finish_reason == "stop"
    assert usage_of(whole.usage) == wanted["usage"]
    assert whole.id == wanted["id"]
    if not stream:
        assert whole.model_extra["actions"] == wanted["actions"]


def check_pieces(name: str, pieces: list[Any]) -> None:
    """What a generator has yielded is the answer; usage and finish reason come last, once, if it ended well."""
    wanted = WANTED[name]
    texts = [piece for piece in pieces if isinstance(piece, str)]
    assert "".join(map(str, pieces)) == "".join(texts) == wanted["text"]
    others = pieces[len(texts) :]
    if wanted["verdict"] != "ended":
        assert others == []
        return
    usage, reason = others
    assert isinstance(usage, UsageReport)
    assert usage_of(usage) == wanted["usage"]
    assert reason == FinishReason("stop")


@each_recording
@pytest.mark.parametrize("stream", [True, False])
def test_create_async_generator(run: Run, server: ChatServer, name: str, stream: bool) -> None:
    url = planned(server, name)
    pieces: list[Any] = []

    async def main() -> None:
        async for piece in Opchatgpts(url=url).create_async_generator("", HI, stream=stream, max_retries=0):
            pieces.append(piece)  # noqa: PERF401 - those before an error, too

    error: Exception | None = None
    try:
        run(main)
    except DeltawireError as raised:
        error = raised
    check_error(name, error)
    check_requests(name, server)
    if error is None or stream:
        check_pieces(name, pieces)
    else:
        assert pieces == []


@each_recording
def test_create_generator(server: ChatServer, name: str) -> None:
    url = planned(server, name)
    pieces: list[Any] = []
    error: Exception | None = None
    try:
        for piece in Opchatgpts(url=url).create_generator("", HI, max_retries=0):
            pieces.append(piece)  # noqa: PERF402 - those before an error, too
    except DeltawireError as raised:
        error = raised
    check_error(name, error)
    check_pieces(name, pieces)
    check_requests(name, server)


# --- In slices ----------------------------------------------------------------------------------------


class Slices:
    """A listener's script: what a recording begins with, and the rest when the caller has heard all that this says."""

    def __init__(self, raw: bytes, at: int) -> None:
        self._parts = raw[:at], raw[at:]
        self.heard = threading.Event()
        self.expected = contents(self._parts[0])
        """How many chunks with content the first slice holds."""
        self.status_lines: list[Any] = []

    def __call__(self, connection: socket.socket) -> None:
        read_until(connection, b'"stream":true}')
        connection.sendall(self._parts[0])
        if self.expected:
            assert self.heard.wait(5), "what has arrived is not given to the caller"
        connection.sendall(self._parts[1])

    def take(self, chunk: Any, heard: Heard) -> None:
        """The caller has heard another chunk."""
        if isinstance(chunk, StatusChunk):
            self.status_lines.append(chunk.model_extra["data"])
        said = chunk.choices[0].delta.content
        heard.text += said or ""
        heard.chunks += bool(said)
        if heard.chunks == self.expected:
            self.heard.set()


def contents(begun: bytes) -> int:
    """How many chunks with content the beginning of a recording holds."""
    reply = Reply("opchatgpts")
    for status, headers, body, _ in exchanges([begun]):
        reply.start(status, headers)
        for part in body:
            reply.receive(part)
    return reply.contents


def cuts(name: str) -> list[int]:
    """Some places in a recording: in its head, right after its first event, and anywhere in its body."""
    raw, chance = site_response(name), random.Random(name)
    body = raw.index(b"\r\n\r\n") + 4
    blank = raw.find(b"\n\n", body)
    return sorted({body - 3, blank + 2 if blank > 0 else body, *chance.sample(range(body, len(raw)), 4)})


# The site gives its nonce by itself: each connection is a reply.
OPTIONS: dict[str, Any] = {"nonce": "n", "nonce_from": None}


def test_the_places_are_telling() -> None:
    found = [contents(site_response(name)[:at]) for name in NAMES for at in cuts(name)]
    assert sum(count > 1 for count in found) > 50


@each_recording
def test_what_has_arrived_is_given_at_once(name: str) -> None:
    wanted = WANTED[name]
    scripts = [Slices(site_response(name), at) for at in cuts(name)]
    with serving(*scripts) as port, Client(Opchatgpts(url=f"http://127.0.0.1:{port}", **OPTIONS)) as client:
        for script in scripts:
            heard = Heard()
            try:
                with client.chat.completions.create(HI, stream=True, max_retries=0) as stream:
                    for chunk in stream:
                        script.take(chunk, heard)
            except DeltawireError as error:
                heard.error = error
            check_error(name, heard.error)
            assert (heard.text, script.status_lines) == (wanted["text"], wanted["status_lines"])


@each_recording
def test_what_has_arrived_is_given_at_once_to_tasks(run: Run, name: str) -> None:
    wanted = WANTED[name]
    scripts = [Slices(site_response(name), at) for at in cuts(name)]

    async def main(port: int) -> None:
        async with AsyncClient(Opchatgpts(url=f"http://127.0.0.1:{port}", **OPTIONS)) as client:
            for script in scripts:
                heard = Heard()
                try:
                    async with client.chat.completions.create(HI, stream=True, max_retries=0) as stream:
                        async for chunk in stream:
                            script.take(chunk, heard)
                except DeltawireError as error:
                    heard.error = error
                check_error(name, heard.error)
                assert (heard.text, script.status_lines) == (wanted["text"], wanted["status_lines"])

    with serving(*scripts) as port:
        run(main, port)


# --- Replies that were not recorded --------------------------------------------------------------------


def event(**value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def end(**value: Any) -> bytes:
    """The last event: JSON in a string."""
    return event(type="end", data=json.dumps({"success": True, "reply": "", **value}))


UNRECORDED: dict[str, tuple[list[bytes], str, type[DeltawireError] | None]] = {
    "all of it in the end": ([end(reply="All of it")], "All of it", None),
    "an end that repeats it": ([event(type="live", data=" a b "), end(reply="a b")], " a b ", None),
    "an end of the last turn only": (
        [event(type="live", data="one, "), event(type="live", data="two"), end(reply="two")],
        "one, two",
        None,
    ),
    "a failure in the end": ([end(success=False, message="Too many.")], "", APIStatusError),
    "a failure after text": (
        [event(type="live", data="a"), end(success=False, message="Too many.")],
        "a",
        APIStatusError,
    ),
    "nothing at all": ([end()], "", EmptyReplyError),
    "a broken line": ([event(type="live", data="a"), b"data: {oops\n\n"], "a", MalformedEventError),
    "a line without a type": ([event(type="live", data="a"), event(data="b")], "a", MalformedEventError),
    "an unknown type": ([event(type="live", data="a"), event(type="new", data="b"), end()], "a", None),
    "no end": ([event(type="live", data="a")], "a", TruncatedStreamError),
}


@pytest.mark.parametrize("content_type", ["text/event-stream;charset=UTF-8", "application/json; charset=UTF-8"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", UNRECORDED)
def test_other_replies(driver: Driver, server: ChatServer, name: str, stream: bool, content_type: str) -> None:
    events, text, error = UNRECORDED[name]
    server.plan(Answer(events=events, content_type=content_type))
    heard = driver.ask({"provider": Opchatgpts(url=server.site_url), "max_retries": 0}, stream=stream)
    assert (type(heard.error) if heard.error else None) is error
    assert heard.text == (text if stream or error is None else "")
    if isinstance(heard.error, MalformedEventError):
        # What clients of 2023 caught.
        assert isinstance(heard.error, RuntimeError)
        assert heard.error.line == events[-1].strip().decode()
    elif isinstance(heard.error, APIStatusError):
        assert "Too many." in str(heard.error)
