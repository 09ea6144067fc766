"""A tiny DVC repository to run, and one Prefect server for the whole session; both real, both thrown away."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import ROOT, deploy, free_port, serving
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from flows import stage_runs
from flows.stage_task import run_stage

TRAINER = Path(__file__).with_name("trainer.py")
PIPELINE = """
stages:
  prepare:
    foreach: [speech, vision]
    do:
      cmd: echo ${item} > ${item}.txt && echo "::progress prepare-${item} 3/4 9.0 rows/s ETA 0 s loss=0.5 decay=0.999"
      outs: ["${item}.txt"]
  pretrain:
    foreach: [speech, vision]
    do:
      cmd: sh settings/${item}.sh && cp ${item}.txt ${item}.model && cp settings/loss.csv ${item}.csv
      meta: {resource: gpu, retries: 1}
      deps: ["${item}.txt", "settings/${item}.sh"]
      params: [seed, "modalities.${item}"]
      outs: ["${item}.model"]
      metrics: ["${item}.json": {cache: false}]
      plots: ["${item}.csv": {cache: false}]
  report:
    cmd: mkdir -p reports && cat speech.model vision.model > reports/index.html
    deps: [speech.model, vision.model]
    outs: [reports]
"""
PARAMETERS = """
seed: 0
modalities:
  speech:
    version: 1
    pretrain: {batch: 2, loop: {updates: 4}}  # a comment to keep
    v2: {pretrain: {batch: 3}}
  vision:
    version: 2
    pretrain: {batch: 2, loop: {updates: 4}}
"""


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return environment variables for processes that touch nothing outside of temporary folders."""
    folder = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DVC_"))}
    return kept | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_V2_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / "dvc"),
        "DVC_GLOBAL_CONFIG_DIR": str(folder / "dvc"),
    }


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """Return the tiny repository as it is before anything ran."""
    folder = tmp_path_factory.mktemp("template")
    (folder / "settings").mkdir()
    for name in ("speech", "vision"):
        (folder / "settings" / f"{name}.sh").write_text(f"echo '{{\"loss\": 1.5}}' > {name}.json\n")
    (folder / "settings/loss.csv").write_text("update,loss\n1,2.5\n2,1.5\n")
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "params.yaml").write_text(PARAMETERS)
    (folder / ".gitignore").write_text("/*.txt\n/*.model\n/reports/\n/state/\n/flows\n")
    (folder / "flows").symlink_to(ROOT / "flows")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (
        ["git", "init", "-q"],
        ["dvc", "init", "-q"],
        ["git", "add", "-A"],
        [*git, "commit", "-q", "-m", "A tiny project"],
    ):
        subprocess.run(command, cwd=folder, env=environment, check=True, timeout=60)
    return folder


@pytest.fixture
def workspace(tmp_path: Path, template: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a fresh copy of the tiny repository and return it."""
    folder = tmp_path / "workspace"
    shutil.copytree(template, folder, symlinks=True)
    for name in ("DVC_NO_ANALYTICS", "DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR"):
        monkeypatch.setenv(name, environment[name])
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def prefect(
    server: str, workspace: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[SyncPrefectClient]:
    """Point this process at the server, in a fresh workspace, without the pause before a retry; yield a client."""
    monkeypatch.setattr(stage_runs, "run_stage", run_stage.with_options(retry_delay_seconds=0))
    settings = {PREFECT_API_URL: server, PREFECT_HOME: Path(environment["PREFECT_HOME"])}
    with temporary_settings(settings), get_client(sync_client=True) as client:
        yield client


@pytest.fixture(scope="session")
def deployed(server: str, environment: dict[str, str]) -> dict[str, str]:
    """Set up the pools and the deployments of this project; return the environment that names the server."""
    return deploy(environment, server)


@pytest.fixture(scope="session")
def server(environment: dict[str, str]) -> Iterator[str]:
    """Run a Prefect server on a free port and yield its address."""
    port = free_port()
    with serving(environment, port):
        yield f"http://127.0.0.1:{port}/api"


@pytest.fixture
def folder(workspace: Path) -> Path:
    """Return the tiny project with a speech training of about six seconds (trainer.py)."""
    pipeline = (workspace / "dvc.yaml").read_text()
    command = "sh settings/${item}.sh && cp ${item}.txt ${item}.model && cp settings/loss.csv ${item}.csv"
    assert command in pipeline
    (workspace / "dvc.yaml").write_text(pipeline.replace(command, f"python {TRAINER}"))
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "Train"], check=True)
    return workspace
