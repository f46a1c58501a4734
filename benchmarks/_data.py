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


def payload(number: int) -> bytes:
    """The JSON of the token of this number: 256 bytes."""
    return f'{_HEAD}{{"content":" w{number % 10_000:04}"}}{_TAIL}null}}]}}'.encode()


def payloads(tokens: int) -> list[bytes]:
    """A whole reply but for its end marker: the role, the tokens, the finish reason."""
    first = f'{_HEAD}{{"role":"assistant","content":""}}{_TAIL}null}}]}}'.encode()
    last = f'{_HEAD}{{}}{_TAIL}"stop"}}]}}'.encode()
    return [first, *(payload(number) for number in range(tokens)), last]


def event(data: bytes) -> bytes:
    """The usual framing of an event."""
    return b"data: " + data + b"\n\n"


DONE = event(b"[DONE]")


def cut(data: bytes, size: int = READ) -> list[bytes]:
    """The bytes as reads of this size."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def raw_reply(tokens: int) -> bytes:
    """A streamed reply as it stands on the wire: HTTP/1.1, each event an HTTP chunk, as servers write it."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    pieces = [*(event(data) for data in payloads(tokens)), DONE]
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
