"""Learning rates are functions of the update; decay and rate are per parameter."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from d2v_core.training.optimizer import OptimizerConfig, make_optimizer, rate_at, set_rate

CONFIG = OptimizerConfig(1e-3, "cosine", (0.1,), 0.0, 0.9, 0.98, 1e-6, 0.01, False, 0.0)


def test_cosine_warms_up_to_the_peak_and_falls_to_the_end():
    rates = [rate_at(update, 100, CONFIG) for update in range(101)]
    assert rates[0] == 0
    assert rates[10] == max(rates) == 1e-3
    assert rates[55] == pytest.approx(5e-4)
    assert rates[100] == pytest.approx(0)


def test_linear_falls_straight_to_the_final_share():
    config = replace(CONFIG, schedule="linear", final=0.1)
    assert rate_at(55, 100, config) == pytest.approx(5.5e-4)
    assert rate_at(100, 100, config) == pytest.approx(1e-4)


def test_tri_stage_rises_holds_and_decays_exponentially():
    config = replace(CONFIG, schedule="tri_stage", phases=(0.1, 0.4, 0.5), final=0.05)
    rates = [rate_at(update, 1000, config) / 1e-3 for update in range(1001)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[100] == rates[499] == 1.0
    assert rates[750] == pytest.approx(0.05**0.5)
    assert rates[1000] == pytest.approx(0.05)


def test_biases_norms_and_scaled_parameters_have_their_own_groups():
    model = nn.ModuleDict({"linear": nn.Linear(3, 3), "norm": nn.LayerNorm(3)})
    model.relative_bias = nn.Parameter(torch.zeros(4, 2))
    optimizer = make_optimizer(model, replace(CONFIG, rate_scales={"relative_bias": 30.0}, undecayed=("bias",)))
    groups = {(group["weight_decay"], group["rate_scale"]): len(group["params"]) for group in optimizer.param_groups}
    assert groups == {(0.01, 1.0): 1, (0.0, 1.0): 3, (0.0, 30.0): 1}
    set_rate(optimizer, 2.0)
    assert {group["lr"] for group in optimizer.param_groups} == {2.0, 60.0}
    everything = make_optimizer(model, replace(CONFIG, decay_all=True))
    assert {group["weight_decay"] for group in everything.param_groups} == {0.01}


def test_layers_nearer_to_the_input_learn_slower():
    model = nn.Module()
    model.trunk = nn.Module()
    model.trunk.blocks = nn.ModuleList(nn.Linear(3, 3, bias=False) for _ in range(12))
    model.head = nn.Linear(3, 3, bias=False)
    optimizer = make_optimizer(model, replace(CONFIG, layer_decay=0.5))
    scales = {id(p): group["rate_scale"] for group in optimizer.param_groups for p in group["params"]}
    assert [scales[id(block.weight)] for block in model.trunk.blocks] == [0.5 ** (12 - n) for n in range(12)]
    assert scales[id(model.head.weight)] == 1.0


WRONG = [
    {"rate": 0.0},
    {"phases": (0.1, 0.2)},
    {"phases": (1.5,)},
    {"final": 2.0},
    {"final": 0.0, "schedule": "tri_stage", "phases": (0.1, 0.4, 0.5)},
    {"clip": -1.0},
    {"layer_decay": 0.0},
]


@pytest.mark.parametrize("change", WRONG)
def test_numbers_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(CONFIG, **change)
