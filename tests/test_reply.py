"""reply.py: how a body is read, and the verdict."""

from __future__ import annotations

import builtins
import gzip
import itertools
import json
import re
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from feeding import (
    DONE,
    FINISH,
    JSON,
    QUICK,
    SSE,
    at_every_cut,
    chunks,
    delta,
    each_byte,
    ended,
    failure,
    pieces,
    read,
    said,
    same,
    splits,
    sse,
    text,
    vectors,
    ways,
    with_empties,
)
from hypothesis import example, given
from hypothesis import strategies as st

from deltawire.protocol import (
    TRANSITIONS,
    APIStatusError,
    ChatCompletion,
    ChatCompletionChunk,
    ConfigurationError,
    ConnectError,
    Context,
    EmptyReplyError,
    ImagesResponse,
    InternalServerError,
    LimitExceededError,
    Limits,
    MalformedEventError,
    ModelList,
    ReadError,
    RedirectError,
    Reply,
    SessionStarted,
    State,
    StreamEnded,
    StreamFailed,
    TimeoutError,
    TruncatedStreamError,
    UnexpectedReplyError,
    UsageError,
    accumulate,
)
from deltawire.protocol.verdicts import FIRST_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from feeding import Headers

    from deltawire.protocol import Event

TEXT: Headers = [(b"content-type", b"text/plain")]
HTML: Headers = [(b"content-type", b"text/html")]
NONE: Headers = []

WHOLE = {
    "id": "chatcmpl-9",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}


# --- The vectors -----------------------------------------------------------------------------------


def calls_of(completion: ChatCompletion) -> list[dict[str, object]]:
    message = completion.choices[0].message
    found: list[dict[str, object]] = [
        {"id": call.id, "name": call.function.name, "arguments": call.function.arguments}
        for call in message.tool_calls or ()
    ]
    if message.function_call and not found:
        found.append(
            {"id": None, "name": message.function_call.name, "arguments": message.function_call.arguments},
        )
    return found


def usage_of(completion: ChatCompletion) -> dict[str, object] | None:
    usage = completion.usage
    if usage is None:
        return None
    return {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def result_of(events: Sequence[Event]) -> dict[str, object]:
    """A reply in the words of the vectors."""
    completion = accumulate(chunks(events))
    seen: dict[str, object] = {
        "text": "", "reasoning": "", "tool_calls": [], "finish_reason": None, "role": None, "refusal": None,
        "logprobs": [], "usage": usage_of(completion),
        "complete": isinstance(events[-1], StreamEnded),
        "choices": [
            {"index": choice.index, "text": choice.message.content or "", "finish_reason": choice.finish_reason}
            for choice in completion.choices
        ],
    }  # fmt: skip
    if completion.choices:
        first = completion.choices[0]
        logprobs = first.logprobs.content if first.logprobs else None
        seen |= {
            "text": first.message.content or "",
            "reasoning": first.message.reasoning_content or "",
            "tool_calls": calls_of(completion),
            "finish_reason": first.finish_reason,
            "role": first.message.role,
            "refusal": first.message.refusal,
            "logprobs": [[item.token, item.logprob] for item in logprobs or ()],
        }
    return seen


def error_of(event: Event) -> dict[str, object] | None:
    """The last event's error in the words of the vectors; a truncation is none there."""
    if not isinstance(event, StreamFailed) or isinstance(event.error, TruncatedStreamError):
        return None
    error = event.error
    if isinstance(error, MalformedEventError):
        return {"kind": "malformed", "line": error.line}
    assert isinstance(error, APIStatusError)
    return {"kind": "server", "message": error.message, "code": error.code, "type": error.type}


def check_vector(vector: dict[str, Any], events: Sequence[Event]) -> None:
    wanted = dict(vector["expect"])
    for unknown in ("error", "terminated", "final_reply"):
        wanted.pop(unknown, None)
    seen = result_of(events)
    assert {key: seen[key] for key in wanted} == wanted
    error, found = vector["expect"]["error"], error_of(events[-1])
    if error is None:
        assert found is None
        return
    assert found is not None
    assert str(error.get("message", "")) in str(found.get("message", ""))
    assert {key: found[key] for key in error if key != "message"} == {
        key: value for key, value in error.items() if key != "message"
    }
    if error["kind"] == "server":
        assert found["message"] != error["message"], "the message says more than the server's words"


OPENAI = [param for param in vectors("chat_streams.jsonl") if param.values[0]["dialect"] == "openai-chat"]


@pytest.mark.parametrize("vector", OPENAI)
def test_vector(vector: dict[str, Any]) -> None:
    headers: Headers = [(b"content-type", vector["content_type"].encode())]
    whole = read(vector["input"], headers=headers)
    check_vector(vector, whole)
    for _, parts in ways(vector["input"], vector.get("cuts", ())):
        same(parts, whole, headers=headers)
    json.dumps([chunk.to_dict() for chunk in chunks(whole)], ensure_ascii=False).encode()  # no surrogate is left


@pytest.mark.parametrize("vector", OPENAI)
def test_vector_without_its_last_line_end(vector: dict[str, Any]) -> None:
    # A pending event without its blank line counts at the end.
    if vector["id"] == "oc-garbage-deep-nesting":
        return  # broken JSON at the very end is cut off, and no malformed event
    headers: Headers = [(b"content-type", vector["content_type"].encode())]
    check_vector(vector, read(vector["input"].rstrip(b"\r\n"), headers=headers))


# --- The reading table -----------------------------------------------------------------------------

EVENTS = sse(delta("hi"), FINISH, DONE)
DOCUMENT = json.dumps(WHOLE).encode()
ALL_TYPES = [SSE, JSON, TEXT, HTML, NONE]


@pytest.mark.parametrize("headers", ALL_TYPES)
@pytest.mark.parametrize("before", [b"", b"\n", b" \r\n\t", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_a_brace_is_a_document_under_any_type(headers: Headers, before: bytes) -> None:
    body = before + DOCUMENT
    events = read(body, headers=headers)
    assert text(events) == "hi"
    assert ended(events).finished
    completion = ended(events).completion
    assert completion is not None
    assert completion.choices[0].message.content == "hi"
    for _, parts in ways(body, [1, 2, 3, 4, len(body) // 2]):
        same(parts, events, headers=headers)


@pytest.mark.parametrize("headers", ALL_TYPES)
@pytest.mark.parametrize(
    "line", [b"", b": ping\n\n", b":\n", b"event: message\n", b"id: 1\n", b"retry: 5\n", b"data: \n\n", b"data:\n\n"]
)
@pytest.mark.parametrize("before", [b"", b"\r\n\n", b"\xef\xbb\xbf"])
def test_a_field_is_an_event_stream_under_any_type(headers: Headers, line: bytes, before: bytes) -> None:
    body = before + line + EVENTS
    events = read(body, headers=headers)
    assert text(events) == "hi"
    assert ended(events) == StreamEnded(True)
    for _, parts in ways(body, [1, 2, 3, 4, 5, 6, 7, 8]):
        same(parts, events, headers=headers)


@pytest.mark.parametrize(
    "before",
    [b"<br />\n<b>Warning</b>: x in <b>/a.php</b> on line 3<br />\n", b"Notice: y\n\n", b"data\n\n", b"datum\n"],
)
def test_rubbish_before_the_first_event_of_an_event_stream(before: bytes) -> None:
    for _, parts in ways(before + EVENTS, [1, 5, len(before)]):
        events = read(parts, headers=SSE)
        assert text(events) == "hi"
        assert ended(events).finished


@pytest.mark.parametrize("headers", [JSON, TEXT, HTML, NONE])
@pytest.mark.parametrize(
    "body",
    [b"<!DOCTYPE html><html>Login</html>", b"OK", b"data", b"datum: 1", b"\nInternal error", b'"text"', b"event"],
)
def test_anything_else_is_unexpected(headers: Headers, body: bytes) -> None:
    error = failure(read(body + b"\n\n", headers=headers))
    assert isinstance(error, UnexpectedReplyError)
    assert body.strip()[:100].decode() in str(error)
    assert error.body.startswith(body.strip())
    assert "base URL" in str(error)


def test_no_more_of_an_unexpected_reply_is_awaited_than_is_shown() -> None:
    reply = Reply()
    reply.start(200, TEXT)
    assert reply.receive(b"O" * FIRST_BYTES) == []
    assert isinstance(failure(reply.receive(b"O")), UnexpectedReplyError)


@pytest.mark.parametrize("status", [300, 301])
def test_a_redirect_in_a_coding_that_is_not_known(status: int) -> None:
    error = failure(Reply().start(status, [(b"content-encoding", b"br"), (b"location", b"/x")]))
    assert isinstance(error, RedirectError)
    assert error.status_code == status


@pytest.mark.parametrize("body", [b"<!DOCTYPE html><html>Login</html>", b"Internal error"])
def test_the_words_of_an_unexpected_reply_do_not_depend_on_the_split(body: bytes) -> None:
    whole = read(body, headers=HTML)
    for _, parts in ways(body, [1, 4]):
        same(parts, whole, headers=HTML)


@pytest.mark.parametrize("body", [b"d", b"data", b"re", b"", b"\n \n", b"\xef\xbb"])
def test_nothing_that_decides_is_a_truncation(body: bytes) -> None:
    assert isinstance(failure(read(body, headers=TEXT)), TruncatedStreamError)


@pytest.mark.parametrize(
    "body",
    [b"[]", b"[1]", b"{}", b'{"choices": []}', b'{"choices": null}', b'{"object": "list"}', b'{"answer": 42}', b"[{}]"],
)
def test_json_of_another_kind_is_unexpected(body: bytes) -> None:
    error = failure(read(body, headers=JSON))
    assert isinstance(error, UnexpectedReplyError)
    assert error.body == body


@pytest.mark.parametrize("cut", range(1, len(DOCUMENT)))
def test_a_document_cut_off_is_a_truncation(cut: int) -> None:
    for broken in (read(DOCUMENT[:cut], headers=JSON), read(DOCUMENT[:cut], headers=JSON, fail=ReadError("reset"))):
        assert isinstance(failure(broken), TruncatedStreamError)
        assert len(broken) == 1


@pytest.mark.parametrize("indices", [(0, 0), (None, None), (1, 1), (2, 0, 2), (None, 0, 1)])
def test_the_choices_of_a_document_keep_apart(indices: tuple[int | None, ...]) -> None:
    choices = [
        {"message": {"content": f"text {place}"}, "finish_reason": "stop"} | ({} if index is None else {"index": index})
        for place, index in enumerate(indices)
    ]
    events = read(json.dumps({**WHOLE, "choices": choices}).encode(), headers=JSON)
    for place in range(len(indices)):
        assert text(events, place) == f"text {place}"
    whole = ended(events).completion
    assert whole is not None
    assert [choice.index for choice in whole.choices] == [*range(len(indices))]


def test_a_document_is_one_chunk_with_all_that_it_says() -> None:
    whole: dict[str, Any] = {
        **WHOLE,
        "system_fingerprint": "fp",
        "service_tier": "default",
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "logprobs": {"content": [{"token": "a", "logprob": -1.0, "top_logprobs": []}]},
                "message": {
                    "role": "assistant",
                    "content": None,
                    "reasoning": "hm",
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "[]"}},
                    ],
                },
            },
            {"index": 1, "finish_reason": "stop", "message": {"role": "assistant", "content": "two", "refusal": "no"}},
        ],
    }
    events = read(json.dumps(whole).encode(), headers=JSON)
    (chunk,) = chunks(events)
    assert chunk.object == "chat.completion.chunk"
    completion = ended(events).completion
    assert completion is not None
    folded = accumulate([chunk])
    assert result_of(events) == {
        "text": "", "reasoning": "hm", "finish_reason": "tool_calls", "role": "assistant", "refusal": None,
        "logprobs": [["a", -1.0]], "complete": True,
        "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        "tool_calls": [
            {"id": "c1", "name": "f", "arguments": "{}"},
            {"id": "c2", "name": "g", "arguments": "[]"},
        ],
        "choices": [
            {"index": 0, "text": "", "finish_reason": "tool_calls"},
            {"index": 1, "text": "two", "finish_reason": "stop"},
        ],
    }  # fmt: skip
    assert (folded.id, folded.created, folded.model) == (completion.id, completion.created, completion.model)
    assert folded.choices[1].message.refusal == completion.choices[1].message.refusal == "no"
    assert (folded.system_fingerprint, folded.service_tier) == ("fp", "default")
    assert completion.choices[0].message.reasoning_content == "hm"


def test_choices_of_a_document_that_all_say_index_0_or_none() -> None:
    choice = {"message": {"content": "x"}, "finish_reason": "stop"}
    events = read(json.dumps({"choices": [choice, choice]}).encode(), headers=JSON)
    assert [choice.index for choice in chunks(events)[0].choices] == [0, 1]


def test_a_whole_reply_as_the_only_event_of_a_stream() -> None:
    events = read(sse(WHOLE, DONE))
    assert text(events) == "hi"
    assert ended(events).finished


def test_a_whole_reply_as_an_event_with_more_levels_than_are_read() -> None:
    """The decoder passes over what it does not know, however deep."""
    deep = b"[" * 100 + b"]" * 100
    choice = b'{"message": {"content": "a"}, "finish_reason": "stop", "x": ' + deep + b"}"
    events = read(sse(b'{"object": "chat.completion", "choices": [' + choice + b"]}", DONE))
    assert text(events) == "a"
    assert ended(events).finished


def test_an_error_in_a_document_with_status_200() -> None:
    error = failure(read(b'{"error": {"message": "boom", "code": 429}}', headers=JSON))
    assert isinstance(error, APIStatusError)
    assert error.status_code == 429
    assert "boom" in str(error)
    for flat in (b'{"detail": "gone wrong"}', b'{"message": "gone wrong"}', b'[{"error": "gone wrong"}]'):
        error = failure(read(flat, headers=JSON))
        assert isinstance(error, APIStatusError)
        assert "gone wrong" in str(error)
    assert ended(read(json.dumps({**WHOLE, "error": None, "message": "ok"}).encode(), headers=JSON)).finished


# --- The head --------------------------------------------------------------------------------------


def test_1xx_heads_are_none_yet() -> None:
    reply = Reply()
    assert reply.start(100, []) == reply.start(103, [(b"link", b"x")]) == []
    assert reply.state is State.IDLE
    assert (reply.status, reply.headers) == (None, [])
    reply.start(200, SSE)
    assert (reply.status, reply.headers, reply.state) == (200, SSE, State.SNIFFING)


def test_101_is_an_answer_and_no_good_one() -> None:
    error = failure(read(b"", status=101, headers=[]))
    assert isinstance(error, APIStatusError)
    assert error.status_code == 101


@pytest.mark.parametrize("status", [200, 201, 204, 205, 206, 299])
def test_an_empty_success_is_a_truncation(status: int) -> None:
    error = failure(read(b"", status=status, headers=[(b"content-length", b"0"), (b"x-request-id", b"req-7")]))
    assert isinstance(error, TruncatedStreamError)
    assert "empty" in str(error)
    assert error.partial is None
    assert error.request_id == "req-7"
    assert "req-7" in str(error)


def test_any_2xx_is_read() -> None:
    assert text(read(EVENTS, status=201)) == "hi"


def test_request_id_of_the_head() -> None:
    reply = Reply()
    assert reply.request_id is None
    reply.start(200, [*SSE, (b"X-Request-ID", b"req-1")])
    assert reply.request_id == "req-1"


def test_no_head_at_all() -> None:
    reply = Reply(context=Context(provider="P", url="http://s/v1"))
    (event,) = reply.end()
    error = failure([event])
    assert isinstance(error, ReadError)
    assert "without an answer" in str(error)
    assert "P, http://s/v1" in str(error)


def test_failing_before_the_head_keeps_our_errors_and_wraps_others() -> None:
    ours = ConnectError("no route")
    assert failure(Reply().fail(ours)) is ours
    other = OSError("boom")
    error = failure(Reply().fail(other))
    assert isinstance(error, ReadError)
    assert error.__cause__ is other
    assert "boom" in str(error)
    assert "ValueError" in str(failure(Reply().fail(ValueError())))


def test_unknown_dialect() -> None:
    with pytest.raises(ConfigurationError, match="smoke"):
        Reply("smoke")


# --- Verdicts --------------------------------------------------------------------------------------


def test_done_with_and_without_a_finish_reason() -> None:
    assert ended(read(sse(delta("a"), FINISH, DONE))) == StreamEnded(True)
    assert ended(read(sse(delta("a"), DONE))) == StreamEnded(False)
    assert ended(read(sse(DONE))) == StreamEnded(False)


@pytest.mark.parametrize("done", [b"[DONE]", b" [DONE]", b"[DONE] ", b"\t[DONE]\t"])
def test_done_is_trimmed(done: bytes) -> None:
    assert ended(read(sse(delta("a"), done))) == StreamEnded(False)


@pytest.mark.parametrize("data", [b"[DONE]x", b"x[DONE]", b"[done]", b"[DONE] [DONE]", b'"[DONE]"', b"DONE"])
def test_done_is_the_whole_data(data: bytes) -> None:
    error = failure(read(sse(delta("a"), data, DONE)))
    assert isinstance(error, MalformedEventError)
    assert error.line == data.decode()


def test_the_bytes_end_after_every_choice_has_finished() -> None:
    assert ended(read(sse(delta("a"), FINISH))) == StreamEnded(True)
    two = sse(delta("a"), delta("b", index=1), FINISH, delta(index=1, finish="length"))
    assert ended(read(two)) == StreamEnded(True)
    assert isinstance(failure(read(sse(delta("a"), delta("b", index=1), FINISH))), TruncatedStreamError)


def test_a_finish_reason_alone_ends_nothing() -> None:
    reply = Reply()
    reply.start(200, SSE)
    assert len(reply.receive(sse(delta("a"), FINISH))) == 2
    assert not reply.done
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
    (chunk,) = reply.receive(sse(usage))
    assert isinstance(chunk, ChatCompletionChunk)
    assert chunk.usage is not None
    assert reply.end() == [StreamEnded(True)]


@pytest.mark.parametrize("fault", [ReadError("reset"), TimeoutError("idle", deadline="idle"), OSError("x")])
def test_a_failure_after_the_finish_is_no_failure(fault: Exception) -> None:
    assert ended(read(sse(delta("a"), FINISH), fail=fault)) == StreamEnded(True)
    assert ended(read(DOCUMENT, headers=JSON, fail=fault)).completion is not None
    # Also when the finish reason is in an event that lacks its blank line.
    assert ended(read(sse(delta("a"), FINISH).rstrip(b"\n"), fail=fault)) == StreamEnded(True)


def test_a_timeout_before_the_finish_keeps_its_class() -> None:
    fault = TimeoutError("no further content within 5 s", deadline="idle", seconds=5.0)
    error = failure(read(sse(delta("half")), fail=fault))
    assert error is fault
    assert fault.partial is not None
    assert fault.partial.choices[0].message.content == "half"
    assert isinstance(error, builtins.TimeoutError)


def test_a_broken_connection_before_the_finish_is_a_truncation() -> None:
    fault = ReadError("reset by peer")
    error = failure(read(sse(delta("half")), fail=fault))
    assert isinstance(error, TruncatedStreamError)
    assert error.__cause__ is fault
    assert "reset by peer" in str(error)
    assert error.partial is not None
    assert error.partial.choices[0].message.content == "half"


def test_what_is_partial_is_what_the_chunks_make() -> None:
    body = sse(
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
        {**delta("a"), "id": "x", "model": "m", "created": 5, "service_tier": "flex", "system_fingerprint": "fp"},
        delta("b", index=1),
        delta(reasoning_content="r"),
        delta("c", finish="length"),
    )
    events = read(body)
    error = failure(events)
    assert isinstance(error, TruncatedStreamError)
    assert error.partial is not None
    assert error.partial.to_dict() == accumulate(chunks(events)).to_dict()


def test_partial_at_any_time() -> None:
    reply = Reply()
    assert reply.partial() is None
    reply.start(200, SSE)
    reply.receive(sse(delta("a")))
    reply.receive(sse(delta("b")))
    partial = reply.partial()
    assert partial is not None
    assert partial.choices[0].message.content == "ab"
    reply.receive(sse(delta("c")))
    assert partial.choices[0].message.content == "ab"


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r", b"\r\n"])
def test_a_pending_done_counts(ending: bytes) -> None:
    body = sse(delta("a")) + b"data: [DONE]" + ending
    for _, parts in ways(body):
        assert ended(read(parts)) == StreamEnded(False)


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_a_pending_event_counts(ending: bytes) -> None:
    body = sse(delta("a"), delta("b", finish="stop")).rstrip(b"\n") + ending
    assert text(read(body)) == "ab"
    assert ended(read(body)).finished
    for words in (b'{"message": "boom"}', b'"boom"', b"boom"):
        error = failure(read(b"event: error\ndata: " + words + ending))
        assert isinstance(error, APIStatusError)
        assert "boom" in str(error)


@pytest.mark.parametrize(
    "rest",
    [
        b'data: {"choices": [{"del', b"data: [DON", b"data: {", b"dat", b"data: nonsense", b"event: error\ndata: {",
        b'event: error\ndata: {"message": "bo', b'event: error\ndata: [{"error"', b'event: error\ndata: "boo',
    ],
)  # fmt: skip
def test_a_pending_event_that_does_not_parse_is_cut_off(rest: bytes) -> None:
    error = failure(read(sse(delta("a")) + rest))
    assert isinstance(error, TruncatedStreamError)
    assert ended(read(sse(delta("a"), FINISH) + rest)) == StreamEnded(True)


def test_broken_json_in_the_middle_is_malformed_after_the_good_events() -> None:
    events = read(sse(delta("a"), delta("b"), b'{"choices": [', delta("c"), DONE))
    assert text(events) == "ab"
    error = failure(events)
    assert isinstance(error, MalformedEventError)
    assert isinstance(error, RuntimeError)
    assert error.line == '{"choices": ['
    assert error.partial is not None
    assert error.partial.choices[0].message.content == "ab"


@pytest.mark.parametrize("value", [b"5", b"null", b"true", b'"text"', b"[]", b"[1, 2]", b'[{"choices": []}]', b"{,}"])
def test_only_objects_are_events(value: bytes) -> None:
    assert isinstance(failure(read(sse(delta("a"), value, DONE))), MalformedEventError)


def test_a_malformed_line_is_shown_in_part() -> None:
    error = failure(read(sse(b"x" * 5000, DONE)))
    assert isinstance(error, MalformedEventError)
    assert error.line == "x" * 1000
    assert len(str(error)) < 800


def test_keep_alives_are_nothing() -> None:
    body = b": ping\n\ndata:\n\ndata: \n\nevent: ping\ndata:  \n\nid: 1\n\n" + EVENTS
    assert [said(event) for event in read(body)] == [said(event) for event in read(EVENTS)]


@pytest.mark.parametrize("after", [b"data: nonsense\n\n", EVENTS, b"\xff" * 100, b'data: {"error": "late"}\n\n'])
def test_everything_after_the_verdict_is_discarded(after: bytes) -> None:
    for _, parts in ways(EVENTS + after, [len(EVENTS)]):
        same(parts, read(EVENTS))
    failed = sse(delta("a"), {"error": "boom"})
    for _, parts in ways(failed + after, [len(failed)]):
        same(parts, read(failed))


def test_the_error_of_an_event_named_error() -> None:
    for data in (b'{"message": "boom"}', b'{"error": {"message": "boom"}}', b'{"detail": "boom"}', b'"boom"', b"boom"):
        body = sse(delta("a")) + b"event: error\ndata: " + data + b"\n\n" + sse(FINISH, DONE)
        events = read(body)
        error = failure(events)
        assert text(events) == "a"
        assert isinstance(error, APIStatusError), data
        assert "boom" in str(error), data
        for _, parts in ways(body, [40, 80, 120]):
            same(parts, events)


def test_an_error_beside_choices_comes_after_them() -> None:
    both = {**delta("b", finish="error"), "error": {"code": 502, "message": "gone"}}
    events = read(sse(delta("a"), both, DONE))
    assert text(events) == "ab"
    error = failure(events)
    assert isinstance(error, InternalServerError)
    assert error.partial is not None
    assert error.partial.choices[0].message.content == "ab"


@pytest.mark.parametrize("nothing", [None, False, "", {}, []])
def test_an_empty_error_is_none(nothing: object) -> None:
    events = read(sse({**delta("a"), "error": nothing}, FINISH, DONE))
    assert text(events) == "a"
    assert chunks(events)[0].error is None
    assert ended(events).finished


# --- Limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["line", "event", "reply", "document"])
def test_each_limit_is_named_and_comes_after_the_good_events(name: str) -> None:
    good = sse(delta("a"))
    limits = Limits(**{name: len(good) + 40})
    bad = sse(delta("b" * 200)) if name != "event" else b"data: {\ndata: \n" * 30
    body = DOCUMENT if name == "document" else good + bad
    headers = JSON if name == "document" else SSE
    events = read(body, headers=headers, limits=limits)
    error = failure(events)
    assert isinstance(error, LimitExceededError)
    assert (error.limit_name, error.limit) == (name, len(good) + 40)
    assert text(events) == ("" if name == "document" else "a")
    what = {"reply": "the reply", "document": "the document"}.get(name, f"a {name} of the event stream")
    assert str(error).startswith(f"{what} is larger than {len(good) + 40} bytes (Limits.{name})")
    for _, parts in ways(body, [len(good), len(good) + 1]):
        same(parts, events, headers=headers, limits=limits)


def choices(*indexes: int, calls: int = 0) -> dict[str, object]:
    """An event with so many choices; each with so many tool calls."""
    fragments = [{"index": call, "function": {"name": "f"}} for call in range(calls)]
    delta = {"tool_calls": fragments} if calls else {"content": "x"}
    return {"id": "i", "object": "chat.completion.chunk", "choices": [{"index": i, "delta": delta} for i in indexes]}


@pytest.mark.parametrize(
    ("events", "good"),
    [
        # The event has seven objects itself: none of it is read.
        ([choices(0), choices(1, 2, 3)], 1),
        ([choices(0), {"id": "i", "choices": [], "odd": [{}] * 6}], 1),
        # Each has few enough, but what they open is held to the end.
        ([choices(0), choices(1), choices(2, 3), choices(4), choices(5), choices(6), choices(7)], 6),
        ([choices(0, calls=1), choices(1), choices(2), choices(3), choices(4), choices(5, calls=1)], 6),
        # By the lenient way.
        ([choices(0), {"id": 5, "choices": [{}] * 6}], 1),
    ],
)
def test_no_more_objects_than_the_limit(events: list[dict[str, object]], good: int) -> None:
    """Decoded, they take a hundred times what their JSON took; so their number has a bound of its own."""
    limits = Limits(objects=6)
    body = sse(*events, DONE)
    whole = read(body, limits=limits)
    error = failure(whole)
    assert isinstance(error, LimitExceededError)
    assert (error.limit_name, error.limit) == ("objects", 6)
    assert "holds more than 6 objects (Limits.objects)" in str(error)
    assert len(chunks(whole)) == good
    assert error.partial is not None
    assert len(error.partial.choices) == len({choice.index for chunk in chunks(whole) for choice in chunk.choices})
    for _, parts in ways(body):
        same(parts, whole, limits=limits)
    assert ended(read(body, limits=Limits(objects=9)))


def test_no_more_objects_in_a_document_than_the_limit() -> None:
    most = DOCUMENT.count(b"{")
    assert ended(read(DOCUMENT, headers=JSON, limits=Limits(objects=most)))
    for dialect in ("openai", "opchatgpts"):
        error = failure(read(DOCUMENT, headers=JSON, dialect=dialect, limits=Limits(objects=most - 1)))
        assert isinstance(error, LimitExceededError)
        assert error.limit_name == "objects"
    models = b'{"data": [' + b",".join([b'{"id": "m"}'] * 10) + b"]}"
    assert isinstance(
        failure(read(models, headers=JSON, dialect="models", limits=Limits(objects=10))), LimitExceededError
    )


def test_many_tokens_are_not_many_objects() -> None:
    tokens = [choices(0) for _ in range(100)]
    assert ended(read(sse(*tokens, DONE), limits=Limits(objects=3)))


def test_a_reply_of_exactly_its_limit_is_good() -> None:
    assert ended(read(EVENTS, limits=Limits(reply=len(EVENTS)))).finished
    for _, parts in ways(EVENTS):
        assert isinstance(failure(read(parts, limits=Limits(reply=len(EVENTS) - 1))), LimitExceededError)
    assert ended(read(DOCUMENT, headers=JSON, limits=Limits(document=len(DOCUMENT)))).finished
    assert isinstance(
        failure(read(DOCUMENT, headers=JSON, limits=Limits(document=len(DOCUMENT) - 1))), LimitExceededError
    )
    # The verdict stands where the limit is passed only behind it.
    assert ended(read(EVENTS + b"\n", limits=Limits(reply=len(EVENTS)))).finished


def test_a_stream_of_exactly_its_limit_may_end_after_it() -> None:
    body = sse(delta("a"), delta(finish="stop"))
    assert ended(read(body, limits=Limits(reply=len(body)))).finished
    assert isinstance(failure(read(body, limits=Limits(reply=len(body) - 1))), LimitExceededError)


def test_an_error_body_over_its_limit_is_cut_and_no_other_error() -> None:
    limits = Limits(error_body=100)
    body = b'{"error": {"message": "' + b"boom " * 100 + b'"}}'
    whole = read(body, status=500, headers=JSON, limits=limits)
    error = failure(whole)
    assert isinstance(error, InternalServerError)
    assert error.body == body[:100].decode()
    for _, parts in ways(body, [50, 99, 100, 101]):
        same(parts, whole, status=500, headers=JSON, limits=limits)


def test_an_error_body_over_the_limit_of_replies_is_still_that_error() -> None:
    error = failure(read(b"boom " * 100, status=500, headers=TEXT, limits=Limits(reply=50)))
    assert isinstance(error, InternalServerError)


def test_an_error_body_is_given_up_once_enough_is_there() -> None:
    reply = Reply(limits=Limits(error_body=10))
    reply.start(500, TEXT)
    assert reply.receive(b"123456789") == []
    assert len(reply.receive(b"0")) == 1
    assert reply.done


# --- Where it happened -----------------------------------------------------------------------------

CONTEXT = Context(provider="Prov", url="https://srv.example/v1", proxy="http://px:8080")


@pytest.mark.parametrize(
    ("body", "headers", "limits"),
    [
        (b"", SSE, None),
        (sse(delta("a")), SSE, None),
        (sse({"error": "boom"}), SSE, None),
        (b"<html>", HTML, None),
        (b"{}", JSON, None),
        (b'{"a"', JSON, None),
        (sse(b"nonsense", DONE), SSE, None),
        (sse(delta("a" * 99)), SSE, Limits(line=50)),
        (sse(delta("a" * 99)), SSE, Limits(reply=50)),
        (DOCUMENT, JSON, Limits(document=50)),
        (b"\x00", [*SSE, (b"content-encoding", b"gzip")], None),
        (b"\x00", [*SSE, (b"content-encoding", b"br")], None),
    ],
)
def test_every_error_says_where(body: bytes, headers: Headers, limits: Limits | None) -> None:
    events = read(body, headers=[*headers, (b"x-request-id", b"req-3")], context=CONTEXT, limits=limits)
    shown = str(failure(events))
    for word in ("Prov", "https://srv.example/v1", "http://px:8080", "req-3"):
        assert word in shown


KEY = "sk-proj-abcdef0123456789"
SECRET = Context(provider="P", url="https://srv.example/v1", secrets=(KEY, ""))


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (401, JSON, json.dumps({"error": {"message": f"Incorrect key: {KEY}", "type": KEY, "code": "x"}}).encode()),
        (500, TEXT, f"boom {KEY}".encode()),
        (302, [(b"location", f"https://other/?key={KEY}".encode())], b""),
        (200, SSE, sse({"error": {"message": f"bad {KEY}", "details": [{KEY: KEY}]}})),
        (200, SSE, sse({"error": f"bad {KEY}"})),
        (200, HTML, f"<html>{KEY}</html>".encode()),
        (200, JSON, f'{{"echo": "{KEY}"}}'.encode()),
        (200, JSON, f'{{"echo": "{KEY}"'.encode()),
        (200, SSE, sse(f"nonsense {KEY}".encode(), DONE)),
        (200, SSE, b"event: error\ndata: " + KEY.encode() + b"\n\n"),
        # Where an excerpt ends within the key.
        (500, TEXT, b"x" * 484 + KEY.encode()),
        (200, HTML, b"x" * 484 + KEY.encode()),
        (200, SSE, sse(b"x" * 484 + KEY.encode(), DONE)),
        (200, JSON, b'{"' + b"x" * 178 + KEY.encode()),
    ],
    ids=itertools.count(),
)
def test_a_key_that_a_server_echoes_is_not_shown(status: int, headers: Headers, body: bytes) -> None:
    error = failure(read(body, status=status, headers=headers, context=SECRET))
    shown = [str(error), repr(error), repr(error.args)]
    shown += [repr(getattr(error, name, "")) for name in ("body", "message", "line", "location")]
    for words in shown:
        assert KEY[:12] not in words


@pytest.mark.parametrize(
    ("status", "headers", "start", "end"),
    [
        (500, TEXT, "", ""),
        (500, JSON, '{"error": {"message": "', '"}}'),
        (200, HTML, "<html>", ""),
        (200, JSON, '{"', '": 1}'),
        (200, JSON, '{"', ""),
        (200, SSE, "data: nonsense", "\n\n"),
        (200, SSE, 'data: {"error": "', '"}\n\n'),
    ],
)
@pytest.mark.parametrize("fill", ["x", "é"])
def test_no_cut_leaves_a_part_of_a_key(status: int, headers: Headers, start: str, end: str, fill: str) -> None:
    # Wherever words are cut short, nothing of a key may stand before the cut.
    for about in (100, 200, 250, 500, 1000, 2000):
        for length in range(max(about - 30, 0), about + 5):
            body = f"{start}{fill * length}{KEY}{'y' * 100}{end}".encode()
            error = failure(read([body, b"\n"], status=status, headers=headers, context=SECRET))
            shown = f"{error!r} {error} {vars(error)}"
            assert KEY[:8] not in shown
            assert KEY[-8:] not in shown


def test_a_key_in_the_words_of_a_cause_is_not_shown() -> None:
    assert KEY not in str(failure(read(sse(delta("a")), fail=OSError(f"at {KEY}"), context=SECRET)))
    assert KEY not in str(failure(Reply(context=SECRET).fail(OSError(f"at {KEY}"))))


def test_a_context_shows_no_secret() -> None:
    assert KEY not in repr(SECRET)
    assert KEY not in str(SECRET)


# --- The machine -----------------------------------------------------------------------------------

VERBS: dict[str, list[Callable[[Reply], object]]] = {
    "start": [
        lambda reply: reply.start(100, []),
        lambda reply: reply.start(200, SSE),
        lambda reply: reply.start(200, TEXT),
        lambda reply: reply.start(200, [(b"content-encoding", b"br")]),
        lambda reply: reply.start(500, TEXT),
        lambda reply: reply.start(500, [(b"content-encoding", b"br")]),
    ],
    "receive": [
        lambda reply: reply.receive(b""),
        lambda reply: reply.receive(b"\n"),
        lambda reply: reply.receive(b"d"),
        lambda reply: reply.receive(b": ping\n\n"),
        lambda reply: reply.receive(b"data: [DONE]\n\n"),
        lambda reply: reply.receive(b"{"),
        lambda reply: reply.receive(b"x" * 300),
        lambda reply: reply.receive(sse(FINISH)),
    ],
    "end": [lambda reply: reply.end()],
    "fail": [lambda reply: reply.fail(OSError("x")), lambda reply: reply.fail(TimeoutError("x"))],
}


def replay(moves: Sequence[Callable[[Reply], object]]) -> Reply:
    reply = Reply(limits=Limits(line=200, event=200, error_body=200, reply=500, document=200))
    for move in moves:
        move(reply)
    return reply


def test_the_table_says_all_moves_and_no_more() -> None:
    observed: dict[tuple[State, str], set[State]] = {}
    refused: set[tuple[State, str]] = set()
    reached: list[list[Callable[[Reply], object]]] = [[]]
    for _ in range(4):
        following = []
        for moves in reached:
            for verb, ways_to_call in VERBS.items():
                for call in ways_to_call:
                    reply = replay(moves)
                    before = reply.state
                    try:
                        call(reply)
                    except UsageError:
                        assert reply.state is before
                        refused.add((before, verb))
                        continue
                    observed.setdefault((before, verb), set()).add(reply.state)
                    if reply.state is not State.DONE or before is not State.DONE:
                        following.append([*moves, call])
        reached = following
    assert observed == {move: set(states) for move, states in TRANSITIONS.items()}
    assert refused == set(itertools.product(State, VERBS)) - set(TRANSITIONS)


@pytest.mark.parametrize(("state", "verb"), sorted(set(itertools.product(State, VERBS)) - set(TRANSITIONS), key=str))
def test_misuse_raises(state: State, verb: str) -> None:
    way_there: dict[State, list[Callable[[Reply], object]]] = {
        State.IDLE: [],
        State.SNIFFING: [lambda reply: reply.start(200, TEXT)],
        State.EVENTS: [lambda reply: reply.start(200, SSE), lambda reply: reply.receive(b": x\n")],
        State.DOCUMENT: [lambda reply: reply.start(200, SSE), lambda reply: reply.receive(b"{")],
        State.ERROR_BODY: [lambda reply: reply.start(500, SSE)],
        State.UNEXPECTED: [lambda reply: reply.start(200, TEXT), lambda reply: reply.receive(b"<")],
        State.DONE: [lambda reply: reply.start(200, SSE), lambda reply: reply.end()],
    }
    for call in VERBS[verb]:
        reply = replay(way_there[state])
        assert reply.state is state
        with pytest.raises(UsageError, match=f"Reply.{verb}"):
            call(reply)
        assert reply.state is state


def test_takes_any_bytes_like() -> None:
    for kind in (bytes, bytearray, memoryview):
        assert text(read([kind(part) for part in (EVENTS[:20], EVENTS[20:])])) == "hi"  # type: ignore[misc]


@pytest.mark.parametrize(
    "block",
    [
        b'data: {"id":\rdata: "x"}\n\n',
        b'data: {"id": "x"}\rid: 5\n\n',
        b'data: {"id": "x"}\r\n\n',
        b'data: {"id": "x"}\n\n',
        b'data:{"id": "x"}\n\n',
        b'data: {"id": "x"}\r\n\r\n',
        b'event: a\ndata: {"id": "x"}\n\n',
    ],
)
def test_one_event_a_read(block: bytes) -> None:
    reply = Reply()
    reply.start(200, SSE)
    for _ in range(3):
        (chunk,) = reply.receive(block)
        assert isinstance(chunk, ChatCompletionChunk)
        assert chunk.id == "x"
    assert reply.receive(sse(DONE)) == [StreamEnded(False)]


def test_empty_reads_do_nothing() -> None:
    for body, headers in ((EVENTS, SSE), (DOCUMENT, JSON)):
        same(with_empties([body[:10], body[10:]]), read(body, headers=headers), headers=headers)


# --- Properties ------------------------------------------------------------------------------------

CHOICES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "index": st.sampled_from([0, 1, -1, None, "0", 1.0]),
        "finish_reason": st.sampled_from([None, "", "stop", "length", 5]),
        "delta": st.fixed_dictionaries(
            {},
            optional={
                "content": st.sampled_from([None, "", "a", "é🚀", "\ud83d", "\udc4b", 5, ["a"], [{"text": "b"}]]),
                "role": st.sampled_from([None, "assistant", "", 3]),
                "reasoning_content": st.sampled_from([None, "r", "\ud83d", "\udc4b"]),
                "reasoning": st.sampled_from([None, "r", "\udc4b", {"a": 1}]),
                "refusal": st.sampled_from([None, "no", "\ud83d"]),
                "tool_calls": st.sampled_from([
                    None, [], 5, [None], [{}], [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}],
                    [{"index": 0, "function": {"arguments": "\ud83d"}}],
                    [{"index": 0, "function": {"arguments": "\udc4b"}}],
                    [{"index": None, "id": "d", "function": {"arguments": {"a": [1]}}}], [{"id": "", "function": None}],
                ]),
                "function_call": st.sampled_from([None, {}, {"name": "f"}, {"arguments": "{}"}]),
                "audio": st.sampled_from([None, {}, {"data": "AA", "id": "a"}]),
                "vendor": st.sampled_from([None, "v", [1]]),
            },
        ) | st.sampled_from([None, 5, []]),
        "logprobs": st.sampled_from([None, {"content": [{"token": "a", "logprob": -1}]}, {"content": [None]}, 7]),
        "message": st.sampled_from([None, {"content": "m"}]),
    },
)  # fmt: skip
PAYLOADS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["x", "", None, 7]),
        "object": st.sampled_from(["chat.completion.chunk", "chat.completion", "error", "list", None, 5]),
        "created": st.sampled_from([0, 1700000000, 1.5, "12", None, 10**30, float("nan")]),
        "choices": st.lists(CHOICES, max_size=2) | st.sampled_from([None, {}, [None], "x"]),
        "usage": st.sampled_from([None, {}, {"prompt_tokens": 1}, {"prompt_tokens": "x"}, 5, {"total_tokens": 2.0}]),
        "error": st.sampled_from([None, {}, "", False]) | st.sampled_from([None, True, "boom", {"code": 429}, [1], 5]),
        "vendor": st.sampled_from([None, {"a": [1]}, float("inf"), "\udfff", 10**40]),
    },
).map(lambda value: json.dumps(value).encode())
DATA = PAYLOADS | st.sampled_from([
    b"[DONE]", b"", b" ", b"nonsense", b'{"a":', b"[]", b"null", b'"x"', b"{}", b"\xff", b"1e999", b'{"choices":[{}]}',
    b'{"choices":[{"delta":{"content":"\xff\xfe"}}]}', b'{"choices":[{"delta":{"content":"\x01"}}]}',
])  # fmt: skip
BLOCKS = st.builds(
    lambda before, data, end: before + b"data: " + data + end,
    st.sampled_from([b"", b"", b"", b": x\n", b"event: error\n", b"event: ping\r\n", b"id: 1\n", b"data:\n", b"\n"]),
    DATA,
    st.sampled_from([b"\n\n", b"\n\n", b"\r\n\r\n", b"\r\r", b"\n", b"\n\n\n"]),
)
BODIES = st.lists(BLOCKS, max_size=6).map(b"".join) | PAYLOADS | st.binary(max_size=60)
SMALL = st.builds(
    Limits,
    line=st.integers(1, 300),
    event=st.integers(1, 300),
    reply=st.integers(1, 500),
    document=st.integers(1, 300),
)


@QUICK
@given(
    BODIES.flatmap(lambda body: st.tuples(st.just(body), splits(body))),
    st.sampled_from([SSE, SSE, TEXT]),
    st.none() | SMALL,
    st.sampled_from([200, 200, 200, 500]),
)
@example((sse(delta("\ud83d"), delta("\udc4b"), DONE), [sse(delta("\ud83d"), delta("\udc4b"), DONE)]), SSE, None, 200)
def test_any_stream_any_split(
    body: tuple[bytes, list[bytes]], headers: Headers, limits: Limits | None, status: int
) -> None:
    whole, parts = body
    expected = read(whole, headers=headers, limits=limits, status=status)
    # One event a read has a way of its own through the machine.
    one_a_read = pieces(whole, (found.end() for found in re.finditer(rb"\n\n", whole)))
    for each in (parts, one_a_read, each_byte(whole)):
        same(each, expected, headers=headers, limits=limits, status=status)
    for chunk in chunks(expected):
        chunk.to_json().encode()


@QUICK
@given(
    st.lists(st.binary(max_size=40), max_size=6),
    st.integers(100, 599),
    st.booleans(),
    st.sampled_from(["openai", "models"]),
)
def test_any_bytes_never_raise(parts: list[bytes], status: int, broken: bool, dialect: str) -> None:
    if 100 <= status < 200 and status != 101:
        status = 200
    events = read(parts, status=status, headers=TEXT, dialect=dialect, fail=OSError("x") if broken else None)
    assert not isinstance(events[-1], StreamEnded) or status < 300


@QUICK
@given(
    st.lists(
        st.tuples(st.sampled_from([b"content-type", b"content-encoding", b"retry-after", b"x-request-id", b"Date"]),
                  st.binary(max_size=12) | st.sampled_from([b"gzip", b"deflate", b"text/event-stream", b"nan", b"5"])),
        max_size=5,
    ),
    st.integers(0, 999),
    st.binary(max_size=30),
)  # fmt: skip
def test_any_head_never_raises(headers: Headers, status: int, body: bytes) -> None:
    reply = Reply(context=Context(url="http://s"))
    events = reply.start(status, headers)
    if reply.state is State.IDLE:
        assert 100 <= status < 200
        return
    events += reply.receive(body)
    events += reply.end()
    assert isinstance(events[-1], (StreamEnded, StreamFailed))


@pytest.mark.parametrize(
    "body",
    [
        sse(delta("a"), delta("é🚀"), FINISH, DONE),
        sse(delta("a"), FINISH, DONE).replace(b"\n", b"\r\n"),
        sse(delta("a"), FINISH, DONE).replace(b"\n", b"\r"),
        b"\xef\xbb\xbf: x\n\n" + sse(delta("a"), {"error": "boom"}),
        sse(delta(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": "\ud83d"}}]), DONE),
    ],
)
def test_at_every_cut(body: bytes) -> None:
    whole = read(body)
    for _, parts in at_every_cut(body):
        same(parts, whole)


# --- By other dialects, in other codings -----------------------------------------------------------


def test_how_many_contents_have_come() -> None:
    """What ends retrying, and re-arms deadlines."""
    reply = Reply()
    assert reply.contents == 0
    reply.start(200, SSE)
    for body, contents in ((sse(delta("")), 0), (sse(delta("a")), 1), (sse(delta("b"), delta("c")), 3), (b": x\n", 3)):
        reply.receive(body)
        assert reply.contents == contents


def test_the_nonce_to_go_on_with() -> None:
    reply = Reply("opchatgpts")
    reply.start(200, SSE)
    known = [reply.new_token]
    reply.receive(sse({"type": "end", "data": json.dumps({"success": True, "reply": "hi", "new_token": "n2"})}))
    assert [*known, reply.new_token] == [None, "n2"]
    other = Reply()
    other.start(200, SSE)
    other.receive(sse({**delta("a"), "new_token": "n2"}))
    assert other.new_token is None, "no other dialect has one"


@pytest.mark.parametrize("parts", [[EVENTS], each_byte(EVENTS), pieces(EVENTS, [3, 30, 60])])
def test_a_coded_body_is_read_as_it_comes(parts: list[bytes]) -> None:
    coder = zlib.compressobj(wbits=31)
    coded = [coder.compress(part) + coder.flush(zlib.Z_SYNC_FLUSH) for part in parts]
    headers = [*SSE, (b"Content-Encoding", b"gzip")]
    same([*coded, coder.flush()], read(EVENTS), headers=headers)
    # The verdict is in it: what is wrong after that is nobody's business.
    same([*coded, b"rubbish"], read(EVENTS), headers=headers)
    # And the limit is that of the bytes that come out.
    error = failure(read([*coded, b""], headers=headers, limits=Limits(reply=len(EVENTS) - 20)))
    assert isinstance(error, LimitExceededError)


def test_a_body_that_is_not_what_it_claims() -> None:
    coded = gzip.compress(sse(delta("a")))
    headers = [*SSE, (b"Content-Encoding", b"gzip"), (b"x-request-id", b"r-1")]
    events = read([coded[:-8] + b"????????"], headers=headers)
    error = failure(events)
    assert text(events) == "a"
    assert isinstance(error, UnexpectedReplyError)
    assert str(error).startswith("the body is not in the Content-Encoding it claims: ")
    assert "(request id r-1)" in str(error)
    # An error status says enough by itself.
    error = failure(read(b"rubbish", status=500, headers=headers))
    assert isinstance(error, InternalServerError)
    assert isinstance(error.__cause__, ValueError)


def test_a_reply_that_ends_well_and_says_nothing() -> None:
    nothing = json.dumps({"success": True, "reply": ""})
    for body, headers in ((nothing.encode(), JSON), (sse({"type": "end", "data": nothing}), SSE)):
        error = failure(read(body, headers=headers, dialect="opchatgpts"))
        assert isinstance(error, EmptyReplyError)
        assert "hides why its model said nothing" in str(error)


def test_documents_of_other_kinds() -> None:
    for dialect, body, cls in (
        ("models", b'{"data": [{"id": "a"}]}', ModelList),
        ("images", b'{"data": [{"url": "https://s/1.png"}]}', ImagesResponse),
        ("session", b'{"restNonce": "n"}', SessionStarted),
    ):
        for _, parts in ways(body, [5]):
            first, last = read(parts, headers=JSON, dialect=dialect)
            assert type(first) is cls
            assert last == StreamEnded(True)


def test_stop_words_of_a_whole_reply_and_of_a_stream() -> None:
    answer = json.dumps({"success": True, "reply": "one STOP two"})
    for body, headers in ((answer.encode(), JSON), (sse({"type": "end", "data": answer}), SSE)):
        events = read(body, headers=headers, dialect="opchatgpts", stop="STOP")
        assert text(events) == "one "
        assert ended(events).finished
        assert text(read(body, headers=headers, dialect="opchatgpts")) == "one STOP two"


def test_a_page_that_breaks_off_before_its_nonce_is_a_truncation() -> None:
    """And one that is whole is another page."""
    broken = OSError("reset")
    error = failure(read(b"<html>", headers=TEXT, dialect="page", fail=broken))
    assert isinstance(error, TruncatedStreamError)
    assert error.__cause__ is broken
    assert isinstance(failure(read(b"<html>", headers=TEXT, dialect="page")), UnexpectedReplyError)
    for dialect in ("models", "openai"):
        error = failure(read(b"{}", headers=JSON, dialect=dialect, fail=broken))
        assert isinstance(error, UnexpectedReplyError), "a whole document is what it is"


def test_a_fault_that_is_no_replys_and_no_servers_keeps_no_partial() -> None:
    """Whoever gives a machine such an error gets it back."""
    wrong = ConfigurationError("wrong")
    (event,) = Reply().fail(wrong)
    assert isinstance(event, StreamFailed)
    assert event.error is wrong
    assert not hasattr(wrong, "partial")
