"""The names that programs import: all there, all listed, and each what it says."""

from __future__ import annotations

import builtins
import importlib
import inspect
import types
from typing import Any

import pytest

import deltawire
import deltawire.providers
import deltawire.testing
import deltawire.transports
from deltawire import protocol
from deltawire.providers.names import PROVIDERS

# What programs written for the design, for g4f and for the OpenAI SDK import from the root.
CLIENTS = ["AsyncClient", "Client"]
PROVIDED = ["IterListProvider", "OpenaiChat", "OpenaiTemplate", "Opchatgpts", "RetryProvider", "RotatedProvider"]
MIXINS = ["AsyncGeneratorProvider", "ProviderModelMixin", "RaiseErrorMixin"]
TYPES = ["AsyncResult", "Limits", "MediaListType", "Messages", "Timeout"]
FUNCTIONS = ["accumulate", "aparse_stream", "parse_stream"]

# Each error and its parent, and what else it is.
ERRORS: dict[str, tuple[str, type[BaseException]]] = {
    "DeltawireError": ("Exception", Exception),
    "ConfigurationError": ("DeltawireError", ValueError),
    "ProviderNotFoundError": ("ConfigurationError", ValueError),
    "ProviderNotWorkingError": ("ConfigurationError", ValueError),
    "UsageError": ("DeltawireError", RuntimeError),
    "APIError": ("DeltawireError", Exception),
    "APIStatusError": ("APIError", Exception),
    "BadRequestError": ("APIStatusError", Exception),
    "AuthenticationError": ("APIStatusError", Exception),
    "MissingAuthError": ("AuthenticationError", Exception),
    "PermissionDeniedError": ("APIStatusError", Exception),
    "NotFoundError": ("APIStatusError", Exception),
    "ConflictError": ("APIStatusError", Exception),
    "UnprocessableEntityError": ("APIStatusError", Exception),
    "RateLimitError": ("APIStatusError", Exception),
    "InternalServerError": ("APIStatusError", Exception),
    "RedirectError": ("APIStatusError", Exception),
    "StreamError": ("APIError", Exception),
    "TruncatedStreamError": ("StreamError", Exception),
    "MalformedEventError": ("StreamError", RuntimeError),
    "LimitExceededError": ("StreamError", Exception),
    "UnexpectedReplyError": ("StreamError", Exception),
    "EmptyReplyError": ("StreamError", Exception),
    "TransportError": ("DeltawireError", Exception),
    "ConnectError": ("TransportError", Exception),
    "ProxyError": ("ConnectError", Exception),
    "TimeoutError": ("TransportError", builtins.TimeoutError),
    "ReadError": ("TransportError", Exception),
    "RetryProviderError": ("DeltawireError", Exception),
    "RetryNoProviderError": ("DeltawireError", Exception),
}

# g4f's names for errors of ours.
ALIASES = {"ModelNotFoundError": "NotFoundError", "ResponseError": "APIError", "ResponseStatusError": "APIStatusError"}

PACKAGES: list[Any] = [
    deltawire,
    deltawire.providers,
    deltawire.testing,
    deltawire.transports,
    protocol,
]


@pytest.mark.parametrize("name", [*CLIENTS, *PROVIDED, *MIXINS, *TYPES, *FUNCTIONS, *ERRORS, *ALIASES, "__version__"])
def test_names_of_the_root(name: str) -> None:
    assert name in deltawire.__all__
    assert getattr(importlib.import_module("deltawire"), name) is not None


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: str(package.__name__))
def test_lists_of_names(package: types.ModuleType) -> None:
    names = list(package.__all__)
    assert len(set(names)) == len(names)
    listed: dict[str, Any] = {}
    exec(f"from {package.__name__} import *", listed)
    assert set(names) <= listed.keys()
    assert all(name == "__version__" or not name.startswith("_") for name in names)


@pytest.mark.parametrize("package", [deltawire, protocol, deltawire.testing], ids=lambda package: str(package.__name__))
def test_lists_are_complete(package: types.ModuleType) -> None:
    """What is imported to be given on is listed, and nothing else is left lying about."""
    public = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and name != "annotations" and not isinstance(value, types.ModuleType)
    }
    # These are given on when somebody asks for them, since h11 takes long to load.
    late = {"HTTP1Exchange", "HTTP1State", "HTTP1_TRANSITIONS"} if package is protocol else set()
    assert public - {"Any", "TYPE_CHECKING"} == set(package.__all__) - {"__version__"} - late


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    parent, also = ERRORS[name]
    error: type[BaseException] = getattr(deltawire, name)
    assert error.__name__ == name
    assert error is getattr(protocol, name)
    assert error.__bases__[0] is getattr(deltawire, parent, Exception)
    assert issubclass(error, also)


def test_all_errors_are_listed() -> None:
    found = {
        name
        for name, value in vars(deltawire).items()
        if isinstance(value, type) and issubclass(value, BaseException) and name not in ALIASES
    }
    assert found == set(ERRORS)


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases(alias: str) -> None:
    assert getattr(deltawire, alias) is getattr(deltawire, ALIASES[alias])


def test_providers() -> None:
    for name in (*PROVIDED, *MIXINS, "AsyncResult"):
        assert getattr(deltawire.providers, name) is getattr(deltawire, name)
    for name in PROVIDERS:
        provider = getattr(deltawire.providers, name)
        assert provider.__name__ == name
        assert issubclass(provider, deltawire.AsyncGeneratorProvider)
    with pytest.raises(AttributeError, match="Nobody"):
        _ = deltawire.providers.Nobody
    with pytest.raises(ImportError):
        exec("from deltawire.providers import Nobody")


@pytest.mark.parametrize("client", [deltawire.Client, deltawire.AsyncClient])
def test_arguments_of_clients(client: type) -> None:
    parameters = inspect.signature(client).parameters
    assert next(iter(parameters)) == "provider"
    names = ["api_key", "base_url", "api_base", "proxies", "timeout", "max_retries", "transport", "media_provider"]
    for name in (*names, "image_provider", "impersonate", "ignore_working"):
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["max_retries"].default == 2


@pytest.mark.parametrize("function", [deltawire.parse_stream, deltawire.aparse_stream])
def test_arguments_of_parsers(function: Any) -> None:
    parameters = inspect.signature(function).parameters
    assert list(parameters)[:3] == ["chunks", "dialect", "limits"]
    assert (parameters["dialect"].default, parameters["limits"].default) == ("openai", None)


@pytest.mark.parametrize(
    ("provider", "names"),
    [
        (
            "OpenaiTemplate",
            "api_base api_key api_endpoint ssl supports_message_history supports_system_message default_model "
            "fallback_models sort_models models image_models vision_models needs_auth model_aliases working url",
        ),
        ("Opchatgpts", "url working supports_stream supports_message_history supports_gpt_35_turbo"),
    ],
)
def test_attributes_of_providers(provider: str, names: str) -> None:
    for name in names.split():
        assert hasattr(getattr(deltawire, provider), name), name
    for name in ("create_async_generator", "create_generator", "create_completion", "create_async", "get_model"):
        assert callable(getattr(getattr(deltawire, provider), name))


def test_what_must_hold_of_declarations() -> None:
    template = deltawire.OpenaiTemplate
    assert (template.api_base, template.api_key, template.api_endpoint, template.ssl) == ("", None, None, None)
    assert (template.default_model, template.sort_models, template.model_aliases) == ("", True, {})
    assert template.supports_message_history
    assert template.supports_system_message
    assert not deltawire.Opchatgpts.working
    assert deltawire.Opchatgpts.supports_gpt_35_turbo
