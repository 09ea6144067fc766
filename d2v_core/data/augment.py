"""Random views of one image: colours, flip, turn, resized crop, distortions, and a part erased (reference 3.6, 6.3).

C channels · N side of a stored image in pixels · S side of a view
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as pixels

from d2v_core.config import require
from d2v_core.data.operations import OperationsConfig, distort

ERASED = (0.02, 1 / 3)  # least and largest share of a view's area
ERASED_ASPECT = 0.3  # least aspect ratio
ATTEMPTS = 10  # to draw a rectangle that fits


@dataclass(frozen=True)
class AugmentConfig:
    """Random resized crop (least share of the area, least aspect ratio), turn in degrees, flip, colour jitter.

    ``operations``: further random ones, null for none; ``erase``: how often a rectangle becomes noise.
    """

    area: float
    aspect: float
    turn: float
    flip: bool
    jitter: float
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]
    std: tuple[float, ...]
    operations: OperationsConfig | None = None
    erase: float = 0.0

    def __post_init__(self) -> None:
        require(0 < self.area <= 1, f"area must be in (0, 1], not {self.area}.")
        require(0 < self.aspect <= 1, f"aspect must be in (0, 1], not {self.aspect}.")
        require(0 <= self.erase <= 1, f"erase must be in [0, 1], not {self.erase}.")
        require(all(value > 0 for value in self.std), f"std must be positive, not {list(self.std)}.")


def augment(image: Tensor, rng: np.random.Generator, config: AugmentConfig, side: int) -> Tensor:
    """Return a random view [C, S, S] uint8, S being ``side``, of an image [C, N, N] uint8 (reference 3.6, 6.3)."""
    if config.jitter:
        low, high = max(0.0, 1 - config.jitter), 1 + config.jitter
        image = pixels.adjust_brightness(image, rng.uniform(low, high))
        image = pixels.adjust_contrast(image, rng.uniform(low, high))
        image = pixels.adjust_saturation(image, rng.uniform(low, high)) if len(image) == 3 else image
    if config.flip and rng.random() < 0.5:
        image = pixels.horizontal_flip(image)
    if config.turn:
        image = pixels.rotate(image, rng.uniform(-config.turn, config.turn), InterpolationMode.BILINEAR)
    image = pixels.center_crop(image, [side, side]) if config.area == 1 else crop(image, rng, config, side)
    if config.operations:
        image = distort(image, rng, config.operations, [round(255 * value) for value in config.mean])
    return image


def crop(image: Tensor, rng: np.random.Generator, config: AugmentConfig, side: int) -> Tensor:
    """Return a random rectangle of an image [C, N, N] uint8, resized to [C, S, S]; one too long is cut to fit."""
    size = image.shape[-1]
    area = rng.uniform(config.area, 1) * size * size
    aspect = np.exp(rng.uniform(np.log(config.aspect), -np.log(config.aspect)))
    height = int(np.clip(round(float(np.sqrt(area / aspect))), 1, size))
    width = int(np.clip(round(float(np.sqrt(area * aspect))), 1, size))
    top, left = int(rng.integers(size - height + 1)), int(rng.integers(size - width + 1))
    return pixels.resized_crop(image, top, left, height, width, [side, side], InterpolationMode.BICUBIC, antialias=True)


def erase(image: Tensor, rng: np.random.Generator, probability: float) -> Tensor:
    """Return a normalised image [C, S, S] float32 with a rectangle of normal noise in it, or as it is (reference 6.3).

    The rectangle is smaller than the image, with an area within ``ERASED`` of it.
    """
    if rng.random() >= probability:
        return image
    channels, size = image.shape[0], image.shape[-1]
    for _ in range(ATTEMPTS):
        area = rng.uniform(*ERASED) * size * size
        aspect = np.exp(rng.uniform(np.log(ERASED_ASPECT), -np.log(ERASED_ASPECT)))
        height, width = (max(1, round(float(np.sqrt(area * ratio)))) for ratio in (aspect, 1 / aspect))
        if height < size and width < size:
            top, left = int(rng.integers(size - height + 1)), int(rng.integers(size - width + 1))
            noise = rng.standard_normal((channels, height, width), dtype=np.float32)
            image = image.clone()
            image[:, top : top + height, left : left + width] = torch.from_numpy(noise)
            return image
    return image
