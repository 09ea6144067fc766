"""What one forward pass of ours computes, under the reference's names.

B samples · M views · T tokens · D width
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from d2v_core.model.data2vec import Data2Vec, regression_loss
from d2v_core.model.loss import Loss
from d2v_core.training.monitor import spread
from tests.parity.models import CASES, Case, golden

Numbers = dict[str, Tensor]
REFERENCE_MODALITY = {"speech": "AUDIO", "vision": "IMAGE", "text": "TEXT"}


def inputs_of(name: str, part: str = "") -> Numbers:
    """Return the batch of a golden model as ours takes it; ``part`` is the prefix of an extra case."""
    case, dumped = CASES[name], golden(name)
    mask = dumped.get(f"{part}mask", dumped["mask"])
    inputs = {"mask": mask, "masked": mask.flatten().nonzero().squeeze(1)}
    if name == "v1_text":
        teacher = dumped.get(f"{part}input/target_tokens", dumped["input/target_tokens"])
        return inputs | {"inputs": teacher, "corrupted": dumped["input/src_tokens"]}
    source = "input/img" if name == "v1_vision" else "input/source"
    inputs["inputs"] = dumped.get(part + source, dumped[source])
    if case.modality == "speech" and f"{part}input/padding_mask" in dumped:
        inputs["lengths"] = (~dumped[f"{part}input/padding_mask"]).sum(dim=1)
    if case.version == 2:
        inputs["visible"] = dumped["mask_info/ids_keep"]
    return inputs


def dumped_noise(name: str) -> Tensor:
    """Return the reference's noise [B·M, T, D] in the order of the tokens, zeros at visible ones."""
    noise, restore = golden(name)["mask_noise"], golden(name)["mask_info/ids_restore"]
    visible = noise.new_zeros(len(noise), restore.shape[1] - noise.shape[1], noise.shape[2])
    return torch.cat([visible, noise], dim=1).gather(1, restore.unsqueeze(-1).expand(-1, -1, noise.shape[2]))


@contextmanager
def watched(model: nn.Module) -> Iterator[dict[str, tuple]]:
    """Collect (arguments, result) of the first call of every sub-module, by its name."""
    seen: dict[str, tuple] = {}

    def watch(name: str):
        return lambda module, arguments, result: seen.setdefault(name, (arguments, result)) and None

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    yield seen
    for handle in handles:
        handle.remove()


def one_pass(model: Data2Vec, case: Case, inputs: Numbers) -> tuple[Numbers, Tensor]:
    """Return what one forward pass computes, and the mean loss that a trainer would differentiate."""
    with watched(model) as seen:
        loss = model(inputs)
    numbers = {
        "loss": loss.total,
        "sample_size": loss.count,
        "pred_var": torch.tensor(spread(loss.predictions)),
        "target_var": torch.tensor(spread(loss.masked_targets)),
        "student/x": loss.predictions,
        "target/y": loss.masked_targets,
        "target/y_full": loss.targets,
    }
    numbers |= local_values(model, case, seen) | block_values(model, case, seen)
    if case.version == 2:
        numbers |= second_version(model, case, seen, loss)
    return {key: value.detach() for key, value in numbers.items()}, loss.total / loss.count


def local_values(model: Data2Vec, case: Case, seen: dict[str, tuple]) -> Numbers:
    """Return what the student's local encoder makes of the batch."""
    tokens, padding = seen["student.local"][1]
    padding = torch.zeros(tokens.shape[:2], dtype=torch.bool) if padding is None else padding
    numbers = dict.fromkeys(("inter/features", "inter/patch_embed", "inter/local_features"), tokens)
    numbers["inter/frame_padding_mask"] = padding
    if case.modality == "speech":
        last = len(model.student.local.extractor) - 1
        numbers["inter/conv_features"] = seen[f"student.local.extractor.{last}"][1].transpose(1, 2)
    return numbers


def block_values(model: Data2Vec, case: Case, seen: dict[str, tuple]) -> Numbers:
    """Return what the main blocks of student and teacher make of it; class tokens are kept in block outputs alone."""
    extra = model.student.local.extra
    result = 0 if model.config.targets.result == "block" else 1
    numbers = {"student/encoder_out": seen["student.trunk"][1][0][:, extra:]}
    for number in range(case.blocks):
        place = f"trunk.blocks.{case.prenet + number}"
        teacher = seen[f"teacher.encoder.{place}"][1]
        numbers[f"student/layer_{number}"] = seen[f"student.{place}"][1][0]
        numbers[f"teacher/layer_out_{number}"] = teacher[0]
        numbers[f"target/layer_{number}"] = teacher[result][:, extra:]
    return numbers


def second_version(model: Data2Vec, case: Case, seen: dict[str, tuple], loss: Loss) -> Numbers:
    """Return what data2vec 2.0 alone computes."""
    views = model.config.views
    filled = seen["head"][0][0]
    everywhere = torch.arange(filled.shape[0] * filled.shape[1])
    kept = seen[f"student.trunk.blocks.{case.prenet}"][0][0]
    visible = kept.shape[1] - model.student.local.extra
    numbers = {
        "masked_pct": torch.tensor(1 - visible / filled.shape[1]),
        "inter/context_encoder_out": kept,
        "student/decoder_in": filled,
        "student/decoder_out": model.head(filled, everywhere).view_as(filled),
    }
    term = f"loss/{REFERENCE_MODALITY[case.modality]}_regression"
    numbers[term] = regression_loss(loss.predictions, loss.masked_targets, model.config.loss)
    if views.class_weight:
        classes = seen["student.trunk"][1][0][:, :1]
        numbers["student/cls_pred"] = classes.squeeze(1)
        numbers["target/cls"] = loss.targets.mean(dim=1).repeat_interleave(views.count, dim=0)
        numbers["loss/cls"] = views.class_weight * loss.count * model.class_loss(classes, loss.targets)
    return numbers
