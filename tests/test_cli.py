"""The command line, mostly as a process of its own: what it prints, where, and with which exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deltawire.cli import main
from deltawire.testing import Answer, ChatServer, ProxyServer

RECORDINGS = Path(__file__).parent / "data" / "recordings"
COMMAND = [sys.executable, "-W", "error", "-X", "dev", "-m", "deltawire"]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(tokens=["Good", " day", "\n", "to you."]) as running:
        yield running


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
    return {**kept, "PYTHONIOENCODING": "utf-8", **more}


def deltawire(*arguments: str, text: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        input=text,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        env=environment(**env),
        check=False,
    )


def test_chat_streams_to_stdout_and_nothing_to_stderr(server: ChatServer) -> None:
    done = deltawire("chat", "Hi", "--base-url", server.url, "--model", "m1", "--system", "Be kind.")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Good day\nto you.\n", "")
    body = server.requests[0].json()
    assert body == {
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
        "model": "m1",
        "stream": True,
    }


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_chat_reads_stdin(server: ChatServer, arguments: tuple[str, ...]) -> None:
    done = deltawire(
        "chat", *arguments, "--no-stream", text="From a pipe.", OPENAI_BASE_URL=server.url, OPENAI_API_KEY="k"
    )
    assert (done.returncode, done.stdout) == (0, "Good day\nto you.\n")
    request = server.requests[0]
    assert request.json()["messages"] == [{"role": "user", "content": "From a pipe."}]
    assert request.header("authorization") == "Bearer k"


def test_chat_json_prints_a_line_a_chunk(server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "Hi", "--base-url", server.url, "--json"]) == 0
    chunks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == [
        "",
        "Good",
        " day",
        "\n",
        "to you.",
        None,
    ]


def test_chat_json_without_stream_prints_the_completion(server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "Hi", "--base-url", server.url, "--json", "--no-stream"]) == 0
    completion = json.loads(capsys.readouterr().out)
    assert completion["choices"][0]["message"]["content"] == "Good day\nto you."
    assert completion["usage"]["total_tokens"] > 0


def test_chat_goes_through_the_proxy_and_retries(server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan(Answer.error(503, retry_after=0))
    with ProxyServer(username="u", password="p@ss") as proxy:
        assert main(["chat", "Hi", "--base-url", server.url, "--proxy", proxy.url]) == 0
        assert [each.status for each in proxy.requests] == [503, 200]
    assert capsys.readouterr().out == "Good day\nto you.\n"


def test_models(server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--base-url", server.url]) == 0
    assert capsys.readouterr().out == "local-model\n"
    assert main(["models", "--base-url", server.url, "--json"]) == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)["data"]] == ["local-model"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["chat", "Hi", "--base-url", "http://127.0.0.1:1/v1"], 3, "no connection to 127.0.0.1:1"),
        (["chat", "Hi", "--base-url", "localhost:8000"], 2, "did you mean 'http://localhost:8000'?"),
        (
            ["chat", "Hi", "--base-url", "SERVER", "--proxy", "http://u:secret@127.0.0.1:1"],
            3,
            "http://127.0.0.1:1 can't",
        ),
        (["chat", "  ", "--base-url", "SERVER"], 2, "nothing to ask"),
        (["chat", "Hi"], 2, "OPENAI_API_KEY"),
        (["chat", "Hi", "--base-url", "SERVER", "--max-retries", "-1"], 2, "max_retries"),
        (["replay", "no-such-file"], 2, "no-such-file"),
    ],
)
def test_an_error_is_one_clear_line(server: ChatServer, arguments: list[str], status: int, words: str) -> None:
    arguments = [server.url if each == "SERVER" else each for each in arguments]
    if "--max-retries" not in arguments and arguments[0] == "chat":
        arguments += ["--max-retries", "0"]
    done = deltawire(*arguments)
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.startswith("deltawire: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert "secret" not in done.stderr


def test_a_server_error_has_status_1_and_debug_shows_the_traceback(server: ChatServer) -> None:
    server.plan(Answer.error(400, "no such thing"), Answer.error(400, "no such thing"))
    arguments = ["chat", "Hi", "--base-url", server.url]
    done = deltawire(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no such thing" in done.stderr
    assert done.stderr.count("\n") == 1
    debug = deltawire(*arguments, "--debug")
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr
    assert "BadRequestError" in debug.stderr


def test_what_came_before_an_error_is_printed(server: ChatServer) -> None:
    server.plan(Answer(tokens=["Half a "], finish_reason=None, done=False))
    done = deltawire("chat", "Hi", "--base-url", server.url)
    assert (done.returncode, done.stdout) == (1, "Half a \n")
    assert "ends before it is complete" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["chat", "Hi", "--timeout", "0"], ["chat", "Hi", "--timeout", "x"], ["nope"], []]
)
def test_usage_errors(arguments: list[str]) -> None:
    assert deltawire(*arguments).returncode == 2


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        env=environment(),
    )


def test_ctrl_c_ends_cleanly(server: ChatServer) -> None:
    server.plan(Answer(tokens=["First", " then nothing"], ending="stall", done=False, finish_reason=None))
    with start("chat", "Hi", "--base-url", server.url) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.read(5)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
    assert first == "First"
    assert rest in ("\n", " then nothing\n")
    assert (process.returncode, errors) == (130, "\n")
    assert server.wait_outcome(0) == "client-closed"


def test_a_closed_pipe_ends_quietly(server: ChatServer) -> None:
    server.plan(Answer(tokens=["word "] * 200, pace=0.005))
    with start("chat", "Hi", "--base-url", server.url) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(4) == "word"
        process.stdout.close()
        errors = process.stderr.read()
        process.wait(timeout=30)
    assert (process.returncode, errors) == (141, "")
    assert server.wait_outcome(0) == "client-closed"


def test_a_model_cannot_drive_the_terminal(server: ChatServer) -> None:
    import pty

    server.plan(Answer(tokens=["\x1b]0;title\x07", "plain\t\u009b2J", "\n"]))
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [*COMMAND, "chat", "Hi", "--base-url", server.url], stdout=theirs, env=environment(), timeout=60, check=True
        )
        shown = os.read(ours, 1000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0
    assert shown.replace("\r\n", "\n") == "]0;titleplain\t2J\n"


def test_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "Each of these words crossed a proxy, one by one, after a first attempt that failed.\n"
    assert "2 requests, 2 of them through the proxy" in captured.err


def test_demo_json_reports_two_requests_through_the_proxy_and_when_tokens_came() -> None:
    done = deltawire("demo", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert [each["status"] for each in report["server"]] == [503, 200]
    assert [each["status"] for each in report["proxy"]] == [503, 200]
    assert report["through_proxy"] is True
    times = [each["at"] for each in report["tokens"]]
    assert len(times) == 19
    # They came as they were sent, 50 ms apart, and not all at the end.
    assert times == sorted(times)
    assert times[-1] - times[0] > 0.5


def test_demo_fails_when_the_proxy_is_down() -> None:
    done = deltawire("demo", "--stop-proxy")
    assert done.returncode == 3
    assert done.stdout == ""
    assert "can't be reached" in done.stderr
    assert "local only" not in done.stderr


def replay(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[Any]]:
    status = main(["replay", "--json", *arguments])
    return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("split", ["0", "1", "7"])
def test_replay_of_responses(capsys: pytest.CaptureFixture[str], split: str) -> None:
    status, events = replay(capsys, str(RECORDINGS / "D-aimock.12i-keepalive-two.response"), "--split", split)
    assert status == 0
    kinds = [each["event"] for each in events]
    # Two responses on one connection.
    assert kinds.count("ended") == 2
    assert kinds[-1] == "ended"
    assert kinds.count("chunk") == len(kinds) - 2
    texts = [each["chunk"]["choices"][0]["delta"].get("content") or "" for each in events if each["event"] == "chunk"]
    assert "".join(texts).startswith("Hello!")


def test_replay_of_a_cut_off_response(capsys: pytest.CaptureFixture[str]) -> None:
    status, events = replay(capsys, str(RECORDINGS / "D-aimock.13e-truncate-stream.response"))
    assert status == 1
    assert events[-1]["event"] == "failed"
    assert events[-1]["error"] == "TruncatedStreamError"


def test_replay_of_what_is_no_chat(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b'{"data":[{"id":"m","url":"http://x/a.png"}]}')
    for dialect in ("images", "models"):
        status, events = replay(capsys, str(body), "--dialect", dialect)
        assert (status, [each["event"] for each in events]) == (0, [dialect, "ended"])
        assert len(events[0][dialect]["data"]) == 1


def test_replay_of_a_body(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
    assert main(["replay", str(body)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('chunk {"')
    assert lines[1] == "ended, finished"
    body.write_bytes(b"<html>Bad gateway</html>")
    assert main(["replay", str(body)]) == 1
    assert capsys.readouterr().out.startswith("failed: UnexpectedReplyError: ")


def test_replay_of_another_dialect(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sites = RECORDINGS.parent / "ai-engine"
    file = str(sites / "06d_events_js_action_stream.response")
    status, events = replay(capsys, file, "--dialect", "opchatgpts", "--split", "9")
    assert status == 0
    assert events[0]["chunk"]["subtype"] == "thinking"
    assert events[-1] == {"event": "ended", "finished": True}
    body = tmp_path / "body"
    body.write_bytes(b'{"success": true, "sessionId": "s", "restNonce": "n"}')
    assert replay(capsys, str(body), "--dialect", "session") == (
        0,
        [{"event": "session", "session_id": "s", "nonce": "n"}, {"event": "ended", "finished": True}],
    )
    assert main(["replay", str(body), "--dialect", "session"]) == 0
    assert capsys.readouterr().out.startswith("session 's', nonce 'n'")
    assert main(["replay", str(body), "--dialect", "esperanto"]) == 2
    assert "esperanto" in capsys.readouterr().err
