"""`deltawire.testing.ChatServer` as a WordPress site with AI Engine, against recordings of one."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from asking import ask, dechunk, exchange

from deltawire.testing import Answer, ChatServer

RECORDINGS = Path(__file__).parent / "data" / "ai-engine"
SUBMIT = "/wp-json/mwai-ui/v1/chats/submit"
SESSION = "/wp-json/mwai/v1/start_session"
TOKENS = [" Hel", "lo"]


@pytest.fixture
def site() -> Iterator[ChatServer]:
    with ChatServer(tokens=TOKENS) as running:
        yield running


def submit(server: ChatServer, body: Any = None, *, path: str = SUBMIT, nonce: str | None = "", **more: str) -> Any:
    """A submit request, with the server's nonce unless another or None is given; (status, headers, body)."""
    headers = {"Content_Type": "application/json", **more}
    if nonce is not None:
        headers["X_WP_Nonce"] = nonce or server.nonce
    return ask(server, {"botId": "default", "newMessage": "Hi you", **(body or {})}, path=path, **headers)


def told(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream."""
    assert body.endswith(b"\n\n")
    blocks = body[:-2].split(b"\n\n")
    assert all(block.startswith(b"data: ") for block in blocks)
    return [json.loads(block[6:]) for block in blocks]


def end_of(body: bytes) -> dict[str, Any]:
    last = told(body)[-1]
    assert last["type"] == "end"
    end: dict[str, Any] = json.loads(last["data"])
    return end


# Against the recordings

FRAMING = {b"server", b"date", b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"content-type"}
# What PHP's session, the request's Origin and the proxy add or take away, depending on how the site is installed.
INSTALLATION = {b"pragma", b"vary", b"x-accel-buffering"}

OWN = [
    (rb"chatcmpl-[\w-]+", b"chatcmpl-X"),
    (rb"http://127\.0\.0\.1:\d+/", b"http://site/"),
    (rb"mwai_session_id=\w+", b"mwai_session_id=X"),
]


def masked(data: bytes) -> bytes:
    """Without what is each server's own."""
    for pattern, name in OWN:
        data = re.sub(pattern, name, data)
    return data


def parts(raw: bytes) -> tuple[bytes, list[tuple[bytes, bytes]], bytes, list[bytes]]:
    """The status line, the fields that do not frame, the Content-Type, and the body's HTTP chunks, if it has any."""
    head, _, body = raw.partition(b"\r\n\r\n")
    chunks = dechunk(body) if b"chunked" in head else [body]
    head = masked(head)
    status, *lines = head.split(b"\r\n")
    fields = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
    kept = [each for each in fields if each[0].lower() not in FRAMING | INSTALLATION]
    types = [value for name, value in fields if name.lower() == b"content-type"]
    return status, kept, types[0], [masked(chunk) for chunk in chunks]


def unframed(raw: bytes) -> bytes:
    """The body."""
    head, _, body = raw.partition(b"\r\n\r\n")
    return b"".join(dechunk(body)) if b"chunked" in head else body


def recorded(name: str) -> tuple[bytes, bytes]:
    """The request, made to be the last on its connection, and the response."""
    request = (RECORDINGS / f"{name}.request").read_bytes()
    response = (RECORDINGS / f"{name}.response").read_bytes()
    head, _, body = request.replace(b"\r\n\r\n", b"\n\n", 1).partition(b"\n\n")
    lines = [line.rstrip(b"\r") for line in head.split(b"\n")]
    return b"\r\n".join([*lines, b"Connection: close", b"", body]), response


def replayed(site: ChatServer, name: str, answer: Answer | None = None) -> tuple[bytes, bytes]:
    """What this server replies, and what the real one did, to the same request."""
    if answer is not None:
        site.plan(answer)
    request, response = recorded(name)
    ours = site.nonce.encode()
    return exchange(site, request.replace(b"ad3ef53988", ours)), response.replace(b"ad3ef53988", ours)


def answer_of(response: bytes) -> Answer:
    """The answer that says what a recorded stream says."""
    *lives, end = told(unframed(response))
    tokens = [live["data"] for live in lives]
    return Answer(tokens=tokens, usage=json.loads(end["data"])["usage"])


@pytest.mark.parametrize("name", ["apache_01_stream_with_history", "apache_03d_nonce_ok_nocookie_stream"])
def test_a_stream_is_byte_for_byte_that_of_a_site_behind_apache(site: ChatServer, name: str) -> None:
    ours, theirs = replayed(site, name, answer_of(recorded(name)[1]))
    assert parts(ours) == parts(theirs)  # and the same HTTP chunks: of each event's blank line one of its own
    assert b"}\r\n2\r\n\n\n\r\n" in ours


@pytest.mark.parametrize("name", ["09_unicode_shim_stream", "14e_stream_truthy_string", "05_empty_shim_stream"])
def test_the_text_of_a_stream_is_written_as_php_writes_it(site: ChatServer, name: str) -> None:
    ours, theirs = replayed(site, name, answer_of(recorded(name)[1]))
    assert parts(ours)[:3] == parts(theirs)[:3]
    assert masked(unframed(ours)) == masked(unframed(theirs))


def test_a_document(site: ChatServer) -> None:
    name = "apache_02_nostream_with_history"
    whole = json.loads(unframed(recorded(name)[1]))
    ours, theirs = replayed(site, name, Answer(tokens=[f" {whole['reply']}\n"], usage=whole["usage"]))
    assert parts(ours) == parts(theirs)


@pytest.mark.parametrize(
    "name",
    [
        "apache_03a_nonce_missing_stream",
        "apache_03b_nonce_invalid_stream",
        "apache_04a_empty_message_stream",
        "apache_04c_no_bot_stream",
        "14a_message_entry_string_stream",
        "14b_messages_is_string_stream",
        "14g_no_content_type",
    ],
)
def test_refusals(site: ChatServer, name: str) -> None:
    ours, theirs = replayed(site, name)
    if name.startswith("14b"):  # PHP died, and with it the fields that would have followed
        assert parts(ours)[0] == parts(theirs)[0]
    elif name.startswith("14a"):  # the plugin had begun a session by then
        assert [each for each in parts(theirs)[1] if each[0] != b"Set-Cookie"] == parts(ours)[1]
    else:
        assert parts(ours)[:3] == parts(theirs)[:3]
    assert unframed(ours) == unframed(theirs)


def test_planned_failures(site: ChatServer) -> None:
    name = "apache_05b_deadport_nostream"
    message = json.loads(unframed(recorded(name)[1]))["message"]
    ours, theirs = replayed(site, name, Answer.error(500, message))
    assert (parts(ours)[:3], unframed(ours)) == (parts(theirs)[:3], unframed(theirs))
    name = "05_http401_shim_stream"  # below 400, a stream has an error event
    (event,) = told(unframed(recorded(name)[1]))
    ours, theirs = replayed(site, name, Answer.error(200, event["data"]))
    assert (parts(ours)[:3], unframed(ours)) == (parts(theirs)[:3], unframed(theirs))


def test_a_shortcut_needs_no_message(site: ChatServer) -> None:
    name = "11b_shortcut_submit_stream"
    ours, theirs = replayed(site, name, answer_of(recorded(name)[1]))
    assert parts(ours)[0] == parts(theirs)[0] == b"HTTP/1.1 200 OK"
    # The end tells of the site's own shortcuts.
    assert told(unframed(ours))[:-1] == told(unframed(theirs))[:-1]


def test_start_session_refuses_a_wrong_nonce(site: ChatServer) -> None:
    """As WordPress does with any request of its REST API; it wants none."""
    wrong: dict[str, str] = {"X-WP-Nonce": "0000000000"}
    status, _, body = ask(site, path=SESSION, **wrong)
    assert (status, json.loads(body)["code"]) == (403, "rest_cookie_invalid_nonce")
    assert [ask(site, path=SESSION, **each)[0] for each in ({}, {"X-WP-Nonce": site.nonce})] == [200, 200]
    with ChatServer(needs_nonce=False) as open_site:
        assert ask(open_site, path=SESSION, **wrong)[0] == 200


def test_start_session_is_no_get(site: ChatServer) -> None:
    ours, theirs = replayed(site, "08c_start_session_get")
    assert parts(ours)[0] == parts(theirs)[0]
    assert parts(ours)[2] == parts(theirs)[2]
    assert unframed(ours) == unframed(theirs)
    for path in (SUBMIT, "/wp-json/wp/v2/nothing", "/?rest_route=/nothing"):
        status, _, body = ask(site, path=path, method="GET")
        assert (status, json.loads(body)["code"]) == (404, "rest_no_route")


# Nonces


@pytest.mark.parametrize("path", [SESSION, "/?rest_route=/mwai/v1/start_session", "/blog" + SESSION])
def test_start_session_gives_the_nonce(site: ChatServer, path: str) -> None:
    status, headers, body = ask(site, path=path)
    session = json.loads(body)
    assert (status, headers["content-type"]) == (200, "application/json; charset=UTF-8")
    assert session == {"success": True, "sessionId": session["sessionId"], "restNonce": site.nonce}
    assert re.fullmatch("[0-9a-f]{10}", site.nonce)
    assert f"mwai_session_id={session['sessionId']}; path=/; HttpOnly" in headers["Set-Cookie"]
    raw = exchange(site, f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert re.findall(rb"Set-Cookie: (\w+)=", raw) == [b"PHPSESSID", b"mwai_session_id"]
    assert submit(site, path="/?rest_route=" + quote("/mwai-ui/v1/chats/submit", safe=""))[0] == 200


def test_the_page_carries_the_nonce() -> None:
    with ChatServer(page="/chatgpt-free-use/") as site:
        status, headers, body = ask(site, path="/chatgpt-free-use/?x=1", method="GET")
        assert (status, headers["content-type"]) == (200, "text/html; charset=UTF-8")
        found = re.search(r"data-system='([^']*)'", body.decode())
        assert found is not None
        assert '"' not in found[1]
        system = json.loads(html.unescape(found[1]))
        assert (system["restNonce"], system["botId"]) == (site.nonce, "default")
        assert system["restUrl"] == f"{site.site_url}/wp-json"
        assert re.fullmatch("[0-9a-f]{13}", system["sessionId"])
        assert ask(site, path="/", method="GET")[0] == 404
        assert ask(site, path="/chatgpt-free-use/")[0] == 405
        site.plan(Answer.error(503, to="/chatgpt-free-use/"))
        assert ask(site, path="/chatgpt-free-use/", method="GET")[0] == 503
    with pytest.raises(ValueError, match="'/chat/', not 'chat'"):
        ChatServer(page="chat")


def test_a_nonce_expires(site: ChatServer) -> None:
    assert site.site_url + "/v1" == site.url
    old = site.nonce
    assert submit(site)[0] == 200
    site.plan(Answer(tokens=["kept"]))
    site.expire_nonce()
    status, headers, body = submit(site, nonce=old)
    assert (status, json.loads(body)["code"]) == (403, "rest_cookie_invalid_nonce")
    assert headers["Cache-Control"] == "no-cache, must-revalidate, max-age=0"
    assert "X-WP-Nonce" not in headers
    assert submit(site, nonce=None)[0] == 401
    nonce = json.loads(ask(site, path=SESSION)[2])["restNonce"]
    assert nonce == site.nonce != old
    status, headers, body = submit(site, nonce=nonce)  # those refusals took nothing from the plan
    assert (status, headers["X-WP-Nonce"], json.loads(body)["reply"]) == (200, nonce, "kept")


@pytest.mark.parametrize("stream", [True, False])
def test_a_reply_hands_on_a_new_token(site: ChatServer, stream: bool) -> None:
    old = site.nonce
    site.plan(Answer(new_token="0123456789"))
    assert submit(site, nonce="0123456789")[0] == 403  # not yet
    body = submit(site, {"stream": stream})[2]
    assert (end_of(body) if stream else json.loads(body))["new_token"] == "0123456789"
    for nonce in (old, "0123456789"):
        status, headers, _ = submit(site, nonce=nonce)
        assert (status, headers["X-WP-Nonce"]) == (200, "0123456789")
    site.expire_nonce()
    assert submit(site, nonce="0123456789")[0] == 403
    site.plan(Answer(json={"success": True, "new_token": "mine"}, new_token="mine"))
    assert submit(site)[0] == 200
    assert submit(site, nonce="mine")[0] == 200


def test_of_old_no_nonce_was_needed() -> None:
    with ChatServer(tokens=TOKENS, needs_nonce=False) as site:
        for nonce in (None, "wrong"):
            status, headers, body = submit(site, {"stream": True, "customId": None, "contextId": 28}, nonce=nonce)
            assert (status, end_of(body)["reply"]) == (200, "Hello")
            assert "X-WP-Nonce" not in headers


# Replies


def test_what_it_says_by_itself(site: ChatServer) -> None:
    history = [{"role": "user", "content": "one two three"}]
    status, headers, body = submit(site, {"messages": history, "stream": True}, Cookie="a=b; mwai_session_id=mine")
    assert (status, headers["content-type"]) == (200, "text/event-stream;charset=UTF-8")
    assert "Set-Cookie" not in headers
    assert told(body)[:-1] == [{"type": "live", "data": " Hel"}, {"type": "live", "data": "lo"}]
    assert end_of(body) == {
        "success": True,
        "reply": "Hello",
        "images": None,
        "actions": [],
        "shortcuts": [],
        "blocks": [],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "total_tokens": 7,
            "price": None,
            "queries": 1,
            "accuracy": "estimated",
        },
        "responseId": "chatcmpl-1",
    }
    assert json.loads(submit(site, {"messages": history})[2]) == {**end_of(body), "responseId": "chatcmpl-2"}
    assert len(site.requests[0].sent) == 2
    assert site.wait_outcome(0) == "complete"


@pytest.mark.parametrize("stream", [None, False, 0, "", "0", []])
def test_what_php_takes_for_false_asks_for_no_stream(site: ChatServer, stream: Any) -> None:
    assert json.loads(submit(site, {"stream": stream})[2])["reply"] == "Hello"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"newMessage": "  \n"}, "rejected"),
        ({"newMessage": None}, "rejected"),
        ({"newMessage": 1}, "rejected"),
        ({"botId": None}, "rejected"),
        ({"botId": ""}, "rejected"),
        ({"messages": ["x"]}, "Unsupported"),
    ],
)
def test_what_is_rejected(site: ChatServer, body: dict[str, Any], message: str) -> None:
    status, _, content = submit(site, body)
    assert (status, set(json.loads(content))) == (500 if "messages" in body else 403, {"success", "message"})
    assert message in json.loads(content)["message"]
    assert submit(site, {**body, "botId": "x", "newMessage": "x", "messages": []})[0] == 200


@pytest.mark.parametrize(("content", "status"), [(b"{oops", 400), (b"\xff", 400), (b"[" * 100000, 400), (b"[]", 403)])
def test_a_body_that_is_no_json_object(site: ChatServer, content: bytes, status: int) -> None:
    fields = f"X-WP-Nonce: {site.nonce}\r\nContent-Type: application/json;charset=utf-8\r\nConnection: close\r\n"
    head = f"POST {SUBMIT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n{fields}\r\n".encode()
    raw = exchange(site, head + content)
    assert raw.startswith(b"HTTP/1.1 %d " % status)
    error = json.loads(unframed(raw))
    if status == 400:
        assert (error["code"], error["data"]["status"]) == ("rest_invalid_json", 400)
        site.plan(Answer.error(200, "an error all the same"))
        assert json.loads(unframed(exchange(site, head + content)))["success"] is False


def test_planned_answers(site: ChatServer) -> None:
    site.plan(
        Answer(tokens=["x"], done=False),
        Answer(events=[b"data: {}\n\n", b"garbage"]),
        Answer(status=502),
        Answer.error(429, "Slow down.", code="rest_slow", retry_after=1),
        Answer(body=b"<p>", content_type="text/html", status=500),
        Answer.replay(b"HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nhi"),
        Answer(json={"url": "a/b"}, headers=[("Link", "mine"), ("x-robots-tag", "mine")]),
    )
    assert told(submit(site, {"stream": True})[2]) == [{"type": "live", "data": "x"}]
    status, headers, body = submit(site)
    assert (headers["content-type"], body) == ("text/event-stream;charset=UTF-8", b"data: {}\n\ngarbage")
    status, _, body = submit(site)
    assert (status, json.loads(body)) == (502, {"success": False, "message": "The test asked for this error."})
    status, headers, body = submit(site)
    assert (status, headers["retry-after"]) == (429, "1")
    assert json.loads(body) == {"code": "rest_slow", "message": "Slow down.", "data": {"status": 429}}
    assert submit(site)[2] == b"<p>"
    assert submit(site)[::2] == (299, b"hi")
    status, headers, body = submit(site)
    assert (headers["Link"], headers["x-robots-tag"], body) == ("mine", "mine", b'{"url":"a\\/b"}')


def test_pace_and_endings(site: ChatServer) -> None:
    site.plan(Answer(tokens=["x"] * 4, pace=0.02), Answer(ending="close"))
    submit(site, {"stream": True})
    (record,) = site.requests
    assert all(at - record.arrived >= 0.019 * step for step, at in enumerate(record.sent))
    body = json.dumps({"botId": "x", "newMessage": "x", "stream": True}).encode()
    fields = f"X-WP-Nonce: {site.nonce}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    raw = exchange(site, f"POST {SUBMIT} HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode() + body)
    assert raw.endswith(b'"}\r\n2\r\n\n\n\r\n')  # no last chunk
    assert site.wait_outcome(1) == "cut"


def test_reasoning_and_tool_calls_are_told_as_event_logs(site: ChatServer) -> None:
    calls: list[dict[str, Any]] = [
        {"name": "get_weather", "arguments": {"city": "Oslo"}, "id": "t1"},
        {"name": "f", "arguments": ["{", "}"]},
    ]
    site.plan(Answer(reasoning=["Hm"], tokens=["I look."], tool_calls=calls), Answer(tool_calls=calls))
    body = submit(site, {"stream": True})[2]
    thinking, text, weather, other, _ = told(body)
    assert (thinking["data"], thinking["subtype"], thinking["visibility"]) == ("Hm", "thinking", "collapsed")
    assert text == {"type": "live", "data": "I look."}
    assert (weather["subtype"], weather["data"]) == ("tool_call", "Calling get_weather...")
    assert weather["metadata"] == {"tool_name": "get_weather", "arguments": {"city": "Oslo"}, "tool_id": "t1"}
    assert other["metadata"]["arguments"] == "{}"
    assert isinstance(weather["timestamp"], float)
    assert end_of(body)["reply"] == "I look."
    assert end_of(body)["actions"][0] == {
        "type": "function",
        "data": {"name": "get_weather", "args": {"city": "Oslo"}},
    }
    assert json.loads(submit(site)[2])["reply"] == ""


# Answers with an address


def test_an_addressed_answer_waits_for_its_path(site: ChatServer) -> None:
    site.plan(
        Answer.error(500, "No sessions today.", to="/start_session"),
        Answer(tokens=["first"]),
        Answer(json={"mine": 1}, to="/models"),
        Answer(tokens=["other"], to="/v9/elsewhere"),
        Answer(tokens=["second"]),
        Answer.replay(b"HTTP/1.1 299 Odd\r\nContent-Length: 0\r\n\r\n", to="submit"),
    )
    assert json.loads(submit(site)[2])["reply"] == "first"
    assert json.loads(ask(site, path="/v1/models", method="GET")[2]) == {"mine": 1}
    assert json.loads(submit(site)[2])["reply"] == "second"
    assert submit(site)[0] == 299
    for expected in (500, 200):
        status, headers, body = ask(site, path="/?rest_route=/mwai/v1/start_session")
        assert (status, json.loads(body)["success"], "Set-Cookie" in headers) == (expected, expected == 200, True)
    assert json.loads(ask(site, {}, path="/v9/elsewhere")[2])["choices"][0]["message"]["content"] == "other"
    assert ask(site, {}, path="/v9/elsewhere")[0] == 404
    with pytest.raises(ValueError, match="every path ends"):
        Answer(to="")


def test_start_session_and_the_page_take_no_answer_without_an_address(site: ChatServer) -> None:
    site.plan(Answer(status=503))
    assert ask(site, path=SESSION)[0] == ask(site, path="/", method="GET")[0] == 200
    assert submit(site)[0] == 503
