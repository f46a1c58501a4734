"""HTTP dates, RFC 9110 section 5.6.7, as Unix time. (email.utils would pull in sockets and clocks.)"""

from __future__ import annotations

import re

_MONTHS = {name: number for number, name in enumerate(
    (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"), 1
)}  # fmt: skip

_CLOCK = rb"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_FORMS = (
    # IMF-fixdate: Sun, 06 Nov 1994 08:49:37 GMT
    re.compile(rb"\A[A-Z][a-z]{2}, (?P<day>\d\d) (?P<month>[A-Z][a-z]{2}) (?P<year>\d{4}) " + _CLOCK + rb" GMT\Z"),
    # RFC 850: Sunday, 06-Nov-94 08:49:37 GMT
    re.compile(rb"\A[A-Z][a-z]+, (?P<day>\d\d)-(?P<month>[A-Z][a-z]{2})-(?P<year>\d\d) " + _CLOCK + rb" GMT\Z"),
    # asctime: Sun Nov  6 08:49:37 1994
    re.compile(rb"\A[A-Z][a-z]{2} (?P<month>[A-Z][a-z]{2}) (?P<day>[ \d]\d) " + _CLOCK + rb" (?P<year>\d{4})\Z"),
)


def parse_http_date(value: bytes) -> float | None:
    """The date as seconds since 1970-01-01 UTC, or None when it is none of RFC 9110's three forms."""
    for form in _FORMS:
        match = form.match(value.strip())
        if match is None:
            continue
        month = _MONTHS.get(match["month"])
        year, day = int(match["year"]), int(match["day"])
        hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
        if month is None:
            return None
        if len(match["year"]) == 2:
            # A two-digit year that seems more than 50 years ahead is in the past; nobody sends these
            # any more, so the century turns at 70.
            year += 1900 if year >= 70 else 2000
        return float(_days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second)
    return None


def _days(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 in the proleptic Gregorian calendar."""
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468
