"""An encoder with a head on labels: a class, several of them or a number for a whole sample, or letters over time.

B samples · T tokens · D width · C classes or letters (reference 6.1 to 6.4)
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2v_core.config import require
from d2v_core.model.encoder import Encoded, Encoder, Inputs
from d2v_core.model.loss import Loss

BLANK = 0
SUREST = -1e-6  # largest logarithm of a probability that is turned back into a logit


@dataclass(frozen=True)
class HeadConfig:
    """The block ``head`` of a task.

    ``mean``: mean over tokens → LayerNorm → Linear (images); ``class``: class token → Linear (images); ``first``: first
    token → dense, tanh → Linear (text); ``score``: the same with one number as answer, learnt by squared error (text);
    ``ctc``: a Linear at every token (speech); ``tags``: the same, pooled for every class by itself, where a sample has
    several labels (sound). ``freeze`` updates pass before the encoder learns too. ``init_std`` is the first spread of
    the weights before the logits, whose bias is then zero (6.3); null: PyTorch's own. ``layers``: the head reads the
    ``last`` layer, or a learnt average of all of them (6.5).
    """

    kind: Literal["mean", "class", "first", "score", "ctc", "tags"]
    freeze: int
    smoothing: float
    init_std: float | None = None
    layers: Literal["last", "weighted"] = "last"

    def __post_init__(self) -> None:
        require(self.freeze >= 0, f"freeze must not be negative, but is {self.freeze}.")
        require(0 <= self.smoothing < 1, f"smoothing must be in [0, 1), not {self.smoothing}.")
        smoothed = self.kind in ("mean", "class", "first") or self.smoothing == 0
        require(smoothed, f"smoothing must be 0 for the head {self.kind!r}, whose answer is no single class.")
        require(self.init_std is None or self.init_std > 0, f"init_std must be positive, not {self.init_std}.")
        tokens = self.layers == "last" or self.kind != "class"
        require(tokens, "layers must be 'last' for the head 'class', which reads no tokens.")


def pool(x: Tensor, padding: Tensor | None) -> Tensor:
    """Return the mean [B, D] of the real tokens of [B, T, D]."""
    if padding is None:
        return x.mean(dim=1)
    real = (~padding).unsqueeze(-1).to(x.dtype)
    return (x * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)


def linear_softmax(logits: Tensor, padding: Tensor | None) -> Tensor:
    """Return logits [B, C] of Σp² / Σp over the real tokens of logits [B, T, C], p being their sigmoid (reference 6.2).

    The reference lets padding take part, by the bias; here a sample gets the same answer alone and in a batch.
    """
    log_p = F.logsigmoid(logits)
    if padding is not None:
        log_p = log_p.masked_fill(padding.unsqueeze(-1), float("-inf"))
    pooled = (torch.logsumexp(2 * log_p, dim=1) - torch.logsumexp(log_p, dim=1)).clamp(max=SUREST)
    return pooled - torch.log(-torch.expm1(pooled))


def hidden_states(encoder: Encoder, inputs: Inputs) -> tuple[list[Tensor], Encoded]:
    """Return local features and the output of every block, each [B, T, D] normalised over D, and what is encoded.

    Normalised they have one scale, so that a weighted sum of them weighs what they say (after SUPERB; reference 6.5).
    """
    tokens, padding = encoder.local(inputs)
    encoded = encoder.contextualise(tokens, padding, inputs.get("mask"), channels=inputs.get("channels"))
    return [F.layer_norm(x, x.shape[-1:]) for x in (tokens, *encoded.outputs)], encoded


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
            last = [layer for layer in self.head.modules() if isinstance(layer, nn.Linear)][-1]
            nn.init.trunc_normal_(last.weight, std=config.init_std)
            nn.init.zeros_(last.bias)
        if config.layers == "weighted":
            self.layer_weights = nn.Parameter(torch.zeros(1 + len(encoder.trunk.blocks)))
        self.frozen = False

    def begin_update(self, update: int) -> None:
        """Let only the head learn during the first ``freeze`` updates."""
        self.frozen = update < self.config.freeze

    def encode(self, inputs: Inputs) -> Encoded:
        """Return what the head reads: the last layer, or with ``weighted`` a sum of all by softmaxed weights."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            if self.config.layers == "last":
                return self.encoder(inputs)
            states, encoded = hidden_states(self.encoder, inputs)
        weights = self.layer_weights.softmax(dim=0)
        return replace(encoded, x=sum(weight * state for weight, state in zip(weights, states, strict=True)))

    def logits(self, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
        """Return logits, [B, C] or for CTC [B, T, C], float32, and the padding [B, T] of the tokens."""
        encoded = self.encode(inputs)
        if self.config.kind == "ctc":
            return self.head(encoded.x).float(), encoded.padding
        if self.config.kind == "tags":
            return linear_softmax(self.head(encoded.x).float(), encoded.padding), encoded.padding
        if self.config.kind == "mean":
            summary = pool(encoded.x, encoded.padding)
        else:
            summary = (encoded.extra if self.config.kind == "class" else encoded.x)[:, 0]
        return self.head(summary).float(), encoded.padding

    def forward(self, inputs: Inputs) -> Loss:
        """Return the loss summed over samples; ``inputs["labels"]`` is [B], or for CTC [B, L] padded with -1.

        Labels are int64, those of the head ``score`` float32, and soft targets [B, C] float32. Those of ``tags`` are
        [B, C] float32; their loss is summed over classes too, and its gradient divided by the labels (6.2).
        """
        logits, padding = self.logits(inputs)
        labels = inputs["labels"]
        if self.config.kind == "tags":
            total = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
            return Loss(total, labels.sum(), len(labels))
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
