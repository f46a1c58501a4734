"""What a client knows: its settings, and where they come from.

Which value wins: the call's argument, the client's, the environment, the built-in default.
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
    RetryPolicy,
    Timeout,
    choose_proxy,
)

from ._version import __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    ApiKey = str | Callable[[], str] | Callable[[], Awaitable[str]]
    Proxies = str | Proxy | Mapping[str, str | Proxy | None]

_NO_WAY = "uds= names the socket to connect to: leave out the proxy, which can't connect to it"

# For arguments whose None means something.
UNSET: Any = type("Unset", (), {"__repr__": lambda self: "UNSET", "__slots__": ()})()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a client; made by `make`, changed by `changed`."""

    api_key: Any
    base_url: str
    endpoint: Endpoint
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

    def changed(self, **changes: Any) -> Settings:
        """Settings like these, but for what is given."""
        held = {
            "api_key": self.api_key,
            "base_url": self.base_url,
            "organization": self.organization,
            "project": self.project,
            "default_headers": self.default_headers,
            "default_query": self.default_query,
            "proxies": self.proxies,
            "trust_env": self.trust_env,
            "timeout": self.timeout,
            "max_retries": self.policy,
            "limits": self.limits,
        }
        if "api_base" in changes:
            changes["base_url"] = _one_of(changes.get("base_url"), changes.pop("api_base"))
        unknown = changes.keys() - held.keys()
        if unknown:
            raise ConfigurationError(f"with_options does not know {sorted(unknown)[0]!r}; it knows {', '.join(held)}")
        return make(**{**held, **changes}, direct=self.direct)

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


def make(
    *,
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
) -> Settings:
    """Check the arguments of a client, fill in what the environment says. An empty variable is unset."""

    def from_environment(name: str) -> str | None:
        return (os.environ.get(name) or None) if trust_env else None

    base_url = _one_of(base_url, api_base) or from_environment("OPENAI_BASE_URL") or DEFAULT_BASE_URL
    organization = organization or from_environment("OPENAI_ORG_ID")
    project = project or from_environment("OPENAI_PROJECT_ID")
    if direct and proxies is not None:
        raise ConfigurationError(_NO_WAY)
    if proxies is not None:
        # A mistake in it should be told now, not at the first call.
        for example in ("http://example.org/", "https://example.org/"):
            choose_proxy(example, proxies=proxies)
    return Settings(
        api_key=api_key or from_environment("OPENAI_API_KEY"),
        base_url=base_url,
        endpoint=Endpoint.at(
            base_url,
            user_agent=f"deltawire/{__version__}",
            organization=organization,
            project=project,
            default_headers=default_headers,
            default_query=default_query,
        ),
        organization=organization,
        project=project,
        default_headers=default_headers,
        default_query=default_query,
        proxies=proxies,
        trust_env=trust_env,
        direct=direct,
        timeout=Timeout.of(timeout),
        policy=_policy(max_retries),
        limits=limits,
    )


def _one_of(base_url: str | None, api_base: str | None) -> str | None:
    if base_url and api_base and base_url != api_base:
        raise ConfigurationError("base_url and api_base are two names of one argument, and were given two values")
    return base_url or api_base


def _policy(max_retries: int | RetryPolicy) -> RetryPolicy:
    if isinstance(max_retries, RetryPolicy):
        return max_retries
    if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
        raise ConfigurationError(f"max_retries must be a whole number from 0, not {max_retries!r}")
    return RetryPolicy(max_retries=max_retries)
