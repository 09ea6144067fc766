"""Scores in percent, from answers in words. jiwer counts edits, scikit-learn everything else."""

from collections.abc import Sequence


def transcription_scores(truths: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    """Return the word and letter error rates over all utterances together."""
    import jiwer

    truths, answers = list(truths), list(answers)
    return {
        "word_error_rate": 100 * jiwer.wer(truths, answers),
        "letter_error_rate": 100 * jiwer.cer(truths, answers),
    }


def classification_scores(truths: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    """Return accuracy and macro-averaged F1."""
    from sklearn.metrics import accuracy_score, f1_score

    return {
        "accuracy": 100 * float(accuracy_score(truths, answers)),
        "macro_f1": 100 * float(f1_score(truths, answers, average="macro", zero_division=0.0)),
    }
