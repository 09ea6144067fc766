"""One function per kind of file that other stages write: text → checked plain values."""

import csv
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from stages.report.verdicts import Comparison, Side

T = TypeVar("T")
Curves = dict[str, tuple[list[float], list[float]]]  # seed → updates, losses

BROKEN = (ValueError, OverflowError, KeyError, TypeError, AttributeError, IndexError, csv.Error)


class Reader:
    """Reads files under ``root`` that may be missing or broken, and remembers the broken ones."""

    def __init__(self, root: Path = Path()) -> None:
        self.root = root
        self.notices: list[str] = []

    def read(self, parse: Callable[[Path], T], path: Path) -> T | None:
        """Return what ``parse`` finds in the file, or None when there is no such file or it is not as expected."""
        if not (self.root / path).is_file():
            return None
        try:
            return parse(self.root / path)
        except BROKEN:
            self.notices.append(f"{path.as_posix()} is not in the expected form and is left out.")
            return None


def load(path: Path) -> dict:
    """Return a JSON file's mapping."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("not a mapping")
    return content


def rows(path: Path, *columns: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file; raise ValueError when one has no value in one of ``columns``."""
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    if any(row.get(column) is None for row in found for column in columns):
        raise ValueError("a column is missing")
    return found


def finite(value: Any) -> float | None:
    """Return a number, and None for an empty, infinite or undefined one."""
    number = math.nan if value is None or value == "" else float(value)
    return number if math.isfinite(number) else None


def counts(path: Path) -> Mapping:
    """Return a corpus's counts: items seen, kept and dropped by reason, rows and amount per split."""
    found = load(path)
    unit = str(found["unit"])
    splits = {
        name: {"rows": int(split["rows"]), "amount": float(split[unit])} for name, split in found["splits"].items()
    }
    dropped = {str(reason): int(number) for reason, number in found["dropped"].items()}
    return {"seen": int(found["seen"]), "kept": int(found["kept"]), "unit": unit, "dropped": dropped, "splits": splits}


def numbers(path: Path) -> dict[str, float]:
    """Return the finite numbers of a flat mapping."""
    found = {name: finite(value) for name, value in load(path).items()}
    return {name: value for name, value in found.items() if value is not None}


def columns(path: Path) -> dict[str, list[float]]:
    """Return the columns of a run's records; an undefined number is NaN, and an empty column is left out."""
    found = rows(path, "update")
    values = {name: [finite(row[name]) for row in found] for name in (found[0] if found else [])}
    if None in values.get("update", []):
        raise ValueError("an update has no number")
    some = {name: column for name, column in values.items() if any(value is not None for value in column)}
    return {name: [math.nan if value is None else value for value in column] for name, column in some.items()}


def curves(path: Path) -> Curves:
    """Return every seed's losses over updates; a file without seeds is one run."""
    found: Curves = {}
    for row in rows(path, "update", "loss"):
        update, loss = finite(row["update"]), finite(row["loss"])
        if update is not None and loss is not None:
            x, y = found.setdefault(row.get("seed") or "", ([], []))
            x.append(update)
            y.append(loss)
    return found


def answers(path: Path) -> list[dict[str, str]]:
    """Return the answers that can be right or wrong."""
    return [row for row in rows(path, "origin", "seed", "id", "actual", "predicted") if row["actual"]]


def transcripts(path: Path) -> list[dict[str, str]]:
    """Return the transcripts by beam search and greedy ones, from the pretrained model, as answers of two origins."""
    found = rows(path, "origin", "seed", "id", "actual", "beam", "greedy")
    return [
        {"origin": method, "predicted": row[method]} | {key: row[key] for key in ("seed", "id", "actual")}
        for method in ("beam", "greedy")
        for row in found
        if row["origin"] == "pretrained" and row["actual"]
    ]


def classes(path: Path) -> list[dict[str, str | float | None]]:
    """Return the scores of every class by origin; nothing for a task without classes."""
    names = ("origin", "class")
    found = rows(path, *names, "rows", "precision", "recall", "f1")
    return [{key: value if key in names else finite(value) for key, value in row.items()} for row in found]


def comparisons(path: Path) -> list[Comparison]:
    """Return origin → split → metric → values over seeds as comparisons, in the order of the file."""
    found = {
        origin: {(metric, split): side for split, metrics in splits.items() for metric, side in sides(metrics).items()}
        for origin, splits in load(path).items()
    }
    return compared(found, "pretrained", next((origin for origin in found if origin != "pretrained"), ""))


def decoded(path: Path) -> dict[str, list[Comparison]]:
    """Return, by origin, beam search (ours) compared with greedy decoding (the baseline)."""
    scores = {}
    for origin, content in load(path).items():
        splits = {name: methods for name, methods in content.items() if name != "weights"}
        found = {
            method: {(metric, split): side for split in splits for metric, side in sides(splits[split][method]).items()}
            for method in ("beam", "greedy")
        }
        scores[origin] = compared(found, "beam", "greedy")
    return scores


def weights(path: Path) -> dict[str, Mapping]:
    """Return, by origin, the weights with which beam search was run."""
    return {origin: dict(content["weights"]) for origin, content in load(path).items()}


def compared(found: Mapping[str, Mapping[tuple[str, str], Side]], ours: str, baseline: str) -> list[Comparison]:
    """Return two of several origins of scores by metric and split as comparisons, a metric's splits together."""
    pairs = list(dict.fromkeys(pair for scores in found.values() for pair in scores))
    metrics = list(dict.fromkeys(metric for metric, _ in pairs))
    pairs.sort(key=lambda pair: metrics.index(pair[0]))
    return [
        Comparison(metric, split, *(found.get(origin, {}).get((metric, split)) for origin in (ours, baseline)))
        for metric, split in pairs
    ]


def sides(metrics: Mapping[str, Mapping]) -> dict[str, Side]:
    """Return one split's scores; ``<metric>_low`` and ``<metric>_high`` are the bounds of ``<metric>``."""
    bounds = {f"{name}_{end}": (name, end) for name in metrics for end in ("low", "high")}
    found = {name: {**score} for name, score in metrics.items() if name not in bounds}
    for key in bounds.keys() & metrics.keys():
        name, end = bounds[key]
        if name in found:
            found[name][end] = metrics[key]["mean"] if isinstance(metrics[key], Mapping) else metrics[key]
    return {name: side(score) for name, score in found.items()}


def side(found: Mapping) -> Side:
    """Return one origin's score."""
    values = tuple(value for value in map(finite, found["values"]) if value is not None)
    low, high = finite(found.get("low")), finite(found.get("high"))
    return Side(finite(found["mean"]), finite(found.get("deviation")), values, low, high)


def flat(path: Path) -> dict[str, object]:
    """Return a file of metrics that no stage here writes, as dotted names and values."""

    def walk(value: object, name: str) -> None:
        if isinstance(value, dict | list):
            members = value.items() if isinstance(value, dict) else enumerate(value)
            for key, member in members:
                walk(member, f"{name}.{key}" if name else str(key))
        else:
            found[name] = value

    found: dict[str, object] = {}
    walk(load(path), "")
    return found
