"""dialects/opchatgpts.py: events, documents, sessions and pages of WordPress sites with AI Engine."""

from __future__ import annotations

import html
import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from feeding import (
    JSON,
    QUICK,
    SSE,
    at_every_cut,
    chunks,
    each_byte,
    ended,
    failure,
    read,
    same,
    splits,
    sse,
    text,
    vectors,
    ways,
)
from hypothesis import given
from hypothesis import strategies as st
from test_reply import check_vector

from deltawire.protocol import (
    APIStatusError,
    ConfigurationError,
    Context,
    Delta,
    EmptyReplyError,
    LimitExceededError,
    Limits,
    MalformedEventError,
    PermissionDeniedError,
    ReadError,
    Reply,
    SessionStarted,
    StatusChunk,
    StreamEnded,
    StreamFailed,
    TimeoutError,
    TruncatedStreamError,
    UnexpectedReplyError,
    accumulate,
    is_retryable,
    is_stale_nonce,
)
from deltawire.protocol.dialects.opchatgpts import read_session

if TYPE_CHECKING:
    from feeding import Headers

    from deltawire.protocol import Event

HTML: Headers = [(b"content-type", b"text/html; charset=UTF-8")]

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "price": None, "queries": 1}


def live(data: object, **more: object) -> dict[str, object]:
    return {"type": "live", "data": data, **more}


def inside(reply: object = "", **more: object) -> dict[str, object]:
    """What `end`, or a whole document, holds."""
    return {"success": True, "reply": reply, "images": None, "actions": [], "shortcuts": [], "blocks": [], **more}


def end(reply: object = "", **more: object) -> dict[str, object]:
    return {"type": "end", "data": json.dumps(inside(reply, **more))}


def ops(*values: object, **how: Any) -> list[Event]:
    """The events of such a stream."""
    return read(sse(*values), dialect="opchatgpts", **how)


def document(value: object, **how: Any) -> list[Event]:
    return read(json.dumps(value).encode(), headers=JSON, dialect="opchatgpts", **how)


# --- The vectors -----------------------------------------------------------------------------------

VECTORS = vectors("site_streams.jsonl")


@pytest.mark.parametrize("vector", VECTORS)
def test_vector(vector: dict[str, Any]) -> None:
    headers: Headers = [(b"content-type", vector["content_type"].encode())]
    # The wire has no finish reason; the reader says "stop".
    expect = {key: value for key, value in vector["expect"].items() if key not in ("finish_reason", "choices")}
    if expect.get("usage") is None:
        expect.pop("usage", None)
    whole = read(vector["input"], headers=headers, dialect="opchatgpts")
    if expect["error"] and expect["error"]["message" if "message" in expect["error"] else "kind"] == "":
        assert isinstance(failure(whole), APIStatusError)
    else:
        check_vector(vector | {"expect": expect}, whole)
    if "final_reply" in expect:
        assert chunks(whole)[-1].model_extra["reply"] == expect["final_reply"]
    for _, parts in ways(vector["input"], range(1, len(vector["input"]), 7)):
        same(parts, whole, headers=headers, dialect="opchatgpts")


# --- Chunks ----------------------------------------------------------------------------------------


def test_live_events_are_the_answer_and_the_last_chunk_says_stop() -> None:
    events = ops(live(" Good"), live(" day"), end("Good day", usage=USAGE, responseId="r1"))
    assert text(events) == " Good day"
    assert ended(events) == StreamEnded(True)
    first, _, last = chunks(events)
    assert first.model_extra == {}
    assert last.choices[0].delta.content is None
    assert last.choices[0].finish_reason == "stop"
    assert last.id == "r1"
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (1, 2, 3)
    assert last.usage.model_extra == {"price": None, "queries": 1}
    assert last.model_extra["actions"] == []
    assert last.model_extra["reply"] == "Good day"
    assert "type" not in last.model_extra
    assert "data" not in last.model_extra
    completion = accumulate(chunks(events))
    assert completion.choices[0].message.content == " Good day"
    assert completion.id == "r1"


def test_vendor_fields_of_the_answer_are_reachable() -> None:
    (chunk, _) = chunks(ops(live("a", subtype="content", timestamp=1.5), {**end(), "timestamp": 2}))
    assert chunk.model_extra == {"subtype": "content", "timestamp": 1.5}
    assert chunk.choices[0].delta.content == "a"
    assert chunks(ops(live("a"), {**end(), "timestamp": 2}))[-1].model_extra["timestamp"] == 2


SUBTYPES = [
    "status", "thinking", "tool_call", "tool_result", "code", "tool_args", "mcp_discovery", "web_search", "file_search",
    "image_gen", "embeddings", "debug", "error", "warning", "transcript", "start", "end", "heartbeat", "new", 5, ["x"],
]  # fmt: skip


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_status_lines_are_no_answer(subtype: object) -> None:
    line = live("Thinking...", subtype=subtype, visibility="collapsed", metadata={"status": "completed"})
    events = ops(line, live("a"), line, live("b"), line, end("ab"))
    assert text(events) == "ab"
    statuses = [chunk for chunk in chunks(events) if isinstance(chunk, StatusChunk)]
    assert len(statuses) == 3
    for chunk in statuses:
        (choice,) = chunk.choices
        assert (choice.index, choice.delta, choice.finish_reason) == (0, Delta(), None)
        assert chunk.model_extra == line
        assert chunk.to_dict()["metadata"] == {"status": "completed"}
        assert type(pickle.loads(pickle.dumps(chunk))) is StatusChunk
    completion = accumulate(chunks(events))
    assert completion.choices[0].message.content == "ab"
    assert completion.choices[0].message.reasoning_content is None
    assert "subtype" not in completion.model_extra


def test_the_loop_that_knows_no_status_lines() -> None:
    events = ops(live("Thinking...", subtype="thinking"), live("a"), live("b"), end("ab"))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks(events)) == "ab"


def test_status_lines_are_no_content_and_no_answer_cut_short() -> None:
    reply = Reply("opchatgpts")
    reply.start(200, SSE)
    reply.receive(sse(live("Starting...", subtype="status"), {"type": "heartbeat"}))
    assert reply.contents == 0
    assert reply.partial() is None
    (last,) = reply.end()
    assert isinstance(last, StreamFailed)
    assert isinstance(last.error, TruncatedStreamError)
    assert is_retryable(last.error)


@pytest.mark.parametrize("value", [{"type": "new"}, {"type": ""}, live({"a": 1}), live(None), live(5), live(["a"])])
def test_what_is_not_known_is_a_status_line(value: object) -> None:
    events = ops(live("a"), value, end())
    assert text(events) == "a"
    assert isinstance(chunks(events)[1], StatusChunk)
    assert chunks(events)[1].model_extra == value


@pytest.mark.parametrize("subtype", [None, "", "content"])
def test_content(subtype: object) -> None:
    assert text(ops(live("a", subtype=subtype), end("b"))) == "a"


# --- The end ---------------------------------------------------------------------------------------


def test_a_reply_without_live_text_stands_in_the_end() -> None:
    events = ops(live("", subtype="content"), live("Thinking...", subtype="thinking"), end("All of it"))
    assert text(events) == "All of it"
    assert chunks(events)[-1].choices[0].delta.content is None


def test_the_end_repeats_no_text() -> None:
    # After a tool call it holds the last turn only.
    assert text(ops(live("turn one, "), live("turn two"), end("turn two"))) == "turn one, turn two"


def test_the_end_may_hold_an_object() -> None:
    events = ops({"type": "end", "data": inside("hi", responseId="r")})
    assert text(events) == "hi"
    assert chunks(events)[-1].id == "r"


@pytest.mark.parametrize("field", ["images", "actions", "blocks"])
def test_an_answer_may_have_no_text(field: str) -> None:
    for events in (ops(end(**{field: [{"x": 1}]})), document(inside(**{field: [{"x": 1}]}))):
        assert ended(events).finished
        assert text(events) == ""
        assert chunks(events)[-1].model_extra[field] == [{"x": 1}]


@pytest.mark.parametrize("value", [end(), end(None), end(shortcuts=[{"x": 1}]), end(usage=USAGE)])
def test_success_that_says_nothing_is_empty(value: dict[str, Any]) -> None:
    for events in (ops(value), document(json.loads(value["data"]))):
        error = failure(events)
        assert isinstance(error, EmptyReplyError)
        assert is_retryable(error)
        assert "try again" in str(error)
        assert chunks(events) == []


@pytest.mark.parametrize("data", [None, "", {}, "{}", "bye", " ", "\ud800"])
def test_an_end_that_says_nothing(data: object) -> None:
    assert text(ops(live("a"), {"type": "end", "data": data})) == "a"
    assert isinstance(failure(ops({"type": "end", "data": data})), EmptyReplyError)


BROKEN_ENDS = ["[1]", "[", "5", 5, 0, False, [], "{", '{"success":false,"message":"boom"', ' {"reply": "Hello wor']


@pytest.mark.parametrize("data", BROKEN_ENDS)
@pytest.mark.parametrize("said", ["", "Hel"])
def test_an_end_that_is_broken_is_no_success(data: object, said: str) -> None:
    body = sse(*([live(said)] if said else []), {"type": "end", "data": data})
    whole = read(body, dialect="opchatgpts")
    error = failure(whole)
    assert isinstance(error, MalformedEventError)
    assert error.line.startswith('data: {"type": "end"')
    assert str(error).startswith("an event of the reply ends the reply with what is no JSON object: 'data: ")
    assert text(whole) == said
    partial = error.partial
    assert (partial.choices[0].message.content if partial else "") == said
    same(each_byte(body), whole, dialect="opchatgpts")


def test_the_end_may_say_that_it_failed() -> None:
    for success in (False, 0, ""):
        data = json.dumps({"success": success, "message": "<p>No &amp; no</p>", "code": "x"})
        events = ops(live("half"), {"type": "end", "data": data})
        error = failure(events)
        assert type(error) is APIStatusError
        assert error.status_code is None
        assert error.code == "x"
        assert "reply: No & no" in str(error)
        assert error.partial is not None
        assert error.partial.choices[0].message.content == "half"


@pytest.mark.parametrize("usage", [None, [], {}, "x", 5])
def test_no_usage(usage: object) -> None:
    assert chunks(ops(end("a", usage=usage)))[-1].usage is None


def test_odd_usage_keeps_what_fits() -> None:
    usage = chunks(ops(end("a", usage={"prompt_tokens": "7", "total_tokens": {}, "price": 0.1})))[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.total_tokens, usage.model_extra) == (7, None, {"price": 0.1})


@pytest.mark.parametrize(
    ("token", "seen"),
    [
        ("0a1b2c3d4e", "0a1b2c3d4e"),
        ("a" * 256, "a" * 256),
        ("a" * 257, None),
        (None, None),
        (5, None),
        ("", None),
        ("a\r\nX: y", None),
    ],
)
def test_new_token(token: object, seen: str | None) -> None:
    for body, headers in (
        (sse(live("a"), end("a", new_token=token)), SSE),
        (json.dumps(inside("a", new_token=token)).encode(), JSON),
    ):
        reply = Reply("opchatgpts")
        assert reply.new_token is None
        reply.start(200, headers)
        reply.receive(body)
        reply.end()
        assert reply.done
        assert reply.new_token == seen
    plain = Reply()
    plain.start(200, SSE)
    plain.receive(sse({"choices": [], "new_token": "x"}))
    assert plain.new_token is None


# --- Failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("cURL error 28: timed out", "cURL error 28"),
        ("<p>There has been a <b>critical</b> error.</p>", "There has been a critical error."),
        ("", "no message"),
        (None, "no message"),
        ({"message": "inner", "code": "c"}, "inner"),
        (5, "5"),
        (["a", "b"], "a"),
    ],
)
def test_an_error_event(data: object, words: str) -> None:
    events = ops(live("half"), {"type": "error", "data": data}, live("LATE"))
    error = failure(events)
    assert isinstance(error, APIStatusError)
    assert error.status_code is None
    assert is_retryable(error)
    assert words in str(error)
    assert text(events) == "half"
    assert error.partial is not None


def test_an_error_event_shows_no_secret() -> None:
    context = Context(secrets=("s3cret-key",))
    for data in ("bad s3cret-key", "<p>bad s3&#99;ret-key</p>"):
        error = failure(ops({"type": "error", "data": data}, context=context))
        assert "s3cret" not in str(error) + repr(vars(error).get("args"))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"data":"b"}', 'has no "type"'),
        (b'{"type":5}', 'has no "type"'),
        (b"null", "is no JSON object"),
        (b"[1]", "is no JSON object"),
        (b'{"type":"live"', "is no JSON (Expecting ',' delimiter: line 1 column 15 (char 14))"),
        (b"[DONE]", "is no JSON (Expecting value: line 1 column 2 (char 1))"),
        (b'{"type":"end","data":' + b"[" * 80 + b"]" * 80 + b"}", "can't be read (the JSON is nested too deeply)"),
        (b'{"type":"live","x":' + b"[" * 200_000, "is no JSON (the JSON is nested too deeply)"),
    ],
)
def test_a_broken_line(line: bytes, why: str) -> None:
    events = ops(live("a"), line, live("LATE"))
    error = failure(events)
    assert isinstance(error, MalformedEventError)
    assert isinstance(error, RuntimeError)
    assert str(error).startswith(f"an event of the reply {why}: 'data: ")
    assert error.line == ("data: " + line.decode())[:1000]
    assert text(events) == "a"


def test_an_event_named_error_needs_no_type() -> None:
    events = read(b'event: error\ndata: {"message": "boom"}\n\n', dialect="opchatgpts")
    assert type(failure(events)) is APIStatusError
    assert str(failure(events)) == "the server reports an error in the reply: boom"
    assert isinstance(failure(ops({"error": {"message": "boom", "code": 503}})), APIStatusError)


@pytest.mark.parametrize("more", [[], [live("b")], [{"type": "new"}]])
def test_bytes_that_end_too_early(more: list[object]) -> None:
    events = ops(live("a"), *more)
    error = failure(events)
    assert isinstance(error, TruncatedStreamError)
    assert error.partial is not None
    assert (error.partial.choices[0].message.content or "").startswith("a")
    broken = ReadError("reset")
    assert failure(ops(live("a"), *more, fail=broken)).__cause__ is broken
    late = TimeoutError("late")
    assert failure(ops(live("a"), *more, fail=late)) is late


def test_what_is_pending_at_the_end_counts() -> None:
    body = sse(live("a"), end("a"))
    assert ended(read(body.rstrip(), dialect="opchatgpts")).finished
    assert isinstance(failure(read(body.rstrip()[:-2], dialect="opchatgpts")), TruncatedStreamError)


def test_an_event_stream_under_another_type() -> None:
    error = failure(read(sse({"type": "error", "data": "rejected"}), headers=JSON, dialect="opchatgpts"))
    assert isinstance(error, APIStatusError)
    assert "rejected" in str(error)


# --- Documents -------------------------------------------------------------------------------------


def test_a_whole_document() -> None:
    events = document(inside("hi", usage=USAGE, responseId="r9", chatId="k"))
    (chunk,) = chunks(events)
    last = ended(events)
    assert last.completion is not None
    assert last.completion.id == chunk.id == "r9"
    assert last.completion.choices[0].message.content == chunk.choices[0].delta.content == "hi"
    assert last.completion.choices[0].finish_reason == chunk.choices[0].finish_reason == "stop"
    assert last.completion.choices[0].message.role == chunk.choices[0].delta.role == "assistant"
    assert last.completion.model_extra["chatId"] == chunk.model_extra["chatId"] == "k"
    assert last.completion.usage is not None
    assert last.completion.usage.total_tokens == 3


def test_a_document_that_failed() -> None:
    error = failure(document({"success": False, "message": "No."}))
    assert type(error) is APIStatusError
    assert "No." in str(error)
    error = failure(document({"code": "x", "message": "<p>critical</p>", "data": {"status": 500}}))
    assert type(error) is APIStatusError
    assert str(error) == "the server reports an error in the reply: critical"


@pytest.mark.parametrize("value", [[], [1], {}, {"a": 1}, {"success": True}, "x", 5])
def test_a_document_of_another_kind(value: object) -> None:
    error = failure(document(value))
    assert isinstance(error, UnexpectedReplyError)


# --- Odd bytes -------------------------------------------------------------------------------------


def test_halves_of_a_character_are_joined() -> None:
    events = ops(live("a\ud83d"), live("\ude00b"), end("x"))
    assert text(events) == "a😀b"
    events = ops(live("a\ud83d"), end("x"))
    assert text(events) == "a\ufffd"
    assert chunks(events)[-1].choices[0].delta.content is None
    events = ops(live("a\ud83d"))
    assert text(events) == "a\ufffd"
    assert isinstance(failure(events), TruncatedStreamError)


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        (b'{"type":"live","data":"a\xffb"}', "a\ufffdb"),
        (b'{"type":"live","data":"a","x":NaN}', "a"),
        (b'{"type":"live","data":"a\tb"}', "a\tb"),
        (b' {"type":"live","data":"a"} ', "a"),
        (b"", ""),
        (b"  ", ""),
    ],
)
def test_lenient_reading(line: bytes, seen: str) -> None:
    events = ops(line, live("!"), end())
    assert text(events) == seen + "!"
    for chunk in chunks(events):
        chunk.to_json().encode()


def test_a_limit() -> None:
    events = ops(live("a"), live("b" * 300), limits=Limits(line=200))
    error = failure(events)
    assert isinstance(error, LimitExceededError)
    assert error.limit_name == "line"


TEXTS = st.text(max_size=4)
ODD = [live("\ud83d"), live("\ude00"), end("r"), end(), {"type": "error", "data": "e"}, {"data": "x"}, b"{", b""]
VALUES = st.one_of(
    st.builds(live, TEXTS | st.none()),
    st.builds(lambda text, subtype: live(text, subtype=subtype), TEXTS, st.sampled_from(["content", "status"])),
    st.sampled_from(ODD),
)
BODIES = st.lists(VALUES, max_size=6).map(lambda values: sse(*values))


@QUICK
@given(
    BODIES.flatmap(lambda body: st.tuples(st.just(body), splits(body))), st.sampled_from([None, ["r"], ["aa", "ab"]])
)
def test_any_stream_any_split(body: tuple[bytes, list[bytes]], stop: list[str] | None) -> None:
    whole, parts = body
    expected = read(whole, dialect="opchatgpts", stop=stop)
    for each in (parts, each_byte(whole)):
        same(each, expected, dialect="opchatgpts", stop=stop)
    for chunk in chunks(expected):
        chunk.to_json().encode()


@QUICK
@given(
    st.lists(st.binary(max_size=40), max_size=6),
    st.sampled_from(["opchatgpts", "session", "page"]),
    st.sampled_from([SSE, JSON, HTML]),
)
def test_any_bytes_never_raise(parts: list[bytes], dialect: str, headers: Headers) -> None:
    read(parts, dialect=dialect, headers=headers)


def test_at_every_cut() -> None:
    body = sse(live("a"), live("x", subtype="status"), live("é😀"), end("aé😀", usage=USAGE)).replace(b"\n", b"\r\n")
    whole = read(body, dialect="opchatgpts")
    assert ended(whole).finished
    for _, parts in at_every_cut(body):
        same(parts, whole, dialect="opchatgpts")


# --- Stop words ------------------------------------------------------------------------------------


def test_a_stop_word_ends_the_reply() -> None:
    events = ops(live("one S"), live("TO"), live("P two"), live("LATE"), end("x", usage=USAGE), stop="STOP")
    assert text(events) == "one "
    last = chunks(events)[-1]
    assert last.choices[0].finish_reason == "stop"
    assert last.choices[0].delta.content is None
    assert ended(events) == StreamEnded(True)


def test_nothing_is_read_after_a_stop_word() -> None:
    events = ops(live("one STOP"), {"type": "error", "data": "boom"}, stop="STOP")
    assert text(events) == "one "
    assert ended(events) == StreamEnded(True)


def test_pieces_without_text_add_nothing_where_there_are_stop_words() -> None:
    assert text(ops(live(""), live("a"), live("\ud83d"), live("\ude00"), end("a"), stop="STOP")) == "a😀"
    assert text(document(inside(actions=[1]), stop="STOP")) == ""


def test_a_stop_word_in_the_text_of_the_end() -> None:
    events = ops(end("one STOP two", usage=USAGE), stop=["STOP"])
    assert text(events) == "one "
    assert chunks(events)[-1].usage is not None


def test_a_stop_word_in_a_document() -> None:
    events = document(inside("one STOP two"), stop=["STOP", "two"])
    assert text(events) == "one "
    completion = ended(events).completion
    assert completion is not None
    assert completion.choices[0].message.content == "one "
    assert completion.choices[0].finish_reason == "stop"


def test_what_was_held_back_for_nothing_comes_at_the_end() -> None:
    assert text(ops(live("one ST"), end("x"), stop="STOP")) == "one ST"
    assert text(ops(end("one ST"), stop="STOP")) == "one ST"
    events = ops(live("one ST"), stop="STOP")
    assert text(events) == "one ST"
    error = failure(events)
    assert isinstance(error, TruncatedStreamError)
    assert error.partial is not None
    assert error.partial.choices[0].message.content == "one ST"


def test_a_reply_that_is_nothing_but_a_stop_word_is_not_empty() -> None:
    events = ops(live("STOP"), end("STOP"), stop="STOP")
    assert text(events) == ""
    assert ended(events).finished


def test_stop_words_are_the_business_of_a_server_that_knows_them() -> None:
    for dialect in ("openai", "models"):
        with pytest.raises(ConfigurationError, match="send it with the request"):
            Reply(dialect, stop="x")
    with pytest.raises(ConfigurationError, match="empty"):
        Reply("opchatgpts", stop="")


# --- Sessions and pages ----------------------------------------------------------------------------

SESSION = {"success": True, "sessionId": "6b00b24734e20", "restNonce": "ad3ef53988"}


def session(body: bytes, dialect: str = "session", headers: Headers = JSON) -> list[Event]:
    whole = read(body, headers=headers, dialect=dialect)
    for _, parts in at_every_cut(body) if len(body) < 300 else ways(body, range(1, len(body), 97)):
        same(parts, whole, headers=headers, dialect=dialect)
    return whole


def test_a_session() -> None:
    assert session(json.dumps(SESSION).encode()) == [SessionStarted("6b00b24734e20", "ad3ef53988"), StreamEnded(True)]


def test_a_session_without_a_name() -> None:
    assert session(b'{"restNonce": "n"}')[0] == SessionStarted("", "n")


@pytest.mark.parametrize("nonce", [None, "", 5, "a b", "a\r\nb", "é", "x" * 300])
def test_no_nonce(nonce: object) -> None:
    body = json.dumps(SESSION | {"restNonce": nonce}).encode()
    assert isinstance(failure(session(body)), UnexpectedReplyError)


def test_a_session_that_is_refused() -> None:
    error = failure(session(b'{"success": false, "message": "Banned."}'))
    assert isinstance(error, APIStatusError)
    assert "Banned." in str(error)
    body = b'{"code":"rest_no_route","message":"No route.","data":{"status":404}}'
    error = failure(read(body, status=404, headers=JSON, dialect="session"))
    assert isinstance(error, APIStatusError)
    assert error.code == "rest_no_route"
    assert "AI Engine" in str(error)


@pytest.mark.parametrize("body", [b"<html>", b"data: {}\n\n", b"OK"])
def test_a_session_that_is_no_json(body: bytes) -> None:
    for headers in (JSON, SSE):
        error = failure(session(body, headers=headers))
        assert isinstance(error, UnexpectedReplyError)
        assert "no JSON" in str(error)


def page(value: object, quote: str = "'", name: str = "data-system") -> bytes:
    system = html.escape(value if isinstance(value, str) else json.dumps(value))
    return (
        f"<!DOCTYPE html><html><body>\n<div class='mwai-chat' data-params='{{}}' {name}={quote}{system}{quote}"
        " data-theme='x'></div></body></html>"
    ).encode()


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("headers", [HTML, SSE, JSON])
def test_a_page(quote: str, headers: Headers) -> None:
    body = page({"botId": "default", "sessionId": "s 'é'", "restNonce": "ad3ef53988"}, quote)
    assert session(body, "page", headers) == [SessionStarted("s 'é'", "ad3ef53988"), StreamEnded(True)]


def test_a_page_without_the_session_s_name() -> None:
    assert session(page({"restNonce": "n"}), "page", HTML)[0] == SessionStarted("", "n")


def test_a_page_that_is_no_utf8() -> None:
    body = page({"restNonce": "n", "sessionId": "s?"}).replace(b"s?", b"s\xff")
    assert session(body, "page", HTML)[0] == SessionStarted("s\ufffd", "n")


def test_the_first_chatbot_with_a_nonce() -> None:
    body = (
        page({"restNonce": None}) + page("{broken") + page([1]) + page({"restNonce": "n2"}) + page({"restNonce": "n3"})
    )
    assert read(body, headers=HTML, dialect="page")[0] == SessionStarted("", "n2")


@pytest.mark.parametrize(
    "body",
    [b"<html>nothing</html>", page({"restNonce": None}), page({"restNonce": "n"}, name="data-systems"),
     page({"restNonce": "n"}, name="x-data-system"), b"<p data-system='{", b'{"restNonce": "n"}', b"OK then"],
)  # fmt: skip
def test_a_page_without_a_nonce(body: bytes) -> None:
    error = failure(session(body, "page", HTML))
    assert isinstance(error, UnexpectedReplyError)
    assert "data-system" in str(error)


def test_a_page_that_breaks_off() -> None:
    body = page({"restNonce": "n"})
    broken = ReadError("reset")
    assert read(body[:-5], headers=HTML, dialect="page", fail=broken)[0] == SessionStarted("", "n")
    error = failure(read(body[:60], headers=HTML, dialect="page", fail=broken))
    assert isinstance(error, TruncatedStreamError)
    assert error.__cause__ is broken


# --- What to do ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["opchatgpts", "session", "page"])
@pytest.mark.parametrize(
    ("status", "words"), [(404, "'/?rest_route=/mwai-ui/v1/chats/submit'"), (403, "impersonate"), (429, "Slow down")]
)
def test_the_advice_is_for_a_site(dialect: str, status: int, words: str) -> None:
    body = b"<html><title>Oh!</title><p>Oh no.</p></html>"
    error = failure(read(body, status=status, headers=HTML, dialect=dialect))
    assert str(error).startswith(f"status {status}: Oh! Oh no. ")
    assert words in str(error)
    assert not [each for each in ("ends in /v1", "model", "key") if each in str(error)]


# --- Stale nonces ----------------------------------------------------------------------------------


def refused(status: int, body: object) -> Exception:
    return failure(read(json.dumps(body).encode(), status=status, headers=JSON, dialect="opchatgpts"))


@pytest.mark.parametrize(
    ("status", "body", "stale"),
    [
        (403, {"code": "rest_cookie_invalid_nonce", "message": "Cookie check failed", "data": {"status": 403}}, True),
        (401, {"code": "rest_forbidden", "message": "Sorry.", "data": {"status": 401}}, True),
        (403, {"code": "rest_forbidden", "message": "Sorry.", "data": {"status": 403}}, True),
        (403, {"success": False, "message": "Sorry, your query has been rejected."}, False),
        (403, {"code": ["x"], "message": "m"}, False),
        (400, {"code": "rest_invalid_json", "message": "m"}, False),
        (404, {"code": "rest_no_route", "message": "m"}, False),
        (403, "<html>Cloudflare</html>", False),
    ],
)
def test_stale_nonces(status: int, body: object, stale: bool) -> None:
    error = refused(status, body)
    assert is_stale_nonce(error) is stale
    # No site of this kind takes an API key.
    assert ("nonce" in str(error)) is (stale or "nonce" in str(body))
    assert not (stale and "key" in str(error))


def test_other_errors_are_no_stale_nonces() -> None:
    assert not is_stale_nonce(ValueError("rest_forbidden"))
    assert not is_stale_nonce(ReadError("x"))
    error = refused(403, {"success": False, "message": "No."})
    assert isinstance(error, PermissionDeniedError)
    assert "see its words" in str(error)
    # Other servers may say so, too.
    body = b'{"success":false,"message":"No."}'
    assert "check its rights" in str(failure(read(body, status=403, headers=JSON, dialect="openai")))


@pytest.mark.parametrize("body", [b"[]", b'["s"]', b"5", b"null", b'"restNonce"'])
def test_a_session_is_an_object(body: bytes) -> None:
    assert read_session(body) is None
