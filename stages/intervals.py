"""How sure a score is: the same score of rows that are drawn again, with replacement, a thousand times (bootstrap)."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np

RESAMPLES = 1000
CONFIDENCE = 95  # percent
AT_ONCE = 16  # draws, where several are scored together: so many of 20,000 rows stay in a processor's cache
Scores = dict[str, float]


@dataclass(frozen=True)
class Scoring:
    """Answers to ``rows`` rows; ``score`` maps numbers of rows, each of them perhaps several times, to metrics.

    ``score_draws``, where there is a faster way, maps how often each row was drawn, [rows, draws], to metrics [draws].
    """

    rows: int
    score: Callable[[np.ndarray], Scores]
    score_draws: Callable[[np.ndarray], dict[str, np.ndarray]] | None = None

    def once(self) -> Scores:
        """Return the metrics of all rows."""
        return self.score(np.arange(self.rows))

    def again(self, resamples: int = RESAMPLES) -> dict[str, np.ndarray]:
        """Return every metric of as many rows drawn again, [resamples] each.

        The draws are the same for every model, so that metrics of several can be averaged draw by draw.
        """
        rng = np.random.default_rng(0)
        draws = (rng.integers(0, self.rows, self.rows) for _ in range(resamples))
        if self.score_draws is None:
            scored = [self.score(rows) for rows in draws]
            return {name: np.array([scores[name] for scores in scored]) for name in scored[0]}
        counts = (np.bincount(rows, minlength=self.rows) for rows in draws)
        parts = []
        while some := list(islice(counts, AT_ONCE)):
            parts.append(self.score_draws(np.stack(some, axis=1)))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def bounds(values: np.ndarray) -> tuple[float, float]:
    """Return the middle ``CONFIDENCE`` percent of ``values``."""
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
