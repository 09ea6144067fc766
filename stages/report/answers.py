"""A task's answers in the form that suits it: a matrix for classes, examples for transcripts."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

MOST_CLASSES = 40  # in a matrix that a person can read
MOST_CONFUSIONS = 15
EXAMPLES = 10
Rows = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Answers:
    """What the models of a task answered on the test split; only the fields that suit the task are filled."""

    labels: tuple[str, ...] = ()  # of the matrix
    counts: dict[tuple[str, str], int] = field(default_factory=dict)  # actual, predicted → how often
    totals: Counter = field(default_factory=Counter)  # actual → how often
    confusions: tuple[tuple[str, str, int], ...] = ()  # actual, predicted, how often: for many classes
    examples: tuple[tuple[str, str, dict[str, str]], ...] = ()  # id, actual, origin → predicted
    origins: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ()


def summarize(rows: Rows, transcripts: bool) -> Answers:
    """Return the matrix of the pretrained models, summed over seeds, or examples from the first seed of each origin."""
    origins = tuple(dict.fromkeys(row["origin"] for row in rows))
    actual = {row["id"]: row["actual"] for row in rows}
    if transcripts or len(set(actual.values())) > len(actual) / 2:
        return pick_examples(rows, actual, origins)
    origin = "pretrained" if "pretrained" in origins else origins[0]
    chosen = [row for row in rows if row["origin"] == origin]
    seeds = tuple(dict.fromkeys(row["seed"] for row in chosen))
    pairs = Counter((row["actual"], row["predicted"]) for row in chosen)
    totals = Counter(row["actual"] for row in chosen)
    labels = tuple(sorted({label for pair in pairs for label in pair}, key=natural))
    if len(labels) <= MOST_CLASSES:
        return Answers(labels=labels, counts=dict(pairs), totals=totals, origins=(origin,), seeds=seeds)
    wrong = sorted(((*pair, n) for pair, n in pairs.items() if pair[0] != pair[1]), key=lambda row: (-row[2], row))
    return Answers(confusions=tuple(wrong[:MOST_CONFUSIONS]), totals=totals, origins=(origin,), seeds=seeds)


def pick_examples(rows: Rows, actual: dict[str, str], origins: tuple[str, ...]) -> Answers:
    """Return rows at evenly spaced ids, so that nobody chose them, with the answers of the first seed."""
    seed = rows[0]["seed"]
    predicted = {(row["origin"], row["id"]): row["predicted"] for row in rows if row["seed"] == seed}
    ids = sorted(actual, key=natural)
    last, most = len(ids) - 1, min(EXAMPLES, len(ids))
    chosen = [ids[place * last // max(most - 1, 1)] for place in range(most)]
    examples = tuple(
        (id_, actual[id_], {origin: predicted.get((origin, id_), "") for origin in origins}) for id_ in chosen
    )
    return Answers(examples=examples, origins=origins, seeds=(seed,))


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts 2 before 10."""
    parts = re.split(r"([0-9]+)", text)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
