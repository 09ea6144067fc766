"""What the student has to predict: the teacher's top-K block results, normalised and averaged (reference 1.5).

B samples · T tokens · D width · K blocks
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Norm = Literal["instance", "layer"]


def average_targets(results: Sequence[Tensor], each: Sequence[Norm], final: Sequence[Norm]) -> Tensor:
    """Return targets [B, T, D] float32 from K block results [B, T, D].

    Every result is normalised by the norms in ``each``, in order, then their mean by those in ``final``.
    """
    total = sum(normalise(result.float(), each) for result in results)
    return normalise(total / len(results), final)


def normalise(x: Tensor, norms: Sequence[Norm]) -> Tensor:
    """Apply parameter-free norms: ``instance`` over time per sample and channel, ``layer`` over channels."""
    for norm in norms:
        if norm == "instance":
            x = F.instance_norm(x.transpose(1, 2)).transpose(1, 2)
        else:
            x = F.layer_norm(x, x.shape[-1:])
    return x
