"""The names of our providers."""

from __future__ import annotations

import importlib
from typing import Any

from deltawire.protocol import ProviderNotFoundError

_MODULES = {
    "base": ("AsyncGeneratorProvider", "AsyncResult", "BaseProvider", "ProviderModelMixin", "RaiseErrorMixin"),
    "composite": ("IterListProvider", "RetryProvider", "RotatedProvider"),
    "opchatgpts": ("Opchatgpts",),
    "ready": (
        "AzureOpenai", "DeepSeek", "Groq", "LMStudio", "LlamaCpp", "Mistral", "Ollama", "OpenRouter", "Together",
        "VLLM",
    ),
    "template": ("OpenaiChat", "OpenaiTemplate"),
}  # fmt: skip

_HOMES = {name: module for module, names in _MODULES.items() for name in names}

_LONGEST_NAME = 30

PROVIDERS = sorted(name for module in ("opchatgpts", "ready", "template") for name in _MODULES[module])
"""Those that may be given by name."""


def find(name: str) -> Any:
    """What `deltawire.providers` offers by that name, or None."""
    module = _HOMES.get(name)
    return None if module is None else getattr(importlib.import_module(f".{module}", __package__), name)


def named(name: str) -> Any:
    """The provider of that name. Raises `ProviderNotFoundError`."""
    if name in PROVIDERS:
        return find(name)
    import difflib

    near = difflib.get_close_matches(name.lower(), {each.lower(): each for each in PROVIDERS}, 1)
    mean = next((f"; did you mean {each!r}?" for each in PROVIDERS if [each.lower()] == near), "")
    # Whoever gives a key in its place should not find it in the log.
    called = repr(name) if name.isidentifier() and len(name) <= _LONGEST_NAME else "of that name"
    raise ProviderNotFoundError(
        f"there is no provider {called}{mean} (there are {', '.join(PROVIDERS)}; or give a class of your own)"
    )
