"""Run folders: what training publishes and everything else loads. Tensors and plain values only.

``config.json`` says what the weights in ``model.safetensors`` belong to and how they came to be.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor, nn

from d2v_core.data.files import publish_folder
from d2v_core.errors import UserError
from d2v_core.training.checkpoint import room_for

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def write_run(folder: Path, config: Mapping, weights: Mapping[str, Tensor]) -> None:
    """Publish a run folder; a reader finds all of it or none. Raises UserError where there is no room for it."""
    folder = Path(folder)
    again = "and run it again: it goes on from its last checkpoint"
    with room_for(weights, folder.parent, "a model", again), publish_folder(folder) as temporary:
        (temporary / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        safetensors.torch.save_file(tensors, temporary / WEIGHTS)


def read_config(folder: Path) -> dict:
    """Return the configuration of the run at ``folder``; raise UserError when there is none."""
    try:
        config = json.loads((Path(folder) / CONFIG).read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} is not a run folder ({CONFIG} is missing); train it first.") from None
    except ValueError as error:
        raise UserError(f"{folder}/{CONFIG} is damaged ({error}); train the run again.") from None
    if not isinstance(config, dict):
        raise UserError(f"{folder}/{CONFIG} is damaged (it holds no object); train the run again.")
    return config


def read_weights(folder: Path, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of the run at ``folder`` whose name starts with ``prefix``, without it."""
    try:
        weights = safetensors.torch.load_file(Path(folder) / WEIGHTS)
    except (FileNotFoundError, safetensors.SafetensorError) as error:
        raise UserError(f"{folder}/{WEIGHTS} cannot be read ({error}); train the run again.") from None
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def digest(folder: Path) -> str:
    """Return 12 hexadecimal digits that tell the weights of the run at ``folder`` from others."""
    with (Path(folder) / WEIGHTS).open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:12]


def fill(model: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Load ``weights`` of the run at ``folder`` into ``model``; raise UserError unless names and shapes are its own."""
    own = model.state_dict()
    shapes = [{name: tensor.shape for name, tensor in tensors.items()} for tensors in (own, weights)]
    odd = sorted(name for name in own.keys() | weights.keys() if shapes[0].get(name) != shapes[1].get(name))
    if odd:
        raise UserError(
            f"{folder}/{WEIGHTS} does not fit its {CONFIG}, as {odd[0]!r} shows; use the version of d2v that made it, "
            "or train the run again."
        )
    model.load_state_dict(weights)
