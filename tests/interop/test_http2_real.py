"""hypercorn, which speaks HTTP/2 and HTTP/1.1 in TLS, direct and in the proxies' tunnels.

The wire's transports speak HTTP/1.1 alone, also with a server that could do more; they say so when asked for HTTP/2.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from driving import httpcore_only
from interop_calls import Ask, ask, converse
from interop_proxies import Route
from interop_servers import Authority, StartServer

from deltawire import ConfigurationError, NotFoundError, Timeout, TimeoutError

pytestmark = [pytest.mark.interop("http2"), pytest.mark.usefixtures("transports")]

every_version = pytest.mark.parametrize(
    ("transports", "http2"),
    [("httpcore", False), ("httpcore", True), ("wire", False)],
    ids=["http1", "http2", "wire"],
    indirect=["transports"],
)

# Each kind of tunnel; dante makes the same as microsocks.
ROUTES = ("squid", "tinyproxy", "squid-tls", "microsocks")


@pytest.fixture(scope="session")
def hypercorn(start_server: StartServer, authority: Authority) -> str:
    def command(port: int, directory: Path) -> list[str | Path]:
        tls = ["--certfile", authority.certificate, "--keyfile", authority.key]
        bind = ["--bind", f"127.0.0.1:{port}", "--access-logfile", "-"]
        return [sys.executable, "-m", "hypercorn", *tls, *bind, "asgi_app:app"]

    server = start_server("hypercorn", command, {"PYTHONPATH": str(Path(__file__).parent)})
    return f"https://{server.address}/v1"


@pytest.fixture
def options(hypercorn: str, authority: Authority, route: Route) -> dict[str, Any]:
    return {"base_url": hypercorn, "verify": authority.ca, "http2": True, **route.options}


@pytest.fixture
def either(options: dict[str, Any], http2: bool) -> dict[str, Any]:
    """Those for a test of `every_version`."""
    return {**options, "http2": http2}


def spoken(text: str) -> tuple[str, str, list[str]]:
    """The HTTP version, the client's port, and the other words."""
    version, port, *words = text.split(" ")
    return version, port, words


def words(count: int) -> list[str]:
    return [f"word{number}" for number in range(count)]


@every_version
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_chat(flavour: str, either: dict[str, Any], stream: bool, http2: bool) -> None:
    told = ask(flavour, Ask(stream=stream), **either)
    version, _, said = spoken(told.text)
    assert version == ("2" if http2 else "1.1")
    assert said == words(3)
    assert told.finish_reason == "stop"


@pytest.mark.parametrize("transports", ["wire"], indirect=True)
def test_the_wire_speaks_no_http2(flavour: str, hypercorn: str, authority: Authority) -> None:
    with pytest.raises(ConfigurationError, match=r"transport='wire' speaks HTTP/1\.1"):
        ask(flavour, Ask(), base_url=hypercorn, verify=authority.ca, http2=True, transport="wire")


@httpcore_only
def test_models(flavour: str, options: dict[str, Any]) -> None:
    assert ask(flavour, Ask(models=True), **options).models == ["http-2"]


@every_version
def test_an_error(flavour: str, either: dict[str, Any]) -> None:
    error = ask(flavour, Ask(model="no-such-model"), **either).error
    assert isinstance(error, NotFoundError)
    assert "There is no such model." in str(error)


@every_version
def test_one_connection_for_all(flavour: str, either: dict[str, Any]) -> None:
    talk = converse(flavour, [Ask(), Ask(stream=False)] * 5, **either)
    assert len({spoken(told.text)[1] for told in talk.told}) == 1
    assert (talk.busy, talk.idle) == (0, 1)


@httpcore_only
def test_ten_at_once(flavour: str, options: dict[str, Any]) -> None:
    # One to open the connection, then ten that share it.
    asks = [Ask(options={"user": "30 5"})] * 10
    talk = converse(flavour, asks, together=True, **options)
    assert [spoken(told.text)[2] for told in talk.told] == [words(30)] * 10
    assert {spoken(told.text)[0] for told in talk.told} == {"2"}
    assert talk.busy == 0


@httpcore_only
def test_a_long_reply(flavour: str, options: dict[str, Any]) -> None:
    # More than the 64 KiB of HTTP/2's first window.
    told = ask(flavour, Ask(options={"user": "5000 0"}), **options)
    assert spoken(told.text)[2] == words(5000)


@httpcore_only
def test_a_large_request(flavour: str, options: dict[str, Any]) -> None:
    told = ask(flavour, Ask(messages=[{"role": "user", "content": "x" * 1_000_000}]), **options)
    assert spoken(told.text)[2] == words(3)


@every_version
@pytest.mark.parametrize("scoped", [False, True], ids=["dropped", "closed"])
def test_an_early_end(flavour: str, either: dict[str, Any], scoped: bool) -> None:
    asks = [Ask(take=3, scoped=scoped, options={"user": "5000 5"}), Ask(), Ask(stream=False)]
    talk = converse(flavour, asks, **either)
    assert len(talk.told[0].chunks) == 3
    assert [spoken(told.text)[2] for told in talk.told[1:]] == [words(3)] * 2
    # What follows goes over a new connection, and the old one is closed.
    left, *ports = (spoken(told.text)[1] for told in talk.told)
    assert len(set(ports)) == 1
    assert left not in ports
    assert (talk.busy, talk.idle) == (0, 1)


@httpcore_only
@pytest.mark.parametrize("scoped", [False, True], ids=["dropped", "closed"])
def test_an_early_end_among_others(flavour: str, options: dict[str, Any], scoped: bool) -> None:
    others = [Ask(options={"user": "60 5"})] * 4
    talk = converse(flavour, [*others, Ask(take=5, scoped=scoped, options={"user": "60 5"})], together=True, **options)
    *whole, left = talk.told
    assert [spoken(told.text)[2] for told in whole] == [words(60)] * 4
    assert spoken(left.text)[2] == words(2)
    ports = {spoken(told.text)[1] for told in talk.told}
    if flavour == "sync":
        # Threads share none: the one that was left is closed, the others are kept.
        assert len(ports) == 5
        assert (talk.busy, talk.idle) == (0, 4)
    else:
        # All went over one connection, which was closed with the last of them.
        assert len(ports) == 1
        assert (talk.busy, talk.idle) == (0, 0)


@httpcore_only
def test_an_idle_reply_times_out(flavour: str, options: dict[str, Any]) -> None:
    asks = [Ask(options={"user": "0 400", "timeout": Timeout(first_content=10, idle=0.1)}), Ask()]
    talk = converse(flavour, asks, **options)
    assert talk.busy == 0
    error = talk.told[0].error
    assert isinstance(error, TimeoutError)
    assert error.deadline == "idle"
    assert spoken(talk.told[1].text)[2] == words(3)


@httpcore_only
def test_an_idle_reply_among_others(flavour: str, options: dict[str, Any]) -> None:
    timeout = Timeout(first_content=10, idle=1.0)
    others = [Ask(options={"user": "100 40", "timeout": timeout})] * 4
    # Its first word comes after 1.5 seconds.
    slow = Ask(options={"user": "3 1500", "timeout": timeout})
    *whole, late = converse(flavour, [*others, slow], together=True, **options).told
    assert isinstance(late.error, TimeoutError)
    assert late.error.deadline == "idle"
    assert [spoken(told.text)[2] for told in whole] == [words(100)] * 4
    assert 2.5 <= late.seconds < min(told.seconds for told in whole)
