"""Prepare the tables of one modality: stages ``vocabulary`` and ``prepare`` and what they depend on."""

from prefect import flow
from prefect.states import State

from flows.choices import Modality, run_name
from flows.stage_runs import Options, run_stages


@flow(flow_run_name=run_name)
def prepare(modality: Modality, isolated: bool = False, push: bool = False) -> State:
    """Bring the tables of one modality up to date.

    Args:
        modality: a key of ``modalities`` in params.yaml
        isolated: run in a workspace of its own and keep the result as a branch
        push: push what the run made to the DVC remote
    """
    return run_stages([f"prepare@{modality}"], Options(isolated=isolated, push=push))
