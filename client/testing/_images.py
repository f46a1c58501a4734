"""What a server that speaks OpenAI's images says: a tiny PNG for every image that is asked for. Pure."""

from __future__ import annotations

import base64
import re
import struct
import time
import zlib
from typing import Any

from ._openai import BadRequest, count_of, openai_format, parse_object
from ._replies import Incoming
from ._wire import Piece, Reply
from .answers import Answer

# "/images/7-0.png" is the first image (0) of those that request 7 asked for.
_FILE = re.compile(r"/images/\d{1,9}-(\d)\.png")
_MOST = 10
_FORMATS = ("url", "b64_json")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def images_reply(answer: Answer, incoming: Incoming) -> Reply:
    """The images that the body asks for, as URLs on this server or as Base64. Raises `BadRequest`."""
    asked = parse_object(incoming.record.body)
    if not isinstance(asked.get("prompt"), str) or not asked["prompt"]:
        raise BadRequest("prompt is the text that describes the image, and required.", "prompt")
    kind = asked.get("response_format") or "url"
    if kind not in _FORMATS:
        raise BadRequest(f"response_format is one of {', '.join(_FORMATS)}.", "response_format")
    data: list[Any] = []
    for index in range(count_of(asked, _MOST)):
        if kind == "url":
            data.append({"url": f"{incoming.site_url}/images/{incoming.number}-{index}.png"})
        else:
            data.append({"b64_json": base64.b64encode(png(index)).decode("ascii")})
    return openai_format(incoming.number).document(answer, {"created": int(time.time()), "data": data})


def file_index(path: str) -> int | None:
    """Which image of a reply the path is the URL of, or None if it is none's."""
    found = _FILE.fullmatch(path)
    return None if found is None else int(found[1])


def file_reply(answer: Answer, incoming: Incoming) -> Reply:
    """The image that a URL in an earlier reply names."""
    index = file_index(incoming.record.path)
    assert index is not None
    return openai_format(incoming.number).reply(answer, "image/png", [Piece(png(index))])


def png(index: int) -> bytes:
    """A picture of one pixel, for each index of another colour. (PNG, third edition, clauses 5 and 11.)"""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)  # 1 x 1, 8 bits a sample, RGB
    row = bytes([0, 25 * index, 128, 255 - 25 * index])  # no filter, then the pixel
    return _SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
