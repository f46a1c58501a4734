"""images.py: requests for images, and the replies of all kinds of servers."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from feeding import JSON, QUICK, each_byte, failure, read, same
from hypothesis import given
from hypothesis import strategies as st

from deltawire.protocol import (
    APIStatusError,
    BadRequestError,
    ConfigurationError,
    EmptyReplyError,
    Image,
    ImageRequest,
    ImagesResponse,
    StreamEnded,
    UnexpectedReplyError,
    markdown,
    read_images,
)
from deltawire.protocol.images import IMAGE_PARAMETERS

if TYPE_CHECKING:
    from deltawire.protocol import Event

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0"
URL = "https://s/a.png?sig=x%2By"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def body_of(prompt: str = "a cat", **more: Any) -> dict[str, Any]:
    decoded = json.loads(ImageRequest(prompt=prompt, **more).encode())
    assert isinstance(decoded, dict)
    return decoded


def response(value: object) -> ImagesResponse:
    images = read_images(json.dumps(value).encode())
    assert isinstance(images, ImagesResponse)
    return images


# --- The request -----------------------------------------------------------------------------------


def test_the_body() -> None:
    assert ImageRequest(prompt="a cat").encode() == b'{"prompt":"a cat"}'
    assert body_of(
        model="m",
        params={"n": 0, "size": None, "style": "", "width": 64},
        extra_body={"seed": 5, "n": None},
    ) == {"prompt": "a cat", "model": "m", "n": None, "style": "", "width": 64, "seed": 5}


def test_all_parameters() -> None:
    """OpenAI's API reference, "Create image"; and two of other servers."""
    names = {
        "background", "height", "input_fidelity", "moderation", "n", "output_compression", "output_format",
        "partial_images", "quality", "response_format", "size", "style", "user", "width",
    }  # fmt: skip
    assert names == IMAGE_PARAMETERS
    assert body_of(params=dict.fromkeys(names, 1)).keys() == names | {"prompt"}


@pytest.mark.parametrize(("wrong", "right"), [("sise", "size"), ("qualty", "quality"), ("promt", "prompt")])
def test_an_unknown_parameter_is_refused_with_a_suggestion(wrong: str, right: str) -> None:
    with pytest.raises(ConfigurationError, match=f"did you mean '{right}'.*extra_body"):
        ImageRequest(prompt="a", params={wrong: 1})


@pytest.mark.parametrize("name", ["prompt", "model"])
def test_a_field_is_no_parameter(name: str) -> None:
    with pytest.raises(ConfigurationError, match="a field of its own"):
        ImageRequest(prompt="a", params={name: 1})


def test_parameters_of_a_chat_are_none() -> None:
    with pytest.raises(ConfigurationError, match="temperature"):
        ImageRequest(prompt="a", params={"temperature": 1})


@pytest.mark.parametrize("prompt", [None, b"x", 5, ["x"]])
def test_a_prompt_is_a_text(prompt: Any) -> None:
    with pytest.raises(ConfigurationError, match="prompt must be a str"):
        ImageRequest(prompt=prompt)


@pytest.mark.parametrize(
    "more",
    [{"model": b"m"}, {"params": {"user": b"x"}}, {"params": {"n": float("nan")}}, {"extra_body": {"x": object()}}],
)
def test_what_json_can_not_say(more: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        body_of(**more)
    with pytest.raises(ConfigurationError, match="surrogate"):
        body_of("\ud83d")


# --- The reply -------------------------------------------------------------------------------------


OPENAI = {
    "created": 1700000000,
    "data": [{"b64_json": b64(PNG), "revised_prompt": "a big cat", "seed": 7}],
    "usage": {
        "input_tokens": 1,
        "output_tokens": 2,
        "total_tokens": 3,
        "input_tokens_details": {"text_tokens": 1, "image_tokens": 0},
    },
    "output_format": "png",
}


def test_the_reply_of_openai() -> None:
    images: Any = response(OPENAI)
    assert images.created == 1700000000
    assert images.usage.input_tokens_details.text_tokens == 1
    assert images.output_format == "png"
    [image] = images
    assert (image.revised_prompt, image.seed, image.url) == ("a big cat", 7, None)
    assert image.data == PNG
    assert images.to_dict() == OPENAI


@pytest.mark.parametrize(
    "value",
    [
        {"data": [{"url": URL, "x": 1}]},
        {"data": [{"url": URL, "x": 1}, {"error": "no"}, None, 5, ""]},
        {"data": [{"url": URL, "x": 1, "revised_prompt": None}], "created": None},
        [{"url": URL, "x": 1}],
        {"images": [{"url": URL, "x": 1}]},
        {"data": None, "images": [{"url": URL, "x": 1}]},
        {"data": {"url": URL, "x": 1}},
        {"url": URL, "x": 1},
    ],
)
def test_replies_of_other_servers(value: Any) -> None:
    [image] = response(value)
    found: Any = image
    assert (found.url, found.b64_json, found.x) == (URL, None, 1)


def test_vendor_fields_of_the_odd_replies() -> None:
    images: Any = response({"images": [{"url": URL}], "created": "5", "timings": {"inference": 1.5}})
    assert (images.created, images.timings) == (5, {"inference": 1.5})
    assert set(images.model_extra) == {"timings"}


@pytest.mark.parametrize("value", [[URL], {"data": [URL]}, {"images": [URL, "nonsense", "/a.png"]}, {"data": URL}])
def test_urls_alone(value: Any) -> None:
    assert response(value).data == [Image(url=URL)]


@pytest.mark.parametrize("data", [PNG, JPEG])
def test_base64_alone(data: bytes) -> None:
    assert [image.data for image in response({"images": [b64(data), f"data:image/png;base64,{b64(data)}"]})] == [
        data
    ] * 2


def events(value: object) -> list[Event]:
    """The events of the machine, the same however the bytes are split."""
    body = json.dumps(value).encode()
    whole = read(body, headers=JSON, dialect="images")
    same(each_byte(body), whole, headers=JSON, dialect="images")
    return whole


@pytest.mark.parametrize("value", [{"data": []}, [], {"images": []}, {"created": 5, "data": []}])
def test_no_images(value: Any) -> None:
    assert read_images(json.dumps(value).encode()) == "empty"
    error = failure(events(value))
    assert isinstance(error, EmptyReplyError)
    assert "it holds no image; try again" in str(error)


def test_an_empty_list_beside_an_error() -> None:
    for value in ({"data": [], "error": {"message": "no quota", "code": 429}}, {"data": [], "message": "no quota"}):
        error = failure(events(value))
        assert isinstance(error, APIStatusError)
        assert "no quota" in str(error)


REFUSED = {"error": {"message": "not safe", "type": "invalid_request_error", "code": "content_policy_violation"}}


@pytest.mark.parametrize(
    "value", [[REFUSED], {"data": [REFUSED]}, {"data": [None, {"url": None}, REFUSED, {"error": 1}]}]
)
def test_errors_in_the_place_of_all_images(value: Any) -> None:
    error = failure(events(value))
    assert isinstance(error, BadRequestError)
    assert "not safe" in str(error)
    assert error.code == "content_policy_violation"


@pytest.mark.parametrize("item", [{"error": "not safe"}, {"message": "not safe", "code": 5}, REFUSED])
def test_errors_in_the_place_of_some_images(item: dict[str, Any]) -> None:
    images, last = events({"data": [{"url": URL}, item, {"url": URL}], "created": 5})
    assert isinstance(images, ImagesResponse)
    assert isinstance(last, StreamEnded)
    assert [image.url for image in images] == [URL, URL]
    assert images.model_extra == {"errors": [item]}
    assert images.created == 5


@pytest.mark.parametrize(
    "value",
    [
        {}, None, 5, "nonsense", {"data": 5}, {"data": None}, [5], {"error": None},
        {"data": [{"url": None, "b64_json": None}]}, {"data": ["nonsense"]}, {"data": [[URL]]}, {"url": ""}, ["AAAA"],
    ],
)  # fmt: skip
def test_json_of_another_kind(value: Any) -> None:
    assert read_images(json.dumps(value).encode()) is None


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"data": [', b'{"data": []} x', b"[" * 200 + b"]" * 200])
def test_what_is_no_json(body: bytes) -> None:
    with pytest.raises(ValueError):
        read_images(body)


def test_what_msgspec_refuses() -> None:
    images = read_images(b'{"data": [{"url": "https://s/\\ud83d\xff", "score": NaN}], "created": 1.0}')
    assert isinstance(images, ImagesResponse)
    assert images.data[0].url == "https://s/\ufffd\ufffd"
    assert images.created == 1


@QUICK
@given(
    st.recursive(
        st.none() | st.text(max_size=3) | st.integers(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["data", "images", "url", "b64_json", "error", "usage", "x"]), inner)
        ),
        max_leaves=8,
    )
)
def test_any_json_is_read(value: Any) -> None:
    images = read_images(json.dumps(value).encode())
    if isinstance(images, ImagesResponse):
        assert images.data
        assert all(image.url or image.b64_json for image in images)


def test_every_cut_of_a_reply_is_no_json() -> None:
    body = json.dumps(OPENAI).encode()
    for end in range(len(body)):
        with pytest.raises(ValueError):
            read_images(body[:end])


# --- An image --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [
        Image(b64_json=b64(PNG)),
        Image(b64_json="\n".join(b64(PNG)).rstrip("=")),
        Image(b64_json=f"data:image/png;base64,{b64(PNG)}"),
        Image(url=f"data:image/png;base64,{b64(PNG)}"),
        Image(url=URL, b64_json=b64(PNG)),
    ],
)
def test_the_bytes_of_an_image(image: Image) -> None:
    assert image.data == PNG


@pytest.mark.parametrize("image", [Image(), Image(url=URL)])
def test_no_bytes(image: Image) -> None:
    with pytest.raises(ConfigurationError, match="response_format='b64_json'"):
        _ = image.data


def test_bytes_that_are_no_base64() -> None:
    with pytest.raises(UnexpectedReplyError, match="no base64"):
        _ = Image(b64_json="A*").data


@pytest.mark.parametrize(
    ("image", "src"),
    [
        (Image(url=URL, b64_json=b64(PNG)), URL),
        (Image(b64_json=b64(JPEG)), f"data:image/jpeg;base64,{b64(JPEG)}"),
        (Image(b64_json=f"data:image/png;base64,{b64(JPEG)}"), f"data:image/jpeg;base64,{b64(JPEG)}"),
        (Image(b64_json="AAAA"), "data:image/png;base64,AAAA"),
        (Image(b64_json=b64(b"\xff\xfb\x90\x64")), f"data:image/png;base64,{b64(bytes([255, 251, 144, 100]))}"),
    ],
)
def test_where_an_image_is_to_be_had(image: Image, src: str) -> None:
    assert image.src == src


# --- Markdown --------------------------------------------------------------------------------------


def test_a_line_an_image() -> None:
    images = ImagesResponse(data=[Image(url=URL), Image(b64_json=b64(PNG))])
    assert markdown(images, "a cat!") == f"![a cat!]({URL})\n![a cat!](data:image/png;base64,{b64(PNG)})"
    assert markdown([], "a cat") == ""
    assert markdown([Image(url=URL)]) == f"![]({URL})"


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("a\n\n  b\tc ", "a b c"),
        ("](http://evil) ![x", r"\](http://evil) !\[x"),
        ("a\\", r"a\\"),
        ("`a` <b>", r"\`a\` \<b>"),
        ("\u2028a", "a"),
    ],
)
def test_no_prompt_ends_the_image(prompt: str, shown: str) -> None:
    assert markdown([Image(url="u")], prompt) == f"![{shown}](u)"


def test_no_url_ends_the_image() -> None:
    assert markdown([Image(url="https://s/a b(1)<2>\\\n.png")]) == "![](https://s/a%20b%281%29%3C2%3E%5C%0A.png)"


@QUICK
@given(st.text(alphabet="a]\\[()`<\n ", max_size=12), st.text(alphabet="a]\\[()`<\n ", min_size=1, max_size=12))
def test_a_line_is_one_image(prompt: str, url: str) -> None:
    line = markdown([Image(url=url)], prompt)
    assert re.fullmatch(r"!\[(?:[^\\\[\]`<\n]|\\[\\\[\]`<])*\]\([^\s()<>\\]+\)", line)


def test_no_repr_shows_what_may_be_a_key() -> None:
    fields = {"X-Key": "k", "X-No": None}
    request = ImageRequest(prompt="a cat", params={"n": 2}, extra_headers=fields, extra_query={"k": 5})
    assert repr(request) == (
        "ImageRequest(prompt='a cat', model=None, params={'n': 2}, extra_body=None, "
        "extra_headers={'X-Key': '***', 'X-No': '***'}, extra_query={'k': '***'})"
    )


def test_the_scheme_of_a_data_url_has_no_case() -> None:
    """RFC 3986 section 3.1."""
    image = Image(url=f"DATA:image/png;base64,{b64(PNG)}")
    assert image.data == PNG
    assert response([image.url]).data == [image]
