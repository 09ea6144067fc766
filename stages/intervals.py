"""How sure a score is: the same score of rows that are drawn again, with replacement, a thousand times (bootstrap)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
CONFIDENCE = 95  # percent
Scores = dict[str, float]


@dataclass(frozen=True)
class Scoring:
    """Answers to ``rows`` rows; ``score`` maps numbers of rows, each of them perhaps several times, to metrics."""

    rows: int
    score: Callable[[np.ndarray], Scores]

    def once(self) -> Scores:
        """Return the metrics of all rows."""
        return self.score(np.arange(self.rows))

    def again(self, resamples: int = RESAMPLES) -> dict[str, np.ndarray]:
        """Return every metric of as many rows drawn again, [resamples] each.

        The draws are the same for every model, so that metrics of several can be averaged draw by draw.
        """
        rng = np.random.default_rng(0)
        drawn = [self.score(rng.integers(0, self.rows, self.rows)) for _ in range(resamples)]
        return {name: np.array([scores[name] for scores in drawn]) for name in drawn[0]}


def bounds(values: np.ndarray) -> tuple[float, float]:
    """Return the middle ``CONFIDENCE`` percent of ``values``."""
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
