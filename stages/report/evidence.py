"""What the numbers rest on: the tables, the worst answers with their sound, picture or text, and the model cards.

Everything here is read from ``data`` and ``models``, which may be elsewhere or not there yet: then it is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from d2v_core.data.table import read_index
from d2v_core.errors import UserError
from d2v_core.run import read_config
from stages.paths import MODELS, TABLES, VOCABULARIES
from stages.report import media, tables
from stages.report.answers import Answer, worst
from stages.report.card import Card, read_card
from stages.report.content import Content, Task, block
from stages.report.media import Room, Shown
from stages.report.parsing import BROKEN
from stages.report.tables import Summary

MOST_WORST = 8  # of a task
MOST_THUMBNAILS = 24
UNREADABLE = (*BROKEN, UserError, OSError, pl.exceptions.PolarsError)
Worst = list[tuple[Answer, Shown | None]]


@dataclass(frozen=True)
class Evidence:
    """Summaries of tables by name, the worst answers of every task with their rows, and cards of pretrained runs."""

    tables: dict[str, Summary]
    worst: dict[str, Worst]
    cards: list[Card]


def read_evidence(content: Content) -> Evidence:
    """Return what the tables of the corpora and tasks of ``content`` show."""
    room = Room()
    summaries = {name: read_summary(name, content) for name in content.corpora}
    answers = {task.name: read_worst(task, content, room) for task in content.tasks}
    return Evidence(
        {name: summary for name, summary in summaries.items() if summary},
        {name: rows for name, rows in answers.items() if rows},
        [card for card in (make_card(run, content) for run in pretrained_runs()) if card],
    )


def pretrained_runs() -> list[Path]:
    """Return the folders of the runs in ``models`` that were pretrained, alone and jointly."""
    return sorted(path.parent for kind in ("pretrain", "joint") for path in (MODELS / kind).glob("**/config.json"))


def make_card(run: Path, content: Content) -> Card | None:
    """Return the card of a run; None where it cannot be read."""
    try:
        return read_card(run, read_config(run), content)
    except UNREADABLE:
        return None


def table_settings(content: Content, name: str) -> Mapping:
    """Return the block ``table`` of a modality, or of the modality of a labelled corpus."""
    modality = block(block(content.settings, "labelled"), name).get("modality", name)
    return block(block(block(content.settings, "modalities"), str(modality)), "table")


def read_summary(name: str, content: Content) -> Summary | None:
    """Return what the table of a corpus holds; None where there is none or it cannot be read."""
    try:
        return tables.summarize(TABLES / name, table_settings(content, name))
    except UNREADABLE:
        return None


def read_worst(task: Task, content: Content, room: Room) -> Worst:
    """Return the worst answers of a task, each with its row where the task's table has it."""
    if not task.rows:
        return []
    settings = table_settings(content, str(task.settings.get("modality")))
    try:
        answers = worst(task.rows, task.kind, MOST_THUMBNAILS if "size" in settings else MOST_WORST)
    except UNREADABLE:
        return []
    try:
        folder, modality = TABLES / str(task.settings["table"]), str(task.settings["modality"])
        rows = tables.rows_by_id(folder, "test", [answer.id for answer in answers])
        classes = read_index(folder)["classes"]
        shown = {id_: media.show(row, settings, VOCABULARIES / modality, classes, room) for id_, row in rows.items()}
    except UNREADABLE:
        shown = {}
    return [(answer, shown.get(answer.id)) for answer in answers]
