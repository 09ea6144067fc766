"""An n-gram language model as a few sorted arrays, asked about many contexts at once.

A node is an n-gram that the model lists; node 0 is the empty one. Nodes are numbered by length and then by
(node of all words but the last, last word), so that this pair, packed into one number, is sorted and is found by
bisection. A state is the node of the longest listed context; what is not listed backs off (reference 6.1: KenLM).

N nodes · V words · K questions
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
ROOT = 0


@dataclass(frozen=True)
class Grams:
    """All n-grams of one length n: word numbers [M, n], log10 probability [M] and log10 back-off weight [M]."""

    words: np.ndarray
    log_probability: np.ndarray
    back_off: np.ndarray


@dataclass(frozen=True)
class NGram:
    """A back-off model over ``words``, which hold ``<unk>``, ``<s>`` and ``</s>``.

    ``keys`` [N] int64, ascending; ``log_probability`` and ``back_off`` [N] float32, log10; ``suffix`` [N] int64, the
    node of the longest listed n-gram that a node ends with; ``starts``: the first node of every length, and N.
    """

    words: tuple[str, ...]
    keys: np.ndarray
    log_probability: np.ndarray
    back_off: np.ndarray
    suffix: np.ndarray
    starts: tuple[int, ...]

    @property
    def order(self) -> int:
        """Return the length of the longest n-grams."""
        return len(self.starts) - 2

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Return the number of every word."""
        return {word: number for number, word in enumerate(self.words)}

    def number(self, word: str) -> int:
        """Return the number of ``word``, or that of ``<unk>``."""
        return self.numbers.get(word, self.numbers[UNKNOWN])

    def begin(self) -> int:
        """Return the state at the beginning of a sentence."""
        return int(self.following(self.find(np.array([ROOT]), np.array([self.numbers[BEGIN]])))[0])

    def find(self, contexts: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Return the nodes [K] of contexts [K] with one more word [K] each; -1 where the model does not list it."""
        return find(self.keys, contexts * len(self.words) + words)

    def following(self, nodes: np.ndarray) -> np.ndarray:
        """Return the states [K] after nodes [K]: the longest n-grams are too long to be a context."""
        return np.where(nodes >= self.starts[-2], self.suffix[nodes], nodes)

    def step(self, states: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return log10 P(word | state) [K] float64 and the states after the words [K], for states [K] and words [K]."""
        contexts, total = states.copy(), np.zeros(len(states))
        nodes = self.find(contexts, words)
        missing = np.flatnonzero(nodes < 0)
        while missing.size:
            total[missing] += self.back_off[contexts[missing]]
            contexts[missing] = self.suffix[contexts[missing]]
            nodes[missing] = self.find(contexts[missing], words[missing])
            missing = missing[nodes[missing] < 0]
        return total + self.log_probability[nodes], self.following(nodes)

    def score(self, sentence: Sequence[str]) -> np.ndarray:
        """Return log10 P of every word of ``sentence`` and of its end, [words + 1] float64."""
        state, scores = np.array([self.begin()]), []
        for word in [*sentence, END]:
            log_probability, state = self.step(state, np.array([self.number(word)]))
            scores.append(log_probability[0])
        return np.array(scores)

    def perplexity(self, sentences: Sequence[Sequence[str]]) -> float:
        """Return the perplexity per word of ``sentences``, their ends counted as words; unknown words as ``<unk>``."""
        longest = max(len(sentence) for sentence in sentences) + 1
        words = np.full((len(sentences), longest), -1)
        for row, sentence in enumerate(sentences):
            words[row, : len(sentence) + 1] = [self.number(word) for word in [*sentence, END]]
        states, total = np.full(len(sentences), self.begin()), 0.0
        for column in words.T:
            rows = np.flatnonzero(column >= 0)
            scores, states[rows] = self.step(states[rows], column[rows])
            total += scores.sum()
        return float(10 ** (-total / (words >= 0).sum()))

    def grams(self) -> list[Grams]:
        """Return the model's n-grams by length, 1 first, each in the order of their nodes."""
        size = len(self.words)
        found: list[Grams] = []
        words = np.zeros((1, 0), dtype=np.int64)
        for first, last in zip(self.starts[1:-1], self.starts[2:], strict=True):
            part = slice(first, last)
            before = self.starts[len(found)]
            words = np.column_stack([words[self.keys[part] // size - before], self.keys[part] % size])
            found.append(Grams(words, self.log_probability[part], self.back_off[part]))
        return found


def find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return where ``wanted`` [K] are in the sorted ``keys``; -1 where they are not."""
    places = np.searchsorted(keys, wanted)
    places[places == len(keys)] = 0
    return np.where(keys[places] == wanted, places, -1)


def pack(words: Sequence[str], tables: Sequence[Grams]) -> NGram:
    """Return the model of n-grams by length, 1 first, in any order within a length.

    Raises ValueError for an n-gram that is listed twice, and for one without the n-gram of all its words but the last.
    """
    size, starts = len(words), [0]
    keys, suffix = np.array([-1]), np.array([ROOT])
    log_probability, back_off = np.zeros(1, np.float32), np.zeros(1, np.float32)
    for length, table in enumerate(tables, 1):
        parents = np.zeros(len(table.words), dtype=np.int64)
        for column in range(length - 1):
            parents = find(keys, parents * size + table.words[:, column])
            refuse(parents < 0, table, words, "is listed without the n-gram of all its words but the last")
        packed = parents * size + table.words[:, -1]
        order = np.argsort(packed, kind="stable")
        packed, parents = packed[order], parents[order]
        refuse(np.diff(packed, prepend=-1)[np.argsort(order)] == 0, table, words, "is listed twice")
        suffixes = longest_suffixes(keys, suffix, size, parents, packed % size) if length > 1 else parents
        starts.append(len(keys))
        keys, suffix = np.concatenate([keys, packed]), np.concatenate([suffix, suffixes])
        log_probability = np.concatenate([log_probability, table.log_probability[order].astype(np.float32)])
        back_off = np.concatenate([back_off, table.back_off[order].astype(np.float32)])
    return NGram(tuple(words), keys, log_probability, back_off, suffix, (*starts, len(keys)))


def longest_suffixes(
    keys: np.ndarray, suffix: np.ndarray, size: int, parents: np.ndarray, last: np.ndarray
) -> np.ndarray:
    """Return the node of the longest proper suffix of n-grams, given as nodes ``parents`` and ``last`` words."""
    contexts = suffix[parents]
    nodes = find(keys, contexts * size + last)
    missing = np.flatnonzero((nodes < 0) & (contexts != ROOT))
    while missing.size:
        contexts[missing] = suffix[contexts[missing]]
        nodes[missing] = find(keys, contexts[missing] * size + last[missing])
        missing = missing[(nodes[missing] < 0) & (contexts[missing] != ROOT)]
    return np.maximum(nodes, ROOT)


def refuse(faulty: np.ndarray, table: Grams, words: Sequence[str], reason: str) -> None:
    """Raise ValueError that names the first n-gram for which ``faulty`` is true, if any."""
    if faulty.any():
        gram = " ".join(words[number] for number in table.words[int(np.argmax(faulty))])
        raise ValueError(f"{gram!r} {reason}")
