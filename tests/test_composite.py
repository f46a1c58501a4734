"""composite.py: who is asked by `RetryProvider`, `IterListProvider` and `RotatedProvider`, in which order."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from plans import script

from deltawire import (
    ConfigurationError,
    IterListProvider,
    Opchatgpts,
    OpenaiChat,
    OpenaiTemplate,
    ReadError,
    RetryNoProviderError,
    RetryPolicy,
    RetryProvider,
    RetryProviderError,
    RotatedProvider,
)
from deltawire.protocol import GiveUp, ProviderNotFoundError, RetryBudget, Send, Sleep
from deltawire.providers import Groq
from deltawire.settings import make


class Local(OpenaiTemplate):
    api_base = "http://127.0.0.1:1/v1"


A, B, C = Local(name="A", api_key="sk-of-a"), Local(name="B"), Local(name="C")
POLICY = RetryPolicy(max_retries=9, jitter=0)


def failing() -> ReadError:
    return ReadError("broken")


def run(provider: Any, *outcomes: Exception | None, budget: RetryBudget | None = None) -> list[Any]:
    """The effects of one call, whose attempts go so."""
    return script(provider.plan(POLICY, budget or RetryBudget()), *outcomes)


def names(effects: list[Any]) -> str:
    """Who was sent a request."""
    return "".join(effect.provider.name for effect in effects if isinstance(effect, Send))


# --- What it is made of ------------------------------------------------------------------------------

KINDS = [RetryProvider, IterListProvider, RotatedProvider]
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
def test_classes_instances_and_names(kind: Any) -> None:
    given = [OpenaiChat, Groq(), "Opchatgpts"]
    provider = kind(given)
    assert provider.providers[:2] == given[:2]
    assert provider.providers[2] is Opchatgpts
    assert given[2] == "Opchatgpts", "the caller's list is his own"


@each_kind
@pytest.mark.parametrize("listed", [tuple, iter, lambda given: dict.fromkeys(given)])
def test_any_collection(kind: Any, listed: Any) -> None:
    assert kind(listed([A, B])).providers == [A, B]


@each_kind
@pytest.mark.parametrize("wrong", [None, 7, "OpenaiChat", OpenaiChat, OpenaiChat()], ids=repr)
def test_what_is_no_list(kind: Any, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="providers must be a list of providers"):
        kind(wrong)


@each_kind
@pytest.mark.parametrize("wrong", [None, 42, object])
def test_what_is_no_provider(kind: Any, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="is no provider: give a class or an instance"):
        kind([A, wrong])


def test_an_attribute_that_happens_to_be_called_plan() -> None:
    class Free(OpenaiTemplate):
        plan = "free"

    assert RetryProvider([Free]).providers == [Free]
    assert make(provider=Free).provider is Free


@each_kind
def test_a_name_that_nobody_has(kind: Any) -> None:
    with pytest.raises(ProviderNotFoundError, match="no provider 'Opnaichat'; did you mean 'OpenaiChat'"):
        kind([A, "Opnaichat"])


@each_kind
@pytest.mark.parametrize("inner", [RetryProvider([]), RotatedProvider([A]), IterListProvider])
def test_none_inside_another(kind: Any, inner: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"holds providers itself: list those|has to be told whom to ask"):
        kind([A, inner])


@each_kind
def test_a_class_of_them_stands_for_nobody(kind: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"{kind.__name__} has to be told .*give {kind.__name__}\(\[\.\.\.\]\)"
    ):
        make(provider=kind)


@pytest.mark.parametrize("wrong", [-1, True, False, 1.0, "3", None])
@pytest.mark.parametrize("single", [True, False])
def test_a_number_that_counts_nothing(wrong: Any, single: bool) -> None:
    with pytest.raises(ConfigurationError, match="max_retries counts attempts, .* not " + repr(wrong)):
        RetryProvider([A], single_provider_retry=single, max_retries=wrong)


def test_no_attempts_at_all() -> None:
    with pytest.raises(ConfigurationError, match="a whole number from 1 on, not 0"):
        RetryProvider([A], single_provider_retry=True, max_retries=0)
    # It is not looked at there.
    assert RetryProvider([A], max_retries=0).max_retries == 0


def test_what_is_said_of_it() -> None:
    provider = RetryProvider([A], True, True, 5)
    assert (provider.shuffle, provider.single_provider_retry, provider.max_retries) == (True, True, 5)
    plain = RetryProvider([A])
    assert (plain.shuffle, plain.single_provider_retry, plain.max_retries) == (True, False, 3)
    assert IterListProvider([A]).shuffle
    assert not IterListProvider([A], False).shuffle
    assert not IterListProvider([A]).single_provider_retry
    assert all(kind([A]).working for kind in KINDS)


@each_kind
def test_no_secret_is_shown(kind: Any) -> None:
    provider = kind([A, OpenaiChat])
    assert repr(provider) == f"<{kind.__name__} of A, OpenaiChat>"
    assert "sk-of-a" not in f"{provider!r} {provider} {vars(provider)}"


# --- One provider, again and again --------------------------------------------------------------------


def again(times: int) -> RetryProvider:
    return RetryProvider([A, B], single_provider_retry=True, max_retries=times)


@pytest.mark.parametrize("times", [1, 2, 5])
def test_so_many_attempts_in_all_whatever_the_policy_says(times: int) -> None:
    effects = run(again(times), *[failing() for _ in range(times)])
    assert names(effects) == "A" * times
    assert [type(effect) for effect in effects] == [Send, *[Sleep, Send] * (times - 1), GiveUp]
    assert type(effects[-1].error) is (ReadError if times == 1 else RetryProviderError)


def test_the_waits_are_the_policys() -> None:
    effects = run(again(4), *[failing() for _ in range(3)], None)
    assert [effect.seconds for effect in effects if isinstance(effect, Sleep)] == [0.5, 1.0, 2.0]


def test_the_budget_is_the_clients() -> None:
    budget = RetryBudget(capacity=1.2, per_call=0, per_second=0)
    assert names(run(again(5), failing(), failing(), budget=budget)) == "AA"


def test_it_ends_with_what_lasts() -> None:
    assert names(run(again(5), ConfigurationError("no key"))) == "A"


@pytest.mark.parametrize("times", [10**12, 10**30])
def test_for_ever(times: int) -> None:
    assert names(run(again(times), *[failing() for _ in range(12)], None)) == "A" * 13


# --- Several in turn ----------------------------------------------------------------------------------


@pytest.fixture
def turned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chance turns lists round."""
    monkeypatch.setattr("deltawire.providers.composite.random", SimpleNamespace(shuffle=list.reverse))


@pytest.mark.usefixtures("turned")
@pytest.mark.parametrize("kind", [RetryProvider, IterListProvider])
@pytest.mark.parametrize(("shuffle", "order"), [(True, "CBA"), (False, "ABC")])
def test_the_order_is_chances_or_the_lists(kind: Any, shuffle: bool, order: str) -> None:
    given = [A, B, C]
    provider = kind(given, shuffle=shuffle)
    for _ in range(2):
        assert names(run(provider, failing(), failing(), None)) == order, "each call starts from the same list"
    assert given == provider.providers == [A, B, C]


def test_chance_finds_every_order() -> None:
    provider = RetryProvider([A, B, C])
    assert len({names(run(provider, failing(), failing(), failing())) for _ in range(200)}) == 6


@pytest.mark.usefixtures("turned")
def test_rotation_has_no_chance() -> None:
    assert names(run(RotatedProvider([A, B, C]), failing(), failing(), failing())) == "ABC"


@each_kind
def test_nobody_waits_between_two(kind: Any) -> None:
    effects = run(kind([A, B, C]), failing(), failing(), failing())
    assert [type(effect) for effect in effects] == [Send, Send, Send, GiveUp]
    assert len(effects[-1].error.errors) == 3


@each_kind
def test_an_empty_list(kind: Any) -> None:
    (effect,) = run(kind([]))
    assert isinstance(effect.error, RetryNoProviderError)


def test_an_empty_list_again_and_again() -> None:
    (effect,) = run(RetryProvider([], single_provider_retry=True))
    assert isinstance(effect.error, RetryNoProviderError)


# --- In a circle --------------------------------------------------------------------------------------


def test_each_call_starts_after_the_last_that_was_asked() -> None:
    provider = RotatedProvider([A, B, C])
    assert [names(run(provider, None)) for _ in range(4)] == ["A", "B", "C", "A"]
    assert names(run(provider, failing(), None)) == "BC"
    assert names(run(provider, failing(), failing(), None)) == "ABC"
    assert names(run(provider, failing(), failing(), failing())) == "ABC"
    assert names(run(provider, None)) == "A"


def test_calls_at_a_time_start_with_different_ones() -> None:
    provider = RotatedProvider([A, B, C])
    first, second = (provider.plan(POLICY, RetryBudget()) for _ in range(2))
    begun: list[Any] = [next(first), next(second), next(provider.plan(POLICY, RetryBudget()))]
    assert names(begun) == "ABC"


def test_calls_of_many_threads() -> None:
    provider = RotatedProvider([A, B, C])
    seen: list[str] = []

    def calls() -> None:
        seen.extend(names(run(provider, failing(), failing(), failing())) for _ in range(200))

    threads = [threading.Thread(target=calls) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) <= {"ABC", "BCA", "CAB"}, "each call asks each one once"
    assert len(seen) == 800


# --- The last one -------------------------------------------------------------------------------------


@each_kind
def test_the_last_provider(kind: Any) -> None:
    provider = kind([A, B])
    provider.shuffle = False
    assert provider.last_provider is None
    run(provider, failing(), None)
    assert provider.last_provider is B


def test_the_last_provider_is_one_that_was_asked() -> None:
    provider = RetryProvider([A, B, A], shuffle=False)
    # A has failed for good, and is passed over.
    run(provider, ConfigurationError("no key"), failing())
    assert provider.last_provider is B
