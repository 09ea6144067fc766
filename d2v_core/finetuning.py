"""Supervised training of an encoder and a head on labelled rows: from pretrained weights or from scratch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from d2v_core.config import require
from d2v_core.data import order
from d2v_core.data.loader import prefetch
from d2v_core.data.table import Row, Table
from d2v_core.errors import UserError
from d2v_core.model.supervised import HeadConfig, Supervised
from d2v_core.setup import Setup
from d2v_core.training.loop import LoopConfig, Record, fit
from d2v_core.training.optimizer import OptimizerConfig, make_optimizer

ROWS_AT_ONCE = 32
Labels = Callable[[Sequence[Row]], Tensor]


@dataclass(frozen=True)
class FinetuneConfig:
    """The block ``train`` of a task.

    ``batch`` is the budget of one batch in the modality's unit; ``per_class`` labels are used (0: all of them).
    """

    batch: float
    per_class: int
    augment: bool
    seeds: tuple[int, ...]
    head: HeadConfig
    optimizer: OptimizerConfig
    loop: LoopConfig

    def __post_init__(self) -> None:
        require(self.batch > 0, f"batch must be positive, not {self.batch}.")
        require(len(self.seeds) > 0, "seeds must hold at least one number.")
        require(self.per_class >= 0, f"per_class must not be negative, but is {self.per_class}.")


def finetune(
    setup: Setup, config: FinetuneConfig, model: Supervised, table: Table, labels: Labels, seed: int, device: torch.device
) -> Iterator[Record]:
    """Train ``model`` on the labelled rows of ``table`` and yield a record after every update, empty unless due."""
    rows = labelled_rows(table, config, seed)

    def make(batch: order.Batch) -> dict[str, Tensor]:
        numbers = rows[batch.rows]
        chosen = [table[row] for row in numbers]
        rngs = [order.key(seed, batch.epoch, int(row)) for row in numbers] if config.augment else None
        inputs = setup.modality.batch(chosen, rngs, setup.config)
        return {name: tensor.to(device) for name, tensor in (inputs | {"labels": labels(chosen)}).items()}

    optimizer = make_optimizer(model, config.optimizer)
    lengths = setup.modality.lengths(table, setup.config)[rows]
    batches = prefetch(make, order.stream(lengths, config.batch, seed))
    return fit(model.to(device), optimizer, batches, config.loop, config.optimizer, seed)


def labelled_rows(table: Table, config: FinetuneConfig, seed: int) -> np.ndarray:
    """Return the numbers of the rows to learn from: all labelled ones, or ``per_class`` keyed ones of each class."""
    if config.head.kind == "ctc":
        rows = np.flatnonzero([bool(text) for text in table.column("text")])
    else:
        found = np.array([-1 if label is None else label for label in table.column("label")])
        shuffled = order.key(seed, 0).permutation(len(found))
        wanted = config.per_class or len(found)
        groups = [shuffled[found[shuffled] == label][:wanted] for label in range(len(table.classes))]
        rows = np.sort(np.concatenate(groups)) if groups else np.empty(0, dtype=int)
    if len(rows) == 0:
        raise UserError(f"{table.folder} has no labelled row in its {table.split!r} split; fine-tuning needs labels.")
    return rows


@torch.no_grad()
def predict(setup: Setup, model: Supervised, table: Table, device: torch.device) -> Iterator[Tensor]:
    """Yield, for every row of ``table`` in order, its logits on the CPU: [C], or for CTC [real tokens, C]."""
    model.eval().to(device)
    for rows in table.chunks(ROWS_AT_ONCE):
        inputs = setup.modality.batch(rows, None, setup.config)
        logits, padding = model.logits({name: tensor.to(device) for name, tensor in inputs.items()})
        for number, values in enumerate(logits.cpu()):
            real = slice(None) if padding is None or values.ndim == 1 else ~padding[number].cpu()
            yield values[real]
