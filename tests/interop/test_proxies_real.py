"""Every proxy, of HTTP and of SOCKS, before servers of our own that say what reached them."""

from __future__ import annotations

import json
import ssl
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import trustme
from driving import free_port
from interop_calls import Ask, Told, ask, converse, only
from interop_proxies import HTTP_PROXIES, PROXIES, ProxyProgram, StartProxy, part_of, without_password
from interop_servers import Authority

from deltawire import (
    AuthenticationError,
    ConnectError,
    InternalServerError,
    PermissionDeniedError,
    ProxyError,
    Timeout,
    TimeoutError,
)
from deltawire.testing import Answer, ChatServer

pytestmark = pytest.mark.usefixtures("transports")

WORDS = ["One", " two", " three", "."]
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


@pytest.fixture(params=["http", "https"])
def server(request: pytest.FixtureRequest, authority: Authority) -> Iterator[ChatServer]:
    """The target: in a tunnel for https; for http forwarded, but by SOCKS proxies."""
    context = authority.context if request.param == "https" else None
    with ChatServer(tokens=WORDS, ssl_context=context) as running:
        yield running


def named(proxies: Sequence[str]) -> list[Any]:
    """As parameters."""
    return [pytest.param(name, marks=pytest.mark.interop(part_of(name))) for name in proxies]


def secure(server: ChatServer) -> bool:
    return server.url.startswith("https:")


def tunnelled(proxy: ProxyProgram, server: ChatServer) -> bool:
    return proxy.socks or secure(server)


@pytest.mark.parametrize("locked", [False, True], ids=["open", "password"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_chat(
    flavour: str, proxy: ProxyProgram, server: ChatServer, authority: Authority, stream: bool, locked: bool
) -> None:
    # (An earlier server may have had this port.)
    before = proxy.requests(server.port)
    server.plan(Answer(usage=USAGE))
    told = ask(
        flavour,
        Ask(stream=stream),
        base_url=server.url,
        proxies=proxy.locked if locked else proxy.open,
        verify=authority.ca,
    )
    assert told.text == "".join(WORDS)
    assert told.finish_reason == "stop"
    assert (usage := told.good().usage)
    assert usage.total_tokens == 7
    (received,) = server.requests
    assert server.wait_outcome(0) == "complete"
    assert received.header("proxy-authorization") is None
    assert received.header("authorization") == "Bearer sk-interop"
    # (microsocks said the very same of an earlier server that had this port.)
    (line,) = (Counter(proxy.wait_requests(len(before) + 1, server.port)) - Counter(before)).elements()
    assert len(proxy.requests(server.port)) == len(before) + 1
    if tunnelled(proxy, server):
        assert proxy.socks or f"CONNECT 127.0.0.1:{server.port}" in line
        assert received.header("via") is None
    else:
        assert f"POST {server.url}/chat/completions" in line
        assert part_of(proxy.name) in (received.header("via") or "")


@pytest.mark.parametrize("kind", ["wrong", "missing"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_refused_password(
    flavour: str, proxy: ProxyProgram, server: ChatServer, authority: Authority, stream: bool, kind: str
) -> None:
    url = proxy.refused if kind == "wrong" else proxy.missing
    before = len(proxy.requests(server.port))
    # With retries: a wrong password must not be tried again.
    told = ask(flavour, Ask(stream=stream), base_url=server.url, proxies=url, verify=authority.ca, max_retries=1)
    assert server.requests == []
    # An HTTP proxy answers a wrong password with 407, but tinyproxy 1.11 answers with 401.
    status = None if proxy.socks else 401 if (proxy.name, kind) == ("tinyproxy", "wrong") else 407
    if status == 401 and not secure(server):
        # So might the server have done. The message tells, as it names the proxy and quotes its words.
        reply = only(told.error, AuthenticationError)
        assert isinstance(reply, AuthenticationError)
        assert f"via proxy {without_password(url)}" in str(reply)
        assert "The administrator of this proxy" in str(reply)
        assert reply.retries_taken == 0
        return
    error = only(told.error, ProxyError)
    assert isinstance(error, ProxyError)
    assert error.status_code == status
    assert error.reply_code is None
    assert proxy.socks or str(status) in str(error)
    assert not error.transient
    assert error.retries_taken == 0
    assert "password" in str(error)
    assert without_password(url) in str(error)
    # SOCKS proxies log tunnels only.
    tried = before if proxy.socks else before + 1
    assert len(proxy.wait_requests(tried, server.port)) == tried


def test_connections_are_kept(flavour: str, proxy: ProxyProgram, server: ChatServer, authority: Authority) -> None:
    before = len(proxy.requests(server.port))
    talk = converse(
        flavour,
        [Ask(), Ask(stream=False), Ask(models=True), Ask()],
        base_url=server.url,
        proxies=proxy.locked,
        verify=authority.ca,
    )
    assert [talk.told[number].text for number in (0, 1, 3)] == ["".join(WORDS)] * 3
    assert talk.told[2].models == ["local-model"]
    assert talk.busy == 0
    if tunnelled(proxy, server):
        # One tunnel, hence one line in the proxy's log.
        assert (talk.idle, server.connections) == (1, 1)
        assert len(proxy.wait_requests(before + 1, server.port)) == before + 1
    else:
        # tinyproxy ends each connection after the reply, but does not say so beforehand.
        assert talk.idle == 1 or proxy.name == "tinyproxy"
        # One that comes on a connection just before that end is not logged.
        assert len(proxy.wait_requests(before + 4, server.port)) == before + 4


def test_one_call_right_after_the_other(
    flavour: str, proxy: ProxyProgram, server: ChatServer, authority: Authority
) -> None:
    # Without retries, though tinyproxy closes a connection after each forwarded reply without saying so before: a
    # request that has just gone out on it goes out again on a new one.
    tunnel = tunnelled(proxy, server)
    count = 5 if tunnel else 40
    talk = converse(flavour, [Ask()] * count, base_url=server.url, proxies=proxy.locked, verify=authority.ca)
    assert [told.text for told in talk.told] == ["".join(WORDS)] * count
    assert len(server.requests) == count
    assert server.connections == 1 or not tunnel


def test_tokens_are_not_held_back(flavour: str, proxy: ProxyProgram, server: ChatServer, authority: Authority) -> None:
    # The server says no more after four tokens: what arrives, arrives before the end.
    server.plan(Answer(tokens=WORDS, ending="stall"))
    one = Ask(take=1 + len(WORDS))
    told = ask(flavour, one, base_url=server.url, proxies=proxy.locked, verify=authority.ca)
    assert told.text == "".join(WORDS)
    # And leaving early ends the request behind the proxy too.
    assert server.wait_outcome(0, 1) == "client-closed"


@pytest.mark.parametrize("scoped", [False, True], ids=["dropped", "closed"])
def test_an_early_end_reaches_the_server(
    flavour: str, proxy: ProxyProgram, server: ChatServer, authority: Authority, scoped: bool
) -> None:
    server.plan(Answer(tokens=WORDS * 500, pace=0.01))
    asks = [Ask(take=3, scoped=scoped), Ask()]
    talk = converse(flavour, asks, base_url=server.url, proxies=proxy.locked, verify=authority.ca)
    assert len(talk.told[0].chunks) == 3
    assert talk.told[1].text == "".join(WORDS)
    assert talk.busy == 0
    # The proxy has let go of it, too.
    assert server.wait_outcome(0, 1) == "client-closed"
    first, second = server.requests
    assert first.connection != second.connection


def test_an_idle_reply_times_out(flavour: str, proxy: ProxyProgram, server: ChatServer, authority: Authority) -> None:
    server.plan(Answer(tokens=WORDS, finish_reason=None, done=False, ending="stall"))
    told = ask(
        flavour,
        Ask(),
        base_url=server.url,
        proxies=proxy.locked,
        verify=authority.ca,
        timeout=Timeout(first_content=20, idle=0.3),
    )
    error = only(told.error, TimeoutError)
    assert isinstance(error, TimeoutError)
    assert error.deadline == "idle"
    assert error.partial is not None
    assert error.partial.choices[0].message.content == "".join(WORDS)
    assert server.wait_outcome(0, 1) == "client-closed"


@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_reply_that_breaks_off(
    flavour: str, proxy: ProxyProgram, server: ChatServer, authority: Authority, ending: str
) -> None:
    server.plan(Answer(tokens=WORDS, finish_reason=None, done=False, ending=ending))  # type: ignore[arg-type]
    told = ask(flavour, Ask(), base_url=server.url, proxies=proxy.locked, verify=authority.ca)
    assert broken(told).startswith("One two")


def broken(told: Told) -> str:
    """What had come of a reply before it broke, in whichever of the two ways a proxy passes that on."""
    assert told.error is not None
    assert type(told.error).__name__ in ("TruncatedStreamError", "ReadError"), repr(told.error)
    partial = told.error.partial  # type: ignore[attr-defined]
    assert partial is not None
    return partial.choices[0].message.content or ""


def test_ten_at_once(flavour: str, proxy: ProxyProgram, server: ChatServer, authority: Authority) -> None:
    server.plan(*(Answer(tokens=[f"{number} ", *WORDS], pace=0.02) for number in range(10)))
    talk = converse(
        flavour, [Ask()] * 10, together=True, base_url=server.url, proxies=proxy.locked, verify=authority.ca
    )
    assert sorted(told.text for told in talk.told) == [f"{number} One two three." for number in range(10)]
    assert talk.busy == 0


def test_a_large_request_and_reply(flavour: str, proxy: ProxyProgram, server: ChatServer, authority: Authority) -> None:
    text = "näh " * 500_000
    server.plan(Answer(tokens=[text[:1_000_000]], finish_reason="length"))
    messages = [{"role": "user", "content": text}]
    told = ask(flavour, Ask(messages=messages), base_url=server.url, proxies=proxy.locked, verify=authority.ca)
    assert told.text == text[:1_000_000]
    assert json.loads(server.requests[0].body)["messages"] == messages


@pytest.mark.parametrize("secured", [False, True], ids=["http", "https"])
def test_no_server_behind_the_proxy(flavour: str, proxy: ProxyProgram, authority: Authority, secured: bool) -> None:
    port = free_port()
    told = ask(
        flavour,
        Ask(),
        base_url=f"{'https' if secured else 'http'}://127.0.0.1:{port}/v1",
        proxies=proxy.locked,
        verify=authority.ca,
    )
    if secured or proxy.socks:
        error = only(told.error, ProxyError)
        assert isinstance(error, ProxyError)
        assert (error.status_code in (500, 503)) != proxy.socks
        assert error.reply_code == (5 if proxy.socks else None)
        assert error.transient
        assert f"127.0.0.1:{port}" in str(error)
    else:
        # The proxy answers in the server's place, and nothing but the words tells.
        reply = only(told.error, InternalServerError)
        assert isinstance(reply, InternalServerError)
        assert reply.status_code in (500, 503)


@pytest.mark.parametrize("secured", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("name", named(HTTP_PROXIES))
def test_a_target_that_the_rules_forbid(
    flavour: str, name: str, proxies: Callable[[str], ProxyProgram], authority: Authority, secured: bool
) -> None:
    # (As dante does it: test_socks_real.py.)
    proxy = proxies(name)
    told = ask(
        flavour,
        Ask(),
        base_url=f"{'https' if secured else 'http'}://127.0.0.1:{proxy.forbidden}/v1",
        proxies=proxy.locked,
        verify=authority.ca,
        max_retries=2,
    )
    error = only(told.error, ProxyError if secured else PermissionDeniedError)
    assert isinstance(error, ProxyError | PermissionDeniedError)
    assert (error.status_code, error.retries_taken) == (403, 0)
    assert proxy.missing in str(error)


@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_an_untrusted_certificate(flavour: str, proxy: ProxyProgram, authority: Authority, wrong: str) -> None:
    # TLS is with the server, from end to end: the proxy's word for it does not count.
    context = stranger() if wrong == "authority" else authority.issue("elsewhere.example")
    with ChatServer(ssl_context=context) as server:
        told = ask(flavour, Ask(), base_url=server.url, proxies=proxy.locked, verify=authority.ca, max_retries=2)
        error = only(told.error, ConnectError)
        assert isinstance(error, ConnectError)
        assert not error.transient
        assert error.retries_taken == 0
        assert "the certificate of 127.0.0.1 is not trusted" in str(error)
        assert ("IP address mismatch" in str(error)) == (wrong == "name")
        assert server.requests == []


def stranger() -> ssl.SSLContext:
    """For a server: a certificate of an authority that nobody knows."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.mark.parametrize("name", named(PROXIES))
def test_a_proxy_that_has_gone(
    flavour: str, name: str, server: ChatServer, authority: Authority, start_proxy: StartProxy
) -> None:
    program, servers = start_proxy(name)
    # One that was used before: its connection may stand in the pool.

    def key() -> str:
        if len(server.requests) == 1:
            for each in servers:
                each.stop(hard=True)
        return "sk-interop"

    talk = converse(
        flavour, [Ask(), Ask()], base_url=server.url, proxies=program.locked, verify=authority.ca, api_key=key
    )
    assert talk.told[0].text == "".join(WORDS)
    assert talk.busy == 0
    # And one that was never there.
    never = ask(flavour, Ask(), base_url=server.url, proxies=program.locked, verify=authority.ca)
    for told in (talk.told[1], never):
        error = only(told.error, ProxyError)
        assert isinstance(error, ProxyError)
        assert error.status_code is None
        assert error.transient
        assert program.missing in str(error)
    assert len(server.requests) == 1


@pytest.mark.parametrize("excepted", [False, True], ids=["proxied", "no_proxy"])
def test_the_environment_names_the_proxy(
    flavour: str,
    proxy: ProxyProgram,
    server: ChatServer,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    excepted: bool,
) -> None:
    before = len(proxy.requests(server.port))
    monkeypatch.setenv("HTTP_PROXY", proxy.locked)
    monkeypatch.setenv("HTTPS_PROXY", proxy.locked)
    monkeypatch.setenv("NO_PROXY", f"localhost,127.0.0.0/8:{server.port},127.0.0.1" if excepted else "localhost")
    told = ask(flavour, Ask(), base_url=server.url, verify=authority.ca, trust_env=True)
    assert told.text == "".join(WORDS)
    if excepted:
        assert len(proxy.requests(server.port)) == before
    else:
        assert len(proxy.wait_requests(before + 1, server.port)) == before + 1
