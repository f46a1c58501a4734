"""From the arguments of ``create`` and ``create_async_generator`` to a `Call`: names, and their aliases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltawire.protocol import ConfigurationError
from deltawire.protocol.messages import as_messages

from .calls import Call
from .media import pairs
from .settings import checked_key, one_of
from .targets import Ask

if TYPE_CHECKING:
    from .settings import Settings

EXTRA_PARAMETERS = (
    "tools", "parallel_tool_calls", "tool_choice", "reasoning_effort", "logit_bias", "modalities", "audio",
    "stream_options", "include_reasoning", "response_format", "max_completion_tokens", "search_settings",
    "prompt_cache_key",
)  # fmt: skip
"""Fields of the body that providers of the OpenAI dialect take beside the parameters of OpenAI's own API."""

# Both names of one argument: the second is the one we use.
ALIASES = {
    "api_base": "base_url",
    "extra_data": "extra_body",
    "headers": "extra_headers",
    "image_provider": "provider",
    "images": "media",
    "media_provider": "provider",
}
CALL_OPTIONS = ("provider", "proxy", "timeout", "max_retries")
EXTRAS = ("extra_headers", "extra_query", "extra_body")
ASK_OPTIONS = (
    "api_key", "base_url", "api_endpoint", "media", "image", "image_name", "prompt", "impersonate", "extra_parameters",
    "ignore_working", "ignore_stream",
)  # fmt: skip


def call_of(
    settings: Settings,
    messages: Any,
    model: str | None,
    stream: bool | None,
    given: dict[str, Any],
    *,
    kind: Any = "chat",
    native: bool = False,
) -> Call:
    """The call that these arguments ask for. What is no option of ours is a parameter of the provider's.

    ``native``: by the machines here, whatever the provider overrides. Raises `ConfigurationError`.
    """
    # What the caller calls it, for messages to him.
    said: dict[str, str] = {}
    for alias, name in ALIASES.items():
        if alias in given:
            if given[alias] is not None:
                said[name] = alias
            value = one_of(name, given.get(name), alias, given.pop(alias))
            if value is not None or name not in given:
                given[name] = value
    options = {name: given.pop(name) for name in CALL_OPTIONS if name in given}
    if native and kind == "chat" and options.get("provider") is not None:
        raise ConfigurationError("provider= is for clients: ask that provider's own create_async_generator")
    extras = {name: _mapping(said.get(name, name), given.pop(name)) for name in EXTRAS if name in given}
    asked = {name: given.pop(name) for name in ASK_OPTIONS if name in given}
    # Every provider streams here, be it the whole reply at once.
    asked.pop("ignore_stream", None)
    image, image_name = asked.pop("image", None), asked.pop("image_name", None)
    if asked.get("media") is not None:
        asked["media"] = pairs(asked["media"])
    if image is not None:
        asked["media"] = [*(asked.get("media") or ()), (image, image_name)]
    for name in ("base_url", "api_endpoint", "impersonate"):
        if name in asked:
            text(said.get(name, name), asked[name])
    if asked.get("prompt") is not None and not isinstance(asked["prompt"], str):
        raise ConfigurationError(f"prompt must be a str, not {type(asked['prompt']).__name__}")
    if kind == "images" and asked.get("prompt") is None:
        raise ConfigurationError("prompt is missing: say what to draw")
    if kind == "models" and given:
        raise ConfigurationError(f"a list of models is asked for without {sorted(given)[0]!r}")
    if asked.get("extra_parameters") is not None:
        asked["extra_parameters"] = _names("extra_parameters", asked["extra_parameters"])
    if "api_key" in asked:
        asked["api_key"] = checked_key(asked["api_key"])
    if not isinstance(model, (str, type(None))):
        raise ConfigurationError(f"model must be a str, or None for the provider's, not {type(model).__name__}")
    if not isinstance(stream, (bool, type(None))):
        raise ConfigurationError(f"stream must be True, False or None, not {stream!r}")
    if kind == "chat":
        # An iterator can be read but once, and there may be several attempts.
        messages = as_messages(messages)
    asked.update(extras)
    ask = Ask(kind=kind, messages=messages, model=model, stream=stream, params=given, **asked)
    return Call(settings, ask, **options, native=native)


def _names(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise ConfigurationError(f"{name} must be a list of names, not {value!r}")
    return tuple(value)


def _mapping(name: str, value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    if not hasattr(value, "items"):
        raise ConfigurationError(f"{name} must be a mapping, not {type(value).__name__}")
    return dict(value)


def text(name: str, value: Any) -> str | None:
    """A text that says something, or None."""
    if value is None or (isinstance(value, str) and value):
        return value
    raise ConfigurationError(f"{name} must be a text that is not empty, or None for the default, not {value!r}")
