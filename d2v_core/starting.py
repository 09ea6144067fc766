"""Pretraining that begins with the weights of a run, ours or a converted one, and not with random ones.

``pretrain.start`` names the run as FOLDER@DIGEST. The digest is that of its weights: so parameters say what a run
depends on, to whoever compares them (DVC, resuming), and the folder is needed only until there is a checkpoint.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from d2v_core.errors import UserError
from d2v_core.model.data2vec import Data2Vec
from d2v_core.run import digest, fill, read_config, read_weights
from d2v_core.setup import Setup, setup_of

DIGEST = re.compile("@[0-9a-f]{12}$")
FREE = {  # keys that say how a model learns or what its first weights are, and not what its weights mean
    *("dropout", "attention_dropout", "activation_dropout", "layer_drop", "drop_path"),
    *("init", "init_std", "class_std", "position_std", "taps", "train_positions"),
    *("min_seconds", "max_seconds", "margin"),
}


def folder_of(start: str) -> Path:
    """Return the folder that ``start`` names."""
    return Path(DIGEST.sub("", start))


def begin(model: Data2Vec, setup: Setup, start: str) -> None:
    """Give the new ``model`` the weights of the run that ``start`` names.

    The student and, as in the second stage of the published ViT-L (reference 3.7), the teacher begin with the run's
    student. What predicts, the head of version 1 or the decoder of version 2, begins with the run's where that has the
    same names and shapes, and stays new where the run was fine-tuned, has none or another one. Raises UserError when
    the run's encoder is not that of ``setup``, or the digest not that of the run's weights.
    """
    folder = folder_of(start)
    config = read_config(folder)
    check_encoder(setup, setup_of(config, folder), folder)
    weights = read_weights(folder)
    named = f"{folder}@{digest(folder)}"
    if start != named:
        raise UserError(
            f"{setup.name}: pretrain.start must say which weights it means; set it to {named}, not {start}."
        )
    fill(model.student, part(weights, "encoder."), folder)
    model.teacher.encoder.load_state_dict(model.student.state_dict())
    head, own = part(weights, "head."), model.head.state_dict()
    if "head" not in config and shapes(head) == shapes(own):
        model.head.load_state_dict(head)


def check_encoder(ours: Setup, theirs: Setup, folder: Path) -> None:
    """Raise UserError unless the encoder of the run at ``folder`` is that of ``ours``, but for what is ``FREE``."""
    if theirs.name != ours.name:
        raise UserError(f"{ours.name}: pretrain.start names {folder}, which is a model of {theirs.name}.")
    settings = dict(kept(theirs.describe()))
    for key, value in kept(ours.describe()):
        if settings.get(key) != value:
            raise UserError(
                f"{ours.name}: {key} is {value}, but {settings.get(key)} in {folder}, which pretrain.start names; make "
                "it the same or start from another run."
            )


def kept(described: Mapping) -> Iterator[tuple[str, object]]:
    """Yield the dotted keys of a setup on which the meaning of its encoder's weights depends, with their values."""
    model = described["model"]
    for block, values in (
        ("table", described["table"]),
        ("model.local", model["local"]),
        ("model.trunk", model["trunk"]),
    ):
        for key, value in values.items():
            if key == "layer_scale":  # a number is the first value of weights that null leaves out
                yield f"{block}.{key}", None if value is None else "a number"
            elif key not in FREE:
                yield f"{block}.{key}", value


def part(weights: Mapping, prefix: str) -> dict:
    """Return the tensors whose name starts with ``prefix``, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def shapes(weights: Mapping) -> dict:
    """Return the shapes of tensors by their names."""
    return {name: tensor.shape for name, tensor in weights.items()}
