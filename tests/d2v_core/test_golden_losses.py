"""Twenty losses of every modality and version, committed as text: a commit that changes them says why.

``python -m tests.d2v_core.test_golden_losses`` writes ``golden_losses.csv`` anew. Rounding differs between machines, so
the bar is 1e-3; a changed algorithm moves them by far more.
"""

import csv
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest
import torch

from d2v_core.training.loop import LoopConfig, fit
from d2v_core.training.optimizer import make_optimizer
from tests.d2v_core.blocks import MODALITIES, masked_batch, small_block, small_model, small_setup

FILE = Path(__file__).with_name("golden_losses.csv")
RUNS = [(name, version) for name in MODALITIES for version in (1, 2)]
LOOP = LoopConfig(updates=20, accumulate=1, log_every=1, save_every=100)


def losses(name: str, version: int) -> list[float]:
    """Return the losses of 20 updates of a small model on one batch, at a constant rate."""
    torch.use_deterministic_algorithms(True)
    block = small_block(name, version)
    setup, config = small_setup(name, block)
    _, model = small_model(name, block=block)
    batch = masked_batch(name, setup, views=config.objective.views.count if version == 2 else 1)
    rates = replace(config.optimizer, rate=1e-3, schedule="cosine", phases=(0.0,), final=1.0)
    steps = fit(model, make_optimizer(model, rates), repeat((1.0, batch)), LOOP, rates, seed=0)
    return [step.record["loss"] for step in steps]


@pytest.mark.parametrize(("name", "version"), RUNS)
def test_the_losses_are_those_that_were_committed(name, version):
    with FILE.open(newline="") as lines:
        committed = [float(row[f"{name} {version}"]) for row in csv.DictReader(lines)]
    assert losses(name, version) == pytest.approx(committed, rel=1e-3)


if __name__ == "__main__":
    columns = {f"{name} {version}": losses(name, version) for name, version in RUNS}
    with FILE.open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([f"{loss:.7g}" for loss in row] for row in zip(*columns.values(), strict=True))
