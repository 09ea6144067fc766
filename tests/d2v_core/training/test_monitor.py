"""The monitors see a collapse that the loss does not show."""

import pytest
import torch

from d2v_core.training.monitor import explained_share, spread


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
