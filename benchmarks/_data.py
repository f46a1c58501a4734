"""The bytes that everybody is measured on: chat completion events of about 250 bytes, as OpenAI sends them."""

from __future__ import annotations

MODEL = "gpt-4o-mini-2024-07-18"

_HEAD = (
    '{"id":"chatcmpl-BX3kQm0pVbTz8aRw1cYd5fGh7j","object":"chat.completion.chunk","created":1752530000,'
    f'"model":"{MODEL}","system_fingerprint":"fp_34a54ae93c","choices":[{{"index":0,"delta":'
)
_TAIL = ',"logprobs":null,"finish_reason":'

READ = 64 * 1024
"""What httpcore, asyncio and aiohttp ask the system for in one read."""

HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8")]


def word(number: int) -> str:
    """The content of the token of this number."""
    return f" w{number % 10_000:04}"


def payload(number: int) -> bytes:
    """The JSON of the token of this number: 256 bytes."""
    return payload_of(word(number))


def payload_of(content: str, padding: int = 0) -> bytes:
    """The JSON of a token with this content, in which nothing needs escaping; and so many bytes in a vendor's field."""
    vendor = f',"padding":"{"x" * padding}"' if padding else ""
    return f'{_HEAD}{{"content":"{content}"}}{_TAIL}null}}]{vendor}}}'.encode()


_FIRST = f'{_HEAD}{{"role":"assistant","content":""}}{_TAIL}null}}]}}'.encode()
_LAST = f'{_HEAD}{{}}{_TAIL}"stop"}}]}}'.encode()


def payloads(tokens: int) -> list[bytes]:
    """A whole reply but for its end marker: the role, the tokens, the finish reason."""
    return [_FIRST, *(payload(number) for number in range(tokens)), _LAST]


def event(data: bytes) -> bytes:
    """The usual framing of an event."""
    return b"data: " + data + b"\n\n"


DONE = event(b"[DONE]")


def cut(data: bytes, size: int = READ) -> list[bytes]:
    """The bytes as reads of this size."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def chunk(piece: bytes) -> bytes:
    """The piece as an HTTP chunk of its own."""
    return b"%x\r\n%s\r\n" % (len(piece), piece)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
BEGINNING = STREAM_HEAD + chunk(event(_FIRST))
"""What stands before the tokens of a streamed reply, on the wire."""
ENDING = chunk(event(_LAST)) + chunk(DONE) + b"0\r\n\r\n"
"""What stands behind them."""


def raw_reply(tokens: int, padding: int = 0) -> bytes:
    """A streamed reply as it stands on the wire: HTTP/1.1, each event an HTTP chunk, as servers write it."""
    events = (event(payload_of(word(number), padding)) for number in range(tokens))
    return BEGINNING + b"".join(map(chunk, events)) + ENDING
