"""Reading media: paths, files and images in memory, as the content parts of a message."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from typing import IO, Any, Protocol

from deltawire.protocol import ConfigurationError, media_part


class SavesImage(Protocol):
    """An image of Pillow, or what is like one."""

    @property
    def format(self) -> str | None: ...

    def save(self, fp: Any, format: str | None = None) -> object: ...


MediaData = bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes] | SavesImage
"""An image or audio: bytes, a path, an http(s) or data: URL, a binary file, an image of Pillow."""

MediaType = MediaData | tuple[MediaData, str | None]
"""The same, alone or with a file name."""

MediaListType = Sequence[MediaType]
"""What ``media=`` takes."""


def read_media(media: Iterable[MediaType] | None) -> list[dict[str, Any]]:
    """The content parts of these media, in their order; of None, none.

    Files are read here and now, from where they stand, and left there if they can seek. Raises
    `ConfigurationError` for what can't be read, and for what `media_part` refuses.
    """
    return [_read(*pair) for pair in pairs(media) or ()]


def pairs(media: Iterable[MediaType] | None) -> list[tuple[Any, str | None]] | None:
    """These media as `(data, file name)` each, unread; of None, None. Raises `ConfigurationError` for what is none."""
    if media is None:
        return None
    if isinstance(media, (str, bytes, bytearray, memoryview)) or not hasattr(media, "__iter__") or _is_file(media):
        raise ConfigurationError(
            f"media must be a list of (data, file name) or of data alone, not {type(media).__name__}: "
            "put it into a list"
        )
    return [_pair(each) for each in media]


def _pair(item: Any) -> tuple[Any, str | None]:
    if not isinstance(item, (tuple, list)):
        return item, None
    if len(item) == 2 and isinstance(item[1], (str, type(None))):
        return item[0], item[1]
    raise ConfigurationError("a medium in a tuple must be (data, file name), the name a str or None")


def _is_file(data: Any) -> bool:
    return callable(getattr(data, "read", None))


def _read(data: Any, name: str | None) -> dict[str, Any]:
    if isinstance(data, str) and data[:5].lower() != "data:" and "://" not in data:
        return _read_path(data, name)
    if isinstance(data, os.PathLike):
        return _read_path(os.fsdecode(data), name)
    if _is_file(data):
        return _read_file(data, name)
    if callable(getattr(data, "save", None)) and hasattr(data, "format"):
        return media_part(_saved(data), name)
    return media_part(data, name)


def _read_path(path: str, name: str | None) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"the media file {path[:200]!r} can't be read: {reason}") from None
    return media_part(data, name or path)


def _read_file(file: Any, name: str | None) -> dict[str, Any]:
    own = getattr(file, "name", None)
    name = name or (own if isinstance(own, str) else None)
    try:
        seekable = callable(getattr(file, "seekable", None)) and file.seekable()
        position = file.tell() if seekable else 0
        data = file.read()
        if seekable:
            file.seek(position)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the media file {name or file!r} can't be read: {error}") from None
    if isinstance(data, str):
        raise ConfigurationError(f"the media file {name or file!r} gives text: open it in binary mode, 'rb'")
    return media_part(data, name)


def _saved(image: SavesImage) -> bytes:
    # A photograph stays one: as PNG it is many times as long.
    format = "JPEG" if image.format == "JPEG" else "PNG"
    buffer = io.BytesIO()
    try:
        image.save(buffer, format=format)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the image can't be saved as {format}: {error}") from None
    return buffer.getvalue()
