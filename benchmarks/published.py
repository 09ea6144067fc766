"""The published models as the recipes make them of params.yaml; imports no more than training does."""

from collections.abc import Mapping
from pathlib import Path

from d2v_core.config import build
from d2v_core.pretraining import PretrainConfig
from d2v_core.setup import Setup, make_setup
from stages import params

RECIPES = Path("recipes")


def published(name: str, changes: Mapping | None = None) -> tuple[Setup, PretrainConfig]:
    """Return the model of recipe ``name``, such as v1/vision-base, and its pretraining, ``changes`` laid over both."""
    modality, version = name.partition("/")[2].partition("-")[0], int(name[1])
    laid = params.merge(params.load(), params.load(RECIPES / f"{name}.yaml"))
    block = params.merge(params.of_version(laid["modalities"][modality], version), changes or {})
    return make_setup(modality, block, name), build(PretrainConfig, block["pretrain"], name)
