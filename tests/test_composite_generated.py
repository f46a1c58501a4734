"""Several providers, some with a way of their own to a server: sync, on asyncio and on trio."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator
from typing import Any

import pytest
from driving import Driver

from deltawire import (
    AsyncGeneratorProvider,
    OpenaiTemplate,
    RetryNoProviderError,
    RetryPolicy,
    RetryProvider,
    RetryProviderError,
    RotatedProvider,
)
from deltawire.protocol.pieces import FinishReason, Reasoning
from deltawire.testing import ChatServer

pytestmark = pytest.mark.usefixtures("_tidy")

both_kinds = pytest.mark.parametrize("stream", [True, False])

AT_ONCE = RetryPolicy(max_retries=2, initial=0)


class Scripted(AsyncGeneratorProvider):
    """A provider of one's own that does as it is told, call by call."""

    def __init__(self, *scripts: list[Any]) -> None:
        super().__init__()
        self.scripts = list(scripts)
        self.calls = 0

    async def create_async_generator(self, model: str | None, messages: Any, **kwargs: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        script = self.scripts[min(self.calls, len(self.scripts) - 1)]
        self.calls += 1
        for piece in script:
            if isinstance(piece, Exception):
                raise piece
            yield piece


SAYS = ["Good ", "day"]


def broken() -> Exception:
    return ConnectionError("broken")


def in_turn(*providers: Any) -> RetryProvider:
    return RetryProvider(list(providers), shuffle=False)


@both_kinds
@pytest.mark.parametrize(
    "script",
    [[broken()], [ValueError("odd")], [], [""], ["", broken()], [FinishReason("length"), broken()]],
    ids=repr,
)
def test_the_next_is_asked(driver: Driver, script: list[Any], stream: bool) -> None:
    first, second = Scripted(script), Scripted(SAYS)
    heard = driver.ask({"provider": in_turn(first, second)}, stream=stream)
    assert (heard.text, heard.error) == ("Good day", None)
    assert (first.calls, second.calls) == (1, 1)


@pytest.mark.parametrize("shown", ["Good ", Reasoning("Hm")], ids=repr)
@pytest.mark.parametrize("kind", [in_turn, lambda *given: RotatedProvider(given)])
def test_after_content_nobody_is_asked(driver: Driver, kind: Any, shown: Any) -> None:
    first, second = Scripted([shown, broken()]), Scripted(SAYS)
    heard = driver.stream({"provider": kind(first, second, first)})
    assert heard.text == str(shown)
    assert isinstance(heard.error, ConnectionError)
    assert (first.calls, second.calls) == (1, 0)


def test_what_was_not_shown_is_asked_for_again(driver: Driver) -> None:
    first, second = Scripted(["Hel", broken()]), Scripted(SAYS)
    assert driver.ask({"provider": in_turn(first, second)}).text == "Good day"


@both_kinds
@pytest.mark.parametrize(
    ("error", "calls"),
    [(broken(), 3), (builtins.TimeoutError("late"), 3), (ValueError("odd"), 1), (OSError(28, "full", "disk"), 1)],
)
def test_the_same_one_again(driver: Driver, error: Exception, calls: int, stream: bool) -> None:
    only = Scripted([error])
    provider = RetryProvider([only], single_provider_retry=True, max_retries=3)
    raised = driver.ask({"provider": provider, "max_retries": AT_ONCE}, stream=stream).error
    assert only.calls == calls
    if calls == 1:
        assert raised is error
    else:
        assert isinstance(raised, RetryProviderError)
        assert raised.errors == [error] * calls
    only.calls = 0
    assert driver.ask({"provider": only, "max_retries": AT_ONCE}, stream=stream).error is error
    assert only.calls == calls


@both_kinds
def test_all_silent(driver: Driver, stream: bool) -> None:
    heard = driver.ask({"provider": in_turn(Scripted([]), Scripted([""]))}, stream=stream)
    assert isinstance(heard.error, RetryNoProviderError)


def test_beside_one_of_ours(driver: Driver, server: ChatServer) -> None:
    own = Scripted([broken()])
    ours = OpenaiTemplate(api_base=server.url)
    provider = in_turn(own, ours)
    assert driver.stream({"provider": provider}).text == "Hello"
    assert provider.last_provider is ours
    gone = OpenaiTemplate(needs_auth=True, api_key="")
    assert driver.stream({"provider": in_turn(gone, Scripted(SAYS))}).text == "Good day"
