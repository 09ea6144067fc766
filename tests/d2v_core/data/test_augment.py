"""Random views of an image: keyed, in range, of the model's size."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as pixels

from d2v_core.data.augment import AugmentConfig, augment, erase
from d2v_core.data.operations import OperationsConfig
from d2v_core.data.order import key
from tests.d2v_core.data.test_operations import picture

OPERATIONS = OperationsConfig(2, 9.0, 0.5)
PUBLISHED = AugmentConfig(0.08, 0.75, 0.0, True, 0.0, (0.5,) * 3, (0.5,) * 3, OPERATIONS, 0.25)
NOTHING = AugmentConfig(1.0, 1.0, 0.0, False, 0.0, (0.5,) * 3, (0.5,) * 3)
seeds = st.integers(0, 10**6)


@given(seeds, st.sampled_from([(16, 16), (20, 16), (9, 8)]))
def test_the_same_key_gives_the_same_view_of_the_models_size(seed, sizes):
    held, side = sizes
    image = picture(3, held)
    views = [augment(image, key(seed), PUBLISHED, side) for _ in range(2)]
    assert torch.equal(*views)
    assert (views[0].shape, views[0].dtype) == ((3, side, side), torch.uint8)
    assert torch.equal(image, picture(3, held))


def test_other_keys_give_other_views():
    views = {augment(picture(), key(seed), PUBLISHED, 32).numpy().tobytes() for seed in range(100)}
    assert len(views) > 95


def test_without_any_change_a_view_is_the_middle_of_the_image():
    image = picture(3, 20)
    assert torch.equal(augment(image, key(0), NOTHING, 16), image[:, 2:18, 2:18])


def test_crops_come_from_all_of_a_stored_image():
    image = torch.zeros(3, 20, 20, dtype=torch.uint8)
    image[:, :2] = 255
    config = AugmentConfig(0.5, 0.75, 0.0, False, 0.0, (0.5,) * 3, (0.5,) * 3)
    views = [augment(image, key(seed), config, 16) for seed in range(50)]
    assert any(view.max() > 200 for view in views), "rows that the middle crop leaves out are seen"


@given(seeds, st.sampled_from([4, 8, 32]))
def test_noise_stands_in_one_rectangle_of_a_legal_size(seed, size):
    image = torch.full((3, size, size), 9.0)
    erased = erase(image, key(seed), 1.0)
    assert torch.equal(erased, erase(image, key(seed), 1.0))
    assert (image == 9).all()
    changed = (erased != image).all(dim=0)
    assert torch.equal(changed, (erased != image).any(dim=0)), "in all channels"
    rows, columns = changed.any(1).sum(), changed.any(0).sum()
    assert changed.sum() == rows * columns
    assert 0 < rows < size
    assert 0 < columns < size
    if size == 32:
        assert 0.015 < changed.float().mean() < 0.36


def test_noise_is_normal_and_comes_as_often_as_asked():
    image = torch.full((3, 64, 64), 9.0)
    erased = torch.stack([erase(image, key(seed), 0.25) for seed in range(800)])
    hit = (erased != 9).flatten(1).any(1)
    assert float(hit.float().mean()) == pytest.approx(0.25, abs=0.05)
    noise = erased[erased != 9]
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert torch.equal(erase(image, key(0), 0.0), image)


def test_crops_without_further_changes_are_those_of_torchvision():
    image, config = picture(3, 20), AugmentConfig(0.3, 0.75, 0.0, False, 0.0, (0.5,) * 3, (0.5,) * 3)
    rng = key(5)
    area, aspect = rng.uniform(0.3, 1) * 400, np.exp(rng.uniform(np.log(0.75), -np.log(0.75)))
    height, width = (min(20, round(float(np.sqrt(area * ratio)))) for ratio in (1 / aspect, aspect))
    top, left = int(rng.integers(21 - height)), int(rng.integers(21 - width))
    box = image[:, top : top + height, left : left + width]
    expected = pixels.resize(box, [16, 16], pixels.InterpolationMode.BICUBIC, antialias=True)
    assert torch.equal(augment(image, key(5), config, 16), expected)


@pytest.mark.parametrize("change", [{"area": 0.0}, {"aspect": 2.0}, {"erase": 1.5}, {"std": (0.0,)}])
def test_augmentation_out_of_range_is_refused(change):
    values = {"area": 1.0, "aspect": 1.0, "turn": 0.0, "flip": False, "jitter": 0.0, "mean": (0.5,), "std": (0.5,)}
    with pytest.raises(ValueError, match=next(iter(change))):
        AugmentConfig(**values | change)
