"""What a transcript is worth beside its sound: a language model of letters or of words, and a score per word.

A fusion gives every prefix of letters an additional score, in parts as the prefix grows, to all prefixes of a beam at
once. Its states are tuples of arrays with one entry per prefix. Scores as in reference 6.1:
``lm_weight · log10 P + word_score · words + silence_weight · word ends``, where log10 is the unit of ARPA files and of
the published weights, and the sound is in natural logarithms.

K prefixes · C symbols · N = chosen symbols
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from d2v_core.evaluation.ctc import WORD_END
from d2v_core.evaluation.lexicon import START, build_lexicon
from d2v_core.evaluation.ngram import BEGIN, END, UNKNOWN, NGram

State = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class FusionWeights:
    """What is added to the logarithm of the probability of the sound.

    ``unknown_score`` is for a word outside the lexicon; None refuses such words, as the reference does.
    """

    lm_weight: float = 0.0
    word_score: float = 0.0
    silence_weight: float = 0.0
    unknown_score: float | None = None


class Fusion(Protocol):
    """Scores beside the sound; ``LetterFusion`` and ``WordFusion`` are the two.

    The first two arrays of a state decide all later scores; ``recombines`` says that they remember enough of a prefix
    for the search to drop a worse prefix with the same ones.
    """

    recombines: bool

    def start(self) -> State:
        """Return the state of the empty prefix."""

    def gains(self, state: State, labels: np.ndarray) -> np.ndarray:
        """Return what every label [N] would add to every prefix, [K, N]; minus infinity: it may not follow."""

    def advance(self, state: State, labels: np.ndarray) -> State:
        """Return the state of prefixes with one more label [K] each."""

    def finish(self, state: State) -> np.ndarray:
        """Return what the end of the utterance adds to every prefix [K]; minus infinity: it may not end there."""


class LetterFusion:
    """Any spelling is allowed; ``model`` is over letters, with ``|`` after every word, or None."""

    def __init__(self, letters: Sequence[str], weights: FusionWeights, model: NGram | None = None) -> None:
        self.word_end, self.weights, self.model = list(letters).index(WORD_END), weights, model
        self.classes, self.recombines = len(letters), model is not None
        if model:
            known = [letter in model.numbers and letter not in (BEGIN, END, UNKNOWN) for letter in letters]
            self.known = np.array(known)
            self.numbers = np.array([model.number(letter) for letter in letters])
            self.place = np.full(len(model.keys), -1)  # where the row of a state is, once it was needed
            self.scores = np.empty((0, self.classes))
            self.after = np.empty((0, self.classes), dtype=np.int64)

    def start(self) -> State:
        """Return the state of the empty prefix: context of the model, and whether a word has begun."""
        return np.array([self.model.begin() if self.model else 0]), np.array([False])

    def rows(self, contexts: np.ndarray) -> np.ndarray:
        """Return the places [K] of the scores and next states of contexts [K], which are computed only once each."""
        new = np.unique(contexts[self.place[contexts] < 0])
        if new.size:
            assert self.model is not None
            score, after = self.model.step(np.repeat(new, self.classes), np.tile(self.numbers, new.size))
            score = np.where(self.known, self.weights.lm_weight * score.reshape(-1, self.classes), -np.inf)
            self.place[new] = len(self.scores) + np.arange(new.size)
            self.scores = np.concatenate([self.scores, score])
            self.after = np.concatenate([self.after, after.reshape(-1, self.classes)])
        return self.place[contexts]

    def gains(self, state: State, labels: np.ndarray) -> np.ndarray:
        """Return what every label [N] would add to every prefix, [K, N]."""
        contexts, begun = state
        if self.model:
            rows = self.rows(contexts)
            gains = self.scores[rows[:, None], labels]
        else:
            gains = np.zeros((len(contexts), len(labels)))
        gains[:, labels == self.word_end] += self.word_gain(begun)[:, None]
        return gains

    def word_gain(self, begun: np.ndarray) -> np.ndarray:
        """Return what ``|`` adds beside the model, [K]; ``begun`` says whether it ends a word."""
        return self.weights.word_score * begun + self.weights.silence_weight

    def advance(self, state: State, labels: np.ndarray) -> State:
        """Return the state of prefixes with one more label [K] each."""
        contexts, _ = state
        if self.model:
            rows = self.rows(contexts)
            contexts = self.after[rows, labels]
        return contexts, labels != self.word_end

    def finish(self, state: State) -> np.ndarray:
        """Return what the end adds, [K]: a word that is not finished is, without silence."""
        contexts, begun = state
        total = self.weights.word_score * begun
        if self.model:
            closed = self.rows(contexts[begun])
            contexts = contexts.copy()
            total[begun] += self.scores[closed, self.word_end]
            contexts[begun] = self.after[closed, self.word_end]
            end = np.full(len(contexts), self.model.numbers[END])
            total += self.weights.lm_weight * self.model.step(contexts, end)[0]
        return total


class WordFusion:
    """Words of a lexicon; ``model`` is over words, or None. Other words are refused or cost ``unknown_score``.

    While a word is being spelled, the most likely word that it may become stands in for it (max-smearing).
    """

    def __init__(
        self, letters: Sequence[str], words: Sequence[str], weights: FusionWeights, model: NGram | None = None
    ) -> None:
        self.word_end, self.weights, self.model = list(letters).index(WORD_END), weights, model
        self.recombines = True
        outside = -np.inf if weights.unknown_score is None else weights.unknown_score
        names, values = [*words, UNKNOWN], np.zeros(len(words) + 1)
        if model:
            self.numbers = np.array([model.number(word) for word in names])
            values = weights.lm_weight * model.step(np.zeros(len(names), dtype=np.int64), self.numbers)[0]
        self.lexicon = build_lexicon(words, values[:-1], letters)
        self.potential = self.lexicon.best
        self.potential[self.lexicon.outside] = values[-1] + outside
        self.spelling = np.where(self.lexicon.word < 0, outside, 0.0)

    def start(self) -> State:
        """Return the state of the empty prefix: node, context, and score and context if the word ended here."""
        context = np.array([self.model.begin() if self.model else 0])
        return np.array([START]), context, np.zeros(1), context

    def gains(self, state: State, labels: np.ndarray) -> np.ndarray:
        """Return what every label [N] would add to every prefix, [K, N]."""
        node, _, ended, _ = state
        gains = self.potential[self.lexicon.child[node[:, None], labels]] - self.potential[node][:, None]
        word = np.where(node == START, 0.0, ended + self.weights.word_score - self.potential[node])
        gains[:, labels == self.word_end] = (word + self.weights.silence_weight)[:, None]
        return gains

    def advance(self, state: State, labels: np.ndarray) -> State:
        """Return the state of prefixes with one more label [K] each."""
        node, context, _, after = state
        closes = labels == self.word_end
        context = np.where(closes, after, context)
        node = np.where(closes, START, self.lexicon.child[node, labels])
        return node, context, *self.end_word(node, context)

    def end_word(self, node: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return, for a word that ends at each node [K], its score [K] and the context [K] after it."""
        ended, after = self.spelling[node], context.copy()
        asked = np.flatnonzero((node != START) & np.isfinite(ended))
        if self.model and asked.size:
            words = self.numbers[self.lexicon.word[node[asked]]]
            score, after[asked] = self.model.step(context[asked], words)
            ended[asked] += self.weights.lm_weight * score
        return ended, after

    def finish(self, state: State) -> np.ndarray:
        """Return what the end adds, [K]: a word that is not finished must be one, and is finished without silence."""
        node, _, ended, after = state
        total = np.where(node == START, 0.0, ended + self.weights.word_score - self.potential[node])
        if self.model:
            end = np.full(len(after), self.model.numbers[END])
            total = total + self.weights.lm_weight * self.model.step(after, end)[0]
        return total
