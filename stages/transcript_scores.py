"""Error rates of transcripts in detail: kinds of edits, how sure the rates are, and which utterances are worst."""

from collections.abc import Sequence

import numpy as np

KINDS = ("substitutions", "insertions", "deletions")
CONFIDENCE = 95  # percent


def count_edits(truths: Sequence[str], answers: Sequence[str], unit: str) -> np.ndarray:
    """Return, for every utterance, its ``KINDS`` of edits and the length of its truth, [utterances, 4] int64.

    ``unit`` is ``word`` or ``letter``. The truths must not be empty.
    """
    import jiwer

    process = jiwer.process_words if unit == "word" else jiwer.process_characters
    rows = []
    for truth, answer in zip(truths, answers, strict=True):
        found = process(truth, answer)
        edits = [getattr(found, kind) for kind in KINDS]
        rows.append([*edits, found.hits + found.substitutions + found.deletions])
    return np.array(rows, dtype=np.int64).reshape(-1, len(KINDS) + 1)


def detailed_scores(truths: Sequence[str], answers: Sequence[str], resamples: int = 1000) -> dict[str, float]:
    """Return word and letter error rates in percent, by kind of edit, with bootstrap intervals over utterances."""
    scores = {}
    for unit in ("word", "letter"):
        edits = count_edits(truths, answers, unit)
        length = edits[:, -1].sum()
        scores[f"{unit}_error_rate"] = 100 * edits[:, :-1].sum() / length
        for kind, total in zip(KINDS, edits[:, :-1].sum(axis=0), strict=True):
            scores[f"{unit}_{kind}"] = 100 * total / length
        low, high = interval(edits, resamples)
        scores[f"{unit}_error_rate_low"], scores[f"{unit}_error_rate_high"] = low, high
    return {name: float(value) for name, value in scores.items()}


def interval(edits: np.ndarray, resamples: int) -> tuple[float, float]:
    """Return the middle ``CONFIDENCE`` percent of the error rate, in percent, when utterances are drawn again."""
    rng = np.random.default_rng(0)
    errors, lengths = edits[:, :-1].sum(axis=1), edits[:, -1]
    rates = []
    for _ in range(resamples):
        rows = rng.integers(0, len(edits), len(edits))
        rates.append(100 * errors[rows].sum() / lengths[rows].sum())
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(rates, [tail, 100 - tail])
    return float(low), float(high)


def worst(names: Sequence[str], truths: Sequence[str], answers: Sequence[str], count: int) -> list[dict[str, object]]:
    """Return the ``count`` utterances with the most wrong words, the worst first, ties by name."""
    errors = count_edits(truths, answers, "word")[:, :-1].sum(axis=1).tolist()
    rows = sorted(zip(errors, names, truths, answers, strict=True), key=lambda row: (-row[0], row[1]))
    return [dict(zip(("errors", "id", "actual", "predicted"), row, strict=True)) for row in rows[:count]]
