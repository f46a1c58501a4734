"""The oracle is checked too: by the vectors, by facts read off the recordings by eye, by its own file."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest
from make_expected import DATA, EXPECTED, chat_recordings, derive, rendered, response
from whole_reader import parse_sse, read_body, read_recording

Dict = dict[str, Any]


def vectors(name: str) -> list[Any]:
    lines = (DATA / "vectors" / name).read_bytes().splitlines()
    return [pytest.param(vector, id=vector["id"]) for vector in map(json.loads, lines)]


def only(name: str) -> Dict:
    """The result for a recording that holds one response."""
    (result,) = read_recording(response(name))
    return result


def choice(name: str) -> Dict:
    (found,) = only(name)["choices"]
    assert isinstance(found, dict)
    return found


# --- The vectors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", vectors("sse.jsonl"))
def test_sse_vector(vector: Dict) -> None:
    events, pending, final = parse_sse(base64.b64decode(vector["input_b64"]))
    assert len(events) == len(vector["expect"])
    for event, wanted in zip(events, vector["expect"], strict=True):
        assert {key: event[key] for key in wanted} == wanted
    final["last_event_id"] = final["last_event_id"] or ""
    assert {key: final[key] for key in vector["final"]} == vector["final"]
    if "lenient_eof" in vector:
        assert pending == vector["lenient_eof"]


@pytest.mark.parametrize("vector", vectors("chat_streams.jsonl"))
def test_chat_vector(vector: Dict) -> None:
    expect = vector["expect"]
    result = read_body(base64.b64decode(vector["input_b64"]), vector["content_type"])
    choices = {item["index"]: item for item in result["choices"]}
    blank: Dict = {
        "text": "",
        "reasoning": "",
        "tool_calls": [],
        "finish_reason": None,
        "function_call": None,
    }
    first = choices.get(0, blank)
    seen: Dict = {key: first[key] for key in ("text", "reasoning", "tool_calls", "finish_reason")}
    if first["function_call"] is not None and not first["tool_calls"]:
        seen["tool_calls"] = [{"id": None, **first["function_call"]}]
    usage = result["usage"]
    names = {
        "input_tokens": "prompt_tokens",
        "output_tokens": "completion_tokens",
        "total_tokens": "total_tokens",
    }
    seen["usage"] = None if usage is None else {ours: usage[theirs] for ours, theirs in names.items()}
    seen["complete"] = result["verdict"] == "ended"
    seen["terminated"] = result["terminated"]
    seen["role"], seen["refusal"] = first.get("role"), first.get("refusal")
    seen["logprobs"] = [[item["token"], item["logprob"]] for item in first.get("logprobs", [])]
    seen["choices"] = [{key: item[key] for key in ("index", "text", "finish_reason")} for item in result["choices"]]
    wanted = {key: value for key, value in expect.items() if key not in ("error", "final_reply")}
    assert {key: seen[key] for key in wanted} == wanted
    error = expect["error"]
    if error is None:
        assert result["verdict"] in ("ended", "TruncatedStreamError")
    elif error["kind"] == "malformed":
        assert result["verdict"] == "MalformedEventError"
    else:
        assert {**result["error"], "kind": "server"}.items() >= error.items()
        assert result["verdict"] not in ("ended", "TruncatedStreamError", "MalformedEventError")
    json.dumps(result, ensure_ascii=False).encode()  # no surrogate is left


# --- The derived file ------------------------------------------------------------------------------


def test_expected_json_is_up_to_date() -> None:
    assert EXPECTED.read_text(encoding="utf-8") == rendered(derive()), "run python tests/make_expected.py"


def test_every_recording_is_a_pair() -> None:
    names = {path.name for path in (DATA / "recordings").iterdir()}
    stems = {name.removesuffix(".request") for name in names if name.endswith(".request")}
    assert names == {stem + end for stem in stems for end in (".request", ".response")}
    assert len(chat_recordings()) == 162
    assert len(stems) == 165  # three models lists beside them


def test_four_recordings_hold_two_responses() -> None:
    twice = [name for name, results in derive().items() if len(results) == 2]
    assert twice == [
        f"{server}.12i-keepalive-two" for server in ("A-llamacpp", "B-litellm-mock", "D-aimock", "F-openai-mock-api")
    ]


# --- Facts read off the bytes by eye ---------------------------------------------------------------


def test_llamacpp_two_replies_on_one_connection() -> None:
    one, two = read_recording(response("A-llamacpp.12i-keepalive-two"))
    assert one["choices"][0]["text"] == " call write will his other at that make than is my this"
    assert two["choices"][0]["text"] == " this write will his may two people and day then into in"
    assert one["choices"][0]["finish_reason"] == two["choices"][0]["finish_reason"] == "length"
    assert one["verdict"] == two["verdict"] == "ended"


def test_llamacpp_prompt_too_long_is_an_empty_stream() -> None:
    result = only("A-llamacpp.05k-err-too-long")
    assert (result["status"], result["verdict"]) == (200, "TruncatedStreamError")
    assert (result["choices"], result["finished"], result["error_status"]) == ([], False, None)


def test_llamacpp_interrupted_by_the_client() -> None:
    result = only("A-llamacpp.12h-client-cut-stream")
    assert result["verdict"] == "TruncatedStreamError"
    assert [(c["text"], c["finish_reason"]) for c in result["choices"]] == [(" this", None)]


def test_llamacpp_ends_at_once_without_text() -> None:
    result = only("A-llamacpp.13g-eos-immediately")
    assert (result["verdict"], result["finished"], result["choices"][0]["text"]) == ("ended", True, "")


def test_llamacpp_repeats_id_and_name_beside_a_legacy_call() -> None:
    got = choice("A-llamacpp.13k-function-call-legacy-stream")
    arguments = '{ "city" : " the his from out who she did with it they than is'
    assert got["tool_calls"] == [
        {
            "id": "call__0_get_weather_cmpl-82d0f1eb-d99d-40ef-baed-272a82cdf325",
            "name": "get_weather",
            "arguments": arguments,
        }
    ]
    assert got["function_call"] == {"name": "get_weather", "arguments": arguments}


def test_litellm_error_in_the_stream_has_a_code_of_digits() -> None:
    result = only("B-litellm-fwdD.13e-upstream-truncated-stream")
    assert (result["status"], result["verdict"], result["error_status"]) == (200, "InternalServerError", 500)
    assert (result["choices"][0]["text"], result["finished"]) == ("This ", False)


def test_litellm_usage_in_a_chunk_that_reopens_nothing() -> None:
    result = only("B-litellm-fwdD.02-stream-usage")
    assert result["usage"] == {"prompt_tokens": 3, "completion_tokens": 10, "total_tokens": 13}
    assert result["choices"][0]["finish_reason"] == "stop"
    assert result["choices"][0]["text"] == "Hello! 你好 👋🏽 How can I help you today?"


def test_litellm_status_529_without_a_reason_phrase() -> None:
    result = only("B-litellm-mock.13f2-fail-nonstream-529")
    assert (result["status"], result["verdict"], result["error_status"]) == (529, "InternalServerError", 529)


def test_litellm_gzip_body_with_three_choices() -> None:
    result = only("B-litellm-mock.12j-nonstream-accept-gzip")
    texts = ['Hello! 你好 👋🏽 — how can I help you today? "quoted"\nline two'] * 3
    assert [c["text"] for c in result["choices"]] == texts
    assert [c["index"] for c in result["choices"]] == [0, 1, 2]
    assert result["usage"] == {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}


def test_litellm_reasoning_beside_text() -> None:
    got = choice("B-litellm-fwdD.13h-reasoning-stream")
    assert (got["reasoning"], got["text"]) == ("First I consider 你好.", "The answer is 42.")


def test_aimock_emoji_split_into_halves() -> None:
    assert choice("D-aimock.13t-split-emoji-stream")["text"] == "a\U0001f44b\U0001f3fdé你"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("D-aimock.13e-truncate-stream", "This "),
        ("D-aimock.13f-disconnect-stream", "This "),
        ("B-litellm-mock.12h-client-cut-stream", "Hello!"),
        ("E-llmock.13e-truncate", "Hello 你好 "),
    ],
)
def test_truncated(name: str, text: str) -> None:
    result = only(name)
    assert (result["verdict"], result["finished"]) == ("TruncatedStreamError", False)
    assert [(c["text"], c["finish_reason"]) for c in result["choices"]] == [(text, None)]


def test_aimock_rubbish_with_status_200() -> None:
    result = only("D-aimock.13h-chaos-malformed")
    assert (result["status"], result["verdict"], result["choices"]) == (200, "TruncatedStreamError", [])


def test_aimock_finish_reason_length() -> None:
    got = choice("D-aimock.13p-finish-length-stream")
    assert (got["text"], got["finish_reason"]) == ("cut by length", "length")


def test_llmock_n2() -> None:
    result = only("E-llmock.06b-n2-nonstream")
    text = "gpt-4o mock reply: I saw 'Say hello'."
    assert [(c["index"], c["text"]) for c in result["choices"]] == [(0, text), (1, text)]


def test_llmock_two_tools_by_index() -> None:
    assert choice("E-llmock.13h-scripted-tool-two-stream")["tool_calls"] == [
        {
            "id": "call_f9306380fb044142ac10fe56",
            "name": "get_weather",
            "arguments": '{"city": "Paris \\u6771\\u4eac"}',
        },
        {"id": "call_24f8a88c8ebd42628dc8c73e", "name": "get_time", "arguments": '{"tz": "UTC"}'},
    ]


def test_llmock_broken_arguments_are_the_callers_matter() -> None:
    result = only("E-llmock.13i-tool-fault-malformed_arguments")
    assert (result["verdict"], result["choices"][0]["finish_reason"]) == ("ended", "tool_calls")
    assert result["choices"][0]["tool_calls"][0]["arguments"] == '{"city": "'


def test_llmock_disconnect_after_a_tool_call_opened() -> None:
    result = only("E-llmock.13j-tool-then-disconnect")
    assert result["verdict"] == "TruncatedStreamError"
    assert result["choices"][0]["tool_calls"] == [
        {"id": "call_b766b1643eb8487193b165c5", "name": "get_weather", "arguments": ""}
    ]


def test_llmock_teapot() -> None:
    result = only("E-llmock.13k-forced-status-header")
    assert (result["status"], result["verdict"], result["error_status"]) == (418, "APIStatusError", 418)


def test_openai_mock_api_tools_without_index_as_plain_text() -> None:
    got = choice("F-openai-mock-api.04a-tools-stream")
    assert got["finish_reason"] == "stop"
    assert got["tool_calls"] == [{"id": "call_abc", "name": "get_weather", "arguments": '{"city": "Paris 東京"}'}]


@pytest.mark.parametrize(
    ("name", "status", "verdict"),
    [
        ("A-llamacpp.05c-err-bad-json", 500, "InternalServerError"),
        ("B-litellm-fwdD.13a-upstream-429-stream", 429, "RateLimitError"),
        ("C-transformers.05c-err-bad-json", 422, "UnprocessableEntityError"),
        ("D-aimock.05k-err-too-long", 404, "NotFoundError"),
        ("D2-aimock-key-strict.13v-unmatched-nonstream", 503, "InternalServerError"),
        ("E-llmock.13c-fail-401", 401, "AuthenticationError"),
        ("F-openai-mock-api.05c-err-bad-json", 400, "BadRequestError"),
    ],
)
def test_error_statuses(name: str, status: int, verdict: str) -> None:
    nothing = {"finished": False, "choices": [], "usage": None}
    assert only(name) == {"status": status, "verdict": verdict, "error_status": status, **nothing}


# --- What no recording holds -----------------------------------------------------------------------

EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
SSE = "text/event-stream"


def test_no_response_byte() -> None:
    assert read_recording(b"")[0]["verdict"] == "ReadError"
    assert read_recording(b"HTTP/1.1 200 OK\r\nContent-Ty")[0]["verdict"] == "ReadError"


def test_continue_heads_are_skipped_and_trailers_too() -> None:
    size = f"{len(EVENT):x};ext=1\r\n".encode()
    head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    one = head + b"transfer-encoding: chunked\r\n\r\n" + size + EVENT + b"\r\n0\r\nt: 1\r\n\r\n"
    results = read_recording(one + one)
    assert [r["status"] for r in results] == [200, 200]
    assert [r["choices"][0]["text"] for r in results] == ["x", "x"]


@pytest.mark.parametrize("body", [EVENT + FINISH, EVENT + b"data: [DONE]"])
def test_a_missing_last_chunk_does_not_change_the_verdict(body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    for size in (len(body), len(body) + 9):
        result = read_recording(head + b"%x\r\n" % size + body)[0]
        assert (result["verdict"], result["finished"]) == ("ended", body.endswith(FINISH))


def test_a_gzip_body_cut_short() -> None:
    packed = gzip.compress(EVENT + FINISH)[:-4]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n\r\n"
    assert read_recording(head + packed)[0]["verdict"] == "ended"


@pytest.mark.parametrize(
    ("body", "content_type", "verdict"),
    [
        (b"", "application/json", "TruncatedStreamError"),
        (b"<html>", "text/html", "UnexpectedReplyError"),
        (b"<br>Warning<br>\n" + EVENT + FINISH, SSE, "ended"),
        (b"\n\n: hello\n" + EVENT + FINISH, "", "ended"),
        (b"[1]", "application/json", "UnexpectedReplyError"),
        (b'{"choices":[', SSE, "TruncatedStreamError"),
        (b"data: oops\n\n" + FINISH, SSE, "MalformedEventError"),
        (b"data: oops\n", SSE, "TruncatedStreamError"),
        (EVENT + FINISH + b"data: [DO", SSE, "ended"),
        (b'data: {"error":true}\n\n', SSE, "APIStatusError"),
        (b'data: {"error":{"type":"insufficient_quota"}}\n\n', SSE, "RateLimitError"),
        (b'data: {"error":{"code":"404"}}\n\n', SSE, "NotFoundError"),
        (b'{"error":{"code":"model_not_found","type":"invalid_request_error"}}', "", "NotFoundError"),
        (b"event: error\ndata: out of memory\n\n", SSE, "APIStatusError"),
    ],
)
def test_verdicts(body: bytes, content_type: str, verdict: str) -> None:
    assert read_body(body, content_type)["verdict"] == verdict


def test_arguments_given_as_an_object() -> None:
    body = b'{"choices":[{"message":{"tool_calls":[{"function":{"name":"f","arguments":{"a": "\xc3\xa9"}}}]}}]}'
    calls = read_body(body, "application/json")["choices"][0]["tool_calls"]
    assert calls == [{"id": None, "name": "f", "arguments": '{"a":"é"}'}]
