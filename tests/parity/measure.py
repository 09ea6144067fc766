"""All our numbers for one golden model: the main case, the extra ones, gradients, teacher updates, and the trace."""

import dataclasses

import torch
from torch import Tensor

from d2v_core.model.data2vec import Data2Vec, RegressionConfig, regression_loss
from tests.parity.habits import HABITS, Habit, scale_results, switched_on
from tests.parity.models import CASES, golden, make
from tests.parity.passes import Numbers, dumped_noise, inputs_of, one_pass
from tests.parity.training import fixed_tables, gradient_numbers, gradients, trace

OTHER_LOSSES = {  # (beta, scale, factor for scales that ours does not have)
    "v1_audio": {"alt_smoothl1/loss": (0.25, "one", 0.7)},
    "v1_text": {
        "alt_smoothl1/loss": (0.25, "inverse_sqrt_width", 1.0),
        "alt_mse/loss": (0.0, "inverse_sqrt_width", 1.0),
    },
    "v2_text": {"alt_smoothl1/loss": (0.5, "inverse_sqrt_width", 1.0)},
}


def measure(name: str, model: Data2Vec | None = None, habits: tuple[Habit, ...] | None = None) -> Numbers:
    """Return our value of every dumped number, by ``habits`` (the reference's); ``model`` may be one tampered with."""
    with switched_on(HABITS.get(name, ()) if habits is None else habits):
        model = with_noise(name, make(name) if model is None else model)
        inputs = inputs_of(name)
        numbers, mean = one_pass(model, CASES[name], inputs)
        numbers |= gradient_numbers(name, gradients(model, mean))
        numbers |= fixed_tables(name, model) | extracted(name, model, inputs)
        numbers |= other_losses(name, numbers) | extra_cases(name, model)
        return numbers | trace(name, model, inputs)


def with_noise(name: str, model: Data2Vec) -> Data2Vec:
    """Return ``model`` with the reference's draw in place of fresh noise."""
    if CASES[name].version == 2:
        noise = dumped_noise(name)
        model.noise = lambda like, tokens: noise
    return model


@torch.no_grad()
def extracted(name: str, model: Data2Vec, inputs: Numbers) -> Numbers:
    """Return the features of the whole input, with nothing masked, and what else depends on the input alone."""
    encoded = model.student({key: inputs[key] for key in ("inputs", "lengths") if key in inputs})
    classes = encoded.extra if CASES[name].version == 2 else encoded.extra[:, :0]
    x = torch.cat([classes, encoded.x], dim=1)
    padding = torch.zeros(x.shape[:2], dtype=torch.bool) if encoded.padding is None else encoded.padding
    numbers = {"extract/x": x, "extract/padding_mask": padding}
    if name == "v2_audio":
        numbers["inter/alibi_bias"] = unscaled_bias(model, x.shape[1])
    return numbers


def unscaled_bias(model: Data2Vec, tokens: int) -> Tensor:
    """Return ALiBi [H, T, T] before the learned scale."""
    local = model.student.local
    scale = local.alibi_scale.clone()
    local.alibi_scale.fill_(1)
    bias = local.bias(tokens, None)[0]
    local.alibi_scale.copy_(scale)
    return bias


def other_losses(name: str, numbers: Numbers) -> Numbers:
    """Return the losses of the main case under other loss functions."""
    return {
        key: factor * regression_loss(numbers["student/x"], numbers["target/y"], RegressionConfig(beta, scale))
        for key, (beta, scale, factor) in OTHER_LOSSES.get(name, {}).items()
    }


@torch.no_grad()
def extra_cases(name: str, model: Data2Vec) -> Numbers:
    """Return the numbers of the further passes in the same file."""
    if name == "v1_audio":
        return extra_case(name, model, "nopad/", {})
    if name == "v1_text":
        return extra_case(name, model, "released_pipeline/", {})
    if name == "v2_text":
        return extra_case(name, model, "alt_large_targets/", {"norm_each": ("layer",), "norm_mean": ("instance",)})
    if name != "v1_vision":
        return {}
    handles = [block.register_forward_hook(scale_results) for block in model.teacher.encoder.trunk.blocks]
    numbers = extra_case(name, model, "alt_ffn_targets/", {"result": "feedforward"})
    for handle in handles:
        handle.remove()
    return numbers


def extra_case(name: str, model: Data2Vec, part: str, targets: dict) -> Numbers:
    """Return the numbers of one pass over the inputs of ``part``, with other ``targets``."""
    config = model.config
    model.config = dataclasses.replace(config, targets=dataclasses.replace(config.targets, **targets))
    numbers, _ = one_pass(model, CASES[name], inputs_of(name, part))
    model.config = config
    return {part + key: value for key, value in numbers.items() if part + key in golden(name)}
