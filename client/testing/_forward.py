"""HTTP proxying: the end towards the client, and the end towards the target of one request.

Theory
------
`ClientSide` is the client's end; `Origin` is opened for one request in absolute form, and closed after
it. The client's side goes round:

    idle --(head)--> refused ----------------(request read, answered)--------> idle
                     opening --(connected)--> forwarding --(reply complete)--> idle
                             --(CONNECT)----> tunnelling                       (for good)
                             --(no way)-----> refused

*   Forwarding: each side's h11 events are handed to the other's h11 in the callback that brought the
    bytes, so nothing waits for more to come. A side that cannot write stops the other one's reading.
*   h11 is not asked for the client's next event while opening, nor after a request before its reply is
    complete; bytes wait in its buffer, but reading goes on, so that the client's end is seen at once.

How things end. A reply is complete when upstream's h11 says so, and only then is its end marked
towards the client. Whatever else ends upstream (FIN too early, RST, no HTTP) breaks the client's
connection off in the same way, FIN or RST, without that mark. The proxy makes up an answer only for a
target it could not reach, never for one that died. A reply whose body ends with the connection is handed
on as such: made chunked, it would look complete however it ended. The client's end ends upstream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import h11

from ._heads import LocalReply, Target, shown, strip_hop_by_hop
from ._tunnel import ClientEnd, TunnelTarget, Upstream
from ._wire import plain_head
from .records import ProxiedRequest

if TYPE_CHECKING:
    from .proxy import ProxyServer

_VIA = (b"via", b"1.1 deltawire-testing")
_CLOSE = (b"connection", b"close")
_CHUNKED = (b"transfer-encoding", b"chunked")
_MAX_HEAD = 64 * 1024


class ClientSide(ClientEnd):
    """The proxy's end towards a client."""

    service: ProxyServer

    def __init__(self, service: ProxyServer, number: int) -> None:
        super().__init__(service, number)
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self._forget()

    def _forget(self) -> None:
        """Be ready for the next request."""
        self._head: h11.Request | None = None
        self._target: Target | None = None
        self._record: ProxiedRequest | None = None
        self._upstream = None
        self._local: LocalReply | None = None  # to be sent when the request is read
        self._ends_with_connection = False  # the reply's body, towards us
        self._end_is_silent = False  # towards an HTTP/1.0 client, whom FIN would tell that all is well

    # The request

    def _received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._pump()

    def _pump(self) -> None:
        try:
            while self._opening is None and not self.lingering:
                event = self._http.next_event()
                if type(event) is h11.Request:
                    self._begin(event)
                elif type(event) is h11.Data:
                    if isinstance(self._upstream, Origin):
                        self._upstream.send(h11.Data(data=event.data))
                elif type(event) is h11.EndOfMessage:
                    self._request_read()
                else:  # NEED_DATA; PAUSED, until the reply is complete
                    return
        except h11.RemoteProtocolError as error:
            self._not_http(error)

    def _begin(self, head: h11.Request) -> None:
        try:
            target, problem = Target.parse(head.method, head.target), None
        except ValueError as error:
            target, problem = None, LocalReply.text(400, "Bad Request", body=str(error))
        self._record, refusal = self.service._take(head, shown(head.target), self.number)
        self._local = refusal or problem
        if target is None or self._local is not None:
            self._refuse_now_if_awaited()
            return
        self._head, self._target = head, target
        upstream = TunnelTarget(self) if head.method == b"CONNECT" else Origin(self)
        self._open_upstream(upstream, target.host, target.port)

    def _opened(self, upstream: Upstream) -> None:
        if isinstance(upstream, Origin):
            assert self._head is not None
            assert self._target is not None
            upstream.begin(self._head, self._target)
        self._pump()

    def _unreachable(self, error: Exception) -> None:
        assert self._target is not None
        text = f"Cannot connect to {self._target.host}:{self._target.port}: {error}"
        self._local = LocalReply.text(502, "Bad Gateway", body=text)
        self._refuse_now_if_awaited()
        self._pump()

    def _request_read(self) -> None:
        if self._local is not None:
            self._send_local(self._local)
        elif isinstance(self._upstream, TunnelTarget):
            assert self._record is not None
            self._record.status = 200
            established = h11.Response(status_code=200, headers=[], reason="Connection established")
            self.write(self._http.send(established))
            self._start_tunnel(self._upstream, self._http.trailing_data[0])
        elif isinstance(self._upstream, Origin):
            self._upstream.send(h11.EndOfMessage())
        # Otherwise the reply came and went before the end of the request.

    def _refuse_now_if_awaited(self) -> None:
        # A refusal waits for the end of the request, so that the connection can be used again. But a client
        # that expects "100 Continue" would wait for us, in vain.
        if self._local is not None and self._http.they_are_waiting_for_100_continue:
            self._send_local(self._local)

    def _send_local(self, reply: LocalReply) -> None:
        if self._record is not None:
            self._record.status = reply.status
        headers = [*reply.headers]
        if self._http.their_state in (h11.SEND_BODY, h11.ERROR):
            headers.append(_CLOSE)
        head = h11.Response(status_code=reply.status, headers=headers, reason=reply.reason)
        self.write(self._http.send(head))
        is_head = self._record is not None and self._record.method == "HEAD"
        if not is_head and reply.status not in (204, 304):
            self.write(self._http.send(h11.Data(data=reply.body)))
        self._http.send(h11.EndOfMessage())
        self._next()

    def _not_http(self, error: h11.RemoteProtocolError) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.reset()  # the reply has begun; there is nothing left to say
            return
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.client_lost(None)
        self._send_local(LocalReply.text(error.error_status_hint, "Bad Request", body=f"This is not HTTP/1.1: {error}"))

    def _next(self) -> None:
        """The reply is complete and its end marked."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._forget()
        elif self._http.their_state in (h11.SEND_BODY, h11.ERROR):
            self.linger()
        else:
            self.close()

    # The reply; called by upstream

    def forward_head(self, head: h11.Response | h11.InformationalResponse) -> None:
        """Hand on a head, with the framing that fits this client."""
        assert self._record is not None
        headers = [*strip_hop_by_hop(head.headers), _VIA]
        if type(head) is h11.InformationalResponse:
            if self._http.their_http_version != b"1.0":
                self.write(self._http.send(_same(head, headers)))
            return
        self._record.status = head.status_code
        names = {name for name, _ in head.headers}
        chunked, has_length = _CHUNKED[0] in names, b"content-length" in names
        has_body = self._record.method != "HEAD" and head.status_code not in (204, 304)
        if chunked:
            headers.append(_CHUNKED)
            self._end_is_silent = has_body and self._http.their_http_version == b"1.0"
        if has_body and not chunked and not has_length:
            self._ends_with_connection = True
            self.write(plain_head(head.status_code, headers, bytes(head.reason)))
        else:
            self.write(self._http.send(_same(head, headers)))

    def forward_data(self, data: bytes) -> None:
        """Hand on a part of the body."""
        framed = data if self._ends_with_connection else self._http.send(h11.Data(data=data))
        self.write(framed)

    def finish_reply(self) -> None:
        """The reply is complete: mark its end, and go on with the next request."""
        self._upstream = None
        if self._ends_with_connection:
            self.close()
            return
        self.write(self._http.send(h11.EndOfMessage()))
        self.transport.resume_reading()  # upstream may have stopped it
        self._next()
        self._pump()

    def break_off(self) -> None:
        """Upstream ended, but not the reply: end without the mark."""
        if self._end_is_silent:
            self.reset()
        else:
            self.close()


class Origin(Upstream):
    """The proxy's end towards the target of one request."""

    _client: ClientSide | None

    def __init__(self, client: ClientSide) -> None:
        super().__init__(client)
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)

    # For the client's side

    def begin(self, head: h11.Request, target: Target) -> None:
        """Send the request's head, as a proxy rewrites it."""
        headers = [(b"host", target.authority)]
        headers += ((name, value) for name, value in strip_hop_by_hop(head.headers) if name != b"host")
        if any(name == _CHUNKED[0] for name, _ in head.headers):
            headers.append(_CHUNKED)
        headers += (_VIA, _CLOSE)
        self.send(h11.Request(method=head.method, target=target.origin, headers=headers))

    def send(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        """Send a part of the request."""
        self.write(self._http.send(event))

    def client_lost(self, exc: Exception | None) -> None:
        self._client = None
        self.abort()

    # The transport's side

    def data_received(self, data: bytes) -> None:
        if self._client is not None:
            self._http.receive_data(data)
            self._pump(self._client)

    def eof_received(self) -> bool:
        if self._client is not None:
            self._http.receive_data(b"")
            self._pump(self._client)
        return False

    def _pump(self, client: ClientSide) -> None:
        try:
            while True:
                event = self._http.next_event()
                if type(event) is h11.Response or type(event) is h11.InformationalResponse:
                    client.forward_head(event)
                elif type(event) is h11.Data:
                    client.forward_data(bytes(event.data))
                elif type(event) is h11.EndOfMessage:
                    self._client = None
                    self.abort()
                    client.finish_reply()
                    return
                else:  # NEED_DATA
                    return
        except h11.RemoteProtocolError:
            self._client = None
            self.abort()
            client.break_off()


def _same(
    head: h11.Response | h11.InformationalResponse, headers: list[tuple[bytes, bytes]]
) -> h11.Response | h11.InformationalResponse:
    return type(head)(status_code=head.status_code, headers=headers, reason=head.reason)
