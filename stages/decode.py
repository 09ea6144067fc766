"""Stage ``decode``: transcripts by beam search with a language model, scored in detail beside the greedy ones."""

import json
from dataclasses import asdict

import torch

from d2v_core.errors import UserError
from d2v_core.evaluation import ctc
from d2v_core.evaluation.fusion import FusionWeights
from stages import decoding, runner, tasks, training
from stages.decoding import DecodingConfig
from stages.paths import METRICS, PLOTS
from stages.tasks import ORIGINS, Task
from stages.transcript_scores import detailed_scores, worst
from stages.tune_decoding import FILE

SPLITS = ("valid", "test")


def main(name: str) -> None:
    """Decode held-out splits by every model with the tuned weights; write scores, and answers and the worst of test."""
    config, task = decoding.read_decoding(name)
    metrics: dict[str, dict] = {}
    listed: dict[str, list[dict]] = {"decoded": [], "worst": []}
    for origin in ORIGINS:
        weights = read_weights(name, origin)
        metrics[origin] = {"weights": asdict(weights)}
        for split in SPLITS:
            runs = [decode(config, task, origin, seed, split, weights) for seed in task.train.seeds]
            metrics[origin][split] = {
                method: tasks.spread_over_seeds(
                    [detailed_scores(run["actual"], run[method], config.resamples) for run in runs]
                )
                for method in ("greedy", "beam")
            }
            if split == "test":
                for seed, run in zip(task.train.seeds, runs, strict=True):
                    marked = {"origin": origin, "seed": seed}
                    rows = [dict(zip(run, values, strict=True)) for values in zip(*run.values(), strict=True)]
                    listed["decoded"] += [marked | row for row in rows]
                    found = worst(run["id"], run["actual"], run["beam"], config.worst)
                    listed["worst"] += [marked | row for row in found]
        rates = {method: metrics[origin]["test"][method]["word_error_rate"]["mean"] for method in ("greedy", "beam")}
        print(f"{name} {origin}: word error rate {rates['greedy']} greedy, {rates['beam']} by beam search on test")
    training.write_json(METRICS / name / "decode.json", metrics)
    for kind, rows in listed.items():
        training.write_csv(PLOTS / name / f"{kind}.csv", rows)


def decode(
    config: DecodingConfig, task: Task, origin: str, seed: int, split: str, weights: FusionWeights
) -> dict[str, list[str]]:
    """Return id, actual, greedy and beam transcripts of all rows of a split that have a transcript."""
    table = task.table(split)
    logits, letters = decoding.all_logits(task, origin, seed, split)
    truths = task.truths(table)
    rows = [row for row, truth in enumerate(truths) if truth.split()]
    if not rows:
        raise UserError(f"{task.folder} has no transcripts in its {split!r} split to score decoding on.")
    logits = [logits[row] for row in rows]
    label = f"decode-{task.name}-{origin}-{split}"
    (beam,) = decoding.decode_all([decoding.make_search(config, letters, weights)], logits, label)
    names = table.column("id")
    return {
        "id": [names[row] for row in rows],
        "actual": [truths[row] for row in rows],
        "greedy": [ctc.greedy(torch.from_numpy(values), letters) for values in logits],
        "beam": beam,
    }


def read_weights(name: str, origin: str) -> FusionWeights:
    """Return the weights that the stage ``tune_decoding`` chose; raise UserError when it has not run."""
    path = METRICS / name / FILE
    try:
        chosen = json.loads(path.read_text(encoding="utf-8"))[origin]["chosen"]
        return FusionWeights(**{key: chosen[key] for key in FusionWeights.__dataclass_fields__})
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run the stage tune_decoding@{name}.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); run the stage tune_decoding@{name} again.") from None


if __name__ == "__main__":
    runner.run(main)
