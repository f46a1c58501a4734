"""fields.py: what a reply's header fields say, and what errors show of them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from feeding import failure, read

from deltawire.protocol import Context
from deltawire.protocol.fields import header, request_id, retry_after, said, shown_id, visible


def test_the_first_field_of_a_name() -> None:
    """RFC 9110 section 5.1: names in any case. (Of a field that may stand once only, the first counts.)"""
    headers = [(b"X-A", b"1"), (b"x-a", b"2")]
    assert header(headers, b"x-a") == b"1"
    assert header(headers, b"x-b") is None
    assert header([], b"x-a") is None


def test_the_name_of_a_request() -> None:
    assert request_id([(b"X-Request-ID", b"r-\xe9")]) == "r-\xe9"
    assert request_id([(b"x-request", b"r")]) is None
    assert shown_id([(b"x-request-id", b"r-5")], Context()) == "request id r-5"
    assert shown_id([], Context()) == shown_id([(b"x-request-id", b"")], Context()) == ""
    assert shown_id([(b"x-request-id", b"r" * 200)], Context()) == "request id " + "r" * 200
    assert shown_id([(b"x-request-id", b"r" * 201)], Context()) == "request id " + "r" * 200 + "..."


def test_what_a_terminal_would_obey() -> None:
    """ISO 6429: C0, DEL, C1. Lines may end, and hold tabs."""
    for code in (*range(0x20), *range(0x7F, 0xA0)):
        wanted = {0x09: "\t", 0x0A: "\n", 0x0D: ""}.get(code, "\ufffd")
        assert visible(f"a{chr(code)}b") == f"a{wanted}b"
    assert visible(" ~\xa0é\u2028") == " ~\xa0é\u2028"


def test_a_field_without_a_secret_is_as_it_was() -> None:
    context = Context(secrets=("sk-canary-1234",))
    for name in (b"location", b"x-y"):
        kept = said(name, b"\xff plain", context)
        assert kept == (name, b"\xff plain")
        assert type(kept[1]) is bytes


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
    error: Any = failure(read(b"", status=429, headers=raw))
    assert error.retry_after == seconds
    assert ("asks to wait" in str(error)) is (seconds is not None and seconds > 0)


def test_retry_after_dates_count_from_now_when_it_is_known() -> None:
    headers = [(b"retry-after", DATE), (b"date", b"Sun, 06 Nov 1994 08:49:07 GMT")]
    assert retry_after(headers, STAMP - 12) == 12.0
    assert retry_after(headers, STAMP + 12) == -12.0


def test_a_key_in_the_name_of_a_request_is_not_shown() -> None:
    context = Context(secrets=("sk-canary-1234",))
    for code in (200, 500):
        error = failure(read(b"<", status=code, headers=[(b"x-request-id", b"for sk-canary-1234")], context=context))
        assert "sk-canary" not in str(error)
        assert "request id for ***" in str(error)


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
