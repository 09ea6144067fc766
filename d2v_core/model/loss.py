"""What one forward pass gives to the training loop."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """A summed loss and what it is summed over; the rest is looked at only when a record is due.

    B samples · T tokens · D width
    """

    total: Tensor  # scalar, summed over ``count`` masked tokens or samples
    count: Tensor  # scalar, the number the gradient is divided by
    samples: int
    targets: Tensor | None = None  # [B, T, D] float32, at all tokens
    masked_targets: Tensor | None = None  # [masked tokens, D] float32
    predictions: Tensor | None = None  # [masked tokens, D] float32
    tokens: tuple[int, int] | None = None  # encoded by the student and by the teacher, padding and class tokens too
    member: int | None = None  # in joint training, the number of the modality
    features: Tensor | None = None  # [B, T, D] what the local encoder made of the input
    context: Tensor | None = None  # [B, T, D] what the student made of the tokens it saw
    padding: Tensor | None = None  # [B, T] True at padding; None where there is none
