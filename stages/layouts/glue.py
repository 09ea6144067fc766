"""GLUE's tasks as they are downloaded: which columns of which file are the sentences and the answer (reference 6.4).

The dev set is the split valid. GLUE's own test sets have no answers and are left out, so test is held out from train;
MNLI has two dev sets, of which the mismatched one is test.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass

from d2v_core.errors import UserError
from stages.layouts.config import CorpusConfig
from stages.layouts.files import Files, Record, stem
from stages.layouts.tables import read_lines

MOST = 5.0  # the largest score of STS-B
PARTS = {
    "train": "train",
    "dev": "valid",
    "dev_matched": "valid",
    "dev_mismatched": "test",
    "msr_paraphrase_train": "train",
    "msr_paraphrase_test": "test",
}


@dataclass(frozen=True)
class Columns:
    """Where a task has its one or two sentences and its answer."""

    first: str
    second: str | None
    answer: str


TASKS = {  # SST-2 is last: its columns are among those of others
    "MRPC": Columns("#1 String", "#2 String", "Quality"),
    "QQP": Columns("question1", "question2", "is_duplicate"),
    "STS-B": Columns("sentence1", "sentence2", "score"),
    "MNLI": Columns("sentence1", "sentence2", "gold_label"),
    "QNLI": Columns("question", "sentence", "label"),
    "RTE and WNLI": Columns("sentence1", "sentence2", "label"),
    "SST-2": Columns("sentence", None, "label"),
}
COLA = ("source", "label", "mark", "sentence")  # its files have no header
UNDECIDED = ("", "-")


def glue(files: Files, corpus: CorpusConfig) -> Iterator[Record]:
    """Read the folder of a GLUE task: ``train.tsv`` and ``dev.tsv``, or MNLI's ``dev_matched``, ``dev_mismatched``."""
    for name, location in files.having((".tsv", ".txt")):
        part = stem(name).rpartition("/")[2]
        if part not in PARTS:
            continue
        header, rows = rows_of(location, corpus)
        task = task_of(header)
        if task is None:
            raise UserError(f"{location} has the header of no GLUE task; correct it or choose another layout.")
        columns = TASKS.get(task, Columns("sentence", None, "label"))
        for number, row in enumerate(rows):
            item = f"{stem(name)}-{number:07d}"
            yield {"id": item, "part": corpus_part(part, corpus), "group": item, **content(row, columns)}


def content(row: dict[str, str], columns: Columns) -> Record:
    """Return sentences and answer of a row; the scores of STS-B become shares of the highest."""
    answer = row.get(columns.answer)
    answer = None if answer is None or answer in UNDECIDED else answer
    found = {"text": row.get(columns.first), "pair": row.get(columns.second) if columns.second else None}
    if columns.answer != "score":
        return found | {"label": answer}
    return found | {"score": None if answer is None else share(answer)}


def share(score: str) -> str:
    """Return a score of STS-B as a share of the highest; what is no number stays, for its row to be dropped."""
    try:
        return repr(float(score) / MOST)
    except ValueError:
        return score


def corpus_part(part: str, corpus: CorpusConfig) -> str:
    """Return the name under which ``parts`` knows a file, its own where that is there."""
    if part in corpus.parts:
        return part
    return next((name for name, split in corpus.parts.items() if split == PARTS[part]), part)


def rows_of(location: str, corpus: CorpusConfig) -> tuple[list[str], Iterator[dict[str, str]]]:
    """Return the header of a file and its rows; CoLA, which has none, gets one."""
    lines = csv.reader(read_lines(location, corpus.encoding_errors), delimiter="\t", quoting=csv.QUOTE_NONE)
    header = next(lines, [])
    if len(header) == len(COLA) and task_of(header) is None and header[1] in ("0", "1"):
        return list(COLA), (dict(zip(COLA, row, strict=False)) for row in prepended(header, lines))
    return header, (dict(zip(header, row, strict=False)) for row in lines)


def prepended(first: list[str], rest: Iterator[list[str]]) -> Iterator[list[str]]:
    """Yield ``first`` and then the rest."""
    yield first
    yield from rest


def task_of(header: list[str]) -> str | None:
    """Return the first task whose columns a header has, None if there is none."""
    if tuple(header) == COLA:
        return "CoLA"
    wanted = {task: {columns.first, columns.second or columns.first, columns.answer} for task, columns in TASKS.items()}
    return next((task for task, columns in wanted.items() if columns <= set(header)), None)
