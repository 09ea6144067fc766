"""The decoder of data2vec 2.0: a few grouped convolutions over tokens in order, in one or two dimensions.

B views · T tokens · D width · C channels (reference 5.8)
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from d2v_core.config import require


@dataclass(frozen=True)
class DecoderConfig:
    """The block ``decoder``; ``projection`` layers, the inner ones twice as wide as ``channels``, lead back to D."""

    channels: int
    kernel: int
    layers: int
    groups: int
    dropout: float  # of the encoded tokens
    residual: bool
    projection: int

    def __post_init__(self) -> None:
        for name in ("channels", "kernel", "layers", "groups", "projection"):
            require(getattr(self, name) > 0, f"{name} must be positive, not {getattr(self, name)}.")
        require(self.channels % self.groups == 0, f"channels ({self.channels}) must be a multiple of groups.")


class DecoderBlock(nn.Module):
    """Grouped convolution → LayerNorm over channels without weights → GELU."""

    def __init__(self, channels_in: int, config: DecoderConfig, dimensions: int) -> None:
        super().__init__()
        kind = nn.Conv1d if dimensions == 1 else nn.Conv2d
        self.kernel = config.kernel
        self.convolution = kind(
            channels_in, config.channels, config.kernel, padding=config.kernel // 2, groups=config.groups
        )
        self.residual = config.residual and channels_in == config.channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C_in, *grid] to [B, C, *grid]."""
        y = self.convolution(x)
        if self.kernel % 2 == 0:
            y = y[(..., *(slice(-1) for _ in y.shape[2:]))]
        y = F.gelu(F.layer_norm(y.movedim(1, -1), y.shape[1:2]).movedim(-1, 1))
        return y + x if self.residual else y


class Decoder(nn.Module):
    """Blocks over the grid of tokens, then a projection of the tokens that are asked for."""

    def __init__(self, width: int, config: DecoderConfig, dimensions: int) -> None:
        """Build for tokens in a row (1 ``dimensions``) or on a square (2)."""
        super().__init__()
        self.dimensions = dimensions
        self.input_dropout = nn.Dropout(config.dropout)
        widths = [width] + [config.channels] * (config.layers - 1)
        self.blocks = nn.ModuleList(DecoderBlock(channels, config, dimensions) for channels in widths)
        layers: list[nn.Module] = []
        channels = config.channels
        for _ in range(config.projection - 1):
            layers += [nn.Linear(channels, 2 * config.channels), nn.GELU()]
            channels = 2 * config.channels
        self.projection = nn.Sequential(*layers, nn.Linear(channels, width))

    def forward(self, tokens: Tensor, asked: Tensor) -> Tensor:
        """Return predictions [asked tokens, D] from [B, T, D]; ``asked`` numbers them through the batch."""
        x = tokens.transpose(1, 2)
        if self.dimensions == 2:
            x = x.unflatten(2, (round(tokens.shape[1] ** 0.5), -1))
        for block in self.blocks:
            x = block(x)
        return self.projection(x.flatten(2).transpose(1, 2).flatten(0, 1)[asked])
