"""Speakers held out: ``python -m benchmarks.speakers TASK SEED COPIES PART ORIGIN...``.

One held-out speaker is one sample of speakers. Fine-tunes TASK from every ORIGIN (pretrained, scratch) and prints how
many recordings of speakers it learnt nothing from are named right, or for a task that transcribes the letter error
rate, in percent; the probe is logistic regression on frozen features of as many labels. PART ``split`` holds out what
the table's splits hold out, ``turns`` every speaker in turn. With COPIES every labelled recording is learnt from in
as many varied copies too (``benchmarks.varied_speech``), the same for every ORIGIN. A speaker is the second word of a
row's id.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import torch

from benchmarks.varied_speech import centred, varied, whole
from d2v_core.data.table import Table, open_shard, read_index
from d2v_core.evaluation.features import pooled_features
from d2v_core.finetuning import finetune, labelled_rows
from d2v_core.model.supervised import Supervised
from stages import params, runner, tasks, training
from stages.probe import SPLITS, ProbeConfig, few_rows, linear_probe
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


class Copied:
    """Labelled rows of a table, and varied copies of them, as what fine-tuning reads of a table."""

    split = "train"

    def __init__(self, table: Table, rows: np.ndarray, copies: int) -> None:
        self.folder, self.classes, self.rows = table.folder, table.classes, [table[row] for row in rows]
        self.rows += [
            row | {"audio": whole(varied(centred(row["audio"]), np.random.default_rng([number, copy])))}
            for copy in range(copies)
            for number, row in enumerate(self.rows)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict:
        return self.rows[int(row)]

    def lengths(self, column: str) -> np.ndarray:
        """Return the number of values of the list ``column`` in every row."""
        return np.array([len(row[column]) for row in self.rows])

    def column(self, name: str) -> list:
        """Return a scalar column as a list."""
        return [row[name] for row in self.rows]


def main(name: str, seed: int, copies: int, part: str, *origins: str) -> None:
    """Print the scores of every origin, fine-tuned and, for classes without copies, probed, by speaker."""
    task = tasks.read_task(name)
    groups = held_out(task, part)
    for origin in origins:
        started = tasks.starting_from(task, origin)
        ways = {"fine-tuned": partial(tuned, copies=copies)} | ({} if copies or task.transcribes else {"probe": probed})
        for kind, way in ways.items():
            found = {who: value for held in groups for who, value in way(started, origin, seed, held).items()}
            cells = " ".join(f"{who} {value:.1f}" for who, value in found.items())
            mean = f" mean {np.mean(list(found.values())):.1f}" if part == "turns" else ""
            print(f"{name} seed {seed} copies {copies} {origin} {kind}: {cells}{mean}", flush=True)


def held_out(task: Task, part: str) -> list[tuple[str, ...]]:
    """Return who is held out together: each speaker alone, or those that the table's splits hold out."""
    columns = task.setup.modality.columns
    if part == "turns":
        return [(who,) for who in sorted(set(map(speaker, Recordings(task.folder, columns, bool).column("id"))))]
    names = [name for split in SPLITS for name in Table(task.folder, split, columns).column("id")]
    return [tuple(sorted(set(map(speaker, names))))]


def tuned(task: Task, origin: str, seed: int, held: tuple[str, ...], copies: int) -> dict[str, float]:
    """Return the score on every speaker of ``held`` after fine-tuning on the others."""
    columns = task.setup.modality.columns
    known = Recordings(task.folder, columns, lambda name: name not in held)
    config = replace(task.train, per_class=0)
    rows = Copied(known, labelled_rows(known, task.train, seed), copies)
    torch.manual_seed(seed)
    model = tasks.first_model(task, origin).to(training.pick_device())
    with tempfile.TemporaryDirectory() as state:
        for _ in finetune(task.setup, config, model, cast(Table, rows), task.labels, seed, Path(state)):
            pass
    return {who: score(task, model, who) for who in held}


def score(task: Task, model: Supervised, who: str) -> float:
    """Return the accuracy or the letter error rate on the recordings of speaker ``who``, in percent."""
    table = Recordings(task.folder, task.setup.modality.columns, lambda name: name == who)
    return task.scored(model, table).once()["letter_error_rate" if task.transcribes else "accuracy"]


def probed(task: Task, origin: str, seed: int, held: tuple[str, ...]) -> dict[str, float]:
    """Return the accuracy on every speaker of ``held`` of logistic regression (penalty 0.1) on as many labels."""
    columns = task.setup.modality.columns
    config = params.read(ProbeConfig, f"tasks.{task.name}.probe")
    torch.manual_seed(seed)
    encoder = task.setup.encoder()
    if origin == "pretrained":
        tasks.load_pretrained(task, encoder)
    groups = {"train": lambda name: name not in held} | {who: who.__eq__ for who in held}
    both = {}
    for group, wanted in groups.items():
        table = Recordings(task.folder, columns, wanted)
        features = pooled_features(task.setup, encoder, table, training.pick_device())
        both[group] = features, np.array(table.column("label"))
    rows = few_rows(both["train"][1], config.per_class, seed)
    single = ProbeConfig(seeds=(seed,), penalties=(0.1,))
    return {
        who: linear_probe({"train": both["train"], "valid": both[who], "test": both[who]}, rows, single)["test"]
        for who in held
    }


if __name__ == "__main__":
    runner.call(main)
