"""catalogue.py, and the models that `read_models` finds for it: the lists of all kinds of servers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from feeding import QUICK
from hypothesis import given
from hypothesis import strategies as st

from deltawire.protocol import Catalogue, Model, ModelList, catalogue, objects
from deltawire.protocol.dialects import openai
from deltawire.protocol.dialects.openai import read_models


def models(value: object) -> ModelList:
    found = read_models(json.dumps(value).encode())
    assert found is not None
    return found


def of(*extras: dict[str, Any]) -> Catalogue:
    """The catalogue of models a, b, c... with these vendor fields."""
    return catalogue(models({"data": [{"id": chr(97 + at), **extra} for at, extra in enumerate(extras)]}))


# --- Names -----------------------------------------------------------------------------------------


def test_names_are_sorted_or_in_the_servers_order() -> None:
    listed = models([{"id": name} for name in ("b", "a", "B", "a-2", "é")])
    assert catalogue(listed).names == ["B", "a", "a-2", "b", "é"]
    assert catalogue(listed, sort=False).names == ["b", "a", "B", "a-2", "é"]


def test_each_name_once_and_none_empty() -> None:
    listed = models(
        [{"id": "b"}, {"id": ""}, {}, {"id": "a", "vision": False}, {"id": "b", "vision": True}, {"id": "a"}]
    )
    assert catalogue(listed, sort=False) == Catalogue(["b", "a"], [], ["b"])


def test_a_model_without_a_name_is_in_no_list() -> None:
    assert catalogue(models([{"vision": True, "image": True}])) == Catalogue()


def test_of_nothing() -> None:
    assert catalogue(ModelList()) == catalogue(models([])) == Catalogue([], [], [])


def test_the_list_stays_as_it_is() -> None:
    listed = ModelList(data=[Model(id="b"), Model(id="a")])
    catalogue(listed)
    assert [model.id for model in listed] == ["b", "a"]


def decodings(count: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many bytes are decoded for the catalogue of so many models."""
    body = json.dumps({"data": [{"id": str(number), "vision": True} for number in range(count)]}).encode()
    decoded = 0

    def counted(payload: bytes) -> Any:
        nonlocal decoded
        decoded += len(payload)
        return json.loads(payload)

    for module in (objects, openai):
        monkeypatch.setattr(module, "loads", counted)
    listed = read_models(body)
    assert listed is not None
    assert len(catalogue(listed).vision_models) == count
    return decoded // len(body)


def test_the_list_is_decoded_once_and_not_once_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decodings(200, monkeypatch) == 1


# --- Abilities -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra",
    [{"image": True}, {"image": {"price": 1}}, {"type": "image"}, {"supports_images": 1}, {"mode": "image_generation"}],
)
def test_models_that_make_images(extra: dict[str, Any]) -> None:
    assert of({}, extra, extra) == Catalogue(["a", "b", "c"], ["b", "c"], [])


@pytest.mark.parametrize(
    "extra",
    [
        {"vision": True},
        {"supports_vision": True},
        {"capabilities": {"vision": True}},
        {"capabilities": ["completion", "vision"]},
        {"input_modalities": ["text", "image"]},
        {"architecture": {"input_modalities": ["text", "image"]}},
    ],
)
def test_models_that_see_images(extra: dict[str, Any]) -> None:
    assert of({}, extra, extra) == Catalogue(["a", "b", "c"], [], ["b", "c"])


@pytest.mark.parametrize(
    "extra",
    [
        {"image": False, "vision": None, "supports_images": 0, "supports_vision": ""},
        {"type": "chat", "mode": "chat"},
        {"capabilities": {"vision": False}},
        {"capabilities": "vision"},
        {"capabilities": [["vision"]]},
        {"architecture": "image"},
        {"architecture": {"input_modalities": None}},
        {"architecture": {"input_modalities": ["text"], "output_modalities": ["text", "image"]}},
        {"input_modalities": 5},
    ],
)
def test_models_that_do_neither(extra: dict[str, Any]) -> None:
    assert of(extra) == Catalogue(["a"], [], [])


# --- The lists of real servers ----------------------------------------------------------------------


def test_openrouter() -> None:
    architecture = {
        "modality": "text+image->text",
        "input_modalities": ["text", "image"],
        "output_modalities": ["text"],
    }
    value = {"data": [{"id": "openai/gpt-4o", "name": "GPT-4o", "architecture": architecture}, {"id": "z-ai/glm"}]}
    assert catalogue(models(value)) == Catalogue(["openai/gpt-4o", "z-ai/glm"], [], ["openai/gpt-4o"])


def test_together() -> None:
    value = [
        {"id": "flux", "object": "model", "type": "image", "created": 0},
        {"id": "llama", "object": "model", "type": "chat", "created": 1.5},
    ]
    assert catalogue(models(value)) == Catalogue(["flux", "llama"], ["flux"], [])


def test_ollama() -> None:
    value = {"models": [{"name": "llava:latest", "model": "llava:latest", "size": 5, "details": {"family": "llama"}}]}
    found: Any = models(value)
    assert catalogue(found).names == ["llava:latest"]
    assert found.data[0].details == {"family": "llama"}


@pytest.mark.parametrize(
    "keep", [{"id": "x"}, {"id": "x", "name": "Mr X"}, {"model": "x", "name": "Mr X"}, {"name": "x"}]
)
@pytest.mark.parametrize("around", ["data", "models", None])
@pytest.mark.parametrize("odd", [{}, {"created": "odd"}])
def test_models_by_other_names(keep: dict[str, Any], around: str | None, odd: dict[str, Any]) -> None:
    items = [{**keep, **odd, "vision": True}]
    found = models({around: items} if around else items)
    assert catalogue(found) == Catalogue(["x"], [], ["x"])
    assert found.data[0].model_extra.get("name") == keep.get("name")


@pytest.mark.parametrize(
    "item", [{"name": 5}, {"model": None, "name": ""}, {"id": None}, {"model": ["x"]}, 5, None, ["x"]]
)
def test_models_without_any_name(item: Any) -> None:
    assert catalogue(models({"data": ["a", item]})).names == ["a"]


@QUICK
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["id", "name", "model", "image", "type", "vision", "capabilities", "architecture"]),
            st.recursive(st.none() | st.booleans() | st.text(max_size=3), st.lists, max_leaves=3),
        )
    ),
    st.booleans(),
)
def test_any_list_has_a_catalogue(value: list[Any], sort: bool) -> None:
    made = catalogue(models(value), sort=sort)
    assert len(set(made.names)) == len(made.names)
    assert "" not in made.names
    assert {*made.image_models, *made.vision_models} <= set(made.names)
    if sort:
        assert made.names == sorted(made.names)


def test_a_catalogue_stays_as_it_is() -> None:
    with pytest.raises(AttributeError):
        of({}).names = []  # type: ignore[misc]
