"""Exchanges straight over streams: the shortest way from a socket to a token.

Theory
------
A *line* is a connection: a stream, opened by the stream layer (TCP or a Unix socket, the proxy's tunnel, TLS), and
the `HTTP1Exchange` that says what its bytes mean. One exchange after the other has it; between two of them it is idle,
in the pool. ::

    pool.py          who has which line, who waits for one, which of them go: rules only, no I/O, no waiting
    exchanges.py     what an exchange does on a line, but for the waiting
    blocking.py      `WireTransport`: threads that block
    asynchronous.py  `AsyncWireTransport`: tasks, on asyncio and trio
    feeding.py       how bytes come to an exchange there: pushed (asyncio) or pulled (trio)

Pushed and pulled. asyncio calls a protocol with the bytes as they come: they go through the machine there and then,
and whoever waits goes on only when there is an event for him, and then at once, within that call (`Turn`). So a token
costs no task, no queue, no further round of the loop, and no timer; what the machine has to say while its owner is away
waits as events, and when that becomes too much the socket is not read any more until he has taken them. Elsewhere the
owner reads the socket by himself, and nothing comes while he is away.

Time. The deadline of the first content, and of each next one, begins with the content that came before; on asyncio
that is when the loop was told of it, else when it was read. Each wait of the owner's has the exchange's deadline as it
stands; on asyncio one timer serves all waits on a line.

The end. Streams end at once and without waiting (`abort`), so that nothing in closing can be interrupted. Only a
reply that is good, and whose message is not over yet, is waited for, a tenth of a second at most.
"""
