"""Text: pieces of words, single ones or spans of them masked before the embedding, or
any of them left out after it (reference, chapters 4 and 5).

B samples · T tokens · D width · V vocabulary
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from d2v_core.config import require
from d2v_core.data import masks
from d2v_core.data.table import Row, Table, schema
from d2v_core.errors import Dropped
from d2v_core.model.decoder import Decoder, DecoderConfig
from d2v_core.model.transformer import TransformerConfig, draw, initialise

columns = schema(tokens=pa.uint16()).append(pa.field("score", pa.float32()))  # a number in place of a label
unit = "tokens"
BEGIN, PAD, END, UNKNOWN = range(4)
SHORTEST = 8  # tokens of a row that pretraining uses
SPECIAL = 4  # the first id that is a piece; <mask> is the last id of the vocabulary


@dataclass(frozen=True)
class TableConfig:
    """What goes into the table: sequences of at most ``tokens`` ids out of ``vocabulary`` (with special ones)."""

    vocabulary: int
    tokens: int

    def __post_init__(self) -> None:
        require(SPECIAL + 1 < self.vocabulary <= 65536, f"vocabulary must be in 6-65536, not {self.vocabulary}.")
        require(self.tokens > 2, f"tokens must be above 2, not {self.tokens}.")


@dataclass(frozen=True)
class TokenMask:
    """``probability`` and ``length`` of spans; of the masked, ``random`` become any piece and ``keep`` stay (4.2)."""

    kind: Literal["tokens"]
    probability: float
    length: int
    random: float
    keep: float

    def __post_init__(self) -> None:
        require(0 < self.probability < 1, f"probability must be in (0, 1), not {self.probability}.")
        require(self.length > 0, f"length must be positive, not {self.length}.")
        require(0 <= self.random + self.keep < 1, "random + keep must be in [0, 1).")


@dataclass(frozen=True)
class RandomMask:
    """``share`` of the tokens masked, exactly, each as likely as any other (reference 5.5.3)."""

    kind: Literal["random"]
    share: float

    def __post_init__(self) -> None:
        require(0 < self.share < 1, f"share must be in (0, 1), not {self.share}.")


@dataclass(frozen=True)
class LocalConfig:
    """Initial spread of the position table, and whether it learns; dropout after the embedding's norm."""

    position_std: float
    train_positions: bool
    dropout: float


@dataclass(frozen=True)
class Config:
    """The block ``model`` of text, with its ``table``."""

    table: TableConfig
    mask: TokenMask | RandomMask
    local: LocalConfig


def rows(decoded: np.ndarray, table: TableConfig) -> list[Row]:
    """Return the rows of one document, [tokens] ids with an END after every paragraph: blocks that start with BEGIN."""
    if len(decoded) == 0:
        raise Dropped("empty", "no tokens")
    size = table.tokens - 1
    blocks = [decoded[start : start + size] for start in range(0, len(decoded), size)]
    return [{"tokens": np.concatenate([[BEGIN], block]).astype(np.uint16)} for block in blocks]


def amount(row: Row, table: TableConfig) -> float:
    """Return the tokens of a row."""
    return len(row["tokens"])


def lengths(table: Table, config: Config) -> np.ndarray:
    """Return tokens per row."""
    return table.lengths("tokens")


def trainable(lengths: np.ndarray, config: Config) -> np.ndarray:
    """Return tokens per row as pretraining uses them; 0 for rows too short to predict anything in."""
    return np.where(lengths < SHORTEST, 0, lengths)


def batch(rows: Sequence[Row], rngs: Sequence[np.random.Generator] | None, config: Config) -> dict[str, Tensor]:
    """Return ``inputs`` [B, T] int64, padded with PAD on the right; text is not augmented.

    Where all rows have one length an empty ``unpadded`` says so: a GPU then need not be asked.
    """
    sequences = [torch.from_numpy(row["tokens"].astype(np.int64)) for row in rows]
    inputs = {"inputs": nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=PAD)}
    return inputs | ({"unpadded": torch.empty(0)} if len({len(each) for each in sequences}) == 1 else {})


def mask(rngs: Sequence[np.random.Generator], inputs: dict[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Return ``mask`` [B, T] and, for version 1, ``corrupted`` [B, T] with the mask symbol where the mask is True."""
    if isinstance(config.mask, RandomMask):
        width = inputs["inputs"].shape[1]
        drawn = [masks.random_tokens(rng, width, config.mask.share) for rng in rngs]
        return {"mask": torch.from_numpy(np.stack(drawn))}
    corrupted, hidden = inputs["inputs"].clone().numpy(), config.table.vocabulary - 1
    for row, rng in zip(corrupted, rngs, strict=True):
        count = int((row != PAD).sum())
        places = np.flatnonzero(masks.token_spans(rng, count, config.mask.probability, config.mask.length))
        draws = rng.random(len(places))
        pieces = rng.integers(SPECIAL, hidden, len(places))
        chosen = np.where(draws < config.mask.random + config.mask.keep, pieces, hidden)
        row[places] = np.where(draws < config.mask.keep, row[places], chosen)
    return {"corrupted": torch.from_numpy(corrupted), "mask": torch.from_numpy(corrupted == hidden)}


def tokens(inputs: dict[str, Tensor], config: Config) -> np.ndarray:
    """Return the real tokens of every sequence, [B] int64."""
    return (inputs["inputs"] != PAD).sum(dim=1).numpy()


class Local(nn.Module):
    """Token and position embeddings → LayerNorm → dropout (reference 4.3). Masking happened on the ids before."""

    extra = 0

    def __init__(self, config: Config, trunk: TransformerConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.table.vocabulary, trunk.width, padding_idx=PAD)
        self.positions = nn.Embedding(config.table.tokens + PAD + 1, trunk.width, padding_idx=PAD)
        self.norm = nn.LayerNorm(trunk.width, trunk.epsilon)
        self.dropout = nn.Dropout(config.local.dropout)
        draw(self.tokens.weight, trunk)
        nn.init.normal_(self.positions.weight, std=config.local.position_std)
        for table in (self.tokens, self.positions):
            table.weight.data[PAD] = 0
        self.positions.weight.requires_grad_(config.local.train_positions)

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return embeddings [B, T, D] of ids [B, T], and their padding [B, T] unless the batch is ``unpadded``."""
        ids = inputs["inputs"]
        padding = ids == PAD
        positions = ((~padding).cumsum(dim=1) + PAD) * ~padding + PAD * padding
        x = self.dropout(self.norm(self.tokens(ids) + self.positions(positions)))
        x = x.masked_fill(padding.unsqueeze(-1), 0)
        return x, None if "unpadded" in inputs else padding

    def hide(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the tokens as they are: what is hidden was replaced by the mask symbol already."""
        return tokens

    def place(self, tokens: Tensor, padding: Tensor | None) -> Tensor:
        """Return the tokens as they are: positions are part of the embedding."""
        return tokens

    def bias(self, tokens: int, visible: Tensor | None) -> None:
        """Return nothing: attention is the same at any distance."""


def head(trunk: TransformerConfig) -> nn.Module:
    """Return the layers that predict targets [.., D] from contextual tokens, drawn like the trunk (reference 4.3)."""
    width = trunk.width
    layers = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
    initialise(layers, trunk)
    return layers


def decoder(trunk: TransformerConfig, config: DecoderConfig) -> nn.Module:
    """Return the decoder of version 2, over tokens in a row, drawn like the trunk (reference 5.8, 5.11)."""
    decoder = Decoder(trunk.width, config, dimensions=1)
    initialise(decoder, trunk)
    return decoder
