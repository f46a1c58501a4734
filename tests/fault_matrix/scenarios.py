"""The conversations, byte for byte; short, since each byte of them costs cells."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from .peer import Turn, count, head

CHUNKED, CLOSED, EVENTS, JSON = "chunked", "closed", "text/event-stream", "application/json"

# Letters of one byte and of more, and what JSON writes in other words.
PIECES = ("H\u00e9", 'l\n"', "lo")
TEXT = "".join(PIECES)

USER, PASSWORD = "me", "pa:ss"


class Scenario(NamedTuple):
    """A conversation, and what it leads through."""

    name: str
    replies: tuple[bytes, ...]
    """The reply of the server; in TLS, each piece is a record."""
    dialect: str = "openai"
    handshake: tuple[Turn, ...] = ()
    """With the proxy, before it."""
    through: str = ""
    """What the proxy speaks: "socks5", "http", "https" (it is spoken to in TLS), or ""."""
    tls: bool = False
    old_tls: bool = False
    """It is TLS 1.2."""
    ends: bool = False
    """The peer ends the connection when all is said: the body has no other end."""
    question: str = ""
    """What is asked, if that matters."""

    @property
    def all_tls(self) -> bool:
        """All that is said is said in TLS."""
        return self.tls and not self.handshake

    @property
    def unconnected(self) -> str:
        """The class of what goes wrong before there is a connection."""
        return "ProxyError" if self.through else "ConnectError"

    @property
    def reply(self) -> bytes:
        return b"".join(self.replies)

    @property
    def said(self) -> tuple[bytes, ...]:
        """What the peer says, turn by turn, outside TLS."""
        handshake = tuple(b"".join(turn.says) for turn in self.handshake)
        return handshake if self.tls else (*handshake, self.reply)


def event(value: Any) -> bytes:
    """As servers write it: without spaces, and letters as they are."""
    words = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return f"data: {words}\n\n".encode()


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return event({"object": "chat.completion.chunk", "choices": [choice], **more})


def reply(
    parts: list[bytes], framing: str = CHUNKED, content: str = EVENTS, status: str = "200 OK"
) -> tuple[bytes, ...]:
    """An answer: its head, and its body in these pieces."""
    fields = {CHUNKED: "Transfer-Encoding: chunked\r\n", CLOSED: "Connection: close\r\n"}
    framed = fields.get(framing) or f"Content-Length: {sum(map(len, parts))}\r\n"
    begin = f"HTTP/1.1 {status}\r\nContent-Type: {content}\r\n{framed}\r\n".encode()
    if framing == CHUNKED:
        parts = [*(b"%x\r\n%s\r\n" % (len(part), part) for part in parts), b"0\r\n\r\n"]
    return (begin, *parts)


ROLE, SAID = chunk({"role": "assistant"}), [chunk({"content": piece}) for piece in PIECES]
STOP, DONE = chunk({}, "stop"), event("[DONE]")
USAGE = event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}})
WHOLE = json.dumps(
    {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
        "usage": {"total_tokens": 4},
    }
).encode()
OVERLOADED = event({"error": {"message": "busy", "type": "server_error", "code": 503}})
LIMITED = json.dumps({"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}}).encode()

# In one string, as the site sends it.
END = event({"type": "end", "data": json.dumps({"success": True, "reply": TEXT, "usage": {"total_tokens": 4}})})
LIVE = [event({"type": "live", "data": piece}) for piece in PIECES]
STATUS = event({"type": "live", "subtype": "status", "data": "Thinking"})
SITE_ERROR = event({"type": "error", "data": "busy"})

GREETING, AUTHENTICATION, REQUEST = 4, 3 + len(USER) + len(PASSWORD), 10
CHOICE, TAKEN, OPENED = b"\x05\x02", b"\x01\x00", b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00"
SOCKS = (
    Turn(count(GREETING), (CHOICE,)),
    Turn(count(AUTHENTICATION), (TAKEN,)),
    Turn(count(REQUEST), (OPENED,)),
)
ESTABLISHED = b"HTTP/1.1 200 Established\r\nVia: 1.1 x\r\n\r\n"
UNAUTHORIZED = b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nContent-Length: 4\r\n\r\nwho?"
SHORT = reply([SAID[0], DONE])
LONG = 3 * 1024 * 1024

SCENARIOS = {
    each.name: each
    for each in (
        # A stream, framed in each way; its verdict is [DONE].
        Scenario("chunks", reply([ROLE, *SAID, STOP, USAGE, DONE])),
        Scenario("length", reply([*SAID, DONE], "length")),
        Scenario("until-close", reply([*SAID, DONE], CLOSED), ends=True),
        # One that ends with its finish reason, and one in fewer and larger chunks than events.
        Scenario("no-done", reply([*SAID, STOP])),
        Scenario("no-done-until-close", reply([*SAID, STOP], CLOSED), ends=True),
        Scenario("one-chunk", reply([b"".join([*SAID, DONE])])),
        # Whole documents.
        Scenario("json-length", reply([WHOLE], "length", JSON)),
        Scenario("json-chunks", reply([WHOLE[:99], WHOLE[99:]], CHUNKED, JSON)),
        Scenario("json-until-close", reply([WHOLE], CLOSED, JSON), ends=True),
        # Errors: by a status, and in the stream.
        Scenario("status-429", reply([LIMITED], "length", JSON, "429 Too Many")),
        Scenario("error-event", reply([*SAID, OVERLOADED])),
        # Sites of the Opchatgpts protocol.
        Scenario("site", reply([STATUS, *LIVE, END]), "opchatgpts"),
        Scenario("site-error", reply([*LIVE, SITE_ERROR], CLOSED), "opchatgpts", ends=True),
        # On the way there.
        Scenario("socks", SHORT, handshake=SOCKS, through="socks5"),
        Scenario("connect", SHORT, handshake=(Turn(head, (ESTABLISHED,)),), through="http", tls=True),
        Scenario("connect-407", (), handshake=(Turn(head, (UNAUTHORIZED,)),), through="http", tls=True),
        Scenario("https-proxy", SHORT, through="https", tls=True),
        Scenario("tls", reply([*SAID, DONE]), tls=True),
        Scenario("tls-1.2", SHORT, tls=True, old_tls=True),
        # More than a system's buffers hold: who is not listened to can't send it.
        Scenario("long-request", SHORT, question="Hi" * LONG),
    )
}
