"""Streams of bytes: the one layer under every transport that moves any.

Theory
------
A stream is a socket and what lies between it and its user. From the socket upwards::

    socket      blocking.py, on_asyncio.py, on_trio.py: the only code that waits
    TLS         layers.py: once for https, twice for https through an https:// proxy
    early bytes what the far end said right behind the last handshake

TLS is done with memory buffers on all three, so that it can be laid over anything, and so that waiting is always
waiting for one socket. Before a stream is given out it is *opened* (opening.py): connected, then one handshake after
the other: TLS to the proxy, CONNECT or SOCKS. The handshakes are machines of `deltawire.protocol`, fed here.

Time. A stream has a `deadline`, a time of `time.monotonic`; whatever waits, waits until then, and `Expired` is
raised at once when it has passed. It covers all steps that have no end of their own: drops of a TLS record, of a
handshake, of a head. Setting it costs nothing; a wait under way hears of a later one, not of an earlier. (HTTP/2 has
many readers with a time each: `shared`, the time-outs that come with each call count instead.) On asyncio a stream
has one timer, which is set for the first deadline and looks, when it goes off, whether that has moved since: no timer
is made, and none cancelled, for a read.

The end. `abort` ends a stream now, without waiting: from any thread if the stream blocks, else from its loop's. Who
reads or writes then, or is about to, gets an `OSError`. It is what makes closing safe from cancellation: there is
nothing in it to interrupt.

Errors are `OSError` (`ssl.SSLError` is one) and `Expired`; and `ValueError`, before there is a stream, for a host that
no name can be. `opening` says all but `Expired` in our words.
"""
