"""What providers are made of, and what one's own may be: declarations, as classes and as instances.

A provider is a class that sets attributes. Its instances are the same declaration with other values::

    class Mine(OpenaiTemplate):
        api_base = "https://llm.example/v1"
        default_model = "m"

    Mine                          # stands wherever a provider is taken
    Mine(default_model="n")       # so does this

A provider with a way of its own to a server inherits from `AsyncGeneratorProvider` and defines
``create_async_generator``: an async generator of texts (and of the objects of `deltawire.protocol.pieces`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

from deltawire.protocol import ConfigurationError, Context
from deltawire.protocol.pieces import Piece
from deltawire.protocol.status import error_object, status_error, stream_error, tells_error

from ..settings import name_of, one_of
from .methods import built_in, either, is_method

if TYPE_CHECKING:
    from deltawire.protocol import Proxy, Timeout

    from ..blocking import Blocking
    from ..generating import SyncPieces
    from ..parameters import Messages

AsyncResult = AsyncIterator[str | Piece]
"""What ``create_async_generator`` gives: texts, and objects that print as nothing."""


class BaseProvider:
    """The attributes that all providers have. An instance may say otherwise: ``Provider(attribute=value)``."""

    name: str = ""
    """What it is called in errors, and by ``api_key={name: key}``; "" for the name of its class."""
    url: str | None = None
    """Where people find it."""
    working: bool = True
    """False: it is refused, unless ``ignore_working=True`` is said."""
    needs_auth: bool | None = None
    """Whether it takes no request without a key; None: not known."""
    supports_stream: bool = True
    supports_message_history: bool = True
    """False: the messages are rendered into one."""
    supports_system_message: bool = True
    """False: system messages are put before the user's first one."""

    def __init__(self, **attributes: Any) -> None:
        """``attributes``: those of the class, for this instance. Raises `ConfigurationError` for others."""
        if "base_url" in attributes and not hasattr(type(self), "base_url"):
            theirs = "api_base" if hasattr(type(self), "api_base") else "url"
            attributes[theirs] = one_of(theirs, attributes.get(theirs), "base_url", attributes.pop("base_url"))
        for name, value in attributes.items():
            if name.startswith("_") or not hasattr(type(self), name) or is_method(type(self), name):
                raise ConfigurationError(_unknown(type(self), name))
            setattr(self, name, value)
        own_lists(self)
        # Programs ask any provider for it, and classes have one.
        self.__name__ = name_of(self)

    def __repr__(self) -> str:
        # No attributes: one of them is the key.
        return f"<{name_of(self)}>"


def _unknown(cls: type, name: str) -> str:
    import difflib

    known = [each for each in dir(cls) if not each.startswith("_") and not is_method(cls, each)]
    near = difflib.get_close_matches(name, known, 1)
    return f"{cls.__name__} has no attribute {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")


class RaiseErrorMixin:
    """``raise_error``, for those who read replies by themselves."""

    @either
    def raise_error(self, data: Any, status: int | None = None) -> None:
        """Raise the error that a decoded JSON reply is or carries, as `APIStatusError`; nothing where it is none
        (``{"error": null, "message": null}``). ``status``: the reply's, which may say so by itself."""
        where = Context(provider=name_of(self))
        failed = status is not None and not 200 <= status < 300
        error = error_object(data, flat=failed or tells_error(data))
        if failed and status is not None:
            import json

            raise status_error(status, (), json.dumps(data).encode(), where)
        if error is not None:
            raise stream_error(error, (), where)


class ProviderModelMixin:
    """The models of a provider."""

    default_model: str = ""
    """For calls that name none."""
    models: list[str] = []  # noqa: RUF012 - declarations
    """Those that it has, when that is known beforehand."""
    fallback_models: list[str] = []  # noqa: RUF012
    """Those that `get_models` gives when the server does not say."""
    image_models: list[str] = []  # noqa: RUF012
    """Those that draw: they are asked for images instead of a chat."""
    vision_models: list[str] = []  # noqa: RUF012
    """Those that see."""
    model_aliases: dict[str, str] = {}  # noqa: RUF012
    """Other names of models."""
    sort_models: bool = True
    """Whether `get_models` sorts them."""

    @built_in
    def get_models(self, *args: Any, **options: Any) -> list[str]:
        """The names of its models. (Those that are declared.)"""
        return list(self.models or self.fallback_models or filter(None, [self.default_model]))

    @either
    def get_model(self, model: str | None, *args: Any, **options: Any) -> str:
        """The model that is asked for: the default one for "" and None ("" where there is none), the one behind an
        alias, or as it is."""
        return self.model_aliases.get(model, model) if model else self.default_model


class ListedModelMixin(ProviderModelMixin):
    """The models of a provider whose server lists them, or of several."""

    @built_in
    def get_models(
        self,
        api_key: Any = None,
        api_base: str | None = None,
        *,
        proxy: str | Proxy | None = None,
        timeout: float | Timeout | None = None,
    ) -> list[str]:
        """The names of the server's models; blocks (`aget_models` does not).

        The declared `models`, where there are some. Else what the server lists, asked for once for each base URL and
        key; `image_models` and `vision_models` then hold those that it says so of. Raises what is wrong with key or
        settings; where anything else fails, `fallback_models` are given, if there are any. ``proxy``: its URL; None for
        the environment's. ``timeout``: seconds, or a `Timeout`. Of several providers: those of all, each once; what
        failed is left out, unless all did.
        """
        from ..generating import fetch

        return fetch(self, {"api_key": api_key, "api_base": api_base, "proxy": proxy, "timeout": timeout})

    @either
    async def aget_models(
        self,
        api_key: Any = None,
        api_base: str | None = None,
        *,
        proxy: str | Proxy | None = None,
        timeout: float | Timeout | None = None,
    ) -> list[str]:
        """As `get_models`, for asyncio and trio."""
        from ..generating import afetch

        return await afetch(self, {"api_key": api_key, "api_base": api_base, "proxy": proxy, "timeout": timeout})


class Learnt(list[str]):
    """Names of models, each once, of which a server gave some or all."""

    def __init__(self, names: Iterable[str], *, declared: list[str]) -> None:
        super().__init__(dict.fromkeys(names))
        self.declared = declared
        """Those that stood there before."""


def declared_in(names: list[str]) -> list[str]:
    """Those of the names that no server gave."""
    return names.declared if isinstance(names, Learnt) else names


def own_lists(provider: Any) -> None:
    """Give it lists of models of its own: what is learnt of one provider says nothing of those that inherit from it."""
    for name in ("models", "image_models", "vision_models"):
        if name not in vars(provider) and hasattr(provider, name):
            setattr(provider, name, list(declared_in(getattr(provider, name))))


class AsyncGeneratorProvider(BaseProvider):
    """A provider with a ``create_async_generator`` of its own."""

    @either
    def create_async_generator(self, model: str, messages: Messages, **kwargs: Any) -> AsyncResult:
        """The answer, piece by piece. To be defined; ``kwargs`` are what the caller gave besides.

        Two of them are yours to heed, as only you know what you are waiting for: ``proxy``, a URL, and ``timeout``, how
        many seconds there are until the first content.
        """
        raise NotImplementedError(f"{name_of(self)} does not define create_async_generator")

    @built_in
    def create_generator(self, *args: Any, **kwargs: Any) -> SyncPieces | Blocking:
        """As ``create_async_generator`` and with the same arguments, for programs that block. It sends at once.

        (A generator of one's own begins with the first step, in an event loop of its own, in a thread.)
        """
        result = self.create_async_generator(*args, **kwargs)
        if hasattr(result, "blocking"):
            return result.blocking()  # type: ignore[no-any-return]
        from ..blocking import Blocking

        return Blocking(result)

    # Its other name.
    create_completion = create_generator

    @either
    async def create_async(self, *args: Any, **kwargs: Any) -> str:
        """The whole answer of ``create_async_generator``."""
        from ..blocking import end, iterator_of

        pieces = await iterator_of(self.create_async_generator(*args, **kwargs))
        try:
            return "".join([str(piece) async for piece in pieces if piece is not None])
        finally:
            await end(pieces)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own_lists(cls)
