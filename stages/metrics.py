"""Scores in percent, of all rows or of rows drawn again (``stages.intervals``): thousands of times, so by numpy alone.

B samples · C classes
"""

from collections.abc import Sequence

import numpy as np

from stages.intervals import Scores, Scoring
from stages.transcript_scores import error_rates

BEST = 5  # answers among which the right one may be


def transcription_scores(truths: Sequence[str], answers: Sequence[str]) -> Scoring:
    """Return the word and letter error rates over all utterances together, and kinds of wrong words."""
    words, letters = (error_rates(truths, answers, unit) for unit in ("word", "letter"))

    def score(rows: np.ndarray) -> Scores:
        found = words.score(rows)
        rates = {name: scores[name] for scores in (found, letters.score(rows)) for name in scores if "rate" in name}
        return rates | found

    return Scoring(len(truths), score)


def classification_scores(truths: Sequence[str], ranked: Sequence[Sequence[str]], classes: Sequence[str]) -> Scoring:
    """Return accuracy and macro-averaged F1; of two classes also the second's F1 and Matthews correlation (6.4).

    ``ranked`` holds the best answers of every row; where there are ``BEST`` of them, also how often one is right.
    """
    answers = [best[0] for best in ranked]
    numbers = {name: number for number, name in enumerate(dict.fromkeys([*classes, *truths, *answers]))}
    actual, given = (np.array([numbers[name] for name in names]) for names in (truths, answers))
    near = np.array([truth in best for truth, best in zip(truths, ranked, strict=True)])
    listed = all(len(best) >= BEST for best in ranked)

    def score(rows: np.ndarray) -> Scores:
        x, y = actual[rows], given[rows]
        hits, there, said = (np.bincount(values, minlength=len(numbers)) for values in (x[x == y], x, y))
        f1 = 2 * hits / np.maximum(there + said, 1)
        scores = {"accuracy": hits.sum() / len(rows), "macro_f1": f1[there + said > 0].mean()}
        if len(classes) == 2:
            scores |= {"f1": f1[1], "matthews": correlation(x == 1, y == 1)}
        if listed:
            scores[f"top{BEST}"] = near[rows].mean()
        return {name: 100 * float(value) for name, value in scores.items()}

    return Scoring(len(truths), score)


def regression_scores(truths: Sequence[str], answers: Sequence[str]) -> Scoring:
    """Return Pearson's and Spearman's correlations of numbers (reference 6.4)."""
    x, y = (np.array(values, dtype=np.float64) for values in (truths, answers))

    def score(rows: np.ndarray) -> Scores:
        chosen = x[rows], y[rows]
        return {"pearson": 100 * correlation(*chosen), "spearman": 100 * correlation(*map(ranks, chosen))}

    return Scoring(len(x), score)


def tag_scores(truths: np.ndarray, logits: np.ndarray) -> Scoring:
    """Return the mean over classes of the average precision; truths [B, C] bool, logits [B, C] (reference 6.2).

    Classes without a row are left out.
    """
    ranked = [ranking(truths[:, number], logits[:, number]) for number in range(truths.shape[1])]

    def score(rows: np.ndarray) -> Scores:
        weights = np.bincount(rows, minlength=len(truths))
        found = [average_precision(each, weights) for each in ranked]
        return {"mean_average_precision": 100 * float(np.nanmean(found))}

    return Scoring(len(truths), score)


def ranking(truths: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return what ``average_precision`` needs, for rows [B] that are right or not and their logits [B].

    It is the order of rows, best first, down to the last right one; the places of the right ones in it; where rows of
    higher logits than those of the next right ones begin; and for every right one in which of these stretches it is,
    and the last one that is in the same: rows of equal logits count together.
    """
    order = np.argsort(-logits, kind="stable")
    places, falling = np.flatnonzero(truths[order]), -logits[order]
    ends, stretches = np.unique(np.searchsorted(falling, falling[places], side="right"), return_inverse=True)
    last = np.searchsorted(places, ends) - 1
    return order[: ends.max(initial=0)], places, np.append(0, ends[:-1]), stretches, last[stretches]


def average_precision(ranked: tuple[np.ndarray, ...], weights: np.ndarray) -> float:
    """Return the mean over right rows of the precision down to them; rows count ``weights`` [B] times each.

    NaN when none is right.
    """
    order, places, starts, stretches, last = ranked
    weights = weights.take(order)
    found = weights[places]
    if not found.any():
        return float("nan")
    above = np.add.reduceat(weights, starts).cumsum()
    precision = found.cumsum()[last] / np.maximum(above[stretches], 1)
    return float(found @ precision / found.sum())


def class_scores(
    truths: Sequence | np.ndarray, answers: Sequence | np.ndarray, classes: Sequence[str]
) -> list[dict[str, object]]:
    """Return the rows of every class in ``truths``, and its precision, recall and F1 in percent.

    Both are names of classes, or for several labels bool [B, C].
    """
    from sklearn.metrics import precision_recall_fscore_support

    labels = None if isinstance(truths, np.ndarray) else list(classes)
    found = precision_recall_fscore_support(truths, answers, labels=labels, average=None, zero_division=0.0)
    return [
        {"class": name, "rows": int(rows)}
        | {"precision": f"{100 * precision:.2f}", "recall": f"{100 * recall:.2f}", "f1": f"{100 * f1:.2f}"}
        for name, precision, recall, f1, rows in zip(classes, *found, strict=True)
    ]


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Return the linear correlation of [rows] with [rows]; 0 when one of them is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale else 0.0


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks [rows] of values, equal ones sharing their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]
