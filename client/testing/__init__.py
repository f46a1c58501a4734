"""A chat server and proxies on this machine, to test a program that talks to language models.

Each runs in a thread of its own, so they serve sync, asyncio and trio programs alike; all do by
themselves what a good server does, and on request what a bad one does. A test plans the answers, runs
the program, and reads what arrived::

    from deltawire.testing import Answer, ChatServer

    def test_it_asks_again_when_it_is_told_to_wait():
        with ChatServer(tokens=["Hello", " there"]) as server:
            server.plan(Answer.error(429, "Slow down.", retry_after=0.01))

            assert my_program.ask("Hi", base_url=server.url) == "Hello there"

            first, second = server.wait_requests(2)
            assert first.status == 429
            assert second.json()["messages"][-1]["content"] == "Hi"

    def test_it_survives_a_reply_that_breaks_off():
        with ChatServer() as server:
            server.plan(Answer(tokens=["Hel"], finish_reason=None, done=False, ending="reset"))
            ...

    def test_it_hangs_up_when_the_user_loses_patience():
        with ChatServer(pace=0.1) as server:
            ...
            assert server.wait_outcome(0) == "client-closed"

What waits (`wait_requests`, `wait_outcome`, `wait_closed`) is told by the server, it does not poll, and
on a time-out raises ``TimeoutError`` with the log. These calls block: an async test makes them in a
thread.

The same server is a WordPress site with an AI Engine chatbot, at `site_url`: answers are planned alike, and said the
way that the plugin says them. An answer with `to` waits for a request of that path::

    def test_it_fetches_a_new_nonce_once():
        with ChatServer(tokens=["Hello"]) as server:
            ...
            server.expire_nonce()
            server.plan(Answer.error(503, to="/start_session"))
            ...

`ProxyServer` (HTTP, over TLS if you like) and `SocksServer` (SOCKS5) stand between: hand the `url` to the
program as its proxy, then read `requests`. They break off, or stall, or talk nonsense at any byte::

    def test_it_connects_again_when_the_proxy_dies_in_the_midst_of_its_answer():
        with ChatServer() as server, ProxyServer() as proxy:
            proxy.plan(Fault(20, "reset"))
            ...

A server's own connections fail so by `plan_faults`, and in ``with server.refuse_connections():`` there are none.
"""

from .answers import Answer
from .faults import Fault
from .proxy import ProxyServer
from .records import ProxiedRequest, RecordedRequest
from .server import ChatServer
from .socks import SocksServer

__all__ = ["Answer", "ChatServer", "Fault", "ProxiedRequest", "ProxyServer", "RecordedRequest", "SocksServer"]
