"""libcurl as far as a transport needs it: one request after the other on one connection, which looks like a browser's.

A `Line` is a multi handle of libcurl. That owns the connection (and what goes with it: the TLS session, the names that
were looked up), and drives it without blocking; the request itself is an easy handle, added for as long as it takes.
Nothing here waits but `Line.wait`, which another thread may interrupt.

This module and those that are built on it import curl_cffi: they are loaded on first use only.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from curl_cffi import BrowserType, Curl, CurlECode, CurlError, CurlInfo, CurlMOpt, CurlOpt, ffi, lib
from curl_cffi.requests.impersonate import REAL_TARGET_MAP

from deltawire.protocol import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Options = Sequence[tuple[CurlOpt, Any]]

# What a callback returns to end the transfer: another number than that of the bytes it was given.
END = 0xFFFFFFFF

# Kinds of what is heard (curl_infotype in curl/curl.h).
HEADER_IN, HEADER_OUT, TLS_OUT = 1, 2, 6

# Milliseconds: for libcurl, whose timer is a C int. Whoever waits longer waits again.
_LONGEST_WAIT = 60_000

# The codings that libcurl undoes, in the words of RFC 9110 section 8.4.1 and RFC 8878.
_CODINGS = frozenset({b"gzip", b"x-gzip", b"deflate", b"br", b"zstd", b"identity", b""})

# RFC 9112 section 4; libcurl writes HTTP/2's in this form, too.
_STATUS_LINE = re.compile(rb"\AHTTP/[0-9.]+ ([1-9][0-9][0-9])(?: |\Z)")


def profiles() -> list[str]:
    """The names that ``impersonate=`` takes: browsers ("chrome" is the newest one known), and versions of them."""
    return sorted({*REAL_TARGET_MAP, *(each.value for each in BrowserType)})


def profile(name: str) -> str:
    """The profile's name as libcurl knows it. Raises `ConfigurationError` for one that does not exist."""
    real = REAL_TARGET_MAP.get(name, name) if isinstance(name, str) else ""
    # With a NUL in it, libcurl would see another name.
    if real and "\0" not in real:
        curl = Curl()
        try:
            if curl.impersonate(real) == 0:
                return real
        finally:
            curl.close()
    # Only on the way to an error: it takes a while to load.
    import difflib

    near = difflib.get_close_matches(str(name).lower(), profiles(), 3)
    mean = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise ConfigurationError(
        f"impersonate={name!r} is no browser that curl_cffi knows: {mean}deltawire.transports.impersonate.profiles() "
        "lists them, 'chrome' is the newest Chrome among them"
    )


class Line:
    """A connection to be: takes one request after the other. For one thread at a time, but for `wake`."""

    def __init__(self) -> None:
        # Kept, as modules lose their names when the interpreter ends.
        self._lib = lib
        self._multi = lib.curl_multi_init()
        # Else closing would wait for a name that is still being looked up, which takes ten seconds, or twenty.
        _check(lib.curl_multi_setopt(self._multi, CurlMOpt.QUICK_EXIT, ffi.new("long *", 1)))
        self._count = ffi.new("int *")
        self._easy: Curl | None = None
        self.idle_since = 0.0

    def begin(
        self,
        profile: str,
        options: Options,
        head: Callable[[bytes], int],
        data: Callable[[bytes], int],
        heard: Callable[[int, bytes], None],
    ) -> None:
        """Take a request on. The callbacks get the lines of heads and the pieces of the body, from within `perform`;
        they return how many bytes that were, or `END`. ``heard`` gets what goes over the wire, and of what kind it
        is, until `hush`: the handshakes of TLS and the heads of proxies included."""
        self._easy = easy = Curl()
        easy.impersonate(profile)
        more: list[tuple[CurlOpt, Any]] = [
            (CurlOpt.HEADERFUNCTION, head),
            (CurlOpt.WRITEFUNCTION, data),
            (CurlOpt.DEBUGFUNCTION, heard),
            (CurlOpt.VERBOSE, 1),
        ]
        for option, value in (*options, *more):
            _set(easy, option, value)
        _check(lib.curl_multi_add_handle(self._multi, easy._curl))

    def hush(self) -> None:
        """Let nothing more be heard: it would cost a call for each token."""
        assert self._easy is not None
        self._easy.setopt(CurlOpt.VERBOSE, 0)

    def perform(self) -> int | None:
        """Do what can be done without waiting: libcurl's code for the end of the request, or None before that. Raises
        what a callback has raised."""
        assert self._easy is not None
        _check(lib.curl_multi_perform(self._multi, self._count))
        message = lib.curl_multi_info_read(self._multi, self._count)
        if message == ffi.NULL:
            return None
        raised = self._easy._get_callback_exception()
        if raised is not None:
            raise raised
        return int(message.data.result)

    def wait(self, seconds: float) -> None:
        """Wait until there is something to do, or somebody calls `wake`; perhaps for less."""
        wait = _LONGEST_WAIT if seconds * 1000 > _LONGEST_WAIT else math.ceil(max(seconds, 0) * 1000)
        _check(lib.curl_multi_poll(self._multi, ffi.NULL, 0, wait, self._count))

    def wake(self) -> None:
        """End a `wait` of another thread, or the next one."""
        self._lib.curl_multi_wakeup(self._multi)

    def info(self, what: CurlInfo) -> int:
        """A number that libcurl knows of the request; times are in microseconds, 0 for not yet."""
        assert self._easy is not None
        found: Any = self._easy.getinfo(what)
        return int(found or 0)

    def words(self) -> str:
        """What libcurl says of the request's failure, or ""."""
        assert self._easy is not None
        said: bytes = ffi.string(self._easy._error_buffer)
        return said.decode("utf-8", "replace")

    def finish(self) -> bool:
        """The request is over: whether there is a connection to take another one."""
        stands = self.info(CurlInfo.ACTIVESOCKET) >= 0
        self._end()
        return stands

    def close(self) -> None:
        """Close the connection, at once. Idempotent."""
        self._end()
        multi, self._multi = self._multi, None
        if multi is not None:
            self._lib.curl_multi_cleanup(multi)

    def _end(self) -> None:
        easy, self._easy = self._easy, None
        if easy is not None:
            self._lib.curl_multi_remove_handle(self._multi, easy._curl)
            easy.close()

    def __del__(self) -> None:
        # Idle ones go with the transport that keeps them.
        self.close()


def _set(easy: Curl, option: CurlOpt, value: Any) -> None:
    code = 0
    try:
        easy.setopt(option, value)
    except CurlError as error:
        code = error.code
    if code:
        # curl_cffi's own words repeat the value, which may be a secret.
        raise ConfigurationError(f"libcurl does not take this {option.name} (error {int(code)}): is it too long?")


def _check(code: int) -> None:
    """libcurl's own state is broken, or there is no memory: no peer's doing."""
    if code:
        said: bytes = ffi.string(lib.curl_multi_strerror(code))
        raise OSError(f"libcurl: {said.decode('ascii', 'replace')}")


__all__ = [
    "END",
    "HEADER_IN",
    "HEADER_OUT",
    "TLS_OUT",
    "CurlECode",
    "CurlInfo",
    "CurlOpt",
    "Line",
    "profile",
    "profiles",
]


def parsed(head: list[bytes]) -> tuple[int | None, list[tuple[bytes, bytes]]]:
    """A head's status (None: it has none) and fields, as `Reply` takes them: without those that speak of a body whose
    codings libcurl has undone."""
    found = _STATUS_LINE.match(head[0]) if head else None
    fields = []
    for line in head[1:]:
        name, _, value = line.partition(b":")
        fields.append((name.strip().lower(), value.strip()))
    codings = b",".join(value for name, value in fields if name == b"content-encoding").lower().split(b",")
    if {coding.strip() for coding in codings} <= _CODINGS:
        fields = [(name, value) for name, value in fields if name != b"content-encoding"]
    return (None if found is None else int(found[1])), fields
