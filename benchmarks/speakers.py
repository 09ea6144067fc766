"""Every speaker held out in turn: ``python -m benchmarks.speakers TASK SEED ORIGIN...``.

One held-out speaker is one sample of speakers. Fine-tunes TASK from every ORIGIN (pretrained, scratch) on the labels of
all speakers but one, and prints how many of that one's recordings are named right, for each and on average; the
probe is logistic regression on frozen features of as many labels. A speaker is the second word of a row's id.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from d2v_core.data.table import Table, open_shard, read_index
from d2v_core.evaluation.features import pooled_features
from d2v_core.finetuning import finetune, predict
from stages import params, tasks, training
from stages.probe import ProbeConfig, few_rows, linear_probe
from stages.tasks import Task


class Recordings(Table):
    """All rows of a table's splits together whose speaker is wanted."""

    def __init__(self, folder: Path, columns: pa.Schema, wanted: Callable[[str], bool]) -> None:
        self.folder, self.split, self.index = folder, "every", read_index(folder)
        self.shards = [open_shard(folder / name, columns) for name in self.index["shards"]]
        self.starts = np.cumsum([0] + [shard.rows for shard in self.shards])
        self.rows = np.flatnonzero([wanted(name) for name in map(speaker, super().column("id"))])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict:
        return super().__getitem__(int(self.rows[row]))

    def lengths(self, column: str) -> np.ndarray:
        """Return the number of values of the list ``column`` in every row."""
        return super().lengths(column)[self.rows]

    def column(self, name: str) -> list:
        """Return a scalar column as a list."""
        values = super().column(name)
        return [values[row] for row in self.rows]


def speaker(name: str) -> str:
    """Return the speaker of a recording such as 0_george_12."""
    return name.rpartition("/")[2].split("_")[1]


def main(name: str, seed: str, *origins: str) -> None:
    """Print the accuracies of every origin, fine-tuned and probed, by speaker."""
    task = tasks.read_task(name)
    everyone = Recordings(task.folder, task.setup.modality.columns, bool)
    speakers = sorted(set(map(speaker, everyone.column("id"))))
    for origin in origins:
        started = tasks.starting_from(task, origin)
        for kind, score in (("fine-tuned", tuned), ("probe", probed)):
            found = [score(started, origin, int(seed), held) for held in speakers]
            cells = " ".join(f"{held} {value:.1f}" for held, value in zip(speakers, found, strict=True))
            print(f"{name} {origin} {kind}: {cells} mean {np.mean(found):.1f}", flush=True)


def tuned(task: Task, origin: str, seed: int, held: str) -> float:
    """Return the accuracy on speaker ``held`` after fine-tuning on the others."""
    columns = task.setup.modality.columns
    known = Recordings(task.folder, columns, lambda name: name != held)
    torch.manual_seed(seed)
    model = tasks.first_model(task, origin).to(training.pick_device())
    with tempfile.TemporaryDirectory() as state:
        for _ in finetune(task.setup, task.train, model, known, task.labels, seed, Path(state)):
            pass
    unknown = Recordings(task.folder, columns, lambda name: name == held)
    answers = [int(logits.argmax()) for logits in predict(task.setup, model, unknown, training.pick_device())]
    return 100 * float(np.mean(np.array(answers) == unknown.column("label")))


def probed(task: Task, origin: str, seed: int, held: str) -> float:
    """Return the accuracy on speaker ``held`` of logistic regression on the others' few labels; the penalty is 0.1."""
    columns = task.setup.modality.columns
    config = params.read(ProbeConfig, f"tasks.{task.name}.probe")
    torch.manual_seed(seed)
    encoder = task.setup.encoder()
    if origin == "pretrained":
        tasks.load_pretrained(task, encoder)
    both = {}
    for split, wanted in (("train", lambda name: name != held), ("valid", lambda name: name == held)):
        table = Recordings(task.folder, columns, wanted)
        features = pooled_features(task.setup, encoder, table, training.pick_device())
        both[split] = features, np.array(table.column("label"))
    rows = few_rows(both["train"][1], config.per_class, seed)
    single = ProbeConfig(seeds=(seed,), penalties=(0.1,))
    return linear_probe({**both, "test": both["valid"]}, rows, single)["test"]


if __name__ == "__main__":
    main(*sys.argv[1:])
