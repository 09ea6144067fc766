"""An encoder: a modality's local encoder (signal → tokens) under the shared trunk (tokens → context).

B samples (in data2vec 2.0 one per view) · T tokens · E class tokens · D width
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2v_core.model.transformer import Transformer

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Encoded:
    """What an encoder makes of a batch; T counts the visible tokens where the others were dropped."""

    x: Tensor  # [B, T, D] contextual tokens
    padding: Tensor | None  # [B, T] True at padding
    extra: Tensor  # [B, E, D] contextual class tokens
    outputs: list[Tensor]  # per block that ran, its output [B, T, D]
    results: list[Tensor]  # per block that ran, its feed-forward result [B, T, D]

    @property
    def tokens(self) -> int:
        """How many tokens went through the trunk."""
        return self.x.shape[0] * (self.x.shape[1] + self.extra.shape[1])


def hide(tokens: Tensor, mask: Tensor, vector: Tensor | None) -> Tensor:
    """Return tokens [B, T, D] with ``vector`` [D] or [1, 1, D], or zeros where it is None, at ``mask`` [B, T]."""
    if vector is None:
        return tokens.masked_fill(mask.unsqueeze(-1), 0)
    return torch.where(mask.unsqueeze(-1), vector.to(tokens.dtype), tokens)


class Encoder(nn.Module):
    """``local`` and ``trunk`` together.

    ``local`` is a modality's ``Local``: called with a batch it gives tokens [B, T, D] and their padding [B, T] or
    None; ``hide(tokens, mask)`` blinds hidden tokens; ``place(tokens, padding)`` adds positions and puts ``extra``
    class tokens in front; ``bias(T, visible)`` is what attention adds to its logits.
    """

    local: Any  # the modalities' classes share no base

    def __init__(self, local: nn.Module, trunk: Transformer) -> None:
        super().__init__()
        self.local, self.trunk = local, trunk

    def forward(self, inputs: Inputs) -> Encoded:
        """Encode a batch; ``mask`` [B, T] and ``channels`` [B, D] in it, if any, say what is hidden (reference 6.1)."""
        tokens, padding = self.local(inputs)
        return self.contextualise(tokens, padding, inputs.get("mask"), channels=inputs.get("channels"))

    def contextualise(
        self,
        tokens: Tensor,
        padding: Tensor | None,
        mask: Tensor | None = None,
        visible: Tensor | None = None,
        channels: Tensor | None = None,
    ) -> Encoded:
        """Encode local features [B, T, D] that are already there.

        Tokens at ``mask`` [B, T] are hidden, and so are ``channels`` [B, D] of all tokens. With ``visible``
        [B, visible tokens], the places of the others, hidden tokens are not encoded at all (reference 5.1).
        """
        if mask is not None:
            tokens = self.local.hide(tokens, mask)
        if channels is not None:
            tokens = tokens.masked_fill(channels.unsqueeze(1), 0)
        x, extra = self.local.place(tokens, padding), self.local.extra
        bias = self.local.bias(tokens.shape[1], visible)
        if visible is not None:
            classes = torch.arange(extra, device=visible.device).expand(len(visible), -1)
            kept = torch.cat([classes, visible + extra], dim=1)
            x = x.gather(1, kept.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
            padding = None if padding is None else padding.gather(1, visible)
        wide_padding = None if padding is None else F.pad(padding, (extra, 0))
        x, layers = self.trunk(x, wide_padding, bias)
        return Encoded(
            x[:, extra:],
            padding,
            x[:, :extra],
            [output[:, extra:] for output, _ in layers],
            [result[:, extra:] for _, result in layers],
        )
