"""dates.py: RFC 9110 section 5.6.7, its three forms, and nothing else."""

from __future__ import annotations

import datetime
import email.utils

import pytest
from feeding import QUICK
from hypothesis import given
from hypothesis import strategies as st

from deltawire.protocol.dates import parse_http_date

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
STAMP = 784111777.0


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
        (b"Fri, 01 Jan 0100 00:00:00 GMT", -59011459200.0),
        (b"Sat, 06 Nov 0027 08:49:37 GMT", -61288413023.0),
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
