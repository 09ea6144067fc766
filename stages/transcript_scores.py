"""Error rates of transcripts in detail: kinds of edits, how sure the rates are, and which utterances are worst."""

from collections.abc import Sequence

import numpy as np

from stages.intervals import RESAMPLES, Scores, Scoring, bounds

KINDS = ("substitutions", "insertions", "deletions")


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


def error_rates(truths: Sequence[str], answers: Sequence[str], unit: str) -> Scoring:
    """Return the error rate of all utterances together in percent of what was said, and that of every kind of edit."""
    edits = count_edits(truths, answers, unit)

    def score(rows: np.ndarray) -> Scores:
        *totals, length = edits[rows].sum(axis=0).tolist()
        rates = {f"{unit}_{kind}": 100 * total / length for kind, total in zip(KINDS, totals, strict=True)}
        return {f"{unit}_error_rate": 100 * sum(totals) / length} | rates

    return Scoring(len(edits), score)


def detailed_scores(truths: Sequence[str], answers: Sequence[str], resamples: int = RESAMPLES) -> Scores:
    """Return word and letter error rates in percent, by kind of edit, with bootstrap intervals over utterances."""
    scores: Scores = {}
    for unit in ("word", "letter"):
        scoring, rate = error_rates(truths, answers, unit), f"{unit}_error_rate"
        scores |= scoring.once()
        scores[f"{rate}_low"], scores[f"{rate}_high"] = bounds(scoring.again(resamples)[rate])
    return scores


def worst(names: Sequence[str], truths: Sequence[str], answers: Sequence[str], count: int) -> list[dict[str, object]]:
    """Return the ``count`` utterances with the most wrong words, the worst first, ties by name."""
    errors = count_edits(truths, answers, "word")[:, :-1].sum(axis=1).tolist()
    rows = sorted(zip(errors, names, truths, answers, strict=True), key=lambda row: (-row[0], row[1]))
    return [dict(zip(("errors", "id", "actual", "predicted"), row, strict=True)) for row in rows[:count]]
