"""data2vec 1.0: the student sees a masked input and predicts what its teacher makes of the full one.

B samples · T tokens · D width · K blocks averaged (reference, chapters 1 to 4)
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2v_core.config import require
from d2v_core.model.decoder import DecoderConfig
from d2v_core.model.encoder import Encoded, Encoder, Inputs
from d2v_core.model.loss import Loss
from d2v_core.model.targets import Norm, average_targets
from d2v_core.model.teacher import Teacher, decay_at


@dataclass(frozen=True)
class TeacherConfig:
    """The decay τ of the moving average: linear from ``start`` to ``end`` over ``ramp`` updates.

    Parameters whose name starts with one of ``copied`` follow the student without averaging. With
    ``shared_features`` the teacher starts from the student's local features, not from the input (reference 1.3).
    """

    start: float
    end: float
    ramp: int
    copied: tuple[str, ...]
    shared_features: bool

    def __post_init__(self) -> None:
        require(0 <= self.start <= 1, f"start must be in [0, 1], not {self.start}.")
        require(0 <= self.end <= 1, f"end must be in [0, 1], not {self.end}.")


@dataclass(frozen=True)
class TargetConfig:
    """Which teacher tensors are predicted: ``layers`` top blocks, their ``result``, and the norms around the mean."""

    layers: int
    result: Literal["feedforward", "block"]
    norm_each: tuple[Norm, ...]
    norm_mean: tuple[Norm, ...]


@dataclass(frozen=True)
class RegressionConfig:
    """Squared error (``beta`` 0) or smooth L1, summed over D and multiplied by ``scale`` (reference 1.6)."""

    beta: float
    scale: Literal["one", "inverse_sqrt_width", "inverse_width"]

    def __post_init__(self) -> None:
        require(self.beta >= 0, f"beta must not be negative, but is {self.beta}.")


@dataclass(frozen=True)
class ViewsConfig:
    """What version 2 adds: ``count`` masked views of every sample, and the decoder that predicts what they hide.

    ``noise`` is the standard deviation of what stands for hidden tokens in the decoder; ``class_weight`` is that of
    the class token's loss in a sum over views (reference 5.8, 5.10).
    """

    count: int
    noise: float
    class_weight: float
    decoder: DecoderConfig

    def __post_init__(self) -> None:
        require(self.count > 0, f"count must be positive, not {self.count}.")


@dataclass(frozen=True)
class Data2VecConfig:
    """The block ``objective`` of a modality; ``views`` belongs to version 2."""

    teacher: TeacherConfig
    targets: TargetConfig
    loss: RegressionConfig
    views: ViewsConfig | None = None


def regression_loss(prediction: Tensor, target: Tensor, config: RegressionConfig) -> Tensor:
    """Return the loss summed over tokens, a scalar, from prediction and target [tokens, D] float32."""
    if config.beta == 0:
        total = F.mse_loss(prediction, target, reduction="sum")
    else:
        total = F.smooth_l1_loss(prediction, target, beta=config.beta, reduction="sum")
    width = target.shape[-1]
    return total * {"one": 1.0, "inverse_sqrt_width": width**-0.5, "inverse_width": 1 / width}[config.scale]


class Data2Vec(nn.Module):
    """A student with its prediction head, and the teacher that it chases."""

    def __init__(self, student: Encoder, head: nn.Module, config: Data2VecConfig) -> None:
        super().__init__()
        self.student, self.head, self.config = student, head, config
        self.teacher = Teacher(student, config.teacher.copied)
        self.decay = config.teacher.start

    def begin_update(self, update: int) -> None:
        """Refresh the teacher: once per optimizer update, before the forward pass, from the second update on."""
        teacher = self.config.teacher
        self.decay = decay_at(update, teacher.start, teacher.end, teacher.ramp)
        if update > 0:
            self.teacher.refresh(self.student, self.decay)

    def forward(self, inputs: Inputs) -> Loss:
        """Return the loss over masked tokens.

        ``inputs["mask"]`` [B, T] bool is hidden from the student, and ``inputs["masked"]`` holds the numbers of the
        tokens to predict, [masked tokens] int64, counted through the batch. ``inputs["corrupted"]``, where a modality
        masks before its local encoder, is what the student gets instead of ``inputs["inputs"]``.
        """
        seen = {**inputs, "inputs": inputs.get("corrupted", inputs["inputs"])}
        features, padding = self.student.local(seen)
        student = self.student.contextualise(features, padding, inputs["mask"])
        targets = self.targets(inputs, features, padding)
        masked_targets = targets.flatten(0, 1)[inputs["masked"]]
        predictions = self.head(student.x.flatten(0, 1)[inputs["masked"]]).float()
        total = regression_loss(predictions, masked_targets, self.config.loss)
        return self.loss(total, features, padding, student, targets, masked_targets, predictions)

    def loss(
        self,
        total: Tensor,
        features: Tensor,
        padding: Tensor | None,
        student: Encoded,
        targets: Tensor,
        masked_targets: Tensor,
        predictions: Tensor,
    ) -> Loss:
        """Return the loss ``total``, summed over predictions, with what the monitors look at."""
        return Loss(
            total,
            count=total.new_full((), len(predictions)),
            samples=len(targets),
            targets=targets,
            masked_targets=masked_targets,
            predictions=predictions.detach(),
            tokens=(student.tokens, len(targets) * (targets.shape[1] + self.student.local.extra)),
            features=features.detach(),
            context=student.x.detach(),
            padding=padding,
        )

    @torch.no_grad()
    def targets(self, inputs: Inputs, features: Tensor, padding: Tensor | None) -> Tensor:
        """Return the teacher's targets [B, T, D] for the full, unmasked input."""
        teacher, config = self.teacher.encoder, self.config.targets
        if not self.config.teacher.shared_features:
            features, padding = teacher.local(inputs)
        encoded = teacher.contextualise(features, padding)
        results = encoded.outputs if config.result == "block" else encoded.results
        return average_targets(results[-config.layers :], config.norm_each, config.norm_mean, padding)
