"""The handwritten digits that scikit-learn carries, as PNG files in ImageFolder layout."""

from dataclasses import dataclass
from pathlib import Path

from d2v_core.config import require
from d2v_core.data.files import publish_folder
from stages import params
from stages.sample import fraction

FOLDER = Path("data/raw/vision")
BRIGHTEST = 16


@dataclass(frozen=True)
class VisionSample:
    """``sample.vision``: how many images of each digit are held out for test, and the seed that picks them."""

    seed: int
    test_images_per_digit: int

    def __post_init__(self) -> None:
        require(1 <= self.test_images_per_digit <= 150, "test_images_per_digit must be 1 to 150; a digit has 174.")


def write() -> None:
    """Write data/raw/vision/{train,test}/DIGIT/INDEX.png: 8 × 8 pixels, 8-bit grey, 1,797 images in all."""
    import torch
    from sklearn.datasets import load_digits
    from torchvision.io import write_png

    config = params.read(VisionSample, "sample.vision")
    digits = load_digits()
    held_out = test_indices(digits.target.tolist(), config)
    images = torch.from_numpy(digits.images).mul(255 / BRIGHTEST).round().to(torch.uint8)
    with publish_folder(FOLDER) as folder:
        for index, (image, digit) in enumerate(zip(images, digits.target, strict=True)):
            path = folder / ("test" if index in held_out else "train") / str(digit) / f"{index:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(image[None], str(path))


def test_indices(digits: list[int], config: VisionSample) -> set[int]:
    """Return the indices of the images held out for test: the same number of every digit."""
    order = sorted(range(len(digits)), key=lambda index: fraction(config.seed, "vision", index))
    by_digit = {digit: [index for index in order if digits[index] == digit] for digit in set(digits)}
    return {index for indices in by_digit.values() for index in indices[: config.test_images_per_digit]}
