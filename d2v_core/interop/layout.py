"""What one kind of foreign checkpoint is called and how its sizes are found: the record that a reader goes by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from d2v_core.interop.names import Names
from d2v_core.interop.settings import Settings

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """One modality in one file format; "their names" are those after ``clean``."""

    modality: str
    version: int
    sign: str  # the name of a tensor that files of this kind have, and no others
    names: Names  # of the encoder, our names to theirs
    heads: Mapping[str, Names]  # of fine-tuned heads, by their kind
    predicts: tuple[Names, ...]  # of what predicts targets in pretraining, as different files call it
    inside: tuple[str, ...]  # beginnings of names that belong to the encoder: none of them may be left over
    harmless: str  # pattern of names that mean nothing for the result
    teacher: str  # what the teacher's names lack in front
    clean: Callable[[Tensors], dict[str, Tensor]]  # their names as all files of this kind should have them
    block: Callable[[Tensors, Settings, str | None], dict]  # tensors, settings, kind of head → version, table, model


def strip(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    """Return ``tensors`` with ``prefix`` taken off the names that begin with it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def count(tensors: Tensors, pattern: str) -> int:
    """Return how many tensors ``pattern``, with ``#`` for their number, names: 0, 1, 2, ... without a gap."""
    number = 0
    while pattern.replace("#", str(number)) in tensors:
        number += 1
    return number


def heads_of(width: int, settings: Settings, *names: str) -> int:
    """Return the number of attention heads, which no tensor tells: as the file says, or one per 64 channels."""
    return settings.get(max(width // 64, 1), *names)
