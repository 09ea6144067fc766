"""data2vec 2.0: several masked views of every sample, encoded without what they hide, against one set of targets.

B samples · M views · T tokens · D width (reference, chapter 5)
"""

import torch
from torch import Tensor

from d2v_core.model.data2vec import Data2Vec, ViewsConfig, regression_loss
from d2v_core.model.decoder import Decoder
from d2v_core.model.encoder import Inputs
from d2v_core.model.loss import Loss


class Data2Vec2(Data2Vec):
    """A student whose head is a convolutional decoder over visible tokens and noise, and the teacher it chases."""

    head: Decoder

    @property
    def views(self) -> ViewsConfig:
        """What version 2 adds; a config without it is one of version 1."""
        assert self.config.views is not None
        return self.config.views

    def forward(self, inputs: Inputs) -> Loss:
        """Return the loss over the masked tokens of all views; the views of a sample are adjacent rows.

        ``inputs["mask"]`` [B·M, T] bool and ``inputs["visible"]`` [B·M, visible tokens] int64 say what a view hides
        and shows; ``inputs["masked"]`` holds the numbers of the tokens to predict, counted through all views.
        """
        views, mask, visible, masked = self.views, inputs["mask"], inputs["visible"], inputs["masked"]
        features, padding = self.student.local(inputs)
        repeated = features.repeat_interleave(views.count, dim=0)
        repeated_padding = None if padding is None else padding.repeat_interleave(views.count, dim=0)
        student = self.student.contextualise(repeated, repeated_padding, mask, visible)
        targets = self.targets(inputs, features, padding)
        predictions = self.head(self.fill(student.x, visible, mask.shape[1]), masked).float()
        sample, place = masked // (views.count * mask.shape[1]), masked % mask.shape[1]
        masked_targets = targets[sample, place]
        total = regression_loss(predictions, masked_targets, self.config.loss)
        if views.class_weight:
            total = total + views.class_weight * len(masked) * self.class_loss(student.extra, targets)
        return self.loss(total, features, padding, student, targets, masked_targets, predictions)

    def fill(self, visible_tokens: Tensor, visible: Tensor, tokens: int) -> Tensor:
        """Return [B·M, T, D]: encoded tokens back at their places, noise everywhere else (reference 5.8)."""
        filled = self.noise(visible_tokens, tokens)
        where = visible.unsqueeze(-1).expand_as(visible_tokens)
        return filled.scatter(1, where, self.head.input_dropout(visible_tokens).to(filled.dtype))

    def noise(self, like: Tensor, tokens: int) -> Tensor:
        """Return fresh noise [B·M, T, D]: there is no learned mask vector."""
        return torch.randn(len(like), tokens, like.shape[-1], device=like.device) * self.views.noise

    def class_loss(self, classes: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of class tokens [B·M, 1, D] against the mean target of their sample, summed (5.10)."""
        means = targets.mean(dim=1).repeat_interleave(self.views.count, dim=0)
        return regression_loss(classes.squeeze(1).float(), means, self.config.loss)
