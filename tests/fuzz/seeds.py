"""The corpus: seeds, made from the recordings and vectors, and inputs that once broke a promise.

    python scripts/fuzz.py --reseed

writes ``corpus/<target>/seed-*`` anew, the same files each time. Files of other names there are regressions, kept for
ever: ``crash-*`` of libFuzzer, or whatever says what they are.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from feeding import DATA, FINISH, delta, sse
from make_expected import RECORDINGS, SITE_RECORDINGS
from whole_reader import split_responses

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CORPUS = Path(__file__).resolve().parent / "corpus"

# No longer than what the fuzzer makes.
LONGEST = 1200
MOST = 50

CHAT = sse(delta("Hel", role="assistant"), delta("lo \U0001f680"), FINISH, b"[DONE]")
# The two halves of a character, each in a chunk of its own.
HALVES = CHAT.replace(b"\\ude80", b'"}}]}\n\ndata: {"choices":[{"delta":{"content":"\\ude80')
CALLS = sse(
    delta(tool_calls=[{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]),
    delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a":1}'}}]),
    delta(finish="tool_calls"),
    b"[DONE]",
)
END = {
    "success": True, "reply": "Hello World", "images": [], "actions": [], "responseId": "r",
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}  # fmt: skip
SITE = sse(
    {"type": "live", "data": "Hello"},
    {"type": "live", "data": "x", "subtype": "status"},
    {"type": "live", "data": " World"},
    {"type": "end", "data": json.dumps(END)},
)  # fmt: skip
IMAGE = b'{"created":1,"data":[{"b64_json":"iVBORw0KGgo="},{"url":"http://h/i.png","revised_prompt":"p"}]}'
MODELS = (
    b'{"object":"list","data":[{"id":"b","object":"model","created":1,"owned_by":"x"},{"id":"a","capabilities":["vision"]}]}',
    b'[{"name":"a","type":"image"},"b"]',
    b'{"models":[{"model":"m","architecture":{"input_modalities":["image"]}}]}',
)
SESSION = b'{"success":true,"sessionId":"5f","restNonce":"abcdef1234"}'


def seeds(target: str) -> list[bytes]:
    """The seeds of a target, in an order that does not depend on the machine."""
    return [*dict.fromkeys(each for each in _MADE[target]() if len(each) <= LONGEST)][:MOST]


def files(target: str) -> list[Path]:
    return sorted((CORPUS / target).glob("*"))


def corpus(target: str) -> list[bytes]:
    return [path.read_bytes() for path in files(target)]


def write() -> int:
    """Write the seeds of all targets anew; gives how many there are."""
    count = 0
    for target in _MADE:
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("seed-*"):
            old.unlink()
        for each in seeds(target):
            (folder / f"seed-{hashlib.sha256(each).hexdigest()[:12]}").write_bytes(each)
            count += 1
    return count


# --- How each is made: the bytes before the payload are the choices that `Dice` takes -------------------


def _recorded(folder: Path = RECORDINGS) -> Iterator[bytes]:
    """Recorded connections; the short ones as they are, of others the beginning and the end."""
    for path in sorted(folder.glob("*.response")):
        yield path.read_bytes()


def _bodies(folder: Path = RECORDINGS) -> Iterator[bytes]:
    for raw in _recorded(folder):
        for _, _, body in split_responses(raw):
            yield _shortened(body)


def _shortened(body: bytes) -> bytes:
    """The first events and the last ones of a stream that is too long."""
    blocks = body.split(b"\n\n")
    while len(b"\n\n".join(blocks)) > LONGEST - 8 and len(blocks) > 4:
        del blocks[len(blocks) // 2]
    return b"\n\n".join(blocks)


def _vectors(name: str) -> Iterator[bytes]:
    for line in (DATA / "vectors" / name).read_text(encoding="utf-8").splitlines():
        yield base64.b64decode(json.loads(line)["input_b64"])


def _spread(found: Iterable[bytes], most: int) -> list[bytes]:
    """So many of them, from all over."""
    listed = [each for each in dict.fromkeys(found) if len(each) <= LONGEST - 8]
    return listed[:: max(len(listed) // most, 1)][:most]


def _after(choices: bytes, found: Iterable[bytes]) -> list[bytes]:
    return [choices + each for each in found]


def _sse() -> list[bytes]:
    made = b"\xef\xbb\xbfid: 1\nretry: 10\n\ndata: a\ndata\n\n: c\nevent: e\ndata:b\n\n"
    ends = [made.replace(b"\n", end) for end in (b"\n", b"\r", b"\r\n")]
    found = _spread((each for each in _vectors("sse.jsonl") if len(each) < 700), 20)
    return [*_after(b"\0", [*ends, CHAT, SITE, *found]), *_after(b"\3", ends + found[::3]), *_after(b"\4", ends)]


def _chats() -> list[bytes]:
    return [
        CHAT,
        CHAT.replace(b"\n", b"\r"),
        CHAT.replace(b"\n", b"\r\n"),
        HALVES,
        CALLS,
        *_spread(_vectors("chat_streams.jsonl"), 15),
        *_spread(_bodies(), 15),
    ]


def _openai() -> list[bytes]:
    # Two lines of one event, and a CR between them: several of them, since each is cut in its own way.
    mixed = [CHAT.replace(b'"choices"', b'\rdata: "choices"') + b":%d" % number for number in range(6)]
    return [*_after(b"\0\0\0", [*mixed, *_chats()]), *_after(b"\2\0\0", [CHAT]), *_after(b"\0\2\1", [CHAT, CALLS])]


def _document() -> list[bytes]:
    found = [each[1:] for each in _bodies() if each.startswith(b"{")]
    return [*_after(b"\1\0\0", _spread(found, 25)), *_after(b"\1\4\0", found[:2])]


def _sites() -> list[bytes]:
    failed = SITE.replace(b'\\"success\\": true', b'\\"success\\": false')
    found = [SITE, failed, *_spread(_bodies(SITE_RECORDINGS), 20), *_spread(_vectors("site_streams.jsonl"), 8)]
    return [*_after(b"\0\0\0\0", found), *_after(b"\0\0\0\3", found[:3]), *_after(b"\1\0\1\4", found[:3])]


def _session() -> list[bytes]:
    return _after(b"\1\0\0", [
        SESSION, b'{"success":false,"message":"no"}', b'{"restNonce":null}', b"<html>",
        SESSION.replace(b"true", b"false"), SESSION.replace(b"abc", b"a c"), SESSION.replace(b"abc", b"a\\rc"),
    ])  # fmt: skip


def _page() -> list[bytes]:
    quoted = SESSION.replace(b'"', b"&quot;")
    page = b"<html><body><div class='x' data-system=\"" + quoted + b'"></div>'
    other = b"<div data-system='{}' data-x=\"\" DATA-SYSTEM = '" + SESSION + b"'>"
    return _after(b"\5\0\0", [page, other, b"<div data-system='" + SESSION[:-3]])


def _models() -> list[bytes]:
    return _after(b"\1\0\0", [*MODELS, *(each for each in _bodies() if b'"list"' in each[:200])])


def _images() -> list[bytes]:
    return _after(b"\1\0\0", [IMAGE, b'["http://h/a.png"]', b'{"data":[]}', b'{"images":[{"error":"no"}]}'])


def _refusal() -> list[bytes]:
    found = (body for raw in _recorded() for status, _, body in split_responses(raw) if status >= 400)
    listed = [*_spread(found, 20), b"<html><head><style>x</style></head><body>502 <b>Bad</b> Gateway</body></html>"]
    return [b"\0\0\0\0" + bytes([number]) + each for number, each in enumerate(listed)]


def _coded() -> list[bytes]:
    # Not by zlib, of which each version may squeeze otherwise: RFC 1951 section 3.2.4, a block as it is.
    size = len(CHAT).to_bytes(2, "little")
    stored = b"\1" + size + bytes(255 - byte for byte in size) + CHAT
    ends = zlib.crc32(CHAT).to_bytes(4, "little") + len(CHAT).to_bytes(4, "little")
    gzipped = b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + stored + ends
    # Of an empty text, with the fixed codes.
    empty = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\3\0\0\0\0\0\0\0\0\0"
    deflated = b"\x78\x01" + stored + zlib.adler32(CHAT).to_bytes(4, "big")
    found = [b"\0\0\0\0" + each for each in (gzipped, empty + gzipped, gzipped * 2, empty)]
    return [*found, b"\0\0\0\1" + deflated, b"\0\0\0\1" + stored, b"\0\2\1\0" + gzipped[:-9]]


def _http1() -> list[bytes]:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in (CHAT[:90], CHAT[90:])) + b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    made = [
        head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
        head + b"Content-Length: %d\r\n\r\n" % len(CHAT) + CHAT,
        head + b"\r\n" + CHAT,
        b"HTTP/1.1 100 Continue\r\n\r\n"
        + head
        + b"Transfer-Encoding: chunked\r\nTrailer: x\r\n\r\n"
        + chunks[:-2]
        + b"x: y\r\n\r\n",
        b"HTTP/1.0 503 Busy\nRetry-After: 1\n\nwait",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ]
    return [
        *_after(b"\0\0\0", made), *_after(b"\0\2\0", made[:2]), *_after(b"\0\0\3", made[:1]),
        *_after(b"\0\0\0", _spread(_recorded(), 15)), *_after(b"\3\0\0", _spread(_recorded(SITE_RECORDINGS), 8)),
    ]  # fmt: skip


def _http_connect() -> list[bytes]:
    return _after(b"\0", [
        b"HTTP/1.1 200 Connection established\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\x16\x03\x01",
        b"HTTP/1.1 407 Auth Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 9\r\n\r\n<p>no</p>",
        b"HTTP/1.0 503 x\n\nbusy", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", b"SSH-2.0-x\r\n",
        b"\x05\x00",
    ])  # fmt: skip


def _socks5() -> list[bytes]:
    bound = b"\x05\x00\x00\x01\0\0\0\0\0\0"
    return [
        b"\0\0\x05\x02\x01\x00" + bound + b"\x16\x03", b"\0\1\x05\x00" + bound,
        b"\1\0\x05\x00\x05\x00\x00\x03\x03abc\0\0",
        b"\2\0\x05\x02\x01\x01",
        b"\2\0\x05\x02\x01\x01" + bound, b"\0\0\x05\xff", b"\0\1\x05\x00\x05\x05", b"\0\1HTTP/1.1 400 Bad\r\n\r\n",
        b"\0\1\x05\x00\x05\x00\x00\x04" + b"\0" * 18, b"\0\1\x00\x5b\0\0\0\0\0\0",
    ]  # fmt: skip


def _deadlines() -> list[bytes]:
    return [
        bytes([2, 4, 3, 0, 0, 0, 9, 4, 0, 200, 6, 5, 1, 20, 6, 0, 1, 6, 7, 3, 6]),
        bytes([1, 2, 1, 3, 0, 3, 1, 255, 6, 6, 0, 2, 6]),
    ]


def _retry_after() -> list[bytes]:
    date = b"Sun, 06 Nov 1994 08:49:37 GMT"
    return [
        b"\0" + b"7", b"\0" + b"1e3", b"\0nan", b"\0" + date, b"\1" + b"1500",
        b"\2" + date + b"\x1e" + date.replace(b"49", b"48"),
        b"\0Sunday, 06-Nov-94 08:49:37 GMT", b"\0Sun Nov  6 08:49:37 1994", b"\3-1\x1e" + b"5",
    ]  # fmt: skip


def _proxy_url() -> list[bytes]:
    return [
        b"\0u\x1ep\x1e[::1].evil\x1e1", b"\1u\x1ep\x1e[::1]\x1e", b"\1u\x1ep\x1e[::%00[::1]\x1e",
        b"\0user\x1epass\x1ehost\x1e3128", b"\2us%40er\x1ep%3Ass\x1e[::1]\x1e1080", b"\3u\x1e\x1eh.example/\x1e",
        b"\1u\x1ep/w\x1eh?x\x1e1",
        "\1ü\x1eé\x1eb\u00fccher.example\x1e8".encode(), b"\5a\x1eb\x1ec\x1ed",
    ]  # fmt: skip


def _no_proxy() -> list[bytes]:
    return [
        b"\0\2\1\5\1\2\3localhost,127.0.0.1\x1ehttp://h:1/", b"\2\1\6\1\0[::1]:80 10.0.0.0/8\x1ehttps://x",
        b"\3\3\7\10\11\1\4*.a:1\x1e",
        b"\1\0\3\0\1\5.,:,/\x1e",
    ]  # fmt: skip


def _requests() -> list[bytes]:
    fields = b"\x1e".join([
        b"https://h.example:8443/v1?api-version=1", b"sk-key-0123456789", b"gpt", b"Hello", b"X-Title", b"a title",
        b"page", b"1 2",
        b"agent/1", b"org", b"nonce123",
    ])  # fmt: skip
    made = [fields, fields.replace(b"a title", b"a\r\nHost: evil").replace(b"nonce123", b"n\0")]
    other = [fields.replace(b"h.example:8443", place) for place in (b"[::1].evil:1", b"h\r\nX: y", b"H:443", b"[::1]")]
    other += [
        fields.replace(b"X-Title", name) for name in (b"Content-Length", b"Transfer-Encoding", b"a b", b"X:", b"Host")
    ]
    found = [bytes([what, flags]) + each for what in range(8) for flags in (0x19, 0x02) for each in made]
    return [*found, *(bytes([what, 0x11]) + each for what in (0, 4) for each in other)]


def _json() -> list[bytes]:
    texts = (each[6:] for each in CHAT.split(b"\n\n") if each.startswith(b"data: {"))
    nested = [b'{"b":[],"a":' + b"[" * deep + b"0" + b"]" * deep + b"}" for deep in (63, 64)]
    return [
        *texts,
        b'{"choices":null,"id":5}',
        b'{"a":"\\ud83d","b":NaN,"c":1e400}',
        b"[" * 70,
        *nested,
        b'{"x":"\xff"}',
        IMAGE,
    ]


def _media() -> list[bytes]:
    return [
        b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"RIFF\0\0\0\0WAVE",
        b"ID3\3\0\0\0\0\0\0",
        b"\xff\xfb\x90\x00", b"http://h/a.png", b"http://h/a.mp4?x", b"image/png;base64,aa", b"UklGRg==",
    ]  # fmt: skip


def _base64() -> list[bytes]:
    return [b"aGVsbG8=", b"_-8", b"a G\nV", b"=", b"a"]


_MADE = {
    "sse": _sse, "openai": _openai, "document": _document, "opchatgpts": _sites, "session": _session, "page": _page,
    "models": _models, "images": _images, "refusal": _refusal, "coded": _coded, "http1": _http1,
    "http_connect": _http_connect, "socks5": _socks5, "deadlines": _deadlines, "retry_after": _retry_after,
    "proxy_url": _proxy_url, "no_proxy": _no_proxy, "requests": _requests, "json": _json, "media": _media,
    "base64": _base64,
}  # fmt: skip

# --- What is worth inserting -----------------------------------------------------------------------------

_EVENTS = [
    b"data:", b"data: ", b"data: [DONE]\n\n", b"event: error\n", b"event:", b"id:", b"retry:", b":", b"\n\n",
    b"\r\n\r\n",
    b"\r", b"\n", b"\r\n", b"\xef\xbb\xbf", b"\0", b"\xff", b"\xe2\x80\xa8", b"data: {}\n\n", b"data: x\n\n",
    b"\n\ndata: ",
]  # fmt: skip
_JSON = [
    b'"choices":', b'"delta":', b'"content":', b'"finish_reason":"stop"', b'"index":', b'"tool_calls":',
    b'"function":', b'"arguments":',
    b'"error":', b'"usage":', b'"message":', b'"object":"error"', b'"object":"chat.completion"',
    b'"object":"chat.completion.chunk"',
    b"null", b"true", b"[]", b"{}", b'""', b"-1", b"1e999", b"NaN", b'"\\ud83d"', b'"\\ude80"',
    b"99999999999999999999", b"[[[[[[[[",
    b'"reasoning_content":', b'"refusal":', b'"function_call":', b'"audio":', b'"logprobs":', b'"code":', b'"type":',
]  # fmt: skip
_SITES = [
    b'{"type":"live","data":"x"}', b'{"type":"end","data":"{}"}', b'{"type":"error","data":"x"}',
    b'"subtype":"status"', b'"success":',
    b'"reply":', b'"restNonce":', b'"sessionId":', b"data-system=", b"&quot;", b"&#34;", b'"images":',
    b'"responseId":',
]  # fmt: skip
_HTTP = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 ", b"HTTP/1.1 100 Continue\r\n\r\n", b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n", b"\r\n\r\n",
    b"0\r\n\r\n", b"1\r\n", b"ffffffff\r\n", b"5;x=y\r\n", b"Connection: close\r\n",
    b"Content-Type: text/event-stream\r\n", b"\n", b"\r", b": ",
]  # fmt: skip
_WORDS = [
    b"\x1e", b"\r\n", b"\r\nX: y", b"\0", b"%0d%0a", b"%00", b"@", b":", b"/", b"?", b"#", b"[::1]", b"%40",
    b"http://", b"socks5://", b"*",
    b"10.0.0.0/8", b":443", b"xn--", b"\xc3\xa9", b"\xff", b"content-length", b"transfer-encoding", b"host",
    b"authorization", b"..", b"\\",
    b"Sun, 06 Nov 1994 08:49:37 GMT", b"inf", b"nan", b"1e5", b"-1", b"0", b"99999999999999999999",
]  # fmt: skip

TOKENS: dict[str, list[bytes]] = {
    **dict.fromkeys(_MADE, _WORDS),
    **dict.fromkeys(("openai", "document", "coded", "json"), _EVENTS + _JSON),
    **dict.fromkeys(("models", "images", "refusal"), _JSON),
    **dict.fromkeys(("opchatgpts", "session", "page"), _EVENTS + _SITES),
    "sse": _EVENTS,
    "http1": _HTTP + _EVENTS,
    "http_connect": _HTTP,
    "socks5": [b"\5\0", b"\5\2", b"\1\0", b"\5\0\0\1", b"\5\0\0\3", b"\5\0\0\4", b"HTTP/1.1 200 OK\r\n\r\n", b"\n"],
    "deadlines": [b"\0\xff", b"\1\xff", b"\3", b"\4", b"\5", b"\6", b"\7\xff"],
    "media": [b"\xff\xd8\xff", b"RIFF", b"WAVE", b"ID3", b"image/", b"audio/wav", b";base64,", b"http://", b".mp4"],
}
