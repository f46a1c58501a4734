"""The server's end of one connection: requests in, replies out, one at a time.

Theory
------
Reading happens in callbacks, writing in a task. A connection is in one of these states:

    reading --(request complete)--> answering --(reply complete)--> reading, or closed
                                    answering --(stall)----------> stalled

*   reading: h11 events are taken as bytes arrive. When a request is complete it is recorded, and what
    to reply is chosen then and there: so the log and the plan have the order of arrival.
*   answering: a task writes the reply. h11 is not asked for events, so a pipelined request waits in its
    buffer. Reading from the socket never stops, though: that is how the client's end is seen at once.
*   stalled: nobody writes, and only the end of the connection is awaited.

The client's FIN or RST in any state ends the connection: if a reply was not complete, its outcome is
"client-closed" and its task is cancelled. (A client that shuts down only its sending side and awaits
the answer is legal in HTTP, but nobody's client does it, and it looks the same as one that has gone.)

A reply is "complete" when the system has taken all of it. The task finds that out in the same turn or
in the turn after, before any event that the client could have caused in response: so a client that
leaves with the answer in its hands is never taken for one that left without.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import h11

from ._loop import Peer
from ._wire import Frame, Reply, coalesce, frames, truncate
from .records import Outcome, RecordedRequest

if TYPE_CHECKING:
    from .server import ChatServer

MAX_BODY = 64 * 1024 * 1024
_MAX_HEAD = 64 * 1024

_OUTCOMES: dict[str, Outcome] = {"close": "cut", "reset": "reset", "stall": "stalled"}


class ServerConnection(Peer):
    """The server's end of one connection."""

    service: ChatServer

    def __init__(self, service: ChatServer, number: int) -> None:
        super().__init__(service, number)
        self._http = _new_http()
        self._head: h11.Request | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._record: RecordedRequest | None = None
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # Told of every byte the system did not take at once: "written" is to mean that it was.
        self.transport.set_write_buffer_limits(high=0)

    def data_received(self, data: bytes) -> None:
        if self.lingering:
            return
        self._http.receive_data(data)
        if self._record is None:
            self._read()

    def eof_received(self) -> bool:
        self._client_gone()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._client_gone()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    def abort(self) -> None:
        """Drop the connection because the server stops."""
        record, self._record = self._record, None
        if record is not None and record.outcome == "pending":  # a stalled one stays so
            self.service._finish(record, "cut")
        super().abort()

    # Reading

    def _read(self) -> None:
        """Take events until a request is complete or bytes are missing."""
        try:
            while True:
                event = self._http.next_event()
                if type(event) is h11.Request:
                    self._head = event
                    if self._http.they_are_waiting_for_100_continue:
                        go_on = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
                        self.write(self._http.send(go_on))
                elif type(event) is h11.Data:
                    self._size += len(event.data)
                    if self._size > MAX_BODY:
                        self._reject(413, f"The body is longer than {MAX_BODY} bytes.")
                        return
                    self._body.append(bytes(event.data))
                elif type(event) is h11.EndOfMessage:
                    self._answer_request()
                    return
                else:  # NEED_DATA, or PAUSED after a request that closes the connection
                    return
        except h11.RemoteProtocolError as error:
            self._reject(error.error_status_hint, f"This is not HTTP/1.1: {error}")

    def _answer_request(self) -> None:
        assert self._head is not None
        head, body = self._head, b"".join(self._body)
        self._head, self._body, self._size = None, [], 0
        self._record, reply = self.service._take(head, body, self.number)
        self._task = asyncio.get_running_loop().create_task(self._write_reply(self._record, reply, head.method))

    def _reject(self, status: int, message: str) -> None:
        """Answer what cannot be read to its end; the connection is of no use after that."""
        reply = self.service._rejection(status, message)
        method = "GET" if self._head is None else self._head.method.decode("ascii")
        for frame in frames(reply, self._http, method):
            self.write(frame.data)
        self.linger()

    # Writing

    async def _write_reply(self, record: RecordedRequest, reply: Reply, method: bytes) -> None:
        if reply.delay:
            await asyncio.sleep(reply.delay)
        if reply.cut_after != 0:
            record.status = reply.status
        whole = frames(reply, self._http, method.decode("ascii"))
        cut = False
        if reply.cut_after is not None:
            kept, cut = truncate(whole, reply.cut_after)
            whole = iter(kept)
        at_once = not reply.pace
        if at_once and not reply.apart:
            whole = coalesce(whole)
        begin = time.monotonic()
        for frame in whole:
            if not at_once:
                wait = begin + frame.step * reply.pace - time.monotonic()
                if wait > 0:
                    await asyncio.sleep(wait)
            self._write(record, frame)
            if self._room is not None:
                await self._room
            elif at_once:
                await asyncio.sleep(0)  # others' turn: this reply may be long
        self._after(record, reply, cut)

    def _write(self, record: RecordedRequest, frame: Frame) -> None:
        # Noted first: whoever has the token in hand finds it in the log.
        record.sent.extend([time.monotonic()] * frame.tokens)
        if frame.data:
            self.write(frame.data)

    def _after(self, record: RecordedRequest, reply: Reply, cut: bool) -> None:
        """End the exchange as the reply says. Nothing is left in the transport's buffer."""
        ending = reply.ending or (None if reply.cut_after is None else "close")
        whole = not cut and not reply.unterminated
        if ending is None or (ending == "close" and whole):
            self.service._finish(record, "complete")
        else:
            self.service._finish(record, _OUTCOMES[ending])
        if ending == "stall":
            return
        self._record = None
        if ending == "reset":
            self.reset()
        elif ending == "close":
            self.close()
        elif reply.keep_open:
            # h11 knows nothing of the reply it did not write; a fresh one takes over what it has not read.
            unread, _ = self._http.trailing_data
            self._http = _new_http()
            if unread:
                self.data_received(unread)
        elif self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._read()
        else:
            self.close()

    def _client_gone(self) -> None:
        record, self._record = self._record, None
        if record is not None:
            self.service._finish(record, "client-closed")
        if self._task is not None:
            self._task.cancel()
        super().abort()


def _new_http() -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
