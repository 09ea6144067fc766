"""One shard: items in, one Arrow file out, every item kept or dropped for a reason; on any machine."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import torch

from d2v_core import modalities
from d2v_core.data.table import LABELS, Row, Rows
from d2v_core.errors import Dropped, UserError
from stages import readers, sources
from stages.layouts import Record
from stages.preparation import identity
from stages.preparation.store import Done, Store

CRASHED = "crashed"
NAMED = ("id", "path", "split")


@dataclass(frozen=True)
class Job:
    """What all shards of a table have in common: how items become rows, and where shards go.

    Paths are relative to ``project``; ``work`` is the digest of code, parameters and vocabulary where the job began.
    """

    modality: str
    table: object
    vocabulary: Path
    store: str
    project: str
    work: str


@dataclass(frozen=True)
class Task:
    """The items of one shard, and the numbers of the classes that every label among them names.

    With ``several`` an item may have more than one, and the table a column for them.
    """

    job: Job
    split: str
    records: Sequence[Record]
    labels: Mapping[str, Sequence[int]]
    several: bool = False

    @property
    def columns(self) -> pa.Schema:
        """The columns of the shard."""
        columns = modalities.get(self.job.modality).columns
        return columns.append(LABELS) if self.several else columns


def begin(modality: str, table: object, vocabulary: Path, store: str) -> Job:
    """Return the job of making a table from here."""
    return Job(modality, table, vocabulary, store, os.getcwd(), identity.work(modality, table, vocabulary))


def make_shard(task: Task, careful: bool = False) -> Done:
    """Make the shard of ``task``, or find it where it is already finished.

    ``careful`` decodes in a process of its own, so that a codec that crashes costs one item. Raises UserError on a
    machine whose code or vocabulary is another one.
    """
    enter(task.job)
    store = Store(task.job.store)
    with sources.reading_once():
        key = identity.shard(task.job.work, task.split, task.records, dict(task.labels), task.several)
        name = f"{task.split}-{key[:32]}"
        return store.find(name) or write(task, store, name, careful)


def enter(job: Job) -> None:
    """Go to the job's project, if this machine sees it, and make sure that the same rows come out here."""
    if Path(job.project).is_dir():
        os.chdir(job.project)
    torch.set_num_threads(1)
    if identity.work(job.modality, job.table, job.vocabulary) != job.work:
        raise UserError(
            f"a worker in {os.getcwd()} has other code, libraries or {job.vocabulary} than {job.project}; "
            "make them the same and restart it."
        )


def write(task: Task, store: Store, name: str, careful: bool) -> Done:
    """Decode the items of ``task`` and write its file; with a crash in it, it is not marked and will be tried again."""
    from stages.preparation import careful as isolation

    modality, table = modalities.get(task.job.modality), task.job.table
    gathered, dropped, kept, amount, replaced = Rows(task.columns), [], 0, 0, 0
    outcomes = isolation.decode(task) if careful else decode(task)
    for record, outcome in zip(task.records, outcomes, strict=True):
        if isinstance(outcome, Dropped):
            named = {key: record[key] for key in NAMED}
            dropped.append(named | {"reason": outcome.reason, "detail": outcome.detail})
            continue
        labels = None if record["label"] is None else task.labels.get(record["label"])
        label = {LABELS.name: labels} if task.several else {"label": labels and labels[0]}
        common = {"id": record["id"], "text": record["text"], "score": readers.number(record)} | label
        for row in outcome:
            gathered.add(row | common)
            amount += modality.amount(row, table)
        kept += 1
        replaced += readers.replaced(record, table)
    with store.write(f"{name}.arrow") as sink:
        gathered.write(pa.PythonFile(sink, "w"))
    entry = {"rows": len(gathered), "blake3": sink.hash.hexdigest()}
    done = Done(f"{name}.arrow", entry, kept, amount, dropped, sink.size, replaced)
    if not any(row["reason"] == CRASHED for row in dropped):
        store.mark(name, done)
    return done


def decode(task: Task, first: int = 0) -> Iterator[list[Row] | Dropped]:
    """Yield the rows of every item from number ``first`` on, or why it is dropped."""
    modality = modalities.get(task.job.modality)
    for record in task.records[first:]:
        try:
            yield make_rows(record, task, modality)
        except Dropped as error:
            yield error


def make_rows(record: Record, task: Task, modality: ModuleType) -> list[Row]:
    """Decode one item into the rows of ``modality``; whatever goes wrong inside a codec is a reason to drop it."""
    if record["label"] is not None and record["label"] not in task.labels:
        raise Dropped("unknown label", f"{record['label']!r} is not among the training labels")
    try:
        decoded = readers.read(record, task.job.table, task.job.vocabulary)
        return modality.rows(decoded, task.job.table)
    except (Dropped, ImportError):
        raise
    except Exception as error:  # codecs raise anything
        raise Dropped("unreadable", f"{type(error).__name__}: {error}") from error
