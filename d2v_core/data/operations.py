"""RandAugment: a few operations on an image, drawn at random, each about as strong as configured (reference 6.3).

Every draw comes from the generator that is passed in, so that a picture depends on its key alone.
C channels · S side of the image in pixels
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as pixels

from d2v_core.config import require

STRONGEST = 10  # the magnitude at which an operation changes most
CHANCE = 0.5  # of every operation drawn to be done
COLOURS = ("autocontrast", "equalize", "invert", "posterize", "solarize", "solarize_add")
FACTORS = ("saturation", "contrast", "brightness", "sharpness")
MOVES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
OPERATIONS = COLOURS + FACTORS + MOVES


@dataclass(frozen=True)
class OperationsConfig:
    """``count`` operations, each with a normal magnitude of mean ``magnitude`` and deviation ``spread``, in [0, 10].

    The published string rand-m9-mstd0.5-inc1 is 2, 9 and 0.5.
    """

    count: int
    magnitude: float
    spread: float

    def __post_init__(self) -> None:
        require(self.count > 0, f"count must be positive, not {self.count}.")
        require(0 <= self.magnitude <= STRONGEST, f"magnitude must be in [0, {STRONGEST}], not {self.magnitude}.")
        require(self.spread >= 0, f"spread must not be negative, but is {self.spread}.")


def distort(image: Tensor, rng: np.random.Generator, config: OperationsConfig, fill: list[float]) -> Tensor:
    """Return an image [C, S, S] uint8 after random operations; ``fill`` [C], in [0, 255], stands where nothing is."""
    for number in rng.integers(len(OPERATIONS), size=config.count):
        if rng.random() < CHANCE:
            strength = float(np.clip(rng.normal(config.magnitude, config.spread), 0, STRONGEST)) / STRONGEST
            signed = strength if rng.random() < 0.5 else -strength
            image = operate(OPERATIONS[number], image, signed, fill)
    return image


def operate(name: str, image: Tensor, signed: float, fill: list[float]) -> Tensor:
    """Return an image [C, S, S] uint8 after the operation ``name``; ``signed`` is its strength in [-1, 1].

    Operations without a direction take the strength without its sign, and three take none at all.
    """
    if name in COLOURS:
        return recolour(name, image, abs(signed))
    if name in FACTORS:
        return getattr(pixels, f"adjust_{name}")(image, max(0.1, 1 + 0.9 * signed))
    return shift(name, image, signed, fill)


def recolour(name: str, image: Tensor, strength: float) -> Tensor:
    """Return an image [C, S, S] uint8 with every pixel mapped to another value; ``strength`` is in [0, 1]."""
    if name in ("autocontrast", "equalize", "invert"):
        return getattr(pixels, name)(image)
    if name == "posterize":
        return pixels.posterize(image, 4 - int(4 * strength))
    if name == "solarize":
        return torch.where(image.int() >= 256 - int(256 * strength), 255 - image, image)
    return torch.where(image < 128, image + int(110 * strength), image)


def shift(name: str, image: Tensor, signed: float, fill: list[float]) -> Tensor:
    """Return an image [C, S, S] uint8 turned by up to 30°, sheared by up to 0.3 or moved by up to 0.45 of its side.

    The published operations interpolate bicubically, these bilinearly.
    """
    angle, slope, path = 30 * signed, math.degrees(math.atan(0.3 * signed)), 0.45 * signed * image.shape[-1]
    shear = [slope * (name == "shear_x"), slope * (name == "shear_y")]
    return pixels.affine(
        image,
        angle=angle * (name == "rotate"),
        translate=[path * (name == "translate_x"), path * (name == "translate_y")],
        scale=1.0,
        shear=shear,
        interpolation=InterpolationMode.BILINEAR,
        fill=fill,
        center=[0.0, 0.0] if any(shear) else None,
    )
