"""A published recipe through a flow, with numbers of one's own, pushed to the remote: and then fetched elsewhere."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from machines import ROOT

from flows.pretrain import pretrain
from tests.nightly import nightly

pytestmark = nightly("takes a minute")
STAGES = """
stages:
  pretrain:
    foreach: ${modalities}
    do:
      cmd: python measure.py ${key}
      params: ["modalities.${key}"]
      outs: ["models/${key}"]
      metrics: ["${key}.json": {cache: false}]
"""
MEASURE = """
import json
import sys
from pathlib import Path

from stages import params
from stages.training import read_setup

name = sys.argv[1]
setup, block = read_setup(name), params.modality(name)
Path("models").mkdir(exist_ok=True)
Path("models", name).write_text("a model\\n")
measured = {"width": setup.trunk.width, "updates": block["pretrain"]["loop"]["updates"]}
Path(f"{name}.json").write_text(json.dumps(measured))
"""


def run(*command, folder=None):
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=120).stdout.strip()


@pytest.fixture
def project(workspace, tmp_path):
    """The real parameters, recipes and their reader, with a stage that says what a training would read."""
    for name in ("stages", "d2v_core", "recipes"):
        shutil.copytree(ROOT / name, workspace / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", workspace)
    Path("dvc.yaml").write_text(STAGES)
    Path("measure.py").write_text(MEASURE)
    Path(".gitignore").write_text(Path(".gitignore").read_text() + "/models/\n__pycache__\n")
    run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    run("git", "add", "-A")
    run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "The real numbers")
    return workspace


def test_a_recipe_runs_and_travels_through_the_remote(prefect, project, tmp_path):
    own = yaml.safe_load(Path("params.yaml").read_text())["modalities"]["vision"]["model"]["trunk"]["width"]
    state = pretrain("vision", recipe="v2/vision-base", updates=5, push=True, return_state=True)
    assert (state.name, state.message) == ("Completed", "Stages: 1 Completed")
    assert list((tmp_path / "store").rglob("*"))
    assert run("git", "status", "--porcelain") == ""  # the project's params.yaml stays as it is

    branch = run("git", "branch", "--list", "runs/*").split()[-1]
    clone = tmp_path / "clone"
    run("git", "clone", "-q", "--branch", branch, str(project), str(clone))
    measured = json.loads((clone / "vision.json").read_text())
    assert measured == {"width": 768, "updates": 5}
    assert own != 768
    run("dvc", "pull", "pretrain@vision", folder=clone)
    assert (clone / "models/vision").read_text() == "a model\n"
    assert "up to date" in run("dvc", "status", "pretrain@vision", folder=clone)
