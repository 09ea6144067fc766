"""A fourth modality is one file and one block of params.yaml: nothing else changes, and every stage runs it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.tiny import ROOT, contents, environment, small_params

PULSE = '''
"""Pulses: sequences of vectors [frames, channels] float32, one token each, spans of them masked."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from d2v_core.config import require
from d2v_core.data import masks
from d2v_core.data.table import schema
from d2v_core.errors import Dropped

columns = schema(values=pa.float32())
unit = "frames"


@dataclass(frozen=True)
class TableConfig:
    channels: int

    def __post_init__(self):
        require(self.channels > 0, "channels must be positive.")


@dataclass(frozen=True)
class MaskConfig:
    kind: str
    probability: float
    length: int


@dataclass(frozen=True)
class Config:
    table: TableConfig
    mask: MaskConfig


def rows(decoded, table):
    if decoded.shape[1] != table.channels:
        raise Dropped("channels", f"{decoded.shape[1]} channels")
    return [{"values": decoded.astype(np.float32).ravel()}]


def amount(row, table):
    return len(row["values"]) // table.channels


def lengths(table, config):
    return table.lengths("values") // config.table.channels


def trainable(lengths, config):
    return lengths


def batch(rows, rngs, config):
    pulses = [torch.from_numpy(row["values"].reshape(-1, config.table.channels).copy()) for row in rows]
    if rngs is not None:
        shortest = min(map(len, pulses))
        pulses = [pulse[:shortest] for pulse in pulses]
    inputs = nn.utils.rnn.pad_sequence(pulses, batch_first=True)
    return {"inputs": inputs, "lengths": torch.tensor([len(pulse) for pulse in pulses])}


def mask(rngs, inputs, config):
    frames = inputs["inputs"].shape[1]
    drawn = [masks.spans(rng, frames, config.mask.probability, config.mask.length) for rng in rngs]
    return {"mask": torch.from_numpy(masks.equalise(drawn, rngs))}


def tokens(inputs, config):
    return inputs["lengths"].numpy()


class Local(nn.Module):
    extra = 0

    def __init__(self, config, trunk):
        super().__init__()
        self.projection = nn.Linear(config.table.channels, trunk.width)
        self.mask_token = nn.Parameter(torch.rand(trunk.width))

    def forward(self, inputs):
        frames = torch.arange(inputs["inputs"].shape[1], device=inputs["inputs"].device)
        padding = frames >= inputs["lengths"][:, None]
        return self.projection(inputs["inputs"]), padding if padding.any() else None

    def hide(self, tokens, mask):
        return torch.where(mask.unsqueeze(-1), self.mask_token, tokens)

    def place(self, tokens, padding):
        return tokens

    def bias(self, tokens, visible):
        return None


def head(trunk):
    return nn.Linear(trunk.width, trunk.width)
'''


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
    (tmp_path / "d2v_core/modalities/pulse.py").write_text(PULSE.lstrip())
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
    for stage in ("vocabulary pulse", "prepare pulse", "pretrain pulse", "probe beats"):
        name, argument = stage.split()
        call(tree, sys.executable, "-m", f"stages.{name}", argument)
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
