"""The reference's numbers beside ours: one row for every quantity, and no dumped number without a row or a reason."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.parity.models import golden
from tests.parity.passes import Numbers


@dataclass(frozen=True)
class Bar:
    """How far apart two values may be: ``kind`` of difference, ``limit``, for ``what``, and why this one."""

    pattern: str
    kind: str
    limit: float
    what: str
    why: str


BARS = (
    Bar(r"(.+/)?sample_size|.+padding_mask", "absolute", 0.0, "counts and masks", "equal or wrong"),
    Bar(r"weights/\*|ema_init/\*", "absolute", 1e-6, "tables that nobody learns", "a rounding of numbers up to 1"),
    Bar(r"trace/ema_decay|masked_pct", "absolute", 1e-6, "decays and shares", "a rounding of numbers up to 1"),
    Bar(r"ema/\*", "absolute", 2e-6, "the teacher after one update", "a few roundings of numbers of order one"),
    Bar(r"(.+/)?loss(/.+)?", "relative", 1e-5, "losses", "the reference with another PyTorch differs by 3e-7"),
    Bar(
        r"grad.*", "absolute", 2e-5, "gradients, norms up to 59", "the reference with another PyTorch differs by 5.5e-6"
    ),
    Bar(r"trace/.+_norm_after_5/\*", "absolute", 2e-5, "norms of weights, up to 23", "float32 resolves 2e-6 there"),
    Bar(r".+", "absolute", 2e-5, "activations, targets", "the reference with another PyTorch differs by 1.1e-5"),
)
GIVEN = {
    r"weights/.+": "loaded into our student and its head; loading fails when one has no place there",
    r"ema_init/.+": "loaded into our teacher",
    r"(.+/)?input/(source|img|padding_mask|src_tokens|target_tokens)": "the batch that both models get",
    r"(.+/)?mask": "the masks that both models get",
    r"input/precomputed_mask": "`mask` once more",
    r"mask_info/ids_(keep|restore)": "the places of visible tokens, in the order in which both models get them",
    r"mask_noise": "the noise that both decoders get",
}
LEFT_OUT = {
    ("v1_text", r".+[./]version"): "a version number among the tensors, which nothing computes with",
    ("v1_vision", r".+/final_proj\.(weight|bias)"): "a layer of the port that takes no part in its forward pass",
    ("v2_text", r"mask_info/noise"): "the draw behind `mask_info/ids_keep`: our masks come from other generators",
    ("v2_text", r"input/id"): "the number of a sample, which seeds that draw",
}
IN_PART = {
    ("v1_audio", "student/layer_i"): "the reference adds one frame to make their number even: without that frame",
}
FAMILIES = ("grad/", "grad_norm/", "ema/", "ema_init/", "weights/", "trace/weight_norm_after_5/")
FAMILIES += ("trace/ema_norm_after_5/",)


@dataclass(frozen=True)
class Row:
    """The largest difference of one quantity over its ``tensors``."""

    model: str
    quantity: str
    tensors: int
    difference: float
    bar: Bar

    @property
    def holds(self) -> bool:
        """Whether the difference is within the bar; NaN is not."""
        return self.difference <= self.bar.limit


def quantity_of(key: str) -> str:
    """Return the name under which a dumped tensor is reported: parameters together, blocks together."""
    for family in FAMILIES:
        if key.startswith(family):
            return family + "*"
    return re.sub(r"layer_(out_)?\d+", r"layer_\1i", key)


def bar_of(quantity: str) -> Bar:
    """Return the first bar that is meant for ``quantity``."""
    return next(bar for bar in BARS if re.fullmatch(bar.pattern, quantity))


def rows(name: str, ours: Numbers) -> list[Row]:
    """Return the rows of one golden model, in the order of the dumped keys."""
    differences: dict[str, list[Tensor]] = {}
    for key, theirs in sorted(golden(name).items()):
        if key in ours:
            quantity = quantity_of(key)
            difference = apart(ours[key], in_part(name, key, theirs, ours[key]), bar_of(quantity).kind)
            differences.setdefault(quantity, []).append(difference)
    return [
        Row(name, quantity, len(found), float(torch.stack(found).max()), bar_of(quantity))
        for quantity, found in differences.items()
    ]


def in_part(name: str, key: str, theirs: Tensor, ours: Tensor) -> Tensor:
    """Return the reference's tensor without what ours does not have, where ``IN_PART`` says so."""
    known = any(name == model and quantity == quantity_of(key) for model, quantity in IN_PART)
    return theirs[:, : ours.shape[1]] if known else theirs


def apart(ours: Tensor, theirs: Tensor, kind: str) -> Tensor:
    """Return the largest absolute or relative difference of two tensors of one shape."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} is not {tuple(theirs.shape)}"
    difference = (ours.double() - theirs.double()).abs()
    return (difference / theirs.double().abs() if kind == "relative" else difference).max()


def reason(name: str, key: str) -> str | None:
    """Return why a dumped tensor is not compared, or None without a reason."""
    left_out = {pattern: why for (model, pattern), why in LEFT_OUT.items() if model == name}
    return next((why for pattern, why in (left_out | GIVEN).items() if re.fullmatch(pattern, key)), None)


def not_compared(name: str, ours: Numbers) -> set[tuple[str, str | None]]:
    """Return (quantity, reason) of what was dumped and has no counterpart in ``ours``, or not for all its tensors."""
    return {(quantity_of(key), reason(name, key)) for key in golden(name) if key not in ours}
