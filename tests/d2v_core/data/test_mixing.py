"""MixUp, CutMix and added waves: keyed, and labels weigh what is seen or heard of their samples."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from d2v_core.data.mixing import MixConfig, WaveMixConfig, mix, mix_waves
from d2v_core.data.order import key
from d2v_core.errors import UserError

MIXUP, CUTMIX = MixConfig(0.8, 0.0, 1.0, 0.5), MixConfig(0.0, 1.0, 1.0, 0.5)
BOTH = MixConfig(0.8, 1.0, 1.0, 0.5)
seeds, sizes = st.integers(0, 10**6), st.sampled_from([2, 7, 16])
counts = st.integers(1, 6)


def blend(images: torch.Tensor, labels: torch.Tensor, classes: int, rng: np.random.Generator, config: MixConfig):
    """Return images and targets of a blended batch."""
    blended = mix({"inputs": images, "labels": labels}, classes, rng, config)
    return blended["inputs"], blended["labels"]


def levels(count: int, size: int) -> torch.Tensor:
    """Images of one gray level each: 1, 2, 4 and so on."""
    return (2.0 ** torch.arange(count)).view(-1, 1, 1, 1).expand(count, 3, size, size).contiguous()


@given(seeds, counts, sizes, st.sampled_from([MIXUP, CUTMIX, BOTH, MixConfig(0.7, 1.0, 0.9, 0.5)]))
def test_targets_are_shares_that_sum_to_one_and_the_key_decides(seed, count, size, config):
    images, labels = levels(count, size), torch.arange(count)
    (mixed, targets), again = (blend(images, labels, count + 2, key(seed), config) for _ in range(2))
    assert torch.equal(mixed, again[0])
    assert torch.equal(targets, again[1])
    assert (targets.shape, targets.dtype, mixed.dtype) == ((count, count + 2), torch.float32, torch.float32)
    torch.testing.assert_close(targets.sum(1), torch.ones(count))
    assert targets.min() >= 0
    assert torch.equal(images, levels(count, size)), "the batch itself stays"


@given(seeds, st.integers(2, 6), sizes)
def test_cutmix_shows_of_every_image_as_much_as_its_label_weighs(seed, count, size):
    images, labels = levels(count, size), torch.arange(count)
    mixed, targets = blend(images, labels, count, key(seed), CUTMIX)
    for row in range(count):
        for other in range(count):
            seen = float((mixed[row] == 2.0**other).float().mean())
            assert float(targets[row, other]) == pytest.approx(seen, abs=1e-6)
    pasted = (mixed[0] != images[0]).all(0)
    assert pasted.sum() == pasted.any(0).sum() * pasted.any(1).sum(), "one rectangle"
    assert all(torch.equal((mixed[row] != images[row]).all(0), pasted) for row in (0, count - 1)), "the same in all"


@given(seeds, st.integers(2, 6))
def test_mixup_blends_pixels_as_it_blends_labels(seed, count):
    images, labels = levels(count, 4), torch.arange(count)
    mixed, targets = blend(images, labels, count, key(seed), MIXUP)
    torch.testing.assert_close(mixed[:, 0, 0, 0], targets @ images[:, 0, 0, 0])
    assert (targets > 0).sum(1).max() <= 2


def test_ways_and_shares_come_as_often_as_configured():
    images, labels = levels(2, 16), torch.arange(2)
    config = MixConfig(0.8, 1.0, 0.9, 0.3)
    drawn = [blend(images, labels, 2, key(seed), config) for seed in range(2000)]
    whole = [torch.equal(mixed, images) for mixed, _ in drawn]
    cut = [not same and bool(torch.isin(mixed, images).all()) for same, (mixed, _) in zip(whole, drawn, strict=True)]
    assert np.mean(whole) == pytest.approx(0.1 + 0.9 * 0.3 * 0.01, abs=0.025)
    assert np.mean(cut) == pytest.approx(0.9 * 0.3, abs=0.035)
    shares = [float(blend(images, labels, 2, key(seed), MIXUP)[1][0, 0]) for seed in range(3000)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.std(shares) == pytest.approx((1 / (4 * 2.6)) ** 0.5, abs=0.015), "Beta(0.8, 0.8)"


def test_a_label_mixed_with_itself_stays_whole():
    _, targets = blend(levels(2, 4), torch.tensor([1, 1]), 3, key(0), BOTH)
    torch.testing.assert_close(targets, F.one_hot(torch.tensor([1, 1]), 3).float())


def test_what_is_no_image_is_refused_in_one_sentence():
    with pytest.raises(UserError, match=r"train\.mix blends images.* null\.$"):
        blend(torch.zeros(2, 9, dtype=torch.int64), torch.tensor([0, 1]), 2, key(0), BOTH)


@pytest.mark.parametrize(
    "values", [(-1.0, 1.0, 1.0, 0.5), (0.0, 0.0, 1.0, 0.5), (1.0, 1.0, 2.0, 0.5), (1.0, 1.0, 1.0, 2.0)]
)
def test_mixing_out_of_range_is_refused(values):
    with pytest.raises(ValueError, match=r"mixup|cutmix|probability|switch"):
        MixConfig(*values)


def waves(count: int, samples: int = 4000) -> dict[str, torch.Tensor]:
    """White noise of unit power, each row shorter than the one before, and a label each."""
    lengths = samples - 300 * torch.arange(count)
    noise = torch.randn(count, samples, generator=torch.Generator().manual_seed(0))
    noise = noise * (torch.arange(samples) < lengths[:, None])
    return {"inputs": noise, "lengths": lengths, "labels": torch.arange(count)}


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(1, 6), st.floats(0.1, 1.0))
def test_waves_are_added_at_unchanged_power_with_their_labels(seed, count, least):
    batch, config = waves(count), WaveMixConfig(least, 1.0)
    mixed, again = (mix_waves(batch, count, key(seed), config) for _ in range(2))
    assert all(torch.equal(mixed[name], again[name]) for name in mixed)
    targets = mixed["labels"]
    torch.testing.assert_close(targets.sum(1), torch.ones(count))
    own, others = targets.diagonal(), (targets - torch.diag(targets.diagonal())).argmax(1)
    alone = own > 1 - 1e-6
    share = own[~alone].min() if (~alone).any() else own.min()
    assert share >= least - 1e-6
    assert torch.all(own[~alone] == share), "one share for the whole batch"
    share = float(share)
    for row in (~alone).nonzero().flatten().tolist():
        other = int(others[row])
        sound = share * batch["inputs"][row] + (1 - share) * batch["inputs"][other]
        torch.testing.assert_close(mixed["inputs"][row], sound / (share**2 + (1 - share) ** 2) ** 0.5)
        assert mixed["lengths"][row] == max(batch["lengths"][row], batch["lengths"][other])
        both = mixed["inputs"][row, : int(batch["lengths"].min())]
        assert float(both.square().mean()) == pytest.approx(1, abs=0.2)


def test_waves_are_mixed_as_often_as_configured_and_shares_are_uniform():
    batch = waves(8, 3000)
    drawn = [mix_waves(batch, 8, key(seed), WaveMixConfig(0.5, 0.7)) for seed in range(600)]
    mixed = [found for found in drawn if "inputs" in found]
    assert len(mixed) == pytest.approx(420, abs=45)
    shares = [float(found["labels"].diagonal().min()) for found in mixed]
    shares = [share for share in shares if share > 0.4]
    assert np.mean(shares) == pytest.approx(0.75, abs=0.03)
    assert min(shares) > 0.49
    assert all(found["labels"].shape == (8, 8) for found in drawn), "targets have one form, mixed or not"


def test_several_labels_are_mixed_as_they_are():
    several = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    for seed in range(20):
        targets = mix_waves(waves(2) | {"labels": several}, 3, key(seed), WaveMixConfig(0.5, 1.0))["labels"]
        share = float(targets[0, 0])
        assert torch.equal(targets, several) or targets[0].tolist() == pytest.approx([share, share, 1 - share])
    _, targets = blend(levels(2, 4), several, 3, key(0), MIXUP)
    assert targets[0, 0] == targets[0, 1]
    assert targets.sum() == pytest.approx(3)


@pytest.mark.parametrize("inputs", [torch.zeros(2, 9, dtype=torch.int64), torch.zeros(2, 3, 4, 4)])
def test_what_is_no_wave_is_refused_in_one_sentence(inputs):
    with pytest.raises(UserError, match=r"train\.mix_waves blends waves.* null\.$"):
        mix_waves({"inputs": inputs, "labels": torch.tensor([0, 1])}, 2, key(0), WaveMixConfig(0.5, 1.0))


@pytest.mark.parametrize("values", [(0.0, 1.0), (1.5, 1.0), (0.5, 1.5)])
def test_mixing_waves_out_of_range_is_refused(values):
    with pytest.raises(ValueError, match=r"least|probability"):
        WaveMixConfig(*values)
