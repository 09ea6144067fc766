"""Images: square patches, rectangles of them masked, positions as biases of the attention
or as a fixed table (reference, chapters 3 and 5).

B samples · S side of the image in pixels · T patches · D width · H heads
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as pixels

from d2v_core.config import require
from d2v_core.data import masks
from d2v_core.data.augment import AugmentConfig, augment, erase
from d2v_core.data.table import Row, Table, schema
from d2v_core.errors import Dropped
from d2v_core.model.convolutions import project_patches
from d2v_core.model.decoder import Decoder, DecoderConfig
from d2v_core.model.encoder import hide
from d2v_core.model.transformer import Bias, TransformerConfig, draw, initialise

columns = schema(image=pa.uint8())
unit = "images"


@dataclass(frozen=True)
class TableConfig:
    """Square images of ``size`` pixels, as the model reads them, with 1 (gray) or 3 (RGB) ``channels``.

    ``margin``: how many more pixels the table holds along both sides, from which views are cut. No model depends on it.
    """

    size: int
    channels: int
    margin: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        require(self.size > 0, f"size must be positive, not {self.size}.")
        require(self.channels in (1, 3), f"channels must be 1 or 3, not {self.channels}.")
        require(self.margin >= 0, f"margin must not be negative, but is {self.margin}.")

    @property
    def stored(self) -> int:
        """The side of an image in the table, in pixels."""
        return self.size + self.margin


@dataclass(frozen=True)
class RectangleMask:
    """At most ``share`` of the patches, in rectangles of at least ``smallest`` patches (reference 3.4)."""

    kind: Literal["rectangles"]
    share: float
    smallest: int

    def __post_init__(self) -> None:
        require(0 < self.share < 1, f"share must be in (0, 1), not {self.share}.")


@dataclass(frozen=True)
class InverseBlockMask:
    """``share`` of the patches, exactly: all but squares of side ``length``, with ``adjust`` more to draw (5.5.2)."""

    kind: Literal["inverse_blocks"]
    share: float
    adjust: float
    length: int

    def __post_init__(self) -> None:
        require(0 < self.share < 1, f"share must be in (0, 1), not {self.share}.")
        require(self.length > 0, f"length must be positive, not {self.length}.")


@dataclass(frozen=True)
class LocalConfig:
    """``patch`` side in pixels; ``positions`` scales a fixed sin-cos table added to the patches (0 in version 1).

    ``bias`` of the attention by relative position: one table for all blocks (shared), one for each, or none.
    ``class_std``: initial spread of the class token (null: as the trunk's weights).
    """

    patch: int
    positions: float
    bias: Literal["shared", "block", "none"]
    mask_token: bool
    class_std: float | None


@dataclass(frozen=True)
class Config:
    """The block ``model`` of vision, with its ``table``."""

    table: TableConfig
    augment: AugmentConfig
    mask: RectangleMask | InverseBlockMask
    local: LocalConfig

    def __post_init__(self) -> None:
        size, patch = self.table.size, self.local.patch
        require(size % patch == 0, f"local.patch ({patch}) must divide the table's size ({size}).")
        for name in ("mean", "std"):
            values = len(getattr(self.augment, name))
            require(values == self.table.channels, f"augment.{name} must hold one number per channel, not {values}.")

    @property
    def side(self) -> int:
        """Patches along one side."""
        return self.table.size // self.local.patch


def rows(decoded: Tensor, table: TableConfig) -> list[Row]:
    """Return one row from an image [1 or 3, height, width] uint8: shorter side resized, centre cropped."""
    channels, height, width = decoded.shape
    if min(height, width) < 1:
        raise Dropped("empty", "no pixels")
    if channels != table.channels:
        decoded = pixels.rgb_to_grayscale(decoded) if table.channels == 1 else decoded.expand(3, -1, -1)
    if min(height, width) != table.stored:
        decoded = pixels.resize(decoded, [table.stored], InterpolationMode.BICUBIC, max_size=None, antialias=True)
    image = pixels.center_crop(decoded, [table.stored, table.stored])
    return [{"image": image.contiguous().numpy().ravel()}]


def amount(row: Row, table: TableConfig) -> float:
    """Return 1: a row is an image."""
    return 1


def lengths(table: Table, config: Config) -> np.ndarray:
    """Return 1 for every row."""
    return np.ones(len(table))


def trainable(lengths: np.ndarray, config: Config) -> np.ndarray:
    """Return what pretraining uses of every row: all of it."""
    return lengths


def batch(rows: Sequence[Row], rngs: Sequence[np.random.Generator] | None, config: Config) -> dict[str, Tensor]:
    """Return ``inputs`` [B, channels, S, S] float32, normalised; augmented when generators are given.

    The middle of every image is taken whole where there are none (reference 3.6, 6.3).
    """
    images, side = [stored(row, config.table.channels) for row in rows], config.table.size
    if rngs is None:
        views = [pixels.center_crop(image, [side, side]) for image in images]
    else:
        views = [augment(image, rng, config.augment, side) for image, rng in zip(images, rngs, strict=True)]
    inputs = torch.stack(views).float() / 255
    inputs = pixels.normalize(inputs, list(config.augment.mean), list(config.augment.std))
    if rngs is not None and config.augment.erase:
        inputs = torch.stack([erase(x, rng, config.augment.erase) for x, rng in zip(inputs, rngs, strict=True)])
    return {"inputs": inputs}


def stored(row: Row, channels: int) -> Tensor:
    """Return the image [channels, N, N] uint8 of a row; N is the table's size and margin, whatever the model's were."""
    side = math.isqrt(len(row["image"]) // channels)
    return torch.from_numpy(row["image"].reshape(channels, side, side).copy())


def mask(rngs: Sequence[np.random.Generator], inputs: dict[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Return ``mask`` [B, T] over patches; rectangles may differ in their count from row to row."""
    sampler, side = config.mask, config.side
    if isinstance(sampler, InverseBlockMask):
        drawn = [masks.square_blocks(rng, side, sampler.share, sampler.adjust, sampler.length) for rng in rngs]
    else:
        drawn = [masks.rectangles(rng, side, int(sampler.share * side**2), sampler.smallest) for rng in rngs]
    return {"mask": torch.from_numpy(np.stack(drawn))}


def tokens(inputs: dict[str, Tensor], config: Config) -> np.ndarray:
    """Return the patches of every image, [B] int64."""
    return np.full(len(inputs["inputs"]), config.side**2)


class Local(nn.Module):
    """Patch projection, class token, mask token, and positions as biases (reference 3.1, 3.2) or added (5.3)."""

    extra = 1
    relative_index: Tensor
    positions: Tensor

    def __init__(self, config: Config, trunk: TransformerConfig) -> None:
        super().__init__()
        width, patch, side = trunk.width, config.local.patch, config.side
        self.patches = nn.Conv2d(config.table.channels, width, patch, patch)
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.mask_token = nn.Parameter(torch.empty(1, 1, width)) if config.local.mask_token else None
        tables = {"shared": (), "block": (trunk.depth,), "none": None}[config.local.bias]
        entries = (2 * side - 1) ** 2 + 3
        self.relative_bias = None if tables is None else nn.Parameter(torch.zeros(*tables, entries, trunk.heads))
        self.register_buffer("relative_index", relative_index(side), persistent=False)
        self.register_buffer("positions", config.local.positions * sincos(side, width), persistent=False)
        self.reset(config.local, trunk)

    def reset(self, config: LocalConfig, trunk: TransformerConfig) -> None:
        """Draw the initial weights (reference 3.3; 5.7 and 5.11 where the class token has a spread of its own)."""
        if self.mask_token is not None:
            draw(self.mask_token, trunk)
        if config.class_std is None:
            assert self.patches.bias is not None
            nn.init.zeros_(self.patches.bias)
            draw(self.patches.weight, trunk)
            draw(self.class_token, trunk)
        else:
            nn.init.xavier_uniform_(self.patches.weight.flatten(1))
            nn.init.normal_(self.class_token, std=config.class_std)

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, None]:
        """Return patch embeddings [B, T, D], row by row, of images [B, channels, S, S]."""
        return project_patches(inputs["inputs"], self.patches), None

    def hide(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Put the learned token, or zeros, in place of patches [B, T, D] at ``mask`` [B, T]."""
        return hide(tokens, mask, self.mask_token)

    def place(self, tokens: Tensor, padding: None) -> Tensor:
        """Add positions and prepend the class token: [B, 1+T, D]."""
        return torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens + self.positions], dim=1)

    def bias(self, tokens: int, visible: Tensor | None) -> Bias:
        """Return the bias [1, H, 1+T, 1+T] of the relative position, or a list with that of every block."""
        if self.relative_bias is None:
            return None
        tables = self.relative_bias if self.relative_bias.ndim == 3 else self.relative_bias.unsqueeze(0)
        return [table[self.relative_index].permute(2, 0, 1).unsqueeze(0) for table in tables]


def relative_index(side: int) -> Tensor:
    """Return which row of the bias table belongs to (query, key), [1+T, 1+T] int64, class token first (3.2)."""
    row, column = np.divmod(np.arange(side * side), side)
    rows_apart = row[:, None] - row[None, :] + side - 1
    columns_apart = column[:, None] - column[None, :] + side - 1
    table = (2 * side - 1) ** 2
    index = np.full((side * side + 1, side * side + 1), table)
    index[1:, 1:] = rows_apart * (2 * side - 1) + columns_apart
    index[1:, 0], index[0, 0] = table + 1, table + 2
    return torch.from_numpy(index)


def sincos(side: int, width: int) -> Tensor:
    """Return fixed positions [1, T, D] float32: first half of the channels for the column, second for the row (5.3)."""
    frequencies = 10000 ** (-np.arange(width // 4) / (width / 4))
    row, column = np.divmod(np.arange(side * side), side)
    halves = [f(place[:, None] * frequencies) for place in (column, row) for f in (np.sin, np.cos)]
    return torch.from_numpy(np.concatenate(halves, axis=1)).float().unsqueeze(0)


def head(trunk: TransformerConfig) -> nn.Module:
    """Return the layer that predicts targets [.., D] from contextual patches (reference 3.3, 3.5)."""
    layer = nn.Linear(trunk.width, trunk.width)
    initialise(layer, trunk)
    return layer


def decoder(trunk: TransformerConfig, config: DecoderConfig) -> nn.Module:
    """Return the decoder of version 2, over the grid of patches (reference 5.8)."""
    return Decoder(trunk.width, config, dimensions=2)
