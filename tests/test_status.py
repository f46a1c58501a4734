"""status.py: error statuses, error objects in all their forms."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from feeding import DONE, FINISH, JSON, delta, ended, failure, read, same, sse, text, ways

from deltawire.protocol import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    Context,
    InternalServerError,
    MissingAuthError,
    NotFoundError,
    PermissionDeniedError,
    ProxyError,
    RateLimitError,
    RedirectError,
    UnprocessableEntityError,
)
from deltawire.protocol.status import error_object, one_line, words_of

if TYPE_CHECKING:
    from feeding import Headers

TEXT: Headers = [(b"content-type", b"text/plain")]


def of_status(status: int, body: bytes = b"", *headers: tuple[bytes, bytes], context: Context | None = None) -> Any:
    return failure(read(body, status=status, headers=[*TEXT, *headers], context=context))


def in_stream(value: object) -> Any:
    return failure(read(sse(delta("a"), value, DONE)))


# --- Classes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (402, APIStatusError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (405, APIStatusError),
        (408, APIStatusError),
        (409, ConflictError),
        (413, APIStatusError),
        (418, APIStatusError),
        (422, UnprocessableEntityError),
        (429, RateLimitError),
        (500, InternalServerError),
        (501, InternalServerError),
        (529, InternalServerError),
        (599, InternalServerError),
        (300, RedirectError),
        (304, RedirectError),
        (399, RedirectError),
    ],
)
def test_classes(status: int, cls: type[APIStatusError]) -> None:
    body = b'{"error": {"message": "the words", "type": "t", "code": "c", "param": "p"}}'
    error = of_status(status, body, (b"X-Request-Id", b"req-5"), context=Context(provider="P", url="http://s/v1"))
    assert type(error) is cls
    assert (error.status_code, error.request_id, error.retry_after) == (status, "req-5", None)
    assert (error.code, error.type, error.param) == ("c", "t", "p")
    assert error.body == {"message": "the words", "type": "t", "code": "c", "param": "p"}
    for words in (str(status), "the words", "P", "http://s/v1", "req-5"):
        assert words in str(error)
    for _, parts in ways(body, [5]):
        assert type(failure(read(parts, status=status, headers=TEXT))) is cls


def test_401_without_a_key() -> None:
    error = of_status(401, context=Context(key_given=False))
    assert type(error) is MissingAuthError
    assert "api_key=, or set OPENAI_API_KEY." in str(error)
    assert "set GROQ_API_KEY." in str(of_status(401, context=Context(key_given=False, key_name="GROQ_API_KEY")))
    assert type(of_status(401, context=Context(key_given=True))) is AuthenticationError
    assert type(of_status(403, context=Context(key_given=False))) is PermissionDeniedError


def test_401_where_there_are_no_keys() -> None:
    error = of_status(401, context=Context(key_given=False, key_name=""))
    assert type(error) is AuthenticationError
    assert "key" not in str(error)
    assert "headers" in str(error)


@pytest.mark.parametrize("key_given", [False, True])
def test_401_may_be_the_proxys(key_given: bool) -> None:
    error = of_status(401, context=Context(proxy="http://px:3128", key_given=key_given))
    assert "Or it's the proxy's password." in str(error)


def test_407_is_the_proxys() -> None:
    error = of_status(407, b"<html> pw1", context=Context(proxy="http://px:3128", secrets=("pw1",)))
    assert type(error) is ProxyError
    assert (error.status_code, error.proxy, error.transient) == (407, "http://px:3128", False)
    assert "http://px:3128" in str(error)
    assert "percent-encoded" in str(error)
    assert error.body == b"<html> ***"
    assert of_status(407).proxy is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed_here(status: int) -> None:
    error = of_status(status, b"", (b"Location", b"https://elsewhere/v1"))
    assert type(error) is RedirectError
    assert error.location == "https://elsewhere/v1"
    assert "https://elsewhere/v1" in str(error)
    assert "base_url" in str(error)
    assert of_status(status).location is None


def test_the_head_stands_in_the_error() -> None:
    error = of_status(500, b"", (b"X-Custom", b"Value"))
    assert (b"x-custom", b"Value") in error.headers


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "API key"), (404, "base URL"), (429, "quota"), (500, "later"), (413, "less")]
)
def test_errors_say_what_to_do(status: int, advice: str) -> None:
    assert advice in str(of_status(status))


# --- Error objects in all forms --------------------------------------------------------------------

FORMS: list[tuple[object, str]] = [
    ({"error": {"message": "boom"}}, "boom"),
    ({"error": "boom"}, "boom"),
    ({"error": True, "message": "boom"}, "boom"),
    ({"error": {"error_message": "boom"}}, "boom"),
    ({"error": {"detail": "boom"}}, "boom"),
    ({"error": {"odd": "boom"}}, '{"odd":"boom"}'),
    ({"error": ["boom"]}, "boom"),
    ({"object": "error", "message": "boom"}, "boom"),
    ([{"error": {"message": "boom"}}], "boom"),
]
FLAT: list[tuple[object, str]] = [
    ({"error_message": "boom"}, "boom"),
    ({"detail": "boom"}, "boom"),
    ({"detail": [{"loc": ["body", "n"], "msg": "boom"}]}, '[{"loc":["body","n"],"msg":"boom"}]'),
    ({"message": "boom"}, "boom"),
    ({"message": {"a": "boom"}}, "boom"),
    ({"msg": "boom"}, "boom"),
    ("boom", "boom"),
    (["boom"], "boom"),
    ({"odd": "boom"}, '{"odd":"boom"}'),
]


@pytest.mark.parametrize(("value", "words"), FORMS + FLAT)
def test_forms_in_the_body_of_an_error_status(value: object, words: str) -> None:
    error = of_status(418, json.dumps(value).encode())
    assert words in str(error)
    assert error.body is not None


TOLD: list[tuple[object, str]] = [
    ({"error_message": "boom"}, "boom"),
    ({"choices": [], "error_message": "boom"}, "boom"),
    ({"detail": "boom"}, "boom"),
    ({"detail": [{"msg": "boom"}]}, '[{"msg":"boom"}]'),
    ({"message": "boom"}, "boom"),
    ({"id": 5, "choices": None, "message": "boom"}, "boom"),
    ({"success": False, "message": "boom"}, "boom"),
]


@pytest.mark.parametrize(("value", "words"), FORMS + TOLD)
def test_forms_in_a_stream(value: object, words: str) -> None:
    error = in_stream(value)
    assert isinstance(error, APIStatusError)
    assert error.status_code is None
    assert words in str(error)
    assert error.partial is not None
    assert error.partial.choices[0].message.content == "a"


HARMLESS: list[dict[str, object]] = [
    {"type": "ping"},
    {"message": None},
    {"message": ""},
    {"detail": None},
    {"message": {"role": "assistant"}, "type": "message_start"},
    {"success": True, "message": "fine"},
    {"choices": [], "message": "fine"},
    {"choices": [], "usage": {"total_tokens": 1}, "detail": "fine"},
    {"choices": [], "prompt_filter_results": [{"content_filter_results": {"message": "none", "detail": "safe"}}]},
]


@pytest.mark.parametrize("value", HARMLESS)
def test_events_without_choices_that_are_no_errors(value: dict[str, object]) -> None:
    body = sse(value, delta("a"), value, delta("b"), FINISH, value, DONE)
    events = read(body)
    assert text(events) == "ab"
    assert ended(events).finished


@pytest.mark.parametrize(("value", "words"), FORMS + FLAT)
def test_forms_in_an_event_named_error(value: object, words: str) -> None:
    body = sse(delta("a")) + b"event: error\n" + sse(value)
    whole = read(body)
    assert isinstance(failure(whole), APIStatusError)
    assert words in str(failure(whole))
    for _, parts in ways(body, [100, 110]):
        same(parts, whole)


@pytest.mark.parametrize("key", ["error", "error_message", "detail", "message"])
def test_forms_in_a_document_with_status_200(key: str) -> None:
    error = failure(read(json.dumps({key: "boom"}).encode(), headers=JSON))
    assert isinstance(error, APIStatusError)
    assert error.status_code is None
    assert "boom" in str(error)


@pytest.mark.parametrize("body", [b"Internal Server Error", b"1 < 2", b"\xff\xfe words", b"{broken"])
def test_bodies_that_are_no_json(body: bytes) -> None:
    error = of_status(502, body)
    assert body.decode("utf-8", "replace") in str(error)
    assert error.body == body.decode("utf-8", "replace")


def test_a_page_is_shown_without_its_markup() -> None:
    page = "<!DOCTYPE html>\n<style>b {}</style><h1>502</h1>\n<b>Bad&nbsp;Gateway</b> s3&#99;ret-key s3cret-key s3cret-"
    error = of_status(502, page.encode(), context=Context(secrets=("s3cret-key",)))
    assert str(error).startswith("status 502: 502 Bad Gateway *** ***. ")
    assert error.body.startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"[]", b'""', b"0", b'{"error": null}', b"   "])
def test_bodies_that_say_nothing(body: bytes) -> None:
    error = of_status(500, body)
    assert type(error) is InternalServerError
    assert "500" in str(error)


def test_long_words_are_cut() -> None:
    assert len(str(of_status(500, b"x" * 60_000))) < 1000
    assert len(str(of_status(500, b"boom " * 10_000))) < 1000


@pytest.mark.parametrize(
    "value", [None, {}, {"error": None}, {"error": ""}, {"error": {}}, [], "text", 5, {"choices": []}]
)
def test_what_is_no_error(value: object) -> None:
    assert error_object(value) is None


# --- The status of an error in a stream -------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status", "cls"),
    [
        ({"code": 400}, 400, BadRequestError),
        ({"code": 429}, 429, RateLimitError),
        ({"code": "429"}, 429, RateLimitError),
        ({"code": 599}, 599, InternalServerError),
        ({"code": 502, "type": "rate_limit_error"}, 502, InternalServerError),
        ({"code": "rate_limit_exceeded"}, 429, RateLimitError),
        ({"code": "insufficient_quota", "type": "insufficient_quota"}, 429, RateLimitError),
        ({"code": None, "type": "invalid_request_error"}, 400, BadRequestError),
        ({"type": "BadRequestError", "code": "nonsense"}, 400, BadRequestError),
        ({"code": "model_not_found", "type": "invalid_request_error"}, 404, NotFoundError),
        ({"code": "invalid_api_key"}, 401, AuthenticationError),
        ({"type": "permission_error"}, 403, PermissionDeniedError),
        ({"type": "overloaded_error"}, 503, InternalServerError),
        ({"code": "server_error"}, 500, InternalServerError),
        ({"code": "provider_error", "type": "server_error"}, 500, InternalServerError),
        ({"type": 404}, 404, NotFoundError),
        ({"code": 200}, None, APIStatusError),
        ({"code": 399}, None, APIStatusError),
        ({"code": 600}, None, APIStatusError),
        ({"code": 1000}, None, APIStatusError),
        ({"code": "0429"}, None, APIStatusError),
        ({"code": "nobody_knows"}, None, APIStatusError),
        ({"code": True}, None, APIStatusError),
        ({"code": {"a": 1}, "type": ["x"]}, None, APIStatusError),
        ({}, None, APIStatusError),
    ],
)
def test_status_of_an_error_in_a_stream(fields: dict[str, Any], status: int | None, cls: type[APIStatusError]) -> None:
    error = in_stream({"error": {"message": "boom", **fields}})
    assert type(error) is cls
    assert error.status_code == status
    assert (error.code, error.type) == (fields.get("code"), fields.get("type"))
    flat = in_stream({"object": "error", "message": "boom", **fields})
    assert (type(flat), flat.status_code) == (cls, status)


# As the servers write them that `_STATUS_BY_NAME` speaks of.
NAMES = {
    400: "invalid_request_error BadRequestError bad_request context_length_exceeded content_filter "
    "content_policy_violation string_above_max_length",
    401: "authentication_error AuthenticationError invalid_api_key",
    403: "permission_error permission_denied PermissionDeniedError",
    404: "not_found_error NotFoundError model_not_found",
    409: "conflict",
    413: "request_too_large",
    422: "unprocessable_entity UnprocessableEntityError",
    429: "rate_limit_error rate_limit_exceeded RateLimitError insufficient_quota requests tokens",
    500: "server_error internal_error internal_server_error InternalServerError api_error",
    503: "overloaded_error service_unavailable engine_overloaded",
    504: "timeout timeout_error",
}


@pytest.mark.parametrize(
    ("status", "name"), [(status, name) for status, many in NAMES.items() for name in many.split()]
)
def test_status_of_each_name(status: int, name: str) -> None:
    for field in ("code", "type"):
        assert in_stream({"error": {"message": "boom", field: name}}).status_code == status


def test_the_code_beside_an_error_that_is_a_text() -> None:
    error = in_stream({"error": "boom", "code": 429, "error_type": "some"})
    assert (error.status_code, error.type) == (429, "some")


def test_an_error_in_a_stream_knows_its_head() -> None:
    headers = [(b"x-request-id", b"r"), (b"retry-after", b"7"), (b"X-Should-Retry", b"false")]
    error: Any = failure(read(sse({"error": "boom"}), headers=headers))
    assert (error.request_id, error.retry_after) == ("r", 7.0)
    assert str(error).startswith("the server reports an error in the reply (request id r): boom")
    assert (b"x-should-retry", b"false") in error.headers


def test_a_401_in_a_stream_without_a_key() -> None:
    events = read(sse({"error": {"code": 401}}), context=Context(key_given=False))
    assert type(failure(events)) is MissingAuthError


# --- A peer's words --------------------------------------------------------------------------------

SECRET = "s3cr3t-word"
KNOWS = Context(secrets=(SECRET,))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("a  b\r\nc\t", "a b c"),
        (b"a\xff\x00b", "a\ufffd b"),
        ("a\x1b[31mb\u202ec", "a [31mb c"),
        (f"x {SECRET} y", "x *** y"),
        ("é 水", "é 水"),
        ("", ""),
        ("x" * 300, "x" * 300),
        ("x" * 301, "x" * 300 + "..."),
    ],
)
def test_words_in_one_line(words: str | bytes, line: str) -> None:
    """Fit for a terminal and a log: nothing that moves a cursor, nothing that begins a line of its own."""
    assert one_line(words, KNOWS) == line


def test_words_that_are_cut() -> None:
    assert one_line("abcdef", KNOWS, 3) == "abc..."
    assert one_line(f"x {SECRET[:-1]}", KNOWS, cut=True) == "x"
    assert one_line(f"x {SECRET[:-1]}", KNOWS) == f"x {SECRET[:-1]}"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ""),
        (b'{"error": {"message": "no\\nway"}}', "no way"),
        (b'{"message": "no"}', "no"),
        (b'"no"', "no"),
        (b"[]", ""),
        (b"plain\nwords", "plain words"),
        (b"a < b", "a < b"),
        (b" <html><b>no</b> way", "no way"),
        (f"<p>{SECRET}</p>".encode(), "***"),
        (b"<p>s3cr&#51;t-word</p>", "***"),
        (f"it is {SECRET[:-1]}".encode(), "it is"),
        (f'{{"error": "{SECRET}"}}'.encode(), "***"),
    ],
)
def test_the_words_of_a_refusal(body: bytes, words: str) -> None:
    assert words_of(body, KNOWS) == words


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("<title>No</title><p>way", "No way"),
        ("<p>a<script>if (a < b) { c('<p>') }</script>b", "a b"),
        ("<STYLE type='x'>p { }</STYLE>b", "b"),
        ("<p>a<!-- b <i>c</i> -- > d -->e", "a e"),
        ("<p>&lt;b&gt; &amp; c", "<b> & c"),
        ("<scripts>a</scripts>", "a"),
        ("<script>a", ""),
        ("<!-- a", ""),
    ],
)
def test_a_page_without_its_markup(page: str, words: str) -> None:
    assert words_of(page.encode(), KNOWS) == words
    error = of_status(500, page.encode())
    assert f": {words}" in str(error) if words else "no message in the reply" in str(error)
    # WordPress puts markup into its JSON, too.
    assert str(of_status(500, json.dumps({"message": page}).encode())) == str(error)


@pytest.mark.parametrize("value", [5, 0.5, True, False, None, "", [], {}])
def test_a_message_that_is_none(value: object) -> None:
    """The next name that says something; else all that there is."""
    found = error_object({"error": {"message": value, "msg": "boom"}})
    assert found is not None
    assert found.message == "boom"
    found = error_object({"error": {"message": value}})
    assert found is None or found.message == json.dumps({"message": value}, separators=(",", ":"))


def test_words_that_are_no_text_are_shown_as_json() -> None:
    found = error_object({"error": {"message": ["a", {"b": 1}]}})
    assert found is not None
    assert found.message == '["a",{"b":1}]'
    for value, message in ((5, "5"), ([1, 2], "[1,2]"), (["a"], "a"), ([["a"]], '["a"]'), ("a", "a")):
        found = error_object(value, flat=True)
        assert found is not None
        assert found.message == message
        assert error_object(value) is None
    nothings: list[object] = [0, None, [], False, [[]]]
    assert [error_object(nothing, flat=True) for nothing in nothings] == [None] * 5


# --- Advice ----------------------------------------------------------------------------------------


def advice(status: int, body: object = None, dialect: str = "openai", **context: Any) -> str:
    """The end of the message, after the words of the server."""
    encoded = b"" if body is None else json.dumps(body).encode()
    return str(failure(read(encoded, status=status, headers=TEXT, context=Context(**context), dialect=dialect)))


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "The server does not accept this request: see its words, mend the parameters."),
        (401, "Check the API key, and that it belongs to this server."),
        (402, ""),
        (403, "The key may not do this: check its rights, the organisation, the region."),
        (404, "Check the base URL (it usually ends in /v1) and the model's name."),
        (413, "Send less: the request is too large for this server."),
        (422, "A value in the request is not valid: see the server's words."),
        (429, "Slow down, or check the account's quota."),
        (499, ""),
        (500, "The fault is the server's or a gateway's: try again later."),
        (599, "The fault is the server's or a gateway's: try again later."),
        (399, "It was not followed: use the final address as base_url."),
        (400 - 100, "It was not followed: use the final address as base_url."),
    ],
)
def test_the_advice_of_each_status(status: int, words: str) -> None:
    ending = f". {words}" if words else ""
    assert advice(status, {"error": "no."}) == f"status {status}: no{ending or '.'}"
    assert advice(status) == f"status {status}: no message in the reply{ending}"


@pytest.mark.parametrize("dialect", ["opchatgpts", "session", "page"])
def test_a_site_has_neither_keys_nor_models(dialect: str) -> None:
    assert "some let in browsers only: try impersonate." in advice(403, dialect=dialect)
    assert "that AI Engine is there." in advice(404, dialect=dialect)
    assert "Send less" in advice(413, dialect=dialect)


@pytest.mark.parametrize("code", ["rest_cookie_invalid_nonce", "rest_forbidden", "rest_not_logged_in"])
def test_a_nonce_that_is_refused(code: str) -> None:
    for status in (401, 403):
        said = advice(status, {"code": code, "message": "no"}, "opchatgpts", key_given=False)
        assert said.endswith("no. The site wants a nonce, or a newer one: fetch it.")
    assert "The site has no such route" in advice(404, {"code": "rest_no_route", "message": "no"}, "opchatgpts")


def test_a_message_that_a_site_refuses() -> None:
    """Its plugin says no: that is not the visitor's fault, nor the nonce's."""
    no = {"success": False, "message": "no"}
    for status in (401, 403):
        said = advice(status, no, "opchatgpts", key_name="")
        assert ("The site refuses this message: see its words." in said) is (status == 403)
    for status, body, dialect in (
        (403, {**no, "success": None}, "opchatgpts"),
        (404, no, "opchatgpts"),
        (403, no, "openai"),
    ):
        assert "refuses this message" not in advice(status, body, dialect)


def test_the_wait_that_is_asked_for_stands_in_the_advice() -> None:
    error = of_status(429, b'{"error": "no"}', (b"retry-after", b"1.5"))
    assert str(error) == ("status 429: no. Slow down, or check the account's quota. The server asks to wait 1.5 s.")
    assert str(of_status(402, b'{"error": "no"}', (b"retry-after", b"2"))).endswith(
        ": no. The server asks to wait 2 s."
    )


# --- Words that are commands --------------------------------------------------------------------------

# To a terminal: its title, a colour; in C1's single byte, too.
COMMANDS = "\x1b]0;owned\x07\x1b[31m\x9b31m\x7f\x00\r"


@pytest.mark.parametrize("code", [200, 302, 400, 401, 500])
@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"error": {"message": f"no{COMMANDS}\n\tway"}}).encode(),
        json.dumps({"error": f"no{COMMANDS}\n\tway"}).encode(),
        f"no{COMMANDS}\n\tway".encode(),
        f"<p>no{COMMANDS}\n\tway</p>".encode(),
    ],
)
def test_no_message_commands_a_terminal(code: int, body: bytes) -> None:
    said = COMMANDS.replace("\x00", "").encode("latin-1")
    headers = [*JSON, (b"x-request-id", b"req" + said), (b"location", b"http://x/" + said)]
    error = failure(read(body, status=code, headers=headers))
    assert not {each for each in str(error) if ord(each) < 0x20 or 0x7F <= ord(each) < 0xA0} - {"\n", "\t"}
    assert "req" in str(error)
    assert code == 200 or "way" in str(error)


def test_no_message_is_as_long_as_a_peer_likes() -> None:
    headers = [*JSON, (b"x-request-id", b"r" * 60_000), (b"location", b"http://x/" + b"l" * 60_000)]
    for code in (200, 302, 500):
        assert len(str(failure(read(b"<", status=code, headers=headers)))) < 2000
    coded = failure(read(b"", headers=[(b"content-encoding", b"c" * 60_000)]))
    assert len(str(coded)) < 2000
