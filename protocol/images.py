"""Images that a server makes: the request, and its reply.

OpenAI's API reference, "Create image" and "The image generation response"; and what other servers send instead.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ._json import NOT_TYPED, loads
from .dialects.signals import EMPTY
from .encoding import check, encode_body
from .errors import ConfigurationError, UnexpectedReplyError
from .lenient import build_with_extra
from .media import decode_base64, encode_base64, media_type
from .objects import Answer, Object, keep_whole_payload
from .request import check_parameters, shown_request
from .reserved import Reserved
from .status import ErrorObject, error_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# OpenAI's API reference, "Create image"; width and height are the size of many other servers.
IMAGE_PARAMETERS = frozenset({
    "background", "height", "input_fidelity", "moderation", "n", "output_compression", "output_format",
    "partial_images", "quality", "response_format", "size", "style", "user", "width",
})  # fmt: skip


class ImageRequest(Reserved, frozen=True, kw_only=True):
    """What a caller asks of a model that makes images, in OpenAI's words."""

    prompt: str
    model: str | None = None
    """None: the field is not sent, and the server chooses."""
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    """Further fields of the body; those that are None are not sent. 0, False and "" are."""
    extra_body: dict[str, Any] | None = None
    """Fields of the body that win over all others, None included."""
    extra_headers: dict[str, str | None] | None = None
    """Header fields that win over all others; None removes a field."""
    extra_query: dict[str, Any] | None = None
    """Added to the URL's query."""

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            raise ConfigurationError(f"prompt must be a str, not {type(self.prompt).__name__}")
        check_parameters(self.params, IMAGE_PARAMETERS, ("prompt", "model"))

    def __repr__(self) -> str:
        return shown_request(self)

    def encode(self) -> bytes:
        """The body, as JSON. Raises `ConfigurationError` for what JSON can't say."""
        body: dict[str, Any] = {"prompt": self.prompt}
        if self.model is not None:
            check(self.model, "model")
            body["model"] = self.model
        return encode_body(body, self.params, self.extra_body)


class Image(Object):
    """An image, as a URL or in base64."""

    url: str | None = None
    b64_json: str | None = None
    revised_prompt: str | None = None

    @property
    def data(self) -> bytes:
        """The image's bytes. Raises `ConfigurationError` when there is but a URL of the web, which nobody has
        fetched, and `UnexpectedReplyError` when what the server sent is no base64."""
        encoded = self.b64_json or self.url or ""
        if _is_data_url(encoded):
            encoded = encoded.partition(",")[2]
        elif not self.b64_json:
            raise ConfigurationError(
                "the server sent no bytes of this image: fetch its URL, or ask for response_format='b64_json'"
            )
        try:
            return decode_base64(encoded)
        except ValueError:
            raise UnexpectedReplyError("the bytes of the image are no base64") from None

    @property
    def src(self) -> str:
        """Where the image is to be had: its URL, or a data: URL that holds it. Raises as `data` does."""
        if self.url:
            return self.url
        data = self.data
        kind = media_type(data) or ""
        return f"data:{kind if kind.startswith('image/') else 'image/png'};base64,{encode_base64(data)}"


class ImageTokensDetails(Object):
    """Of the input's tokens."""

    image_tokens: int | None = None
    text_tokens: int | None = None


class ImagesUsage(Object):
    """Tokens counted by the server."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    input_tokens_details: ImageTokensDetails | None = None


class ImagesResponse(Answer):
    """The reply to a request for images; iterating it gives its images."""

    data: list[Image] = []  # noqa: RUF012 - msgspec copies it
    created: int = 0
    """Unix time, in seconds."""
    usage: ImagesUsage | None = None

    def __iter__(self) -> Iterator[Image]:
        return iter(self.data)


_decode_images = msgspec.json.Decoder(ImagesResponse).decode


def read_images(body: bytes) -> ImagesResponse | ErrorObject | Literal["empty"] | None:
    """The reply to a request for images: ``{"data": [...]}``, ``{"images": [...]}``, a bare list, or one image.

    An image is ``{"url": ...}``, ``{"b64_json": ...}``, or a URL or base64 alone. Errors may stand in the place of
    images: the first one when there is no image at all; else they are kept, as the vendor field ``errors``. That it is
    empty, when there is nothing in the list. None when the document is JSON and none of these; ``ValueError`` when it
    is no JSON.
    """
    try:
        images = _decode_images(body)
        if images.data and all(_is_one(image) for image in images):
            keep_whole_payload(images, body)
            return images
    except NOT_TYPED:
        pass
    value, rest = loads(body), {}
    if isinstance(value, dict):
        name = next((name for name in ("data", "images") if value.get(name) is not None), None)
        if name is not None:
            rest = {key: held for key, held in value.items() if key != name}
            value = value[name]
    items = value if isinstance(value, list) else [value]
    found = [image for image in map(_image, items) if image is not None]
    if not found:
        return next(filter(None, map(_error, items)), None) if items else EMPTY
    if failed := [item for item in items if _error(item) is not None]:
        rest = {"errors": failed, **rest}
    images = build_with_extra(ImagesResponse, rest)
    images.data = found
    return images


def _error(item: Any) -> ErrorObject | None:
    """The error that stands in the place of an image."""
    if not isinstance(item, dict) or _image(item) is not None:
        return None
    return error_object(item, flat="message" in item)


def _is_one(image: Image) -> bool:
    return bool(image.url or image.b64_json)


def _image(item: Any) -> Image | None:
    if isinstance(item, dict):
        image = build_with_extra(Image, item)
        return image if _is_one(image) else None
    if not isinstance(item, str):
        return None
    if "://" in item or _is_data_url(item):
        return Image(url=item)
    try:
        # (As base64 every JPEG begins with a slash, as a path does.)
        return Image(b64_json=item) if media_type(decode_base64(item)) else None
    except ValueError:
        return None


def _is_data_url(text: str) -> bool:
    return text[:5].lower() == "data:"


def markdown(images: Iterable[Image], prompt: str = "") -> str:
    """The images in Markdown, a line each: ``![prompt](url)``, with a data: URL where the server sent base64.

    Nothing in prompt or URL ends the image early (CommonMark 0.31 sections 2.4 and 6.3). Raises as `Image.src`.
    """
    alternative = re.sub(r"([\\\[\]`<])", r"\\\1", " ".join(prompt.split()))
    return "\n".join(f"![{alternative}]({_UNSAFE.sub(_escaped, image.src)})" for image in images)


_UNSAFE = re.compile(r"[\x00-\x20\x7f()<>\\]")


def _escaped(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}"
