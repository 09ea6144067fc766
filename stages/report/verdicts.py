"""Every judgement on the page and the rule behind it, so that no number is called good by taste."""

from collections.abc import Mapping
from dataclasses import dataclass

from stages.metrics import lower_is_better

LEAST_TARGET_SPREAD = 0.1  # below these, data2vec's reference code stops a run as collapsed
LEAST_PREDICTION_SPREAD = 0.01
MOSTLY_POSITION = 0.5
LEAST_DIFFERENCE = 1.0  # points

CLEAR_RULE = (
    "A difference is called better or worse only if both sides have at least two seeds and it exceeds both twice the "
    f"larger of their standard deviations and {LEAST_DIFFERENCE:g} point; otherwise it is not clear."
)
INTERVAL_RULE = (
    "In brackets: where the mean over these seeds lies in 95% of the cases when the rows of the split are drawn again "
    "with replacement (bootstrap)."
)
MEANINGS = {
    "linear_few": "logistic regression on a few labels per class (probe.per_class in params.yaml)",
    "linear_all": "logistic regression on all labels",
    "neighbours": "vote of the nearest neighbours among all labels",
    "word_substitutions": "other words in place of the right ones, in percent of the words spoken",
    "word_insertions": "words that were not spoken",
    "word_deletions": "words that were left out",
    "mean_average_precision": "average precision, averaged over the labels",
    "top5": "the right class among the five likeliest",
    "macro_f1": "F1 averaged over the classes",
    "f1": "F1 of the second of two classes",
    "matthews": "Matthews correlation of two classes",
    "pearson": "Pearson's correlation of numbers",
    "spearman": "Spearman's correlation of numbers",
}


@dataclass(frozen=True)
class Side:
    """One origin's score: its mean, its sample deviation (None for a single seed) and every seed's value.

    ``low`` and ``high`` bound where it lies when the rows of the split are drawn again, where that was estimated.
    """

    mean: float | None
    deviation: float | None
    values: tuple[float, ...]
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A metric on a split, from the pretrained encoder (``ours``) and from the one without pretraining."""

    metric: str
    split: str
    ours: Side | None
    baseline: Side | None

    @property
    def lower_is_better(self) -> bool:
        """Whether the metric counts what went wrong."""
        return lower_is_better(self.metric)

    @property
    def difference(self) -> float | None:
        """Ours minus the baseline."""
        if self.ours is None or self.baseline is None or self.ours.mean is None or self.baseline.mean is None:
            return None
        return self.ours.mean - self.baseline.mean

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` when the difference is clear, else ``not clear``, ``one seed`` or nothing."""
        if self.ours is None or self.baseline is None or self.difference is None:
            return ""
        sides = [side for side in (self.ours, self.baseline) if len(side.values) > 1]
        deviations = [side.deviation for side in sides if side.deviation is not None]
        if len(deviations) < 2:
            return "one seed"
        if abs(self.difference) <= max(2 * max(deviations), LEAST_DIFFERENCE):
            return "not clear"
        return "better" if (self.difference < 0) == self.lower_is_better else "worse"


@dataclass(frozen=True)
class Health:
    """What the monitors say about a pretraining run: ``good``, ``caution``, ``bad`` or ``unknown``, in one line."""

    level: str
    text: str


def summary(comparisons: Mapping[str, Comparison]) -> str:
    """Return the answer to "does pretraining help?" in one sentence, from each task's fine-tuned scores."""
    phrases = {
        "better": "clearly better on {}",
        "worse": "clearly worse on {}",
        "not clear": "not clearly different on {}",
        "one seed": "without a verdict on {}, for want of a second seed",
    }
    named = {
        verdict: [name for name, comparison in comparisons.items() if comparison.verdict == verdict]
        for verdict in phrases
    }
    if not any(named.values()):
        return ""
    named["better"] = named["better"] or ["no task"]
    said = [phrase.format(", ".join(named[verdict])) for verdict, phrase in phrases.items() if named[verdict]]
    return f"Fine-tuning from the pretrained encoder, instead of from scratch, is {'; '.join(said)}."


def health(last: Mapping[str, float]) -> Health:
    """Return whether a run collapsed, from its last record; the thresholds are those of the reference."""
    target, prediction = last.get("target_spread"), last.get("prediction_spread")
    if target is None and prediction is None:
        return Health("unknown", "No spreads were recorded, so nothing can be said about collapse.")
    limits = (("targets", target, LEAST_TARGET_SPREAD), ("predictions", prediction, LEAST_PREDICTION_SPREAD))
    spreads = [(name, value, least) for name, value, least in limits if value is not None]
    low = [f"spread of the {name} {value:.2g} is below {least:g}" for name, value, least in spreads if value < least]
    if low:
        return Health("bad", f"Collapsed: at the end the {' and the '.join(low)}.")
    fine = " and ".join(f"of the {name} {value:.2f} (limit {least:g})" for name, value, least in spreads)
    text = f"No collapse: at the end the spread {fine}."
    least, position = last.get("least_target_spread"), last.get("position_share")
    if least is not None and least < LEAST_TARGET_SPREAD:
        return Health("caution", f"{text} But after warm-up the spread of the targets fell to {least:.2g}.")
    if position is not None and position >= MOSTLY_POSITION:
        share = f"position alone explains {position:.0%} of the targets' variance"
        return Health("caution", f"{text} But {share}: they mostly encode where a token is, not what it holds.")
    return Health("good", text)
