"""AdamW with named exceptions, and learning rates as pure functions of the update number (reference 1.8)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from d2v_core.config import require


@dataclass(frozen=True)
class OptimizerConfig:
    """The block ``optimizer`` of a run.

    ``phases`` are shares of the run: (warm-up,) for cosine and linear, (warm-up, hold, decay) for tri-stage.
    ``rate_scales`` multiplies the rate of parameters whose name contains the key; ``layer_decay`` does so with block
    i of L by its power L - i. Weights decay unless they have one dimension or a name that contains one of
    ``undecayed``; with ``decay_all`` (fairseq's habit) those do too.
    """

    rate: float
    schedule: Literal["cosine", "linear", "tri_stage"]
    phases: tuple[float, ...]
    final: float  # last rate, as a share of ``rate``
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    decay_all: bool
    clip: float  # largest global gradient norm; 0 is off
    rate_scales: dict[str, float] = field(default_factory=dict)
    undecayed: tuple[str, ...] = ()
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        require(self.rate > 0, f"rate must be positive, not {self.rate}.")
        wanted = 3 if self.schedule == "tri_stage" else 1
        require(len(self.phases) == wanted, f"phases must hold {wanted} share(s) for the schedule {self.schedule}.")
        require(all(0 <= share <= 1 for share in self.phases), f"phases must be shares in [0, 1], not {self.phases}.")
        require(0 <= self.final <= 1, f"final must be in [0, 1], not {self.final}.")
        require(self.final > 0 or self.schedule != "tri_stage", "final must be above 0 for tri_stage.")
        require(self.clip >= 0, f"clip must not be negative, but is {self.clip}.")
        require(0 < self.layer_decay <= 1, f"layer_decay must be in (0, 1], not {self.layer_decay}.")


def rate_at(update: int, updates: int, config: OptimizerConfig) -> float:
    """Return the learning rate of update ``update`` (from 0) of ``updates``."""
    warmup = int(updates * config.phases[0])
    if config.schedule == "tri_stage":
        return config.rate * tri_stage(update, updates, config.phases, config.final)
    if update < warmup:
        return config.rate * update / warmup
    share = (update - warmup) / max(updates - warmup, 1)
    falling = 0.5 * (1 + math.cos(math.pi * share)) if config.schedule == "cosine" else 1 - share
    return config.rate * (config.final + (1 - config.final) * falling)


def tri_stage(update: int, updates: int, phases: tuple[float, ...], final: float) -> float:
    """Return the share of the peak rate: linear from 1 % up, hold, exponential down to ``final``, constant after."""
    warmup, hold, decay = (int(updates * share) for share in phases)
    if update < warmup:
        return 0.01 + 0.99 * update / warmup
    if update < warmup + hold:
        return 1.0
    if update < warmup + hold + decay:
        return math.exp(math.log(final) * (update - warmup - hold) / decay)
    return final


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters of ``model``, grouped by weight decay and rate scale."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    depth = 1 + max((block_of(name) for name, _ in model.named_parameters()), default=0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = parameter.ndim == 1 or any(part in name for part in config.undecayed)
            decay = 0.0 if plain and not config.decay_all else config.weight_decay
            scale = scale_of(name, config.rate_scales)
            if block_of(name) >= 0:
                scale *= config.layer_decay ** (depth - block_of(name))
            groups.setdefault((decay, scale), []).append(parameter)
    parameters = [
        {"params": members, "weight_decay": decay, "rate_scale": scale} for (decay, scale), members in groups.items()
    ]
    betas = (config.beta1, config.beta2)
    device_type = next(model.parameters()).device.type
    fused = device_type in ("cpu", "cuda")
    return torch.optim.AdamW(parameters, lr=config.rate, betas=betas, eps=config.epsilon, fused=fused)


def block_of(name: str) -> int:
    """Return the number of the trunk's block that the parameter ``name`` belongs to, or -1."""
    _, found, rest = name.partition("trunk.blocks.")
    return int(rest.partition(".")[0]) if found else -1


def scale_of(name: str, scales: Mapping[str, float]) -> float:
    """Return the factor on the learning rate of the parameter ``name``."""
    return math.prod(scale for part, scale in scales.items() if part in name)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of ``rate``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_scale"]
