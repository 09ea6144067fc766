"""Intervals: repeatable, around the score, as wide as statistics says, and the same draws for every model."""

import numpy as np
import pytest

from stages.intervals import RESAMPLES, Scoring, bounds
from stages.tasks import spread_over_seeds, spread_with_bounds


def scoring_of(right: np.ndarray) -> Scoring:
    return Scoring(len(right), lambda rows: {"accuracy": 100 * float(right[rows].mean())})


def test_an_interval_is_as_wide_as_the_normal_approximation_says():
    right = np.arange(2000) % 10 < 8
    low, high = bounds(scoring_of(right).again()["accuracy"])
    error = 100 * (0.8 * 0.2 / 2000) ** 0.5
    assert low == pytest.approx(80 - 1.96 * error, abs=0.2)
    assert high == pytest.approx(80 + 1.96 * error, abs=0.2)


def test_an_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(200):
        low, high = bounds(scoring_of(rng.random(100) < 0.7).again(200)["accuracy"])
        inside.append(low <= 70 <= high)
    assert 0.9 <= np.mean(inside) <= 0.98


def test_draws_are_the_same_for_every_model_and_every_run():
    rng = np.random.default_rng(1)
    right, wrong = scoring_of(right := rng.random(30) < 0.5), scoring_of(~right)
    first, second = right.again(), right.again()
    assert np.array_equal(first["accuracy"], second["accuracy"])
    assert len(first["accuracy"]) == RESAMPLES
    assert first["accuracy"] + wrong.again()["accuracy"] == pytest.approx(100), "the same rows"


def test_seeds_are_averaged_draw_by_draw():
    rng = np.random.default_rng(2)
    right = rng.random((3, 40)) < 0.6
    scorings = [scoring_of(row) for row in right]
    (found,) = spread_with_bounds(scorings).values()
    together = bounds(Scoring(40, lambda rows: {"accuracy": 100 * right[:, rows].mean()}).again()["accuracy"])
    assert (found["low"], found["high"]) == pytest.approx(together, abs=0.01)
    assert found["low"] <= found["mean"] <= found["high"]
    assert "low" not in spread_over_seeds([s.once() for s in scorings])["accuracy"]
