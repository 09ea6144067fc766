"""CTC prefix beam search: the transcript whose sound and language together score best (reference 6.1).

A prefix is a sequence of labels; all alignments that spell it are one entry of the beam, with the logarithm of their
probability split by whether they end in a blank. All prefixes of a frame are extended at once, in NumPy. Prefixes are
told apart by 64-bit hashes.

T frames · C symbols · K prefixes in the beam · N symbols that survive pruning in a frame
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from d2v_core.config import require
from d2v_core.evaluation.ctc import WORD_END
from d2v_core.evaluation.fusion import Fusion, State
from d2v_core.model.supervised import BLANK

STAYS = -1


@dataclass(frozen=True)
class BeamConfig:
    """How wide the search is.

    ``size`` prefixes survive a frame, unless they are more than ``threshold`` worse than the best; in every frame the
    ``tokens`` best labels are tried (0: all), unless they are more than ``token_threshold`` below the best. A prefix is
    worth the sum over its alignments or, as in the reference, the best of them. ``recombine`` drops a prefix when
    another one has the same future and scores better, so that old ambiguities do not fill the beam; with the best
    alignment this cannot change the first hypothesis of an unpruned search.
    """

    size: int = 50
    threshold: float | None = None
    tokens: int = 0
    token_threshold: float | None = None
    alignments: Literal["sum", "best"] = "sum"
    recombine: bool = True

    def __post_init__(self) -> None:
        require(self.size > 0, f"size must be positive, not {self.size}.")
        require(self.tokens >= 0, f"tokens must not be negative, but is {self.tokens}.")
        for name in ("threshold", "token_threshold"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{name} must be positive or null, not {value}.")


class Hypothesis(NamedTuple):
    """A transcript, its labels, and its score: log P of the sound plus what the fusion adds."""

    text: str
    labels: tuple[int, ...]
    score: float


class Beam(NamedTuple):
    """The prefixes of a frame: log P [K] of alignments that end in a blank, and of those that end in the last label.

    ``extra`` [K] is the score beside the sound, ``last`` [K] the last label (blank: the prefix is empty), ``prefix``
    and ``parent`` [K] the hashes of the prefix and of the prefix without its last label.
    """

    blank: np.ndarray
    label: np.ndarray
    extra: np.ndarray
    last: np.ndarray
    prefix: np.ndarray
    parent: np.ndarray
    state: State


def beam_search(
    logits: np.ndarray, letters: Sequence[str], fusion: Fusion, config: BeamConfig, best: int = 1
) -> list[Hypothesis]:
    """Return the up to ``best`` hypotheses with the highest scores for logits [T, C], the highest first.

    Logits need not be normalised. Where no prefix may end as ``fusion`` sees it, the last, unfinished word of the best
    one is dropped. Raises ValueError for logits that are not numbers.
    """
    frames = log_softmax(np.asarray(logits, dtype=np.float64))
    combine = np.logaddexp if config.alignments == "sum" else np.maximum
    beam, history = first(fusion), []
    for frame in frames:
        beam, origins, labels = step(beam, frame, fusion, config, combine)
        history.append((origins, labels))
    sound = combine(beam.blank, beam.label) + beam.extra
    scores = sound + fusion.finish(beam.state)
    finished = bool(np.isfinite(scores).any())
    if not finished:
        scores = sound
    ranked = np.argsort(-scores, kind="stable")[: best if finished else 1]
    found = []
    for row in ranked[np.isfinite(scores[ranked])]:
        traced = trace(history, int(row))
        found.append(Hypothesis(spell(traced, letters, finished), traced, float(scores[row])))
    return found or [Hypothesis("", (), -np.inf)]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log probabilities [T, C]; minus infinity is a probability of zero."""
    if np.isnan(logits).any() or not np.isfinite(logits.max(axis=1)).all():
        raise ValueError("logits must be numbers")
    with np.errstate(divide="ignore"):
        return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def first(fusion: Fusion) -> Beam:
    """Return the beam that holds the empty prefix alone."""
    zero, never = np.zeros(1), np.full(1, -np.inf)
    empty = np.zeros(1, dtype=np.uint64)
    return Beam(zero, never, zero, np.array([BLANK]), empty + np.uint64(1), empty, fusion.start())


def step(
    beam: Beam, frame: np.ndarray, fusion: Fusion, config: BeamConfig, combine: np.ufunc
) -> tuple[Beam, np.ndarray, np.ndarray]:
    """Return the beam after a frame [C], and where each of its prefixes comes from: row [K] and label [K] or STAYS."""
    labels = surviving(frame, config)
    either = combine(beam.blank, beam.label)
    stays_blank = either + frame[BLANK]
    stays_label, grown = extend(beam, frame, labels, either, combine)
    gains = fusion.gains(beam.state, labels)
    gains += beam.extra[:, None]
    scores = np.concatenate([combine(stays_blank, stays_label) + beam.extra, (grown + gains).ravel()])
    chosen = select(scores, config)
    width = len(either)
    rows = chosen[chosen < width]
    parents, columns = np.divmod(chosen[chosen >= width] - width, max(len(labels), 1))
    added = labels[columns]
    state = tuple(
        np.concatenate([part[rows], new])
        for part, new in zip(beam.state, fusion.advance(tuple(p[parents] for p in beam.state), added), strict=True)
    )
    following = Beam(
        np.concatenate([stays_blank[rows], np.full(len(parents), -np.inf)]),
        np.concatenate([stays_label[rows], grown[parents, columns]]),
        np.concatenate([beam.extra[rows], gains[parents, columns]]),
        np.concatenate([beam.last[rows], added]),
        np.concatenate([beam.prefix[rows], mix(beam.prefix[parents], added)]),
        np.concatenate([beam.parent[rows], beam.prefix[parents]]),
        state,
    )
    origins, added = np.concatenate([rows, parents]), np.concatenate([np.full(len(rows), STAYS), added])
    if not (config.recombine and fusion.recombines):
        return following, origins, added
    kept = recombined(following)
    *parts, state = following
    following = Beam._make([*(part[kept] for part in parts), tuple(part[kept] for part in state)])
    return following, origins[kept], added[kept]


def recombined(beam: Beam) -> np.ndarray:
    """Return the rows, ascending, that are best of all with the same future: by their blank or by their last label."""
    future = mix(mix(beam.state[0].astype(np.uint64), beam.state[1]), beam.last)
    kept = np.zeros(len(future), dtype=bool)
    for sound in (beam.blank, beam.label):
        order = np.lexsort((-(sound + beam.extra), future))
        ordered = future[order]
        starts = np.flatnonzero(np.concatenate([np.ones(1, dtype=bool), ordered[1:] != ordered[:-1]]))
        kept[order[starts[: len(order)]]] = True
    return np.flatnonzero(kept)


def surviving(frame: np.ndarray, config: BeamConfig) -> np.ndarray:
    """Return the labels [N] that are tried in a frame [C]; the blank is no label and always tried."""
    labels = np.delete(np.arange(len(frame)), BLANK)
    if config.token_threshold is not None:
        labels = labels[frame[labels] >= frame.max() - config.token_threshold]
    if 0 < config.tokens < len(labels):
        labels = labels[np.argsort(-frame[labels], kind="stable")[: config.tokens]]
    return labels[frame[labels] > -np.inf]


def extend(
    beam: Beam, frame: np.ndarray, labels: np.ndarray, either: np.ndarray, combine: np.ufunc
) -> tuple[np.ndarray, np.ndarray]:
    """Return log P [K] of prefixes that stay and end in their last label, and [K, N] of prefixes with a label more.

    A label repeats the last one only after a blank. A longer prefix that is already in the beam is counted there.
    """
    grown = either[:, None] + frame[labels]
    place = np.full(len(frame), -1)
    place[labels] = np.arange(len(labels))
    columns = place[beam.last]
    repeats = np.flatnonzero(columns >= 0)
    sounds = frame[beam.last[repeats]]
    grown[repeats, columns[repeats]] = beam.blank[repeats] + sounds
    stays = np.full(len(either), -np.inf)
    stays[repeats] = beam.label[repeats] + sounds
    order = np.argsort(beam.prefix)
    parents = order[np.minimum(np.searchsorted(beam.prefix, beam.parent, sorter=order), len(order) - 1)]
    known = np.flatnonzero((beam.prefix[parents] == beam.parent) & (columns >= 0))
    stays[known] = combine(stays[known], grown[parents[known], columns[known]])
    grown[parents[known], columns[known]] = -np.inf
    return stays, grown


def select(scores: np.ndarray, config: BeamConfig) -> np.ndarray:
    """Return which candidates survive, in ascending order."""
    least = scores.max(initial=-np.inf) - config.threshold if config.threshold is not None else -np.inf
    chosen = np.flatnonzero((scores >= least) & (scores > -np.inf))
    if len(chosen) > config.size:
        chosen = np.sort(chosen[np.argpartition(-scores[chosen], config.size - 1)[: config.size]])
    return chosen


def mix(prefixes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the hashes [K] of prefixes with one more label each; uint64 arithmetic wraps around."""
    spread = (labels.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (prefixes ^ spread) * np.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ (mixed >> np.uint64(29))


def trace(history: Sequence[tuple[np.ndarray, np.ndarray]], row: int) -> tuple[int, ...]:
    """Return the labels of the prefix in ``row`` of the last beam."""
    labels = []
    for origins, added in reversed(history):
        if added[row] != STAYS:
            labels.append(int(added[row]))
        row = int(origins[row])
    return tuple(reversed(labels))


def spell(labels: Sequence[int], letters: Sequence[str], finished: bool) -> str:
    """Return the transcript of labels, words separated by single spaces, without the last word if it is unfinished."""
    words = "".join(letters[label] for label in labels).split(WORD_END)
    return " ".join(word for word in (words if finished else words[:-1]) if word)
