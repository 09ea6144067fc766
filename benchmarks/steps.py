"""How long one training step of the base models takes, and against what.

``python -m benchmarks.steps [MODALITY...]``: for every modality, in one run and interleaved, medians of repeated steps:
ours in float32 and bfloat16, version 1 and 2, beside the same version 1 model assembled from ``transformers``' classes
with a plain loop. Prints ratios, the operations of a step, and the share of this machine's matrix product rate that it
reaches. The sizes are those for which ``shared/golden/README.md`` states what the reference implementation takes.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.assembled import Assembled
from d2v_core.config import build
from d2v_core.data.order import key
from d2v_core.pretraining import PretrainConfig, hide, make_model
from d2v_core.setup import Setup, make_setup
from d2v_core.training.loop import scale_gradients
from d2v_core.training.optimizer import make_optimizer
from stages import params, recipes

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
REPEATS = 5
REFERENCE = {"speech": (3.9, 8.4), "text": (2.1, 4.7), "vision": (2.6, 2.2)}  # s, version 1 and 2
SAMPLES = {("speech", 1): 2, ("text", 1): 4, ("vision", 1): 4}  # version 2: two samples of eight views
VIEWS = 8


@dataclass(frozen=True)
class Job:
    """A step that can be taken again and again, and the operations of its matrix products."""

    name: str
    step: Callable[[], None]
    operations: float


def base_model(name: str, version: int) -> tuple[Setup, PretrainConfig]:
    """Return the published base model of a modality, with eight views in version 2."""
    blocks = params.merge(params.load(), recipes.read(f"v{version}/{name}-base").changes)["modalities"][name]
    changes = blocks.pop("v2") or {}
    blocks = params.merge(blocks, changes) if version == 2 else blocks
    config = build(PretrainConfig, blocks["pretrain"], name)
    if version == 2:
        views = replace(config.objective.views, count=VIEWS)
        config = replace(config, objective=replace(config.objective, views=views))
    return make_setup(name, blocks, name), config


def random_rows(name: str, count: int) -> list[dict]:
    """Return 5 s of audio, 224 × 224 pixels or 128 tokens, ``count`` times."""
    rng = np.random.default_rng(0)
    if name == "speech":
        return [{"audio": rng.integers(-9000, 9000, 80_000).astype(np.int16)} for _ in range(count)]
    if name == "vision":
        return [{"image": rng.integers(0, 255, 3 * 224 * 224).astype(np.uint8)} for _ in range(count)]
    return [{"tokens": np.r_[0, rng.integers(4, 50_000, 127)].astype(np.uint16)} for _ in range(count)]


def batch(setup: Setup, version: int) -> dict[str, Tensor]:
    """Return a batch of random rows with its masks."""
    rows = random_rows(setup.name, SAMPLES.get((setup.name, version), 2))
    rngs = [key(0, row) for row in range(len(rows))]
    inputs = setup.modality.batch(rows, rngs, setup.config)
    views = VIEWS if version == 2 else 1
    inputs |= hide(setup, inputs, [key(0, row, view) for row in range(len(rows)) for view in range(views)])
    return {name: tensor.to(DEVICE) for name, tensor in inputs.items()}


def ours(name: str, version: int, precision: str) -> Job:
    """Return a step of ours: teacher, forward, backward, clip or norm, AdamW."""
    torch.manual_seed(0)
    setup, config = base_model(name, version)
    model, inputs = make_model(setup, config).train().to(DEVICE), batch(setup, version)
    optimizer = make_optimizer(model, config.optimizer)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def step() -> None:
        model.begin_update(1)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model(inputs)
        loss.total.backward()
        scale_gradients(parameters, loss.count, config.optimizer.clip)
        optimizer.step()

    return Job(f"ours, version {version}, {precision}", step, counted(step))


def assembled(name: str) -> Job:
    """Return a step of the same version 1 model made of transformers' classes."""
    torch.manual_seed(0)
    setup, config = base_model(name, 1)
    model = Assembled(setup, config, DEVICE)
    inputs = batch(setup, 1)
    step = model.stepper(inputs)
    return Job("transformers' classes, float32", step, counted(step))


def counted(step: Callable[[], None]) -> float:
    """Take a step and return the floating-point operations of its matrix products."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def matrix_rate(dtype: torch.dtype) -> float:
    """Return the operations per second of a 2048-cube matrix product, best of 5."""
    x = torch.randn(2048, 2048, device=DEVICE, dtype=dtype)
    return max(2 * 2048**3 / timed(lambda: x @ x) for _ in range(5))


def timed(step: Callable[[], None]) -> float:
    """Return the seconds that one call takes."""
    began = time.perf_counter()
    step()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main(*names: str) -> None:
    """Measure and print."""
    rates = {name: matrix_rate(getattr(torch, name)) for name in ("float32", "bfloat16")}
    shown = ", ".join(f"{name} {rate / 1e12:.2f} TFLOP/s" for name, rate in rates.items())
    print(f"{DEVICE.type}, {torch.get_num_threads()} threads; matrix products: {shown}")
    for name in names or ("speech", "vision", "text"):
        jobs = [ours(name, version, precision) for version in (1, 2) for precision in rates]
        jobs.insert(0, assembled(name))
        seconds = {job.name: [] for job in jobs}
        for _ in range(REPEATS):
            for job in jobs:
                seconds[job.name].append(timed(job.step))
        report(name, jobs, {job: statistics.median(values) for job, values in seconds.items()}, rates)


def report(name: str, jobs: list[Job], seconds: Mapping[str, float], rates: Mapping[str, float]) -> None:
    """Print a table for one modality."""
    alternative = seconds[jobs[0].name]
    print(f"\n{name}\n| step | s | TFLOP | share of the matrix rate | × transformers | × the reference's stated time |")
    print("|---|---|---|---|---|---|")
    for job in jobs:
        spent = seconds[job.name]
        rate = rates["bfloat16" if "bfloat16" in job.name else "float32"]
        stated = REFERENCE[name]["version 2" in job.name]
        first = f"| {job.name} | {spent:.2f} | {job.operations / 1e12:.3f} | {job.operations / spent / rate:.0%} "
        print(first + f"| {alternative / spent:.2f} | {stated / spent:.2f} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
