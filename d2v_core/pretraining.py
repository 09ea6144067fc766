"""Self-supervised training of one modality on one table: everything put together, resumable at any update."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from d2v_core.config import require
from d2v_core.data import order
from d2v_core.data.loader import prefetch
from d2v_core.data.table import Table
from d2v_core.errors import UserError
from d2v_core.model.data2vec import Data2Vec, Data2VecConfig
from d2v_core.setup import Setup
from d2v_core.training import checkpoint
from d2v_core.training.loop import LoopConfig, Record, fit
from d2v_core.training.optimizer import OptimizerConfig, make_optimizer


@dataclass(frozen=True)
class PretrainConfig:
    """The block ``pretrain`` of a modality; ``batch`` is the budget of one batch in the modality's unit."""

    batch: float
    objective: Data2VecConfig
    optimizer: OptimizerConfig
    loop: LoopConfig

    def __post_init__(self) -> None:
        require(self.batch > 0, f"batch must be positive, not {self.batch}.")


def pretrain(
    setup: Setup, config: PretrainConfig, table: Table, seed: int, state: Path, device: torch.device
) -> Iterator[tuple[Data2Vec, int, Record]]:
    """Train and yield (model, updates done, record) after every update; records are empty unless one is due.

    Resume state is kept in the folder ``state``: a run that was stopped goes on from there, bit for bit on one CPU.
    """
    torch.manual_seed(seed)
    model = make_model(setup, config).to(device)
    optimizer = make_optimizer(model, config.optimizer)
    position = checkpoint.restore(state, model, optimizer) or {"update": 0, "epoch": 0, "position": 0}
    ahead = training_batches(setup, config.batch, table, seed, position["epoch"], position["position"])
    places: list[order.Batch] = []
    batches = remember(ahead, places, device)
    records = fit(model, optimizer, batches, config.loop, config.optimizer, seed, position["update"])
    for update, record in enumerate(records, position["update"] + 1):
        yield model, update, record
        if update % config.loop.save_every == 0:
            last = places[-1]
            resume = {"update": update, "epoch": last.epoch, "position": last.position + 1}
            checkpoint.save(state, model, optimizer, resume)


def make_model(setup: Setup, config: PretrainConfig) -> Data2Vec:
    """Return a new student with head and teacher; raise UserError when more target layers are asked than there are."""
    if not 0 < config.objective.targets.layers <= setup.trunk.depth:
        raise UserError(f"{setup.name}: objective.targets.layers must be in 1-{setup.trunk.depth}, the trunk's depth.")
    head = setup.modality.head(setup.trunk.width)
    return Data2Vec(setup.encoder(), head, config.objective, setup.modality.shares_features)


def training_batches(
    setup: Setup, budget: float, table: Table, seed: int, epoch: int, position: int
) -> Iterator[tuple[order.Batch, dict[str, Tensor]]]:
    """Yield masked batches from a place in the order on; every random draw is keyed by (seed, epoch, row)."""
    lengths = setup.modality.trainable(setup.modality.lengths(table, setup.config), setup.config)
    usable = np.flatnonzero(lengths)
    if len(usable) == 0:
        raise UserError(f"{table.folder} has no row in its {table.split!r} split that is long enough to train on.")

    def make(batch: order.Batch) -> tuple[order.Batch, dict[str, Tensor]]:
        numbers = usable[batch.rows]
        rngs = [order.key(seed, batch.epoch, int(row)) for row in numbers]
        inputs = setup.modality.batch([table[row] for row in numbers], rngs, setup.config)
        return batch, inputs | setup.modality.mask(rngs, inputs, setup.config)

    return prefetch(make, order.stream(lengths[usable], budget, seed, epoch, position))


def remember(
    batches: Iterator[tuple[order.Batch, dict[str, Tensor]]], places: list[order.Batch], device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Yield each batch on ``device`` and keep in ``places`` which one it was."""
    for place, batch in batches:
        places[:] = [place]
        yield {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
