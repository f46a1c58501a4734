"""The oracle for event streams: WHATWG HTML 9.2.6 a byte at a time, with `Limits` as its docstrings say.

As `whole_reader`: every rule the most naive way; of deltawire it knows the types only. (`whole_reader.parse_sse` reads
streams, too, with no limits and what is pending at the end.)
"""

from __future__ import annotations

from deltawire.protocol import Limits, ServerSentEvent

BOM = b"\xef\xbb\xbf"


class Reference:
    """WHATWG HTML 9.2.6 a byte at a time, and `Limits` as its docstrings say."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.events: list[ServerSentEvent] = []
        self.last_event_id, self.id = "", ""
        self.retry: int | None = None
        self.error: str | None = None
        self.fresh()

    def fresh(self) -> None:
        """An empty block."""
        self.line, self.size, self.lines_size = b"", 0, 0
        self.data: list[str] = []
        self.type = ""
        self.block_retry: int | None = None

    def read(self, stream: bytes) -> None:
        if stream and BOM.startswith(stream):
            return  # it may yet be a BOM
        stream = stream.removeprefix(BOM)
        for position in range(len(stream)):
            byte = stream[position : position + 1]
            if byte == b"\n" and stream[position - 1 : position] == b"\r" and position:
                continue
            if byte in (b"\r", b"\n"):
                self.end_line()
            elif not self.grow(byte):
                return

    def grow(self, byte: bytes) -> bool:
        self.line += byte
        if len(self.line) > self.limits.line:
            self.error = "line"
        elif self.lines_size + len(self.line) > self.limits.event:
            self.error = "event"
        return self.error is None

    def end_line(self) -> None:
        if self.line:
            self.field(*self.line.decode("utf-8", "replace").partition(":"))
            self.lines_size += len(self.line) + 1
            self.line = b""
            return
        self.last_event_id = self.id
        if self.data:
            text = "\n".join(self.data)
            self.events.append(ServerSentEvent(self.type or "message", text, self.id, self.block_retry))
        self.fresh()

    def field(self, name: str, _: str, value: str) -> None:
        value = value.removeprefix(" ")
        if name == "data":
            self.data.append(value)
        elif name == "event":
            self.type = value
        elif name == "id" and "\0" not in value:
            self.id = value
        elif name == "retry" and value and set(value) <= set("0123456789"):
            self.retry = self.block_retry = int(value)
