"""What a list of models says: their names, and which of them make or see images.

OpenAI's list has ids only; the rest is in vendor fields, and each server has its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from .chunks import ModelList


class Catalogue(msgspec.Struct, frozen=True):
    """The models of a server by name, each once; the other two lists are in the order of the first."""

    names: list[str] = []
    image_models: list[str] = []
    """Those that make images of a prompt, at ``/images/generations``."""
    vision_models: list[str] = []
    """Those that take images in messages."""


def catalogue(models: ModelList, *, sort: bool = True) -> Catalogue:
    """The names in a list of models, sorted (by code points, capitals first) or in the server's order.

    Models without an id are left out; of several with one id, one counts that has what any of them has.
    """
    ids = {model.id: None for model in models if model.id}
    names = sorted(ids) if sort else list(ids)

    def that(has: Callable[[dict[str, Any]], bool]) -> list[str]:
        found = {model.id for model in models if has(model.model_extra)}
        return [name for name in names if name in found]

    return Catalogue(names, that(_makes_images), that(_sees_images))


def _makes_images(extra: dict[str, Any]) -> bool:
    # `type` is Together's, `mode` litellm's. Models that answer a chat with images besides text (OpenRouter's
    # output_modalities) are none of these: they have no business at /images/generations.
    return bool(
        extra.get("image")
        or extra.get("supports_images")
        or extra.get("type") == "image"
        or extra.get("mode") == "image_generation"
    )


def _sees_images(extra: dict[str, Any]) -> bool:
    # `supports_vision` is litellm's, `capabilities` Mistral's (an object) and Ollama's (a list),
    # `input_modalities` OpenRouter's (in `architecture`) and Pollinations'.
    architecture = extra.get("architecture")
    inner = architecture if isinstance(architecture, dict) else {}
    return bool(
        extra.get("vision")
        or extra.get("supports_vision")
        or _holds(extra.get("capabilities"), "vision")
        or _holds(extra.get("input_modalities"), "image")
        or _holds(inner.get("input_modalities"), "image")
    )


def _holds(value: Any, name: str) -> bool:
    """Whether this list holds the name, or this object has it true."""
    if isinstance(value, dict):
        return bool(value.get(name))
    return isinstance(value, list) and name in value
