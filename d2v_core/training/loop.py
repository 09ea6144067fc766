"""ONE loop for pretraining and fine-tuning: a generator that trains and yields a record whenever one is due."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from d2v_core.config import require
from d2v_core.errors import UserError
from d2v_core.training.monitor import describe
from d2v_core.training.optimizer import OptimizerConfig, rate_at, set_rate

Record = dict[str, float]


@dataclass(frozen=True)
class LoopConfig:
    """The block ``loop`` of a run."""

    updates: int
    accumulate: int  # batches per update
    log_every: int  # updates between records
    save_every: int  # updates between checkpoints

    def __post_init__(self) -> None:
        for name in ("updates", "accumulate", "log_every", "save_every"):
            require(getattr(self, name) > 0, f"{name} must be positive, not {getattr(self, name)}.")


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Mapping[str, Tensor]],
    loop: LoopConfig,
    rates: OptimizerConfig,
    seed: int,
    start: int = 0,
) -> Iterator[Record]:
    """Train ``model`` from update ``start`` to ``loop.updates``, one optimizer step per iteration.

    ``model`` has ``begin_update(update)``, called once before each update, and gives a Loss for a batch. Yields after
    every update, an empty record unless one is due, so that the caller can save or stop between any two updates.
    Dropout is keyed by (seed, update): a resumed run draws what an uninterrupted one would. Raises UserError when
    the loss of a logged update is not finite.
    """
    model.train()
    for update in range(start, loop.updates):
        torch.manual_seed(seed * 1_000_003 + update)
        model.begin_update(update)
        rate = rate_at(update, loop.updates, rates)
        set_rate(optimizer, rate)
        optimizer.zero_grad(set_to_none=True)
        losses = [backward(model, batch) for batch in islice(batches, loop.accumulate)]
        count = sum(loss.count for loss in losses)
        norm = scale_gradients(model, count, rates.clip)
        optimizer.step()
        done = update + 1
        if done % loop.log_every == 0 or done == loop.updates:
            mean = float(sum(loss.total.detach() for loss in losses) / count)
            if not math.isfinite(mean):
                raise UserError(f"the loss became {mean} at update {update}; lower optimizer.rate or warm up longer.")
            yield {"update": done, "loss": mean, "rate": rate, "norm": float(norm), **describe(losses[-1], model)}
        else:
            yield {}


def backward(model: nn.Module, batch: Mapping[str, Tensor]):
    """Run one batch forward and backward; gradients are those of the summed loss."""
    loss = model(batch)
    loss.total.backward()
    return loss


def scale_gradients(model: nn.Module, count: Tensor, clip: float) -> Tensor:
    """Divide gradients by ``count``, clip their global norm to ``clip`` (0 is off), and return the norm before that."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    torch._foreach_div_(gradients, count)
    if clip:
        return nn.utils.clip_grad_norm_(model.parameters(), clip)
    return nn.utils.get_total_norm(gradients)
