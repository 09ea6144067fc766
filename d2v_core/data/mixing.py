"""Batches blended with themselves, and their labels with them: images by MixUp and CutMix, waves by their sum.

B samples · C classes · S side of the image in pixels · N audio samples (reference 6.2, 6.3)
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from d2v_core.config import require
from d2v_core.errors import UserError

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class MixConfig:
    """How often batches are blended (``probability``), and how.

    ``mixup`` and ``cutmix`` are the parameters of the symmetric beta distributions of the first image's share, 0 where
    that way is not taken; ``switch`` is the share of CutMix where both are.
    """

    mixup: float
    cutmix: float
    probability: float
    switch: float

    def __post_init__(self) -> None:
        require(self.mixup >= 0, f"mixup must not be negative, but is {self.mixup}.")
        require(self.cutmix >= 0, f"cutmix must not be negative, but is {self.cutmix}.")
        require(self.mixup + self.cutmix > 0, "mixup and cutmix are both 0; set mix to null.")
        require(0 <= self.probability <= 1, f"probability must be in [0, 1], not {self.probability}.")
        require(0 <= self.switch <= 1, f"switch must be in [0, 1], not {self.switch}.")


@dataclass(frozen=True)
class WaveMixConfig:
    """How often batches of waves are blended (``probability``), and the ``least`` share of the first wave."""

    least: float
    probability: float

    def __post_init__(self) -> None:
        require(0 < self.least <= 1, f"least must be in (0, 1], not {self.least}.")
        require(0 <= self.probability <= 1, f"probability must be in [0, 1], not {self.probability}.")


def soft(labels: Tensor, classes: int) -> Tensor:
    """Return targets [B, C] float32 of classes [B] int64, or of several labels [B, C], which they are already."""
    return labels if labels.ndim == 2 else F.one_hot(labels, classes).float()


def mix_waves(batch: Tensors, classes: int, rng: np.random.Generator, config: WaveMixConfig) -> Tensors:
    """Return what blending changes of a batch: ``inputs`` [B, N], ``lengths`` [B] if there, ``labels`` [B, C] float32.

    Every wave gets another one added, by one share r for the whole batch, at unchanged power: r·x + (1 - r)·y, divided
    by the root of r² + (1 - r)² (reference 6.2). Raises UserError for what is no wave.
    """
    waves, targets = batch["inputs"], soft(batch["labels"], classes)
    if waves.ndim != 2 or not waves.is_floating_point():
        raise UserError("train.mix_waves blends waves, which this modality does not have; set it to null.")
    if rng.random() >= config.probability:
        return {"labels": targets}
    share, others = rng.uniform(config.least, 1), torch.from_numpy(rng.permutation(len(waves)))
    mixed = (share * waves + (1 - share) * waves[others]) / np.sqrt(share**2 + (1 - share) ** 2)
    blended = {"inputs": mixed, "labels": share * targets + (1 - share) * targets[others]}
    if "lengths" in batch:
        blended["lengths"] = torch.maximum(batch["lengths"], batch["lengths"][others])
    return blended


def mix(batch: Tensors, classes: int, rng: np.random.Generator, config: MixConfig) -> Tensors:
    """Return what blending changes of a batch: ``inputs`` [B, channels, S, S] and ``labels`` [B, C], both float32.

    All of a batch is blended in one way and by one share. Raises UserError for what is no image.
    """
    images, targets, share = batch["inputs"], soft(batch["labels"], classes), 1.0
    if images.ndim != 4:
        raise UserError("train.mix blends images, which this modality does not have; set it to null.")
    if rng.random() < config.probability:
        cutting = rng.random() < config.switch if config.mixup and config.cutmix else bool(config.cutmix)
        parameter = config.cutmix if cutting else config.mixup
        share = float(rng.beta(parameter, parameter))
        if cutting:
            images, share = cut(images, share, rng)
        else:
            images = share * images + (1 - share) * images.flip(0)
    return {"inputs": images, "labels": share * targets + (1 - share) * targets.flip(0)}


def cut(images: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Return a batch [B, channels, S, S] with one rectangle of its reverse in it, and the share that is left.

    The rectangle has the shape of the image and an area of 1 - ``share``, less what of it is outside.
    """
    size = images.shape[-1]
    length = int(size * np.sqrt(1 - share))
    top, left = (int(rng.integers(size)) - length // 2 for _ in range(2))
    rows, columns = (slice(max(0, start), max(0, min(size, start + length))) for start in (top, left))
    mixed = images.clone()
    mixed[..., rows, columns] = images.flip(0)[..., rows, columns]
    return mixed, 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / size**2
