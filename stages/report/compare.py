"""Runs side by side: their metrics with seeds and intervals, the parameters that differ, their curves in one chart.

A run is whatever DVC calls a revision (branch, tag, commit, name of an experiment), ``workspace`` for the files that
are here, or another folder that holds ``metrics``, ``plots`` and ``params.yaml``.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from d2v_core.errors import UserError
from stages.params import PATH
from stages.paths import METRICS, PLOTS
from stages.report import figures
from stages.report.content import Content, Task, plain, read_content
from stages.report.figures import Chart
from stages.report.parsing import Curves
from stages.report.verdicts import Comparison, Side

KINDS = ("fine-tuned", "frozen probe", "beam search")
WORKSPACE = "workspace"
DEFAULT = ("HEAD", WORKSPACE)
CURVES = {"loss": "Pretraining loss", "target_spread": "Spread of the targets"}
MONITORS = ("update", "loss", "target_spread", "prediction_spread", "position_share")


@dataclass(frozen=True)
class Run:
    """One of the runs: the name that was given for it, and what it gave."""

    name: str
    content: Content


@dataclass(frozen=True)
class Row:
    """A metric of a task in every run, each compared with the first run."""

    kind: str
    metric: str
    split: str
    origin: str
    cells: list[Comparison]


@dataclass(frozen=True)
class Part:
    """A task or a modality in all runs: its table and its charts."""

    name: str
    rows: list[Row]
    monitors: list[tuple[str, list[float | None]]]
    charts: list[Chart]


@dataclass(frozen=True)
class Differences:
    """Everything on the page: runs, parameters that differ with their value in every run, modalities and tasks."""

    runs: list[Run]
    parameters: list[tuple[str, list[str]]]
    modalities: list[Part]
    tasks: list[Part]

    @property
    def bounded(self) -> bool:
        """Whether any score has an interval."""
        return any(task.bounded for run in self.runs for task in run.content.tasks)


def compare(names: Sequence[str]) -> Differences:
    """Return how the runs called ``names`` differ; raises UserError for one that does not exist or holds nothing."""
    runs = [read_run(name) for name in names or DEFAULT]
    modalities = dict.fromkeys(modality.name for run in runs for modality in run.content.modalities)
    tasks = dict.fromkeys(task.name for run in runs for task in run.content.tasks)
    return Differences(
        runs,
        different(runs),
        [modality_part(name, runs) for name in modalities],
        [task_part(name, runs) for name in tasks],
    )


def read_run(name: str) -> Run:
    """Return the run called ``name``."""
    if name == WORKSPACE or Path(name).is_dir():
        content = read_content(Path() if name == WORKSPACE else Path(name))
    else:
        with TemporaryDirectory() as folder:
            fetch(name, Path(folder))
            content = read_content(Path(folder))
    if not content.modalities and not content.tasks:
        raise UserError(f"{name} has no metrics; name a revision, an experiment or a folder in which stages ran.")
    return Run(name, content)


def fetch(revision: str, folder: Path) -> None:
    """Copy metrics, plots and parameters of a revision to ``folder``; raise UserError when there is none such."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException

    files = DVCFileSystem(rev=revision)
    try:
        files.repo  # noqa: B018 - looks the revision up
    except DvcException as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{revision} is neither a folder nor a revision: {reason}; name one that is.") from None
    for path in (METRICS, PLOTS, PATH):
        if files.exists(path.as_posix()):
            files.get(path.as_posix(), str(folder / path), recursive=True)


def different(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return the parameters that are not the same in all runs, by dotted name, with their values."""
    flat = [dict(flatten(plain(run.content.settings))) for run in runs]
    names = dict.fromkeys(name for values in flat for name in values)
    rows = [(name, [values.get(name, "–") for values in flat]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def flatten(settings: Mapping, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every value of nested blocks with its dotted name."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, default=str)


def modality_part(name: str, runs: Sequence[Run]) -> Part:
    """Return a modality's last records and curves."""
    found = {run.name: next((one for one in run.content.modalities if one.name == name), None) for run in runs}
    rows = [(monitor, [one.last.get(monitor) if one else None for one in found.values()]) for monitor in MONITORS]
    charts = []
    for column, title in CURVES.items():
        curves = {
            run: (one.columns["update"], one.columns[column])
            for run, one in found.items()
            if one and column in one.columns
        }
        charts += [figures.overlaid(title, words_of(column), curves)] if curves else []
    return Part(name, [], [row for row in rows if any(value is not None for value in row[1])], charts)


def words_of(column: str) -> str:
    """Return what the axis of a column says."""
    return "loss" if column == "loss" else "spread"


def task_part(name: str, runs: Sequence[Run]) -> Part:
    """Return a task's scores and curves."""
    found = {run.name: next((one for one in run.content.tasks if one.name == name), None) for run in runs}
    scores = [sides_of(task) if task else {} for task in found.values()]
    rows = []
    for key in sorted(dict.fromkeys(key for sides in scores for key in sides), key=lambda key: KINDS.index(key[0])):
        kind, metric, split, origin = key
        cells = [Comparison(metric, split, sides.get(key), scores[0].get(key)) for sides in scores]
        rows.append(Row(kind, metric, split, origin, cells))
    charts = []
    for origin in dict.fromkeys(origin for task in found.values() if task for origin in task.curves):
        curves = {run: mean_of(task.curves[origin]) for run, task in found.items() if task and origin in task.curves}
        charts.append(figures.overlaid(f"Training loss, {origin}", "loss", curves))
    return Part(name, rows, [], charts)


def mean_of(curves: Curves) -> tuple[Sequence[float], Sequence[float]]:
    """Return the mean over seeds."""
    return figures.mean_curve(list(curves.values()))


def sides_of(task: Task) -> dict[tuple[str, str, str, str], Side]:
    """Return the scores of a task by kind, metric, split and origin, the test split first."""
    kinds = ((KINDS[0], task.tuned, "scratch"), (KINDS[1], task.probed, "random"))
    found = {
        (kind, one.metric, one.split, origin): side
        for kind, scores, baseline in kinds
        for one in sorted(scores, key=lambda one: one.split != "test")
        for origin, side in (("pretrained", one.ours), (baseline, one.baseline))
        if side
    }
    for origin, scores in task.decoded.items():
        found |= {(KINDS[2], one.metric, one.split, origin): one.ours for one in scores if one.ours}
    return found
