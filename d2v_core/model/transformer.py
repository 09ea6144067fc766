"""The trunk that all modalities share: a stack of transformer blocks that also reports what each block computed.

B samples · T tokens · D width · H heads
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from d2v_core.config import require

Bias = Tensor | list[Tensor] | None


@dataclass(frozen=True)
class TransformerConfig:
    """The block ``trunk`` of a modality (reference 2.5 post-norm, 3.3 pre-norm)."""

    width: int
    depth: int
    heads: int
    feedforward: int
    norm: Literal["pre", "post"]
    input_norm: bool
    epsilon: float
    dropout: float
    attention_dropout: float
    activation_dropout: float
    layer_drop: float
    drop_path: float
    layer_scale: float | None
    key_bias: bool
    final_norm: bool
    init: Literal["normal", "truncated"]
    init_std: float

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "feedforward"):
            require(getattr(self, name) > 0, f"{name} must be positive, not {getattr(self, name)}.")
        require(self.width % self.heads == 0, f"width ({self.width}) must be a multiple of heads ({self.heads}).")
        for name in ("dropout", "attention_dropout", "activation_dropout", "layer_drop", "drop_path"):
            require(0 <= getattr(self, name) < 1, f"{name} must be in [0, 1), not {getattr(self, name)}.")


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection; the key's bias can be left out (BEiT)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.dropout = config.heads, config.attention_dropout
        self.qkv = nn.Linear(width, 3 * width, bias=config.key_bias)
        if not config.key_bias:
            self.query_bias = nn.Parameter(torch.zeros(width))
            self.value_bias = nn.Parameter(torch.zeros(width))
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Mix tokens [B, T, D]; ``bias`` is added to the logits, broadcast to [B, H, T, T]."""
        qkv_bias = self.qkv.bias
        if qkv_bias is None:
            qkv_bias = torch.cat([self.query_bias, torch.zeros_like(self.query_bias), self.value_bias])
        qkv = F.linear(x, self.qkv.weight, qkv_bias)
        query, key, value = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        return self.output(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(config.width, config.feedforward)
        self.contract = nn.Linear(config.feedforward, config.width)
        self.activation_dropout = nn.Dropout(config.activation_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Transform every token of [B, T, D] by itself."""
        return self.contract(self.activation_dropout(F.gelu(self.expand(x))))


class DropPath(nn.Module):
    """Drop a residual branch for whole samples; the surviving ones are scaled up (stochastic depth)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, T, D] with each sample kept with probability 1 - rate."""
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.rate
        return x * kept / (1 - self.rate)


class Block(nn.Module):
    """Attention and feed-forward with residuals, normalised before (vision v1) or after (everything else)."""

    def __init__(self, config: TransformerConfig, drop_path: float) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.attention, self.feedforward = Attention(config), FeedForward(config)
        self.attention_norm = nn.LayerNorm(config.width, config.epsilon)
        self.feedforward_norm = nn.LayerNorm(config.width, config.epsilon)
        self.dropout, self.drop_path = nn.Dropout(config.dropout), DropPath(drop_path)
        self.attention_scale = self.feedforward_scale = None
        if config.layer_scale is not None:
            self.attention_scale = nn.Parameter(torch.full((config.width,), config.layer_scale))
            self.feedforward_scale = nn.Parameter(torch.full((config.width,), config.layer_scale))

    def branch(self, x: Tensor, scale: Tensor | None) -> Tensor:
        """Return what a sub-layer adds to the residual stream."""
        x = self.dropout(x)
        return self.drop_path(x if scale is None else x * scale)

    def forward(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the block's output and its feed-forward result before dropout and residual, both [B, T, D]."""
        if self.pre_norm:
            x = x + self.branch(self.attention(self.attention_norm(x), bias), self.attention_scale)
            result = self.feedforward(self.feedforward_norm(x))
            return x + self.branch(result, self.feedforward_scale), result
        x = self.attention_norm(x + self.branch(self.attention(x, bias), self.attention_scale))
        result = self.feedforward(x)
        return self.feedforward_norm(x + self.branch(result, self.feedforward_scale)), result


class Transformer(nn.Module):
    """The stack of blocks, with a norm and dropout before it (post-norm) or a norm after it (pre-norm)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.layer_drop, self.recompute = config.layer_drop, False
        self.input_norm = nn.LayerNorm(config.width, config.epsilon) if config.input_norm else nn.Identity()
        self.input_dropout = nn.Dropout(config.dropout if config.input_norm else 0.0)
        rates = [config.drop_path * i / max(config.depth - 1, 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)
        self.final_norm = nn.LayerNorm(config.width, config.epsilon) if config.final_norm else nn.Identity()
        initialise(self, config)

    def forward(
        self, x: Tensor, padding: Tensor | None = None, bias: Bias = None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Contextualise tokens [B, T, D].

        ``padding`` [B, T] is True at tokens to ignore; ``bias`` [1 or B, H, T, T] is added to attention logits, the
        same one in every block or, in a list, one for each. Returns the output [B, T, D] and, for each block that ran,
        (block output, feed-forward result).
        """
        x = self.input_dropout(self.input_norm(x))
        biases = bias if isinstance(bias, list) else [bias]
        biases = [with_padding(bias, padding, x.dtype) for bias in biases]
        results = []
        for number, block in enumerate(self.blocks):
            if self.training and self.layer_drop and torch.rand(()) <= self.layer_drop:
                continue
            arguments = x, biases[number % len(biases)]
            again = self.recompute and self.training
            x, result = checkpoint(block, *arguments, use_reentrant=False) if again else block(*arguments)
            results.append((x, result))
        return self.final_norm(x), results


def with_padding(bias: Tensor | None, padding: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Join an additive attention bias [1 or B, H, T, T] and a padding mask [B, T] to one attention mask."""
    if padding is None:
        return bias
    keep = ~padding[:, None, None, :]
    if bias is None:
        return keep
    return bias.to(dtype).masked_fill(~keep, float("-inf"))


def initialise(module: nn.Module, config: TransformerConfig) -> None:
    """Draw linear weights from N(0, init_std) and zero the biases.

    ``truncated`` is BEiT's: cut at one standard deviation, and the two output layers of block i divided by √(2i).
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            draw(layer.weight, config)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    if config.init == "truncated":
        for number, block in enumerate((m for m in module.modules() if isinstance(m, Block)), 1):
            for layer in (block.attention.output, block.feedforward.contract):
                layer.weight.data.div_((2.0 * number) ** 0.5)


def draw(weight: Tensor, config: TransformerConfig) -> None:
    """Fill ``weight`` by the trunk's initial distribution."""
    if config.init == "truncated":
        nn.init.trunc_normal_(weight, std=config.init_std, a=-config.init_std, b=config.init_std)
    else:
        nn.init.normal_(weight, std=config.init_std)
