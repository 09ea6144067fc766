"""What is in a table, read by polars from its own files: how much, how long, which labels, what was dropped, and rows.

What a row is follows from ``modalities.<name>.table``, as it does in preparation; no modality is known by name.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from d2v_core.data.table import SPLITS, read_index
from stages.report.wording import natural

SCALARS = ("id", "label", "text", "score")
EXAMPLES = 5
MOST_LABELS = 40  # in a table that a person reads


@dataclass(frozen=True)
class Split:
    """One split: rows, how much each is in the table's unit, and how many rows have which label."""

    rows: int
    amounts: pl.Series
    labels: dict[str, int]

    @property
    def amount(self) -> float:
        """How much all rows are."""
        return float(self.amounts.sum())

    @property
    def extent(self) -> tuple[float, float]:
        """How much the smallest and the largest row are."""
        values = self.amounts.to_numpy()
        return float(values.min()), float(values.max())


@dataclass(frozen=True)
class Drop:
    """Items that were dropped for one reason, with one of them."""

    reason: str
    count: int
    item: str
    detail: str


@dataclass(frozen=True)
class Summary:
    """A table: its unit, its splits that have rows, and what was dropped on the way, the most frequent reason first."""

    folder: Path
    unit: str
    splits: dict[str, Split]
    drops: list[Drop]

    @property
    def varies(self) -> bool:
        """Whether rows differ in how much they are."""
        return any(split.amounts.n_unique() > 1 for split in self.splits.values())

    @property
    def labels(self) -> list[str]:
        """The labels of all splits in order; where there are many, the most and the least frequent ones."""
        names = sorted({name for split in self.splits.values() for name in split.labels}, key=natural)
        if len(names) <= MOST_LABELS:
            return names
        names.sort(key=lambda name: -sum(split.labels.get(name, 0) for split in self.splits.values()))
        return names[: MOST_LABELS // 2] + names[-MOST_LABELS // 2 :]

    @property
    def classes(self) -> int:
        """How many labels occur."""
        return len({name for split in self.splits.values() for name in split.labels})


def summarize(folder: Path, settings: Mapping) -> Summary:
    """Return what the table at ``folder`` holds; ``settings`` is its block ``table``. Raises UserError for no table."""
    index = read_index(folder)
    splits = {}
    for name in SPLITS:
        shards = shards_of(folder, index, name)
        if shards:
            splits[name] = read_split(shards, settings, index["classes"])
    return Summary(folder, unit_of(settings), splits, read_drops(folder / "dropped.parquet"))


def shards_of(folder: Path, index: Mapping, split: str) -> list[Path]:
    """Return the files of a split that have rows, in order."""
    return sorted(
        folder / name for name, entry in index["shards"].items() if name.startswith(f"{split}-") and entry["rows"]
    )


def read_split(shards: list[Path], settings: Mapping, classes: Sequence[str]) -> Split:
    """Return one split of a table."""
    rows = pl.scan_ipc(shards)
    schema = rows.collect_schema()
    lists = [name for name, kind in schema.items() if isinstance(kind, pl.List)]
    arrays = [name for name in lists if name not in ("label", "labels")]
    found = rows.select(pl.col(arrays[0]).list.len().alias("size")).collect()["size"]
    named = next((name for name in ("labels", "label") if name in schema), None)
    labels = pl.Series([], dtype=pl.Int32) if named is None else rows.select(named).collect()[named]
    labels = labels.explode() if isinstance(labels.dtype, pl.List) else labels
    counts = labels.drop_nulls().value_counts(name="rows").sort(labels.name).iter_rows()
    return Split(len(found), amounts_of(found, settings), {classes[label]: rows for label, rows in counts})


def amounts_of(sizes: pl.Series, settings: Mapping) -> pl.Series:
    """Return how much every row is, in ``unit_of`` the table, from the number of its values."""
    if "sample_rate" in settings:
        return sizes / settings["sample_rate"]
    return pl.Series([1] * len(sizes)) if "size" in settings else sizes


def unit_of(settings: Mapping) -> str:
    """Return what rows are counted in."""
    units = {"sample_rate": "seconds", "size": "images", "tokens": "tokens"}
    return next((unit for key, unit in units.items() if key in settings), "values")


def read_drops(path: Path) -> list[Drop]:
    """Return why items were dropped, with one item of each reason."""
    if not path.exists():
        return []
    items = pl.read_parquet(path).sort("path", "id")
    groups = items.group_by("reason").agg(pl.len(), pl.first("path", "id", "detail")).sort("len", "reason")
    return [
        Drop(reason, count, path or name or "", detail or "")
        for reason, count, path, name, detail in groups.reverse().iter_rows()
    ]


def examples(summary: Summary, split: str, count: int = EXAMPLES) -> list[dict]:
    """Return ``count`` rows at even distances, so that nobody chose them, with all their columns."""
    shards = shards_of(summary.folder, read_index(summary.folder), split)
    rows, step = pl.scan_ipc(shards), max(1, summary.splits[split].rows // count)
    return rows.gather_every(step).head(count).collect().to_dicts() if shards else []


def rows_by_id(folder: Path, split: str, ids: Collection[str]) -> dict[str, dict]:
    """Return the rows of a split with one of ``ids``, by id."""
    shards = shards_of(folder, read_index(folder), split)
    if not shards or not ids:
        return {}
    found = pl.scan_ipc(shards).filter(pl.col("id").is_in(list(ids))).collect()
    return {row["id"]: row for row in found.iter_rows(named=True)}


def values_of(row: Mapping) -> tuple[str, list] | None:
    """Return the name and the values of the array of a row; None when it has none."""
    return next(((name, value) for name, value in row.items() if isinstance(value, list) and name != "labels"), None)


def histogram(amounts: pl.Series, low: float, high: float, bins: int) -> tuple[list[float], list[int]]:
    """Return the edges [bins + 1] from ``low`` to a greater ``high``, and how many amounts are between them [bins]."""
    edges = [*(low + (high - low) * part / bins for part in range(bins)), float(high)]
    counted = amounts.cast(pl.Float64).hist(bins=edges, include_breakpoint=False, include_category=False)
    return edges, counted.to_series().to_list()
