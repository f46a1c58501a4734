"""What `Client` and `AsyncClient` have in common: their arguments, and copies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltawire.protocol.urls import shown_url

from .settings import make

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from typing_extensions import Self

    from deltawire.protocol import Limits, RetryPolicy, Timeout

    from .settings import ApiKey, Proxies


class BaseClient:
    """What both clients are: settings, and transports that are made on first use.

    All arguments are optional.

    ``provider``: whom to ask: a class or an instance, the name of one in `deltawire.providers`, a `RetryProvider`;
    without it the OpenAI dialect at ``base_url``. ``media_provider`` (also ``image_provider``): whom for images.
    ``api_key``: or the environment's ``OPENAI_API_KEY`` (or what the provider names); a callable is asked anew for
    each attempt; a mapping holds a key for each provider, by its name.
    ``base_url`` (also ``api_base``): such as "http://localhost:8000/v1"; or ``OPENAI_BASE_URL``.
    ``organization``, ``project``: or ``OPENAI_ORG_ID``, ``OPENAI_PROJECT_ID``.
    ``proxies``: a proxy's URL (http, https, socks5, or socks5h, which looks names up at the proxy), or a mapping of
    "http", "https", "all" to URLs (None: no proxy); without it the environment's ``HTTP_PROXY``,
    ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``.
    ``trust_env=False``: the environment is not asked for anything.
    ``timeout``: seconds, for the first content and between contents; or a `Timeout`.
    ``max_retries``: extra attempts, before the first content only; or a `RetryPolicy`.
    ``verify``: True, a file of certificate authorities, an ``ssl.SSLContext``, or False.
    ``http2``: offer HTTP/2 (needs ``deltawire[http2]``); with ``impersonate`` it is as the browser has it.
    ``uds``: the path of a Unix domain socket to connect to, whatever host the base URL names; no proxy then.
    ``local_address``: the IP address to connect from.
    ``impersonate``: the browser whose TLS and headers requests are to show, such as "chrome" (needs
    ``deltawire[impersonate]``).
    ``ignore_working``: also ask providers that are marked as not working.
    ``transport``: an object with the methods of `deltawire.transports.Transport` (`AsyncTransport`), or
    a name: "httpcore" (the default), "wire" (bytes straight from the socket: the cheapest, for many streams at once;
    HTTP/1.1 only) or "impersonate"; an object is not closed by the client, since it may serve others.

    Raises `ConfigurationError` for what can't work.
    """

    def __init__(
        self,
        provider: Any = None,
        *,
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
        timeout: float | Timeout | None = None,
        max_retries: int | RetryPolicy = 2,
        limits: Limits | None = None,
        verify: Any = True,
        http2: bool = False,
        uds: str | os.PathLike[str] | None = None,
        local_address: str | None = None,
        impersonate: str | None = None,
        ignore_working: bool = False,
        transport: Any = None,
    ) -> None:
        self._settings = make(
            provider=provider,
            media_provider=media_provider,
            image_provider=image_provider,
            api_key=api_key,
            base_url=base_url,
            api_base=api_base,
            organization=organization,
            project=project,
            default_headers=default_headers,
            default_query=default_query,
            proxies=proxies,
            trust_env=trust_env,
            timeout=timeout,
            max_retries=max_retries,
            limits=limits,
            impersonate=impersonate,
            ignore_working=ignore_working,
            direct=uds is not None,
        )
        self._owner = self._own(transport, verify=verify, http2=http2, uds=uds, local_address=local_address)
        # What is wrong with these is told now, not at the first call.
        self._owner.transport_for("", None, impersonate or "")

    _owner: Any

    def _own(self, transport: Any, **options: Any) -> Any:
        raise TypeError("use Client or AsyncClient")

    @property
    def base_url(self) -> str:
        """Where requests go that name no provider."""
        return self._settings.base_url

    def with_options(self, **changes: Any) -> Self:
        """A client like this one but for these arguments, on the same connections.

        Takes what the constructor takes, but for what its connections are made with: ``verify``, ``http2``, ``uds``,
        ``local_address`` and ``transport``.
        """
        copy = type(self).__new__(type(self))
        copy._settings = self._settings.changed(**changes)
        copy._owner = self._owner
        return copy

    def __copy__(self) -> Self:
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        return copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """As a plain copy: on the same connections, which there is no second one of."""
        return self.__copy__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            f"a {type(self).__name__} has connections, and can't be pickled: make one in each process (one that was "
            "forked may go on with its parent's)"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {shown_url(self._settings.base_url)}>"
