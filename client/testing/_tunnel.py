"""What every proxy has: an end towards the client, one towards the target, and tunnels between them.

Theory
------
`ClientEnd` lives as long as the client's connection. What its bytes mean before there is a tunnel is its
subclass's business; in a tunnel bytes are bytes. An `Upstream` is opened for one request, or one tunnel,
and closed after it; `TunnelTarget` is the one for tunnels.

    asking --(open_upstream)--> opening --(connected)--> upstream's, or with start_tunnel: tunnelling
                                        --(no way)-----> asking

*   FIN is passed on as FIN, and the other direction goes on; RST is passed on as RST. Whatever else ends
    one side (its connection timed out, say) ends the other one as RST.
*   A side that cannot write stops the other one's reading.
*   What a target says before the tunnel is open is kept until it is.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from abc import ABC, abstractmethod

from ._layers import Wire
from ._loop import Peer, Service


class ClientEnd(Peer, ABC):
    """The proxy's end towards a client."""

    def __init__(self, service: Service, number: int) -> None:
        super().__init__(service, number)
        self.saw_eof = False
        """Whether the client has ended its direction of the tunnel."""
        self._full = False  # what we write is not taken as fast as it comes
        self._opening: asyncio.Task[None] | None = None
        self._upstream: Upstream | None = None
        self._tunnel: TunnelTarget | None = None

    # The transport's side

    def data_received(self, data: bytes) -> None:
        if self.lingering:
            return
        if self._tunnel is not None:
            self._tunnel.write(data)
        else:
            self._received(data)

    def eof_received(self) -> bool:
        if self._tunnel is None:
            self.abort()
            return False
        self.saw_eof = True
        _pass_eof(self._tunnel, both=self._tunnel.saw_eof, back=self)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self._opening is not None:
            self._opening.cancel()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.client_lost(exc)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._full = True
        if self._upstream is not None:
            self._upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        self._full = False
        if self._upstream is not None:
            self._upstream.transport.resume_reading()

    # For the subclass

    @abstractmethod
    def _received(self, data: bytes) -> None:
        """Bytes from the client, outside a tunnel."""

    @abstractmethod
    def _opened(self, upstream: Upstream) -> None:
        """The target is reached."""

    @abstractmethod
    def _unreachable(self, error: Exception) -> None:
        """The target is not reached."""

    def _open_upstream(self, upstream: Upstream, host: str, port: int) -> None:
        """Connect; either `_opened` or `_unreachable` follows, unless the client goes first."""
        self._opening = asyncio.get_running_loop().create_task(self._open(upstream, host, port))

    async def _open(self, upstream: Upstream, host: str, port: int) -> None:
        try:
            await _dial(upstream, host, port)
        except (OSError, ValueError) as error:  # ValueError: no such name can exist
            self._opening = None
            self._unreachable(error)
            return
        if self.transport.is_closing():  # either end went while the other was told that it is there
            upstream.abort()
            return
        self._opening, self._upstream = None, upstream
        if self._full:
            upstream.transport.pause_reading()
        self._opened(upstream)

    def _start_tunnel(self, target: TunnelTarget, early: bytes) -> None:
        """From now on bytes are bytes. `early` are those that the client has sent already."""
        self._tunnel = target
        if early:
            target.write(early)
        target.open_tunnel()


class Upstream(Peer, ABC):
    """The proxy's end towards a target."""

    def __init__(self, client: ClientEnd) -> None:
        super().__init__(client.service, 0)
        self._client: ClientEnd | None = client

    @abstractmethod
    def client_lost(self, exc: Exception | None) -> None:
        """The client's connection is no more; `exc` unless it ended in good order."""

    def connection_lost(self, exc: Exception | None) -> None:
        client, self._client = self._client, None
        if client is not None and exc is not None:
            client.reset()
        elif client is not None:
            client.close()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        if self._client is not None:
            self._client.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._client is not None:
            self._client.transport.resume_reading()


class TunnelTarget(Upstream):
    """The proxy's end towards the target of a tunnel."""

    def __init__(self, client: ClientEnd) -> None:
        super().__init__(client)
        self.saw_eof = False
        """Whether the target has ended its direction."""
        self._early: list[bytes] | None = []  # what came before the tunnel was open

    def open_tunnel(self) -> None:
        """Hand on what came early."""
        assert self._client is not None
        assert self._early is not None
        early, self._early = b"".join(self._early), None
        if early:
            self._client.write(early)
        if self.saw_eof:
            _pass_eof(self._client, both=self._client.saw_eof, back=self)

    def client_lost(self, exc: Exception | None) -> None:
        self._client = None
        if exc is not None:
            self.reset()
        else:
            self.close()

    def data_received(self, data: bytes) -> None:
        if self._early is not None:
            self._early.append(data)
        elif self._client is not None:
            self._client.write(data)

    def eof_received(self) -> bool:
        if self._client is None:
            return False
        self.saw_eof = True
        if self._early is None:
            _pass_eof(self._client, both=self._client.saw_eof, back=self)
        return True


def _pass_eof(to: Peer, *, both: bool, back: Peer) -> None:
    """One direction of a tunnel has ended; if the other one has too, so has the tunnel."""
    if both:
        to.close()
        back.close()
    else:
        to.transport.write_eof()


async def _dial(upstream: Upstream, host: str, port: int) -> None:
    """Connect to the first of the host's addresses that answers. Raises what the last one said."""
    # asyncio would try them all, too, but of several errors it makes one that has no number.
    loop = asyncio.get_running_loop()
    addresses = [host]
    if not _is_address(host):
        if not host:
            raise ValueError("the host has no name")  # to the system this means "this machine"
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(address[0]) for *_, address in found]
    for index, address in enumerate(addresses):
        try:
            await loop.create_connection(lambda: Wire(upstream), address, port)
            return
        except OSError:
            if index == len(addresses) - 1:
                raise


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
