"""Linear probes on a learnt average of layers, beside scikit-learn's on one."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from stages.probe import ProbeConfig, accuracies, fit_weighted, linear_probe, weighted_hits

CONFIG = ProbeConfig(seeds=(0,), penalties=(0.1, 1.0))


def features(layers: int, telling: int, rows: int = 90) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Noise in every layer; the class is in one of them, of another scale."""
    rng = np.random.default_rng(0)
    found = {}
    for split in ("train", "valid", "test"):
        y = np.arange(rows) % 3
        x = rng.normal(size=(rows, layers, 6))
        x[:, telling, :3] += 2.0 * np.eye(3)[y]
        found[split] = (7 * x + 3).astype(np.float32), y
    return found


@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_with_one_layer_it_is_logistic_regression(penalty):
    x, y = features(1, 0)["train"]
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    _, weight, bias = fit_weighted(torch.from_numpy(x), torch.from_numpy(y), 3, penalty)
    other = LogisticRegression(C=penalty, tol=1e-8, max_iter=1000).fit(x[:, 0], y)
    np.testing.assert_allclose(weight, other.coef_, atol=2e-3)
    np.testing.assert_allclose(bias - bias.mean(), other.intercept_ - other.intercept_.mean(), atol=2e-3)


def test_it_finds_the_layer_that_tells_and_is_better_than_the_last_one():
    found = features(4, telling=1)
    rows = np.arange(90)
    right = weighted_hits(found, rows, CONFIG)
    last = linear_probe({split: (x[:, -1], y) for split, (x, y) in found.items()}, rows, CONFIG)
    telling = linear_probe({split: (x[:, 1], y) for split, (x, y) in found.items()}, rows, CONFIG)
    weighted = accuracies({"test": right["test"]}).once()
    assert weighted["test"] > last["test"] + 20
    assert weighted["test"] > telling["test"] - 10
    again = weighted_hits(found, rows, CONFIG)
    assert all(np.array_equal(again[split], right[split]) for split in again), "nothing is random"
    x, y = (torch.from_numpy(part) for part in found["train"])
    layers, _, _ = fit_weighted((x - x.mean(0)) / x.std(0), y, 3, 1.0)
    assert int(layers.argmax()) == 1
