"""How long one training step of the base models takes, and against what.

``python -m benchmarks.steps [MODALITY...]``: for every modality, in one run and interleaved, medians of repeated steps:
ours in float32 and bfloat16, version 1 and 2, beside the same version 1 model assembled from ``transformers``' classes
with a plain loop. Prints ratios, the operations of a step, and the share of this machine's matrix product rate that it
reaches. The sizes are those for which ``shared/golden/README.md`` states what the reference implementation takes;
``benchmarks.gpu`` takes the sizes of a GPU.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.assembled import Assembled
from benchmarks.published import published
from d2v_core.data.order import key
from d2v_core.pretraining import PretrainConfig, hide, make_model
from d2v_core.setup import Setup
from d2v_core.training.loop import gradient_scale, prepare_blocks
from d2v_core.training.optimizer import make_optimizer
from stages import runner

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
REPEATS = 5
REFERENCE = {"speech": (3.9, 8.4), "text": (2.1, 4.7), "vision": (2.6, 2.2)}  # s, version 1 and 2
VIEWS = 8


@dataclass(frozen=True)
class Load:
    """A batch: how many ``samples``, and how long each is in audio samples, pixels along a side or tokens."""

    samples: int
    length: int


LOADS = {"speech": Load(2, 80_000), "vision": Load(4, 224), "text": Load(4, 128)}  # version 2: two of eight views


@dataclass(frozen=True)
class Job:
    """A step that can be taken again and again, and the operations of its matrix products."""

    name: str
    step: Callable[[], None]
    operations: float


def base_model(name: str, version: int, changes: Mapping | None = None) -> tuple[Setup, PretrainConfig]:
    """Return the published base model of a modality, with eight views in version 2, and ``changes`` laid over it."""
    setup, config = published(f"v{version}/{name}-base", changes)
    if version == 2:
        views = replace(config.objective.views, count=VIEWS)
        config = replace(config, objective=replace(config.objective, views=views))
    return setup, config


def load_of(name: str, version: int) -> Load:
    """Return the batch for which the reference's time is stated."""
    return LOADS[name] if version == 1 else replace(LOADS[name], samples=2)


def random_rows(name: str, load: Load) -> list[dict]:
    """Return rows of noise: audio, pixels or tokens."""
    rng, count = np.random.default_rng(0), range(load.samples)
    if name == "speech":
        return [{"audio": rng.integers(-9000, 9000, load.length).astype(np.int16)} for _ in count]
    if name == "vision":
        return [{"image": rng.integers(0, 255, 3 * load.length**2).astype(np.uint8)} for _ in count]
    return [{"tokens": np.r_[0, rng.integers(4, 50_000, load.length - 1)].astype(np.uint16)} for _ in count]


def batch(setup: Setup, version: int, load: Load) -> dict[str, Tensor]:
    """Return a batch of random rows with its masks."""
    rows = random_rows(setup.name, load)
    rngs = [key(0, row) for row in range(len(rows))]
    inputs = setup.modality.batch(rows, rngs, setup.config)
    views = VIEWS if version == 2 else 1
    inputs |= hide(setup, inputs, [key(0, row, view) for row in range(len(rows)) for view in range(views)])
    return {name: tensor.to(DEVICE) for name, tensor in inputs.items()}


def ours(
    name: str,
    version: int,
    precision: str,
    load: Load | None = None,
    changes: Mapping | None = None,
    compiled: bool = False,
) -> Job:
    """Return a step of ours: teacher, forward, backward, clip or norm, AdamW."""
    torch.manual_seed(0)
    setup, config = base_model(name, version, changes)
    model, inputs = make_model(setup, config).train().to(DEVICE), batch(setup, version, load or load_of(name, version))
    optimizer = make_optimizer(model, config.optimizer)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def step() -> None:
        model.begin_update(1)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model(inputs)
        loss.total.backward()
        _, optimizer.grad_scale = gradient_scale(parameters, loss.count, config.optimizer.clip)
        optimizer.step()

    operations = counted(step)
    prepare_blocks(model, replace(config.loop, compile=compiled))
    return Job(f"ours, version {version}, {precision}{', compiled' * compiled}", step, operations)


def assembled(name: str, precision: str = "float32", load: Load | None = None, changes: Mapping | None = None) -> Job:
    """Return a step of the same version 1 model made of transformers' classes."""
    torch.manual_seed(0)
    setup, config = base_model(name, 1, changes)
    plain = Assembled(setup, config, DEVICE).stepper(batch(setup, 1, load or load_of(name, 1)))

    def step() -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "bfloat16"):
            plain()

    return Job(f"transformers' classes, {precision}", step, counted(step))


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
        jobs.clear()  # two modalities at once take more memory than most machines have


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
    runner.call(main)
