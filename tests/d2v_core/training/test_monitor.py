"""The monitors see a collapse that the loss does not show."""

import pytest
import torch
from torch import nn

from d2v_core.training.monitor import alarms, collapse, explained_share, mean_size, spread


def test_spread_is_the_deviation_over_tokens():
    assert spread(3 * torch.randn(20000, 4)) == pytest.approx(3, rel=0.05)
    assert spread(torch.ones(50, 4)) < 0.01


def test_shares_find_targets_that_only_depend_on_position():
    noise, position = torch.randn(8, 50, 16), torch.randn(1, 50, 16)
    assert explained_share(noise) < 0.05
    assert explained_share(position.expand(8, -1, -1)) > 0.99
    assert explained_share(noise + position) == pytest.approx(0.5, abs=0.1)


def test_shares_find_targets_that_only_depend_on_the_sample():
    sample = torch.randn(8, 1, 16).expand(-1, 50, -1)
    assert explained_share(sample.transpose(0, 1)) > 0.99
    assert explained_share(sample) < 0.2


HEALTHY = {
    "update": 60,
    "rate": 1e-3,
    "weight": 0.05,
    "skipped": 0,
    "target_spread": 0.5,
    "prediction_spread": 0.2,
    "position_share": 0.7,
}
ILL = {
    "skipped": (2, "2 updates had no finite gradient"),
    "rate": (0.1, "an update may change weights by 200%"),
    "target_spread": (0.05, "the targets hardly differ"),
    "prediction_spread": (0.001, "the predictions hardly differ"),
    "position_share": (0.99, "position alone explains 99%"),
}


@pytest.mark.parametrize("name", ILL)
def test_every_sign_of_illness_has_its_sentence(name):
    assert alarms(HEALTHY, 100) == []
    assert alarms(HEALTHY | {"update": 10, "prediction_spread": 0.001}, 100) == []
    value, sentence = ILL[name]
    (said,) = alarms(HEALTHY | {name: value}, 100)
    assert said.startswith(sentence)


def test_a_collapse_is_that_of_targets_or_of_predictions():
    assert collapse(HEALTHY, predictions=True) == []
    assert len(collapse(HEALTHY | {"target_spread": 0.05, "prediction_spread": 0.001}, predictions=True)) == 2
    assert collapse(HEALTHY | {"prediction_spread": 0.001}, predictions=False) == []
    assert collapse({"update": 1}, predictions=True) == [], "fine-tuning has no targets"


def test_the_size_of_weights_is_that_of_matrices():
    weights = [nn.Parameter(torch.full((3, 4), 2.0)), nn.Parameter(torch.full((5,), 100.0))]
    assert mean_size(weights) == pytest.approx(2.0)
