"""opening.py: connecting, and the handshakes with proxies, against scripted peers; on all three runtimes."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driving import free_port, full_listener
from streaming import LATE, FarTLS, Runtime, heard, is_gone, now, reset, say, serving, tcp_pair, turns
from test_streams_layers import OPTIONS, options_of

from deltawire.protocol import ConfigurationError, ConnectError, Proxy, ProxyError
from deltawire.transports.streams.layers import Expired, after
from deltawire.transports.streams.opening import Way, securing

pytestmark = pytest.mark.usefixtures("_tidy")


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Names have these addresses. (IP addresses keep their own.)"""
    original = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        if (host.decode() if isinstance(host, bytes) else host)[0].isdigit():
            return original(host, port, *more, **named)
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, number))
            for address, number in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


async def failed(runtime: Runtime, port: int, **way: Any) -> Any:
    """The error of an opening."""
    with pytest.raises((ConnectError, Expired)) as caught:
        await now(runtime.open(port, **way))
    return caught.value


# --- Connecting ---------------------------------------------------------------------------------------


def test_connecting(runtime: Runtime) -> None:
    async def main(port: int) -> None:
        for host, local in (("127.0.0.1", None), ("localhost", None), ("127.0.0.1", "127.0.0.1")):
            stream = await now(runtime.open(port, host=host, local_address=local))
            assert stream.get_extra_info("server_addr")[1] == port
            assert options_of(stream.get_extra_info("socket")) == OPTIONS
            stream.abort()

    with serving(is_gone, is_gone, is_gone) as port:
        runtime.run(main, port)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6(runtime: Runtime) -> None:
    async def main(port: int) -> None:
        stream = await now(runtime.open(port, host="::1"))
        assert stream.get_extra_info("server_addr")[:2] == ("::1", port)
        stream.abort()
        error = await failed(runtime, port, host="::1", local_address="127.0.0.1")
        assert "local address 127.0.0.1" in str(error)

    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no ::1 here")
    with listener:
        runtime.run(main, listener.getsockname()[1])


def test_refused(runtime: Runtime) -> None:
    async def main() -> None:
        for host in ("127.0.0.1", "localhost"):
            port = free_port()
            error = await failed(runtime, port, host=host)
            assert isinstance(error, ConnectError)
            assert f"no connection to {host}:{port} (" in str(error)
            assert "refused" in str(error).lower() or "connect call failed" in str(error).lower(), error

    runtime.run(main)


def test_nobody_answers(runtime: Runtime) -> None:
    async def main(port: int) -> None:
        for within in (0.1, 0.0, -1.0):
            due = max(after(within), time.monotonic())
            error = await failed(runtime, port, within=within)
            assert isinstance(error, Expired)
            assert str(error) == "the server takes no connection"
            assert 0 <= time.monotonic() - due < LATE

    with full_listener() as port:
        runtime.run(main, port)


@pytest.mark.parametrize(
    "host", ["nowhere.invalid", "a" * 64 + ".x", "a..b", ".x", "a" * 300, "\u00fc" * 64 + ".x", "\ud800.x"]
)
def test_names_that_lead_nowhere(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    original = socket.getaddrinfo

    def getaddrinfo(name: Any, *more: Any, **named: Any) -> Any:
        if name in ("nowhere.invalid", b"nowhere.invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return original(name, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def main() -> None:
        error = await failed(runtime, 80, host=host)
        assert isinstance(error, ConnectError)
        assert str(error).startswith("no connection to ")
        for scheme in ("http", "socks5h"):
            error = await failed(runtime, 80, proxy=Proxy(scheme, host, 1))
            assert isinstance(error, ProxyError)
        error = await failed(runtime, 80, host=host, proxy=Proxy("socks5", "127.0.0.1", free_port()))
        assert "can't be looked up here" in str(error)

    runtime.run(main)


def test_looking_up_takes_too_long(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that can give up on it do; a thread that blocks hears of it when it is over."""

    def stuck(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        # trio asks first whether there is nothing to look up.
        if not (more and more[-1] & socket.AI_NUMERICHOST):
            over.wait(0.2 if runtime.blocks else 5)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    async def main(**way: Any) -> None:
        error = await failed(runtime, 80, host="name", within=0.1, **way)
        if not runtime.blocks:
            assert isinstance(error, Expired)
            assert time.monotonic() - begin < 1
        over.set()

    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    for way in ({}, {"proxy": Proxy("socks5", "127.0.0.1", free_port())}):
        over, begin = threading.Event(), time.monotonic()
        runtime.run(lambda way=way: main(**way))


@pytest.mark.parametrize("first", ["dead", "silent"])
def test_the_next_address(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    async def main(port: int) -> None:
        stream = await now(runtime.open(80, host="name", within=1))
        assert stream.get_extra_info("server_addr")[1] == port
        stream.abort()

    with full_listener() as silent, serving(is_gone) as port:
        bad = silent if first == "silent" else free_port()
        resolving(monkeypatch, ("127.0.0.1", bad), ("127.0.0.1", port))
        runtime.run(main, port)


def test_local_addresses(runtime: Runtime) -> None:
    async def main(port: int) -> None:
        # TEST-NET-1 is nobody's; the other is no address.
        for local in ("192.0.2.1", "a" * 64 + ".x"):
            error = await failed(runtime, port, local_address=local)
            assert f"from the local address {local}" in str(error)

    with serving() as port:
        runtime.run(main, port)


def test_unix_sockets(runtime: Runtime, tmp_path: Path) -> None:
    path, plain = tmp_path / "here", tmp_path / "plain"
    plain.touch()

    async def main() -> None:
        stream = await now(runtime.open(80, host="name", uds=str(path)))
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(5)
            await now(stream.write(b"question"))
            assert connection.recv(100) == b"question"
            connection.sendall(b"answer")
            assert await now(stream.read()) == b"answer"
            assert not stream.get_extra_info("is_readable")
            stream.abort()
            await runtime.gone(connection)
        for bad in (tmp_path / "none", plain, tmp_path, tmp_path / ("long" * 50)):
            error = await failed(runtime, 80, uds=str(bad))
            assert isinstance(error, ConnectError)
            assert str(bad) in str(error)

    with socket.socket(socket.AF_UNIX) as listener:
        # The path may be too long for the system, but not from within.
        before = Path.cwd()
        os.chdir(tmp_path)
        try:
            listener.bind("here")
        finally:
            os.chdir(before)
        listener.listen()
        runtime.run(main)


def test_a_unix_socket_whose_queue_is_full(runtime: Runtime, tmp_path: Path) -> None:
    """It is said at once, or by the first write; it never hangs."""
    path = str(tmp_path / "full")

    async def used() -> None:
        stream = await now(runtime.open(80, uds=path, within=0.3))
        try:
            await now(stream.write(b"x"))
            await now(stream.read())
        finally:
            stream.abort()

    async def main() -> None:
        with pytest.raises((OSError, ConnectError, Expired)):
            await used()

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket(socket.AF_UNIX))
            filler.setblocking(False)
            filler.connect_ex(path)
        runtime.run(main)


# --- Proxies ------------------------------------------------------------------------------------------

CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
METHOD, PASSED, REPLY = b"\x05\x00", b"\x01\x00", b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50"


class Turns:
    """A scripted proxy: hears something and says the next words, and so on; then waits, or ends."""

    def __init__(self, *words: bytes, end: Callable[[socket.socket], object] = is_gone, tls: Any = None) -> None:
        self.heard: list[bytes] = []
        self._words = words
        self._end = end
        self._tls = tls

    def __call__(self, connection: socket.socket) -> None:
        tls = None if self._tls is None else FarTLS(self._tls).over(connection)
        for words in self._words:
            self.heard.append(heard(connection, tls))
            say(connection, words, tls)
        self._end(connection)


WAYS: dict[str, tuple[str, tuple[bytes, ...]]] = {
    "http": ("http", (CONNECTED,)),
    "https": ("https", (CONNECTED,)),
    "socks5h": ("socks5h", (METHOD, REPLY)),
    "socks5h with a password": ("socks5h", (b"\x05\x02", PASSED, REPLY)),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def proxy_at(name: str, port: int) -> Proxy:
    user = ("me", "secret") if "password" in name else (None, None)
    return Proxy(WAYS[name][0], "localhost" if name == "https" else "127.0.0.1", port, *user)


@contextlib.contextmanager
def proxies(name: str, *scripts: Callable[[socket.socket], object]) -> Iterator[Proxy]:
    with serving(*scripts) as port:
        yield proxy_at(name, port)


def test_tunnels(
    runtime: Runtime, way: str, trusting: ssl.SSLContext, server_context: ssl.SSLContext, authority: Any
) -> None:
    async def main(proxy: Proxy) -> None:
        opened = runtime.open(443, host="api.example", proxy=proxy, proxy_context=lambda: trusting)
        stream = await now(opened)
        # What the server says before it is asked.
        assert await now(stream.read()) == b"early"
        await now(stream.write(b"question"))
        assert await now(stream.read()) == b"answer"
        stream.abort()

    words = WAYS[way][1]
    script = Turns(*words[:-1], words[-1] + b"early", b"answer", tls=server_context if way == "https" else None)
    with proxies(way, script) as proxy:
        runtime.run(main, proxy)
    if way == "socks5h with a password":
        assert script.heard[1] == b"\x01\x02me\x06secret"
    target = b"CONNECT api.example:443" if "http" in way else b"\x05\x01\x00\x03\x0bapi.example\x01\xbb"
    assert script.heard[len(words) - 1].startswith(target)
    assert script.heard[-1] == b"question"


def test_no_tunnel_to_the_proxy_itself(
    runtime: Runtime, trusting: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    """A request for it to pass on is for its own ears."""

    async def main(proxy: Proxy) -> None:
        opened = runtime.open(proxy.port, host=proxy.host, proxy=proxy, proxy_context=lambda: trusting, forwards=True)
        stream = await now(opened)
        await now(stream.write(b"GET http://"))
        assert await now(stream.read()) == b"answer"
        stream.abort()

    for way in ("http", "https"):
        script = Turns(b"answer", tls=server_context if way == "https" else None)
        with proxies(way, script) as proxy:
            runtime.run(main, proxy)
        assert script.heard == [b"GET http://"]


def test_a_proxy_that_ends_or_stalls_anywhere(
    runtime: Runtime, way: str, trusting: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async def main(ending: Any, cut: tuple[bytes, ...]) -> None:
        script = Turns(*cut, end=ending, tls=server_context if way == "https" else None)
        with proxies(way, script) as proxy:
            due = after(0.05)
            error = await failed(
                runtime, 443, host="api.example", within=0.05 if ending is is_gone else 5.0,
                proxy=proxy, proxy_context=lambda: trusting,
            )  # fmt: skip
            if ending is is_gone:
                assert 0 <= time.monotonic() - due < LATE
                assert isinstance(error, Expired)
                # With https the deadline may hit the handshake before.
                assert (proxy.url in str(error) and "no answer in time" in str(error)) or way == "https"
            else:
                assert isinstance(error, ProxyError)
                assert error.transient
            if not runtime.blocks:
                await turns()

    words = WAYS[way][1]
    for turn in range(len(words)):
        for at in range(0, len(words[turn]), 1 if len(words[turn]) < 20 else 7):
            cut = (*words[:turn], words[turn][:at])
            for ending in (is_gone, socket.socket.close, reset):
                if way != "https" or at % 3 == 0:
                    runtime.run(main, ending, cut)


def test_a_proxy_that_dribbles(runtime: Runtime, way: str) -> None:
    """Bytes come all the time, a tunnel does not."""
    if way == "https":
        return
    over = threading.Event()

    def dribble(connection: socket.socket) -> None:
        endless = METHOD if "socks" in way else b"HTTP/1.1 200 OK\r\n"
        for drop in endless + (b"x" * 10_000 if way == "http" else b"\x05\x00\x00\x03\xff" + b"x" * 254):
            connection.sendall(bytes([drop]))
            if over.wait(0.01):
                return
        is_gone(connection)

    async def main(proxy: Proxy) -> None:
        due = after(0.15)
        try:
            error = await failed(runtime, 443, host="api.example", within=0.15, proxy=proxy)
        finally:
            over.set()
        assert isinstance(error, Expired)
        assert 0 <= time.monotonic() - due < LATE

    with proxies(way if "password" not in way else "socks5h", dribble) as proxy:
        runtime.run(main, proxy)


GARBAGE = [b"\0", b"\xff" * 100, b"SSH-2.0-OpenSSH_9.6\r\n", b"<html>\n", b"\x15\x03\x01\x00\x02\x02\x28", b"\n" * 65]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_proxy_that_speaks_another_language(
    runtime: Runtime, way: str, trusting: ssl.SSLContext, garbage: bytes
) -> None:
    async def main(proxy: Proxy) -> None:
        error = await failed(runtime, 443, host="api.example", proxy=proxy, proxy_context=lambda: trusting)
        assert isinstance(error, ProxyError)
        assert proxy.url in str(error)
        assert "secret" not in str(error)

    with proxies(way, Turns(garbage, end=socket.socket.close)) as proxy:
        runtime.run(main, proxy)


def test_refusals(runtime: Runtime) -> None:
    refusals: list[tuple[str, tuple[bytes, ...], str]] = [
        ("socks5h", (b"\x05\xff",), "wants user and password"),
        ("socks5h with a password", (b"\x05\xff",), "another proof"),
        ("socks5h with a password", (b"\x05\x02", b"\x01\x01"), "refused user and password"),
        ("socks5h", (METHOD, b"\x05\x02\x00\x01"), "does not allow"),
        ("http", (b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n",), "wants other credentials"),
        ("http", (b"HTTP/1.1 502 Sorry\r\n\r\n",), "502 Sorry"),
        # It has refused; that it says no more changes nothing.
        ("http", (b"HTTP/1.1 403 No\r\nContent-Length: 100\r\n\r\nbecause",), "because"),
    ]

    async def main(proxy: Proxy, words: str) -> None:
        error = await failed(runtime, 443, host="api.example", proxy=proxy, within=0.3)
        assert isinstance(error, ProxyError)
        assert words in str(error)
        assert "secret" not in str(error)

    for way, said, words in refusals:
        with proxies(way, Turns(*said)) as proxy:
            runtime.run(main, proxy, words)


# --- Names that are looked up for a proxy -------------------------------------------------------------


def test_names_are_looked_up_here_for_socks5(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(port: int) -> None:
        proxy = Proxy("socks5", "127.0.0.1", port)
        (await now(runtime.open(443, host="api.example", proxy=proxy))).abort()
        # An address needs no looking up.
        (await now(runtime.open(443, host="192.0.2.7", proxy=proxy))).abort()

    resolving(monkeypatch, ("192.0.2.1", 443), ("192.0.2.2", 443))
    scripts = [Turns(METHOD, REPLY), Turns(METHOD, REPLY)]
    with serving(*scripts) as port:
        runtime.run(main, port)
    assert scripts[0].heard[1] == b"\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb"
    assert scripts[1].heard[1] == b"\x05\x01\x00\x01\xc0\x00\x02\x07\x01\xbb"


@pytest.mark.parametrize("code", [3, 4, 5, 6, 8])
def test_another_address_of_the_name(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    async def main(port: int) -> None:
        proxy = Proxy("socks5", "127.0.0.1", port)
        stream = await now(runtime.open(443, host="api.example", proxy=proxy))
        stream.abort()
        error = await failed(runtime, 443, host="api.example", proxy=proxy)
        assert (type(error), error.reply_code) == (ProxyError, code)

    resolving(monkeypatch, ("::1", 443), ("192.0.2.1", 443), ("192.0.2.2", 443), ("192.0.2.2", 443))
    refusing = [Turns(METHOD, b"\x05" + bytes([code])) for _ in range(5)]
    good = Turns(METHOD, REPLY)
    with serving(*refusing[:2], good, *refusing[2:]) as port:
        runtime.run(main, port)
    assert good.heard[1][4:8] == bytes([192, 0, 2, 2])
    assert all(len(each.heard) == 2 for each in refusing)


@pytest.mark.parametrize("code", [1, 2, 7, 99])
def test_what_no_other_address_mends(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    async def main(port: int) -> None:
        error = await failed(runtime, 443, host="api.example", proxy=Proxy("socks5", "127.0.0.1", port))
        assert (type(error), error.reply_code) == (ProxyError, code)

    resolving(monkeypatch, ("192.0.2.1", 443), ("192.0.2.2", 443))
    with serving(Turns(METHOD, b"\x05" + bytes([code]))) as port:
        runtime.run(main, port)


def test_a_host_that_can_not_be_said(runtime: Runtime) -> None:
    async def main(port: int) -> None:
        with pytest.raises(ConfigurationError):
            await now(runtime.open(443, host="a" * 300, proxy=Proxy("socks5h", "127.0.0.1", port)))

    with serving(is_gone) as port:
        runtime.run(main, port)


# --- TLS ----------------------------------------------------------------------------------------------


def test_tls_errors_with_a_proxy(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async def main(host: str, port: int, context: ssl.SSLContext, words: str) -> None:
        proxy = Proxy("https", host, port)
        error = await failed(runtime, 443, host="api.example", proxy=proxy, proxy_context=lambda: context)
        assert isinstance(error, ProxyError)
        assert words in str(error)
        assert error.transient == ("is not trusted" not in words)

    def shake_hands(connection: socket.socket) -> None:
        FarTLS(server_context).over(connection)

    untrusting = ssl.create_default_context()
    with serving(shake_hands, shake_hands, lambda connection: connection.sendall(b"HTTP/1.1 400 x\r\n\r\n")) as port:
        resolving(monkeypatch, ("127.0.0.1", port))
        runtime.run(main, "localhost", port, untrusting, "is not trusted")
        runtime.run(main, "example.org", port, trusting, "is not trusted")
        runtime.run(main, "localhost", port, trusting, "is it an https:// proxy")


def test_no_http2_with_a_proxy(runtime: Runtime, authority: Any) -> None:
    """One context may serve for both; the tunnel is asked for in HTTP/1.1."""
    trusting, context = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(trusting)
    authority.issue_cert("localhost").configure_cert(context)
    for each in (trusting, context):
        each.set_alpn_protocols(["h2", "http/1.1"])

    async def main(proxy: Proxy) -> None:
        stream = await now(runtime.open(443, host="api.example", proxy=proxy, proxy_context=lambda: trusting))
        assert not stream.shared
        assert stream.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        stream.abort()

    with proxies("https", Turns(CONNECTED, tls=context)) as proxy:
        runtime.run(main, proxy)


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_in_a_tunnel(
    runtime: Runtime, way: str, trusting: ssl.SSLContext, server_context: ssl.SSLContext, trusted: bool
) -> None:
    async def main(proxy: Proxy) -> None:
        stream = await now(runtime.open(443, host="localhost", proxy=proxy, proxy_context=lambda: trusting))
        context = trusting if trusted else ssl.create_default_context()
        if trusted:
            await now(runtime.secure(stream, context))
            await now(stream.write(b"question"))
            assert await now(stream.read()) == b"answer"
            stream.abort()
            return
        with (
            pytest.raises(ConnectError, match="localhost is not trusted") as caught,
            securing(Way(proxy=proxy), "localhost"),
        ):
            await now(runtime.secure(stream, context))
        assert not caught.value.transient
        assert stream.closed

    def script(connection: socket.socket) -> None:
        outer = FarTLS(server_context).over(connection) if way == "https" else None
        for words in WAYS[way][1]:
            heard(connection, outer)
            say(connection, words, outer)
        inner = FarTLS(server_context)
        if not trusted:
            with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
                inner.over(connection, outer)
            return
        inner.over(connection, outer)
        assert heard(connection, outer, inner) == b"question"
        say(connection, b"answer", outer, inner)
        is_gone(connection)

    with proxies(way, script) as proxy:
        runtime.run(main, proxy)


def test_the_words_of_tls(runtime: Runtime, trusting: ssl.SSLContext) -> None:
    async def main() -> None:
        for proxy, error in ((None, ConnectError), (Proxy("http", "p", 1), ProxyError)):
            near, far = tcp_pair()
            stream = await runtime.over(near, after(0.05))
            words = "handshake with localhost does not end"
            with far, pytest.raises(Expired, match=words), securing(Way(proxy=proxy), "localhost"):
                await now(runtime.secure(stream, trusting))
            near, far = tcp_pair()
            stream = await runtime.over(near, after(5))
            reset(far)
            with pytest.raises(error, match="no TLS connection to localhost"), securing(Way(proxy=proxy), "localhost"):
                await now(runtime.secure(stream, trusting))
            near, far = tcp_pair()
            stream = await runtime.over(near, after(5))
            with far, pytest.raises(error), securing(Way(proxy=proxy), "a..b"):
                await now(runtime.secure(stream, trusting, "a..b"))

    runtime.run(main)
