"""`parse_stream` and `aparse_stream`: for code that has a response already."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest
import trio
from driving import Run
from faults import event

from deltawire import (
    APIError,
    ConfigurationError,
    LimitExceededError,
    Limits,
    MalformedEventError,
    RateLimitError,
    TruncatedStreamError,
    UnexpectedReplyError,
    UsageError,
    aparse_stream,
    parse_stream,
)

LAST = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
WHOLE = event("Hé") + b": ping\r\n\r\n" + event(" 👋") + LAST + b"data: [DONE]\n\n"
BODY = WHOLE.decode().encode()


class Source:
    """An async iterable of pieces, which knows how many were taken."""

    def __init__(self, pieces: Iterable[Any]) -> None:
        self._pieces = list(pieces)
        self.taken = 0

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self.taken == len(self._pieces):
            raise StopAsyncIteration
        self.taken += 1
        return self._pieces[self.taken - 1]


def _sync(pieces: Iterable[Any], **options: Any) -> tuple[str, Exception | None]:
    text, error = "", None
    try:
        for chunk in parse_stream(pieces, **options):
            text += chunk.choices[0].delta.content or ""
    except Exception as caught:
        error = caught
    return text, error


async def _async(pieces: Iterable[Any], **options: Any) -> tuple[str, Exception | None]:
    text, error = "", None
    try:
        async for chunk in aparse_stream(Source(pieces), **options):
            text += chunk.choices[0].delta.content or ""
    except Exception as caught:
        error = caught
    return text, error


PARSERS: dict[str, Any] = {
    "sync": _sync,
    "asyncio": lambda pieces, **options: asyncio.run(_async(pieces, **options)),
    "trio": lambda pieces, **options: trio.run(functools.partial(_async, pieces, **options)),
}


@pytest.fixture(params=PARSERS)
def parse(request: pytest.FixtureRequest) -> Any:
    """The text of the chunks, and the error if there is one."""
    return PARSERS[request.param]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100_000])
def test_split_anywhere(parse: Any, size: int) -> None:
    pieces = [BODY[start : start + size] for start in range(0, len(BODY), size)]
    assert parse(pieces) == ("Hé 👋", None)


def test_every_split_in_two() -> None:
    for cut in range(len(BODY) + 1):
        assert _sync([BODY[:cut], BODY[cut:]]) == ("Hé 👋", None)


def test_all_kinds_of_bytes(parse: Any) -> None:
    assert parse([bytearray(BODY[:50]), memoryview(BODY)[50:], b""]) == ("Hé 👋", None)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (event("a"), TruncatedStreamError),
        (event("a") + b'data: {"choices": [{"ind', TruncatedStreamError),
        (event("a") + b"data: oops\n\n" + event("b"), MalformedEventError),
        (event("a") + b'data: {"error": {"message": "m", "code": 429}}\n\n', RateLimitError),
    ],
)
def test_errors_come_after_the_good_chunks(parse: Any, body: bytes, expected: type[Exception]) -> None:
    for pieces in ([body], [body[:-5], body[-5:]]):
        text, error = parse(pieces)
        assert text == "a"
        assert type(error) is expected
        assert isinstance(error, APIError)
        assert error.partial is not None
        assert error.partial.choices[0].message.content == "a"


def test_what_is_no_stream(parse: Any) -> None:
    assert type(parse([])[1]) is TruncatedStreamError
    assert type(parse([b"<html>"])[1]) is UnexpectedReplyError
    whole = b'{"choices": [{"index": 0, "message": {"content": "all"}, "finish_reason": "stop"}]}'
    assert parse([whole]) == ("all", None)


@pytest.mark.parametrize("piece", ["data: {}", None, 1, ["a"]])
def test_what_is_no_bytes(parse: Any, piece: object) -> None:
    text, error = parse([event("a"), piece])
    assert text == "a"
    assert isinstance(error, UsageError)
    assert "bytes" in str(error)


def test_limits(parse: Any) -> None:
    error = parse([BODY], limits=Limits(reply=50))[1]
    assert isinstance(error, LimitExceededError)
    assert error.limit_name == "reply"


def test_the_opchatgpts_dialect() -> None:
    body = b'data: {"type":"live","data":"a"}\n\ndata: {"type":"live","data":"x","subtype":"status"}\n\n'
    last = b'data: {"type":"end","data":"{\\"success\\":true}"}\n\n'
    found = list(parse_stream([body, last], dialect="opchatgpts"))
    assert [choice.delta.content for chunk in found for choice in chunk.choices] == ["a", None, None]
    with pytest.raises(TruncatedStreamError):
        list(parse_stream([body], dialect="opchatgpts"))
    with pytest.raises(RuntimeError) as caught:
        list(parse_stream([b'data: {"data":"b"}\n\n'], dialect="opchatgpts"))
    assert isinstance(caught.value, MalformedEventError)
    assert caught.value.line == 'data: {"data":"b"}'


def test_an_unknown_dialect() -> None:
    with pytest.raises(ConfigurationError, match="esperanto"):
        parse_stream([], dialect="esperanto")
    with pytest.raises(ConfigurationError, match="esperanto"):
        aparse_stream(Source([]), dialect="esperanto")


@pytest.mark.parametrize("dialect", ["models", "images", "session", "page"])
def test_what_is_no_chat(dialect: str) -> None:
    said = f"'{dialect}' is no chat's.*'openai' or 'opchatgpts', or Reply"
    with pytest.raises(ConfigurationError, match=said):
        parse_stream([], dialect=dialect)
    with pytest.raises(ConfigurationError, match=said):
        aparse_stream(Source([]), dialect=dialect)


def test_what_follows_the_end_is_left_alone(run: Run) -> None:
    """It is not ours: a server may hold the connection open after [DONE]."""
    taken: list[bytes] = []

    def pieces() -> Iterator[bytes]:
        for piece in (BODY, b"never"):
            taken.append(piece)
            yield piece

    assert len(list(parse_stream(pieces()))) == 3
    assert taken == [BODY]

    async def main() -> int:
        source = Source([BODY, b"never"])
        parser = aparse_stream(source)
        assert len([chunk async for chunk in parser]) == 3
        # Over is over.
        assert [chunk async for chunk in parser] == []
        return source.taken

    assert run(main) == 1


def test_lazily(run: Run) -> None:
    """Chunks come as their bytes do."""

    async def main() -> None:
        source = Source([event("a"), event("b"), LAST])
        parser = aparse_stream(source)
        assert (await parser.__anext__()).choices[0].delta.content == "a"
        assert source.taken == 1

    run(main)
    stream = parse_stream(iter([event("a"), event("b")]))
    assert next(stream).choices[0].delta.content == "a"
    assert next(stream).choices[0].delta.content == "b"
    with pytest.raises(TruncatedStreamError):
        next(stream)
    assert next(stream, None) is None
