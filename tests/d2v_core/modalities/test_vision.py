"""Images: what is stored, how views differ, and where the positions come from."""

import numpy as np
import pytest
import torch

from d2v_core.data.order import key
from d2v_core.errors import UserError
from d2v_core.modalities import vision
from d2v_core.setup import make_setup
from tests.d2v_core.blocks import PARAMS, rows, small_block, small_setup

SETUP, _ = small_setup("vision")


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 20, 9), (3, 5, 30), (1, 1, 1)])
def test_any_image_becomes_a_square_of_the_tables_size(shape):
    image = torch.randint(0, 255, shape, dtype=torch.uint8)
    for channels in (1, 3):
        (row,) = vision.rows(image, vision.TableConfig(8, channels))
        assert row["image"].shape == (channels * 64,)
        assert row["image"].dtype == np.uint8


@pytest.mark.parametrize("shape", [(1, 10, 10), (3, 30, 12), (1, 1, 1)])
def test_a_margin_is_stored_and_the_middle_is_what_the_model_reads(shape):
    image = torch.randint(0, 255, shape, dtype=torch.uint8)
    (row,) = vision.rows(image, vision.TableConfig(8, 1, 2))
    assert row["image"].shape == (100,)
    inputs = vision.batch([row], None, SETUP.config)["inputs"]
    pixels = inputs * SETUP.config.augment.std[0] + SETUP.config.augment.mean[0]
    np.testing.assert_allclose(255 * pixels[0, 0], row["image"].reshape(10, 10)[1:9, 1:9], atol=1e-3)


def test_views_are_keyed_and_whole_images_are_left_alone():
    member = rows("vision", 1)
    views = [vision.batch(member, [key(0, epoch)], SETUP.config)["inputs"] for epoch in (0, 0, 1)]
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
    whole = vision.batch(member, None, SETUP.config)["inputs"]
    pixels = whole * SETUP.config.augment.std[0] + SETUP.config.augment.mean[0]
    np.testing.assert_allclose(pixels.numpy().ravel(), member[0]["image"] / 255, atol=1e-6)


def test_the_published_augmentation_keeps_the_size():
    config = vision.AugmentConfig(0.08, 0.75, 0.0, True, 0.4, (0.5,) * 3, (0.5,) * 3)
    image = torch.randint(0, 255, (3, 32, 32), dtype=torch.uint8)
    views = [vision.augment(image, key(number), config, 32) for number in range(20)]
    assert {tuple(view.shape) for view in views} == {(3, 32, 32)}
    assert not all(torch.equal(views[0], view) for view in views)


def test_relative_positions_are_those_of_the_reference():
    index = vision.relative_index(14)
    assert index.shape == (197, 197)
    assert index[0, 0] == 731
    assert (index[0, 1:] == 729).all()
    assert (index[1:, 0] == 730).all()
    assert index[1, 1] == 13 * 27 + 13
    assert index[1, 2] == 13 * 27 + 12, "one column to the right"
    assert index[1, 15] == 12 * 27 + 13, "one row below"
    assert len(index[1:, 1:].unique()) == 729


def test_the_sincos_table_has_the_column_in_its_first_half():
    table = vision.sincos(4, 16)[0]
    assert torch.equal(table[0, :8], table[4, :8]), "same column"
    assert torch.equal(table[0, 8:], table[1, 8:]), "same row"
    assert not torch.equal(table[0, :8], table[1, :8])


def test_a_patch_that_does_not_divide_the_image_is_refused():
    block = small_block("vision")
    block["model"]["local"]["patch"] = 3
    with pytest.raises(UserError, match=r"model\.local\.patch \(3\) must divide"):
        make_setup("vision", block, "modalities.vision")


def test_the_sizes_of_the_paper_give_the_parameters_of_the_paper():
    block = {**PARAMS["modalities"]["vision"], "table": {"size": 224, "channels": 3}}
    model = {
        **block["model"],
        "trunk": block["model"]["trunk"] | {"width": 768, "depth": 12, "heads": 12, "feedforward": 3072},
        "local": block["model"]["local"] | {"patch": 16, "positions": 0.0},
        "augment": block["model"]["augment"] | {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    }
    with torch.device("meta"):
        setup = make_setup("vision", block | {"model": model}, "")
        encoder, head = setup.encoder(), vision.head(setup.trunk)
    assert sum(parameter.numel() for parameter in [*encoder.parameters(), *head.parameters()]) == 86_256_720
