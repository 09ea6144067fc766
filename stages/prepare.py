"""Stage ``prepare``: a raw corpus → a sharded Arrow table, with every file accounted for.

An item that cannot be read or used is dropped, counted by reason and named in ``dropped.parquet``; it never ends the
run. The shards are the same bytes for any number of workers.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import polars as pl

from d2v_core import modalities
from d2v_core.config import check_keys
from d2v_core.data.files import publish, publish_folder
from d2v_core.data.table import SPLITS, Row, write_index, write_shard
from d2v_core.errors import Dropped, UserError
from stages import params, readers, runner
from stages.layouts import CorpusConfig, Record, manifest
from stages.paths import METRICS, TABLES, VOCABULARIES
from stages.progress import track
from stages.symbols import read_symbols

SECONDS_ALONE = 3.0
DROPPED = {"id": pl.String, "path": pl.String, "split": pl.String, "reason": pl.String, "detail": pl.String}


@dataclass(frozen=True)
class Shard:
    """The work of one worker: which items go into which file, and how."""

    path: Path
    split: str
    records: Sequence[Record]
    modality: str
    table: object
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """What became of a shard: its entry in the index, items kept, their amount in the modality's unit, and the rest."""

    entry: Mapping
    kept: int
    amount: float
    dropped: Sequence[dict[str, str | None]]


def main(name: str) -> None:
    """Write the table of a modality or labelled corpus to ``data/tables/<name>`` and its counts to ``metrics``."""
    modality, corpus, table = read_blocks(name)
    symbols = len(read_symbols(modality))
    items = manifest(corpus, params.get("seed"))
    first = items["id"].is_first_distinct()
    duplicates = items.filter(~first).with_columns(reason=pl.lit("duplicate id"), detail=pl.lit(""))
    classes = tuple(sorted(set(items.filter(pl.col("split") == "train")["label"].drop_nulls())))
    with publish_folder(TABLES / name) as folder:
        shards = plan(
            items.filter(first), folder, corpus.rows_per_shard, modality=modality, table=table, classes=classes
        )
        done = run_all(shards, name)
        dropped = duplicates.select(*DROPPED).to_dicts() + [row for result in done for row in result.dropped]
        counts = count(items, shards, done, dropped, modality)
        check(counts, corpus, dropped)
        entries = {shard.path.name: result.entry for shard, result in zip(shards, done, strict=True)}
        write_index(folder, entries, classes, symbols)
        pl.DataFrame(dropped, schema=DROPPED).sort("id", "path").write_parquet(folder / "dropped.parquet")
    with publish(METRICS / name / "counts.json") as path:
        path.write_text(json.dumps(counts, indent=1) + "\n")
    print(f"{name}: {counts['seen']} items seen, {counts['kept']} kept, {counts['seen'] - counts['kept']} dropped")


def read_blocks(name: str) -> tuple[str, CorpusConfig, object]:
    """Return the modality, the corpus and the table's block of the modality or labelled corpus ``name``."""
    blocks, labelled = params.get("modalities"), params.load().get("labelled") or {}
    check_keys({name: None}, [*blocks, *labelled], f"{params.PATH}: modalities")
    where = f"labelled.{name}" if name in labelled else f"modalities.{name}"
    modality = params.get(f"{where}.modality") if name in labelled else name
    corpus = params.read(CorpusConfig, f"{where}.corpus")
    table = params.read(modalities.get(modality).TableConfig, f"modalities.{modality}.table")
    return modality, corpus, table


def plan(
    items: pl.DataFrame, folder: Path, size: int, *, modality: str, table: object, classes: tuple[str, ...]
) -> list[Shard]:
    """Cut every split into shards of ``size`` items, in the order of their ids."""
    shards = []
    for split in SPLITS:
        members = items.filter(pl.col("split") == split)
        for number, part in enumerate(members.iter_slices(size)):
            path = folder / f"{split}-{number:05d}.arrow"
            shards.append(Shard(path, split, part.to_dicts(), modality, table, classes))
    return shards


def run_all(shards: Sequence[Shard], name: str) -> list[Done]:
    """Write all shards and return what became of each, in order."""
    try:
        return list(track(results(shards), f"prepare-{name}", len(shards), unit="shards"))
    except BrokenProcessPool:
        raise UserError(f"a process that decodes {name} was ended; lower rows_per_shard if memory is short.") from None


def results(shards: Sequence[Shard]) -> Iterator[Done]:
    """Write shards in this process, and what is left after ``SECONDS_ALONE`` in several: they take long to start."""
    workers, began = min(len(shards), os.cpu_count() or 1), time.monotonic()
    for number, shard in enumerate(shards):
        if workers > 1 and time.monotonic() - began > SECONDS_ALONE:
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                yield from pool.map(make_shard, shards[number:])
            return
        yield make_shard(shard)


def make_shard(shard: Shard) -> Done:
    """Decode a shard's items and write its file."""
    modality = modalities.get(shard.modality)
    rows, dropped, kept = [], [], 0
    for record in shard.records:
        try:
            made = make_rows(record, shard)
        except Dropped as error:
            named = {name: record[name] for name in ("id", "path", "split")}
            dropped.append(named | {"reason": error.reason, "detail": error.detail})
            continue
        label = shard.classes.index(record["label"]) if record["label"] is not None else None
        rows += [row | {"id": record["id"], "label": label, "text": record["text"]} for row in made]
        kept += 1
    amount = sum(modality.amount(row, shard.table) for row in rows)
    return Done(write_shard(shard.path, modality.columns, rows), kept, amount, dropped)


def make_rows(record: Record, shard: Shard) -> list[Row]:
    """Decode one item into its rows; whatever goes wrong inside a codec is a reason to drop it."""
    if record["label"] is not None and record["label"] not in shard.classes:
        raise Dropped("unknown label", f"{record['label']!r} is not among the training labels")
    try:
        decoded = readers.read(record, shard.table, VOCABULARIES / shard.modality)
        return modalities.get(shard.modality).rows(decoded, shard.table)
    except Dropped:
        raise
    except Exception as error:  # codecs raise anything
        raise Dropped("unreadable", f"{type(error).__name__}: {error}") from error


def count(
    items: pl.DataFrame, shards: Sequence[Shard], done: Sequence[Done], dropped: Sequence[Mapping], modality: str
) -> dict:
    """Return the counts: items seen, kept and dropped by reason, and rows and amount per split."""
    unit = modalities.get(modality).unit
    splits = {}
    for split in SPLITS:
        results = [result for shard, result in zip(shards, done, strict=True) if shard.split == split]
        splits[split] = {
            "seen": int((items["split"] == split).sum()),
            "kept": sum(result.kept for result in results),
            "rows": sum(result.entry["rows"] for result in results),
            unit: round(sum(result.amount for result in results), 3),
        }
    reasons = dict(sorted(Counter(row["reason"] for row in dropped).items()))
    kept = sum(split["kept"] for split in splits.values())
    return {"seen": len(items), "kept": kept, "unit": unit, "dropped": reasons, "splits": splits}


def check(counts: Mapping, corpus: CorpusConfig, dropped: Sequence[Mapping]) -> None:
    """Raise UserError when items are unaccounted for, too many were dropped, or nothing is left to train on."""
    lost = counts["seen"] - counts["kept"] - sum(counts["dropped"].values())
    if lost:
        raise UserError(
            f"{corpus.raw}: {lost} items are neither kept nor dropped; this is a fault of d2v, please report it."
        )
    example = "".join(
        f"; for example {row['path'] or row['id']}: {row['reason']} ({row['detail']})" for row in dropped[:1]
    )
    if counts["splits"]["train"]["rows"] == 0:
        raise UserError(f"{corpus.raw} left no rows in its 'train' split; dropped: {counts['dropped']}{example}.")
    share = 1 - counts["kept"] / counts["seen"]
    if share > corpus.max_dropped:
        reasons = f"{counts['dropped']}, more than `max_dropped` allows{example}"
        raise UserError(f"{corpus.raw}: {share:.0%} of the items were dropped: {reasons}.")


if __name__ == "__main__":
    runner.run(main)
