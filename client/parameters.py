"""The parameters of ``chat.completions.create``, for type checkers. OpenAI's names; at run time they are
checked against `deltawire.protocol.request.PARAMETERS`, and a test holds the two together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from deltawire.protocol import Message, Proxy, RetryPolicy, Timeout

from .media import MediaListType, MediaType

MessagesLike = str | Iterable[Mapping[str, Any] | Message]
"""A list of messages (dicts, or the messages of earlier completions), or a text: the user's."""

Messages = list[dict[str, Any]]
"""What it is for a provider with a generator of its own: a list of dicts."""


class ChatParameters(TypedDict, total=False):
    """Fields of the request's body. What is None is not sent."""

    audio: Mapping[str, Any] | None
    frequency_penalty: float | None
    function_call: str | Mapping[str, Any] | None
    functions: Sequence[Mapping[str, Any]] | None
    logit_bias: Mapping[str, float] | None
    logprobs: bool | None
    max_completion_tokens: int | None
    max_tokens: int | None
    metadata: Mapping[str, str] | None
    modalities: Sequence[str] | None
    n: int | None
    parallel_tool_calls: bool | None
    prediction: Mapping[str, Any] | None
    presence_penalty: float | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    reasoning_effort: str | None
    response_format: Mapping[str, Any] | None
    safety_identifier: str | None
    seed: int | None
    service_tier: str | None
    stop: str | Sequence[str] | None
    store: bool | None
    stream_options: Mapping[str, Any] | None
    temperature: float | None
    tool_choice: str | Mapping[str, Any] | None
    tools: Sequence[Mapping[str, Any]] | None
    top_logprobs: int | None
    top_p: float | None
    user: str | None
    verbosity: str | None
    web_search_options: Mapping[str, Any] | None


class CallOptions(TypedDict, total=False):
    """What a call may say about itself; it wins over what the client says."""

    extra_headers: Mapping[str, str | None] | None
    """Header fields; None removes one."""
    extra_query: Mapping[str, object] | None
    """Added to the URL's query."""
    extra_body: Mapping[str, Any] | None
    """Fields of the body that win over all others."""
    proxy: str | Proxy | None
    """The proxy's URL; None for a direct connection."""
    timeout: float | Timeout | None
    """Seconds, or a `Timeout`."""
    max_retries: int | RetryPolicy | None
    """Extra attempts; a `RetryProvider` has its own number."""
    provider: Any
    """Whom to ask: a class, an instance, or a name."""
    api_key: Any
    base_url: str | None
    impersonate: str | None
    """The browser to look like."""
    ignore_working: bool


class ChatOptions(ChatParameters, CallOptions, total=False):
    """All that ``create`` takes beside messages, model and stream. What is unknown here goes to providers that have
    parameters of their own; others refuse it."""

    api_base: str | None
    headers: Mapping[str, str | None] | None
    extra_data: Mapping[str, Any] | None
    images: MediaListType | None
    media_provider: Any
    image_provider: Any
    """Other names of ``base_url``, ``extra_headers``, ``extra_body``, ``media`` and ``provider``."""
    include_reasoning: bool | None
    search_settings: Mapping[str, Any] | None
    """Not OpenAI's, and known to enough others."""
    api_endpoint: str | None
    """The whole URL of chat completions."""
    media: MediaListType | None
    """Images and audio for the last message, as `(data, file name)`."""
    image: MediaType | None
    image_name: str | None
    """The same, for one."""
    prompt: str | None
    """The user's last message; for image models what to draw."""
    extra_parameters: Sequence[str] | None
    """Names of further parameters that go into the body."""
    ignore_stream: bool
    """Accepted, and of no effect: all providers stream."""
