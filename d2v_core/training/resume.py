"""A loop that can be stopped anywhere: it saves now and then, and goes on from what it saved."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from d2v_core.data.loader import prefetch
from d2v_core.data.order import Batch, stream
from d2v_core.training import checkpoint
from d2v_core.training.loop import LoopConfig, Record, fit
from d2v_core.training.optimizer import OptimizerConfig, make_optimizer

Make = Callable[[Batch], dict[str, Tensor]]


def fit_resumably(
    model: nn.Module,
    make: Make,
    lengths: np.ndarray,
    budget: float,
    loop: LoopConfig,
    rates: OptimizerConfig,
    seed: int,
    state: Path,
) -> Iterator[tuple[int, Record]]:
    """Train ``model`` on the device it is on and yield (updates done, record) after every update.

    ``make`` turns a batch of row numbers into tensors; ``lengths`` [rows] and ``budget`` decide the batches. Resume
    state is kept in the folder ``state``: on one CPU a stopped run ends in the same bits as one that was not.
    """
    device = next(model.parameters()).device
    optimizer = make_optimizer(model, rates)
    start = checkpoint.restore(state, model, optimizer) or {"update": 0, "epoch": 0, "position": 0}
    last: Batch | None = None

    def batches() -> Iterator[dict[str, Tensor]]:
        nonlocal last
        order = stream(lengths, budget, seed, start["epoch"], start["position"])
        for place, tensors in prefetch(lambda place: (place, make(place)), order):
            last = place
            yield {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}

    records = fit(model, optimizer, batches(), loop, rates, seed, start["update"])
    for update, record in enumerate(records, start["update"] + 1):
        yield update, record
        if update % loop.save_every == 0 and update < loop.updates:
            place = {"update": update, "epoch": last.epoch, "position": last.position + 1}
            checkpoint.save(state, model, optimizer, place)
