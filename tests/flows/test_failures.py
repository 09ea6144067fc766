"""The table of failures in docs/operations.md, done for real: workers and trainings that end at the wrong time.

After each: no process is left, ``dvc repro`` works without repair, and no saved update is trained again.
"""

import os
import signal
import subprocess
import sys

import pytest
from machines import begin, check_afterwards, ended, processes, release, trained, until, working
from prefect.deployments import run_deployment

from flows import worker as worker_module
from tests.nightly import nightly

pytestmark = nightly("takes minutes")


def cancel_by_cli(client, run, environment):
    subprocess.run(["prefect", "flow-run", "cancel", str(run.id)], env=environment, check=True, capture_output=True)


def cancel_by_api(client, run, environment):
    from prefect.states import Cancelling

    client.set_flow_run_state(run.id, Cancelling())


@pytest.mark.parametrize("cancel", [cancel_by_cli, cancel_by_api])
def test_cancelling_saves_and_leaves_nothing_behind(prefect, deployed, folder, cancel):
    with working(deployed, folder):
        run = begin(folder)
        cancel(prefect, run, deployed)
        assert ended(prefect, run).name == "Cancelled"
        assert until(lambda: not processes(folder), 60)
    assert int((folder / "state/checkpoints/update").read_text()) == len(trained(folder))
    check_afterwards(folder)


def test_a_killed_training_is_tried_again_and_goes_on(prefect, deployed, folder):
    with working(deployed, folder):
        run = begin(folder)
        for process in processes(folder, "trainer.py"):
            os.kill(process, signal.SIGKILL)
        release(folder)
        assert ended(prefect, run).name == "Completed"
    updates = trained(folder)
    assert sorted(set(updates)) == list(range(30))
    assert len(updates) < 30 + 5


@pytest.mark.parametrize(
    ("part", "number", "state"),
    [
        ("bin/dvc", signal.SIGKILL, "Failed"),
        ("prefect", signal.SIGKILL, "Crashed"),
    ],
)
def test_a_killed_dvc_or_flow(prefect, deployed, folder, part, number, state):
    with working(deployed, folder):
        run = begin(folder)
        for process in processes(folder, part)[:1]:
            os.kill(process, number)
        assert ended(prefect, run).name == state
        assert until(lambda: not processes(folder), 60)
    check_afterwards(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_ends_ends_its_run(prefect, deployed, folder, number):
    with working(deployed, folder) as worker:
        run = begin(folder)
        worker.send_signal(number)
        worker.wait(120)
        if number == signal.SIGKILL:
            assert until(lambda: not processes(folder))
            subprocess.run(
                [sys.executable, "-c", "from flows.worker import look; look('gpu')"], env=deployed, check=True
            )
        state = ended(prefect, run)
        assert (state.name, state.message) == ("Crashed", worker_module.GONE) or "Process exited" in state.message
    check_afterwards(folder)


def test_a_pool_of_one_runs_one_after_the_other(prefect, deployed, folder):
    with working(deployed, folder):
        first = begin(folder)
        second = run_deployment("pretrain/pretrain-speech", timeout=0)
        release(folder)
        assert ended(prefect, first).name == "Completed"
        assert prefect.read_flow_run(second.id).start_time is None or (
            prefect.read_flow_run(second.id).start_time >= prefect.read_flow_run(first.id).end_time
        )
        assert ended(prefect, second).name == "Completed"
    assert trained(folder) == list(range(30))  # the second took the first one's result
