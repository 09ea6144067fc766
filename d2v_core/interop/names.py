"""Which weight of ours is which of a foreign format: tables of names, applied in both directions.

A table maps a pattern of our names to the pattern of theirs. ``#`` stands for a number and ``*`` for a last part such
as ``weight``, in the same order on both sides. ``{a,b,c}`` names several tensors that are the rows of one of ours, and
``[a,b,c]`` several that are stacked in one of ours.
"""

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from d2v_core.config import require
from d2v_core.errors import UserError

Names = Mapping[str, str]
NAMED = 3  # missing weights that an error names


def find(ours: str, names: Names) -> tuple[str, tuple[str, ...]]:
    """Return the pattern that the weight ``ours`` fits, and what stands for ``#`` and ``*`` in it; raise KeyError."""
    for pattern in names:
        matched = re.fullmatch(re.escape(pattern).replace(r"\#", r"(\d+)").replace(r"\*", r"(\w+)"), ours)
        if matched:
            return pattern, matched.groups()
    raise KeyError(ours)


def their_names(ours: str, names: Names) -> tuple[list[str], bool]:
    """Return what the weight ``ours`` is called in their files, and whether several of theirs are stacked in it.

    Raises KeyError for a weight that has no counterpart.
    """
    pattern, groups = find(ours, names)
    values = iter(groups)
    return spread(re.sub(r"[#*]", lambda _: next(values), names[pattern]))


def spread(template: str) -> tuple[list[str], bool]:
    """Return ``x.{a,b}.y`` as [x.a.y, x.b.y], and whether the bracket was a square one."""
    parts = re.fullmatch(r"(.*)([\[{])(.*)[\]}](.*)", template)
    if parts is None:
        return [template], False
    before, bracket, inner, after = parts.groups()
    return [before + part + after for part in inner.split(",")], bracket == "["


def to_ours(theirs: Mapping[str, Tensor], wanted: Mapping[str, Tensor], names: Names, where: str) -> dict[str, Tensor]:
    """Return the weights ``wanted``, which gives their names and shapes, as float32; ``theirs`` may hold more.

    Raises UserError, with ``where`` they are, for weights that are missing or have another shape.
    """
    missing = [source for name in wanted for source in their_names(name, names)[0] if source not in theirs]
    if missing:
        named = ", ".join(missing[:NAMED])
        raise UserError(f"{where} lacks {len(missing)} of the model's weights, such as {named}; fetch it again.")
    found = {}
    for name, like in wanted.items():
        sources, stacked = their_names(name, names)
        parts = [theirs[source].float() for source in sources]
        shape = list(like.shape[1:]) if stacked else [like.shape[0] // len(parts), *like.shape[1:]]
        for source, part in zip(sources, parts, strict=True):
            if list(part.shape) != shape:
                raise UserError(
                    f"{where} has {source} of shape {list(part.shape)}, not {shape} as its other weights and settings "
                    "ask for; fetch it again."
                )
        found[name] = torch.stack(parts) if stacked else torch.cat(parts)
    return found


def to_theirs(ours: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Return our weights by their names."""
    found: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        targets, stacked = their_names(name, names)
        parts = tensor.unbind() if stacked else tensor.chunk(len(targets))
        found |= {target: part.detach().cpu().contiguous() for target, part in zip(targets, parts, strict=True)}
    return found


def fits(ours: Collection[str], names: Names) -> bool:
    """Tell whether every weight of ``ours`` has a place in the table ``names``, and no place stays empty."""
    try:
        return {find(name, names)[0] for name in ours} == set(names)
    except KeyError:
        return False


def class_names(theirs: Mapping) -> list[str]:
    """Return the names in ``id2label``, which is left out where it says LABEL_0 and LABEL_1; raise ValueError."""
    labels = theirs.get("id2label") or {str(number): f"LABEL_{number}" for number in range(theirs.get("num_labels", 2))}
    numbers = sorted(map(int, labels))
    require(numbers == list(range(len(numbers))), f"id2label numbers its classes {numbers}")
    return [labels[str(number)] for number in numbers]
