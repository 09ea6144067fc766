"""Training an n-gram model: interpolated modified Kneser-Ney (Chen and Goodman 1998, equations 26 to 30).

As in KenLM's ``lmplz``: the longest n-grams and those that begin a sentence keep their counts, every other one counts
how many different words come before it; the unigrams are interpolated with the uniform distribution over all words and
``<unk>``, ``</s>``; nothing is pruned.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from d2v_core.evaluation.arpa import NEVER
from d2v_core.evaluation.ngram import BEGIN, END, UNKNOWN, Grams, NGram, pack

SPECIAL = (UNKNOWN, BEGIN, END)
FALLBACK = np.array([0.0, 0.5, 1.0, 1.5])  # where counts of counts allow no estimate, as KenLM's --discount_fallback
SMALLEST = 1e-30


@dataclass(frozen=True)
class Counted:
    """The different n-grams of one length: words [M, n], how often each occurs, and two n-grams one shorter.

    ``context`` [M] is all words but the last and ``suffix`` [M] all but the first, as rows of the shorter ones.
    """

    words: np.ndarray
    counts: np.ndarray
    context: np.ndarray
    suffix: np.ndarray


def train(sentences: Iterable[Sequence[str]], order: int) -> NGram:
    """Return the model of length ``order`` of ``sentences``, lists of words that hold none of ``SPECIAL``.

    Raises ValueError when there is no word, or when one of ``SPECIAL`` is among them.
    """
    words, tokens, left = encode(sentences)
    levels = count(tokens, left, order, len(words))
    tables: list[Grams] = []
    lower = np.empty(0)
    for length, level in enumerate(levels, 1):
        counts = level.counts if length == order else adjusted(level, levels[length])
        lower, weights = estimate(level, counts, lower, length)
        if tables:
            tables[-1] = Grams(tables[-1].words, tables[-1].log_probability, np.log10(weights))
        tables.append(Grams(level.words, np.log10(np.maximum(lower, SMALLEST)), np.zeros(len(lower))))
    tables[0].log_probability[1] = NEVER
    return pack(words, tables)


def encode(sentences: Iterable[Sequence[str]]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the words, sorted after ``SPECIAL``; all sentences as numbers [L]; and how many words are left in each."""
    numbers: dict[str, int] = {word: number for number, word in enumerate(SPECIAL)}
    tokens, lengths = [], []
    for sentence in sentences:
        found = [numbers.setdefault(word, len(numbers)) for word in sentence]
        if found and min(found) < len(SPECIAL):
            raise ValueError(f"{', '.join(SPECIAL)} cannot be words of a sentence")
        tokens += [1, *found, 2]
        lengths.append(len(found) + 2)
    if len(numbers) == len(SPECIAL):
        raise ValueError("there is no word to learn from")
    words = [*SPECIAL, *sorted(list(numbers)[len(SPECIAL) :])]
    renumbered = np.argsort(np.array([numbers[word] for word in words]))
    left = np.concatenate([np.arange(length, 0, -1) for length in lengths])
    return words, renumbered[np.array(tokens)], left


def count(tokens: np.ndarray, left: np.ndarray, order: int, size: int) -> list[Counted]:
    """Return the counted n-grams of length 1 (every word, seen or not) to ``order`` of sentences, laid end to end."""
    every = np.arange(size)
    none = np.zeros(size, dtype=np.int64)
    levels = [Counted(every[:, None], np.bincount(tokens, minlength=size), none, none)]
    rows = tokens
    for length in range(2, order + 1):
        places = np.flatnonzero(left >= length)
        keys = rows[places] * size + tokens[places + length - 1]
        unique, first, inverse, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        first = places[first]
        words = tokens[first[:, None] + np.arange(length)]
        levels.append(Counted(words, counts, unique // size, rows[first + 1]))
        rows = np.full(len(tokens), -1)
        rows[places] = inverse
    return levels


def adjusted(level: Counted, longer: Counted) -> np.ndarray:
    """Return how many different words come before each n-gram; those that begin a sentence keep their counts."""
    before = np.bincount(longer.suffix, minlength=len(level.counts))
    return np.where(level.words[:, 0] == SPECIAL.index(BEGIN), level.counts, before)


def estimate(level: Counted, counts: np.ndarray, lower: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return P(last word | context) [M] of n-grams, and what every context [M'] leaves to its suffix.

    ``lower`` is the probability of the n-grams that are one shorter.
    """
    if length == 1:
        counts = counts.copy()
        counts[SPECIAL.index(BEGIN)] = 0
        lower, suffix = np.full(1, 1 / (len(counts) - 1)), level.suffix
    else:
        suffix = level.suffix
    discounts = estimate_discounts(counts)[np.minimum(counts, 3)]
    sizes = max(len(lower), 1)
    totals = np.bincount(level.context, counts, sizes)
    held = np.bincount(level.context, discounts, sizes)
    weights = np.where(totals > 0, np.maximum(held, SMALLEST) / np.maximum(totals, 1), 1.0)
    return (counts - discounts) / totals[level.context] + weights[level.context] * lower[suffix], weights


def estimate_discounts(counts: np.ndarray) -> np.ndarray:
    """Return what is taken from counts of 0, 1, 2, and 3 or more, [4]; ``FALLBACK`` where it cannot be estimated."""
    one, two, three, four = (float((counts == number).sum()) for number in (1, 2, 3, 4))
    if min(one, two, three, four) == 0:
        return FALLBACK
    share = one / (one + 2 * two)
    found = np.array([0, 1 - 2 * share * two / one, 2 - 3 * share * three / two, 3 - 4 * share * four / three])
    return found if (found[1:] > 0).all() else FALLBACK
