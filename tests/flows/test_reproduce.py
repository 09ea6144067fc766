"""The flows, on a real repository with real dvc and a real server: success, failure, skipping, deployment, worker."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.states import State

from flows import stage_task
from flows.graph import plan
from flows.pretrain import pretrain
from flows.reproduce import reproduce
from flows.stage_task import outcome, run_stage, unrecorded, worth_retrying

ROOT = Path(__file__).parents[2]


def call(flow, *arguments, **parameters) -> State:
    return flow(*arguments, **parameters, return_state=True)


def execute(command: list[str], environment: dict[str, str], **options) -> subprocess.CompletedProcess:
    options |= {"capture_output": True, "text": True, "timeout": 400}
    return subprocess.run(command, env=environment, check=False, **options)


def test_without_a_server_from_the_command_line(workspace, environment):
    command = [sys.executable, "-m", "flows.pretrain", "speech"]
    result = execute(command, environment | {"PREFECT_API_URL": ""}, cwd=workspace)
    assert result.returncode == 0, result.stderr
    assert "Starting temporary server" in result.stderr
    assert "Stages: 2 Completed" in result.stderr
    assert (workspace / "speech.model").read_text() == "speech\n"


def test_failure_on_the_command_line(server, workspace, environment):
    (workspace / "settings/vision.sh").write_text("echo error: give the corpus a train folder; exit 1\n")
    command = [sys.executable, "-m", "flows.reproduce", "pretrain@vision"]
    result = execute(command, environment | {"PREFECT_API_URL": server}, cwd=workspace)
    assert result.returncode == 1
    assert "pretrain@vision failed:\n" in result.stderr
    assert "    error: give the corpus a train folder\n" in result.stderr
    assert "Traceback" not in result.stderr
    assert "temporary server" not in result.stderr


def test_ctrl_c_ends_everything_and_retries_nothing(server, workspace, environment):
    (workspace / "settings/speech.sh").write_text("touch began; sleep 60\n")
    command = [sys.executable, "-m", "flows.pretrain", "speech"]
    process = subprocess.Popen(
        command,
        cwd=workspace,
        env=environment | {"PREFECT_API_URL": server},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (workspace / "began").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    log = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert "Stopped by SIGINT." in log
    assert "Retry" not in log
    assert "Traceback" not in log.partition("Stopped by SIGINT.")[0]


def test_a_mistyped_target_starts_no_server(workspace, environment):
    result = execute([sys.executable, "-m", "flows.reproduce", "repord"], environment, cwd=workspace)
    assert (result.returncode, result.stderr) == (1, "There is no stage 'repord' in dvc.yaml; did you mean 'report'?\n")


def test_success_is_recorded_by_dvc_and_not_repeated(prefect, workspace, environment):
    assert call(reproduce).message == "Stages: 5 Completed"
    lock = yaml.safe_load(Path("dvc.lock").read_text())["stages"]
    assert set(lock) == {"prepare@speech", "prepare@vision", "pretrain@speech", "pretrain@vision", "report"}
    assert "up to date" in execute(["dvc", "status"], environment).stdout
    assert call(reproduce).message == "Stages: 5 UpToDate"

    (workspace / "settings/vision.sh").write_text("echo '{\"loss\": 1.25}' > vision.json\n")
    assert {stage.name for stage in plan() if stage.changed} == {"pretrain@vision", "report"}
    assert call(reproduce).message == "Stages: 4 UpToDate, 1 Completed"  # the same bytes: no need for a new report

    Path("dvc.lock").unlink()
    assert call(reproduce, ["pretrain@speech"]).message == "Stages: 1 Completed, 1 RunCache"
    assert call(reproduce, ["prepare@speech"], force=True).message == "Stages: 1 Completed"
    with get_client(sync_client=True) as client:
        runs = {run.name for run in client.read_task_runs()}
        artifacts = {artifact.key: artifact for artifact in client.read_artifacts()}
    assert set(lock) <= runs
    assert float(artifacts["prepare-speech"].data) == 75
    assert (
        artifacts["prepare-speech"].description
        == "prepare@speech: 3 of 4 · 9.0 rows/s ETA 0 s · loss **0.5** · τ **0.999**"
    )


def test_a_failure_stops_its_descendants_and_nothing_else(prefect, workspace):
    (workspace / "settings/speech.sh").write_text("echo again >> attempts; seq 1 40; exit 3\n")
    state = call(reproduce)
    assert state.is_failed()
    first, *rest = state.message.splitlines()
    assert first == "Stages: 3 Completed, 1 Failed, 1 NotReady"
    assert rest[0] == "pretrain@speech failed:"
    assert "    40" in rest
    assert "    1" not in rest
    assert rest[-1].endswith("exited with 3")
    assert (workspace / "attempts").read_text() == "again\nagain\n"  # meta says retries: 1
    assert (workspace / "vision.model").exists()
    assert not (workspace / "reports").exists()


def test_a_flow_refuses_what_dvc_does_not_know(prefect):
    state = call(pretrain, "audio")
    assert (state.name, state.is_failed()) == ("Refused", True)
    assert state.message == "There is no stage 'pretrain@audio' in dvc.yaml; did you mean 'pretrain@vision'?"


@pytest.mark.parametrize(
    ("code", "lines", "name", "retried"),
    [
        (0, ["Running stage 'a':"], "Completed", False),
        (0, ["Stage 'a' didn't change, skipping"], "UpToDate", False),
        (0, ["Stage 'a' is cached - skipping run, checking out outputs"], "RunCache", False),
        (255, ["Killed", "ERROR: failed to reproduce 'a': failed to run: x, exited with 137"], "Failed", True),
        (255, ["error: do this", "ERROR: failed to reproduce 'a': failed to run: x, exited with 1"], "Refused", False),
        (255, ["ERROR: failed to reproduce 'a': missing data 'b'"], "Refused", False),
        (-15, ["Running stage 'a':"], "Stopped", False),
        (-9, [], "Stopped", False),
    ],
)
def test_only_accidents_are_retried(code, lines, name, retried):
    state = outcome(code, lines)
    assert state.name == name
    assert state.is_completed() == (code == 0)
    assert worth_retrying(run_stage, None, state) == retried


def test_a_server_that_is_away_costs_the_progress_and_not_the_stage(prefect, monkeypatch):
    def away(*arguments, **parameters):
        raise ConnectionError("All connection attempts failed")

    monkeypatch.setattr(stage_task, "create_progress_artifact", away)
    assert call(reproduce, ["prepare@speech"]).message == "Stages: 1 Completed"


def test_a_full_disk_is_told_from_a_stage_that_failed():
    full = "ERROR: failed to reproduce 'a': [Errno 28] No space left on device"
    assert unrecorded(["Running stage 'a':", full])
    assert not unrecorded(["error: [Errno 28] No space left on device", "ERROR: failed to run: x, exited with 1"])


def test_the_deployments_and_one_run_by_a_worker(prefect, deployed, workspace):
    deployments = {deployment.name: deployment for deployment in prefect.read_deployments()}
    modalities = yaml.safe_load((ROOT / "params.yaml").read_text())["modalities"]
    for modality in modalities:
        for kind, pool in (("prepare", "cpu"), ("pretrain", "gpu")):
            deployment = deployments.pop(f"{kind}-{modality}")
            assert deployment.parameters == {"modality": modality, "isolated": True}
            assert (deployment.work_pool_name, modality in deployment.tags) == (pool, True)
    assert set(deployments) >= {"reproduce", "finetune", "evaluate"}

    run = run_deployment("pretrain/pretrain-speech", parameters={"updates": 7, "batch": 5, "seed": 3}, timeout=0)
    worker = ["prefect", "worker", "start", "--pool", "gpu", "--run-once"]
    log = execute(worker, deployed | {"D2V_ROOT": str(workspace)}, cwd=workspace.parent)
    run = prefect.read_flow_run(run.id)
    assert (run.state.is_completed(), run.state.message) == (True, "Stages: 2 Completed"), log.stdout + log.stderr
    assert run.name == "pretrain speech updates 7 batch 5 seed 3"
    assert not (workspace / "speech.txt").exists()
    branch = f"runs/pretrain-speech-updates-7-batch-5-seed-3-{str(run.id)[:8]}"
    files = {name: git("show", f"{branch}:{name}") for name in ("params.yaml", "dvc.lock", "speech.json")}
    assert "seed: 3\n" in files["params.yaml"]
    assert "pretrain: {batch: 5, loop: {updates: 7}}  # a comment to keep\n" in files["params.yaml"]
    assert "v2: {pretrain: {batch: 5}}\n" in files["params.yaml"]
    assert yaml.safe_load(files["dvc.lock"])["stages"]["pretrain@speech"]["params"]["params.yaml"]["seed"] == 3
    assert git("worktree", "list").count("\n") == 0
    assert git("status", "--porcelain") == ""


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=60).stdout.strip()
