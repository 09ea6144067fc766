"""Stage ``evaluate``: fine-tuned models → scores on held-out data, pretrained beside scratch."""

from collections.abc import Mapping, Sequence

from stages import runner, tasks, training
from stages.metrics import best_scores, class_scores
from stages.paths import METRICS, PLOTS
from stages.tasks import ORIGINS, Task

SPLITS = ("valid", "test")


def main(name: str) -> None:
    """Score every model of task ``name``; write its metrics, and its answers on the test split, also by class."""
    task = tasks.read_task(name)
    metrics: dict[str, dict] = {}
    answers_on_test = []
    for origin in ORIGINS:
        metrics[origin] = {}
        for split in SPLITS:
            table, results = task.table(split), []
            for seed in task.train.seeds:
                tuned, model = tasks.load_finetuned(task, origin, seed)
                truths, ranked = task.truths(table), tuned.ranked(model, table)
                answers = [best[0] for best in ranked]
                results.append(task.scores(truths, answers) | best_scores(truths, ranked))
                if split == "test":
                    columns = zip(table.column("id"), truths, answers, strict=True)
                    answers_on_test += [
                        {"origin": origin, "seed": seed, "id": row, "actual": truth, "predicted": answer}
                        for row, truth, answer in columns
                    ]
            metrics[origin][split] = tasks.spread_over_seeds(results)
    training.write_json(METRICS / name / "evaluate.json", metrics)
    training.write_csv(PLOTS / name / "answers.csv", answers_on_test)
    training.write_csv(PLOTS / name / "classes.csv", by_class(task, answers_on_test))
    for origin, splits in metrics.items():
        shown = ", ".join(f"{metric} {values['mean']}" for metric, values in splits["test"].items())
        print(f"{name} {origin}: {shown} on test")


def by_class(task: Task, answers: Sequence[Mapping]) -> list[dict[str, object]]:
    """Return the scores of every class and origin over all seeds together; nothing where answers are no classes."""
    if task.transcribes or task.measures:
        return []
    labelled = [row for row in answers if row["actual"]]
    groups = {origin: [row for row in labelled if row["origin"] == origin] for origin in ORIGINS}
    return [
        {"origin": origin, **row}
        for origin, rows in groups.items()
        for row in class_scores([row["actual"] for row in rows], [row["predicted"] for row in rows], task.symbols)
    ]


if __name__ == "__main__":
    runner.run(main)
