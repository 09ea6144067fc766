"""The table of failures in docs/operations.md, done for real: workers and trainings that end at the wrong time.

After each: no process is left, ``dvc repro`` works without repair, and no saved update is trained again.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from prefect.deployments import run_deployment

from flows import worker as worker_module

pytestmark = pytest.mark.skipif(not os.environ.get("D2V_NIGHTLY"), reason="takes minutes; set D2V_NIGHTLY=1")
TRAINER = Path(__file__).with_name("trainer.py")


@pytest.fixture
def folder(workspace):
    """Return the tiny project with a speech training of about six seconds."""
    pipeline = (workspace / "dvc.yaml").read_text()
    command = "sh settings/${item}.sh && cp ${item}.txt ${item}.model && cp settings/loss.csv ${item}.csv"
    assert command in pipeline
    (workspace / "dvc.yaml").write_text(pipeline.replace(command, f"python {TRAINER}"))
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "Train"], check=True)
    return workspace


@contextmanager
def working(environment, folder):
    """Run a worker of the pool gpu for the block."""
    command = [sys.executable, "-m", "flows.worker", "gpu"]
    settings = environment | {
        "D2V_ROOT": str(folder),
        "PREFECT_PLUGINS_ENABLED": "0",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    with (folder.parent / "worker.log").open("a") as log:
        process = subprocess.Popen(
            command, env=settings, cwd=folder.parent, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(40)
            process.kill()


def processes(folder, part=""):
    """Return the processes at work below ``folder`` whose command line has ``part``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            here = str(folder) in os.readlink(entry / "cwd") and int(entry.name) != os.getpid()
            if here and command and part in command:
                found.append(int(entry.name))
    return found


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return result


def begin(folder):
    """Start a run and return it once five updates are saved."""
    run = run_deployment("pretrain/pretrain-speech", timeout=0)
    assert until((folder / "state/checkpoints/update").exists), (folder.parent / "worker.log").read_text()
    return run


def trained(folder):
    return [int(line) for line in (folder / "state/checkpoints/trained").read_text().split()]


def ended(client, run, seconds=60):
    """Return the final state of ``run``."""
    deadline = time.monotonic() + seconds
    while not (state := client.read_flow_run(run.id).state).is_final() and time.monotonic() < deadline:
        time.sleep(0.5)
    return state


def check_afterwards(folder):
    """Assert that nothing is left, that the next run ends well, and that nothing saved was trained twice."""
    assert until(lambda: not processes(folder), 30)
    saved = (folder / "state/checkpoints/update").read_text() if (folder / "state/checkpoints/update").exists() else "0"
    before = trained(folder)
    settings = os.environ | {"D2V_STATE": str(folder / "state/checkpoints")}
    result = subprocess.run(
        ["dvc", "repro", "pretrain@speech"], cwd=folder, env=settings, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    after = trained(folder)[len(before) :]
    assert after == list(range(int(saved), 30))


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
        assert until(lambda: not processes(folder), 20)
    assert int((folder / "state/checkpoints/update").read_text()) == len(trained(folder))
    check_afterwards(folder)


def test_a_killed_training_is_tried_again_and_goes_on(prefect, deployed, folder):
    with working(deployed, folder):
        run = begin(folder)
        for process in processes(folder, "trainer.py"):
            os.kill(process, signal.SIGKILL)
        assert ended(prefect, run, 90).name == "Completed"
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
        assert until(lambda: not processes(folder), 20)
    check_afterwards(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_ends_ends_its_run(prefect, deployed, folder, number):
    with working(deployed, folder) as worker:
        run = begin(folder)
        worker.send_signal(number)
        worker.wait(60)
        if number == signal.SIGKILL:
            assert until(lambda: not processes(folder), 60)
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
        assert ended(prefect, first).name == "Completed"
        assert prefect.read_flow_run(second.id).start_time is None or (
            prefect.read_flow_run(second.id).start_time >= prefect.read_flow_run(first.id).end_time
        )
        assert ended(prefect, second).name == "Completed"
    assert trained(folder) == list(range(30))  # the second took the first one's result


def test_a_full_disk_is_one_sentence_and_no_retry(prefect, workspace):
    from flows.reproduce import reproduce

    (workspace / "settings/vision.sh").write_text("echo error: [Errno 28] No space left on device; exit 1\n")
    state = reproduce(["pretrain@vision"], return_state=True)
    assert "pretrain@vision failed" in state.message
    assert "No space left on device" in state.message
