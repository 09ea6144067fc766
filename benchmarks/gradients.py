"""How long the sum of gradients takes beside the backward pass, in four ways, and whether they give the same bits.

``torchrun --nproc-per-node=2 -m benchmarks.gradients [BLOCKS]``: the base model of images with some of its blocks, one
batch on each rank, forward and backward: without any sum, with one sum of everything after the backward
pass, with buckets that are sent while it goes on (what training does), and by DistributedDataParallel. Interleaved,
medians.
"""

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.published import published
from d2v_core.data.order import key
from d2v_core.errors import UserError
from d2v_core.pretraining import hide, make_model
from d2v_core.training.gradients import Gradients
from d2v_core.training.ranks import Ranks, join
from stages import runner

Way = tuple[Callable[[], None], list[nn.Parameter]]
REPEATS = 6  # the first is not counted
IMAGES = 2
LAYER_DROP = 0.2  # so that ranks differ in which parameters have a gradient


def main(blocks: int = 2) -> None:
    """Measure and print; raises UserError when there is no other process."""
    ranks = join()
    if ranks.size == 1:
        raise UserError("there is nothing to sum; run torchrun --nproc-per-node=2 -m benchmarks.gradients.")
    setup, config = published("v1/vision-base")
    setup = replace(setup, trunk=replace(setup.trunk, layer_drop=LAYER_DROP, depth=blocks))
    targets = replace(config.objective.targets, layers=blocks)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objective = replace(config.objective, targets=targets)
    model = make_model(setup, replace(config, objective=objective)).train().to(device)
    pixels = np.random.default_rng(0).integers(0, 255, (IMAGES, 3 * 224 * 224), np.uint8)
    rngs = [key(0, number) for number in range(IMAGES)]
    inputs = setup.modality.batch([{"image": image} for image in pixels], rngs, setup.config)
    inputs = {name: tensor.to(device) for name, tensor in (inputs | hide(setup, inputs, rngs)).items()}
    ways = {way: make(copy.deepcopy(model), inputs, ranks) for way, make in WAYS.items()}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    found: dict[str, list[Tensor | None]] = {}
    for repeat in range(REPEATS):
        for way, (step, parameters) in ways.items():
            for parameter in parameters:
                parameter.grad = None
            torch.manual_seed(1000 * repeat + ranks.rank)
            dist.barrier()
            seconds[way].append(timed(step))
            found[way] = [parameter.grad for parameter in parameters]
    if ranks.first:
        report(f"{blocks} blocks, {IMAGES} images, {device.type}, {dist.get_backend()}", seconds, found, ranks)


def timed(step: Callable[[], None]) -> float:
    """Return the seconds that one call takes."""
    began = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def learning(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that learn."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def no_sum(model: nn.Module, inputs: dict, ranks: Ranks) -> Way:
    """Return a step of one rank alone."""

    def step() -> None:
        model(inputs).total.backward()

    return step, learning(model)


def one_sum(model: nn.Module, inputs: dict, ranks: Ranks) -> Way:
    """Return a step after which everything is summed as one bucket."""
    parameters = learning(model)
    gradients = Gradients(parameters, ranks, bucket_bytes=2**40)

    def step() -> None:
        model(inputs).total.backward()
        gradients.add()

    return step, parameters


def buckets(model: nn.Module, inputs: dict, ranks: Ranks) -> Way:
    """Return a step as the training loop takes it."""
    parameters = learning(model)
    gradients = Gradients(parameters, ranks)

    def step() -> None:
        with gradients.sending():
            model(inputs).total.backward()
        gradients.add()

    return step, parameters


def wrapped(model: nn.Module, inputs: dict, ranks: Ranks) -> Way:
    """Return a step by DistributedDataParallel, which must look for parameters that a rank did not use."""
    parallel = DistributedDataParallel(model, find_unused_parameters=True)

    def step() -> None:
        parallel(inputs).total.backward()

    return step, learning(model)


WAYS = {"no sum": no_sum, "one sum after": one_sum, "buckets while": buckets, "DistributedDataParallel": wrapped}


def report(title: str, seconds: dict, found: dict, ranks: Ranks) -> None:
    """Print the medians, and how far each way's gradients are from those of one sum in the last step."""
    size = sum(gradient.nbytes for gradient in found["one sum after"] if gradient is not None)
    print(f"{title}: {size / 1e6:.0f} MB of gradients on each of {ranks.size} ranks")
    print("| way | s | beside no sum | largest difference to one sum |\n|---|---|---|---|")
    medians = {way: statistics.median(values[1:]) for way, values in seconds.items()}
    for way, median in medians.items():
        scale = ranks.size if way == "DistributedDataParallel" else 1
        pairs = zip(found[way], found["one sum after"], strict=True)
        same = "" if way == "no sum" else f"{max(difference(one, other, scale) for one, other in pairs):.2g}"
        print(f"| {way} | {median:.2f} | {median / medians['no sum']:.2f} | {same} |")


def difference(one: Tensor | None, other: Tensor | None, scale: int) -> float:
    """Return the largest difference of two gradients, infinite where only one is there."""
    if one is None or other is None:
        return 0.0 if one is other else float("inf")
    return float((one * scale - other).abs().max())


if __name__ == "__main__":
    runner.call(main)
