"""Methods that a class has and its instances, too: declarations are used as both."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING

__all__ = ["built_in", "either", "is_method", "is_own"]

if TYPE_CHECKING:
    # So do type checkers understand them: callable on both.
    from builtins import classmethod as built_in
    from builtins import classmethod as either
else:

    class either:  # noqa: N801 - a decorator, as classmethod is
        """A method whose first argument is whichever it was called on, the class or an instance."""

        def __init__(self, function):
            self.__func__ = self.__wrapped__ = function
            self.__doc__ = function.__doc__

        def __get__(self, instance, owner):
            return types.MethodType(self.__func__, owner if instance is None else instance)

    class built_in(either):  # noqa: N801
        """The same, for methods behind which our machines are: who overrides one means to be asked himself."""


def is_method(cls: type, name: str) -> bool:
    """Whether a class has a method of that name, and not an attribute that happens to be callable."""
    found = next((each.__dict__[name] for each in cls.__mro__ if name in each.__dict__), None)
    return isinstance(found, (either, classmethod, property, types.FunctionType))


def is_own(provider: object, method: str) -> bool:
    """Whether a provider, a class or an instance, has a method of that name behind which our machines are not."""
    cls = provider if isinstance(provider, type) else type(provider)
    found = next((each.__dict__[method] for each in cls.__mro__ if method in each.__dict__), None)
    return found is not None and not isinstance(found, built_in)
