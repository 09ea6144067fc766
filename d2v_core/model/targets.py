"""What the student has to predict: the teacher's top-K block results, normalised and averaged (reference 1.5).

B samples · T tokens · D width · K blocks
"""

from collections.abc import Sequence
from functools import reduce
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Norm = Literal["instance", "layer"]
EPSILON = 1e-5


def average_targets(
    results: Sequence[Tensor], each: Sequence[Norm], final: Sequence[Norm], padding: Tensor | None = None
) -> Tensor:
    """Return targets [B, T, D] float32 from K block results [B, T, D].

    Every result is normalised by the norms in ``each``, in order, then their mean by those in ``final``. Tokens at
    ``padding`` [B, T] take no part in statistics over time; in the reference they do (9, point 11).
    """
    total = reduce(torch.add, (normalise(result.float(), each, padding) for result in results))
    return normalise(total / len(results), final, padding)


def normalise(x: Tensor, norms: Sequence[Norm], padding: Tensor | None = None) -> Tensor:
    """Apply parameter-free norms: ``instance`` over time per sample and channel, ``layer`` over channels."""
    for norm in norms:
        if norm == "layer":
            x = F.layer_norm(x, x.shape[-1:], eps=EPSILON)
        elif padding is None:
            x = F.instance_norm(x.transpose(1, 2), eps=EPSILON).transpose(1, 2)
        else:
            x = normalise_real(x, (~padding).unsqueeze(-1))
    return x


def normalise_real(x: Tensor, real: Tensor) -> Tensor:
    """Return [B, T, D] with zero mean and unit variance per channel over the tokens at ``real`` [B, T, 1]."""
    count = real.sum(dim=1, keepdim=True).clamp(min=1)
    centred = x - (x * real).sum(dim=1, keepdim=True) / count
    variance = (centred.square() * real).sum(dim=1, keepdim=True) / count
    return centred * (variance + EPSILON).rsqrt()
