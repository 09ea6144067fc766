"""A task's answers in the form that suits it: a matrix for classes, examples for transcripts, and the worst of all."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from stages.report.wording import natural

MOST_CLASSES = 40  # in a matrix that a person can read
MOST_CONFUSIONS = 15
EXAMPLES = 10
BETWEEN = "; "  # several labels, as the stage ``evaluate`` writes them
Rows = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Answer:
    """One row of the test split: what is right, what was answered by origin, and how wrong that is, in words."""

    id: str
    actual: str
    predicted: dict[str, str]
    note: str = ""


@dataclass(frozen=True)
class Answers:
    """What the models of a task answered on the test split; only the fields that suit the task are filled."""

    origins: tuple[str, ...]
    seeds: tuple[str, ...]
    labels: tuple[str, ...] = ()  # of the matrix
    counts: dict[tuple[str, str], int] = field(default_factory=dict)  # actual, predicted → how often
    totals: Counter = field(default_factory=Counter)  # actual → how often
    confusions: tuple[tuple[str, str, int], ...] = ()  # actual, predicted, how often: for many classes
    examples: tuple[Answer, ...] = ()


def summarize(rows: Rows, kind: str) -> Answers:
    """Return the matrix of the pretrained models, summed over seeds, or examples from the first seed of each origin.

    ``kind`` is ``classes``, ``tags``, ``words`` or ``numbers``.
    """
    origins = tuple(dict.fromkeys(row["origin"] for row in rows))
    actual = {row["id"]: row["actual"] for row in rows}
    if kind != "classes" or len(set(actual.values())) > len(actual) / 2:
        predicted = answers_of(rows, rows[0]["seed"])
        shown = evenly(sorted(actual, key=natural), EXAMPLES)
        examples = tuple(Answer(id_, actual[id_], predicted[id_]) for id_ in shown if id_ in predicted)
        return Answers(origins, (rows[0]["seed"],), examples=examples)
    chosen = rows_of_first(rows)
    seeds = tuple(dict.fromkeys(row["seed"] for row in chosen))
    pairs = Counter((row["actual"], row["predicted"]) for row in chosen)
    totals = Counter(row["actual"] for row in chosen)
    labels = tuple(sorted({label for pair in pairs for label in pair}, key=natural))
    origins = (chosen[0]["origin"],)
    if len(labels) <= MOST_CLASSES:
        return Answers(origins, seeds, labels=labels, counts=dict(pairs), totals=totals)
    wrong = sorted(((*pair, n) for pair, n in pairs.items() if pair[0] != pair[1]), key=lambda row: (-row[2], row))
    return Answers(origins, seeds, confusions=tuple(wrong[:MOST_CONFUSIONS]), totals=totals)


def worst(rows: Rows, kind: str, count: int) -> list[Answer]:
    """Return the ``count`` answers of the pretrained models that are most wrong, the worst first.

    Transcripts by wrong words, tags by wrong tags and numbers by distance, of the first seed; classes by how many
    seeds are wrong, and of those that are equally wrong some at even distances.
    """
    chosen = rows_of_first(rows)
    if kind == "classes":
        return wrong_classes(chosen, count)
    predicted = answers_of(rows, chosen[0]["seed"])
    first = [row for row in chosen if row["seed"] == chosen[0]["seed"]]
    measured = {"words": wrong_words, "tags": wrong_tags, "numbers": distances}[kind](first)
    measured.sort(key=lambda one: (-one[0], natural(one[2]["id"])))
    return [
        Answer(row["id"], row["actual"], predicted[row["id"]], note) for wrong, note, row in measured[:count] if wrong
    ]


def wrong_classes(rows: Rows, count: int) -> list[Answer]:
    """Return rows whose class most seeds had wrong, with what most of them answered."""
    seeds = len({row["seed"] for row in rows})
    given: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["predicted"] != row["actual"]:
            given.setdefault((row["id"], row["actual"]), []).append(row["predicted"])
    groups: dict[int, list[Answer]] = {}
    for (id_, actual), answers in sorted(given.items(), key=lambda item: natural(item[0][0])):
        said = Counter(answers).most_common(1)[0][0]
        note = f"{len(answers)} of {seeds} seeds" if seeds > 1 else ""
        groups.setdefault(len(answers), []).append(Answer(id_, actual, {rows[0]["origin"]: said}, note))
    found: list[Answer] = []
    for wrong in sorted(groups, reverse=True):
        found += evenly(groups[wrong], count - len(found))
    return found


def wrong_words(rows: Rows) -> list[tuple[float, str, dict[str, str]]]:
    """Return how many words of every row are wrong, as a number and in words, with the row."""
    from stages.transcript_scores import count_edits

    rows = [row for row in rows if row["actual"].split()]
    edits = count_edits([row["actual"] for row in rows], [row["predicted"] for row in rows], "word").tolist()
    return [
        (sum(kinds), f"{sum(kinds)} wrong, {length} spoken", row)
        for (*kinds, length), row in zip(edits, rows, strict=True)
    ]


def wrong_tags(rows: Rows) -> list[tuple[float, str, dict[str, str]]]:
    """Return how many tags of every row are missing or too many, as a number and in words, with the row."""
    pairs = [[set(row[key].split(BETWEEN)) - {""} for key in ("actual", "predicted")] for row in rows]
    found = [(len(right - given), len(given - right)) for right, given in pairs]
    return [
        (missing + more, f"{missing} missing, {more} too many", row)
        for (missing, more), row in zip(found, rows, strict=True)
    ]


def distances(rows: Rows) -> list[tuple[float, str, dict[str, str]]]:
    """Return how far every row's number is off, as a number and in words, with the row."""
    found = [(abs(float(row["predicted"]) - float(row["actual"])), row) for row in rows]
    return [(distance, f"off by {distance:.3g}", row) for distance, row in found]


def rows_of_first(rows: Rows) -> Rows:
    """Return the rows of the pretrained models; of the first origin where there are none."""
    origins = {row["origin"] for row in rows}
    origin = "pretrained" if "pretrained" in origins else rows[0]["origin"]
    return [row for row in rows if row["origin"] == origin]


def answers_of(rows: Rows, seed: str) -> dict[str, dict[str, str]]:
    """Return what the models of ``seed`` answered, by row and origin."""
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["seed"] == seed:
            found.setdefault(row["id"], {})[row["origin"]] = row["predicted"]
    return found


def evenly(items: Sequence, count: int) -> list:
    """Return at most ``count`` items at even distances, from the first to the last, so that nobody chose them."""
    count = min(count, len(items))
    return [items[place * (len(items) - 1) // max(count - 1, 1)] for place in range(count)]
