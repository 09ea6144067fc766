"""Scores in percent, of all rows or of rows drawn again (``stages.intervals``): thousands of times, so in whole arrays.

B samples · C classes · N draws of rows · S stretches of rows
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stages.intervals import Scores, Scoring
from stages.transcript_scores import error_rates

BEST = 5  # answers among which the right one may be
LOWER_IS_BETTER = ("error", "loss", "perplexity", "substitutions", "insertions", "deletions")


def lower_is_better(metric: str) -> bool:
    """Return whether a metric counts what went wrong."""
    return any(word in metric.lower() for word in LOWER_IS_BETTER)


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
    ranked = rank(truths, logits)

    def scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"mean_average_precision": 100 * np.nanmean(average_precisions(ranked, weights), axis=0)}

    def score(rows: np.ndarray) -> Scores:
        weights = np.bincount(rows, minlength=len(truths))
        return {name: float(values[0]) for name, values in scores(weights[:, None]).items()}

    return Scoring(len(truths), score, scores)


@dataclass(frozen=True)
class Ranked:
    """The rows of every class, best first, in stretches that end with the rows of equal logits of a right one.

    ``rows`` int32 are those of all classes down to their last right one, and ``begins`` [S] is where stretches begin
    in it; ``right`` and ``right_begins`` are the same of the right rows alone. The stretches of each class begin at
    ``classes`` [C], and ``class_of`` [S] is a stretch's class. Rows of equal logits count together.
    """

    rows: Tensor
    begins: Tensor
    right: Tensor
    right_begins: Tensor
    classes: Tensor
    class_of: Tensor


def rank(truths: np.ndarray, logits: np.ndarray) -> Ranked:
    """Return what ``average_precisions`` needs of rows that are right or not, [B, C] bool, and their logits [B, C]."""
    parts: list[list[np.ndarray]] = [[] for _ in range(4)]
    stretches = []
    for right, column in zip(truths.T, logits.T, strict=True):
        order = np.argsort(-column, kind="stable")
        places, falling = np.flatnonzero(right[order]), -column[order]
        ends, firsts = np.unique(np.searchsorted(falling, falling[places], side="right"), return_index=True)
        lengths, counts = np.diff(ends, prepend=0), np.diff(firsts, append=len(places))
        for part, values in zip(parts, (order[: lengths.sum()], lengths, order[places], counts), strict=True):
            part.append(values.astype(np.int32))
        stretches.append(len(ends))
    rows, down_to, right_rows, right_counts = (torch.from_numpy(np.concatenate(part)) for part in parts)
    sizes = torch.tensor(stretches, dtype=torch.int32)
    class_of = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    return Ranked(rows, beginnings(down_to), right_rows, beginnings(right_counts), beginnings(sizes), class_of)


def beginnings(lengths: Tensor) -> Tensor:
    """Return where parts of such lengths [parts], one behind the other, begin."""
    return (lengths.cumsum(0) - lengths).int()


def average_precisions(ranked: Ranked, weights: np.ndarray) -> np.ndarray:
    """Return, for every class, the mean over right rows of the precision down to them, [C, N] float64.

    Row b counts ``weights[b, n]`` times in draw n; NaN where no right row counts.
    """
    counts = torch.from_numpy(weights).float()
    everything = torch.arange(len(ranked.class_of), dtype=torch.int32)
    found = sums(counts, ranked.right, ranked.right_begins).double()
    above = running(sums(counts, ranked.rows, ranked.begins).double(), ranked)
    precision = running(found, ranked) / above.clamp(min=1)
    total = sums(found, everything, ranked.classes)
    return (sums(found * precision, everything, ranked.classes) / total).numpy()


def sums(values: Tensor, rows: Tensor, begins: Tensor) -> Tensor:
    """Return the sums [parts, N] of values [B, N] at ``rows``, of which a part begins at each of ``begins``."""
    return F.embedding_bag(rows, values, begins, mode="sum")


def running(values: Tensor, ranked: Ranked) -> Tensor:
    """Return the sums of values [S, N] of stretches down to each in its class."""
    total = torch.cat([values.new_zeros(1, values.shape[1]), values.cumsum(0)])
    return total[1:] - total[ranked.classes][ranked.class_of]


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
