"""A loop that can be stopped anywhere: it saves now and then, and goes on from what it saved."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from d2v_core.data.loader import prefetch
from d2v_core.data.order import Place
from d2v_core.training import checkpoint
from d2v_core.training.loop import LoopConfig, Record, fit
from d2v_core.training.optimizer import OptimizerConfig, make_optimizer

Item = TypeVar("Item")
Inputs = dict[str, Tensor]


def fit_resumably(
    model: nn.Module,
    make: Callable[[Item], Mapping],
    order: Callable[[Place], Iterator[tuple[Item, Place]]],
    loop: LoopConfig,
    rates: OptimizerConfig,
    seed: int,
    state: Path,
) -> Iterator[tuple[int, Record]]:
    """Train ``model`` on the device it is on and yield (updates done, record) after every update.

    ``order`` gives, from a place on, what the batches are made of and the place after each; ``make`` makes the tensors.
    Resume state is kept in the folder ``state``: on one CPU a stopped run ends in the same bits as one that was not.
    """
    device = next(model.parameters()).device
    optimizer = make_optimizer(model, rates)
    start = checkpoint.restore(state, model, optimizer) or {"update": 0}
    reached: Place = start

    def batches() -> Iterator[Mapping]:
        nonlocal reached
        for place, tensors in prefetch(lambda step: (step[1], make(step[0])), order(start)):
            reached = place
            yield move(tensors, device)

    records = fit(model, optimizer, batches(), loop, rates, seed, start["update"])
    for update, record in enumerate(records, start["update"] + 1):
        yield update, record
        if update % loop.save_every == 0 and update < loop.updates:
            checkpoint.save(state, model, optimizer, {**reached, "update": update})


def move(tensors: Mapping, device: torch.device) -> dict:
    """Return tensors, or named groups of them, on ``device``."""
    return {
        name: move(value, device) if isinstance(value, Mapping) else value.to(device, non_blocking=True)
        for name, value in tensors.items()
    }
