"""stopping.py: a text cut at its first stop word, however it comes."""

from __future__ import annotations

import itertools
import time

import pytest
from feeding import QUICK
from hypothesis import example, given
from hypothesis import strategies as st

from deltawire.protocol import ConfigurationError, StopWords


def cut(text: str, words: list[str]) -> tuple[str, bool]:
    """The rule, the most naive way: what is shown of a whole text, and whether a word stands in it."""
    starts = [text.find(word) for word in words if word in text]
    return (text[: min(starts)], True) if starts else (text, False)


def fed(parts: list[str], words: list[str]) -> tuple[str, bool]:
    stop = StopWords(words)
    shown = ""
    for part in parts:
        shown += stop.receive(part)
        # What has been shown is never more than the rule allows, whatever may follow.
        assert "".join(parts).startswith(shown)
    shown += stop.flush()
    assert stop.flush() == ""
    return shown, stop.stopped


@pytest.mark.parametrize(
    ("text", "words", "shown"),
    [
        ("one STOP two", ["STOP"], "one "),
        ("one STO", ["STOP"], "one STO"),
        ("STOP", ["STOP"], ""),
        ("a\n\nb", ["\n\n"], "a"),
        ("xabcd", ["bc", "abcd"], "x"),
        ("xabce", ["bc", "abcd"], "xa"),
        ("xabc", ["bc", "abcd"], "xa"),
        ("aab", ["ab"], "a"),
        ("abab!", ["abab?", "b!"], "aba"),
        ("ab", ["abc", "ab"], ""),
        ("wait", ["b", "it"], "wa"),
        ("]a-b^\\", ["]", "^", "-", "\\"], ""),
        ("water 水 水水", ["水水"], "water 水 "),
        ("", ["a"], ""),
        ("abc", [], "abc"),
    ],
)
def test_the_earliest_word_ends_the_text(text: str, words: list[str], shown: str) -> None:
    stops = cut(text, words)[1]
    assert fed([text], words) == (shown, stops)
    assert fed(list(text), words) == (shown, stops)
    for at in range(len(text) + 1):
        assert fed([text[:at], "", text[at:]], words) == (shown, stops)


def test_one_word_may_be_given_as_it_is() -> None:
    stop = StopWords("b c")
    assert [stop.receive(part) for part in ("ab", " ", "c", "d")] == ["a", "", "", ""]
    assert stop.stopped
    assert stop.receive("more") == stop.flush() == ""


def test_only_what_may_begin_a_word_is_held_back() -> None:
    stop = StopWords(["<end>"])
    assert [stop.receive(part) for part in ("hi <", "e", "m", "> <en", "d")] == ["hi ", "", "<em", "> ", ""]
    assert not stop.stopped
    assert stop.flush() == "<end"
    assert not stop.stopped


def test_a_complete_word_waits_while_an_earlier_one_may_go_on() -> None:
    stop = StopWords(["bc", "abcd"])
    assert stop.receive("xabc") == "x"
    assert not stop.stopped
    assert stop.receive("e") == "a"
    assert stop.stopped


@pytest.mark.parametrize("words", ["", [""], ["a", ""], ("",)])
def test_an_empty_word_is_refused(words: str | list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        StopWords(words)
    assert str(caught.value) == "a stop word is empty: it would stop every text before its first character"


@pytest.mark.parametrize("words", [5, [5], ["a", None], None, {"a": 1}, b"a"])
def test_what_is_no_text_is_refused(words: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        StopWords(words)  # type: ignore[arg-type]
    assert str(caught.value) == f"stop must be a str or a list of str, not {words!r}"


LETTERS = "abc"


@QUICK
@given(
    st.text(LETTERS, max_size=24),
    st.lists(st.text(LETTERS, min_size=1, max_size=6), max_size=4),
    st.lists(st.integers(0, 24), max_size=8),
)
@example("aabaabaaab", ["aabaaab", "baaba"], [3, 5])
@example("abcab", ["bcabc", "cab"], [])
def test_any_split_cuts_as_the_whole_is_cut(text: str, words: list[str], cuts: list[int]) -> None:
    edges = [0, *sorted(min(each, len(text)) for each in cuts), len(text)]
    parts = [text[start:stop] for start, stop in itertools.pairwise(edges)]
    assert fed(parts, words) == fed(list(text), words) == cut(text, words)


def test_all_short_texts() -> None:
    texts = ["".join(letters) for size in range(7) for letters in itertools.product("ab", repeat=size)]
    sets = [["ab"], ["aab", "b"], ["aba"], ["abab", "ba"], ["bb", "abba"], ["aaa", "ab"]]
    for text, words in itertools.product(texts, sets):
        assert fed(list(text), words) == cut(text, words)


@pytest.mark.parametrize("size", [1, 5_000, 400_000])
def test_the_worst_words_take_linear_time(size: int) -> None:
    # A word of n letters that fails at its last: a rescan at every letter would take n steps each, some minutes.
    stop = StopWords(["a" * 20_000 + "b", "a" * 30_000 + "c"])
    text = "a" * 400_000
    begun = time.process_time()
    shown = [stop.receive(text[at : at + size]) for at in range(0, len(text), size)]
    assert sum(map(len, shown)) == len(text) - 30_000
    assert stop.receive("b") == "a" * 10_000
    assert stop.stopped
    assert time.process_time() - begun < 20
