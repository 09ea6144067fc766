"""ONE loop for pretraining and fine-tuning: a generator that trains and yields a record whenever one is due."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from d2v_core.config import require
from d2v_core.errors import UserError
from d2v_core.model.loss import Loss
from d2v_core.training.meter import Meter
from d2v_core.training.monitor import describe, mean_size
from d2v_core.training.optimizer import OptimizerConfig, rate_at, set_rate
from d2v_core.training.ranks import ALONE, Ranks

Record = dict[str, float]


@dataclass(frozen=True)
class LoopConfig:
    """The block ``loop`` of a run.

    ``accumulate`` batches make an update, on however many devices. Matrix products run in ``precision``; weights,
    losses and averages are float32 in any case. ``recompute`` trades time for memory; ``compile`` is for GPUs.
    """

    updates: int
    accumulate: int
    log_every: int  # updates between records
    save_every: int  # updates between checkpoints
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    recompute: bool = False
    patience: int = 20  # updates in a row without a finite gradient, after which the run ends

    def __post_init__(self) -> None:
        for name in ("updates", "accumulate", "log_every", "save_every", "patience"):
            require(getattr(self, name) > 0, f"{name} must be positive, not {getattr(self, name)}.")


@dataclass(frozen=True)
class Step:
    """An update that is done; ``record`` and ``speed`` are empty unless due, and on all ranks but the first."""

    update: int
    record: Record = field(default_factory=dict)
    speed: Record = field(default_factory=dict)


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[tuple[float, Mapping[str, Tensor]]],
    loop: LoopConfig,
    rates: OptimizerConfig,
    seed: int,
    start: int = 0,
    ranks: Ranks = ALONE,
) -> Iterator[Step]:
    """Train ``model`` from update ``start`` to ``loop.updates``, one optimizer step per iteration.

    ``model`` has ``begin_update(update)``, called once before each update, and gives a Loss for a batch; ``batches``
    are those of this rank, each with its amount. Dropout is keyed by (seed, number of the batch): a resumed run, and
    one on another number of devices, draws what an uninterrupted one on a single device would. An update whose
    gradient is not finite is skipped and counted; raises UserError after ``loop.patience`` of them in a row.
    """
    model.train()
    meter, health = Meter(), Health(next(model.parameters()).device)
    tensors = meter.timed(batches)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for update in range(start, loop.updates):
        model.begin_update(update)
        rate = rate_at(update, loop.updates, rates)
        set_rate(optimizer, rate)
        optimizer.zero_grad(set_to_none=True)
        losses = []
        for index, batch in zip(range(ranks.rank, loop.accumulate, ranks.size), tensors, strict=False):
            torch.manual_seed(seed * 1_000_003 + update * loop.accumulate + index)
            losses.append(backward(model, batch, loop, meter if update == start and not losses else None))
            meter.add(losses[-1])
        count = ranks.total(sum(loss.count for loss in losses))
        ranks.add_gradients(parameters)
        norm = scale_gradients(parameters, count, rates.clip)
        optimizer.found_inf, optimizer.grad_scale = health.check(norm, update), None
        optimizer.step()
        meter.updates += 1
        done = update + 1
        if done % loop.log_every == 0 or done == loop.updates:
            mean = float(ranks.total(sum(loss.total.detach() for loss in losses)) / count)
            record = {"update": done, "loss": mean, "rate": rate, "norm": float(norm)}
            record |= {"skipped": health.read(loop.patience), "weight": mean_size(parameters)}
            record |= describe(losses[-1], model, ranks)
            yield Step(done, record, meter.read()) if ranks.first else Step(done)
        else:
            yield Step(done)


def backward(model: nn.Module, batch: Mapping[str, Tensor], loop: LoopConfig, meter: Meter | None) -> Loss:
    """Run one batch forward and backward; gradients are those of the summed loss. A meter counts the operations."""
    device = next(model.parameters()).device.type
    with FlopCounterMode(display=False) if meter and not loop.compile else nullcontext() as counter:
        with torch.autocast(device, torch.bfloat16, enabled=loop.precision == "bfloat16"):
            loss = model(batch)
        loss.total.backward()
    if counter:
        meter.operations(counter, loss)
    return loss


def scale_gradients(parameters: list[nn.Parameter], count: Tensor, clip: float) -> Tensor:
    """Divide gradients by ``count``, clip their global norm to ``clip`` (0 is off), and return the norm before that."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    torch._foreach_div_(gradients, count)
    if clip:
        return nn.utils.clip_grad_norm_(parameters, clip)
    return nn.utils.get_total_norm(gradients)


class Health:
    """Counts updates without a finite gradient on the device, so that no update waits for the count."""

    def __init__(self, device: torch.device) -> None:
        self.skipped, self.streak, self.longest, self.last = torch.zeros(4, device=device)

    def check(self, norm: Tensor, update: int) -> Tensor:
        """Return 1 where the optimizer must skip this update, else 0."""
        bad = (~torch.isfinite(norm)).float()
        self.skipped = self.skipped + bad
        self.streak = (self.streak + 1) * bad
        self.longest = torch.maximum(self.longest, self.streak)
        self.last = torch.where(bad > 0, float(update), self.last)
        return bad

    def read(self, patience: int) -> int:
        """Return how many updates were skipped; raise UserError when ``patience`` of them came in a row."""
        if self.longest >= patience:
            raise UserError(
                f"{int(self.longest)} updates in a row, to update {int(self.last)}, had no finite gradient; lower "
                "optimizer.rate or warm up longer, and see python -m stages.replay for what was in a batch."
            )
        return int(self.skipped)
