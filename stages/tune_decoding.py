"""Stage ``tune_decoding``: which weight the language model and which score a word gets, chosen on the valid split.

The choice is the fewest wrong words over all seeds of an origin; ties go to fewer wrong letters, then to the smaller
language model weight, word score and silence weight (reference 6.1: tuned on the development split).
"""

import itertools
from dataclasses import asdict

import numpy as np

from d2v_core.errors import UserError
from d2v_core.evaluation.fusion import FusionWeights
from stages import decoding, runner, training
from stages.decoding import DecodingConfig
from stages.paths import METRICS
from stages.tasks import ORIGINS, Task
from stages.transcript_scores import count_edits

FILE = "tuned.json"
SPLIT = "valid"


def main(name: str) -> None:
    """Try all weights of ``decoding.<name>`` for both origins and write the choice, and what all gave, to metrics."""
    config, task = decoding.read_decoding(name)
    metrics = {}
    for origin in ORIGINS:
        tried = try_all(config, task, origin, f"tune-{name}-{origin}")
        metrics[origin] = {"chosen": choose(tried), "tried": tried}
        print(f"{name} {origin}: {metrics[origin]['chosen']}")
    training.write_json(METRICS / name / FILE, metrics)


def grid(config: DecodingConfig) -> list[FusionWeights]:
    """Return all combinations of weights."""
    tune = config.tune
    return [
        FusionWeights(*values, config.unknown_score)
        for values in itertools.product(tune.lm_weights, tune.word_scores, tune.silence_weights)
    ]


def try_all(config: DecodingConfig, task: Task, origin: str, label: str) -> list[dict[str, float]]:
    """Return every combination of weights with its error rates in percent over all seeds."""
    truths = task.truths(task.table(SPLIT))[: config.tune.utterances or None]
    labelled = [row for row, truth in enumerate(truths) if truth.split()]
    if not labelled:
        raise UserError(f"{task.folder} has no transcripts in its {SPLIT!r} split to tune decoding on.")
    weights = grid(config)
    edits = np.zeros((len(weights), 2, 2))  # combination · words, letters · wrong, all
    for seed in task.train.seeds:
        logits, letters = decoding.all_logits(task, origin, seed, SPLIT, config.tune.utterances)
        searches = [decoding.make_search(config, letters, chosen) for chosen in weights]
        found = decoding.decode_all(searches, [logits[row] for row in labelled], label)
        for number, answers in enumerate(found):
            for place, unit in enumerate(("word", "letter")):
                counted = count_edits([truths[row] for row in labelled], answers, unit)
                edits[number, place] += counted[:, :-1].sum(), counted[:, -1].sum()
    rates = 100 * edits[..., 0] / edits[..., 1]
    return [
        {**asdict(chosen), "word_error_rate": round(word, 3), "letter_error_rate": round(letter, 3)}
        for chosen, (word, letter) in zip(weights, rates.tolist(), strict=True)
    ]


def choose(tried: list[dict[str, float]]) -> dict[str, float]:
    """Return the best combination."""
    order = ("word_error_rate", "letter_error_rate", "lm_weight", "word_score", "silence_weight")
    return min(tried, key=lambda row: [row[name] for name in order])


if __name__ == "__main__":
    runner.run(main)
