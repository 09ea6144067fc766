"""``python -m stages.replay MODALITY UPDATE``: what was in the batches of an update of pretraining, and what it did.

Order, crops and masks are pure functions of the seed and the update, so nothing was recorded for this. The model is
that of the last checkpoint of the run, if there is one, else a new one.
"""

import math
from itertools import islice

import torch

from d2v_core.config import build
from d2v_core.data import table as tables
from d2v_core.data.order import follow
from d2v_core.errors import UserError
from d2v_core.pretraining import PretrainConfig, Source, first_model
from d2v_core.training import checkpoint
from d2v_core.training.optimizer import make_optimizer
from stages import params, runner, training
from stages.paths import TABLES


def main(name: str, update: int) -> None:
    """Print rows, sizes, finiteness and loss of every batch of the update that was numbered ``update``, from 0."""
    if update < 0:
        raise UserError(f"updates are numbered from 0; there is none with the number {update}.")
    setup, seed = training.read_setup(name), params.get("seed")
    config = build(PretrainConfig, params.modality(name)["pretrain"], f"{params.PATH}: modalities.{name}.pretrain")
    table = tables.Table(TABLES / name, "train", setup.modality.columns, setup.config.table)
    source = Source(setup, config, table, seed)
    device = training.pick_device()
    identity = training.identity_of(setup, config, seed, TABLES / name)
    folder = training.state_folder(f"pretrain-{name}", identity)
    model = first_model(setup, config, seed, folder).to(device).train()
    place = checkpoint.restore(folder, model, make_optimizer(model, config.optimizer)) or {"update": 0}
    print(f"weights of update {place['update']}")
    first = update * config.loop.accumulate
    order = follow(source.lengths, config.batch, seed, {})
    for number, (batch, _) in enumerate(islice(order, first, first + config.loop.accumulate), first):
        torch.manual_seed(seed * 1_000_003 + number)
        inputs = {key: tensor.to(device) for key, tensor in source.batch(batch).items()}
        with torch.no_grad():
            loss = model(inputs)
        finite = all(torch.isfinite(tensor).all() for tensor in inputs.values() if tensor.is_floating_point())
        mean = float(loss.total / loss.count)
        shape = tuple(inputs["inputs"].shape)
        print(f"batch {number}: epoch {batch.epoch}, {shape}, inputs finite: {finite}, loss {mean:.6g}")
        for row in source.rows[batch.rows]:
            print(f"  row {row}: {table[int(row)]['id']}")
        if not math.isfinite(mean):
            print("  this is a batch whose update is skipped")


if __name__ == "__main__":
    runner.run(main)
