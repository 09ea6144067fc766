"""Stage ``evaluate``: fine-tuned models → scores on held-out data with their intervals, pretrained beside scratch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from d2v_core.data.table import Table
from stages import runner, tasks, training
from stages.metrics import average_precisions, class_scores, rank
from stages.paths import METRICS, PLOTS
from stages.tasks import ORIGINS, Task

SPLITS = ("valid", "test")


@dataclass(frozen=True)
class Run:
    """What the model of one seed said to every row of a split: logits, and its answers in words, the best first."""

    seed: int
    logits: Sequence[Tensor]
    ranked: Sequence[Sequence[str]]


def main(name: str) -> None:
    """Score every model of task ``name``; write its metrics, and its answers on the test split, also by class."""
    task = tasks.read_task(name)
    metrics: dict[str, dict] = {}
    answers, classes = [], []
    for origin in ORIGINS:
        metrics[origin] = {}
        for split in SPLITS:
            table = task.table(split)
            runs = [run(task, origin, seed, table) for seed in task.train.seeds]
            scorings = [task.scoring(table, each.logits, each.ranked) for each in runs]
            metrics[origin][split] = tasks.spread_with_bounds(scorings)
        answers += [{"origin": origin, **row} for row in answered(task, table, runs)]
        classes += [{"origin": origin, **row} for row in by_class(task, table, runs)]
    training.write_json(METRICS / name / "evaluate.json", metrics)
    training.write_csv(PLOTS / name / "answers.csv", answers)
    training.write_csv(PLOTS / name / "classes.csv", classes)
    for origin, splits in metrics.items():
        shown = ", ".join(f"{metric} {values['mean']}" for metric, values in splits["test"].items())
        print(f"{name} {origin}: {shown} on test")


def run(task: Task, origin: str, seed: int, table: Table) -> Run:
    """Return what the model of ``seed`` says to the rows of ``table``."""
    tuned, model = tasks.load_finetuned(task, origin, seed)
    logits = list(tuned.logits(model, table))
    return Run(seed, logits, tuned.words(logits))


def answered(task: Task, table: Table, runs: Sequence[Run]) -> list[dict[str, object]]:
    """Return the right answer and the given one, for every seed and row."""
    rows = list(zip(table.column("id"), task.truths(table), strict=True))
    return [
        {"seed": each.seed, "id": row, "actual": truth, "predicted": best[0]}
        for each in runs
        for (row, truth), best in zip(rows, each.ranked, strict=True)
    ]


def by_class(task: Task, table: Table, runs: Sequence[Run]) -> list[dict[str, object]]:
    """Return the scores of every class over all seeds together; nothing where answers are no classes."""
    if task.transcribes or task.measures:
        return []
    if task.tags:
        return by_tag(task, table, runs)
    rows = [row for row in answered(task, table, runs) if row["actual"]]
    return class_scores([row["actual"] for row in rows], [row["predicted"] for row in rows], task.symbols)


def by_tag(task: Task, table: Table, runs: Sequence[Run]) -> list[dict[str, object]]:
    """Return the scores of every tag over all seeds together, and its average precision, the mean over seeds."""
    truths = task.labels([table[row] for row in range(len(table))]).numpy() > 0
    labelled, truths = truths.any(axis=1), truths[truths.any(axis=1)]
    logits = [np.stack(each.logits)[labelled] for each in runs]
    scores = class_scores(np.concatenate([truths] * len(runs)), np.concatenate(logits) > 0, task.symbols)
    once = np.ones((len(truths), 1))
    precisions = np.mean([average_precisions(rank(truths, values), once)[:, 0] for values in logits], axis=0)
    for row, precision in zip(scores, precisions, strict=True):
        row["average_precision"] = f"{100 * precision:.2f}"
    return scores


if __name__ == "__main__":
    runner.run(main)
