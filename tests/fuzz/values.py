"""Targets: small readers of what peers and callers give: JSON as it is really sent, media, base64."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from whole_reader import mend

from deltawire.protocol import ChatCompletionChunk
from deltawire.protocol._json import MAX_DEPTH, loads
from deltawire.protocol.lenient import build
from deltawire.protocol.media import decode_base64, encode_base64, media_part, media_type

from .common import COMPARED, DOCUMENTED, Dice

KINDS = {
    "image/jpeg": b"\xff\xd8\xff", "image/png": b"\x89PNG", "image/gif": b"GIF8", "image/webp": b"RIFF",
    "audio/wav": b"RIFF", "audio/mpeg": b"",
}  # fmt: skip


def lenient_json(data: bytes) -> None:
    """A document is what the standard library makes of it, with texts that can be encoded; and any object makes a
    chunk."""
    naive: Any
    try:
        naive = mend_all(json.loads(data.decode("utf-8", "replace"), strict=False))
        valid = depth(naive) <= MAX_DEPTH
    except (ValueError, RecursionError):
        naive, valid = None, False
    COMPARED["json"] += 1
    try:
        value = loads(data)
    except DOCUMENTED["json"]:
        assert not valid
        return
    assert valid
    # As texts, since NaN is not equal to itself.
    assert repr(value) == repr(naive)
    if isinstance(value, dict):
        chunk = build(ChatCompletionChunk, value)
        again = json.dumps(chunk.to_dict())
        again.encode()


def depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inside is None else 1 + max(map(depth, inside), default=0)


def mend_all(value: Any) -> Any:
    """As `mend`, keys included."""
    if isinstance(value, dict):
        return {mend(key): mend_all(item) for key, item in value.items()}
    return [mend_all(item) for item in value] if isinstance(value, list) else mend(value)


def media(data: bytes) -> None:
    """Bytes and URLs as parts of a message."""
    kind = media_type(data)
    assert kind is None or data.startswith(KINDS[kind])
    try:
        part = media_part(data)
    except DOCUMENTED["media"]:
        assert kind is None
    else:
        assert kind is not None
        COMPARED["media"] += 1
        held = part.get("input_audio", {}).get("data") or part["image_url"]["url"].partition(",")[2]
        assert base64.b64decode(held, validate=True) == data
    url = data.decode("utf-8", "replace")
    for text in (url, "data:" + url, "data:audio/wav;base64," + url):
        try:
            part = media_part(text)
        except DOCUMENTED["media"]:
            continue
        assert part["type"] in ("image_url", "input_audio")
        assert part["type"] == "input_audio" or part["image_url"]["url"] == text


def base_64(data: bytes) -> None:
    """Base64 in both alphabets, padded or not, in lines or not."""
    assert decode_base64(encode_base64(data)) == data
    dice = Dice(data)
    cut = dice.byte() % 4
    encoded = base64.urlsafe_b64encode(dice.rest).decode()
    assert decode_base64("\n".join(re.findall(".{1,7}", encoded))) == dice.rest
    assert decode_base64(encoded.rstrip("=")) == dice.rest
    text = data.decode("utf-8", "surrogateescape")
    plain = "".join(text.split()).rstrip("=").translate(str.maketrans("-_", "+/"))
    valid = re.fullmatch("[A-Za-z0-9+/]*", plain) is not None and len(plain) % 4 != 1
    COMPARED["base64"] += 1
    try:
        found = decode_base64(text + "=" * cut)
    except DOCUMENTED["base64"] as error:
        assert not valid or isinstance(error, binascii.Error)
        return
    assert valid
    assert found == base64.b64decode(plain + "==")
