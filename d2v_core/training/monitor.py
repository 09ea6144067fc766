"""Is it learning or collapsing? Numbers that tell, computed only when a record is due.

B samples · T tokens · D width
"""

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from d2v_core.model.loss import Loss
from d2v_core.training.ranks import ALONE, Ranks

LEAST_TARGET_SPREAD, LEAST_PREDICTION_SPREAD = 0.1, 0.01  # reference 1.7
MOST_POSITION_SHARE = 0.98  # of the targets' variance
MOST_CHANGE = 0.15  # of a weight by an update, as a share of the mean size of weights


@torch.no_grad()
def describe(loss: Loss, model: nn.Module, ranks: Ranks = ALONE) -> dict[str, float]:
    """Return the collapse monitors of one forward pass, over all ranks: spreads, and what alone explains the targets.

    ``target_spread`` and ``prediction_spread`` are standard deviations over masked tokens, averaged over channels
    (reference 1.7). ``position_share`` and ``sample_share`` are the shares of the targets' variance that the token's
    position alone, or the sample alone, explains: a run can collapse onto position with a falling loss and a healthy
    spread. ``feature_spread`` and ``context_spread`` are those of the parts before: of what the local encoder makes of
    the input, and the student of the tokens it sees. ``student_tokens`` and ``teacher_tokens`` went through the trunks.
    """
    if loss.targets is None or loss.tokens is None:
        return {}
    parts = {
        "target_spread": loss.masked_targets,
        "prediction_spread": loss.predictions,
        "feature_spread": loss.features,
        "context_spread": loss.context,
    }
    return {
        **({} if loss.member is None else {"member": loss.member}),
        "student_tokens": loss.tokens[0],
        "teacher_tokens": loss.tokens[1],
        "decay": cast(float, model.decay),
        **{name: spread(part.flatten(0, -2), ranks) for name, part in parts.items() if part is not None},
        "position_share": mean_share(loss.targets, ranks),
        "sample_share": mean_share(loss.targets.transpose(0, 1), ranks),
    }


def alarms(record: Mapping[str, float], updates: int) -> list[str]:
    """Return a sentence for everything in a record that looks like a run of ``updates`` going wrong.

    Predictions are alike at first, so they are looked at in the second half. Adam moves a weight by about the rate: a
    rate near the size of the weights forgets them in a few updates, whatever the spreads say.
    """
    said = collapse(record, record["update"] > updates / 2)
    if record.get("skipped"):
        said.append(f"{record['skipped']:.0f} updates had no finite gradient and were skipped.")
    if record["rate"] > MOST_CHANGE * record["weight"]:
        change = record["rate"] / record["weight"]
        said.append(f"an update may change weights by {change:.0%} of their mean size; lower optimizer.rate.")
    if record.get("position_share", 0.0) > MOST_POSITION_SHARE:
        said.append(f"position alone explains {record['position_share']:.0%} of the targets: they carry no content.")
    return said


def collapse(record: Mapping[str, float], predictions: bool) -> list[str]:
    """Return a sentence for targets, and for ``predictions`` where asked, that are more alike than 1.7 allows."""
    said = []
    if record.get("target_spread", 1.0) < LEAST_TARGET_SPREAD:
        said.append(f"the targets hardly differ ({record['target_spread']:.3g}): the teacher may have collapsed.")
    if predictions and record.get("prediction_spread", 1.0) < LEAST_PREDICTION_SPREAD:
        said.append(f"the predictions hardly differ ({record['prediction_spread']:.3g}).")
    return said


def spread(x: Tensor, ranks: Ranks = ALONE) -> float:
    """Return the standard deviation of [tokens, D] over the tokens of all ranks, averaged over channels."""
    x = x.double()
    ones = torch.ones_like(x[:1])
    count, total, squares = ranks.total(torch.cat([ones * len(x), x.sum(0, True), x.square().sum(0, True)]))
    variance = (squares - total.square() / count) / (count - 1)
    return float((variance.clamp(min=0) + 1e-6).sqrt().mean())


@torch.no_grad()
def mean_size(parameters: list[nn.Parameter]) -> float:
    """Return the root mean square of the matrices among ``parameters``: what Adam's steps of about a rate change."""
    matrices: list[Tensor] = [parameter for parameter in parameters if parameter.ndim > 1]
    norms = torch.stack(torch._foreach_norm(matrices)).double().square().sum()
    return float((norms / sum(matrix.numel() for matrix in matrices)).sqrt())


def mean_share(x: Tensor, ranks: Ranks) -> float:
    """Return the mean over ranks of ``explained_share``."""
    return float(ranks.total(x.new_tensor(explained_share(x)))) / ranks.size


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
