"""The teacher: an exponential moving average of the student, stepped exactly once per optimizer update.

τ decay · n number of updates done (reference 1.2 and 1.3)
"""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from d2v_core.model.encoder import Encoder


def decay_at(update: int, start: float, end: float, ramp: int) -> float:
    """Return τ(n): linear from ``start`` to ``end`` over ``ramp`` updates, constant afterwards."""
    if update >= ramp:
        return end
    return start + (end - start) * update / ramp


class Teacher(nn.Module):
    """An averaged copy of an encoder, in float32, never trained by gradients and always in evaluation mode.

    Parameters whose name starts with one of ``elsewhere`` are another teacher's too, and refreshed there.
    """

    def __init__(self, student: Encoder, copied: Sequence[str]) -> None:
        """Start as a copy of ``student``; parameters whose name starts with one of ``copied`` are never averaged."""
        super().__init__()
        self.encoder = copy.deepcopy(student).float().requires_grad_(False)
        self.copied = tuple(copied)
        self.elsewhere: tuple[str, ...] = ()
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode: no dropout and no layer drop in the teacher."""
        return super().train(False)

    @torch.no_grad()
    def refresh(self, student: Encoder, decay: float) -> None:
        """Move Δ ← τ·Δ + (1−τ)·θ; τ ≥ 1 freezes the averages. Copied parameters and all buffers follow at once."""
        own = dict(self.encoder.named_parameters())
        apart = self.copied + self.elsewhere
        averaged = [(own[name], new) for name, new in student.named_parameters() if not name.startswith(apart)]
        if averaged and decay < 1:
            averages, news = (list(side) for side in zip(*averaged, strict=True))
            torch._foreach_lerp_(averages, [new.float() for new in news], 1 - decay)
        for name, new in student.named_parameters():
            if name.startswith(self.copied):
                own[name].copy_(new)
        for kept, buffer in zip(self.encoder.buffers(), student.buffers(), strict=True):
            kept.copy_(buffer)
