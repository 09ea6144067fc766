"""What a task is: a modality, a table with labels, how its head learns, and how its answers are scored."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from d2v_core.data.table import LABELS, Row, Table
from d2v_core.errors import UserError
from d2v_core.evaluation import ctc
from d2v_core.finetuning import FinetuneConfig, finetuned_setup, label_columns, predict, require_parts
from d2v_core.model.encoder import Encoder
from d2v_core.model.supervised import HeadConfig, Supervised
from d2v_core.run import fill, read_config, read_weights
from d2v_core.setup import Setup, setup_of
from stages import params, training
from stages.intervals import Scores, Scoring, bounds
from stages.metrics import BEST, classification_scores, regression_scores, tag_scores, transcription_scores
from stages.paths import MODELS, TABLES
from stages.symbols import read_symbols

ORIGINS = ("pretrained", "scratch")
BETWEEN = "; "  # several labels, where a person reads them


@dataclass(frozen=True)
class Task:
    """The block ``tasks.<name>``, read and checked, with the names of its classes or letters."""

    name: str
    setup: Setup
    folder: Path
    pretrained: Path
    train: FinetuneConfig
    symbols: tuple[str, ...]

    @property
    def finetuned(self) -> Setup:
        """Return the setup of the encoder as the task trains it."""
        return finetuned_setup(self.setup, self.train)

    @property
    def transcribes(self) -> bool:
        """Whether the answer is a transcript and not a class."""
        return self.train.head.kind == "ctc"

    @property
    def measures(self) -> bool:
        """Whether the answer is a number and not a class."""
        return self.train.head.kind == "score"

    @property
    def tags(self) -> bool:
        """Whether the answer is any number of classes."""
        return self.train.head.kind == "tags"

    def table(self, split: str) -> Table:
        """Return one split of the task's table."""
        return Table(self.folder, split, label_columns(self.setup, self.train.head), self.setup.config.table)

    def labels(self, rows: Sequence[Row]) -> Tensor:
        """Return the labels of rows: classes or numbers [B], letters [B, L] padded with -1, or 1 at tags [B, C]."""
        if self.tags:
            marked = torch.zeros(len(rows), len(self.symbols))
            for number, row in enumerate(rows):
                marked[number, row[LABELS.name].tolist()] = 1
            return marked
        if self.transcribes:
            return ctc.pad([ctc.encode(row["text"], self.symbols) for row in rows])
        return torch.tensor([row["score" if self.measures else "label"] for row in rows])

    def truths(self, table: Table) -> list[str]:
        """Return what the right answers are, as words, for every row."""
        if self.transcribes:
            return [text or "" for text in table.column("text")]
        if self.measures:
            return ["" if score is None else f"{score:.6g}" for score in table.column("score")]
        if self.tags:
            rows = (table[row][LABELS.name] for row in range(len(table)))
            return [BETWEEN.join(self.symbols[label] for label in labels) for labels in rows]
        return ["" if label is None else self.symbols[label] for label in table.column("label")]

    def answers(self, model: Supervised, table: Table) -> list[str]:
        """Return what ``model`` answers for every row, as words."""
        return [best[0] for best in self.ranked(model, table)]

    def ranked(self, model: Supervised, table: Table) -> list[list[str]]:
        """Return the answers of ``model`` for every row, as ``words`` gives them."""
        return self.words(self.logits(model, table))

    def logits(self, model: Supervised, table: Table) -> Iterator[Tensor]:
        """Yield the logits of ``model`` for every row: [C], or for transcripts [T, C]."""
        return predict(self.setup, model, table, training.pick_device())

    def words(self, logits: Iterable[Tensor]) -> list[list[str]]:
        """Return, for the logits of every row, the answer as words; of more than five classes the five best in order.

        Of tags, all that are likelier than not are one answer.
        """
        if self.transcribes:
            return [[ctc.greedy(values, self.symbols)] for values in logits]
        if self.measures:
            return [[f"{float(values):.6g}"] for values in logits]
        if self.tags:
            rows = (torch.nonzero(values > 0).flatten().tolist() for values in logits)
            return [[BETWEEN.join(self.symbols[number] for number in row)] for row in rows]
        count = BEST if len(self.symbols) > BEST else 1
        orders = (values.argsort(descending=True, stable=True)[:count].tolist() for values in logits)
        return [[self.symbols[number] for number in order] for order in orders]

    def scoring(self, table: Table, logits: Sequence[Tensor], ranked: Sequence[Sequence[str]]) -> Scoring:
        """Return how logits and answers are scored, in percent, over the rows that have a right answer."""
        truths = self.truths(table)
        rows = [row for row, truth in enumerate(truths) if truth.strip()]
        if not rows:
            raise UserError(f"{self.folder} has no labels to evaluate task {self.name!r} on.")
        right, given = [truths[row] for row in rows], [ranked[row] for row in rows]
        if self.tags:
            truth = self.labels([table[row] for row in rows]).numpy() > 0
            return tag_scores(truth, torch.stack([logits[row] for row in rows]).numpy())
        if self.transcribes:
            return transcription_scores(right, [best[0] for best in given])
        if self.measures:
            return regression_scores(right, [best[0] for best in given])
        return classification_scores(right, given, self.symbols)

    def scored(self, model: Supervised, table: Table) -> Scoring:
        """Return how ``model`` is scored."""
        logits = list(self.logits(model, table))
        return self.scoring(table, logits, self.words(logits))

    def model(self, head: HeadConfig | None = None) -> Supervised:
        """Return a new model for the task with random weights."""
        encoder = self.finetuned.encoder()
        return Supervised(encoder, head or self.train.head, self.setup.trunk.width, len(self.symbols))


def read_task(name: str) -> Task:
    """Return the task ``name`` of params.yaml; raise UserError for anything wrong in it."""
    where = f"tasks.{name}"
    modality, table = params.get(f"{where}.modality"), params.get(f"{where}.table")
    setup = training.read_setup(modality)
    train = params.read(FinetuneConfig, f"{where}.train")
    folder = TABLES / table
    if train.head.kind == "ctc":
        symbols = read_symbols(modality)
    elif train.head.kind == "score":
        if "score" not in setup.modality.columns.names:
            raise UserError(f"{where}.train.head.kind is 'score', but tables of {modality} have no scores.")
        symbols = ["score"]
    else:
        symbols = Table(folder, "train", setup.modality.columns, setup.config.table).classes
    if train.head.kind == "tags":
        check_several(folder, where, setup)
    if not symbols:
        raise UserError(f"{folder} has no labels, so task {name!r} has nothing to learn; label it or drop the task.")
    return Task(name, setup, folder, Path(params.get(f"{where}.pretrained", str)), train, tuple(symbols))


def check_several(folder: Path, where: str, setup: Setup) -> None:
    """Raise UserError unless the items of the table at ``folder`` may have several labels."""
    try:
        Table(folder, "train", setup.modality.columns.append(LABELS))
    except UserError:
        raise UserError(
            f"{where}.train.head.kind is 'tags', but items of {folder} have one label each; set its corpus.separator."
        ) from None


def starting_from(task: Task, origin: str) -> Task:
    """Return ``task`` with the setup of where it starts: that of the pretrained run, or that of params.yaml."""
    return of_run(task, task.pretrained) if origin == "pretrained" else task


def of_run(task: Task, folder: Path) -> Task:
    """Return ``task`` with the setup of the run at ``folder``; raise UserError when it reads other tables."""
    setup = setup_of(read_config(folder), folder)
    if setup.name != task.setup.name:
        raise UserError(f"{folder} is a model of {setup.name}; task {task.name!r} needs one of {task.setup.name}.")
    if setup.config.table != task.setup.config.table:
        raise UserError(f"{folder} reads other tables; set modalities.{setup.name}.table as in its config.json.")
    config = replace(setup.config, table=task.setup.config.table)  # equal in all that the model depends on
    return replace(task, setup=replace(setup, config=config))


def first_model(task: Task, origin: str, head: HeadConfig | None = None) -> Supervised:
    """Return the model with which ``task``, as ``starting_from`` gives it, begins."""
    model = task.model(head)
    require_parts(model.encoder, task.train.fresh, "fresh")
    random = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    if origin == "pretrained":
        load_pretrained(task, model.encoder)
        fresh = {name: value for name, value in random.items() if name.startswith(task.train.fresh)}
        model.encoder.load_state_dict(fresh, strict=False)
    return model


def load_pretrained(task: Task, encoder: Encoder) -> None:
    """Fill ``encoder`` with the pretrained student's weights; a final norm that it does not have is left out.

    A weight that all blocks shared is copied where each has its own.
    """
    own, weights = encoder.state_dict(), read_weights(task.pretrained, "encoder.")
    shared = [name for name, value in weights.items() if name in own and value.ndim < own[name].ndim]
    weights |= {name: weights[name].expand_as(own[name]) for name in shared}
    kept = {name: value for name, value in weights.items() if not name.startswith("trunk.final_norm.")}
    fill(encoder, weights if "trunk.final_norm.weight" in own else kept, task.pretrained)


def run_folder(task: str, origin: str, seed: int) -> Path:
    """Return where the model of ``task`` that started from ``origin`` with ``seed`` is published."""
    return MODELS / "finetune" / task / origin / f"seed-{seed}"


def load_finetuned(task: Task, origin: str, seed: int) -> tuple[Task, Supervised]:
    """Return ``task`` as a fine-tuned run has it, and its model."""
    folder = run_folder(task.name, origin, seed)
    task = of_run(task, folder)
    task = replace(task, symbols=tuple(read_config(folder)["symbols"]))
    model = task.model()
    fill(model, read_weights(folder), folder)
    return task, model


def spread_with_bounds(scorings: Sequence[Scoring]) -> dict[str, dict[str, object]]:
    """Return ``spread_over_seeds`` of the scorings of every seed, with the bounds of the means."""
    return spread_over_seeds([scoring.once() for scoring in scorings], [scoring.again() for scoring in scorings])


def spread_over_seeds(
    results: Sequence[Scores], again: Sequence[Mapping[str, np.ndarray]] = ()
) -> dict[str, dict[str, object]]:
    """Return mean, sample standard deviation and the single values of every metric over seeds.

    From the same metrics of rows drawn ``again``, if given, ``low`` and ``high`` bound the mean over these seeds.
    """
    summary = {}
    for name in results[0]:
        values = [result[name] for result in results]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        summary[name] = {"mean": round(float(np.mean(values)), 2), "values": [round(value, 2) for value in values]}
        summary[name]["deviation"] = None if deviation is None else round(deviation, 2)
        if again:
            ends = bounds(np.mean([drawn[name] for drawn in again], axis=0))
            summary[name]["low"], summary[name]["high"] = (round(end, 2) for end in ends)
    return summary
