"""Self-supervised training of one modality on one table: everything put together, resumable at any update."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from d2v_core import starting
from d2v_core.config import require
from d2v_core.data.order import Batch, Place, follow, key
from d2v_core.data.table import Table
from d2v_core.errors import UserError
from d2v_core.model.data2vec import Data2Vec, Data2VecConfig
from d2v_core.model.data2vec2 import Data2Vec2
from d2v_core.setup import Setup
from d2v_core.training import checkpoint
from d2v_core.training.loop import LoopConfig, Step
from d2v_core.training.optimizer import OptimizerConfig
from d2v_core.training.ranks import ALONE, Ranks
from d2v_core.training.resume import fit_resumably


@dataclass(frozen=True)
class PretrainConfig:
    """The block ``pretrain`` of a modality.

    ``batch`` is the budget of one batch in the modality's unit; ``start`` names the run whose weights are the first
    ones, None: they are random (``d2v_core/starting.py``).
    """

    batch: float
    objective: Data2VecConfig
    optimizer: OptimizerConfig
    loop: LoopConfig
    start: str | None = None

    def __post_init__(self) -> None:
        require(self.batch > 0, f"batch must be positive, not {self.batch}.")


def pretrain(
    setup: Setup,
    config: PretrainConfig,
    table: Table,
    seed: int,
    state: Path,
    device: torch.device,
    ranks: Ranks = ALONE,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Data2Vec, Iterator[Step]]:
    """Return a new model, and the steps in which it trains when they are taken.

    Resume state is kept in the folder ``state``. Raises UserError when no row is long enough to train on, or when the
    model cannot begin with the run that ``config.start`` names.
    """
    model = first_model(setup, config, seed, state).to(device)
    source = Source(setup, config, table, seed)

    def order(start: Place) -> Iterator[tuple[Batch, Place]]:
        return follow(source.lengths, config.batch, seed, start)

    steps = fit_resumably(model, source.batch, order, config.loop, config.optimizer, seed, state, ranks, stop)
    return model, steps


class Source:
    """The rows of a table that are long enough to train on, and the batches made of them."""

    def __init__(self, setup: Setup, config: PretrainConfig, table: Table, seed: int) -> None:
        """Choose the rows; raises UserError when there is none."""
        self.setup, self.config, self.table, self.seed = setup, config, table, seed
        lengths = setup.modality.trainable(setup.modality.lengths(table, setup.config), setup.config)
        self.rows = np.flatnonzero(lengths)
        self.lengths = lengths[self.rows]
        if len(self.rows) == 0:
            raise UserError(f"{table.folder} has no row in its {table.split!r} split that is long enough to train on.")

    def batch(self, batch: Batch) -> dict[str, Tensor]:
        """Return inputs and masks of a batch: draws are keyed by (seed, epoch, row) and, in version 2, the view."""
        setup, seed, numbers = self.setup, self.seed, self.rows[batch.rows]
        rngs = [key(seed, batch.epoch, int(row)) for row in numbers]
        inputs = setup.modality.batch([self.table[row] for row in numbers], rngs, setup.config)
        if views := self.config.objective.views:
            rngs = [key(seed, batch.epoch, int(row), view) for row in numbers for view in range(1, 1 + views.count)]
        return inputs | hide(setup, inputs, rngs)


def hide(setup: Setup, inputs: dict[str, Tensor], rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
    """Return what a model needs to know of the masks, one for each of ``rngs``: those of a sample's views are adjacent.

    ``mask`` [rows, T] bool; ``masked`` [masked tokens] int64 numbers the tokens to predict through all rows, padding
    left out; for version 2 ``visible`` [rows, visible tokens] int64, the places of the others.
    """
    hidden = setup.modality.mask(rngs, inputs, setup.config)
    mask = hidden["mask"].numpy()
    real = np.arange(mask.shape[1]) < setup.modality.tokens(inputs, setup.config)[:, None]
    predicted = mask & np.repeat(real, len(mask) // len(real), axis=0)
    hidden["masked"] = torch.from_numpy(np.flatnonzero(predicted))
    if setup.version == 2:
        hidden["visible"] = torch.from_numpy(np.nonzero(~mask)[1].reshape(len(mask), -1))
    return hidden


def first_model(setup: Setup, config: PretrainConfig, seed: int, state: Path) -> Data2Vec:
    """Return a model with the weights that ``seed`` draws, or those of ``config.start``.

    The latter are left out where a checkpoint in the folder ``state`` will replace them: the run they come from may be
    gone by then.
    """
    torch.manual_seed(seed)
    model = make_model(setup, config)
    if config.start and not (state / checkpoint.LAST).exists():
        starting.begin(model, setup, config.start)
    return model


def make_model(setup: Setup, config: PretrainConfig) -> Data2Vec:
    """Return a new student with what predicts and a teacher; raise UserError when the objective does not fit."""
    objective = config.objective
    if (objective.views is None) != (setup.version == 1):
        raise UserError(
            f"{setup.name}: objective.views is for version 2, and needed there; version is {setup.version}."
        )
    if not 0 < objective.targets.layers <= setup.trunk.depth:
        raise UserError(f"{setup.name}: objective.targets.layers must be in 1-{setup.trunk.depth}, the trunk's depth.")
    if objective.views is None:
        return Data2Vec(setup.encoder(), setup.modality.head(setup.trunk), objective)
    return Data2Vec2(setup.encoder(), setup.modality.decoder(setup.trunk, objective.views.decoder), objective)
