"""Is it learning or collapsing? Numbers that tell, computed only when a record is due.

B samples · T tokens · D width
"""

import math

import torch
from torch import Tensor, nn

from d2v_core.model.loss import Loss


@torch.no_grad()
def describe(loss: Loss, model: nn.Module) -> dict[str, float]:
    """Return the collapse monitors of one forward pass: spreads, and what alone explains the targets.

    ``target_spread`` and ``prediction_spread`` are standard deviations over masked tokens, averaged over channels
    (reference 1.7). ``position_share`` and ``sample_share`` are the shares of the targets' variance that the token's
    position alone, or the sample alone, explains: a run can collapse onto position with a falling loss and a healthy
    spread. ``student_tokens`` and ``teacher_tokens`` are what the pass encoded.
    """
    if loss.targets is None:
        return {}
    return {
        **({} if loss.member is None else {"member": loss.member}),
        "student_tokens": loss.tokens[0],
        "teacher_tokens": loss.tokens[1],
        "decay": model.decay,
        "target_spread": spread(loss.masked_targets),
        "prediction_spread": spread(loss.predictions),
        "position_share": explained_share(loss.targets),
        "sample_share": explained_share(loss.targets.transpose(0, 1)),
    }


def spread(x: Tensor) -> float:
    """Return the standard deviation of [tokens, D] over tokens, averaged over channels."""
    return float((x.var(dim=0) + 1e-6).sqrt().mean())


def explained_share(x: Tensor) -> float:
    """Return the share of variance in [members, groups, D] that the group alone explains (analysis of variance).

    The estimate corrects for the noise of group means, so a share of 0 is found as about 0 with few members.
    """
    members, groups, _ = x.shape
    if members < 2 or groups < 2:
        return math.nan
    within = x.var(dim=0).mean()
    between = x.mean(dim=0).var(dim=0).mean() - within / members
    return float(between.clamp(min=0) / (between.clamp(min=0) + within + 1e-12))
