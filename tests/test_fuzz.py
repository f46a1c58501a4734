"""fuzz/: the corpus through every target, and some hundred inputs made of it; ``scripts/fuzz.py`` does the rest."""

from __future__ import annotations

import pytest
from fuzz import seeds
from fuzz.common import COMPARED
from fuzz.targets import TARGETS
from fuzz.with_hypothesis import examples

each_target = pytest.mark.parametrize("name", TARGETS)


@each_target
def test_the_corpus(name: str) -> None:
    """Seeds, and what once broke a promise; and the oracle has something to say of them."""
    before = COMPARED[name]
    corpus = seeds.corpus(name)
    for data in corpus:
        TARGETS[name](data)
    TARGETS[name](b"")
    assert len(corpus) >= 2
    assert COMPARED[name] > before


@each_target
def test_the_seeds_are_those_of_the_recordings(name: str) -> None:
    """Of each target there are seeds and tokens, and ``scripts/fuzz.py --reseed`` would change nothing."""
    made = seeds.seeds(name)
    found = {path.read_bytes() for path in seeds.files(name) if path.name.startswith("seed-")}
    assert found == set(made)
    assert seeds.TOKENS[name]


@each_target
def test_inputs_made_of_the_corpus(name: str) -> None:
    assert examples(name, 200)() >= 200


def test_every_folder_has_its_target() -> None:
    assert {path.name for path in seeds.CORPUS.iterdir()} == set(TARGETS)
