"""A project small enough for seconds, corpora small enough for milliseconds, and ways to run a stage in it."""

import io
import json
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from torchvision.io import encode_jpeg, encode_png

ROOT = Path(__file__).parents[1]
CORPORA = ROOT.parent / "shared" / "corpora"
SPLITS = ("train", "dev", "test")
SENTENCE = "the cat sat on a mat and saw nine small dogs that ran up one green hill to find some rain"
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
LOOP = {"updates": 4, "accumulate": 1, "log_every": 2, "save_every": 2}


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line with which a stage refused to go on."""
        lines = self.err.splitlines()
        assert self.code != 0
        assert len(lines) == 1, self.err
        assert lines[0].startswith(("error: ", "usage: "))
        return lines[0]


class Project:
    """A folder with a small params.yaml, and the corpora that a test writes into it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.params = small_params()
        self.set()

    def set(self, **changes: object) -> None:
        """Change params.yaml: ``set(seed=1, modalities__vision__table__size=16)``; ``...`` removes a key."""
        for dotted, value in changes.items():
            *path, last = dotted.split("__")
            block = self.params
            for key in path:
                block = block[key]
            if value is ...:
                del block[last]
            else:
                block[last] = value
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.params, sort_keys=False))

    def run(self, stage: str, *arguments: str) -> Outcome:
        """Run a stage in this process as ``python -m stages.STAGE`` would."""
        code, said = 0, ""
        out, err = io.StringIO(), io.StringIO()
        with self.monkeypatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", ["-m", *arguments])
            for module in (f"stages.{stage}", f"stages.{stage}.__main__"):
                patch.delitem(sys.modules, module, raising=False)
            try:
                runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
            except SystemExit as end:
                code, said = (1, f"{end.code}\n") if isinstance(end.code, str) else (end.code or 0, "")
        return Outcome(code, out.getvalue(), err.getvalue() + said)

    def done(self, stage: str, *arguments: str) -> str:
        """Run a stage that must succeed and return what it printed."""
        outcome = self.run(stage, *arguments)
        assert outcome.code == 0, outcome.err
        return outcome.out

    def refused(self, stage: str, *arguments: str) -> str:
        """Run a stage that must refuse and return its sentence."""
        return self.run(stage, *arguments).sentence

    def start(self, stage: str, *arguments: str) -> subprocess.Popen:
        """Start a stage as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", f"stages.{stage}", *arguments],
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def process(self, stage: str, *arguments: str) -> Outcome:
        """Run a stage as a process of its own."""
        process = self.start(stage, *arguments)
        out, err = process.communicate(timeout=120)
        return Outcome(process.returncode, out, err)

    def json(self, path: str) -> dict:
        """Return a JSON file of the project."""
        return json.loads((self.folder / path).read_text())

    def write(self, name: str) -> Path:
        """Write the tiny corpus ``name`` where params.yaml looks for it."""
        return WRITERS[name](self.folder / "data/raw" / name)

    def prepare(self, *names: str) -> "Project":
        """Write the tiny corpora ``names`` and take them to tables."""
        for name in names:
            self.write(name)
            if name in self.params["modalities"]:
                self.done("vocabulary", name)
            self.done("prepare", name)
        return self

    @property
    def unfinished(self) -> list[Path]:
        """What stages left behind that is not at its final place."""
        return [path for path in self.folder.rglob("*.tmp") if path.name.startswith(".")]


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a process that runs the source tree, with this Python's programs first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | changes


def small_params() -> dict:
    """Return params.yaml with every size so small that a stage takes no time; what they mean stays as it is."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for block in params["modalities"].values():
        block["model"]["trunk"] |= {"width": 16, "depth": 2, "heads": 2, "feedforward": 32}
        block["pretrain"]["objective"]["targets"]["layers"] = 2
        block["pretrain"]["loop"] = dict(LOOP)
        views = block["v2"]["pretrain"]["objective"]["views"]
        views["count"] = 2
        views["decoder"] |= {"channels": 16, "groups": 2, "layers": 2}
    speech, vision, text = (params["modalities"][name] for name in ("speech", "vision", "text"))
    speech["model"]["local"] |= {"channels": 16, "position_layers": 1, "position_groups": 4}
    speech["model"]["crop"] = {"min_seconds": 0.3, "max_seconds": 0.5}
    text["table"] = {"vocabulary": 40, "tokens": 16}
    for block, batch in ((speech, 2), (vision, 8), (text, 64)):
        block["pretrain"]["batch"] = batch
    for task, batch in (("transcribe", 2), ("digits", 8), ("topics", 64)):
        train, probe = params["tasks"][task]["train"], params["tasks"][task]["probe"]
        train |= {"batch": batch, "seeds": [0], "loop": dict(LOOP)}
        probe |= {"seeds": [0], "updates": 3} if task == "transcribe" else {"seeds": [0], "penalties": [1.0]}
        train["per_class"] = 0 if task == "transcribe" else 3
    return params


def write_speech(root: Path) -> Path:
    """Write 24 tones by two speakers per split, in LibriSpeech layout."""
    for number, split in enumerate(SPLITS, 1):
        for speaker in (f"{number}1", f"{number}2"):
            names = [f"{speaker}-7-{index:04d}" for index in range(4)]
            home = root / f"{split}-tiny" / speaker / "7"
            for index, name in enumerate(names):
                write_audio(home / f"{name}.flac", 0.6 + 0.05 * index, frequency=300 * number + 50 * index)
            lines = [f"{name} {words(name, count=3).upper()}\n" for name in names]
            (home / f"{speaker}-7.trans.txt").write_text("".join(lines))
    return root


def write_vision(root: Path) -> Path:
    """Write 36 images of three colours, PNG and JPEG, in folders by split and class."""
    for split in ("train", "test"):
        for colour in COLOURS:
            for index in range(6):
                write_image(root / split / colour / f"{index}.{'png' if index % 2 else 'jpg'}", colour, seed=index)
    return root


def write_text(root: Path) -> Path:
    """Write 12 documents of three paragraphs."""
    for split in SPLITS:
        (root / split).mkdir(parents=True)
        for index in range(4):
            paragraphs = [words(split, index, part) for part in range(3)]
            (root / split / f"{index}.txt").write_text("\n\n".join(paragraphs) + "\n")
    return root


def write_topics(root: Path) -> Path:
    """Write 24 sentences with one of two labels, one table per split."""
    root.mkdir(parents=True)
    for split in SPLITS:
        rows = [f"{words(split, index)}\t{('even', 'odd')[index % 2]}\n" for index in range(8)]
        (root / f"{split}.tsv").write_text("sentence\tlabel\n" + "".join(rows))
    return root


WRITERS = {"speech": write_speech, "vision": write_vision, "text": write_text, "topics": write_topics}


def words(*key: object, count: int = 10) -> str:
    """Return ``count`` words that depend on ``key`` alone."""
    rng = np.random.default_rng(list(repr(key).encode()))
    return " ".join(rng.choice(SENTENCE.split(), count))


def write_audio(path: Path, seconds: float, rate: int = 16000, channels: int = 1, frequency: float = 440) -> Path:
    """Write a tone in a little noise; the suffix of ``path`` says in which format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(len(time)).normal(0, 0.02, (len(time), channels))
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * frequency * time)[:, None] + noise, rate)
    return path


def write_image(path: Path, colour: str, height: int = 12, width: int = 10, seed: int = 0) -> Path:
    """Write one colour with a little noise, as PNG or JPEG by the suffix of ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-30, 30, (3, height, width))
    pixels = np.clip(np.array(COLOURS[colour])[:, None, None] + noise, 0, 255).astype(np.uint8)
    encode = encode_png if path.suffix == ".png" else encode_jpeg
    path.write_bytes(encode(torch.from_numpy(pixels)).numpy().tobytes())
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder by their path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
