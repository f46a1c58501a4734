"""status.py and dates.py: error statuses, error objects in all their forms, Retry-After, HTTP dates."""

from __future__ import annotations

import copy
import datetime
import email.utils
import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from feeding import DONE, FINISH, JSON, QUICK, delta, ended, failure, read, same, sse, text, ways
from hypothesis import given
from hypothesis import strategies as st

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
from deltawire.protocol.dates import parse_http_date
from deltawire.protocol.status import error_object, retry_after

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


def test_the_code_beside_an_error_that_is_a_text() -> None:
    assert in_stream({"error": "boom", "code": 429}).status_code == 429


def test_an_error_in_a_stream_knows_its_head() -> None:
    headers = [(b"x-request-id", b"r"), (b"retry-after", b"7"), (b"X-Should-Retry", b"false")]
    error: Any = failure(read(sse({"error": "boom"}), headers=headers))
    assert (error.request_id, error.retry_after) == ("r", 7.0)
    assert (b"x-should-retry", b"false") in error.headers


def test_a_401_in_a_stream_without_a_key() -> None:
    events = read(sse({"error": {"code": 401}}), context=Context(key_given=False))
    assert type(failure(events)) is MissingAuthError


# --- Retry-After -----------------------------------------------------------------------------------

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
STAMP = 784111777.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "5"}, 5.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after": " 5 "}, 5.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "nan", "retry-after": "9"}, 9.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-5"}, -5.0),
        ({"retry-after": "100000"}, 100000.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-inf"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "5 seconds"}, None),
        ({"retry-after-ms": DATE.decode()}, None),
        ({"retry-after": DATE.decode()}, None),
        ({"retry-after": DATE.decode(), "date": "Sun, 06 Nov 1994 08:49:07 GMT"}, 30.0),
        ({"retry-after": DATE.decode(), "date": "Sun, 06 Nov 1994 08:50:07 GMT"}, -30.0),
        ({"retry-after": DATE.decode(), "date": "rubbish"}, None),
    ],
)
def test_retry_after_as_the_error_says_it(headers: dict[str, str], seconds: float | None) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert retry_after([(name.lower(), value) for name, value in raw]) == seconds
    error = of_status(429, b"", *raw)
    assert error.retry_after == seconds
    assert ("asks to wait" in str(error)) is (seconds is not None and seconds > 0)


def test_retry_after_dates_count_from_now_when_it_is_known() -> None:
    headers = [(b"retry-after", DATE), (b"date", b"Sun, 06 Nov 1994 08:49:07 GMT")]
    assert retry_after(headers, STAMP - 12) == 12.0
    assert retry_after(headers, STAMP + 12) == -12.0


# --- Dates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        DATE,
        b"Sunday, 06-Nov-94 08:49:37 GMT",
        b"Sun Nov  6 08:49:37 1994",
        b"  Sun, 06 Nov 1994 08:49:37 GMT ",
    ],
)
def test_the_three_forms_of_a_date(value: bytes) -> None:
    assert parse_http_date(value) == STAMP


@pytest.mark.parametrize(
    ("value", "stamp"),
    [
        (b"Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        (b"Wed, 31 Dec 1969 23:59:59 GMT", -1.0),
        (b"Tue, 29 Feb 2000 12:00:00 GMT", 951825600.0),
        (b"Mon, 01 Mar 2100 00:00:00 GMT", 4107542400.0),
        (b"Friday, 01-Jan-27 00:00:00 GMT", 1798761600.0),
        (b"Thursday, 01-Jan-70 00:00:00 GMT", 0.0),
        (b"Sunday, 01-Jan-68 00:00:00 GMT", 3092601600.0),
    ],
)
def test_some_dates(value: bytes, stamp: float) -> None:
    assert parse_http_date(value) == stamp


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"120",
        b"tomorrow",
        b"Sun, 06 Nov 1994 08:49:37",
        b"Sun, 06 Nov 1994 08:49:37 CET",
        b"Sun, 6 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Xyz 1994 08:49:37 GMT",
        b"06 Nov 1994 08:49:37 GMT",
        b"1994-11-06T08:49:37Z",
        b"Sun, 06 Nov 1994 08:49:37 GMT\nx",
        "Sun, ٠٦ Nov 1994 08:49:37 GMT".encode(),
        b"\xff\xfe",
    ],
)
def test_what_is_no_date(value: bytes) -> None:
    assert parse_http_date(value) is None


@QUICK
@given(
    st.datetimes(
        datetime.datetime(1601, 1, 1), datetime.datetime(9999, 12, 31), timezones=st.just(datetime.timezone.utc)
    )
)
def test_dates_agree_with_the_standard_library(moment: datetime.datetime) -> None:
    moment = moment.replace(microsecond=0)
    value = email.utils.format_datetime(moment, usegmt=True).encode()
    assert parse_http_date(value) == moment.timestamp()


@QUICK
@given(st.binary(max_size=40))
def test_any_bytes_are_a_date_or_none(value: bytes) -> None:
    assert parse_http_date(value) is None


# --- Header fields, as errors show them -------------------------------------------------------------


def test_a_field_with_a_secret() -> None:
    secret = "sk-live-0123456789abcdef"
    location = b"https://elsewhere/?key=" + secret.encode() + b"&n=\xff"
    headers = [(b"Location", location), (b"X-Said", b"\xff" + secret.encode()), (b"X-Plain", b"\xff")]
    error: Any = failure(read(b"", status=307, headers=headers, context=Context(secrets=(secret,))))
    (_, where), said, plain = error.headers
    assert (said, plain) == ((b"x-said", b"\xff***"), (b"x-plain", b"\xff"))
    # It is followed as it was sent, within the origin.
    assert (where, where.decode("latin-1")) == (location, location.decode("latin-1"))
    for shown in (repr(where), str(where), f"{where}", repr(vars(error)), repr(vars(copy.deepcopy(error)))):
        assert secret not in shown
        assert "key=***&n=" in shown
    assert pickle.loads(pickle.dumps(where)) == location.replace(secret.encode(), b"***")
    assert error.location == "https://elsewhere/?key=***&n=\xff"
