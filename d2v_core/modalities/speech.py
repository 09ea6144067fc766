"""Speech: waveforms → convolutional features at 50 Hz, spans of them masked (reference, chapters 2 and 5).

B samples · N audio samples · C channels · T tokens · D width · H heads
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2v_core.config import require
from d2v_core.data import masks
from d2v_core.data.table import Row, Table, schema
from d2v_core.errors import Dropped
from d2v_core.model.convolutions import convolve
from d2v_core.model.decoder import Decoder, DecoderConfig
from d2v_core.model.encoder import hide
from d2v_core.model.transformer import TransformerConfig

columns = schema(audio=pa.int16())
unit = "seconds"


@dataclass(frozen=True)
class TableConfig:
    """What goes into the table: rate in Hz, and the durations in seconds that are kept."""

    sample_rate: int
    min_seconds: float
    max_seconds: float

    def __post_init__(self) -> None:
        require(self.sample_rate > 0, f"sample_rate must be positive, not {self.sample_rate}.")
        require(0 <= self.min_seconds < self.max_seconds, "min_seconds must be below max_seconds.")


@dataclass(frozen=True)
class CropConfig:
    """Pretraining leaves out utterances under ``min_seconds`` and crops to ``max_seconds``."""

    min_seconds: float
    max_seconds: float


@dataclass(frozen=True)
class SpanMask:
    """``probability``: share of frames masked if spans did not overlap; ``length`` of a span in frames (2.4)."""

    kind: Literal["spans"]
    probability: float
    length: int

    def __post_init__(self) -> None:
        require(0 < self.probability < 1, f"probability must be in (0, 1), not {self.probability}.")
        require(self.length > 0, f"length must be positive, not {self.length}.")


@dataclass(frozen=True)
class BlockMask:
    """``share`` of frames masked, exactly; in blocks of ``length`` frames, with ``adjust`` more to draw (5.5.1)."""

    kind: Literal["blocks"]
    share: float
    adjust: float
    length: int

    def __post_init__(self) -> None:
        require(0 < self.share < 1, f"share must be in (0, 1), not {self.share}.")
        require(self.length > 0, f"length must be positive, not {self.length}.")


Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True)
class LocalConfig:
    """The convolutions: ``channels``, and one kernel and stride per layer; ``taps`` is how kernels are drawn.

    Hidden frames become a learned vector with ``mask_token``, zeros without; ``alibi`` makes attention prefer near
    frames (reference 5.4).
    """

    channels: int
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    taps: Literal["free", "tied"]
    position_layers: int
    position_kernel: int
    position_groups: int
    mask_token: bool
    alibi: bool

    def __post_init__(self) -> None:
        require(len(self.kernels) == len(self.strides), "kernels and strides must have one number per layer each.")


@dataclass(frozen=True)
class Config:
    """The block ``model`` of speech, with its ``table``."""

    table: TableConfig
    crop: CropConfig
    mask: SpanMask | BlockMask
    local: LocalConfig


def rows(decoded: np.ndarray, table: TableConfig) -> list[Row]:
    """Return one row from mono samples at the table's rate, [N] float32 in [-1, 1]; raise Dropped for bad ones."""
    seconds = len(decoded) / table.sample_rate
    if len(decoded) == 0:
        raise Dropped("empty", "no samples")
    low, high = decoded.min(), decoded.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise Dropped("not finite", "NaN or infinite samples")
    if low == high:
        raise Dropped("silent", "all samples are equal")
    if not table.min_seconds <= seconds <= table.max_seconds:
        raise Dropped("duration", f"{seconds:.2f} s is outside {table.min_seconds}-{table.max_seconds} s")
    scaled = (decoded if low >= -1 and high <= 1 else np.clip(decoded, -1, 1)) * 32767
    return [{"audio": np.round(scaled, out=scaled).astype(np.int16)}]


def amount(row: Row, table: TableConfig) -> float:
    """Return the seconds of a row."""
    return len(row["audio"]) / table.sample_rate


def lengths(table: Table, config: Config) -> np.ndarray:
    """Return seconds per row."""
    return table.lengths("audio") / config.table.sample_rate


def trainable(lengths: np.ndarray, config: Config) -> np.ndarray:
    """Return seconds per row as pretraining crops them; 0 for rows that are too short for it."""
    return np.where(lengths < config.crop.min_seconds, 0.0, np.minimum(lengths, config.crop.max_seconds))


def batch(rows: Sequence[Row], rngs: Sequence[np.random.Generator] | None, config: Config) -> dict[str, Tensor]:
    """Return ``inputs`` [B, N] float32 and, where they differ, ``lengths`` [B] in samples.

    Every utterance is normalised as a whole (reference 2.1). With generators each is cropped, at a keyed offset, to
    the shortest of the batch; without, all are padded with zeros on the right.
    """
    waves = [normalise(row["audio"]) for row in rows]
    if rngs is None:
        padded = nn.utils.rnn.pad_sequence([torch.from_numpy(wave) for wave in waves], batch_first=True)
        sizes = [len(wave) for wave in waves]
        return {"inputs": padded} | ({"lengths": torch.tensor(sizes)} if min(sizes) < max(sizes) else {})
    size = min(int(config.crop.max_seconds * config.table.sample_rate), *map(len, waves))
    offsets = [rng.integers(len(wave) - size + 1) for wave, rng in zip(waves, rngs, strict=True)]
    crops = np.stack([wave[offset : offset + size] for wave, offset in zip(waves, offsets, strict=True)])
    return {"inputs": torch.from_numpy(crops)}


def normalise(audio: np.ndarray) -> np.ndarray:
    """Return int16 samples [N] as float32 with zero mean and unit variance."""
    wave = audio.astype(np.float32)
    wave -= wave.mean(dtype=np.float64)
    return wave / np.sqrt(wave.var(dtype=np.float64) + 1e-5).astype(np.float32)


def mask(rngs: Sequence[np.random.Generator], inputs: dict[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Return ``mask`` [B, T]: frames, equal in number in every row."""
    sampler, count = config.mask, int(frames(inputs["inputs"].shape[1], config.local))
    if isinstance(sampler, BlockMask):
        drawn = [masks.block_spans(rng, count, sampler.share, sampler.adjust, sampler.length) for rng in rngs]
        return {"mask": torch.from_numpy(np.stack(drawn))}
    drawn = [masks.spans(rng, count, sampler.probability, sampler.length) for rng in rngs]
    return {"mask": torch.from_numpy(masks.equalise(drawn, rngs))}


def tokens(inputs: dict[str, Tensor], config: Config) -> np.ndarray:
    """Return the real frames of every utterance, [B] int64."""
    whole = torch.full((len(inputs["inputs"]),), inputs["inputs"].shape[1])
    return frames(inputs.get("lengths", whole), config.local).numpy()


def frames(samples: Count, local: LocalConfig) -> Count:
    """Return how many frames the convolutions make of ``samples`` audio samples."""
    for kernel, stride in zip(local.kernels, local.strides, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


class Local(nn.Module):
    """Convolutions → LayerNorm → projection; convolutional positions; a learned mask vector (reference 2.2 - 2.5)."""

    extra = 0
    alibi_slopes: Tensor

    def __init__(self, config: Config, trunk: TransformerConfig) -> None:
        super().__init__()
        self.config, width = config.local, trunk.width
        channels = config.local.channels
        self.extractor = nn.ModuleList(
            Convolution(channels if i else 1, channels, kernel, stride)
            for i, (kernel, stride) in enumerate(zip(config.local.kernels, config.local.strides, strict=True))
        )
        if config.local.taps == "tied":
            tie_taps(self.extractor)
        self.feature_norm = nn.LayerNorm(channels)
        self.projection = nn.Linear(channels, width)
        self.positions = nn.ModuleList(PositionBlock(width, config.local) for _ in range(config.local.position_layers))
        self.mask_token = nn.Parameter(torch.rand(width)) if config.local.mask_token else None
        self.alibi_scale = nn.Parameter(torch.ones(trunk.heads, 1, 1)) if config.local.alibi else None
        self.register_buffer("alibi_slopes", torch.tensor(alibi_slopes(trunk.heads)), persistent=False)

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return features [B, T, D] of waveforms [B, N], and the padding [B, T] that ``lengths`` [B] implies."""
        x = inputs["inputs"].unsqueeze(-1)
        for layer in self.extractor:
            x = layer(x)
        padding = None
        if "lengths" in inputs:
            valid = frames(inputs["lengths"], self.config)
            padding = torch.arange(x.shape[1], device=x.device) >= valid[:, None]
        return self.projection(self.feature_norm(x)), padding

    def hide(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Put the learned vector, or zeros, in place of tokens [B, T, D] at ``mask`` [B, T]."""
        return hide(tokens, mask, self.mask_token)

    def place(self, tokens: Tensor, padding: Tensor | None) -> Tensor:
        """Add convolutional positions, with padded frames zero before every convolution.

        The reference zeroes them before the first one alone, so that there padding leaks into its neighbours.
        """
        keep = 1 if padding is None else (~padding).unsqueeze(-1)
        positions = tokens = tokens * keep
        for layer in self.positions:
            positions = layer(positions) * keep
        return tokens + positions

    def bias(self, tokens: int, visible: Tensor | None) -> Tensor | None:
        """Return ALiBi [1 or B, H, T, T]: minus the distance of frames, by a learned slope per head (5.4)."""
        if self.alibi_scale is None:
            return None
        scale = self.alibi_scale
        places = torch.arange(tokens, device=scale.device).unsqueeze(0) if visible is None else visible
        distance = (places.unsqueeze(2) - places.unsqueeze(1)).abs().unsqueeze(1)
        return -distance * (self.alibi_slopes[:, None, None] * scale.clamp(min=0))


class Convolution(nn.Module):
    """Conv1d without bias → LayerNorm over channels → GELU, channels last."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in, kernel))
        self.norm = nn.LayerNorm(channels_out)
        nn.init.kaiming_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, N, C_in] to [B, N', C_out]."""
        return F.gelu(self.norm(convolve(x, self.weight, self.stride)))


class PositionBlock(nn.Module):
    """Grouped Conv1d → LayerNorm without weights → GELU (reference 2.5)."""

    def __init__(self, width: int, config: LocalConfig) -> None:
        super().__init__()
        kernel = config.position_kernel
        self.convolution = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=config.position_groups)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, D] to [B, T, D]."""
        y = self.convolution(x.transpose(1, 2)).transpose(1, 2)[:, : x.shape[1]]
        return F.gelu(F.layer_norm(y, y.shape[-1:]))


def alibi_slopes(heads: int) -> list[float]:
    """Return the slope of every head: geometric up to a power of two, the rest from between them (5.4)."""
    power = 2 ** (heads.bit_length() - 1)
    slopes = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    between = [2 ** (-8 * (head + 1) / (2 * power)) for head in range(0, 2 * power, 2)]
    return slopes + between[: heads - power]


def tie_taps(extractor: nn.ModuleList) -> None:
    """Give all taps of a kernel one random matrix, so that an untrained extractor keeps what it hears.

    Not in the paper, which draws every tap by itself.
    """
    for layer in cast(list[Convolution], list(extractor))[1:]:
        tap = layer.weight.data[:, :, :1] / layer.kernel**0.5
        layer.weight.data.copy_(tap.expand_as(layer.weight))


def head(trunk: TransformerConfig) -> nn.Module:
    """Return the layer that predicts targets [.., D] from contextual tokens (reference 2.6)."""
    return nn.Linear(trunk.width, trunk.width)


def decoder(trunk: TransformerConfig, config: DecoderConfig) -> nn.Module:
    """Return the decoder of version 2, over frames in a row (reference 5.8)."""
    return Decoder(trunk.width, config, dimensions=1)
