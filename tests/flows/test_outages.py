"""What is around a run fails: the server, the whole machine, the disk. And a schedule, that starts one by itself.

With test_failures.py the table in docs/operations.md; the same holds after each.
"""

import subprocess
import time
from collections import Counter

import pytest
from machines import (
    begin,
    check_afterwards,
    deploy,
    ended,
    free_port,
    processes,
    release,
    serving,
    trained,
    until,
    vanish,
    working,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from flows.setup_server import silence
from tests.nightly import nightly

pytestmark = nightly("takes minutes")


@pytest.mark.parametrize("ends", ["after", "during"])
def test_a_server_that_is_killed_comes_back_to_a_run_that_went_on(environment, folder, tmp_path, ends):
    """The training ends after the server is back, or while there is none."""
    port, home = free_port(), tmp_path / "prefect"
    api = f"http://127.0.0.1:{port}/api"
    own = environment | {"PREFECT_HOME": str(home)}
    with (
        temporary_settings({PREFECT_API_URL: api, PREFECT_HOME: home}),
        get_client(sync_client=True) as client,
        serving(own, port) as server,
    ):
        deployed = deploy(own, api)
        with working(deployed, folder):
            run = begin(folder)
            server.kill()
            server.wait()
            if ends == "during":
                release(folder)
                assert until(lambda: len(trained(folder)) == 30)
            time.sleep(5)
            with serving(own, port):
                release(folder)
                state = ended(client, run)
                assert (state.name, state.message) == ("Completed", "Stages: 2 Completed")
                assert trained(folder) == list(range(30))
    check_afterwards(folder, done=True)


def test_a_machine_that_vanishes_is_noticed_by_the_server(prefect, deployed, folder):
    """The automation that flows/setup_server.py sets up, with a shorter patience."""
    automation = prefect.create_automation(silence(95))
    try:
        with working(deployed | {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}, folder) as worker:
            run = begin(folder)
            vanish(worker.pid)
            assert until(lambda: not processes(folder), 30)
        assert prefect.read_flow_run(run.id).state.name == "Running"
        state = ended(prefect, run, 300)
        assert state.name == "Crashed"
        assert state.message.startswith("No sign of life")
    finally:
        prefect.delete_automation(automation)
    check_afterwards(folder)


def test_a_schedule_starts_runs_and_the_nightly_one_means_three_in_the_morning(prefect, deployed, workspace):
    reproduce = next(one for one in prefect.read_deployments() if one.name == "reproduce")
    mine = DeploymentFilter.model_validate({"id": {"any_": [str(reproduce.id)]}})

    def runs(kind):
        wanted = FlowRunFilter.model_validate({"state": {"type": {"any_": [kind]}}})
        return prefect.read_flow_runs(flow_run_filter=wanted, deployment_filter=mine)

    def schedule(action, *arguments):
        command = ["prefect", "--no-prompt", "deployment", "schedule", action, "reproduce/reproduce", *arguments]
        subprocess.run(command, env=deployed, check=True, capture_output=True, timeout=120)

    assert not runs("SCHEDULED")
    schedule("resume", str(reproduce.schedules[0].id))
    schedule("create", "--cron", "* * * * *")
    try:
        assert until(lambda: runs("SCHEDULED"))  # the server looks once a minute
        times = Counter(run.expected_start_time.strftime("%H:%M") for run in runs("SCHEDULED"))
        assert times["03:00"] > 1
        with working(deployed, workspace):
            assert until(lambda: runs("COMPLETED"), 300), (workspace.parent / "worker.log").read_text()
    finally:
        schedule("clear", "--accept-yes")
    run = runs("COMPLETED")[0]
    assert run.state.message == "Stages: 5 Completed"
    assert run.auto_scheduled
    assert not processes(workspace)
    assert "up to date" in subprocess.run(["dvc", "repro"], capture_output=True, text=True, check=True).stdout
