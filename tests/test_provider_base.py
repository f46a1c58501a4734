"""What all providers have: attributes that instances may say otherwise, models, and `raise_error`."""

from __future__ import annotations

from typing import Any

import pytest

from deltawire import (
    APIError,
    AsyncGeneratorProvider,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    InternalServerError,
    ProviderModelMixin,
    RaiseErrorMixin,
    RateLimitError,
)
from deltawire.providers import BaseProvider, Opchatgpts, OpenaiTemplate


class Mine(AsyncGeneratorProvider, ProviderModelMixin, RaiseErrorMixin):
    url = "https://mine.example"
    default_model = "d"
    model_aliases = {"short": "long"}  # noqa: RUF012


# --- Attributes -------------------------------------------------------------------------------------------


def test_instances_say_otherwise() -> None:
    instance = Mine(default_model="e", working=False)
    assert (instance.default_model, instance.working, instance.url) == ("e", False, Mine.url)
    assert (Mine.default_model, Mine.working) == ("d", True)
    assert repr(instance) == "<Mine>"
    assert repr(Mine(name="Ours")) == "<Ours>"


@pytest.mark.parametrize(
    ("provider", "attribute"), [(OpenaiTemplate, "api_base"), (Opchatgpts, "url"), (Mine, "url"), (BaseProvider, "url")]
)
def test_base_url_is_what_each_calls_it(provider: Any, attribute: str) -> None:
    assert getattr(provider(base_url="https://a.example"), attribute) == "https://a.example"
    with pytest.raises(ConfigurationError, match="two names of one argument"):
        provider(**{"base_url": "https://a.example", attribute: "https://b.example"})


@pytest.mark.parametrize("name", ["default_modell", "get_model", "create_async_generator", "__doc__", "_secret"])
def test_what_is_no_attribute(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Mine has no attribute '{name}'"):
        Mine(**{name: "x"})


# --- Models -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", [Mine, Mine()])
def test_models(provider: Any) -> None:
    assert [provider.get_model(name) for name in ("m", "short", "", None)] == ["m", "long", "d", "d"]
    assert provider.get_models() == ["d"]


@pytest.mark.parametrize(
    ("declared", "models"),
    [
        ({"models": ["b", "a"], "fallback_models": ["f"]}, ["b", "a"]),
        ({"fallback_models": ["f"]}, ["f"]),
        ({"default_model": ""}, []),
    ],
)
def test_declared_models(declared: dict[str, Any], models: list[str]) -> None:
    assert Mine(**declared).get_models() == models


# --- raise_error ------------------------------------------------------------------------------------------

NO_ERRORS: list[Any] = [
    {"error": None}, {"error": False}, {"error": ""}, {"error": {}}, {"choices": []}, {"choices": [{}], "message": "m"},
    {"ok": 1}, {}, [], None, {"data": [], "error": None, "message": None}, {"detail": None}, {"message": ""},
]  # fmt: skip


@pytest.mark.parametrize("data", NO_ERRORS)
@pytest.mark.parametrize("status", [None, 200, 204])
def test_what_is_no_error(data: Any, status: int | None) -> None:
    Mine.raise_error(data, status)
    Mine().raise_error(data, status)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"error_message": "Oh no"}, "Oh no"),
        ({"error": "Oh no"}, "Oh no"),
        ({"error": True}, "error"),
        ({"error": True, "message": "Oh no"}, "Oh no"),
        ({"error": {"message": "Oh no", "code": "x"}}, "Oh no"),
        ({"error": {"code": "odd_code"}}, "odd_code"),
        ({"detail": "Oh no"}, "Oh no"),
        ({"detail": [{"msg": "Oh no"}]}, "Oh no"),
        ({"message": "Oh no"}, "Oh no"),
        ({"message": ["Oh no"]}, "Oh no"),
    ],
)
def test_what_is_an_error(data: Any, words: str) -> None:
    with pytest.raises(APIError, match=words) as caught:
        Mine.raise_error(data)
    assert "Mine" in str(caught.value)
    with pytest.raises(APIError, match=r"Ours.*" + words):
        Mine(name="Ours").raise_error(data, 200)


@pytest.mark.parametrize(
    ("data", "status", "error"),
    [
        ({"error": {"message": "m", "code": 429}}, None, RateLimitError),
        ({"error": {"message": "m", "type": "rate_limit_exceeded"}}, 200, RateLimitError),
        ({"message": "m"}, 401, AuthenticationError),
        ({"error": None}, 400, BadRequestError),
        ({}, 500, InternalServerError),
        ("Bad gateway", 502, InternalServerError),
        (None, 503, InternalServerError),
    ],
)
def test_which_error_it_is(data: Any, status: int | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        Mine.raise_error(data, status)
