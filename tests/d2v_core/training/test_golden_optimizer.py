"""Adam, learning rates and teacher decays against those of the public reference implementation.

Bar of Adam. With m and v bias-corrected and r(t) = √(1 - β₂ᵗ), the reference moves by rate·m/(√v + ε/r) and AdamW of
torch by rate·m/(√v + ε): the same once r is near 1 (0.98 after 150 updates of β₂ 0.98), and wherever √v is far above
ε/r. Half of the golden gradients are small (a norm of 0.002 over 46 numbers, some of them 1e-5) to make ε visible. The
two may therefore differ by rate·|m|·(1/(√v + ε) - 1/(√v + ε/r)), summed over the updates. In the first update, where
|m| = √v, that is at most rate·(1 - √r)/(1 + √r): 0.45 of the rate here, and 0.36 of it for the golden gradients.
Float32 adds ROUNDING per update, about two units in the last place of the weights.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from d2v_core.model.teacher import decay_at
from d2v_core.training.loop import gradient_scale
from d2v_core.training.optimizer import OptimizerConfig, make_optimizer, rate_at, set_rate

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "optim"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden numbers are not beside this checkout")
STEPS = range(1, 9)
RATE, BETA1, BETA2, EPSILON, DECAY, CLIP = 0.01, 0.9, 0.98, 1e-6, {"a": 0.01, "b": 0.0}, 1.0
ROUNDING = 5e-7


class Literal:
    """The reference's rule, word by word in float64, and how far torch's may move away from it."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self.weights = {name: weight.double() for name, weight in weights.items()}
        self.mean, self.square, self.bar = (dict.fromkeys(weights, 0.0) for _ in range(3))
        self.updates = 0

    def step(self, gradients: dict[str, torch.Tensor]) -> float:
        """Make one update with the raw ``gradients``, and return their norm."""
        self.updates += 1
        norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients.values()))
        correction1, correction2 = 1 - BETA1**self.updates, math.sqrt(1 - BETA2**self.updates)
        for name, gradient in gradients.items():
            clipped = gradient.double() * min(1.0, CLIP / (norm + 1e-6))
            self.mean[name] = BETA1 * self.mean[name] + (1 - BETA1) * clipped
            self.square[name] = BETA2 * self.square[name] + (1 - BETA2) * clipped**2
            root = self.square[name].sqrt()
            kept = self.weights[name] * (1 - RATE * DECAY[name])
            self.weights[name] = kept - RATE * correction2 / correction1 * self.mean[name] / (root + EPSILON)
            gap = 1 / (root / correction2 + EPSILON) - 1 / (root / correction2 + EPSILON / correction2)
            self.bar[name] = self.bar[name] + RATE * gap * self.mean[name].abs() / correction1
        return norm


@pytest.fixture(scope="module")
def dumped():
    return load_file(GOLDEN / "optim_adam.safetensors")


def initial(dumped: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: dumped[f"param_init/{name}"].clone() for name in "ab"}


def gradients(dumped: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
    return {name: dumped[f"step{step}/grad_raw/{name}"].clone() for name in "ab"}


def test_the_references_rule_gives_the_references_trajectory(dumped):
    literal = Literal(initial(dumped))
    for step in STEPS:
        assert literal.step(gradients(dumped, step)) == pytest.approx(dumped[f"step{step}/grad_norm"].item(), rel=1e-6)
        for name, weight in literal.weights.items():
            torch.testing.assert_close(weight.float(), dumped[f"step{step}/param/{name}"], atol=1e-6, rtol=0)


def test_our_optimizer_stays_within_what_the_place_of_epsilon_implies(dumped):
    literal, model = Literal(initial(dumped)), nn.ParameterDict(initial(dumped))
    config = OptimizerConfig(RATE, "cosine", (0.0,), 1.0, BETA1, BETA2, EPSILON, DECAY["a"], False, CLIP)
    optimizer = make_optimizer(model, config)
    for step in STEPS:
        literal.step(gradients(dumped, step))
        for name, gradient in gradients(dumped, step).items():
            model[name].grad = gradient
        norm, optimizer.grad_scale = gradient_scale(list(model.parameters()), torch.tensor(1.0), CLIP)
        assert float(norm) == pytest.approx(dumped[f"step{step}/grad_norm"].item(), rel=1e-6)
        set_rate(optimizer, RATE)
        optimizer.step()
        for name, weight in model.items():
            difference = (weight.detach() - dumped[f"step{step}/param/{name}"]).abs()
            assert (difference <= literal.bar[name] + ROUNDING * step).all()
        if step == 1:
            root = math.sqrt(math.sqrt(1 - BETA2))
            largest = RATE * (1 - root) / (1 + root)
            assert max(float(bar.max()) for bar in literal.bar.values()) <= largest == pytest.approx(4.53e-3, rel=1e-2)


def test_with_epsilon_scaled_like_the_references_ours_is_the_references_trajectory(dumped):
    """Nothing but the place of ε differs: clipping, decay and moments are the same."""
    model = nn.ParameterDict(initial(dumped))
    config = OptimizerConfig(RATE, "cosine", (0.0,), 1.0, BETA1, BETA2, EPSILON, DECAY["a"], False, CLIP)
    optimizer = make_optimizer(model, config)
    for step in STEPS:
        for name, gradient in gradients(dumped, step).items():
            model[name].grad = gradient
        _, optimizer.grad_scale = gradient_scale(list(model.parameters()), torch.tensor(1.0), CLIP)
        for group in optimizer.param_groups:
            group["eps"] = EPSILON / math.sqrt(1 - BETA2**step)
        optimizer.step()
        for name, weight in model.items():
            difference = (weight.detach() - dumped[f"step{step}/param/{name}"]).abs().max()
            assert difference <= ROUNDING * step


def schedules(part: str) -> dict:
    return json.loads((GOLDEN / "schedules.json").read_text())[part] if GOLDEN.is_dir() else {}


def config_of(reference: dict) -> OptimizerConfig:
    """Return our configuration of a reference's schedule; the rest of it does not matter here."""
    rate, updates = reference["lr"][0], reference["max_update"]
    tri_stage = "phase_ratio" in reference
    phases = tuple(reference["phase_ratio"]) if tri_stage else (reference["warmup_updates"] / updates,)
    final = reference["final_lr_scale"] if tri_stage else reference["min_lr"] / rate
    kind = "tri_stage" if tri_stage else "cosine"
    return OptimizerConfig(rate, kind, phases, final, BETA1, BETA2, EPSILON, 0.0, False, 0.0)


@pytest.mark.parametrize("name", schedules("lr"))
def test_learning_rates_are_the_references_at_every_update_that_is_made(name):
    """A run of N updates steps with the rates of 0 … N - 1; what the reference lists at N is the start of a second
    cosine period at a tenth of the rate (or, tri-stage, the final rate), with which no step is ever taken.
    """
    reference = schedules("lr")[name]
    updates, config = reference["config"]["max_update"], config_of(reference["config"])
    made = {int(update): rate for update, rate in reference["lr_at_num_updates"].items() if int(update) < updates}
    assert len(made) >= 10
    for update, rate in made.items():
        assert rate_at(update, updates, config) == pytest.approx(rate, rel=1e-9, abs=1e-18)
    after = reference["lr_at_num_updates"][str(updates)]
    expected = config.rate * (config.final if config.schedule == "tri_stage" else reference["config"]["lr_shrink"])
    assert after == pytest.approx(expected)


@pytest.mark.parametrize("name", schedules("ema"))
def test_teacher_decays_are_the_references(name):
    reference = schedules("ema")[name]
    start, end, ramp = (reference[part] for part in ("ema_decay", "ema_end_decay", "ema_anneal_end_step"))
    for update, decay in reference["decay_at_num_updates"].items():
        assert decay_at(int(update), start, end, ramp) == pytest.approx(decay, rel=1e-12)
    assert decay_at(0, start, end, ramp) == start
    assert decay_at(ramp, start, end, ramp) == end
