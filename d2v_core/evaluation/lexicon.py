"""A lexicon as a tree of letters in arrays: which letter may follow, and which word a path spells.

M nodes · C symbols. Node 0 is the beginning of a word, the last node is where spellings outside the lexicon end up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

START = 0
NO_WORD = -1


@dataclass(frozen=True)
class Lexicon:
    """The tree: ``child`` [M, C] int32, node after a symbol; ``word`` [M] int32, word that ends there or -1.

    ``best`` [M] float64: the largest of the values of the words at and below a node; 0 at the beginning.
    """

    child: np.ndarray
    word: np.ndarray
    best: np.ndarray

    @property
    def outside(self) -> int:
        """Return the node of all spellings that begin no word."""
        return len(self.word) - 1


def build_lexicon(words: Sequence[str], values: np.ndarray, letters: Sequence[str]) -> Lexicon:
    """Return the lexicon of those ``words`` that ``letters`` [C] can spell; ``values`` [words] say how likely each is.

    The value outside the lexicon is left at 0 for the caller to set.
    """
    numbers = {letter: number for number, letter in enumerate(letters) if len(letter) == 1}
    children: list[dict[int, int]] = [{}]
    ends, best = [NO_WORD], [0.0]
    for number, (word, value) in enumerate(zip(words, values.tolist(), strict=True)):
        if not word or any(letter not in numbers for letter in word):
            continue
        node = START
        for letter in word:
            after = children[node].setdefault(numbers[letter], len(children))
            if after == len(children):
                children.append({})
                ends.append(NO_WORD)
                best.append(value)
            node = after
            best[node] = max(best[node], value)
        ends[node] = number
    outside = len(children)
    child = np.full((outside + 1, len(letters)), outside, dtype=np.int32)
    for node, following in enumerate(children):
        child[node, list(following)] = list(following.values())
    return Lexicon(child, np.array([*ends, NO_WORD], dtype=np.int32), np.array([*best, 0.0]))
