"""What a task is: a modality, a table with labels, how its head learns, and how its answers are scored."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from d2v_core.data.table import Row, Table
from d2v_core.errors import UserError
from d2v_core.evaluation import ctc
from d2v_core.finetuning import FinetuneConfig, predict
from d2v_core.model.supervised import HeadConfig, Supervised
from d2v_core.run import read_config, read_weights
from d2v_core.setup import Setup, make_setup
from stages import params, training
from stages.metrics import classification_scores, transcription_scores
from stages.paths import MODELS, TABLES
from stages.symbols import read_symbols

ORIGINS = ("pretrained", "scratch")


@dataclass(frozen=True)
class Task:
    """The block ``tasks.<name>``, read and checked, with the names of its classes or letters."""

    name: str
    setup: Setup
    folder: Path
    train: FinetuneConfig
    symbols: tuple[str, ...]

    @property
    def transcribes(self) -> bool:
        """Whether the answer is a transcript and not a class."""
        return self.train.head.kind == "ctc"

    def table(self, split: str) -> Table:
        """Return one split of the task's table."""
        return Table(self.folder, split, self.setup.modality.columns)

    def labels(self, rows: Sequence[Row]) -> Tensor:
        """Return the labels of rows: classes [B], or letters [B, L] padded with -1."""
        if self.transcribes:
            return ctc.pad([ctc.encode(row["text"], self.symbols) for row in rows])
        return torch.tensor([row["label"] for row in rows])

    def truths(self, table: Table) -> list[str]:
        """Return what the right answers are, as words, for every row."""
        if self.transcribes:
            return [text or "" for text in table.column("text")]
        return ["" if label is None else self.symbols[label] for label in table.column("label")]

    def answers(self, model: Supervised, table: Table) -> list[str]:
        """Return what ``model`` answers for every row, as words."""
        logits = predict(self.setup, model, table, training.pick_device())
        if self.transcribes:
            return [ctc.greedy(values, self.symbols) for values in logits]
        return [self.symbols[int(values.argmax())] for values in logits]

    def scores(self, truths: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
        """Return the task's metrics in percent, over the rows that have a right answer."""
        pairs = [(truth, answer) for truth, answer in zip(truths, answers, strict=True) if truth]
        if not pairs:
            raise UserError(f"{self.folder} has no labels to evaluate task {self.name!r} on.")
        score: Callable = transcription_scores if self.transcribes else classification_scores
        return score(*zip(*pairs, strict=True))

    def model(self, setup: Setup, head: HeadConfig | None = None) -> Supervised:
        """Return a new model for the task with random weights."""
        return Supervised(setup.encoder(), head or self.train.head, setup.trunk.width, len(self.symbols))


def read_task(name: str) -> Task:
    """Return the task ``name`` of params.yaml; raise UserError for anything wrong in it."""
    where = f"tasks.{name}"
    modality, table = params.get(f"{where}.modality"), params.get(f"{where}.table")
    setup = training.read_setup(modality)
    train = params.read(FinetuneConfig, f"{where}.train")
    folder = TABLES / table
    if train.head.kind == "ctc":
        symbols = read_symbols(modality)
    else:
        symbols = Table(folder, "train", setup.modality.columns).classes
    if not symbols:
        raise UserError(f"{folder} has no labels, so task {name!r} has nothing to learn; label it or drop the task.")
    return Task(name, setup, folder, train, tuple(symbols))


def pretrained_model(task: Task, head: HeadConfig | None = None) -> Supervised:
    """Return a new model for ``task`` whose encoder is the pretrained student."""
    folder = MODELS / "pretrain" / task.setup.name
    setup = make_setup(task.setup.name, read_config(folder), str(folder / "config.json"))
    model = task.model(setup, head)
    model.encoder.load_state_dict(read_weights(folder, "encoder."))
    return model


def run_folder(task: str, origin: str, seed: int) -> Path:
    """Return where the model of ``task`` that started from ``origin`` with ``seed`` is published."""
    return MODELS / "finetune" / task / origin / f"seed-{seed}"


def load_finetuned(task: Task, origin: str, seed: int) -> Supervised:
    """Return a fine-tuned model of ``task``."""
    folder = run_folder(task.name, origin, seed)
    model = task.model(make_setup(task.setup.name, read_config(folder), str(folder / "config.json")))
    model.load_state_dict(read_weights(folder))
    return model


def spread_over_seeds(results: Sequence[Mapping[str, float]]) -> dict[str, dict[str, object]]:
    """Return mean, sample standard deviation and the single values of every metric over seeds."""
    summary = {}
    for name in results[0]:
        values = [result[name] for result in results]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        summary[name] = {"mean": round(float(np.mean(values)), 2), "values": [round(value, 2) for value in values]}
        summary[name]["deviation"] = None if deviation is None else round(deviation, 2)
    return summary
