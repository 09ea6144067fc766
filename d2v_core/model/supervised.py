"""An encoder with a head on labels: a class or a number for a whole sample, or letters over time by CTC.

B samples · T tokens · D width · C classes or letters (reference 6.1, 6.3, 6.4)
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2v_core.config import require
from d2v_core.model.encoder import Encoder, Inputs
from d2v_core.model.loss import Loss

BLANK = 0


@dataclass(frozen=True)
class HeadConfig:
    """The block ``head`` of a task.

    ``mean``: mean over tokens → LayerNorm → Linear (images); ``class``: class token → Linear (images); ``first``: first
    token → dense, tanh → Linear (text); ``score``: the same with one number as answer, learnt by squared error (text);
    ``ctc``: a Linear at every token (speech). ``freeze`` updates pass before the encoder learns too. ``init_std`` is
    the first spread of the weights before the logits, whose bias is then zero (6.3); null: PyTorch's own.
    """

    kind: Literal["mean", "class", "first", "score", "ctc"]
    freeze: int
    smoothing: float
    init_std: float | None = None

    def __post_init__(self) -> None:
        require(self.freeze >= 0, f"freeze must not be negative, but is {self.freeze}.")
        require(0 <= self.smoothing < 1, f"smoothing must be in [0, 1), not {self.smoothing}.")
        require(self.init_std is None or self.init_std > 0, f"init_std must be positive, not {self.init_std}.")


def pool(x: Tensor, padding: Tensor | None) -> Tensor:
    """Return the mean [B, D] of the real tokens of [B, T, D]."""
    if padding is None:
        return x.mean(dim=1)
    real = (~padding).unsqueeze(-1).to(x.dtype)
    return (x * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)


def head_layers(kind: str, width: int, classes: int) -> nn.Module:
    """Return the layers between the encoder and the logits."""
    if kind == "mean":
        return nn.Sequential(nn.LayerNorm(width, eps=1e-6), nn.Linear(width, classes))
    if kind in ("first", "score"):
        return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, classes))
    if kind == "class":
        return nn.Linear(width, classes)
    projection = nn.Linear(width, classes)
    nn.init.xavier_uniform_(projection.weight)
    nn.init.zeros_(projection.bias)
    return projection


class Supervised(nn.Module):
    """An encoder and a head that learn from labels."""

    def __init__(self, encoder: Encoder, config: HeadConfig, width: int, classes: int) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        self.head = head_layers(config.kind, width, classes)
        if config.init_std is not None:
            last = self.head[-1] if isinstance(self.head, nn.Sequential) else self.head
            nn.init.trunc_normal_(last.weight, std=config.init_std)
            nn.init.zeros_(last.bias)
        self.frozen = False

    def begin_update(self, update: int) -> None:
        """Let only the head learn during the first ``freeze`` updates."""
        self.frozen = update < self.config.freeze

    def logits(self, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
        """Return logits, [B, C] or for CTC [B, T, C], float32, and the padding [B, T] of the tokens."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            encoded = self.encoder(inputs)
        if self.config.kind == "ctc":
            return self.head(encoded.x).float(), encoded.padding
        if self.config.kind == "mean":
            summary = pool(encoded.x, encoded.padding)
        else:
            summary = (encoded.extra if self.config.kind == "class" else encoded.x)[:, 0]
        return self.head(summary).float(), encoded.padding

    def forward(self, inputs: Inputs) -> Loss:
        """Return the loss summed over samples; ``inputs["labels"]`` is [B], or for CTC [B, L] padded with -1.

        Labels are int64, those of the head ``score`` float32, and soft targets [B, C] float32.
        """
        logits, padding = self.logits(inputs)
        labels = inputs["labels"]
        if self.config.kind == "ctc":
            total = ctc_loss(logits, padding, labels)
        elif self.config.kind == "score":
            total = F.mse_loss(logits.squeeze(1), labels, reduction="sum")
        else:
            total = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=self.config.smoothing)
        return Loss(total, total.new_full((), len(labels)), len(labels))


def ctc_loss(logits: Tensor, padding: Tensor | None, labels: Tensor) -> Tensor:
    """Return the CTC loss summed over samples, infinite ones zeroed (reference 6.1).

    logits [B, T, C] float32; padding [B, T] bool or None; labels [B, L] int64, padded with -1.
    """
    samples, tokens, _ = logits.shape
    lengths = torch.full((samples,), tokens) if padding is None else (~padding).sum(dim=1).cpu()
    log_probabilities = F.log_softmax(logits, dim=-1).transpose(0, 1)
    label_lengths = (labels >= 0).sum(dim=1).cpu()
    return F.ctc_loss(
        log_probabilities, labels.clamp(min=0), lengths, label_lengths, BLANK, reduction="sum", zero_infinity=True
    )
