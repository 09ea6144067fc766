"""``python -m benchmarks.intervals``: what a thousand draws of rows cost for every kind of score, in seconds of CPU."""

import time

import numpy as np

from stages import runner
from stages.intervals import RESAMPLES, Scoring
from stages.metrics import classification_scores, regression_scores, tag_scores, transcription_scores

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "nine", "small", "dogs"]
TIMED = 100  # draws


def cases() -> dict[str, Scoring]:
    """Return random answers of the sizes of known test sets."""
    rng = np.random.default_rng(0)
    spoken = [[" ".join(rng.choice(WORDS, 20)) for _ in range(2600)] for _ in range(2)]
    found = {"error rates, 2,600 utterances of 20 words": transcription_scores(*spoken)}
    for rows, classes in ((10_000, 10), (50_000, 1000)):
        names = [str(number) for number in range(classes)]
        answers = [[answer] * 5 for answer in rng.choice(names, rows).tolist()]
        scoring = classification_scores(rng.choice(names, rows).tolist(), answers, names)
        found[f"accuracy and F1, {rows:,} rows, {classes:,} classes"] = scoring
    numbers = [[repr(float(number)) for number in rng.normal(size=1500)] for _ in range(2)]
    found["correlations, 1,500 rows"] = regression_scores(*numbers)
    for rows, classes in ((1000, 20), (20_000, 527)):
        scoring = tag_scores(rng.random((rows, classes)) < 2 / classes, rng.normal(size=(rows, classes)))
        found[f"average precision, {rows:,} rows, {classes:,} classes"] = scoring
    return found


def main() -> None:
    """Print a line for every case."""
    for name, scoring in cases().items():
        start = time.process_time()
        scoring.again(TIMED)
        print(f"{name}: {(time.process_time() - start) * RESAMPLES / TIMED:.2f} s", flush=True)


if __name__ == "__main__":
    runner.call(main)
