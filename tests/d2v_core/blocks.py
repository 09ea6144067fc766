"""Small params blocks and batches for tests of the core."""

import copy
from pathlib import Path

import numpy as np
import torch
import yaml

from d2v_core.config import build
from d2v_core.data.order import key
from d2v_core.pretraining import PretrainConfig, hide, make_model
from d2v_core.setup import Setup, make_setup
from stages.params import merge

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())  # the real one: tests follow it
MODALITIES = ("speech", "vision", "text")


def small_block(name: str, version: int = 1) -> dict:
    """Return the params block of a modality, shrunk to a width of 16 and 2 blocks."""
    block = copy.deepcopy(PARAMS["modalities"][name]) | {"version": version}
    changes = block.pop("v2")
    if version == 2:
        changes["pretrain"]["objective"]["views"]["decoder"] |= {"channels": 16, "groups": 2}
        block = merge(block, changes)
    block["model"]["trunk"] |= {"width": 16, "depth": 2, "heads": 2, "feedforward": 32}
    block["pretrain"]["objective"]["targets"]["layers"] = 2
    if name == "speech":
        block["model"]["local"] |= {"channels": 8, "position_groups": 2}
    return block


def small_setup(name: str, block: dict | None = None) -> tuple[Setup, PretrainConfig]:
    """Return the setup and the pretraining configuration of a shrunk modality."""
    block = block or small_block(name)
    return make_setup(name, block, name), build(PretrainConfig, block["pretrain"], name)


def rows(name: str, count: int, seed: int = 0) -> list[dict]:
    """Return random rows of a modality's table."""
    rng = np.random.default_rng(seed)
    if name == "speech":
        return [{"audio": rng.integers(-9000, 9000, 9000 + 500 * n).astype(np.int16)} for n in range(count)]
    if name == "vision":
        return [{"image": rng.integers(0, 255, 64).astype(np.uint8)} for _ in range(count)]
    return [{"tokens": np.r_[0, rng.integers(4, 999, 30 + n), 2].astype(np.uint16)} for n in range(count)]


def masked_batch(name: str, setup: Setup, count: int = 4, views: int = 1) -> dict[str, torch.Tensor]:
    """Return a batch as pretraining makes it."""
    rngs = [key(1, row) for row in range(count)]
    inputs = setup.modality.batch(rows(name, count), rngs, setup.config)
    return inputs | hide(setup, inputs, [key(1, row, view) for row in range(count) for view in range(views)])


def small_model(name: str, seed: int = 0, block: dict | None = None, version: int = 1):
    """Return (setup, model) of a shrunk modality."""
    torch.manual_seed(seed)
    setup, config = small_setup(name, block or small_block(name, version))
    return setup, make_model(setup, config)
