"""One function per kind of file that other stages write: text → checked plain values."""

import csv
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from stages.report.verdicts import Comparison, Side

T = TypeVar("T")
Curves = dict[str, tuple[list[float], list[float]]]  # seed → updates, losses

BROKEN = (ValueError, OverflowError, KeyError, TypeError, AttributeError, IndexError, csv.Error)


class Reader:
    """Reads files that may be missing or broken, and remembers the broken ones."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    def read(self, parse: Callable[[Path], T], path: Path) -> T | None:
        """Return what ``parse`` finds in the file, or None when there is no such file or it is not as expected."""
        if not path.is_file():
            return None
        try:
            return parse(path)
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


def finite(value: object) -> float | None:
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


def comparisons(path: Path) -> list[Comparison]:
    """Return origin → split → metric → values over seeds as comparisons, in the order of the file."""
    found = {
        origin: {(metric, split): side(value) for split, metrics in splits.items() for metric, value in metrics.items()}
        for origin, splits in load(path).items()
    }
    baseline = next((origin for origin in found if origin != "pretrained"), "")
    pairs = list(dict.fromkeys(pair for scores in found.values() for pair in scores))
    metrics = list(dict.fromkeys(metric for metric, _ in pairs))
    pairs.sort(key=lambda pair: metrics.index(pair[0]))
    return [
        Comparison(metric, split, *(found.get(origin, {}).get((metric, split)) for origin in ("pretrained", baseline)))
        for metric, split in pairs
    ]


def side(found: Mapping) -> Side:
    """Return one origin's score."""
    values = tuple(value for value in map(finite, found["values"]) if value is not None)
    return Side(finite(found["mean"]), finite(found.get("deviation")), values)


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
