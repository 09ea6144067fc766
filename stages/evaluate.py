"""Stage ``evaluate``: fine-tuned models → scores on held-out data, pretrained beside scratch."""

from stages import runner, tasks, training
from stages.paths import METRICS, PLOTS
from stages.tasks import ORIGINS

SPLITS = ("valid", "test")


def main(name: str) -> None:
    """Score every model of task ``name``; write its metrics, and its answers on the test split."""
    task = tasks.read_task(name)
    metrics: dict[str, dict] = {}
    answers_on_test = []
    for origin in ORIGINS:
        metrics[origin] = {}
        for split in SPLITS:
            table, results = task.table(split), []
            for seed in task.train.seeds:
                tuned, model = tasks.load_finetuned(task, origin, seed)
                truths, answers = task.truths(table), tuned.answers(model, table)
                results.append(task.scores(truths, answers))
                if split == "test":
                    columns = zip(table.column("id"), truths, answers, strict=True)
                    answers_on_test += [
                        {"origin": origin, "seed": seed, "id": row, "actual": truth, "predicted": answer}
                        for row, truth, answer in columns
                    ]
            metrics[origin][split] = tasks.spread_over_seeds(results)
    training.write_json(METRICS / name / "evaluate.json", metrics)
    training.write_csv(PLOTS / name / "answers.csv", answers_on_test)
    for origin, splits in metrics.items():
        shown = ", ".join(f"{metric} {values['mean']}" for metric, values in splits["test"].items())
        print(f"{name} {origin}: {shown} on test")


if __name__ == "__main__":
    runner.run(main)
