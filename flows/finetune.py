"""Fine-tune on one task, or score it: stages ``finetune``, or ``probe`` and ``evaluate``, and what they depend on."""

from prefect import flow
from prefect.states import State

from flows.choices import Batch, Recipe, Seed, Task, Updates, run_name
from flows.stage_runs import Options, run_stages


@flow(flow_run_name=run_name)
def finetune(
    task: Task,
    updates: Updates = None,
    batch: Batch = None,
    seed: Seed = None,
    recipe: Recipe = None,
    isolated: bool = False,
    push: bool = False,
) -> State:
    """Bring the fine-tuning of one task up to date; what is left empty is as params.yaml says.

    Args:
        task: a key of ``tasks`` in params.yaml
        updates: how many optimizer updates
        batch: size of a batch: seconds of audio, images, or tokens
        seed: the only seed to train with, in place of those in params.yaml
        recipe: a published model, laid over params.yaml before the other parameters (docs/recipes.md)
        isolated: run in a workspace of its own and keep the result as a branch; any changed parameter does so too
        push: push what the run made to the DVC remote
    """
    block = f"tasks.{task}.train"
    values = {
        f"{block}.loop.updates": updates,
        f"{block}.batch": batch,
        f"{block}.seeds": None if seed is None else [seed],
    }
    return run_stages([f"finetune@{task}"], Options(recipe=recipe, values=values, isolated=isolated, push=push))


@flow(flow_run_name=run_name)
def evaluate(task: Task, isolated: bool = False, push: bool = False) -> State:
    """Bring the scores of one task up to date: fine-tuned beside trained from scratch, and frozen features.

    Args:
        task: a key of ``tasks`` in params.yaml
        isolated: run in a workspace of its own and keep the result as a branch
        push: push what the run made to the DVC remote
    """
    return run_stages([f"evaluate@{task}", f"probe@{task}"], Options(isolated=isolated, push=push))
