"""What is refused before anything is sent, and with which words."""

from __future__ import annotations

from typing import Any

import pytest

from deltawire.protocol import ConfigurationError


def refused(work: Any, *args: Any, **kwargs: Any) -> str:
    """The words with which this is refused."""
    with pytest.raises(ConfigurationError) as caught:
        work(*args, **kwargs)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None, "a context may show a secret"
    return str(caught.value)
