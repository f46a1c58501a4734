"""deltawire: LLM chat APIs, streamed through proxies, sync and async, on pure state machines."""

from ._version import __version__

__all__ = ["__version__"]
