"""What a client knows: its settings, and where they come from.

Which value wins: the call's argument, the client's, the provider's attribute, the environment, the built-in default.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from deltawire.protocol import (
    DEFAULT_BASE_URL,
    ConfigurationError,
    Endpoint,
    Limits,
    Proxy,
    RetryBudget,
    RetryPolicy,
    Timeout,
    choose_proxy,
)
from deltawire.protocol.reserved import Reserved
from deltawire.protocol.urls import shown_url

from ._version import __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Key = str | Callable[[], str] | Callable[[], Awaitable[str]]
    ApiKey = Key | Mapping[Any, Key]
    Proxies = str | Proxy | Mapping[str, str | Proxy | None]

_NO_WAY = "uds= names the socket to connect to: leave out the proxy, which can't connect to it"

# Read once, when the client is made, as the OpenAI SDK does; what providers name is read when they are asked.
_READ_ONCE = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID")

# Far more servers, and keys, than a program has, unless each of its calls has its own.
_MOST_KEPT = 256

# For arguments whose None means something.
UNSET: Any = type("Unset", (), {"__repr__": lambda self: "UNSET", "__slots__": ()})()


class Settings(Reserved, frozen=True, kw_only=True):
    """The settings of a client; made by `make`, changed by `changed`."""

    provider: Any
    """A provider (class or instance), or None."""
    media_provider: Any
    """The same, for images."""
    unnamed: Any
    """The server at `base_url`, as a provider, for calls that name none. An instance: what it learns of the server's
    models is none of other clients' business."""
    given_key: Any
    """The argument, or None; a mapping holds a key for each provider, by its name."""
    given_url: str | None
    organization: str | None
    project: str | None
    default_headers: Any
    default_query: Any
    proxies: Any
    trust_env: bool
    direct: bool
    timeout: Timeout
    policy: RetryPolicy
    limits: Limits | None
    impersonate: str | None
    ignore_working: bool
    environment: dict[str, str | None]
    budget: RetryBudget
    """Shared with the copies of the client."""
    endpoints: dict[Any, Endpoint]
    """Those that were made so far: checking everything takes longer than a request."""

    def __repr__(self) -> str:
        # They hold keys.
        return f"Settings({shown_url(self.base_url)!r})"

    @property
    def base_url(self) -> str:
        """Where requests go that name no provider."""
        return self.given_url or self.variable("OPENAI_BASE_URL") or DEFAULT_BASE_URL

    @property
    def api_key(self) -> Any:
        """The key for requests that name no provider."""
        given = None if isinstance(self.given_key, dict) else self.given_key
        return self.variable("OPENAI_API_KEY") if given is None else given or None

    @property
    def endpoint(self) -> Endpoint:
        """The server for requests that name no provider."""
        return self.endpoint_at(self.base_url)

    def of(self, provider: Any) -> Settings:
        """The same, for this provider alone."""
        return msgspec.structs.replace(self, provider=provider, media_provider=None)

    def changed(self, **changes: Any) -> Settings:
        """Settings like these, but for what is given."""
        held = {
            "provider": self.provider,
            "media_provider": self.media_provider,
            "api_key": self.given_key,
            "base_url": self.given_url,
            "organization": self.organization,
            "project": self.project,
            "default_headers": self.default_headers,
            "default_query": self.default_query,
            "proxies": self.proxies,
            "trust_env": self.trust_env,
            "timeout": self.timeout,
            "max_retries": self.policy,
            "limits": self.limits,
            "impersonate": self.impersonate,
            "ignore_working": self.ignore_working,
        }
        for name, other in (("api_base", "base_url"), ("image_provider", "media_provider")):
            if name in changes:
                changes[other] = one_of(other, changes.get(other), name, changes.pop(name))
        unknown = changes.keys() - held.keys()
        if unknown:
            raise ConfigurationError(f"with_options does not know {sorted(unknown)[0]!r}; it knows {', '.join(held)}")
        return make(**{**held, **changes}, direct=self.direct, budget=self.budget, environment=self.environment)

    def variable(self, name: str | None) -> str | None:
        """What the environment says. An empty variable is unset."""
        if not name or not self.trust_env:
            return None
        return self.environment[name] if name in self.environment else os.environ.get(name) or None

    def endpoint_at(self, base_url: str, *, openai: bool = True, **options: Any) -> Endpoint:
        """The server at a base URL; ``options`` of `Endpoint.at`. What the client says of headers and query holds.

        ``openai``: whether it is asked with OpenAI's key, and what the environment says of organization and project is
        for it, too.
        """
        query = options.pop("default_query", None)
        at = (base_url, openai, query and tuple(query.items()), *options.items())
        endpoint = self.endpoints.get(at)
        if endpoint is None:
            endpoint = Endpoint.at(
                base_url,
                user_agent=USER_AGENT,
                organization=self.organization or (self.variable("OPENAI_ORG_ID") if openai else None),
                project=self.project or (self.variable("OPENAI_PROJECT_ID") if openai else None),
                default_headers=self.default_headers,
                default_query={**(query or {}), **(self.default_query or {})},
                **options,
            )
            keep(self.endpoints, at, endpoint)
        return endpoint

    def proxy_for(self, url: str, proxy: str | Proxy | None) -> Proxy | None:
        """The proxy for a call: the call's own, the client's, the environment's; None for none."""
        if self.direct:
            if proxy is not UNSET and proxy is not None:
                raise ConfigurationError(_NO_WAY)
            return None
        if proxy is not UNSET:
            return None if proxy is None else choose_proxy(url, proxies=proxy)
        if self.proxies is not None:
            return choose_proxy(url, proxies=self.proxies)
        # Read anew for each call, as programs change it.
        return choose_proxy(url, environ=os.environ) if self.trust_env else None


USER_AGENT = f"deltawire/{__version__}"


def make(
    *,
    provider: Any = None,
    media_provider: Any = None,
    image_provider: Any = None,
    api_key: ApiKey | None = None,
    base_url: str | None = None,
    api_base: str | None = None,
    organization: str | None = None,
    project: str | None = None,
    default_headers: Mapping[str, str | None] | None = None,
    default_query: Mapping[str, object] | None = None,
    proxies: Proxies | None = None,
    trust_env: bool = True,
    direct: bool = False,
    timeout: float | Timeout | None = None,
    max_retries: int | RetryPolicy = 2,
    limits: Limits | None = None,
    impersonate: str | None = None,
    ignore_working: bool = False,
    budget: RetryBudget | None = None,
    environment: dict[str, str | None] | None = None,
) -> Settings:
    """Check the arguments of a client, fill in what the environment says."""
    if environment is None:
        environment = {name: os.environ.get(name) or None for name in _READ_ONCE} if trust_env else {}
    if direct and proxies is not None:
        raise ConfigurationError(_NO_WAY)
    if proxies is not None:
        # A mistake in it should be told now, not at the first call.
        for example in ("http://example.org/", "https://example.org/"):
            choose_proxy(example, proxies=proxies)
    # (Providers import this module.)
    from .providers.template import OpenaiTemplate

    settings = Settings(
        unnamed=OpenaiTemplate(),
        provider=as_provider(provider),
        media_provider=as_provider(one_of("media_provider", media_provider, "image_provider", image_provider)),
        given_key=checked_key(api_key),
        given_url=one_of("base_url", base_url, "api_base", api_base),
        organization=organization,
        project=project,
        default_headers=default_headers,
        default_query=default_query,
        proxies=proxies,
        trust_env=trust_env,
        direct=direct,
        timeout=Timeout.of(timeout),
        policy=policy_of(max_retries),
        limits=limits,
        impersonate=impersonate,
        ignore_working=ignore_working,
        environment=environment,
        budget=budget or RetryBudget(),
        endpoints={},
    )
    # A mistake in the URL or the headers, too.
    settings.endpoint_at(settings.base_url if provider is None else settings.given_url or DEFAULT_BASE_URL)
    return settings


def keep(known: dict[Any, Any], key: Any, value: Any) -> None:
    """Note what took long to find out; when there are too many, the others are forgotten."""
    make_room(known, key)
    known[key] = value


def make_room(known: dict[Any, Any], key: Any) -> None:
    """Forget the others, if there are too many. (All at once, which is one step: other threads may do the same.)"""
    if len(known) >= _MOST_KEPT and key not in known:
        known.clear()


def as_provider(provider: Any) -> Any:
    """A provider as it may be given: a class, an instance, the name of one of ours, or None."""
    if isinstance(provider, str):
        from .providers.names import named

        return named(provider)
    if isinstance(provider, type) and holds_providers(provider):
        name = provider.__name__
        raise ConfigurationError(f"{name} has to be told whom to ask: give {name}([...]), with a list of providers")
    return provider


def holds_providers(provider: Any) -> bool:
    """Whether it asks providers of its own, in turn."""
    return callable(getattr(provider, "plan", None))


def not_a_provider(given: Any) -> ConfigurationError:
    """The error for what stands in a provider's place."""
    return ConfigurationError(
        f"{given!r} is no provider: give a class or an instance of one, or the name of one of ours"
    )


def name_of(provider: Any) -> str:
    """A provider's name: its ``name``, else that of its class."""
    name = getattr(provider, "name", None)
    if isinstance(name, str) and name:
        return name
    return str((provider if isinstance(provider, type) else type(provider)).__name__)


def checked_key(api_key: Any) -> Any:
    """A key as it may be given: a str ("" for none), a callable, or a mapping from providers or their names."""
    if api_key is None or isinstance(api_key, str) or callable(api_key):
        return api_key
    if hasattr(api_key, "items"):
        return {(name if isinstance(name, str) else name_of(name)): key for name, key in api_key.items()}
    raise ConfigurationError(
        f"api_key must be a str, a callable that gives one, or a mapping from providers to keys, "
        f"not {type(api_key).__name__}"
    )


def key_among(provider: str, *given: Any) -> Any:
    """The first key of these for the provider of that name; None for none."""
    for each in given:
        key = each.get(provider) if isinstance(each, dict) else each
        if key is not None:
            return key or None
    return None


def one_of(name: str, value: Any, other: str, second: Any) -> Any:
    """The value of an argument that has two names."""
    if value and second and value != second:
        raise ConfigurationError(f"{name} and {other} are two names of one argument, and were given two values")
    return value or second


def policy_of(max_retries: int | RetryPolicy) -> RetryPolicy:
    """A policy as it is, or the usual one with that many retries. Raises `ConfigurationError`."""
    return max_retries if isinstance(max_retries, RetryPolicy) else RetryPolicy(max_retries=max_retries)
