"""From a block of parameters to an encoder: the one place where a modality meets the trunk."""

import dataclasses
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from d2v_core import modalities
from d2v_core.config import build
from d2v_core.errors import UserError
from d2v_core.model.encoder import Encoder
from d2v_core.model.transformer import Transformer, TransformerConfig


@dataclasses.dataclass(frozen=True)
class Setup:
    """A modality and the sizes of its encoder."""

    name: str
    version: int
    modality: ModuleType
    config: Any  # the modality's Config
    trunk: TransformerConfig

    def encoder(self) -> Encoder:
        """Return a new encoder with random weights."""
        return Encoder(self.modality.Local(self.config, self.trunk), Transformer(self.trunk))

    def describe(self) -> dict:
        """Return the plain values from which ``make_setup`` builds this setup again."""
        model = dataclasses.asdict(self.config)
        table = model.pop("table")
        trunk = dataclasses.asdict(self.trunk)
        return {"modality": self.name, "version": self.version, "table": table, "model": {**model, "trunk": trunk}}


def setup_of(config: Mapping, folder: object) -> Setup:
    """Return the setup in the config.json of the run at ``folder``; raise UserError when it is of another version."""
    try:
        return make_setup(str(config.get("modality")), config, "it")
    except UserError as error:
        wrong, *_ = re.split(r"; |\. |\.$", str(error).removeprefix("it."))  # without the advice for params.yaml
        raise UserError(
            f"{folder}/config.json is not of this version of d2v ({wrong}); use the version that made it, or train "
            "the run again."
        ) from None


def make_setup(name: str, block: Mapping, where: str) -> Setup:
    """Build the setup of modality ``name`` from its params block; ``where`` names the block in errors.

    Read are ``version``, ``table`` and ``model`` (the modality's own blocks and ``trunk``). Raises UserError for
    anything unknown, missing or out of range.
    """
    modality = modalities.get(name)
    if block.get("version") not in (1, 2):
        raise UserError(f"{where}.version must be 1 or 2, not {block.get('version')!r}.")
    model = block.get("model")
    if not isinstance(model, Mapping) or "trunk" not in model:
        raise UserError(f"{where}.model.trunk is missing; add it.")
    own = {key: value for key, value in model.items() if key != "trunk"}
    table = build(modality.TableConfig, block.get("table"), f"{where}.table")
    trunk = build(TransformerConfig, model["trunk"], f"{where}.model.trunk")
    config = build(modality.Config, {"table": table, **own}, f"{where}.model")
    return Setup(name, block["version"], modality, config, trunk)
