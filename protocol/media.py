"""Images and audio in messages: bytes and URLs as content parts.

OpenAI's API reference, "Create chat completion", content parts `image_url` and `input_audio`. What some bytes
are is told by their first ones, whatever a file's name says. Nothing is read here: no file, no URL.
"""

from __future__ import annotations

import binascii
import re
from typing import Any

from .errors import ConfigurationError

_ACCEPTED = "JPEG, PNG, GIF and WebP images, WAV and MP3 audio (bytes, data: URLs), http:// or https:// URLs of images"

_AUDIO_FORMATS = {
    "audio/mp3": "mp3",
    "audio/mpeg": "mp3",
    "audio/vnd.wave": "wav",
    "audio/wav": "wav",
    "audio/wave": "wav",
    "audio/x-wav": "wav",
}

_WEB_URL = re.compile(r"https?://[^/\s]", re.IGNORECASE)
_VIDEO_URL = re.compile(
    r"https?://[^/?#]+/[^?#]*\.(3gp|avi|flv|m4v|mkv|mov|mp4|mpe?g|ogv|webm|wmv)(?:[?#]|\Z)", re.IGNORECASE
)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*(?=:)", re.IGNORECASE)


def media_part(data: bytes | str, name: str | None = None) -> dict[str, Any]:
    """The content part that says this image or audio: bytes, an http(s) URL, or a data: URL.

    ``name``, such as a file's, is for the error only. Raises `ConfigurationError` for anything else: other
    images, other audio, video, no bytes at all, a path.
    """
    if isinstance(data, str):
        return _of_url(data, name)
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise _refused(type(data).__name__, name)
    data = bytes(data)
    if not data:
        raise _refused("nothing (0 bytes)", name)
    kind = media_type(data)
    if kind is None:
        raise _refused(f"{len(data)} bytes of another kind, beginning {data[:8]!r},", name)
    encoded = encode_base64(data)
    return _audio(encoded, kind) if kind in _AUDIO_FORMATS else _image(f"data:{kind};base64,{encoded}")


def media_type(data: bytes) -> str | None:
    """The media type of an image or audio that an API takes, by its first bytes; None for anything else.

    Sources: RFC 2083 section 3.1 (PNG), GIF89a section 17, ITU-T T.81 B.1.1 (JPEG), RFC 9649 section 2.4 (WebP),
    RIFF (WAV), ISO/IEC 11172-3 section 2.4.1.3 and ID3v2 section 3.1 (MP3).
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data.startswith(b"RIFF"):
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(data[8:12])
    return "audio/mpeg" if _is_mp3(data) else None


def _is_mp3(data: bytes) -> bool:
    if len(data) >= 10 and data.startswith(b"ID3"):
        # A known version and a size of four 7-bit bytes: a text may begin with these letters, too.
        return data[3] in (2, 3, 4) and max(data[6:10]) < 0x80
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return False
    # After the sync word: a version that exists, layer III (AAC has 0 there), and rates that exist.
    version, layer = data[1] >> 3 & 3, data[1] >> 1 & 3
    bit_rate, sampling_rate = data[2] >> 4, data[2] >> 2 & 3
    return version != 1 and layer == 1 and bit_rate != 15 and sampling_rate != 3


def encode_base64(data: bytes) -> str:
    """These bytes in base64, in one line. (The module base64 would take two milliseconds to load.)"""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def decode_base64(text: str) -> bytes:
    """Base64 in either of its alphabets, padded or not, broken into lines or not. Raises ``ValueError``."""
    text = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    if not _BASE64.fullmatch(text):
        raise ValueError("characters beyond the alphabet of base64")
    return binascii.a2b_base64(text + "=" * (-len(text) % 4))


def _of_url(url: str, name: str | None) -> dict[str, Any]:
    if _WEB_URL.match(url):
        if video := _VIDEO_URL.match(url):
            raise _refused(f"the URL of a video (.{video[1]})", name)
        return _image(url)
    scheme = _SCHEME.match(url)
    if scheme is None or scheme[0].lower() != "data":
        # Not repeated: it may hold a password, or a whole file.
        raise _refused("a str that is no http(s) or data: URL", name)
    head, _, held = url.partition(",")
    kind, *options = (word.strip().lower() for word in head[len("data:") :].split(";"))
    if not held:
        raise _refused("a data: URL without data", name)
    if kind.startswith("image/"):
        return _image(url)
    if kind not in _AUDIO_FORMATS:
        raise _refused(f"a data: URL of type {kind[:40]!r}", name)
    try:
        if options[-1:] != ["base64"]:
            raise ValueError
        audio = decode_base64(held)
    except ValueError:
        raise _refused("a data: URL of audio that is no base64", name) from None
    return _audio(encode_base64(audio), kind)


def _image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def _audio(encoded: str, kind: str) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": encoded, "format": _AUDIO_FORMATS[kind]}}


def _refused(what: str, name: str | None) -> ConfigurationError:
    named = f" ({name!r})" if name else ""
    return ConfigurationError(f"{what}{named} can't be sent as media; what can: {_ACCEPTED}")
