"""ONE loop for pretraining and fine-tuning: a generator that trains and yields a record whenever one is due."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from d2v_core.config import require
from d2v_core.errors import UserError
from d2v_core.model.data2vec import Data2Vec
from d2v_core.model.joint import Joint
from d2v_core.model.loss import Loss
from d2v_core.model.supervised import Supervised
from d2v_core.model.transformer import Block, Transformer
from d2v_core.training.gradients import Gradients
from d2v_core.training.meter import Meter
from d2v_core.training.monitor import collapse, describe, mean_size
from d2v_core.training.optimizer import OptimizerConfig, rate_at, set_rate
from d2v_core.training.ranks import ALONE, Ranks

Model = Data2Vec | Joint | Supervised
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
    collapse_after: int | None = None  # updates after which a record of a collapse ends the run; null: it only warns

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
    model: Model,
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
    gradients = Gradients(parameters, ranks)
    fused: Any = optimizer  # reads two attributes that no class declares
    for update in range(start, loop.updates):
        model.begin_update(update)
        rate = rate_at(update, loop.updates, rates)
        set_rate(optimizer, rate)
        optimizer.zero_grad(set_to_none=True)
        losses: list[Loss] = []
        for index, batch in zip(range(ranks.rank, loop.accumulate, ranks.size), tensors, strict=False):
            torch.manual_seed(seed * 1_000_003 + update * loop.accumulate + index)
            last = index + ranks.size >= loop.accumulate
            with gradients.sending() if last else nullcontext():
                losses.append(backward(model, batch, loop, meter if update == start and not losses else None))
            meter.add(losses[-1])
        gradients.add()
        count = ranks.total(reduce(torch.add, (loss.count for loss in losses)))
        norm, fused.grad_scale = gradient_scale(parameters, count, rates.clip)
        fused.found_inf = health.check(norm, update)
        optimizer.step()
        meter.updates += 1
        done = update + 1
        if done % loop.log_every == 0 or done == loop.updates:
            mean = float(ranks.total(reduce(torch.add, (loss.total.detach() for loss in losses))) / count)
            record = {"update": done, "loss": mean, "rate": rate, "norm": float(norm)}
            record |= {"skipped": health.read(loop.patience), "weight": mean_size(parameters)}
            record |= describe(losses[-1], model, ranks)
            end_collapsed(record, loop)
            yield Step(done, record, meter.read()) if ranks.first else Step(done)
        else:
            yield Step(done)


def prepare_blocks(model: nn.Module, loop: LoopConfig) -> None:
    """Set what ``loop`` says of all blocks in ``model``: compiled, recomputed in the backward pass."""
    for part in model.modules():
        if isinstance(part, Transformer):
            part.recompute = loop.recompute
        elif isinstance(part, Block) and loop.compile:
            part.compile()


def backward(model: nn.Module, batch: Mapping[str, Tensor], loop: LoopConfig, meter: Meter | None) -> Loss:
    """Run one batch forward and backward; gradients are those of the summed loss.

    A meter counts the operations of this batch, which it sees where no compiled code runs.
    """
    device = next(model.parameters()).device.type
    counting = FlopCounterMode(display=False) if meter else nullcontext()
    with counting as counter, torch.compiler.set_stance("force_eager") if meter and loop.compile else nullcontext():
        with torch.autocast(device, torch.bfloat16, enabled=loop.precision == "bfloat16"):
            loss = model(batch)
        loss.total.backward()
    if meter and counter:
        meter.operations(counter, loss)
    return loss


def gradient_scale(parameters: list[nn.Parameter], count: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Return the global norm of the gradients over ``count``, and what the optimizer has to divide them by.

    That is ``count``, and more where the norm is above ``clip`` (0 is off). No pass over the gradients rewrites them.
    """
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None]) / count
    return norm, count * ((norm + 1e-6) / clip).clamp(min=1) if clip else count


def end_collapsed(record: Record, loop: LoopConfig) -> None:
    """Raise UserError where a record after ``loop.collapse_after`` updates shows a collapse (reference 1.7)."""
    found = collapse(record, predictions=True)
    if loop.collapse_after is not None and record["update"] > loop.collapse_after and found:
        raise UserError(f"after {record['update']} updates {found[0][:-1]}; lower optimizer.rate or mask less.")


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
