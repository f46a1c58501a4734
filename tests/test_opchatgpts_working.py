"""`Opchatgpts`: its own site is dead and refused, another one works."""

from __future__ import annotations

from typing import Any

import pytest
from driving import HI, Driver
from sites import asked

from deltawire import Opchatgpts, ProviderNotWorkingError
from deltawire.testing import ChatServer


def test_what_it_says_of_itself() -> None:
    for found in (Opchatgpts, Opchatgpts()):
        assert found.url == "https://opchatgpts.net"
        assert found.working is False
        assert found.supports_stream is True
        assert found.supports_message_history is True
        assert found.supports_gpt_35_turbo is True


@pytest.mark.parametrize("provider", ["Opchatgpts", Opchatgpts, Opchatgpts(), Opchatgpts(bot_id="x")])
def test_the_dead_site_is_refused(driver: Driver, provider: Any) -> None:
    for heard in (
        driver.ask({"provider": provider}),
        driver.stream({}, provider=provider),
        driver.stream({"provider": provider}, ignore_working=False),
    ):
        assert isinstance(heard.error, ProviderNotWorkingError)
        assert "Opchatgpts is marked as not working" in str(heard.error)
        assert "ignore_working=True" in str(heard.error)


def test_the_dead_site_s_generator_is_refused() -> None:
    for provider in (Opchatgpts, Opchatgpts()):
        with pytest.raises(ProviderNotWorkingError):
            provider.create_async_generator("", HI)
        with pytest.raises(ProviderNotWorkingError):
            provider.create_generator("", HI)


@pytest.mark.parametrize(("of_client", "of_call"), [(True, {}), (False, {"ignore_working": True})])
def test_ignore_working(driver: Driver, server: ChatServer, of_client: bool, of_call: dict[str, Any]) -> None:
    provider = Opchatgpts(url=server.site_url, working=False)
    assert isinstance(driver.ask({"provider": provider}).error, ProviderNotWorkingError)
    assert server.connections == 0
    heard = driver.ask({"provider": provider, "ignore_working": of_client}, **of_call)
    assert heard.text == "Hello"


def test_another_site_works(driver: Driver, server: ChatServer) -> None:
    class Site(Opchatgpts):
        url = server.site_url

    class Other(Opchatgpts):
        base_url = server.site_url

    class Later(Site):
        bot_id = "x"

    class Marked(Opchatgpts):
        url = server.site_url
        working = False

    assert (Site.working, Site().working, Later.working, Marked.working) == (True, True, True, False)
    assert (Other.url, Other.working, Other(base_url="http://x").url) == (server.site_url, True, "http://x")
    for options in (
        {"provider": Site},
        {"provider": Site()},
        {"provider": Later},
        {"provider": Other},
        {"provider": Opchatgpts(url=server.site_url)},
        {"provider": Opchatgpts(base_url=server.site_url)},
        {"provider": Opchatgpts, "base_url": server.site_url},
        {"provider": "Opchatgpts", "base_url": server.site_url},
    ):
        assert driver.ask(options).text == "Hello"
    heard = driver.ask({"provider": Opchatgpts}, base_url=server.site_url)
    assert heard.text == "Hello"
    assert isinstance(driver.ask({"provider": Marked}).error, ProviderNotWorkingError)
    assert Opchatgpts.working is False
    assert asked(server).count("submit") == 9
