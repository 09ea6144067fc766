"""``python -m flows.setup_server cpu=2 gpu=1``: pools with their limits, and what ends runs that went silent.

Running it again changes what differs and nothing else. It needs ``PREFECT_API_URL``.
"""

import argparse
from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.states import StateType

SILENT = "Crash silent runs"
SECONDS_OF_SILENCE = 540  # three of Prefect's default heartbeats; less has crashed healthy runs
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


def main(pools: list[tuple[str, int]]) -> None:
    """Set up the ``pools``, (name, limit) each, and the automation."""
    with get_client(sync_client=True) as client:
        for name, limit in pools:
            set_up_pool(client, name, limit)
        if not client.read_automations_by_name(SILENT):
            client.create_automation(silence())


def pool(text: str) -> tuple[str, int]:
    """Return name and limit in ``NAME=LIMIT``; raise ValueError for anything else."""
    name, limit = text.split("=")
    return name, int(limit)


def set_up_pool(client: SyncPrefectClient, name: str, limit: int) -> None:
    """Create a pool of processes, or give the one there is its limit."""
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type="process", concurrency_limit=limit))
    else:
        client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=limit))


def silence(seconds: float = SECONDS_OF_SILENCE) -> AutomationCore:
    """Return what turns a run whose heartbeats stop for ``seconds`` into a crashed one."""
    trigger = EventTrigger(
        after={HEARTBEAT},
        expect={HEARTBEAT, *(f"prefect.flow-run.{end}" for end in ENDS)},
        match={"prefect.resource.id": ["prefect.flow-run.*"]},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=seconds),
    )
    message = "No sign of life: its process or machine ended. A new run goes on from the last checkpoint."
    action = ChangeFlowRunState(name=None, state=StateType.CRASHED, message=message, force=False)
    return AutomationCore(name=SILENT, trigger=trigger, actions=[action])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.setup_server", description="Pools, and an end to silence.")
    parser.add_argument("pools", nargs="+", type=pool, metavar="NAME=LIMIT", help="runs at once in a pool: gpu=1")
    main(parser.parse_args().pools)
