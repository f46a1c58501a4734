"""Connecting to a name with several addresses, on asyncio and on trio: happy eyeballs (RFC 8305).

asyncio has its own, which loses the socket when it is cancelled in the moment of success. Here whoever connects late,
or in vain, is closed in any case.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import anyio

from .layers import interleaved, is_ip_address

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .layers import Address
    from .opening import AsyncStream

# How long an address may take before the next one is tried beside it: RFC 8305 section 8 says 250 ms.
_ATTEMPT_DELAY = 0.25


async def addresses(host: str, port: int) -> list[Address]:
    """What this host may be reached at, the best first. Raises `OSError`, `ValueError`."""
    if is_ip_address(host):
        # Looking it up would cost a thread.
        return [(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port))]
    found: list[Address] = [*await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    return interleaved(found)


async def first_of(addresses: list[Address], connect: Callable[[Address], Awaitable[AsyncStream]]) -> AsyncStream:
    """The stream to the address that answers first. Raises the first `OSError` (`ValueError`) if none does."""
    if len(addresses) == 1:
        return await connect(addresses[0])
    streams: list[AsyncStream] = []
    errors: list[Exception] = []

    async def attempt(address: Address, failed: anyio.Event) -> None:
        try:
            streams.append(await connect(address))
        except (OSError, ValueError) as error:
            # The first refusal tells more than the last one.
            errors.append(error)
            failed.set()
        else:
            group.cancel_scope.cancel()

    winner: AsyncStream | None = None
    try:
        async with anyio.create_task_group() as group:
            for address in addresses:
                failed = anyio.Event()
                group.start_soon(attempt, address, failed)
                with anyio.move_on_after(_ATTEMPT_DELAY):
                    await failed.wait()
        if not streams:
            raise errors[0] if errors else OSError("the name has no address")
        winner = streams[0]
    finally:
        for stream in streams:
            if stream is not winner:
                stream.abort()
        # Their tracebacks know this frame.
        errors.clear()
    return winner
