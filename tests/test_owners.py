"""The connections of a client: which transport sends what, who shares it, and who closes it."""

from __future__ import annotations

import gc
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from driving import HI, MODEL, Driver, Run, unix_socket

from deltawire import AsyncClient, Client, ConfigurationError, OpenaiTemplate, UsageError
from deltawire.owners import async_owner, sync_owner
from deltawire.testing import ChatServer, ProxyServer
from deltawire.transports import (
    AsyncHTTPCoreTransport,
    AsyncWireTransport,
    HTTPCoreTransport,
    ImpersonateTransport,
    WireTransport,
)

pytestmark = pytest.mark.usefixtures("_tidy")

both = pytest.mark.parametrize("make", [sync_owner, async_owner])
clients = pytest.mark.parametrize("client", [Client, AsyncClient])


class Given:
    """A transport object of the caller's."""

    def __init__(self) -> None:
        self.closed = False

    def open(self, *given: Any, **named: Any) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


class Impersonating(Given):
    impersonates = True


# --- Which one ---------------------------------------------------------------------------------------------


@both
def test_one_for_each_way_to_check_certificates(make: Any, trusting: ssl.SSLContext) -> None:
    owner = make()
    usual = owner.transport_for("P", None, "")
    assert owner.transport is usual
    assert owner.transport_for("P", True, "") is usual
    others = [owner.transport_for("P", verify, "") for verify in (False, trusting)]
    assert len({id(each) for each in (usual, *others)}) == 3
    assert [owner.transport_for("Q", verify, "") for verify in (False, trusting)] == others


@both
def test_true_means_checked(make: Any) -> None:
    """A provider that insists is not overruled by a client that does not care."""
    owner = make(verify=False)
    careless = owner.transport_for("P", None, "")
    assert owner.transport_for("P", False, "") is careless
    assert owner.transport_for("P", True, "") is not careless


@both
def test_made_on_first_use(make: Any) -> None:
    owner = make()
    browser = owner.transport_for("P", None, "chrome")
    assert owner.transport is browser, "the first one"
    assert owner.transport_for("P", None, "firefox") is browser, "for all browsers"
    assert type(owner.transport_for("P", None, "")) in (HTTPCoreTransport, AsyncHTTPCoreTransport)
    assert getattr(make("impersonate").transport_for("P", None, ""), "impersonates", False)


@both
def test_threads_share(make: Any) -> None:
    owner, found, together = make(), [], threading.Barrier(8)

    def work() -> None:
        together.wait(5)
        found.append((owner.transport_for("P", None, ""), owner.transport_for("P", False, "")))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1


# --- What is refused -----------------------------------------------------------------------------------------


@clients
@pytest.mark.parametrize("name", ["carrier pigeon", "wires", ""])
def test_unknown_transports(client: Any, name: str) -> None:
    with pytest.raises(ConfigurationError, match="unknown transport"):
        client(transport=name)


@clients
@pytest.mark.parametrize(
    "options", [{"verify": False}, {"verify": "ca.pem"}, {"http2": True}, {"uds": "/x"}, {"local_address": "127.0.0.1"}]
)
def test_settings_beside_an_object(client: Any, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ConfigurationError, match=f"{name}= is for the transports that a client makes"):
        client(transport=Given(), **options)


@both
@pytest.mark.parametrize("verify", [False, "ca.pem", Path("ca.pem")])
def test_a_provider_that_wants_it_otherwise_than_an_object(make: Any, verify: Any) -> None:
    owner = make(given := Given())
    assert owner.transport_for("P", None, "") is owner.transport_for("P", True, "") is owner.transport is given
    with pytest.raises(ConfigurationError, match="P sets ssl=") as caught:
        owner.transport_for("P", verify, "")
    assert "leave ssl out" in str(caught.value)


@both
def test_an_object_that_can_and_one_that_cannot_impersonate(make: Any) -> None:
    able = Impersonating()
    assert make(able).transport_for("P", None, "chrome") is able
    with pytest.raises(ConfigurationError, match="transport='impersonate'"):
        make(Given()).transport_for("P", None, "chrome")


@both
def test_the_wire_speaks_no_http2(make: Any) -> None:
    with pytest.raises(ConfigurationError, match="leave out http2"):
        make("wire", http2=True).transport_for("P", None, "")


@both
def test_a_transport_by_its_name(make: Any) -> None:
    for name, kinds in {
        "httpcore": (HTTPCoreTransport, AsyncHTTPCoreTransport), "wire": (WireTransport, AsyncWireTransport),
    }.items():  # fmt: skip
        assert type(make(name).transport_for("P", None, "")) in kinds


@clients
@pytest.mark.parametrize("name", ["httpcore", "wire"])
def test_these_do_not_impersonate(client: Any, name: str) -> None:
    with pytest.raises(ConfigurationError, match="deltawire\\[impersonate\\]"):
        client(transport=name, impersonate="chrome")
    with pytest.raises(ConfigurationError, match="deltawire\\[impersonate\\]"):
        client(transport=Given(), impersonate="chrome")


@clients
def test_a_browser_and_a_context_of_ones_own(client: Any, trusting: ssl.SSLContext) -> None:
    with pytest.raises(ConfigurationError, match="SSLContext"):
        client(impersonate="chrome", verify=trusting)


# --- Who closes ------------------------------------------------------------------------------------------------


@both
def test_closed(make: Any) -> None:
    owner = make()
    made = [
        owner.transport_for("P", None, ""),
        owner.transport_for("P", False, ""),
        owner.transport_for("P", None, "chrome"),
    ]
    assert owner.close() == made
    for verify in (None, False, "ca.pem"):
        with pytest.raises(UsageError, match="closed"):
            owner.transport_for("P", verify, "")


def test_an_object_is_not_closed(run: Run) -> None:
    given = Given()
    with Client(transport=given, api_key="sk-1") as client:
        assert client.transport is given
    with pytest.raises(UsageError, match="closed"):
        client.chat.completions.create(HI)

    async def main() -> None:
        async with AsyncClient(transport=given, api_key="sk-1") as client:
            pass
        with pytest.raises(UsageError, match="closed"):
            await client.chat.completions.create(HI)

    run(main)
    gc.collect()
    assert not given.closed


class Unchecked(OpenaiTemplate):
    ssl = False


def test_all_of_them_are_closed(tls_server: ChatServer, server: ChatServer) -> None:
    with Client() as client:
        client.chat.completions.create(HI, MODEL, provider=Unchecked, base_url=tls_server.url)
        copy = client.with_options(base_url=server.url)
        copy.chat.completions.create(HI, MODEL)
        copy.chat.completions.create(HI, MODEL, impersonate="chrome")
        assert (tls_server.connections, server.connections) == (1, 2)
    tls_server.wait_closed(1)
    server.wait_closed(2)
    with pytest.raises(UsageError, match="closed"):
        copy.chat.completions.create(HI, MODEL)


def test_all_of_them_go_with_the_last_client(tls_server: ChatServer, server: ChatServer) -> None:
    client: Client | None = Client(base_url=server.url)
    assert client is not None
    copy = client.with_options(max_retries=0)
    copy.chat.completions.create(HI, MODEL)
    copy.chat.completions.create(HI, MODEL, provider=Unchecked, base_url=tls_server.url)
    client = None
    gc.collect()
    copy.chat.completions.create(HI, MODEL)
    assert server.connections == 1
    del copy
    gc.collect()
    server.wait_closed(1)
    tls_server.wait_closed(1)


def test_providers_and_their_certificates(driver: Driver, tls_server: ChatServer) -> None:
    assert driver.stream({"base_url": tls_server.url, "provider": Unchecked}).text == "Hello"
    refused = driver.stream({"base_url": tls_server.url, "provider": OpenaiTemplate, "max_retries": 0})
    assert "certificate" in str(refused.error)
    insists = OpenaiTemplate(ssl=True)
    refused = driver.stream({"base_url": tls_server.url, "provider": insists, "verify": False, "max_retries": 0})
    assert "certificate" in str(refused.error)


# --- Browsers ----------------------------------------------------------------------------------------------------


def browser(server: ChatServer) -> str:
    return server.requests[-1].header("user-agent") or ""


def test_who_impersonates(driver: Driver, server: ChatServer) -> None:
    given = {"base_url": server.url}
    ways: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"impersonate": "chrome"}, {}, "Chrome/"),
        ({}, {"impersonate": "firefox"}, "Firefox/"),
        ({"impersonate": "chrome"}, {"impersonate": "firefox"}, "Firefox/"),
        ({"transport": "impersonate"}, {}, "Chrome/"),
        ({"transport": "impersonate"}, {"impersonate": "safari"}, "Safari/"),
        ({"transport": "impersonate", "http2": True}, {}, "Chrome/"),
        ({}, {}, "deltawire/"),
    ]
    for client, call, name in ways:
        heard = driver.stream({**given, **client}, **call)
        assert (heard.text, heard.error) == ("Hello", None)
        assert name in browser(server), (client, call)


def test_all_that_a_client_asks_for(server: ChatServer) -> None:
    with Client(base_url=server.url, impersonate="firefox") as client:
        client.models.list()
        client.images.generate("a cat")
        client.models.get_all()
        copy = client.with_options(impersonate=None)
        copy.models.list()
        assert isinstance(client.transport, ImpersonateTransport)
    names = [(request.header("user-agent") or "") for request in server.requests]
    assert ["Firefox/" in name for name in names] == [True, True, True, False]


def test_an_unknown_browser(driver: Driver, server: ChatServer) -> None:
    error = driver.stream({"base_url": server.url}, impersonate="netscape").error
    assert isinstance(error, ConfigurationError)
    assert "netscape" in str(error)
    assert server.connections == 0


def test_through_a_proxy(driver: Driver, server: ChatServer, proxy: ProxyServer) -> None:
    heard = driver.stream({"base_url": server.url, "proxies": proxy.url, "impersonate": "chrome"})
    assert heard.text == "Hello"
    assert "Chrome/" in browser(server)
    assert len(proxy.requests) >= 1


@pytest.mark.parametrize("impersonate", ["chrome", None])
def test_unix_sockets_and_addresses(server: ChatServer, tmp_path: Path, impersonate: str | None) -> None:
    path = str(tmp_path / "socket")
    with (
        unix_socket(path, server.port),
        Client(base_url="http://nowhere.invalid/v1", uds=path, impersonate=impersonate) as client,
    ):
        assert client.chat.completions.create(HI, MODEL).choices[0].message.content == "Hello"
    with Client(base_url=server.url, local_address="127.0.0.1", impersonate=impersonate) as client:
        assert client.chat.completions.create(HI, MODEL).choices[0].message.content == "Hello"
