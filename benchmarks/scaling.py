"""What several GPUs would make of a published recipe, by arithmetic: ``python -m benchmarks.scaling [GPUS...]``.

For every recipe that pretrains, and 8 and 64 GPUs if no other number is given: bytes of gradients (parameters counted
on a device without memory), operations of an update from the recipe's own cost, the seconds that both take at stated
rates, and the numbers of params.yaml that keep the published batch. Nothing here is measured.
"""

import math
from dataclasses import dataclass

import torch

from benchmarks.published import published
from d2v_core.pretraining import make_model
from stages import recipes, runner

PER_HOST = 8
COMPUTE = 100e12  # operations per second of a GPU in bfloat16: what the recipes' own costs are stated at
NVLINK = 200e9  # bytes per second of a ring inside a host
NETWORKS = {"100 Gb/s": 100e9 / 8, "400 Gb/s": 400e9 / 8}  # bytes per second between hosts, one card for each
SHARE_BEHIND = 2 / 3  # of the last batch's time is its backward pass, behind which sums can hide


@dataclass(frozen=True)
class Plan:
    """A recipe that pretrains: bytes of gradients, operations of an update, and what it says of batches."""

    name: str
    gradient_bytes: int
    operations: float
    batch: float
    accumulate: int
    updates: int
    row: float  # the longest, in the unit of ``batch``: no batch can be smaller
    views_weighted: bool


def plan(name: str) -> Plan:
    """Return the plan of recipe ``name``."""
    setup, config = published(name)
    with torch.device("meta"):
        model = make_model(setup, config)
    size = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    loop, views = config.loop, config.objective.views
    cost = float(recipes.read(name).fields["Cost"].split()[0])
    row = {"speech": ("crop", "max_seconds"), "text": ("table", "tokens")}.get(setup.name)
    longest = float(getattr(getattr(setup.config, row[0]), row[1])) if row else 1.0
    weighted = bool(views and views.class_weight)
    return Plan(name, size, cost / loop.updates, config.batch, loop.accumulate, loop.updates, longest, weighted)


def ring(size: int, members: int, rate: float) -> float:
    """Return the seconds in which a ring of ``members`` sums ``size`` bytes: each sends 2 (n - 1) / n of them."""
    return 2 * (members - 1) / members * size / rate


def exchange(size: int, gpus: int, network: float) -> float:
    """Return the seconds of a sum inside hosts of 8 and then between them, over one card of rate ``network`` each."""
    hosts = math.ceil(gpus / PER_HOST)
    inside = ring(size, min(gpus, PER_HOST), NVLINK)
    return inside + (ring(size, hosts, network) if hosts > 1 else 0.0)


def shares(plan: Plan, gpus: int) -> tuple[float, int]:
    """Return batch and ``accumulate`` that keep their product, with a multiple of ``gpus`` batches to an update."""
    accumulate = math.lcm(plan.accumulate, gpus)
    return plan.batch * plan.accumulate / accumulate, accumulate


def main(*gpus: int) -> None:
    """Print a table for each number of ``gpus``."""
    names = [name for name in recipes.known() if name.partition("/")[2].startswith(("speech-", "vision-", "text-"))]
    plans = [plan(name) for name in names]
    for number in gpus or (8, 64):
        print(f"\n{number} GPUs\n\n| recipe | gradients, MB | compute, ms | sum, ms |", end="")
        print(" not hidden | batch | accumulate | days |\n|---|---|---|---|---|---|---|---|")
        for one in plans:
            print(row(one, number))


def row(plan: Plan, gpus: int) -> str:
    """Return a line of the table for ``gpus`` GPUs; * asks for another weight, ! for fewer GPUs (docs/scaling.md)."""
    compute = plan.operations / gpus / COMPUTE
    batch, accumulate = shares(plan, gpus)
    hidden = SHARE_BEHIND * compute / (accumulate // gpus)
    rates = NETWORKS if gpus > PER_HOST else {"NVLink": NVLINK}
    sums = [exchange(plan.gradient_bytes, gpus, rate) for rate in rates.values()]
    left = [max(seconds - hidden, 0.0) / compute for seconds in sums]
    days = [plan.updates * compute * (1 + share) / 86400 for share in left]
    cells = [
        plan.name,
        f"{plan.gradient_bytes / 1e6:.0f}",
        f"{compute * 1e3:.0f}",
        " / ".join(f"{seconds * 1e3:.1f}" for seconds in sums),
        " / ".join(f"{share:.0%}" for share in left),
        f"{batch:g}"
        + (" *" if plan.views_weighted and batch != plan.batch else "")
        + (" !" if batch < plan.row else ""),
        str(accumulate),
        " / ".join(f"{number:.2g}" for number in days),
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    runner.call(main)
