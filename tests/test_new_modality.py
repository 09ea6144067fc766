"""A fourth modality is one file and one block of params.yaml: nothing else changes, and every stage runs it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.tiny import ROOT, contents, environment, small_params

PULSE = re.search(r"```python\n(.*?)```", (ROOT / "docs/new-modality.md").read_text(), re.DOTALL)[1]

EVERY_STAGE = """
from stages import prepare, pretrain, probe, vocabulary
for stage, name in ((vocabulary, "pulse"), (prepare, "pulse"), (pretrain, "pulse"), (probe, "beats")):
    stage.main(name)
"""


def pulse_blocks(params: dict) -> dict:
    """Return ``params`` with pulses and a task on them, and nothing else."""
    vision = params["modalities"]["vision"]
    corpus = vision["corpus"] | {"raw": "data/raw/pulse", "layout": "arrays", "max_dropped": 0.2}
    model = {"mask": {"kind": "spans", "probability": 0.5, "length": 2}, "trunk": vision["model"]["trunk"]}
    pulse = {"version": 1, "corpus": corpus, "vocabulary": {"kind": "none"}, "table": {"channels": 3}, "model": model}
    pulse |= {"pretrain": vision["pretrain"] | {"batch": 60}, "v2": {}}
    beats = params["tasks"]["digits"] | {"modality": "pulse", "table": "pulse", "pretrained": "models/pretrain/pulse"}
    beats["train"]["batch"] = 60
    return params | {"modalities": {"pulse": pulse}, "labelled": {}, "tasks": {"beats": beats}}


@pytest.fixture
def tree(tmp_path) -> Path:
    """A copy of the source tree with the new file, the new block and a corpus."""
    for folder in ("d2v_core", "stages"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    (tmp_path / "d2v_core/modalities/pulse.py").write_text(PULSE)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(pulse_blocks(small_params())))
    rng = np.random.default_rng(0)
    for rate, name in enumerate(["slow", "fast"], 1):
        folder = tmp_path / "data/raw/pulse" / name
        folder.mkdir(parents=True)
        for number in range(12):
            time = np.arange(rng.integers(8, 15))[:, None]
            np.save(folder / f"{number}.npy", np.sin(rate * time + np.arange(3)) + rng.normal(0, 0.1, (len(time), 3)))
    np.save(tmp_path / "data/raw/pulse/slow/flat.npy", np.zeros((9, 2)))
    (tmp_path / "data/raw/pulse/fast/broken.npy").write_bytes(b"no array")
    return tmp_path


def call(tree: Path, *command: str) -> str:
    done = subprocess.run(
        command,
        cwd=tree,
        env=environment(PYTHONPATH=str(tree)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_file_and_one_block_are_a_modality(tree):
    source = {name: content for name, content in contents(tree).items() if name.endswith(".py")}
    call(tree, sys.executable, "-c", EVERY_STAGE)
    counts = json.loads((tree / "metrics/pulse/counts.json").read_text())
    assert counts["unit"] == "frames"
    assert (counts["seen"], counts["kept"], counts["dropped"]) == (26, 24, {"channels": 1, "unreadable": 1})
    probed = json.loads((tree / "metrics/beats/probe.json").read_text())
    assert set(probed["pretrained"]["test"]) == {"linear_few", "linear_all", "neighbours"}
    assert (tree / "models/pretrain/pulse/model.safetensors").exists()
    assert {name: content for name, content in contents(tree).items() if name.endswith(".py")} == source


def test_the_pipeline_finds_it(tree):
    (tree / ".dvc").mkdir()
    (tree / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    stages = set(call(tree, "dvc", "stage", "list", "--all", "--name-only").split())
    assert {"prepare@pulse", "pretrain@pulse", "finetune@beats", "probe@beats", "report"} <= stages
    assert not {"prepare@vision", "finetune@digits"} & stages
