"""Pretrain one modality: its ``pretrain`` stage and what that depends on, by the same code as the whole pipeline.

``python -m flows.pretrain MODALITY`` runs in the current directory, like ``python -m flows.reproduce``.
"""

import argparse

from prefect import flow
from prefect.states import State

from flows.choices import Batch, Modality, Recipe, Seed, Updates, Version, run_name
from flows.command_line import run
from flows.stage_runs import Options, run_stages


@flow(flow_run_name=run_name)
def pretrain(
    modality: Modality,
    updates: Updates = None,
    batch: Batch = None,
    seed: Seed = None,
    version: Version = None,
    recipe: Recipe = None,
    isolated: bool = False,
    push: bool = False,
) -> State:
    """Bring the pretraining of one modality up to date; what is left empty is as params.yaml says.

    Args:
        modality: a key of ``modalities`` in params.yaml
        updates: how many optimizer updates
        batch: size of a batch: seconds of audio, images, or tokens
        seed: of masks, order, dropout and first weights
        version: 1 is data2vec, 2 is data2vec 2.0
        recipe: a published model, laid over params.yaml before the other parameters (docs/recipes.md)
        isolated: run in a workspace of its own and keep the result as a branch; any changed parameter does so too
        push: push what the run made to the DVC remote
    """
    block = f"modalities.{modality}"
    values = {
        f"{block}.pretrain.loop.updates": updates,
        f"{block}.pretrain.batch": batch,
        f"{block}.version": version,
        "seed": seed,
    }
    return run_stages(targets(modality), Options(recipe=recipe, values=values, isolated=isolated, push=push))


def targets(modality: str) -> list[str]:
    """Return the stages to stop at."""
    return [f"pretrain@{modality}"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.pretrain", description="Pretrain one modality.")
    parser.add_argument("modality", help="a key of modalities in params.yaml, such as speech")
    modality = parser.parse_args().modality
    run(pretrain, targets(modality), modality=modality)
