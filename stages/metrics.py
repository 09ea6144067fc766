"""Scores in percent, from answers in words. jiwer counts edits, scikit-learn what classes are right."""

from collections.abc import Sequence

import numpy as np

BEST = 5  # answers among which the right one may be


def transcription_scores(truths: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    """Return the word and letter error rates over all utterances together."""
    import jiwer

    truths, answers = list(truths), list(answers)
    return {
        "word_error_rate": 100 * jiwer.wer(truths, answers),
        "letter_error_rate": 100 * jiwer.cer(truths, answers),
    }


def classification_scores(truths: Sequence[str], answers: Sequence[str], classes: Sequence[str]) -> dict[str, float]:
    """Return accuracy and macro-averaged F1; of two classes also the second's F1 and Matthews correlation (6.4)."""
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    scores = {
        "accuracy": 100 * float(accuracy_score(truths, answers)),
        "macro_f1": 100 * float(f1_score(truths, answers, average="macro", zero_division=0.0)),
    }
    if len(classes) == 2:
        positive = [[value == classes[1] for value in values] for values in (truths, answers)]
        scores["f1"] = 100 * float(f1_score(*positive, zero_division=0.0))
        scores["matthews"] = 100 * float(matthews_corrcoef(*positive))
    return scores


def best_scores(truths: Sequence[str], ranked: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return how often the right class is among the ``BEST`` best answers of a row; nothing where fewer are given.

    Rows without a right answer are left out.
    """
    pairs = [(truth, best) for truth, best in zip(truths, ranked, strict=True) if truth]
    if any(len(best) < BEST for _, best in pairs):
        return {}
    return {f"top{BEST}": 100 * float(np.mean([truth in best for truth, best in pairs]))}


def class_scores(truths: Sequence[str], answers: Sequence[str], classes: Sequence[str]) -> list[dict[str, object]]:
    """Return the rows of every class in ``truths``, and its precision, recall and F1 in percent."""
    from sklearn.metrics import precision_recall_fscore_support

    found = precision_recall_fscore_support(truths, answers, labels=list(classes), zero_division=0.0)
    return [
        {"class": name, "rows": int(rows)}
        | {"precision": f"{100 * precision:.2f}", "recall": f"{100 * recall:.2f}", "f1": f"{100 * f1:.2f}"}
        for name, precision, recall, f1, rows in zip(classes, *found, strict=True)
    ]


def regression_scores(truths: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    """Return Pearson's and Spearman's correlations of numbers (reference 6.4)."""
    x, y = (np.array(values, dtype=np.float64) for values in (truths, answers))
    return {"pearson": 100 * correlation(x, y), "spearman": 100 * correlation(ranks(x), ranks(y))}


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Return the linear correlation of [rows] with [rows]; 0 when one of them is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale else 0.0


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks [rows] of values, equal ones sharing their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]
