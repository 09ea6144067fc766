"""``python -m stages.describe NAME``: what is in a table, before anything is trained on it.

Splits, lengths, labels, what was dropped and why, and some rows, read from the table's own files by polars.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from d2v_core import modalities
from d2v_core.data.table import SPLITS, Table, read_index
from stages import params, readers, runner
from stages.paths import TABLES, VOCABULARIES

BINS, WIDEST = 10, 40
EXAMPLES = 5


def main(name: str) -> None:
    """Print the description of the table ``name`` of a modality or a labelled corpus."""
    folder = TABLES / name
    index = read_index(folder)
    labelled = params.load().get("labelled") or {}
    modality = labelled[name]["modality"] if name in labelled else name
    for split in SPLITS:
        shards = sorted(folder / shard for shard in index["shards"] if shard.startswith(f"{split}-"))
        if any(index["shards"][path.name]["rows"] for path in shards):
            print("\n".join(describe(split, shards, modality, folder, index["classes"])))
    print("\n".join(dropped(folder)))


def describe(split: str, shards: list[Path], modality: str, folder: Path, classes: list[str]) -> Iterator[str]:
    """Yield the lines of one split."""
    kind = modalities.get(modality)
    rows = pl.concat([pl.read_ipc(path, columns=["id", "label", "text"]) for path in shards])
    table = Table(folder, split, kind.columns)
    block = params.read(kind.TableConfig, f"modalities.{modality}.table")
    amounts = pl.Series([kind.amount(table[row], block) for row in range(len(table))])
    yield f"{split}: {len(rows):,} rows, {amounts.sum():,.1f} {kind.unit}"
    if amounts.n_unique() > 1:
        yield from histogram(amounts, kind.unit)
    counts = rows["label"].drop_nulls().value_counts().sort("label").iter_rows()
    yield from (f"  label {classes[label]}: {count:,}" for label, count in counts)
    for row in range(0, len(table), max(1, len(table) // EXAMPLES)):
        yield f"  {table[row]['id']}: {example(table[row], modality, folder)}"


def histogram(amounts: pl.Series, unit: str) -> Iterator[str]:
    """Yield a bar for every tenth of the range of ``amounts``."""
    low, high = float(amounts.min()), float(amounts.max())
    edges = [low + (high - low) * part / BINS for part in range(1, BINS)]
    counts = amounts.hist(bins=[low, *edges, high], include_breakpoint=False)["count"].to_list()
    for start, end, count in zip([low, *edges], [*edges, high], counts, strict=True):
        yield f"  {start:8.1f} to {end:8.1f} {unit} {count:7,} {'#' * round(WIDEST * count / max(counts))}"


def example(row: dict, modality: str, folder: Path) -> str:
    """Return what a person sees of a row: its words where there are some, else its size."""
    if row["text"]:
        return row["text"][:100]
    pieces = VOCABULARIES / modality / "pieces.model"
    if "tokens" in row and pieces.exists():
        return readers.pieces(pieces.parent).decode([int(token) for token in row["tokens"][1:]])[:100]
    values = next(value for value in row.values() if hasattr(value, "shape"))
    return f"{len(values):,} values from {values.min()} to {values.max()}, mean {values.mean():.1f}"


def dropped(folder: Path) -> Iterator[str]:
    """Yield how many items were dropped for which reason, with one of each."""
    items = pl.read_parquet(folder / "dropped.parquet")
    yield f"dropped: {len(items):,}"
    groups = items.group_by("reason").agg(pl.len(), pl.first("path", "id", "detail")).sort("len", descending=True)
    for reason, count, path, name, detail in groups.iter_rows():
        yield f"  {reason}: {count:,}, for example {json.dumps(path or name)}: {detail}"


if __name__ == "__main__":
    runner.run(main)
