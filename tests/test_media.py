"""protocol/media.py and client/media.py: which bytes are what, and where they may come from."""

from __future__ import annotations

import base64
import io
import pathlib
from typing import TYPE_CHECKING, Any

import pytest
from feeding import QUICK
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from deltawire import MediaListType
from deltawire.media import read_media
from deltawire.protocol import ChatRequest, media_part, media_type, with_media
from deltawire.protocol.media import decode_base64

if TYPE_CHECKING:
    from collections.abc import Callable

JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
GIF = b"GIF89a\1\0\1\0"
WEBP = b"RIFF\x1a\0\0\0WEBPVP8 "
WAV = b"RIFF\x24\0\0\0WAVEfmt "
MP3 = b"\xff\xfb\x90\x64\0\0"
ID3 = b"ID3\4\0\0\0\0\1\x7f"

IMAGES = {"image/jpeg": JPEG, "image/png": PNG, "image/gif": GIF, "image/webp": WEBP}
AUDIO = {"wav": WAV, "mp3": MP3}

STRANGE = {
    "MP4": b"\0\0\0\x20ftypisom\0\0\2\0",
    "WebM": b"\x1a\x45\xdf\xa3\x01\0\0\0",
    "AVI": b"RIFF\0\0\0\0AVI LIST",
    "RIFF alone": b"RIFF",
    "AAC": b"\xff\xf1\x50\x80\0\0",
    "MPEG layer I": b"\xff\xff\x90\x64",
    "a reserved version": b"\xff\xeb\x90\x64",
    "a bad bit rate": b"\xff\xfb\xf0\x64",
    "a bad sampling rate": b"\xff\xfb\x9c\x64",
    "a cut sync word": b"\xff\xfb\x90",
    "UTF-16": b"\xff\xfeh\0i\0",
    "a text on ID3": b"ID3 is a tag of MP3 files",
    "ID3 with a bad size": b"ID3\4\0\0\0\0\1\x80",
    "half a PNG": PNG[:7],
    "half a JPEG": JPEG[:2],
    "SVG": b"<svg/>",
    "PDF": b"%PDF-1.7",
    "blank before": b" " + PNG,
}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def audio(data: bytes, format: str) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": b64(data), "format": format}}


# --- Bytes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", IMAGES)
def test_images(kind: str) -> None:
    assert media_part(IMAGES[kind]) == image(f"data:{kind};base64,{b64(IMAGES[kind])}")


@pytest.mark.parametrize("format", AUDIO)
def test_audio(format: str) -> None:
    assert media_part(AUDIO[format]) == audio(AUDIO[format], format)


@pytest.mark.parametrize("data", [MP3, ID3, b"\xff\xf3\x40\xc0", b"\xff\xe3\x18\xc4", b"\xff\xfa\x90\x64"])
def test_mp3_of_all_versions(data: bytes) -> None:
    assert media_part(data) == audio(data, "mp3")


@pytest.mark.parametrize("name", STRANGE)
def test_other_bytes_are_refused(name: str) -> None:
    words = refused(media_part, STRANGE[name], "cat.png")
    assert media_type(STRANGE[name]) is None
    assert "'cat.png'" in words
    assert "JPEG, PNG, GIF and WebP" in words


def test_no_bytes_are_refused() -> None:
    assert refused(media_part, b"").startswith("nothing (0 bytes) can't be sent")


@pytest.mark.parametrize("name", ["a.mp3", "a.mp4", "", None, "a\nb"])
def test_a_name_overrides_nothing(name: str | None) -> None:
    assert media_part(PNG, name) == media_part(PNG)


def test_any_kind_of_bytes() -> None:
    assert media_part(bytearray(PNG)) == media_part(memoryview(PNG)) == media_part(PNG)  # type: ignore[arg-type]
    assert "int can't be sent" in refused(media_part, 5)


@QUICK
@given(st.binary(max_size=16))
def test_any_bytes_are_sent_or_refused(data: bytes) -> None:
    if media_type(data) is None:
        refused(media_part, data)
    else:
        ChatRequest(messages=with_media("a", [media_part(data)]), model="m").encode()


# --- URLs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://s/a.png",
        "https://s/a?b=c#d",
        "HTTPS://S/A",
        "https://s.mov",
        "https://s.mov/?a.mp4",
        "https://s/a.mp4.png#b.mp4",
        "data:image/png;base64,AAAA",
        "data:image/svg+xml,%3Csvg/%3E",
        "DATA:IMAGE/PNG;BASE64,AAAA",
    ],
)
def test_urls_stay_as_they_are(url: str) -> None:
    assert media_part(url, "a.mp4") == image(url)


@pytest.mark.parametrize(
    ("kind", "format"),
    [("audio/wav", "wav"), ("audio/x-wav", "wav"), ("audio/mpeg", "mp3"), ("Audio/MP3", "mp3"), ("audio/wave", "wav")],
)
def test_audio_urls(kind: str, format: str) -> None:
    assert media_part(f"data:{kind};base64,{b64(WAV)}") == audio(WAV, format)
    assert media_part(f"data:{kind};codecs=1;base64,{b64(WAV).rstrip('=')}") == audio(WAV, format)


@pytest.mark.parametrize(
    "text",
    [
        "", "cat.png", "/tmp/cat.png", "C:\\cat.png", "file:///cat.png", "ftp://me:secret@s/cat.png", "http://",
        "https:// s/", "data:", "data:,x", "data:image/png", "data:image/png;base64,", "data:video/mp4;base64,AAAA",
        "data:audio/ogg;base64,AAAA", "data:audio/wav,AAAA", "data:audio/wav;base64,A", "data:audio/wav;base64,é",
        "data:text/plain;base64,AAAA", " http://s/", "javascript:alert(1)", "http://s/a.mp4", "HTTPS://S/A.MOV?key=secret",
        "https://s.x:1/b/a.webm#t=1",
    ],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    words = refused(media_part, text)
    assert "http:// or https:// URLs" in words
    assert "secret" not in words


def test_a_long_type_is_not_repeated() -> None:
    assert len(refused(media_part, "data:" + "x" * 10_000 + ",y")) < 400


# --- Base64 ----------------------------------------------------------------------------------------


@QUICK
@given(st.binary(max_size=40))
def test_base64_in_all_its_forms(data: bytes) -> None:
    plain, other = b64(data), base64.urlsafe_b64encode(data).decode()
    for text in (plain, plain.rstrip("="), other, other.rstrip("="), "\r\n".join(plain), f" {plain}\n"):
        assert decode_base64(text) == data


@pytest.mark.parametrize("text", ["A", "AAAAA", "é", "A*==", "AA=A", "data:image/png;base64,AAAA"])
def test_what_is_no_base64(text: str) -> None:
    with pytest.raises(ValueError):
        decode_base64(text)


# --- Reading ---------------------------------------------------------------------------------------


class Picture:
    """An image as Pillow's are."""

    def __init__(self, format: str | None, error: Exception | None = None) -> None:
        self.format = format
        self.error = error
        self.size = (1, 1)

    def save(self, fp: Any, format: str | None = None) -> None:
        if self.error is not None:
            raise self.error
        fp.write({"JPEG": JPEG, "PNG": PNG}[format or ""])


class Unseekable(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise AssertionError("it can't tell")


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "cat.txt"
    path.write_bytes(PNG)
    return path


def test_no_media() -> None:
    assert read_media(None) == read_media([]) == read_media(()) == []


def test_media_of_all_kinds_in_their_order(path: pathlib.Path) -> None:
    data_url = "DATA:image/png;base64,A"
    media: MediaListType = [
        (WAV, "a.wav"), (GIF, None), JPEG, bytearray(PNG), memoryview(MP3), "https://s/a.png", data_url, str(path),
        (path, "cat.png"), io.BytesIO(WEBP), Picture("JPEG"), (Picture(None), "x"),
    ]  # fmt: skip
    expected: list[bytes | str] = [WAV, GIF, JPEG, PNG, MP3, "https://s/a.png", data_url, PNG, PNG, WEBP, JPEG, PNG]
    assert read_media(media) == [media_part(each) for each in expected]
    assert read_media(iter(media[:2])) == [media_part(WAV), media_part(GIF)]


def test_a_file_is_read_from_where_it_stands_and_left_there() -> None:
    file = io.BytesIO(b"head" + PNG)
    file.seek(4)
    assert read_media([file, (file, "a")]) == [media_part(PNG)] * 2
    assert file.tell() == 4


def test_a_file_that_can_not_seek() -> None:
    file = Unseekable(PNG)
    assert read_media([file]) == [media_part(PNG)]
    assert "0 bytes" in refused(read_media, [file])


def test_a_file_of_the_disk(path: pathlib.Path) -> None:
    with path.open("rb") as file:
        assert read_media([file]) == [media_part(PNG)]
        assert file.tell() == 0
    assert "cat.txt" in refused(read_media, [file]), "it is closed"
    path.write_text("hello")
    with path.open() as text:
        words = refused(read_media, [text])
    assert "binary mode" in words
    assert "cat.txt" in words
    with path.open("rb") as file:
        assert "cat.txt" in refused(read_media, [file])


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_a_file_that_is_not_there(tmp_path: pathlib.Path, kind: Callable[[Any], Any]) -> None:
    missing = tmp_path / "none.png"
    words = refused(read_media, [kind(missing)])
    assert str(missing) in words
    assert "No such file" in words
    assert str(tmp_path) in refused(read_media, [kind(tmp_path)])


@pytest.mark.parametrize("path", ["", "a\0b", "C:\\none.png", "javascript:x", "no url"])
def test_what_is_no_path(path: str) -> None:
    assert "can't be read" in refused(read_media, [path])


def test_a_url_of_another_scheme_is_no_path() -> None:
    words = refused(read_media, ["ftp://me:secret@s/a.png"])
    assert "can't be sent" in words
    assert "secret" not in words


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", None])
def test_an_image_is_saved(format: str | None) -> None:
    assert read_media([Picture(format)]) == [media_part(JPEG if format == "JPEG" else PNG)]


def test_an_image_that_can_not_be_saved() -> None:
    words = refused(read_media, [Picture(None, OSError("cannot write mode F as PNG"))])
    assert words == "the image can't be saved as PNG: cannot write mode F as PNG"


@pytest.mark.parametrize("media", ["cat.png", PNG, bytearray(PNG), io.BytesIO(PNG), 5, Picture("PNG")])
def test_what_is_no_list(media: Any) -> None:
    assert "put it into a list" in refused(read_media, media)


@pytest.mark.parametrize("item", [(PNG,), (PNG, "a", "b"), (PNG, 5), (), [PNG, PNG]])
def test_what_is_no_pair(item: Any) -> None:
    assert "(data, file name)" in refused(read_media, [item])


@pytest.mark.parametrize("item", [None, 5, object(), {"type": "text"}])
def test_what_is_no_medium(item: Any) -> None:
    assert "can't be sent as media" in refused(read_media, [item])


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"GIF87a", "image/gif"), (b"GIF89a", "image/gif"), (b"GIF88a", None),
        (b"ID3\2\0\0\0\0\0\0", "audio/mpeg"), (b"ID3\4\0\0\0\0\0\x7f", "audio/mpeg"),
        (b"ID3\1\0\0\0\0\0\0", None), (b"ID3\5\0\0\0\0\0\0", None), (b"ID3\3\0\0\0\0\0\x80", None),
    ],
)  # fmt: skip
def test_the_versions_there_are(start: bytes, kind: str | None) -> None:
    assert media_type(start) == kind


def test_base64_is_the_last_word_before_the_data() -> None:
    """RFC 2397 section 3: parameters come before it."""
    encoded = b64(b"RIFF1234WAVE")
    assert media_part(f"data:audio/wav;a=b;base64,{encoded}") == audio(b"RIFF1234WAVE", "wav")
    for head in ("data:audio/wav;base64;a=b", "data:audio/wav", "data:audio/wav;a=base64"):
        assert "is no base64" in refused(media_part, f"{head},{encoded}")
    words = refused(media_part, f"data:{'x' * 60},{encoded}")
    assert f"a data: URL of type '{'x' * 40}' can't" in words
