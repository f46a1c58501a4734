"""Providers: declarations of servers, ready ones and what one's own are made of.

``from deltawire.providers import Groq``; their names as texts do as well: ``Client(provider="Groq")``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import AsyncGeneratorProvider, AsyncResult, BaseProvider, ProviderModelMixin, RaiseErrorMixin
    from .composite import IterListProvider, RetryProvider, RotatedProvider
    from .opchatgpts import Opchatgpts
    from .ready import VLLM, AzureOpenai, DeepSeek, Groq, LlamaCpp, LMStudio, Mistral, Ollama, OpenRouter, Together
    from .template import OpenaiChat, OpenaiTemplate

__all__ = [
    "VLLM",
    "AsyncGeneratorProvider",
    "AsyncResult",
    "AzureOpenai",
    "BaseProvider",
    "DeepSeek",
    "Groq",
    "IterListProvider",
    "LMStudio",
    "LlamaCpp",
    "Mistral",
    "Ollama",
    "Opchatgpts",
    "OpenRouter",
    "OpenaiChat",
    "OpenaiTemplate",
    "ProviderModelMixin",
    "RaiseErrorMixin",
    "RetryProvider",
    "RotatedProvider",
    "Together",
]


def __getattr__(name: str) -> Any:
    # On first use: the modules of a client import each other's parts.
    from .names import find

    found = find(name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found
