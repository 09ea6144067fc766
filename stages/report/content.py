"""What a run gave, gathered from ``metrics``, ``plots`` and ``params.yaml``.

Modalities, corpora and tasks are whatever the folders hold: none is known by name. A missing file is left out.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from d2v_core.errors import UserError
from stages import params
from stages.paths import METRICS, PLOTS
from stages.report import parsing
from stages.report.answers import Answers, Rows, summarize
from stages.report.parsing import Curves, Reader
from stages.report.verdicts import Comparison

KNOWN_METRICS = ("counts.json", "pretrain.json", "evaluate.json", "probe.json", "decode.json", "tuned.json")
KNOWN_PLOTS = ("pretrain.csv", "answers.csv", "classes.csv", "decoded.csv", "worst.csv")
ORIGINS = ("pretrained", "scratch")  # the first ones drawn
PARAMETERS = ("modalities", "tasks", "labelled", "joint", "language", "decoding")


@dataclass(frozen=True)
class Modality:
    """A pretraining run: its last record and its columns by name."""

    name: str
    last: dict[str, float]
    columns: dict[str, list[float]]


@dataclass(frozen=True)
class Task:
    """A task: its block of params.yaml, its scores fine-tuned and probed, its losses by origin, and its answers.

    ``decoded`` has beam search beside greedy decoding by origin, ``weights`` those of its search; ``classes`` the
    scores of every class. ``rows`` are the answers on the test split, and ``kind`` says what they are: ``classes``,
    ``tags`` (any number of classes), ``words`` or ``numbers``.
    """

    name: str
    settings: Mapping
    tuned: list[Comparison]
    probed: list[Comparison]
    decoded: dict[str, list[Comparison]]
    weights: dict[str, Mapping]
    curves: dict[str, Curves]
    classes: list[dict[str, str | float | None]]
    kind: str
    rows: Rows
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
        train = block(self.settings, "train")
        few, measured = train.get("per_class"), block(train, "head").get("kind") == "score"
        named = "scores" if measured else "labels"
        labels = "" if few is None else f"{few} {named} per class" if few else f"all {named}"
        return ", ".join(part for part in (str(self.settings.get("modality") or ""), labels) if part)

    @property
    def seeds(self) -> str:
        """The seeds of fine-tuning and of the probe, from params.yaml."""
        found = {key: block(self.settings, key).get("seeds") for key in ("train", "probe")}
        known = {key: one for key, one in found.items() if isinstance(one, list)}
        return "; ".join(f"{key} seeds {', '.join(map(str, one))}" for key, one in known.items())

    @property
    def bounded(self) -> bool:
        """Whether any score has an interval."""
        scores = [*self.tuned, *self.probed, *(one for rows in self.decoded.values() for one in rows)]
        return any(side and side.low is not None for one in scores for side in (one.ours, one.baseline))


@dataclass(frozen=True)
class Content:
    """Everything that the page shows."""

    corpora: dict[str, Mapping]
    modalities: list[Modality]
    tasks: list[Task]
    others: dict[str, dict[str, object]]
    settings: Mapping
    notices: list[str]

    @property
    def seed(self) -> object:
        """The seed of preparation and pretraining, from params.yaml."""
        return self.settings.get("seed")

    @property
    def parameters(self) -> dict[str, str]:
        """The blocks of params.yaml by dotted name, as YAML without comments."""
        return show_parameters(self.settings)

    @property
    def scored(self) -> list[Task]:
        """The tasks with a row in the headline."""
        return [task for task in self.tasks if task.headline]

    @property
    def tuned(self) -> dict[str, Comparison]:
        """The fine-tuned scores of the headline by task."""
        return {task.name: task.headline["fine-tuned"] for task in self.tasks if "fine-tuned" in task.headline}


def read_content(root: Path = Path()) -> Content:
    """Return what ``metrics``, ``plots`` and ``params.yaml`` in the folder ``root`` hold now."""
    reader = Reader(root)
    settings = read_settings(root / params.PATH, reader)
    names = known_names(settings, root)
    corpora = {name: reader.read(parsing.counts, METRICS / name / "counts.json") for name in names}
    modalities = [read_modality(name, reader) for name in names]
    tasks = [read_task(name, task_settings(settings, name), reader) for name in names]
    return Content(
        {name: counts for name, counts in corpora.items() if counts},
        [modality for modality in modalities if modality.last],
        [task for task in tasks if task.tuned or task.probed or task.decoded or task.curves or task.answers],
        read_others(reader),
        settings,
        reader.notices,
    )


def read_settings(path: Path, reader: Reader) -> Mapping:
    """Return params.yaml, also where it does not fit this version, which is then said; empty when there is none."""
    if not path.exists():
        return {}
    try:
        return params.load(path)
    except UserError as error:
        reader.notices.append(str(error).replace(str(path), str(params.PATH)))
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), params.Loader)
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return settings if isinstance(settings, Mapping) else {}


def task_settings(settings: Mapping, name: str) -> Mapping:
    """Return the block of a task; of one that decodes another one's models, that one's modality and table."""
    task = block(block(settings, "decoding"), name).get("task")
    tasks = block(settings, "tasks")
    return block(tasks, name) or {key: block(tasks, str(task)).get(key) for key in ("modality", "table") if task}


def block(settings: Mapping, key: str) -> Mapping:
    """Return a block of settings, empty when there is none."""
    value = settings.get(key)
    return value if isinstance(value, Mapping) else {}


def known_names(settings: Mapping, root: Path) -> list[str]:
    """Return the names of the folders in ``metrics`` and ``plots``, in the order of params.yaml, then by alphabet."""
    order = [str(name) for group in PARAMETERS for name in block(settings, group)]
    found = {path.name for part in (METRICS, PLOTS) for path in (root / part).glob("*") if path.is_dir()}
    visible = [name for name in found if not name.startswith(".")]
    return sorted(visible, key=lambda name: (order.index(name) if name in order else len(order), name))


def read_modality(name: str, reader: Reader) -> Modality:
    """Return the pretraining run of ``name``; it is without a last record when there was none."""
    columns = reader.read(parsing.columns, PLOTS / name / "pretrain.csv") or {}
    last = {column: values[-1] for column, values in columns.items() if values[-1] == values[-1]}
    return Modality(name, last | (reader.read(parsing.numbers, METRICS / name / "pretrain.json") or {}), columns)


def read_task(name: str, settings: Mapping, reader: Reader) -> Task:
    """Return what there is of task ``name``, or of the decoding of that name."""
    tuned = reader.read(parsing.comparisons, METRICS / name / "evaluate.json") or []
    probed = reader.read(parsing.comparisons, METRICS / name / "probe.json") or []
    decoded = reader.read(parsing.decoded, METRICS / name / "decode.json") or {}
    weights = reader.read(parsing.weights, METRICS / name / "decode.json") or {} if decoded else {}
    classes = reader.read(parsing.classes, PLOTS / name / "classes.csv") or []
    rows = reader.read(parsing.answers, PLOTS / name / "answers.csv") or []
    rows = rows or reader.read(parsing.transcripts, PLOTS / name / "decoded.csv") or []
    kind = "words" if decoded else kind_of({one.metric for one in tuned})
    answers = summarize(rows, kind) if rows else None
    curves = read_curves(name, reader)
    return Task(name, settings, tuned, probed, decoded, weights, curves, classes, kind, rows, answers)


def kind_of(metrics: Collection[str]) -> str:
    """Return what answers are, from the metrics that they are scored by."""
    kinds = {"word_error_rate": "words", "pearson": "numbers", "mean_average_precision": "tags"}
    return next((kind for metric, kind in kinds.items() if metric in metrics), "classes")


def read_curves(name: str, reader: Reader) -> dict[str, Curves]:
    """Return the losses of a task by origin."""
    folder = PLOTS / name
    names = [path.name for path in (reader.root / folder).glob("[!.]*.csv") if path.name not in KNOWN_PLOTS]
    origins = sorted((name.removesuffix(".csv") for name in names), key=lambda name: (name not in ORIGINS, name))
    curves = {origin: reader.read(parsing.curves, folder / f"{origin}.csv") for origin in origins}
    return {origin: found for origin, found in curves.items() if found}


def read_others(reader: Reader) -> dict[str, dict[str, object]]:
    """Return the metrics that no stage here writes, by file."""
    paths = (reader.root / METRICS).glob("**/[!.]*.json")
    names = sorted(path.relative_to(reader.root) for path in paths if path.name not in KNOWN_METRICS)
    found = {name.as_posix(): reader.read(parsing.flat, name) for name in names}
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


def plain(value: Any) -> Any:
    """Return a copy that shares nothing, so that YAML needs no anchors, and names no place on this machine."""
    if isinstance(value, Mapping):
        return {key: plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [plain(member) for member in value]
    if isinstance(value, str) and (value.startswith(("/", "~")) or PureWindowsPath(value).is_absolute()):
        return f"…/{PurePosixPath(value.replace(chr(92), '/')).name}"
    return value
