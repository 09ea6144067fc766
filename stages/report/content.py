"""What the page shows, gathered from ``metrics``, ``plots`` and ``params.yaml``.

Modalities, corpora and tasks are whatever the folders hold: none is known by name. A missing file is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath

import yaml

from d2v_core.errors import UserError
from stages import params
from stages.paths import METRICS, PLOTS
from stages.report import parsing
from stages.report.answers import Answers, summarize
from stages.report.parsing import Curves, Reader
from stages.report.verdicts import Comparison

KNOWN_METRICS = ("counts.json", "pretrain.json", "evaluate.json", "probe.json")
KNOWN_PLOTS = ("pretrain.csv", "answers.csv", "classes.csv")
ORIGINS = ("pretrained", "scratch")  # the first ones drawn
PARAMETERS = ("modalities", "tasks", "labelled")


@dataclass(frozen=True)
class Modality:
    """A pretraining run: its last record and its columns by name."""

    name: str
    last: dict[str, float]
    columns: dict[str, list[float]]


@dataclass(frozen=True)
class Task:
    """A task: its block of params.yaml, its scores fine-tuned and probed, its losses by origin, and its answers."""

    name: str
    settings: Mapping
    tuned: list[Comparison]
    probed: list[Comparison]
    curves: dict[str, Curves]
    answers: Answers | None

    @property
    def headline(self) -> dict[str, Comparison]:
        """The first metric on the test split, fine-tuned and probed, as far as there is one."""
        kinds = {"fine-tuned": self.tuned, "frozen probe": self.probed}
        first = {kind: next((one for one in scores if one.split == "test"), None) for kind, scores in kinds.items()}
        return {kind: comparison for kind, comparison in first.items() if comparison}

    @property
    def conditions(self) -> str:
        """The modality and the number of labels, from params.yaml."""
        train = self.settings.get("train")
        few = train.get("per_class") if isinstance(train, Mapping) else None
        labels = "" if few is None else f"{few} labels per class" if few else "all labels"
        return ", ".join(part for part in (str(self.settings.get("modality") or ""), labels) if part)


@dataclass(frozen=True)
class Content:
    """Everything that the page shows."""

    corpora: dict[str, Mapping]
    modalities: list[Modality]
    tasks: list[Task]
    others: dict[str, dict[str, object]]
    parameters: dict[str, str]
    seed: object
    notices: list[str]

    @property
    def scored(self) -> list[Task]:
        """The tasks with a row in the headline."""
        return [task for task in self.tasks if task.headline]

    @property
    def tuned(self) -> dict[str, Comparison]:
        """The fine-tuned scores of the headline by task."""
        return {task.name: task.headline["fine-tuned"] for task in self.tasks if "fine-tuned" in task.headline}


def read_content() -> Content:
    """Return what ``metrics``, ``plots`` and ``params.yaml`` hold now."""
    reader, settings = Reader(), {}
    try:
        settings = params.load() if params.PATH.exists() else {}
    except UserError as error:
        reader.notices.append(str(error))
    names = known_names(settings)
    corpora = {name: reader.read(parsing.counts, METRICS / name / "counts.json") for name in names}
    modalities = [read_modality(name, reader) for name in names]
    tasks = [read_task(name, block(block(settings, "tasks"), name), reader) for name in names]
    return Content(
        {name: counts for name, counts in corpora.items() if counts},
        [modality for modality in modalities if modality.last],
        [task for task in tasks if task.tuned or task.probed or task.curves or task.answers],
        read_others(reader),
        show_parameters(settings),
        settings.get("seed"),
        reader.notices,
    )


def block(settings: Mapping, key: str) -> Mapping:
    """Return a block of settings, empty when there is none."""
    value = settings.get(key)
    return value if isinstance(value, Mapping) else {}


def known_names(settings: Mapping) -> list[str]:
    """Return the names of the folders in ``metrics`` and ``plots``, in the order of params.yaml, then by alphabet."""
    order = [str(name) for group in PARAMETERS for name in block(settings, group)]
    found = {path.name for root in (METRICS, PLOTS) for path in root.glob("*") if path.is_dir()}
    visible = [name for name in found if not name.startswith(".")]
    return sorted(visible, key=lambda name: (order.index(name) if name in order else len(order), name))


def read_modality(name: str, reader: Reader) -> Modality:
    """Return the pretraining run of ``name``; it is without a last record when there was none."""
    columns = reader.read(parsing.columns, PLOTS / name / "pretrain.csv") or {}
    last = {column: values[-1] for column, values in columns.items() if values[-1] == values[-1]}
    return Modality(name, last | (reader.read(parsing.numbers, METRICS / name / "pretrain.json") or {}), columns)


def read_task(name: str, settings: Mapping, reader: Reader) -> Task:
    """Return what there is of task ``name``."""
    tuned = reader.read(parsing.comparisons, METRICS / name / "evaluate.json") or []
    probed = reader.read(parsing.comparisons, METRICS / name / "probe.json") or []
    paths = [path for path in (PLOTS / name).glob("[!.]*.csv") if path.name not in KNOWN_PLOTS]
    paths.sort(key=lambda path: (ORIGINS.index(path.stem) if path.stem in ORIGINS else len(ORIGINS), path.stem))
    curves = {path.stem: reader.read(parsing.curves, path) for path in paths}
    rows = reader.read(parsing.answers, PLOTS / name / "answers.csv")
    exemplary = any("error_rate" in one.metric or one.metric == "pearson" for one in tuned)
    answers = summarize(rows, exemplary) if rows else None
    return Task(name, settings, tuned, probed, {origin: found for origin, found in curves.items() if found}, answers)


def read_others(reader: Reader) -> dict[str, dict[str, object]]:
    """Return the metrics that no stage here writes, by file."""
    paths = sorted(path for path in METRICS.glob("**/[!.]*.json") if path.name not in KNOWN_METRICS)
    found = {path.as_posix(): reader.read(parsing.flat, path) for path in paths}
    return {name: values for name, values in found.items() if values}


def show_parameters(settings: Mapping) -> dict[str, str]:
    """Return the blocks of params.yaml by dotted name, as YAML without comments."""
    return {
        f"{group}.{name}": yaml.safe_dump(
            plain(value), sort_keys=False, default_flow_style=None, allow_unicode=True, width=100
        )
        for group in PARAMETERS
        for name, value in block(settings, group).items()
    }


def plain(value: object) -> object:
    """Return a copy that shares nothing, so that YAML needs no anchors, and names no place on this machine."""
    if isinstance(value, Mapping):
        return {key: plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [plain(member) for member in value]
    if isinstance(value, str) and (value.startswith(("/", "~")) or PureWindowsPath(value).is_absolute()):
        return f"…/{PurePosixPath(value.replace(chr(92), '/')).name}"
    return value
