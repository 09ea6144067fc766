"""Run folders: what training publishes and everything else loads. Tensors and plain values only.

``config.json`` says what the weights in ``model.safetensors`` belong to and how they came to be.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from d2v_core.data.files import publish_folder
from d2v_core.errors import UserError

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def write_run(folder: Path, config: Mapping, weights: Mapping[str, Tensor]) -> None:
    """Publish a run folder; a reader finds all of it or none."""
    with publish_folder(folder) as temporary:
        (temporary / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        safetensors.torch.save_file(tensors, temporary / WEIGHTS)


def read_config(folder: Path) -> dict:
    """Return the configuration of the run at ``folder``; raise UserError when there is none."""
    try:
        return json.loads((Path(folder) / CONFIG).read_text())
    except FileNotFoundError:
        raise UserError(f"{folder} is not a run folder ({CONFIG} is missing); train it first.") from None
    except ValueError as error:
        raise UserError(f"{folder}/{CONFIG} is damaged ({error}); train the run again.") from None


def read_weights(folder: Path, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of the run at ``folder`` whose name starts with ``prefix``, without it."""
    try:
        weights = safetensors.torch.load_file(Path(folder) / WEIGHTS)
    except (FileNotFoundError, safetensors.SafetensorError) as error:
        raise UserError(f"{folder}/{WEIGHTS} cannot be read ({error}); train the run again.") from None
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
