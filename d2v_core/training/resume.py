"""A loop that can be stopped anywhere: it saves now and then, and goes on from what it saved."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from d2v_core.data.loader import prefetch
from d2v_core.data.order import Batch, Place
from d2v_core.errors import Stopped, UserError
from d2v_core.training import checkpoint
from d2v_core.training.loop import LoopConfig, Model, Step, fit, prepare_blocks
from d2v_core.training.optimizer import OptimizerConfig, make_optimizer
from d2v_core.training.ranks import ALONE, Ranks


def fit_resumably(
    model: Model,
    make: Callable[[Batch], Mapping],
    order: Callable[[Place], Iterator[tuple[Batch, Place]]],
    loop: LoopConfig,
    rates: OptimizerConfig,
    seed: int,
    state: Path,
    ranks: Ranks = ALONE,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Step]:
    """Train ``model`` on the device it is on and yield after every update.

    ``order`` gives the batches from a place on, with the place after each; ``make`` makes the tensors of one. Resume
    state is kept in the folder ``state``: on one CPU a stopped run ends in the same bits as one that was not. When
    ``stop`` says so, on any rank, the state is saved and Stopped is raised. Raises UserError when the batches of an
    update cannot be shared out evenly, and when the ranks are not at the same place of the same run.
    """
    if loop.accumulate % ranks.size:
        raise UserError(f"loop.accumulate ({loop.accumulate}) must be a multiple of the {ranks.size} processes.")
    device = next(model.parameters()).device
    prepare_blocks(model, loop)
    optimizer = make_optimizer(model, rates)
    start = checkpoint.restore(state, model, optimizer) or {"update": 0}
    if ranks.differ(start["update"], zlib.crc32(state.name.encode())):
        raise UserError(
            f"the processes disagree about {state}: all hosts need the same params.yaml and tables, and a folder of "
            "checkpoints that they share (D2V_STATE)."
        )
    ranks.follow_first(model.state_dict().values())
    reached: Place = start

    def batches() -> Iterator[tuple[float, Mapping]]:
        nonlocal reached
        own = shares(order(start), loop.accumulate, ranks)
        for (batch, place), tensors in prefetch(lambda step: (step, pinned(make(step[0]), device)), own):
            reached = place
            yield batch.amount, each(tensors, lambda tensor: tensor.to(device, non_blocking=True))

    for step in fit(model, optimizer, batches(), loop, rates, seed, start["update"], ranks):
        yield step
        if step.update == loop.updates:
            return
        stopping = ranks.any(stop())
        if ranks.first and (stopping or step.update % loop.save_every == 0):
            checkpoint.save(state, model, optimizer, {**reached, "update": step.update})
        if stopping:
            raise Stopped(f"stopped after update {step.update} of {loop.updates}; run it again to go on.")


def shares(order: Iterable[tuple[Batch, Place]], accumulate: int, ranks: Ranks) -> Iterator[tuple[Batch, Place]]:
    """Yield this rank's batches of every update, each with the place after the whole update."""
    source = iter(order)
    while update := list(islice(source, accumulate)):
        _, after = update[-1]
        for batch, _ in update[ranks.rank :: ranks.size]:
            yield batch, after


def pinned(tensors: Mapping, device: torch.device) -> Mapping:
    """Return tensors where a GPU reads them by itself: from other memory a copy waits for all work in flight."""
    return each(tensors, Tensor.pin_memory) if device.type == "cuda" else tensors


def each(tensors: Mapping, change: Callable[[Tensor], Tensor]) -> dict:
    """Return what ``change`` makes of every tensor, in named groups too."""
    return {
        name: each(value, change) if isinstance(value, Mapping) else change(value) for name, value in tensors.items()
    }
