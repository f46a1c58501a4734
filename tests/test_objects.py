"""objects.py: vendor fields, found where the object stands; and the ways to plain data. By objects of our own.

(Those of replies are in test_chunks.py.)
"""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any, ClassVar

import pytest

from deltawire.protocol.objects import (
    Answer,
    Object,
    keep_inside,
    keep_whole_payload,
    same_origin,
    with_extra,
)


class Leaf(Object):
    """Stands first in the list of a `Tree`, usually."""

    _path: ClassVar[tuple[str | int, ...]] = ("leaves", 0)
    name: str | None = None
    size: int | None = None


class Tree(Answer):
    leaves: list[Leaf] = []  # noqa: RUF012 - msgspec copies it
    best: Leaf | None = None
    error: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    height: int | None = None


class Mixed(Object):
    items: list[Any] = []  # noqa: RUF012 - msgspec copies it


DOCUMENT = {
    "leaves": [{"name": "a", "x": 1}, {"name": "b", "x": 2, "size": None}],
    "best": {"name": "c", "x": {"y": [3]}},
    "height": 5,
    "cost": 0.5,
    "nothing": None,
}
PAYLOAD = json.dumps(DOCUMENT).encode()


def tree() -> Any:
    """The tree that `DOCUMENT` is, with its bytes kept."""
    leaves = [Leaf(name="a"), Leaf(name="b")]
    made = Tree(leaves=leaves, best=Leaf(name="c"), height=5)
    keep_whole_payload(made, PAYLOAD)
    return made


# --- Where vendor fields are found -----------------------------------------------------------------


def test_each_object_finds_its_own() -> None:
    found = tree()
    assert found.model_extra == {"cost": 0.5, "nothing": None}
    assert [leaf.model_extra for leaf in found.leaves] == [{"x": 1}, {"x": 2}]
    assert found.best.model_extra == {"x": {"y": [3]}}
    assert (found.cost, found.nothing, found.leaves[0].x, found.leaves[1].x, found.best.x) == (
        0.5,
        None,
        1,
        2,
        {"y": [3]},
    )


def test_which_declared_fields_were_sent_is_known_too() -> None:
    found = tree()
    assert found._extra().declared == {"leaves", "best", "height"}
    assert found.leaves[0]._extra().declared == {"name"}
    assert found.leaves[1]._extra().declared == {"name", "size"}


def test_lists_may_hold_other_things() -> None:
    mixed = Mixed(items=[1, Leaf(), "x", None])
    keep_whole_payload(mixed, b'{"items": [1, {"x": 2}, "x", null]}')
    assert mixed.items[1].x == 2


def test_they_are_decoded_once() -> None:
    found = tree()
    assert found.model_extra is found.model_extra
    found.model_extra["own"] = 1
    assert found.own == 1


def test_an_object_at_its_usual_place_keeps_the_bytes_alone() -> None:
    """A place for each would double what a chunk takes."""
    found = tree()
    assert found._raw is found.leaves[0]._raw is PAYLOAD
    assert found.leaves[1]._raw == (PAYLOAD, ("leaves", 1), Leaf)
    assert found.best._raw == (PAYLOAD, ("best",), Leaf)


def test_an_object_that_stands_deeper() -> None:
    leaf: Any = Leaf()
    keep_inside(leaf, b'{"a": [0, {"b": {"name": "n", "x": 7}}]}', ("a", 1, "b"))
    assert leaf.x == 7
    inner: Any = Tree(leaves=[Leaf()], best=Leaf())
    keep_inside(inner, b'{"t": {"leaves": [{"x": 8}], "best": {"x": 9}, "x": 10}}', ("t",))
    assert (inner.x, inner.leaves[0].x, inner.best.x) == (10, 8, 9)


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"[]",
        b"5",
        b'{"leaves": []}',
        b'{"leaves": 5}',
        b'{"leaves": {"0": {}}}',
        b'{"leaves": [[1]]}',
        b'{"leaves": ["x"]}',
    ],
)
def test_where_nothing_stands_there_is_nothing(payload: bytes) -> None:
    """The lenient reader drops what fits nowhere, so that the places of a list may be others."""
    leaf = Leaf(name="a")
    leaf._raw = payload
    assert leaf.model_extra == {}
    assert leaf._extra().declared == frozenset()
    assert leaf.to_dict() == {"name": "a"}


def test_without_bytes_there_are_none() -> None:
    made: Any = Tree(height=1)
    assert made.model_extra == {}
    for name in ("cost", "_cost", "__wrapped__", "_provider"):
        assert not hasattr(made, name)
    with pytest.raises(AttributeError, match=r"^'Tree' object has no attribute 'cost'$"):
        _ = made.cost


def test_names_that_begin_with_an_underscore_are_never_attributes() -> None:
    leaf = Leaf()
    leaf._raw = b'{"leaves": [{"_secret": 1, "__len__": 2}]}'
    assert leaf.model_extra == {"_secret": 1, "__len__": 2}
    assert not hasattr(leaf, "_secret")
    assert not hasattr(leaf, "__len__")


def test_vendor_fields_given() -> None:
    leaf: Any = with_extra(Leaf(name="n"), {"x": 1})
    assert leaf.x == 1
    assert leaf._extra().declared == frozenset()
    assert leaf.to_dict() == {"name": "n", "x": 1}
    plain = Leaf()
    assert with_extra(plain, {}) is plain
    assert not hasattr(plain, "_raw")


# --- Another object that says the same -------------------------------------------------------------


class Branch(Object):
    name: str | None = None
    x: int | None = None


def test_an_object_that_says_the_same_has_the_same_vendor_fields() -> None:
    """What the old class declares is none of the new one's, and the other way round."""
    old, new = tree().leaves[0], Branch(name="a")
    same_origin(old, new)
    assert new.model_extra == {"x": 1}
    assert new._extra().declared == {"name"}
    for leaf in (tree().leaves[1], tree().best):
        again: Any = Leaf()
        same_origin(leaf, again)
        assert again.model_extra == leaf.model_extra


def test_they_are_handed_on_once_they_are_read_too() -> None:
    old: Any = tree().leaves[0]
    assert old.x == 1
    new: Any = Tree()
    same_origin(old, new)
    assert new.x == 1


def test_nothing_is_handed_on_where_there_is_nothing() -> None:
    new = Leaf()
    same_origin(Leaf(), new)
    assert not hasattr(new, "_raw")


# --- Plain data ------------------------------------------------------------------------------------

LEAVES = [{"name": "a", "size": None, "x": 1}, {"name": "b", "size": None, "x": 2}]
BEST = {"name": "c", "size": None, "x": {"y": [3]}}


def test_all_declared_fields_and_the_vendors() -> None:
    """The first three are declared here, but by no API: dumped only when they are there."""
    dumped = tree().model_dump()
    assert dumped == {"leaves": LEAVES, "best": BEST, "height": 5, "cost": 0.5, "nothing": None}
    assert list(dumped)[-2:] == ["cost", "nothing"], "in the server's order, after the others"
    assert tree().model_dump(mode="json") == dumped
    assert Tree().model_dump() == {"leaves": [], "best": None, "height": None}


@pytest.mark.parametrize("name", ["error", "reasoning", "reasoning_content"])
def test_what_no_api_declares_is_dumped_when_it_was_sent(name: str) -> None:
    made = Tree(**{name: "e"})  # type: ignore[arg-type]
    assert made.model_dump()[name] == made.to_dict()[name] == "e"
    sent = Tree()
    sent._raw = json.dumps({name: None}).encode()
    assert sent.model_dump() == {"leaves": [], "best": None, "height": None, name: None}
    assert sent.to_dict() == {"leaves": [], name: None}
    assert sent.model_dump(exclude_none=True) == {"leaves": []}


def test_without_what_was_not_sent() -> None:
    found = tree()
    assert found.model_dump(exclude_unset=True) == found.to_dict() == DOCUMENT
    assert found.to_dict(mode="json") == DOCUMENT
    assert found.to_dict(exclude_unset=False) == found.model_dump()
    assert Tree(height=0, leaves=[Leaf(name="")]).to_dict() == {"leaves": [{"name": ""}], "height": 0}


def test_without_what_is_none() -> None:
    assert tree().model_dump(exclude_none=True) == {
        "leaves": [{"name": "a", "x": 1}, {"name": "b", "x": 2}],
        "best": {"name": "c", "x": {"y": [3]}},
        "height": 5,
        "cost": 0.5,
    }


def test_as_json() -> None:
    found = tree()
    assert json.loads(found.model_dump_json()) == found.model_dump()
    assert json.loads(found.model_dump_json(exclude_unset=True)) == DOCUMENT
    assert json.loads(found.to_json()) == DOCUMENT
    assert json.loads(found.to_json(exclude_unset=False)) == found.model_dump()
    leaf = Leaf(name="n")
    assert leaf.model_dump_json() == '{"name":"n","size":null}'
    assert leaf.model_dump_json(indent=1) == '{\n "name": "n",\n "size": null\n}'
    assert leaf.to_json() == '{\n  "name": "n"\n}'
    assert leaf.to_json(indent=None) == '{"name":"n"}'
    assert leaf.to_json(indent=0, exclude_unset=False) == '{"name": "n", "size": null}'


# --- Copies, and who answered ----------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_copies(duplicate: Any) -> None:
    found = tree()
    found._provider = "Mine"
    twin = duplicate(found)
    assert [type(twin)] == [Tree]
    assert twin == found
    assert twin.to_dict() == DOCUMENT, "and knows what was sent as null"
    assert (twin.provider, twin.cost) == ("Mine", 0.5)
    assert not hasattr(duplicate(Leaf()), "_provider")
    twin.model_extra["own"] = 1
    assert "own" not in found.model_extra


def test_who_answered() -> None:
    """A vendor field of that name comes first: OpenRouter says who answered for it."""
    made: Any = Tree()
    assert made.provider == ""
    made._provider = "Mine"
    assert made.provider == "Mine"
    assert with_extra(made, {"provider": "Theirs"}).provider == "Theirs"
    assert not hasattr(Leaf(), "provider")
    assert with_extra(Leaf(), {"provider": "P"}).provider == "P"  # type: ignore[attr-defined]


def test_vendor_fields_are_no_part_of_what_is_equal_or_shown() -> None:
    found = tree()
    assert found == Tree(leaves=[Leaf(name="a"), Leaf(name="b")], best=Leaf(name="c"), height=5)
    assert "cost" not in repr(found)
    assert "x" not in repr(found.best)
