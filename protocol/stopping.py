"""Stop words, for servers that know none: a text that comes in pieces, cut where the first of them stands.

Theory
------
The text ends where the earliest occurrence of any word begins; the word itself is not shown. As the text
comes in pieces, whatever may yet turn out to be the beginning of a word is held back.

The words are the trie of Aho and Corasick ("Efficient string matching", CACM 18(6), 1975). After each
character the state is the longest end of the text that begins some word, so its depth says how much to hold
back. A word that is complete decides only when the state begins no earlier than it: of "abcd" and "bc", in
"abcd" the first one is earlier, though "bc" is complete before. Each character is looked at once, and every
step back along a fail link was paid for by a step forward: linear in the text's length, whatever
the words and the pieces are.
"""

from __future__ import annotations

import collections
import re
from typing import TYPE_CHECKING

from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence


class StopWords:
    """Cuts one text, given in pieces, where the earliest of these words begins.

    ``words`` is one word or several. Raises `ConfigurationError` for words that are empty, or no str.
    """

    def __init__(self, words: str | Sequence[str]) -> None:
        listed = _checked(words)
        self.stopped = False
        """Whether a stop word has come: the rest is discarded."""
        self._next, self._fail, self._depth, self._matched = _automaton(listed)
        # What a text may hold that could begin a word; most pieces of a text hold nothing of it.
        firsts = "".join(re.escape(first) for first in sorted({word[0] for word in listed}))
        self._first = re.compile(f"[{firsts}]" if firsts else r"(?!)")
        self._state = 0
        self._held: collections.deque[str] = collections.deque()
        # How much of the first piece held has been shown.
        self._shown = 0
        self._held_length = 0
        # Where the earliest word that is complete begins, counted from the start of what is held.
        self._found: int | None = None

    def receive(self, text: str) -> str:
        """The text goes on. Returns what may be shown of all that has not been shown yet."""
        if self.stopped:
            return ""
        if not self._state and self._first.search(text) is None:
            return text
        before = self._held_length
        self._held.append(text)
        self._held_length += len(text)
        if self._scan(text, before):
            return self._stop()
        depth = self._depth[self._state]
        keep = depth if self._found is None else self._held_length - min(self._found, self._held_length - depth)
        return self._take(self._held_length - keep)

    def flush(self) -> str:
        """The text is over. Returns what was held back of it; idempotent."""
        if self._found is not None:
            return self._stop()
        self._state = 0
        return self._take(self._held_length)

    def _scan(self, text: str, before: int) -> bool:
        """Go through a piece that begins ``before`` characters after the start of what is held. Gives whether it is
        decided where the text ends."""
        state, found = self._state, self._found
        end = len(text)
        at = 0
        while at < end:
            if not state and found is None:
                candidate = self._first.search(text, at)
                if candidate is None:
                    break
                at = candidate.start()
            letter = text[at]
            at += 1
            while state and letter not in self._next[state]:
                state = self._fail[state]
            state = self._next[state].get(letter, 0)
            if length := self._matched[state]:
                start = before + at - length
                found = start if found is None else min(found, start)
            if found is not None and before + at - self._depth[state] >= found:
                self._found = found
                return True
        self._state, self._found = state, found
        return False

    def _stop(self) -> str:
        assert self._found is not None
        self.stopped = True
        shown = self._take(self._found)
        self._held.clear()
        self._held_length = self._state = 0
        self._found = None
        return shown

    def _take(self, count: int) -> str:
        """The first characters of what is held; they are no longer held."""
        taken: list[str] = []
        self._held_length -= count
        if self._found is not None:
            self._found -= count
        while count:
            piece = self._held[0]
            part = piece[self._shown : self._shown + count]
            taken.append(part)
            count -= len(part)
            self._shown += len(part)
            if self._shown == len(piece):
                self._held.popleft()
                self._shown = 0
        return "".join(taken)


def _checked(words: object) -> list[str]:
    listed = [words] if isinstance(words, str) else words
    if not isinstance(listed, (list, tuple)) or not all(isinstance(word, str) for word in listed):
        raise ConfigurationError(f"stop must be a str or a list of str, not {words!r}")
    if not all(listed):
        raise ConfigurationError("a stop word is empty: it would stop every text before its first character")
    return list(listed)


def _automaton(words: list[str]) -> tuple[list[dict[str, int]], list[int], list[int], list[int]]:
    """For each state its transitions, its fail link, its depth, and the length of the longest word that ends there."""
    next_: list[dict[str, int]] = [{}]
    fail, depth, matched = [0], [0], [0]
    for word in words:
        state = 0
        for letter in word:
            if letter not in next_[state]:
                next_[state][letter] = len(next_)
                next_.append({})
                fail.append(0)
                matched.append(0)
                depth.append(depth[state] + 1)
            state = next_[state][letter]
        matched[state] = len(word)
    queue = collections.deque(next_[0].values())
    while queue:
        state = queue.popleft()
        for letter, child in next_[state].items():
            queue.append(child)
            back = fail[state]
            while back and letter not in next_[back]:
                back = fail[back]
            fail[child] = next_[back].get(letter, 0)
            # In order of depth: the fail link's own match is known.
            matched[child] = matched[child] or matched[fail[child]]
    return next_, fail, depth, matched
