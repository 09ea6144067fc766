"""Pretrain one modality: its ``pretrain`` stage and what that depends on, by the same code as the whole pipeline.

``python -m flows.pretrain MODALITY`` runs in the current directory, like ``python -m flows.reproduce``.
"""

import argparse

from prefect import flow
from prefect.states import State

from flows.command_line import run
from flows.reproduce import run_stages


@flow(flow_run_name="pretrain {modality}")
def pretrain(modality: str) -> State:
    """Bring the pretraining of one modality up to date.

    Args:
        modality: a key of ``modalities`` in params.yaml
    """
    return run_stages(targets(modality))


def targets(modality: str) -> list[str]:
    """Return the stages to stop at."""
    return [f"pretrain@{modality}"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.pretrain", description="Pretrain one modality.")
    parser.add_argument("modality", help="a key of modalities in params.yaml, such as speech")
    modality = parser.parse_args().modality
    run(pretrain, targets(modality), modality=modality)
