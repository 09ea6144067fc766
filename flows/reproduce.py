"""Reproduce the pipeline: one task per DVC stage, independent stages side by side.

``python -m flows.reproduce [TARGET...]`` runs in the current directory, with a temporary server of its own unless
``PREFECT_API_URL`` names one. A stage that fails stops what depends on it and nothing else.
"""

import argparse
from collections import Counter, deque
from collections.abc import Iterable, Mapping

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed, Failed, State
from prefect.types import PositiveInteger

from flows.command_line import run
from flows.graph import PlanError, plan
from flows.slots import Slots
from flows.stage_task import run_stage

LINES_SHOWN = 15  # of a failed stage's log


@flow
def reproduce(
    targets: list[str] | None = None, force: bool = False, cpu: PositiveInteger = 2, gpu: PositiveInteger = 1
) -> State:
    """Bring the stages of dvc.yaml up to date.

    Args:
        targets: stages, or groups of them, to stop at; all if empty
        force: run stages that are up to date as well
        cpu: how many stages without a GPU run at once
        gpu: how many stages with ``meta: {resource: gpu}`` run at once
    """
    return run_stages(targets, force, cpu, gpu)


def run_stages(targets: list[str] | None, force: bool = False, cpu: int = 2, gpu: int = 1) -> State:
    """Run ``targets`` and what they depend on within a flow, so many side by side, and say how it went."""
    slots = Slots(cpu=cpu, gpu=gpu)
    try:
        stages = plan(targets, resources=slots.places)
    except PlanError as error:
        return Failed(name="Refused", message=str(error))
    tails = {stage.name: deque(maxlen=LINES_SHOWN) for stage in stages}
    futures: dict[str, PrefectFuture] = {}
    try:
        for stage in stages:
            before = [futures[name] for name in stage.depends_on]
            task = run_stage.with_options(name=stage.name, retries=stage.retries)
            futures[stage.name] = task.submit(stage, slots, force, tails[stage.name], wait_for=before)
        wait(list(futures.values()))
    except BaseException:
        slots.close()
        raise
    return conclude({name: future.state for name, future in futures.items()}, tails)


def conclude(states: Mapping[str, State], tails: Mapping[str, Iterable[str]]) -> State:
    """Return the state of a flow whose stages ended in ``states``, with the end of the log of those that failed."""
    table = [{"stage": name, "state": state.name, "message": state.message} for name, state in states.items()]
    create_table_artifact(table, key="stages", description="How the stages ended")
    counts = Counter(state.name for state in states.values())
    lines = ["Stages: " + ", ".join(f"{count} {name}" for name, count in counts.items())]
    if all(state.is_completed() for state in states.values()):
        return Completed(message=lines[0])
    for name, state in states.items():
        if state.is_failed():
            lines += [f"{name} failed:", *(f"    {line}" for line in tails[name])]
    return Failed(message="\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.reproduce", description="Bring the pipeline up to date.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="stages to stop at, such as pretrain@speech")
    parser.add_argument("--force", action="store_true", help="run stages that are up to date as well")
    parser.add_argument("--cpu", type=int, default=2, help="how many stages without a GPU run at once (2)")
    parser.add_argument("--gpu", type=int, default=1, help="how many stages with a GPU run at once (1)")
    arguments = parser.parse_args()
    run(reproduce, arguments.targets, **vars(arguments))
