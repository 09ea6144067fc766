"""Is data2vec 2.0 faster than 1.0 here? Same table, same trunk, a probe on validation data while both train.

``python -m benchmarks.versions TASK [SEEDS [PROBES]]``, such as ``digits 3``: prints the accuracy of a linear probe on
all training labels against CPU seconds of training and against floating-point operations, and for every seed the
ratios at which version 2 reaches the final accuracy of version 1. Both versions are those of params.yaml.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from d2v_core.config import build
from d2v_core.data.order import Batch
from d2v_core.data.table import Table
from d2v_core.pretraining import PretrainConfig, Source, make_model, pretrain
from d2v_core.setup import Setup, make_setup
from stages import params, runner, tasks, training
from stages.paths import TABLES
from stages.probe import ProbeConfig, all_features, linear_probe

VERSIONS = (1, 2)


@dataclass(frozen=True)
class Point:
    """A probe during a run."""

    update: int
    seconds: float
    operations: float
    accuracy: float


def read_version(name: str, version: int) -> tuple[Setup, PretrainConfig]:
    """Return modality ``name`` of params.yaml as ``version`` has it."""
    block = params.modality(name, version)
    return make_setup(name, block, name), build(PretrainConfig, block["pretrain"], name)


def step_operations(setup: Setup, config: PretrainConfig, table: Table) -> float:
    """Return the floating-point operations of one training step, forward and backward, counted on its first batch."""
    source = Source(setup, config, table, 0)
    model, counter = make_model(setup, config), FlopCounterMode(display=False)
    rows = np.arange(max(1, int(config.batch / source.lengths.mean())))
    with counter:
        model(source.batch(Batch(0, 0, rows))).total.backward()
    return counter.get_total_flops()


def probed_run(task: tasks.Task, version: int, seed: int, probes: int) -> Iterator[Point]:
    """Pretrain one version and yield a probe before training and after each of ``probes`` equal parts of it."""
    setup, config = read_version(task.setup.name, version)
    table = Table(TABLES / setup.name, "train", setup.modality.columns)
    task = replace(task, setup=setup)
    operations = step_operations(setup, config, table)
    due = {round(config.loop.updates * part / probes) for part in range(1, probes + 1)}
    seconds, began = 0.0, time.process_time()
    with tempfile.TemporaryDirectory() as state:
        model, steps = pretrain(setup, config, table, seed, Path(state), torch.device("cpu"))
        for step in steps:
            if step.update in due:
                seconds += time.process_time() - began
                yield Point(step.update, seconds, step.update * operations, probe(task, model.student))
                model.train()
                began = time.process_time()


def probe(task: tasks.Task, encoder: torch.nn.Module) -> float:
    """Return the accuracy on valid of logistic regression on the frozen features of all training rows, in percent."""
    features = all_features(task, encoder, every_layer=False)
    rows = np.arange(len(features["train"][1]))
    return linear_probe(features, rows, ProbeConfig(seeds=(0,), penalties=(0.1,)))["valid"]


def reached(points: list[Point], accuracy: float) -> Point | None:
    """Return the first point at or above ``accuracy``."""
    return next((point for point in points if point.accuracy >= accuracy), None)


def main(name: str, seeds: int = 3, probes: int = 6) -> None:
    """Train both versions with every seed, and print."""
    training.pick_device()
    task = tasks.read_task(name)
    curves = {(version, seed): [] for seed in range(seeds) for version in VERSIONS}
    for (version, seed), points in curves.items():
        for point in probed_run(task, version, seed, probes):
            points.append(point)
            print(
                f"version {version} seed {seed}: {point.update:5d} updates {point.seconds:6.1f} CPU-s "
                f"{point.operations / 1e12:7.3f} TFLOP  {point.accuracy:5.1f} %",
                flush=True,
            )
    summarise(curves, seeds)


def summarise(curves: dict[tuple[int, int], list[Point]], seeds: int) -> None:
    """Print the means over seeds at every probe, and for every seed the ratios at version 1's final accuracy."""
    print("\n| version | updates | CPU-s | TFLOP | probe, mean ± sd |\n|---|---|---|---|---|")
    for version in VERSIONS:
        for points in zip(*(curves[version, seed] for seed in range(seeds)), strict=True):
            scores = [point.accuracy for point in points]
            deviation = np.std(scores, ddof=1) if seeds > 1 else float("nan")
            seconds, operations = np.mean([(point.seconds, point.operations / 1e12) for point in points], axis=0)
            accuracy = f"{np.mean(scores):.1f} ± {deviation:.1f}"
            print(f"| {version} | {points[0].update} | {seconds:.1f} | {operations:.3f} | {accuracy} |")
    for seed in range(seeds):
        last = curves[1, seed][-1]
        point = reached(curves[2, seed], last.accuracy)
        said = (
            "was not reached by version 2"
            if point is None
            else (
                f"is reached by version 2 in {last.seconds / point.seconds:.2f} × less time and "
                f"{last.operations / point.operations:.2f} × fewer operations"
            )
        )
        print(f"seed {seed}: version 1's final {last.accuracy:.1f} % {said}")


if __name__ == "__main__":
    runner.call(main)
