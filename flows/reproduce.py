"""Reproduce the pipeline: one task per DVC stage, independent stages side by side.

``python -m flows.reproduce [TARGET...]`` runs in the current directory, with a temporary server of its own unless
``PREFECT_API_URL`` names one. A stage that fails stops what depends on it and nothing else.
"""

import argparse

from prefect import flow
from prefect.states import State
from prefect.types import PositiveInteger

from flows.command_line import run
from flows.stage_runs import Options, run_stages


def run_name() -> str:
    """Return what the run is about: the stages it was asked for."""
    from prefect.runtime import flow_run

    return "reproduce " + (", ".join(flow_run.parameters.get("targets") or []) or "everything")


@flow(flow_run_name=run_name)
def reproduce(
    targets: list[str] | None = None,
    force: bool = False,
    cpu: PositiveInteger = 2,
    gpu: PositiveInteger = 1,
    isolated: bool = False,
    push: bool = False,
) -> State:
    """Bring the stages of dvc.yaml up to date.

    Args:
        targets: stages, or groups of them, to stop at; all if empty
        force: run stages that are up to date as well
        cpu: how many stages without a GPU run at once
        gpu: how many stages with ``meta: {resource: gpu}`` run at once
        isolated: run in a workspace of its own, not in the project's folder, and keep the result as a branch
        push: push what the run made to the DVC remote
    """
    return run_stages(targets, Options(force=force, cpu=cpu, gpu=gpu, isolated=isolated, push=push))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.reproduce", description="Bring the pipeline up to date.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="stages to stop at, such as pretrain@speech")
    parser.add_argument("--force", action="store_true", help="run stages that are up to date as well")
    parser.add_argument("--cpu", type=int, default=2, help="how many stages without a GPU run at once (2)")
    parser.add_argument("--gpu", type=int, default=1, help="how many stages with a GPU run at once (1)")
    arguments = parser.parse_args()
    run(reproduce, arguments.targets, **vars(arguments))
