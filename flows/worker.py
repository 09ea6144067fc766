"""``python -m flows.worker POOL``: Prefect's worker, which leaves no run behind that seems to run for ever.

A worker that is stopped or killed ends its runs without a word to the server (PrefectHQ/prefect#22528), and such a run
holds its place in the pool. This one starts Prefect's own and looks, now and then, at its start and at its end, for
runs of its machine whose process is gone: they are crashed, and the next one goes on from the last checkpoint.
"""

import argparse
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter
from prefect.client.schemas.objects import FlowRun
from prefect.runtime import flow_run
from prefect.states import Cancelled, Crashed

from flows import children

SECONDS_BETWEEN_LOOKS = 15
SECONDS_TO_STOP = 20
LABEL = "d2v.process"  # of a run: its machine and process, which Prefect does not tell together
UNFINISHED = ["RUNNING", "PENDING", "CANCELLING"]
GONE = "Its process ended without a word; a new run goes on from the last checkpoint."


def main(pool: str, options: list[str]) -> None:
    """Run a worker of ``pool`` with ``options`` of Prefect's own until SIGINT or SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    look(pool)
    command = ["prefect", "worker", "start", "--pool", pool, *options]
    worker = children.start(command, env=os.environ | {"PREFECT_PLUGINS_ENABLED": "0"}, start_new_session=True)
    try:
        while worker.poll() is None:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            look(pool)
        sys.exit(worker.returncode)
    finally:
        children.stop(worker, SECONDS_TO_STOP)
        look(pool)


def look(pool: str) -> None:
    """Crash the runs in ``pool`` that were this machine's and have no process; a server that is away is no error."""
    wanted = FlowRunFilter.model_validate({"state": {"type": {"any_": UNFINISHED}}})
    where = WorkPoolFilter.model_validate({"name": {"any_": [pool]}})
    with suppress(Exception), get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=wanted, work_pool_filter=where):
            bury(client, run)


def bury(client: SyncPrefectClient, run: FlowRun) -> None:
    """Give ``run`` a final state when its process was on this machine and is gone."""
    machine, _, process = str(run.labels.get(LABEL, "")).rpartition(":")
    if machine != socket.gethostname() or alive(process):
        return
    cancelling = run.state is not None and run.state.is_cancelling()
    client.set_flow_run_state(run.id, Cancelled() if cancelling else Crashed(message=GONE), force=True)


def sign() -> None:
    """Label the current flow run with its machine and process."""
    if flow_run.id:
        with get_client(sync_client=True) as client:
            client.update_flow_run_labels(flow_run.id, {LABEL: f"{socket.gethostname()}:{os.getpid()}"})


def alive(process: str) -> bool:
    """Tell whether ``process`` runs and is not a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.worker", description="A worker of one pool.")
    parser.add_argument("pool", help="the pool, such as gpu")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="for `prefect worker start`, such as --name NAME")
    main(**vars(parser.parse_args()))
