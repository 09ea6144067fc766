"""An encoder: a modality's local encoder (signal → tokens) under the shared trunk (tokens → context).

B samples · T tokens · D width
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from d2v_core.model.transformer import Transformer

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Encoded:
    """What an encoder makes of a batch; class tokens are already removed from every field."""

    x: Tensor  # [B, T, D] contextual tokens
    padding: Tensor | None  # [B, T] True at padding
    outputs: list[Tensor]  # per block that ran, its output [B, T, D]
    results: list[Tensor]  # per block that ran, its feed-forward result [B, T, D]


class Encoder(nn.Module):
    """``local`` and ``trunk`` together.

    ``local`` is a modality's ``Local``: called with a batch it gives tokens [B, T, D] and their padding [B, T] or
    None; ``hide(tokens, mask)`` puts the mask vector in place of hidden tokens; ``place(tokens, padding)`` adds
    positions and class tokens and gives the attention bias; ``extra`` is the number of class tokens.
    """

    def __init__(self, local: nn.Module, trunk: Transformer) -> None:
        super().__init__()
        self.local, self.trunk = local, trunk

    def forward(self, inputs: Inputs, mask: Tensor | None = None) -> Encoded:
        """Encode a batch; tokens at ``mask`` [B, T] are hidden from the encoder."""
        tokens, padding = self.local(inputs)
        return self.contextualise(tokens, padding, mask)

    def contextualise(self, tokens: Tensor, padding: Tensor | None, mask: Tensor | None = None) -> Encoded:
        """Encode local features [B, T, D] that are already there."""
        if mask is not None:
            tokens = self.local.hide(tokens, mask)
        x, wide_padding, bias = self.local.place(tokens, padding)
        x, layers = self.trunk(x, wide_padding, bias)
        extra = self.local.extra
        return Encoded(
            x[:, extra:],
            padding,
            [output[:, extra:] for output, _ in layers],
            [result[:, extra:] for _, result in layers],
        )
