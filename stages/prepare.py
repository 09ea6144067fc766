"""Stage ``prepare``: a raw corpus → a sharded Arrow table, with every file accounted for.

An item that cannot be read or used is dropped, counted by reason and named in ``dropped.parquet``; it never ends the
run. The shards are the same bytes for any number of workers and machines, and those that are finished are not made
again (``stages.preparation``). How many were reused is printed: ``metrics`` are the same in every run.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import polars as pl

from d2v_core import modalities
from d2v_core.config import check_keys
from d2v_core.data.files import publish
from d2v_core.data.table import SPLITS
from stages import params, runner
from stages.layouts import CorpusConfig, manifest
from stages.paths import METRICS, STATE, TABLES, VOCABULARIES
from stages.preparation import accounts, shards
from stages.preparation.cuts import cut
from stages.preparation.executors import PROCESSES, results
from stages.preparation.publishing import publish_table
from stages.preparation.shards import Task
from stages.preparation.store import Done
from stages.progress import track
from stages.symbols import read_symbols


def main(name: str) -> None:
    """Write the table of a modality or labelled corpus to ``data/tables/<name>`` and its counts to ``metrics``."""
    modality, corpus, table = read_blocks(name)
    symbols = len(read_symbols(modality))
    items = manifest(corpus, params.get("seed"))
    first = items["id"].is_first_distinct()
    labels = items.filter(pl.col("split") == "train")["label"].drop_nulls()
    classes = sorted({name for label in set(labels) for name in names_in(label, corpus)})
    where = place(name)
    job = shards.begin(modality, table, VOCABULARIES / modality, where or str(STATE / "shards" / name))
    parts = plan(items.filter(first), corpus.rows_per_shard)
    done, dropped = make(name, job, parts, items.filter(~first), len(items), corpus, classes)
    counts = accounts.count(items, done, dropped, modality)
    accounts.check(counts, corpus, dropped)
    publish_table(job.store, where or TABLES / name, done, dropped, classes, symbols, asdict(table))
    with publish(METRICS / name / "counts.json") as path:
        path.write_text(json.dumps(counts, indent=1) + "\n")
    reused = sum(result.reused for _, result in done)
    if reused:
        print(f"{name}: {reused} of {len(done)} shards were there already")
    if counts.get("replaced"):
        print(f"{name}: {counts['replaced']} characters stand for what was not text")
    print(f"{name}: {counts['seen']} items seen, {counts['kept']} kept, {counts['seen'] - counts['kept']} dropped")


def read_blocks(name: str) -> tuple[str, CorpusConfig, Any]:
    """Return the modality, the corpus and the table's block of the modality or labelled corpus ``name``."""
    blocks, labelled = params.get("modalities"), params.load().get("labelled") or {}
    check_keys({name: None}, [*blocks, *labelled], f"{params.PATH}: modalities")
    where = f"labelled.{name}" if name in labelled else f"modalities.{name}"
    modality = params.get(f"{where}.modality") if name in labelled else name
    corpus = params.read(CorpusConfig, f"{where}.corpus")
    table = params.read(modalities.get(modality).TableConfig, f"modalities.{modality}.table")
    return modality, corpus, table


def place(name: str) -> str | None:
    """Return the URL of the table ``name`` where params.yaml sends ``tables`` to one; None for ``data/tables``."""
    tables = setting("tables", "")
    return f"{tables.rstrip('/')}/{name}" if tables else None


def setting(key: str, default: str) -> str:
    """Return a value of params.yaml that need not be there."""
    return params.get(key, str) if key in params.load() else default


def plan(items: pl.DataFrame, size: int) -> list[tuple[str, pl.DataFrame]]:
    """Cut every split, in the order of its ids, into shards of about ``size`` items: (split, items) each."""
    parts = []
    for split in SPLITS:
        members = items.filter(pl.col("split") == split)
        parts += [(split, members[part]) for part in cut(members["id"].to_list(), size)]
    return parts


def names_in(label: str, corpus: CorpusConfig) -> list[str]:
    """Return the names of classes in a label, in order and each once: several where the corpus has a ``separator``."""
    if not corpus.separator:
        return [label]
    return sorted({name.strip() for name in label.split(corpus.separator)} - {""})


def tasks(
    job: shards.Job, parts: Sequence[tuple[str, pl.DataFrame]], classes: Sequence[str], corpus: CorpusConfig
) -> Iterator[Task]:
    """Yield the task of every shard, made when it is asked for; names that training does not have are left out."""
    numbers = {label: number for number, label in enumerate(classes)}
    for split, part in parts:
        labels = sorted(set(part["label"].drop_nulls()))
        known = {label: [numbers[name] for name in names_in(label, corpus) if name in numbers] for label in labels}
        known = {label: found for label, found in known.items() if found}
        yield Task(job, split, part.to_dicts(), known, bool(corpus.separator))


def make(
    name: str,
    job: shards.Job,
    parts: Sequence[tuple[str, pl.DataFrame]],
    duplicates: pl.DataFrame,
    seen: int,
    corpus: CorpusConfig,
    classes: Sequence[str],
) -> tuple[list[tuple[str, Done]], pl.DataFrame]:
    """Make all shards; return split and outcome of each, and what was dropped, sorted by id.

    Raises UserError as soon as more is dropped than ``max_dropped`` allows.
    """
    twice = duplicates.with_columns(reason=pl.lit("duplicate id"), detail=pl.lit("")).select(*accounts.DROPPED)
    done = []
    dropped: list[Mapping[str, Any]] = [*twice.to_dicts()]
    remote = "://" in job.store or "://" in corpus.raw
    made = results(tasks(job, parts, classes, corpus), len(parts), setting("executor", PROCESSES), remote)
    for (split, _), result in zip(parts, track(made, f"prepare-{name}", len(parts), unit="shards"), strict=True):
        done.append((split, result))
        dropped += result.dropped
        if len(dropped) > corpus.max_dropped * seen and len(done) < len(parts):
            accounts.limit(pl.DataFrame(dropped, schema=accounts.DROPPED), seen, corpus)
    return done, pl.DataFrame(dropped, schema=accounts.DROPPED).sort("id", "path")


if __name__ == "__main__":
    runner.run(main)
